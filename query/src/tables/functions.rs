//! Functions that Flowtap adds to SQL: `json_get` for `details`, `field_get` for `keys` and
//! `headers`. And `day_of`, the rule of [`flowtap_record::day_of`] for the column `day`.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, ListArray, StringArray, StringBuilder, StructArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::SessionContext;

use flowtap_record::Micros;

/// Makes the functions known by name.
pub(super) fn register(context: &SessionContext) {
    context.register_udf(Function::udf(Name::JsonGet));
    context.register_udf(Function::udf(Name::FieldGet));
}

/// The type of times.
pub(super) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The UTC date of `at`, clamped to the time of upload.
pub(super) fn day_of(at: Expr, uploaded_at: Expr) -> Expr {
    static DAY_OF: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(Function::udf(Name::DayOf)));
    DAY_OF.call(vec![at, uploaded_at])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Name {
    JsonGet,
    FieldGet,
    DayOf,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    name: Name,
    signature: Signature,
}

impl Function {
    fn udf(name: Name) -> ScalarUDF {
        let signature = match name {
            Name::JsonGet => Signature::string(2, Volatility::Immutable),
            Name::FieldGet => Signature::any(2, Volatility::Immutable),
            Name::DayOf => Signature::exact(vec![timestamp(), timestamp()], Volatility::Immutable),
        };
        ScalarUDF::new_from_impl(Self { name, signature })
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        match self.name {
            Name::JsonGet => "json_get",
            Name::FieldGet => "field_get",
            Name::DayOf => "day_of",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.name {
            Name::JsonGet | Name::FieldGet => DataType::Utf8,
            Name::DayOf => DataType::Date32,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let arrays = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let result = match self.name {
            Name::JsonGet => json_get(&arrays),
            Name::FieldGet => field_get(&arrays),
            Name::DayOf => Ok(days(&arrays)),
        }?;
        if scalar {
            let value = datafusion::common::ScalarValue::try_from_array(&result, 0)?;
            return Ok(ColumnarValue::Scalar(value));
        }
        Ok(ColumnarValue::Array(result))
    }
}

fn texts(array: &ArrayRef) -> Result<StringArray> {
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// `json_get(text, pointer)`: what RFC 6901 `pointer` names in the JSON `text`: a string as it
/// is, anything else as JSON; null where there is nothing, or null, or no JSON.
fn json_get(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (documents, pointers) = (texts(&args[0])?, texts(&args[1])?);
    let mut out = StringBuilder::new();
    for (document, pointer) in documents.iter().zip(&pointers) {
        let (Some(document), Some(pointer)) = (document, pointer) else {
            out.append_null();
            continue;
        };
        let document: Option<serde_json::Value> = serde_json::from_str(document).ok();
        match document.as_ref().and_then(|document| document.pointer(pointer)) {
            None | Some(serde_json::Value::Null) => out.append_null(),
            Some(serde_json::Value::String(text)) => out.append_value(text),
            Some(other) => out.append_value(other.to_string()),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// `field_get(fields, name)`: the value of the first of `keys` or `headers` that bears `name`.
fn field_get(args: &[ArrayRef]) -> Result<ArrayRef> {
    let names = texts(&args[1])?;
    if args[0].data_type() == &DataType::Null {
        return Ok(Arc::new(StringArray::new_null(names.len())));
    }
    let parts = |lists: &ListArray| -> Option<(StringArray, StringArray)> {
        let fields: &StructArray = lists.values().as_struct_opt()?;
        let part = |name| texts(fields.column_by_name(name)?).ok();
        Some((part("name")?, part("value")?))
    };
    let Some((lists, (keys, values))) =
        args[0].as_list_opt::<i32>().and_then(|lists| Some((lists, parts(lists)?)))
    else {
        return exec_err!("field_get(fields, name) reads the columns keys and headers");
    };
    let mut out = StringBuilder::new();
    for row in 0..lists.len() {
        let range = lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize;
        let found = if lists.is_null(row) || names.is_null(row) {
            None
        } else {
            range.into_iter().find(|&item| keys.value(item) == names.value(row))
        };
        out.append_option(found.map(|item| values.value(item)));
    }
    Ok(Arc::new(out.finish()))
}

fn days(args: &[ArrayRef]) -> ArrayRef {
    let at = args[0].as_primitive::<TimestampMicrosecondType>();
    let uploaded_at = args[1].as_primitive::<TimestampMicrosecondType>();
    let days: Date32Array = at
        .iter()
        .zip(uploaded_at)
        .map(|(at, uploaded)| Some(flowtap_record::day_of(Micros(at?), Micros(uploaded?))))
        .collect();
    Arc::new(days)
}
