//! Tables and lines for people.

use comfy_table::{ContentArrangement, Table, presets};

const WIDTH: usize = 96;

/// A table without lines.
pub(super) fn table(names: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(names.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row.into_iter().map(|cell| printable(&cell)));
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().strip_prefix(' ').unwrap_or(&line).trim_end().to_owned())
        .collect();
    lines.join("\n") + "\n"
}

/// Breaks a text into lines.
pub(super) fn fill(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in printable(text).split(' ') {
        let line = lines.last_mut().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > WIDTH {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

/// What comes from a broker must not move a terminal's cursor.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// `2026-11-21 12:00:03.114` of RFC 3339.
pub(super) fn time(text: &str) -> String {
    let text = text.replacen('T', " ", 1);
    text.get(..23).unwrap_or(&text).to_owned()
}
