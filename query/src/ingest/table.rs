//! Writing Delta tables: making one, and committing files that are already put.

use std::collections::HashMap;

use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel as _;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake_core::kernel::{Action, MetadataExt as _, StructField, StructType, Transaction};
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableError};
use tracing::info;

use super::files::SortedBy;
use super::{IngestError, RACES, is_conflict};
use crate::store::{Store, StoreError};

/// Commits between two checkpoints: a reader replays no more than these.
const CHECKPOINT_EVERY: u64 = 20;
/// The application id of those who take files away, or add columns.
const TIDY: &str = "flowtap-tidy";
/// Old commits are looked for so often.
const CLEAN_LOG_EVERY: u64 = 200;

/// The table `name`, made with these columns if it isn't there. The last column is the partition.
pub(crate) async fn open(
    store: &Store,
    name: &str,
    schema: &Schema,
    sorted_by: SortedBy,
) -> Result<DeltaTable, IngestError> {
    for _ in 0..RACES {
        let table = match store.delta(name).await? {
            Some(table) => table,
            None => make(store, name, schema, sorted_by).await?,
        };
        if fits(store, name, &table, schema).await? {
            return Ok(table);
        }
    }
    Err(IngestError::Races)
}

async fn make(
    store: &Store,
    name: &str,
    schema: &Schema,
    sorted_by: SortedBy,
) -> Result<DeltaTable, StoreError> {
    match create(store, name, schema, sorted_by).await {
        Ok(table) => Ok(table),
        // Perhaps somebody else has just made it.
        Err(error) => match store.delta(name).await? {
            Some(table) => Ok(table),
            None => Err(store.table_trouble(name, error)),
        },
    }
}

/// Whether a table has the columns of `schema`, and no other. Adds those that are missing: false then,
/// also where somebody else was quicker, and the table is to be loaded again. Its files stay as they are.
///
/// # Errors
/// When it has columns beyond these, for it is a newer Flowtap's; or one of another type.
pub(super) async fn fits(
    store: &Store,
    name: &str,
    table: &DeltaTable,
    schema: &Schema,
) -> Result<bool, IngestError> {
    let trouble = |error| IngestError::from(store.table_trouble(name, error));
    let wrong = |column: &StructField, why: &str| IngestError::Columns {
        url: store.url().to_owned(),
        table: name.to_owned(),
        column: column.name().clone(),
        why: why.to_owned(),
    };
    let snapshot = table.snapshot().map_err(trouble)?;
    let found = snapshot.schema();
    let wanted: StructType =
        schema.try_into_kernel().map_err(|error: ArrowError| trouble(error.into()))?;
    let unknown = found.fields().filter(|it| wanted.field(it.name()).is_none());
    let unknown: Vec<&str> = unknown.map(|it| it.name().as_str()).collect();
    if !unknown.is_empty() {
        return Err(IngestError::Newer {
            url: store.url().to_owned(),
            table: name.to_owned(),
            columns: unknown.join(", "),
        });
    }
    let mut missing = Vec::new();
    for column in wanted.fields() {
        match found.field(column.name()) {
            Some(is) if is.data_type() == column.data_type() => {}
            Some(is) => {
                let why = format!("is {}, expected {}", is.data_type(), column.data_type());
                return Err(wrong(column, &why));
            }
            None if column.is_nullable() => missing.push(column.clone()),
            None => return Err(wrong(column, "is missing, and is never null")),
        }
    }
    if missing.is_empty() {
        return Ok(true);
    }
    let names: Vec<&str> = missing.iter().map(|it| it.name().as_str()).collect();
    info!(table = name, columns = names.join(", "), "columns are added");
    let grown = StructType::try_new(found.fields().chain(&missing).cloned());
    let grown = grown.map_err(|error| trouble(error.into()))?;
    let metadata = snapshot.metadata().clone().with_schema(&grown);
    let metadata = metadata.map_err(|error| trouble(error.into()))?;
    let operation = DeltaOperation::AddColumn { fields: missing };
    tidy(store, name, table, vec![Action::Metadata(metadata)], operation).await?;
    Ok(false)
}

