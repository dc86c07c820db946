//! Reads the footer of an inbox object and holds it against the object's name and the schema of
//! `history`: what comes from an agent is checked before it is believed.

use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute;
use arrow::datatypes::{Int64Type, Schema, TimestampMicrosecondType};
use flowtap_record::footer as keys;
use flowtap_record::path::InboxName;
use flowtap_record::{Micros, SchemaVersion, history_schema};
use object_store::ObjectMeta;

use super::Store;

/// Bytes read at once from the object's end: most footers are within.
const FOOTER_GUESS: usize = 64 << 10;

/// What the footer says, and the name bears out.
pub(crate) struct Footer {
    pub(crate) rows: usize,
    pub(crate) uploaded_at: Micros,
    pub(crate) watermark: Micros,
    pub(crate) at: Option<(Micros, Micros)>,
    /// Its schema, where that is newer than ours: it may have columns that are not known here.
    pub(crate) newer: Option<SchemaVersion>,
}

/// Reads and checks. The error is a sentence for the warning and for the row in `gaps`.
pub(super) async fn read(
    store: &Store,
    name: &InboxName,
    meta: &ObjectMeta,
) -> Result<Footer, String> {
    let footer = DFParquetMetadata::new(store.objects().as_ref(), meta)
        .with_metadata_size_hint(Some(FOOTER_GUESS))
        .with_file_metadata_cache(Some(store.footers().clone()))
        .with_page_index_policy(Some(PageIndexPolicy::Skip))
        .fetch_metadata()
        .await
        .map_err(|error| format!("not readable as Parquet: {}", error.strip_backtrace()))?;
    check(name, &footer)
}

/// Holds a footer that is at hand against the name.
pub(crate) fn check(
    name: &InboxName,
    footer: &std::sync::Arc<ParquetMetaData>,
) -> Result<Footer, String> {
    let pairs = footer.file_metadata().key_value_metadata().map_or(&[][..], Vec::as_slice);
    let value = |key: &str| -> Result<&str, String> {
        let pair = pairs.iter().find(|pair| pair.key == key);
        pair.and_then(|pair| pair.value.as_deref())
            .ok_or_else(|| format!("its footer has no {key}"))
    };
    let same = |key: &str, want: &str| -> Result<(), String> {
        let found = value(key)?;
        if found == want {
            Ok(())
        } else {
            Err(format!("its footer says {key} = {found:?}, expected {want:?}"))
        }
    };
    let schema: SchemaVersion =
        value(keys::SCHEMA)?.parse().map_err(|why| format!("{}: {why}", keys::SCHEMA))?;
    let own = SchemaVersion::OWN;
    if schema.major != own.major {
        return Err(format!("its schema is {schema}, this Flowtap reads {}.x only", own.major));
    }
    let newer = (schema > own).then_some(schema);
    same(keys::AGENT, &name.agent)?;
    same(keys::BOOT, &name.boot)?;
    same(keys::FIRST, &name.first.0.to_string())?;
    same(keys::LAST, &name.last.0.to_string())?;
    let time = |key: &str| -> Result<Micros, String> {
        let text = value(key)?;
        text.parse().map(Micros).map_err(|_| format!("{key} = {text:?} is no number"))
    };
    let uploaded_at = time(keys::UPLOADED_AT)?;
    let watermark = time(keys::WATERMARK)?;

    let arrow = ArrowReaderMetadata::try_new(footer.clone(), ArrowReaderOptions::new())
        .map_err(|error| format!("its columns are not readable: {error}"))?;
    check_columns(arrow.schema(), schema)?;
    let columns = Columns { footer, schema: arrow.schema() };
    check_rows(name, &columns)?;
    let at = columns.bounds("at").and_then(|(low, high)| {
        let low = compute::min(low.as_primitive_opt::<TimestampMicrosecondType>()?)?;
        let high = compute::max(high.as_primitive_opt::<TimestampMicrosecondType>()?)?;
        Some((Micros(low), Micros(high)))
    });
    let rows = usize::try_from(footer.file_metadata().num_rows())
        .map_err(|_| "its footer counts a negative number of rows".to_owned())?;
    Ok(Footer { rows, uploaded_at, watermark, at, newer })
}

