//! Segments as bytes. A segment is [`MAGIC`] and then frames; a frame is
//! `len u32 | crc32c u32 | payload` (little endian; the checksum covers length and payload), and
//! its payload `first seq i64 | count u32 | rows`, a row being `len u32 | postcard`.
//! A frame with no rows is the trailer of a sealed segment: `seq i64 | 0 u32 | watermark i64`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use flowtap_record::{Micros, Observation, Seq};

/// What a segment begins with. The last byte is the version of everything behind it, the layout
/// of [`Observation`] included: postcard does not describe itself.
pub(crate) const MAGIC: [u8; 8] = *b"FLOWTAP\x01";

/// Length and checksum.
const HEAD: usize = 8;
/// First seq and count.
const INTRO: usize = 12;
/// Rows are put into one frame up to about this size: what a flipped bit can cost at most.
pub(crate) const FRAME_TARGET: usize = 64 * 1024;
/// How much is read at once.
const WINDOW: usize = 256 * 1024;

/// Appends a row, `len u32 | postcard`, unless `out` would grow over `limit`; then `out` is as
/// before.
pub(crate) fn push_row(out: &mut Vec<u8>, row: &Observation<'_>, limit: usize) -> bool {
    let start = out.len();
    if start + 4 > limit {
        return false;
    }
    out.extend_from_slice(&[0; 4]);
    if postcard::serialize_with_flavor(row, Bounded { out, limit }).is_err() {
        out.truncate(start);
        return false;
    }
    let len = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    true
}

struct Bounded<'a> {
    out: &'a mut Vec<u8>,
    limit: usize,
}

impl postcard::ser_flavors::Flavor for Bounded<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if self.out.len() + bytes.len() > self.limit {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// How many of the rows in `rows` go into the next frame, and how many bytes they are.
pub(crate) fn cut_frame(rows: &[u8]) -> (u32, usize) {
    let (mut count, mut end) = (0, 0);
    while end < rows.len() && (count == 0 || end < FRAME_TARGET) {
        end += 4 + le_u32(&rows[end..]) as usize;
        count += 1;
    }
    (count, end)
}

/// Appends a frame of `count` rows that begin with number `first`.
pub(crate) fn push_frame(out: &mut Vec<u8>, first: i64, count: u32, rows: &[u8]) {
    let len = ((INTRO + rows.len()) as u32).to_le_bytes();
    let mut intro = [0; INTRO];
    intro[..8].copy_from_slice(&first.to_le_bytes());
    intro[8..].copy_from_slice(&count.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&len), &intro), rows);
    out.extend_from_slice(&len);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&intro);
    out.extend_from_slice(rows);
}

/// The trailer of a segment whose last row is before `next`.
pub(crate) fn push_trailer(out: &mut Vec<u8>, next: i64, watermark: Micros) {
    push_frame(out, next, 0, &watermark.0.to_le_bytes());
}

/// One frame as read.
pub(crate) struct Frame<'a> {
    pub(crate) first: i64,
    pub(crate) count: u32,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The rows with their numbers; `None` where the bytes are no row that this version knows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Seq, Option<Observation<'a>>)> + use<'a> {
        let mut rest = self.body;
        (self.first..self.first + i64::from(self.count)).map(move |seq| {
            let row = split_row(&mut rest).and_then(|row| postcard::from_bytes(row).ok());
            (Seq(seq), row)
        })
    }

    /// Bytes of the rows.
    pub(crate) fn bytes(&self) -> usize {
        self.body.len()
    }
}

fn split_row<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, body) = rest.split_first_chunk::<4>()?;
    let (row, next) = body.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *rest = next;
    Some(row)
}

/// Reads the frames of one segment in order. What is no frame with a right checksum is skipped:
/// the caller sees it as numbers that are missing.
pub(crate) struct SegmentReader {
    file: File,
    file_len: u64,
    pos: u64,
    /// Numbers below were seen; frames that repeat them are none.
    expected: i64,
    /// End of the last frame with a right checksum: what follows is a torn tail.
    good_end: u64,
    watermark: Option<Micros>,
    window: Vec<u8>,
    window_start: u64,
}

