//! What earlier boots left: their open segments are cut at the last good frame and sealed, and it
//! is found out which of them died and until when they saw everything.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use flowtap_record::{Gap, Kind, Micros, Observation, RowRef, Seq};

use super::disk::Disk;
use super::folder::{About, Layout, list_boots, read_about, segment_range};
use super::frame::SegmentReader;
use super::mark::{self, Mark, Uploaded, seq_or_none};
use super::shared::Segment;

/// `reason` of the row that tells of a boot's death.
pub const AGENT_DIED: &str = "agent_died";

/// A boot before this one that left something.
#[derive(Clone, Debug)]
pub(crate) struct Earlier {
    pub(crate) about: About,
    /// It ended in order, at this time.
    pub(crate) ended: Option<Micros>,
    /// Its death is told in a row already.
    pub(crate) reported: bool,
    /// Its last row, 0 if it has none.
    pub(crate) last: i64,
    /// Until when it saw everything.
    pub(crate) blind_from: Micros,
    pub(crate) uploaded: Uploaded,
    pub(crate) segments: Vec<Segment>,
}

impl Earlier {
    /// Whether a `gap` row is owed for it.
    pub(crate) fn owes_gap(&self) -> bool {
        self.ended.is_none() && !self.reported
    }

    /// Calls `then` with the row that tells of its death.
    pub(crate) fn gap_row<T>(
        &self,
        boot: &str,
        now: Micros,
        started_at: Micros,
        then: impl FnOnce(&Observation<'_>) -> T,
    ) -> T {
        let details = serde_json::json!({
            "boot": boot,
            "agent": self.about.agent,
            "last_seq": self.last,
        })
        .to_string();
        let mut row = Observation::new(Kind::Gap, now);
        row.reason = Some(AGENT_DIED);
        row.details = Some(&details);
        row.who.service = Some(&self.about.service).filter(|s| !s.is_empty()).map(String::as_str);
        // A boot without rows has none that could be referred to.
        row.concludes = seq_or_none(self.last).map(|seq| RowRef { boot: Some(boot), seq });
        row.gap =
            Gap { from: Some(self.blind_from.min(started_at)), to: Some(started_at), count: None };
        then(&row)
    }
}

/// Recovers every boot in the folder but `this_boot`, oldest first.
pub(crate) fn recover_all(
    layout: &Layout,
    disk: &Disk,
    agent: &str,
    this_boot: &str,
) -> io::Result<Vec<(String, Earlier)>> {
    let mut found = Vec::new();
    for boot in list_boots(layout)? {
        if boot != this_boot {
            let earlier = recover_boot(layout, disk, &boot, agent)?;
            found.push((boot, earlier));
        }
    }
    // A boot may have died between writing the row about another's death and marking it.
    for i in 0..found.len() {
        let (older, newer) = found.split_at_mut(i + 1);
        let (boot, earlier) = &mut older[i];
        if earlier.owes_gap() && newer.iter().any(|(_, later)| tells_of(&later.segments, boot)) {
            disk.replace(&layout.reported(boot), b"told by a later boot")?;
            earlier.reported = true;
        }
    }
    Ok(found)
}

fn recover_boot(layout: &Layout, disk: &Disk, boot: &str, agent: &str) -> io::Result<Earlier> {
    let about = read_about(layout, boot, agent);
    let (mark, uploaded) = mark::read(&layout.mark(boot));
    let uploaded = uploaded.unwrap_or_default();
    let mut ranges = Vec::new();
    for entry in fs::read_dir(layout.boot(boot))? {
        let entry = entry?;
        let range = entry.file_name().to_str().and_then(segment_range);
        ranges.extend(range.map(|(first, last)| (first, last, entry.path())));
    }
    ranges.sort();
    let mut segments = Vec::new();
    let mut last_at = (uploaded.last > 0).then_some(uploaded.last_at);
    for i in 0..ranges.len() {
        let (first, sealed_last, path) = &ranges[i];
        let next_first = ranges.get(i + 1).map(|(next, ..)| *next);
        let (path, last) = if let Some(last) = sealed_last {
            if next_first.is_none() {
                // What can't be read now is found missing when it is uploaded.
                last_at = scan(path, *first).ok().and_then(|scan| scan.last_at).or(last_at);
            }
            (path.clone(), *last)
        } else {
            let scanned = scan(path, *first).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "a segment can't be read");
                Scan { last: Seq(first.0 - 1), good_end: None, last_at: None }
            });
            // Rows of an older segment that never reached the disk leave a hole before the next
            // one; the range covers it.
            let last = next_first.map_or(scanned.last, |next| Seq(next.0 - 1));
            if last < *first {
                disk.remove(path)?;
                continue;
            }
            last_at = scanned.last_at.or(last_at);
            if let Some(good_end) = scanned.good_end {
                cut(disk, path, good_end)?;
            }
            let sealed = layout.sealed_segment(boot, *first, last);
            disk.rename(path, &sealed)?;
            (sealed, last)
        };
        let bytes = fs::metadata(&path)?.len();
        let agent = about.agent.clone();
        segments.push(Segment { boot: boot.to_owned(), agent, first: *first, last, path, bytes });
    }
    let last = segments.last().map_or(0, |segment| segment.last.0).max(uploaded.last);
    Ok(Earlier {
        ended: read_ended(&layout.ended(boot), about.started_at),
        reported: layout.reported(boot).exists(),
        last,
        blind_from: blind_from(mark, last, last_at, about.started_at),
        uploaded,
        segments,
        about,
    })
}

/// The newer of the last row and the time mark; but a mark that knows of rows that are gone (a
/// power cut took them) says nothing about them.
fn blind_from(mark: Option<Mark>, last: i64, last_at: Option<Micros>, start: Micros) -> Micros {
    let marked = mark.filter(|mark| mark.last <= last).map(|mark| mark.at);
    marked.max(last_at).unwrap_or(start)
}

fn read_ended(path: &Path, started_at: Micros) -> Option<Micros> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().parse().map_or(started_at, Micros))
}

struct Scan {
    last: Seq,
    /// Where the torn tail begins; `None` if nothing of the file could be read.
    good_end: Option<u64>,
    last_at: Option<Micros>,
}

fn scan(path: &Path, first: Seq) -> io::Result<Scan> {
    let mut reader = SegmentReader::open(path, first)?;
    let mut last_at = None;
    while let Some(frame) = reader.next_frame()? {
        last_at = frame.rows().filter_map(|(_, row)| row).last().map(|row| row.at).or(last_at);
    }
    let last = Seq(reader.expected().0 - 1);
    Ok(Scan { last, good_end: Some(reader.good_end()), last_at })
}

fn cut(disk: &Disk, path: &Path, good_end: u64) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    if good_end > 0 && good_end < len {
        tracing::info!(path = %path.display(), bytes = len - good_end, "a torn tail is cut");
        disk.truncate(&file, good_end)?;
    }
    disk.sync(&file)
}

/// Whether one of the segments holds the row about the death of `boot`.
fn tells_of(segments: &[Segment], boot: &str) -> bool {
    segments.iter().any(|segment| {
        let Ok(mut reader) = SegmentReader::open(&segment.path, segment.first) else {
            return false;
        };
        while let Ok(Some(frame)) = reader.next_frame() {
            let told = frame.rows().filter_map(|(_, row)| row).any(|row| {
                row.kind == Kind::Gap
                    && row.reason == Some(AGENT_DIED)
                    && row.details.is_some_and(|details| details.contains(boot))
            });
            if told {
                return true;
            }
        }
        false
    })
}