/// Columns of the contract are of their types. One that may be null may be missing: it was added since.
/// Others are there only by a newer schema.
fn check_columns(found: &Schema, schema: SchemaVersion) -> Result<(), String> {
    let known = history_schema();
    for want in known.fields() {
        let name = want.name();
        let Ok(column) = found.field_with_name(name) else {
            if want.is_nullable() {
                continue;
            }
            return Err(format!("it has no column {name}"));
        };
        if column.data_type() != want.data_type() {
            let (is, want) = (column.data_type(), want.data_type());
            return Err(format!("its column {name} is {is}, expected {want}"));
        }
        if column.is_nullable() && !want.is_nullable() {
            return Err(format!("its column {name} may be null"));
        }
    }
    let mut names = found.fields().iter().map(|it| it.name().as_str());
    if schema <= SchemaVersion::OWN
        && let Some(name) = names.find(|name| known.field_with_name(name).is_err())
    {
        return Err(format!("it has a column {name}, which schema {schema} does not have"));
    }
    Ok(())
}

/// The rows' own `agent`, `boot` and `seq` against the name, by the statistics.
fn check_rows(name: &InboxName, columns: &Columns<'_>) -> Result<(), String> {
    if columns.footer.row_groups().iter().all(|group| group.num_rows() == 0) {
        return Ok(());
    }
    let (low, high) = columns.bounds("seq").ok_or("it has no statistics of seq")?;
    let (low, high) = (low.as_primitive::<Int64Type>(), high.as_primitive::<Int64Type>());
    if low.null_count() + high.null_count() > 0 {
        return Err("it has no statistics of seq".to_owned());
    }
    if let (Some(low), Some(high)) = (compute::min(low), compute::max(high))
        && (low < name.first.0 || high > name.last.0)
    {
        return Err(format!("it holds rows {low} to {high}, outside the range of its name"));
    }
    // A long agent name is cut off in statistics and then not exact. That is no hole: the
    // columns `agent` and `boot` of a row are taken from the object's name.
    for (column, want) in [("agent", &name.agent), ("boot", &name.boot)] {
        let Some((low, high)) = columns.exact_bounds(column) else { continue };
        let texts = [low.as_string_opt::<i32>(), high.as_string_opt::<i32>()];
        if let Some(other) = texts
            .into_iter()
            .flatten()
            .flat_map(|texts| texts.iter().flatten())
            .find(|text| text != want)
        {
            return Err(format!("it holds rows of {column} {other:?}"));
        }
    }
    Ok(())
}

/// Statistics by column, one value a row group.
struct Columns<'a> {
    footer: &'a ParquetMetaData,
    schema: &'a Schema,
}

impl Columns<'_> {
    fn converter<'s>(&'s self, column: &'s str) -> Option<StatisticsConverter<'s>> {
        let parquet = self.footer.file_metadata().schema_descr();
        StatisticsConverter::try_new(column, self.schema, parquet).ok()
    }

    fn bounds(&self, column: &str) -> Option<(ArrayRef, ArrayRef)> {
        let converter = self.converter(column)?;
        let groups = self.footer.row_groups();
        Some((converter.row_group_mins(groups).ok()?, converter.row_group_maxes(groups).ok()?))
    }

    fn exact_bounds(&self, column: &str) -> Option<(ArrayRef, ArrayRef)> {
        let converter = self.converter(column)?;
        let groups = self.footer.row_groups();
        let all = |exact: &BooleanArray| exact.iter().all(|exact| exact == Some(true));
        let exact = all(&converter.row_group_is_min_value_exact(groups).ok()?)
            && all(&converter.row_group_is_max_value_exact(groups).ok()?);
        if exact { self.bounds(column) } else { None }
    }
}