async fn create(
    store: &Store,
    name: &str,
    schema: &Schema,
    sorted_by: SortedBy,
) -> Result<DeltaTable, DeltaTableError> {
    let partition = schema.fields().last().map(|field| field.name().clone());
    let columns: StructType = schema.try_into_kernel()?;
    let properties = [
        ("delta.checkpointInterval", CHECKPOINT_EVERY.to_string()),
        ("delta.dataSkippingStatsColumns", format!("{},{}", sorted_by.time, sorted_by.key)),
        ("delta.deletedFileRetentionDuration", "interval 1 day".to_owned()),
        ("delta.logRetentionDuration", "interval 7 days".to_owned()),
    ];
    CreateBuilder::new()
        .with_log_store(store.delta_log(name)?)
        .with_table_name(name)
        .with_columns(columns.fields().cloned())
        .with_partition_columns(partition)
        .with_configuration(properties.map(|(key, value)| (key, Some(value))))
        .with_save_mode(SaveMode::ErrorIfExists)
        .await
}

/// Commits actions together with application transactions: their names and numbers. Fails without any
/// effect when somebody else committed such an application since `table` was loaded; on any other failure
/// the commit may have been made: load the table again and look at the number.
pub(crate) async fn commit(
    table: &DeltaTable,
    actions: Vec<Action>,
    apps: &[(&str, u64)],
    operation: DeltaOperation,
) -> Result<u64, DeltaTableError> {
    let snapshot = table.snapshot()?;
    let next = snapshot.version() + 1;
    let apps = apps.iter().map(|(app, number)| Transaction::new(*app, *number as i64)).collect();
    let properties = CommitProperties::default()
        .with_application_transactions(apps)
        .with_cleanup_expired_logs(Some(next.is_multiple_of(CLEAN_LOG_EVERY)));
    let committed = CommitBuilder::from(properties)
        .with_actions(actions)
        .with_app_metadata(HashMap::from([(
            "engineInfo".to_owned(),
            concat!("flowtap/", env!("CARGO_PKG_VERSION")).into(),
        )]))
        .build(Some(snapshot.snapshot()), table.log_store(), operation)
        .await?;
    Ok(committed.version())
}

/// The operation of a commit that adds rows.
pub(crate) fn append() -> DeltaOperation {
    DeltaOperation::Write {
        mode: SaveMode::Append,
        partition_by: Some(vec!["day".to_owned()]),
        predicate: None,
    }
}

/// Commits actions that take files away or add columns. Delta's own check lets two merges of the same
/// files through, which would double their rows: so all who do this take turns at one number. False:
/// somebody else was quicker.
pub(super) async fn tidy(
    store: &Store,
    name: &str,
    table: &DeltaTable,
    actions: Vec<Action>,
    operation: DeltaOperation,
) -> Result<bool, StoreError> {
    tidy_with(store, name, table, actions, Vec::new(), operation).await
}

/// The same with further application transactions.
pub(super) async fn tidy_with(
    store: &Store,
    name: &str,
    table: &DeltaTable,
    actions: Vec<Action>,
    mut apps: Vec<(&str, u64)>,
    operation: DeltaOperation,
) -> Result<bool, StoreError> {
    let trouble = |error| store.table_trouble(name, error);
    apps.push((TIDY, number(table, TIDY).await.map_err(trouble)? + 1));
    match commit(table, actions, &apps, operation).await {
        Ok(_) => Ok(true),
        Err(error) if is_conflict(&error) => Ok(false),
        Err(error) => Err(trouble(error)),
    }
}

/// The version of an application, 0 before its first commit.
pub(crate) async fn number(table: &DeltaTable, app: &str) -> Result<u64, DeltaTableError> {
    let snapshot = table.snapshot()?;
    let number = snapshot.transaction_version(table.log_store().as_ref(), app).await?;
    Ok(number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default())
}