impl SegmentReader {
    /// Opens the segment whose first row is `first`.
    pub(crate) fn open(path: &Path, first: Seq) -> io::Result<Self> {
        let file = File::open(path)?;
        let file_len = file.metadata()?.len();
        let mut reader = Self {
            file,
            file_len,
            pos: 0,
            expected: first.0,
            good_end: 0,
            watermark: None,
            window: Vec::new(),
            window_start: 0,
        };
        // A segment of another version, or one that a crash left without its beginning, has no
        // frame that could be trusted.
        if reader.view(0, MAGIC.len())?.is_some_and(|bytes| bytes == MAGIC) {
            reader.pos = MAGIC.len() as u64;
            reader.good_end = reader.pos;
        } else {
            reader.pos = file_len;
        }
        Ok(reader)
    }

    /// The next frame with rows, or `None` at the end.
    pub(crate) fn next_frame(&mut self) -> io::Result<Option<Frame<'_>>> {
        let len = loop {
            let Some(len) = self.frame_len(self.pos)? else {
                // Not a frame: look for the next one, byte by byte. A torn tail ends here.
                let mut at = self.pos + 1;
                while at < self.file_len && self.frame_len(at)?.is_none() {
                    at += 1;
                }
                if at >= self.file_len {
                    return Ok(None);
                }
                self.pos = at;
                continue;
            };
            let end = self.pos + (HEAD + len) as u64;
            let payload = self.view(self.pos + HEAD as u64, len)?.expect("frame_len has seen it");
            if le_u32(&payload[8..]) > 0 {
                break len;
            }
            let mark = payload[INTRO..].first_chunk::<8>().map(|at| i64::from_le_bytes(*at));
            self.watermark = mark.map(Micros);
            self.pos = end;
            self.good_end = end;
        };
        let start = self.pos + HEAD as u64;
        self.pos = start + len as u64;
        self.good_end = self.pos;
        let payload = self.view(start, len)?.expect("frame_len has seen it");
        let (first, count) = (le_i64(payload), le_u32(&payload[8..]));
        self.expected = first + i64::from(count);
        let payload = self.view(start, len)?.expect("frame_len has seen it");
        Ok(Some(Frame { first, count, body: &payload[INTRO..] }))
    }

    /// Number of the row after the last one seen.
    pub(crate) fn expected(&self) -> Seq {
        Seq(self.expected)
    }

    /// End of the last good frame.
    pub(crate) fn good_end(&self) -> u64 {
        self.good_end
    }

    /// The watermark of the trailer, once it was read.
    pub(crate) fn watermark(&self) -> Option<Micros> {
        self.watermark
    }

    /// Length of the payload of the frame at `pos`, if there is one with a right checksum.
    fn frame_len(&mut self, pos: u64) -> io::Result<Option<usize>> {
        let (expected, file_len) = (self.expected, self.file_len);
        let Some(head) = self.view(pos, HEAD + INTRO)? else { return Ok(None) };
        let len_bytes: [u8; 4] = *head.first_chunk().expect("a head is longer");
        let len = u32::from_le_bytes(len_bytes) as usize;
        let crc = le_u32(&head[4..]);
        let (first, count) = (le_i64(&head[HEAD..]), le_u32(&head[HEAD + 8..]));
        // Cheap checks first, so that looking for a frame byte by byte computes few checksums.
        let plausible = len >= INTRO
            && pos + ((HEAD + len) as u64) <= file_len
            && first >= expected
            && first - expected <= i64::from(u32::MAX)
            && count as usize <= (len - INTRO) / 4;
        if !plausible {
            return Ok(None);
        }
        let Some(payload) = self.view(pos + HEAD as u64, len)? else { return Ok(None) };
        let right = crc32c::crc32c_append(crc32c::crc32c(&len_bytes), payload) == crc;
        Ok(right.then_some(len))
    }

    /// `len` bytes of the file at `pos`, or `None` if it ends before.
    fn view(&mut self, pos: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if pos + len as u64 > self.file_len {
            return Ok(None);
        }
        let window_end = self.window_start + self.window.len() as u64;
        if pos < self.window_start || pos + len as u64 > window_end {
            let want = len.max(WINDOW).min((self.file_len - pos) as usize);
            self.window.resize(want, 0);
            self.window_start = pos;
            if let Err(error) = self.file.read_exact_at(&mut self.window, pos) {
                self.window.clear();
                return Err(error);
            }
        }
        let start = (pos - self.window_start) as usize;
        Ok(Some(&self.window[start..start + len]))
    }
}

fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(*bytes.first_chunk().expect("the caller gives four bytes"))
}

fn le_i64(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(*bytes.first_chunk().expect("the caller gives eight bytes"))
}

#[cfg(test)]
mod tests;
