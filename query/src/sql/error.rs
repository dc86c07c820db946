//! Why a query failed, as a person wants to read it: DataFusion's message, where in the text, and
//! the line with a mark under it.

use std::fmt;

use datafusion::common::Span;
use datafusion::error::DataFusionError;

/// A query that failed. Its `Display` may take several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError {
    message: String,
    place: Option<Place>,
    helps: Vec<String>,
}

/// A part of one line of the query. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
    width: usize,
    text: String,
}

impl SqlError {
    /// An error in our own words.
    pub(super) fn said(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None, helps: Vec::new() }
    }

    /// DataFusion's word on the query `text`.
    pub(super) fn new(text: &str, error: &DataFusionError) -> Self {
        let full = error.strip_backtrace();
        if let DataFusionError::ResourcesExhausted(_) = error.find_root() {
            let message = format!("the query needs more memory than it may take: {full}");
            let help = "select fewer columns, narrow the time, or aggregate first".to_owned();
            return Self { message, place: None, helps: vec![help] };
        }
        if let Some(diagnostic) = error.diagnostic() {
            let place = diagnostic.span.and_then(|span| Place::of_span(text, span));
            let notes = diagnostic.notes.iter().map(|note| note.message.clone());
            let helps = notes.chain(diagnostic.helps.iter().map(|help| help.message.clone()));
            return Self { message: full, place, helps: helps.collect() };
        }
        let place = parser_position(&full)
            .and_then(|(line, column)| Place::new(text, line, column, column + 1));
        Self { message: full, place, helps: Vec::new() }
    }

    /// Line and column in the query, from 1, where they are known.
    pub fn position(&self) -> Option<(usize, usize)> {
        self.place.as_ref().map(|place| (place.line, place.column))
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(Place { line, column, width, text }) = &self.place {
            let gutter = line.to_string();
            let indent = " ".repeat(gutter.len());
            write!(f, "\n{indent}--> line {line}, column {column}")?;
            write!(f, "\n{gutter} | {text}")?;
            let before: String =
                text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            write!(f, "\n{indent} | {before}{}", "^".repeat(*width))?;
        }
        for help in &self.helps {
            write!(f, "\nhelp: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SqlError {}

impl Place {
    fn of_span(text: &str, span: Span) -> Option<Self> {
        let line = usize::try_from(span.start.line).ok()?;
        let start = usize::try_from(span.start.column).ok()?;
        let end = if span.end.line == span.start.line {
            usize::try_from(span.end.column).ok()?
        } else {
            usize::MAX
        };
        Self::new(text, line, start, end)
    }

    /// None if the text has no such place: spans may come from the text of a view.
    fn new(text: &str, line: usize, column: usize, end: usize) -> Option<Self> {
        let line_text = text.lines().nth(line.checked_sub(1)?)?.trim_end();
        let length = line_text.chars().count();
        if column == 0 || column > length + 1 {
            return None;
        }
        let width = end.min(length + 1).saturating_sub(column).max(1);
        Some(Self { line, column, width, text: line_text.to_owned() })
    }
}

/// The parser says where only in its message: `... at Line: 1, Column: 8`.
fn parser_position(message: &str) -> Option<(usize, usize)> {
    let (_, rest) = message.rsplit_once("Line: ")?;
    let (line, rest) = rest.split_once(", Column: ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((line.parse().ok()?, rest[..digits].parse().ok()?))
}
