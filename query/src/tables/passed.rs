//! Two functions for the view `consumes`: `group_progress(at, log_offset, agent)` puts a group's
//! positions in one partition together, `has_passed(progress, log_offset, at, agent)` says whether it
//! is past a delivery. Between them a [`Progress`] is a text: `at offset agent;`, mark by mark.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    Accumulator, ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, create_udaf,
};
use datafusion::prelude::SessionContext;
use flowtap_record::Micros;

use super::functions::timestamp;
use crate::progress::{Mark, Progress, beyond};

/// Makes both known by name.
pub(super) fn register(context: &SessionContext) {
    context.register_udaf(create_udaf(
        "group_progress",
        vec![timestamp(), DataType::Int64, DataType::Utf8],
        Arc::new(DataType::Utf8),
        Volatility::Immutable,
        Arc::new(|_| Ok(Box::new(Positions::default()))),
        Arc::new(vec![DataType::Utf8]),
    ));
    let signature = Signature::exact(
        vec![DataType::Utf8, DataType::Int64, timestamp(), DataType::Utf8],
        Volatility::Immutable,
    );
    context.register_udf(ScalarUDF::new_from_impl(HasPassed { signature }));
}

#[derive(Debug, Default)]
struct Positions(Progress);

impl Accumulator for Positions {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (at, offset, agent) = (numbers(&values[0])?, numbers(&values[1])?, texts(&values[2])?);
        for row in 0..at.len() {
            if at.is_valid(row) && offset.is_valid(row) && agent.is_valid(row) {
                self.0.learn(Mark {
                    at: Micros(at.value(row)),
                    offset: offset.value(row),
                    agent: agent.value(row).to_owned(),
                });
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut text = String::new();
        for Mark { at, offset, agent } in self.0.marks() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{} {offset} {agent};", at.0);
        }
        Ok(ScalarValue::from(text))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.marks().len() * (size_of::<Mark>() + 40)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for text in texts(&states[0])?.iter().flatten() {
            for mark in read(text) {
                self.0.learn(mark);
            }
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct HasPassed {
    signature: Signature,
}

impl ScalarUDFImpl for HasPassed {
    fn name(&self) -> &'static str {
        "has_passed"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let (progress, agent) = (texts(&arrays[0])?, texts(&arrays[3])?);
        let (offset, at) = (numbers(&arrays[1])?, numbers(&arrays[2])?);
        let passed = |row| {
            let known = progress.is_valid(row) && offset.is_valid(row) && at.is_valid(row);
            known && {
                let marks = read(progress.value(row));
                let agent = if agent.is_valid(row) { agent.value(row) } else { "" };
                beyond(&marks, offset.value(row), Micros(at.value(row)), agent).is_some()
            }
        };
        let passed: BooleanArray = (0..progress.len()).map(|row| Some(passed(row))).collect();
        Ok(ColumnarValue::Array(Arc::new(passed)))
    }
}

fn read(progress: &str) -> Vec<Mark> {
    let mark = |text: &str| {
        let (at, rest) = text.split_once(' ')?;
        let (offset, agent) = rest.split_once(' ')?;
        let (at, offset) = (Micros(at.parse().ok()?), offset.parse().ok()?);
        Some(Mark { at, offset, agent: agent.to_owned() })
    };
    progress.split(';').filter_map(mark).collect()
}

fn texts(array: &ArrayRef) -> Result<StringArray> {
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

fn numbers(array: &ArrayRef) -> Result<Int64Array> {
    Ok(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}
