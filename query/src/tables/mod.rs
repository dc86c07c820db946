//! Makes DataFusion tables of what [`crate::store`] lists: `history`, and the views over it. Its
//! output is a [`SessionContext`] that knows these tables and nothing else: no folder, no URL, no
//! way to write.

mod files;
mod flows;
mod functions;
mod guard;
mod history;
mod passed;
mod scan;
mod views;

use std::sync::Arc;
use std::time::Duration;

use datafusion::common::Result;
use datafusion::config::Dialect;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionStateBuilder, cache::cache_manager::CacheManagerConfig};
use datafusion::prelude::{SessionConfig, SessionContext};

pub(crate) use self::flows::{parts_beside, reached};
use crate::store::{Store, StoreError};

/// What one query may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory that joins, sorts and aggregates may hold together.
    pub memory_bytes: usize,
    /// Wall time, from opening the store to the last row.
    pub timeout: Duration,
    /// Rows of the answer.
    pub rows: usize,
    /// Threads at work on one query.
    pub partitions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            memory_bytes: 512 << 20,
            timeout: Duration::from_secs(30),
            rows: 10_000,
            partitions: cores.min(8),
        }
    }
}

/// Why there are no tables.
#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    /// The store cannot be listed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// DataFusion refused what we made of it.
    #[error("the tables cannot be made: {0}")]
    DataFusion(#[from] datafusion::error::DataFusionError),
}

/// Rows that DataFusion handles at a time. Fewer than its own choice of 8192: payloads can be
/// large, and what a batch holds while it is decoded is not counted against the memory limit.
const BATCH_ROWS: usize = 2048;

/// The tables of `store` as they are now: what is put there later is seen by a later context.
pub async fn context(store: &Store, limits: &Limits) -> Result<SessionContext, TablesError> {
    let inbox = Arc::new(store.inbox(flowtap_record::path::HISTORY).await?);
    let history = Arc::new(history::view(&inbox)?);
    let refused = history::refused(&inbox)?;

    // The views are planned where the tables below them have names, and shown where these do not.
    let workshop = empty_context(store, limits)?;
    passed::register(&workshop);
    flows::register(&workshop);
    workshop.register_table("flow_parts", Arc::new(flows::Parts::new(store, &inbox)))?;
    workshop.register_table("history", Arc::clone(&history) as _)?;
    workshop.register_table("refused", Arc::new(refused))?;
    let context = empty_context(store, limits)?;
    context.register_table("history", history)?;
    for (name, view) in views::plan(&workshop).await? {
        context.register_table(name, Arc::new(view))?;
    }
    Ok(context)
}

/// A context with our functions, our limits and no table.
fn empty_context(store: &Store, limits: &Limits) -> Result<SessionContext> {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema("flowtap", "public")
        .with_information_schema(true)
        .with_target_partitions(limits.partitions)
        .with_batch_size(BATCH_ROWS);
    let options = config.options_mut();
    options.sql_parser.dialect = Dialect::PostgreSQL;
    options.sql_parser.collect_spans = true;
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.reorder_filters = true;

    let stores = DefaultObjectStoreRegistry::new();
    let local = url::Url::parse("file://").expect("a constant");
    stores.deregister_store(&local)?;
    stores.register_store(scan::STORE_URL.as_ref(), Arc::clone(store.objects()));
    let caches = CacheManagerConfig::default()
        .with_file_metadata_cache(Some(Arc::clone(store.footers())))
        .with_metadata_cache_limit(store.footers().cache_limit())
        .with_list_files_cache(None)
        .with_list_files_cache_limit(0)
        .with_file_statistics_cache_limit(0);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(limits.memory_bytes)))
        .with_disk_manager_builder(
            DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
        )
        .with_cache_manager(caches)
        .with_object_store_registry(Arc::new(stores))
        .build_arc()?;
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_table_factories(std::collections::HashMap::new())
        .with_file_formats(Vec::new())
        .build();
    let context = SessionContext::new_with_state(state);
    functions::register(&context);
    guard::register(&context);
    Ok(context)
}
