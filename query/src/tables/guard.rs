//! Functions of DataFusion that make much of little, with a bound. `repeat('x', 2000000000)` takes
//! 2 GB in one step, which no memory pool sees: here such a call is an error instead.
//!
//! The list holds what multiplies by a number or by the size of another argument. What only
//! doubles (`concat` of itself, again and again) is stopped by the process's own limit.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use datafusion::prelude::SessionContext;

/// What one call may make of one batch of rows.
const MAX_BYTES: f64 = 128.0 * MIB;
const MIB: f64 = 1_048_576.0;

/// How the size of a result follows from the arguments of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Growth {
    /// Size of the first argument times the second: `repeat`, `array_repeat`.
    Times,
    /// The second argument, in characters: `lpad`, `rpad`.
    Length,
    /// The second argument, in items of the size of the third: `array_resize`.
    Items,
    /// From the first to the second argument by the third: `range`, `generate_series`.
    Series,
    /// Each occurrence of the second argument in the first becomes the third: `replace`.
    Replace,
    /// Each byte of the first argument may become the third: `regexp_replace`.
    Match,
    /// Each item of the first argument is followed by the second: `array_to_string`.
    Join,
}

const GUARDED: [(&str, Growth); 10] = [
    ("repeat", Growth::Times),
    ("array_repeat", Growth::Times),
    ("lpad", Growth::Length),
    ("rpad", Growth::Length),
    ("array_resize", Growth::Items),
    ("range", Growth::Series),
    ("generate_series", Growth::Series),
    ("replace", Growth::Replace),
    ("regexp_replace", Growth::Match),
    ("array_to_string", Growth::Join),
];

/// Puts the bounded functions in place of DataFusion's.
pub(super) fn register(context: &SessionContext) {
    for (name, growth) in GUARDED {
        let inner = context.state_ref().read().scalar_functions().get(name).cloned();
        if let Some(inner) = inner {
            context.register_udf(ScalarUDF::new_from_impl(Guarded { inner, growth }));
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Guarded {
    inner: Arc<ScalarUDF>,
    growth: Growth,
}

impl Hash for Guarded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
        self.growth.hash(state);
    }
}

impl ScalarUDFImpl for Guarded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        self.inner.return_type(args)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bytes = estimate(self.growth, &args)?;
        if bytes > MAX_BYTES {
            return exec_err!(
                "{} would make {:.0} MiB at once, more than the {:.0} MiB that a function may",
                self.inner.name(),
                bytes / MIB,
                MAX_BYTES / MIB
            );
        }
        self.inner.invoke_with_args(args)
    }
}

/// Bytes that the result takes, rather too many than too few. In `f64`: sums do not overflow.
fn estimate(growth: Growth, args: &ScalarFunctionArgs) -> Result<f64> {
    let scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    let rows = if scalar { 1 } else { args.number_rows };
    let args = args.args.iter().map(|arg| Argument::new(arg, rows)).collect::<Result<Vec<_>>>()?;
    let number = |at: usize, row: usize| args.get(at).and_then(|arg| arg.number(row));
    let size = |at: usize, row: usize| args.get(at).map_or(0.0, |arg| arg.size(row));
    let one = |row: usize| -> f64 {
        match growth {
            Growth::Times => size(0, row).max(1.0) * number(1, row).unwrap_or(0.0).max(0.0),
            Growth::Length => {
                let padding = size(2, row).clamp(1.0, 4.0);
                number(1, row).unwrap_or(0.0).max(0.0) * padding
            }
            Growth::Items => number(1, row).unwrap_or(0.0).max(0.0) * size(2, row).max(8.0),
            Growth::Series => {
                let (from, to) = match (number(0, row), number(1, row)) {
                    (Some(to), None) => (0.0, to),
                    (Some(from), Some(to)) => (from, to),
                    // Dates and times: left to the process's limit.
                    _ => return 0.0,
                };
                let step = number(2, row).unwrap_or(1.0).abs().max(1.0);
                (to - from).abs() / step * 8.0
            }
            Growth::Replace => {
                let (text, found) = (size(0, row) + 1.0, size(1, row).max(1.0));
                text + text / found * size(2, row)
            }
            Growth::Match => (size(0, row) + 1.0) * (size(2, row) + 1.0),
            Growth::Join => size(0, row) * (size(1, row) + 1.0),
        }
    };
    Ok((0..rows).map(one).sum())
}

/// One argument: its value as a number, and the bytes it takes, row by row.
enum Argument {
    Constant { number: Option<f64>, size: f64 },
    Column { numbers: Option<arrow::array::PrimitiveArray<Int64Type>>, sizes: Sizes },
}

enum Sizes {
    Texts(arrow::array::StringArray),
    /// Other columns: the mean is right in the sum over all rows, unless one multiplies by it.
    Same(f64),
}

impl Argument {
    fn new(arg: &ColumnarValue, rows: usize) -> Result<Self> {
        let numbers = |array: &dyn Array| {
            if array.data_type().is_integer() {
                cast(array, &DataType::Int64).ok().map(|a| a.as_primitive::<Int64Type>().clone())
            } else {
                None
            }
        };
        match arg {
            ColumnarValue::Scalar(value) => {
                let array = value.to_array()?;
                let number = numbers(&array)
                    .filter(|numbers| numbers.is_valid(0))
                    .map(|numbers| numbers.value(0) as f64);
                let size = match value.try_as_str() {
                    Some(text) => text.map_or(0, str::len),
                    None => array.get_array_memory_size(),
                };
                Ok(Self::Constant { number, size: size as f64 })
            }
            ColumnarValue::Array(array) => {
                let sizes = match array.data_type() {
                    DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                        Sizes::Texts(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
                    }
                    _ => Sizes::Same(array.get_array_memory_size() as f64 / rows.max(1) as f64),
                };
                Ok(Self::Column { numbers: numbers(array), sizes })
            }
        }
    }

    fn number(&self, row: usize) -> Option<f64> {
        match self {
            Self::Constant { number, .. } => *number,
            Self::Column { numbers, .. } => {
                let numbers = numbers.as_ref()?;
                numbers.is_valid(row).then(|| numbers.value(row) as f64)
            }
        }
    }

    fn size(&self, row: usize) -> f64 {
        match self {
            Self::Constant { size, .. } | Self::Column { sizes: Sizes::Same(size), .. } => *size,
            Self::Column { sizes: Sizes::Texts(texts), .. } => f64::from(texts.value_length(row)),
        }
    }
}
