//! Lists that parts are put together with: each item once, in order, and of too many the least. Whoever
//! puts which of them together first, the result is the same.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;

/// Items that stay.
const MAX_ITEMS: usize = 100;

/// Items of `N` texts: a list of texts for 1, else of structs with so many texts.
#[derive(Clone, Debug)]
pub(crate) struct Least<const N: usize>(Vec<[String; N]>);

impl<const N: usize> Default for Least<N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<const N: usize> Least<N> {
    /// Takes in the items of one row.
    pub(crate) fn add(&mut self, lists: &ListArray, row: usize) -> Result<(), String> {
        if lists.is_null(row) {
            return Ok(());
        }
        let columns = columns::<N>(lists.values())?;
        for item in lists.value_offsets()[row]..lists.value_offsets()[row + 1] {
            let item = columns.map(|column| column.value(item as usize));
            let place = self.0.binary_search_by(|known| {
                known.iter().map(String::as_str).cmp(item.iter().copied())
            });
            if let Err(place) = place
                && place < MAX_ITEMS
            {
                self.0.insert(place, item.map(str::to_owned));
                self.0.truncate(MAX_ITEMS);
            }
        }
        Ok(())
    }

    /// Bytes that it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().flatten().map(|text| size_of::<String>() + text.len()).sum()
    }

    /// A list a row, none where there are no items.
    pub(crate) fn write<'a>(
        all: impl Iterator<Item = &'a Self> + Clone,
        of: &DataType,
    ) -> Result<ArrayRef, String> {
        let DataType::List(item) = of else { return Err(format!("{of} is no list")) };
        let column = |index: usize| -> ArrayRef {
            let items = all.clone().flat_map(|least| &least.0);
            let texts: Vec<&str> = items.map(|item| item[index].as_str()).collect();
            Arc::new(StringArray::from(texts))
        };
        let values = match item.data_type() {
            DataType::Struct(fields) => {
                let columns = (0..fields.len()).map(column).collect();
                Arc::new(StructArray::new(fields.clone(), columns, None)) as ArrayRef
            }
            _ => column(0),
        };
        let offsets = OffsetBuffer::from_lengths(all.clone().map(|least| least.0.len()));
        let valid = all.map(|least| !least.0.is_empty()).collect::<Vec<bool>>();
        let lists = ListArray::try_new(Arc::clone(item), offsets, values, Some(valid.into()));
        Ok(Arc::new(lists.map_err(|error| error.to_string())?))
    }
}

/// The texts of items. Those that are null were never written: they read as empty.
fn columns<const N: usize>(items: &ArrayRef) -> Result<[&StringArray; N], String> {
    let texts: Option<Vec<&StringArray>> = match items.as_struct_opt() {
        Some(fields) => fields.columns().iter().map(|it| it.as_string_opt::<i32>()).collect(),
        None => items.as_string_opt::<i32>().map(|texts| vec![texts]),
    };
    let texts = texts.and_then(|texts| texts.try_into().ok());
    texts.ok_or_else(|| format!("{} where {N} texts belong", items.data_type()))
}
