//! A setting's value before its key has read it: typed from the file, text from a variable or a
//! flag. The readers here are what the rows of the key table use.

use std::path::PathBuf;
use std::time::Duration;

use super::types::{self, ByteSize};

/// A value as it was given.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    /// From the file: its type is known.
    Toml(toml_edit::Value),
    /// From a variable or a flag: numbers, booleans and lists come as text too.
    Text(String),
    /// From the file: a table of names and texts.
    Table(Vec<(String, toml_edit::Value)>),
    /// From the file: a section where a value should be.
    Section,
}

impl Raw {
    /// A default of the key table, written as in the file.
    pub(super) fn from_toml(text: &str) -> Option<Self> {
        text.parse().ok().map(Self::Toml)
    }

    pub(super) fn text(&self) -> Result<String, String> {
        let text = match self {
            Self::Text(text) => text.as_str(),
            Self::Toml(value) => value
                .as_str()
                .ok_or_else(|| format!("want text in quotes, found {}", self.type_name()))?,
            Self::Table(_) | Self::Section => {
                return Err("want text in quotes, found a section".to_owned());
            }
        };
        if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
    }

    pub(super) fn boolean(&self) -> Result<bool, String> {
        let wrong = || format!("want true or false, found {}", self.shown());
        match self {
            Self::Text(text) => text.parse().map_err(|_| wrong()),
            Self::Toml(value) => value.as_bool().ok_or_else(wrong),
            Self::Table(_) | Self::Section => Err(wrong()),
        }
    }

    /// A list of texts. In a variable they stand between commas; nothing is the empty list.
    pub(super) fn list(&self) -> Result<Vec<String>, String> {
        let wrong = || format!("want a list such as [\"a\", \"b\"], found {}", self.shown());
        match self {
            Self::Text(text) => Ok(text
                .split(',')
                .map(|item| item.trim().to_owned())
                .filter(|item| !item.is_empty())
                .collect()),
            Self::Toml(value) => value
                .as_array()
                .ok_or_else(wrong)?
                .iter()
                .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
                .collect(),
            Self::Table(_) | Self::Section => Err(wrong()),
        }
    }

    /// Names with a text each. In a variable `name=text` stand between commas.
    pub(super) fn pairs(&self) -> Result<Vec<(String, String)>, String> {
        let wrong = || format!("want a table such as {{ a = \"...\" }}, found {}", self.shown());
        match self {
            Self::Text(_) => {
                let items = self.list()?;
                let pair = |item: &String| {
                    let (name, text) = item.split_once('=').ok_or_else(|| {
                        format!("{item:?} is no pair: want name=text, more after commas")
                    })?;
                    Ok((name.trim().to_owned(), text.trim().to_owned()))
                };
                items.iter().map(pair).collect()
            }
            Self::Table(pairs) => {
                let pair = |(name, value): &(String, toml_edit::Value)| {
                    let text = value.as_str().ok_or_else(|| format!("{name}: want text in quotes"));
                    text.map(|text| (name.clone(), text.to_owned()))
                };
                pairs.iter().map(pair).collect()
            }
            Self::Toml(_) | Self::Section => Err(wrong()),
        }
    }

    /// One of some words.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, String> {
        let given = self.text()?;
        words.iter().find(|(word, _)| *word == given).map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            format!("{given:?} is none of {}", words.join(", "))
        })
    }

    pub(super) fn duration(&self) -> Result<Duration, String> {
        match self {
            Self::Toml(value) if value.is_integer() => {
                Err(format!("a time wants its unit in quotes, such as \"{}s\"", self.shown()))
            }
            _ => types::duration(&self.text()?),
        }
    }

    /// A time that is not zero.
    pub(super) fn period(&self) -> Result<Duration, String> {
        let period = self.duration()?;
        if period.is_zero() { Err("want more than 0".to_owned()) } else { Ok(period) }
    }

    pub(super) fn size(&self) -> Result<ByteSize, String> {
        match self {
            Self::Toml(value) if value.is_integer() => ByteSize::parse(&self.shown()),
            _ => ByteSize::parse(&self.text()?),
        }
    }

    pub(super) fn path(&self) -> Result<PathBuf, String> {
        self.text().map(PathBuf::from)
    }

    /// The text, if there is just one: `"all"` where a list could stand too.
    pub(super) fn is_word(&self, word: &str) -> bool {
        match self {
            Self::Text(text) => text == word,
            Self::Toml(value) => value.as_str() == Some(word),
            Self::Table(_) | Self::Section => false,
        }
    }

    fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Toml(value) => match value.type_name() {
                "string" => "text",
                "integer" => "a number",
                "boolean" => "true or false without quotes",
                "array" => "a list",
                "float" => "a number with a point",
                "datetime" => "a date",
                _ => "a section",
            },
            Self::Table(_) | Self::Section => "a section",
        }
    }

    /// The value as it may be repeated in an error: never called for a URL.
    fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Toml(value) => match value {
                toml_edit::Value::Integer(number) => number.value().to_string(),
                toml_edit::Value::String(text) => format!("{:?}", text.value()),
                _ => self.type_name().to_owned(),
            },
            Self::Table(_) | Self::Section => self.type_name().to_owned(),
        }
    }
}
