//! What the spool knows of a boot beside its segments: until when it saw everything (once a
//! second), and what of it is uploaded (before a segment goes). Two checksummed slots in one small
//! file, each written in place: a torn write costs that slot only.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use flowtap_record::{Micros, Seq};

use super::disk::Disk;

/// The boot was alive at `at`, and every row it took up to then had been written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) at: Micros,
    /// Last row written then.
    pub(crate) last: i64,
}

/// The rows up to `last` are uploaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uploaded {
    pub(crate) last: i64,
    /// `at` of that row.
    pub(crate) last_at: Micros,
    /// Watermark of the object that ended with it.
    pub(crate) watermark: Micros,
}

const SLOT: u64 = 64;
const LEN: usize = 28;

/// The file `mark` of a running boot.
#[derive(Debug)]
pub(crate) struct MarkFile(File);

impl MarkFile {
    pub(crate) fn create(path: &Path, disk: &Disk, mark: &Mark) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        let file = Self(file);
        file.write_mark(disk, mark)?;
        file.0.sync_all()?;
        Ok(file)
    }

    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().read(true).write(true).open(path)?))
    }

    /// Not synced: after a power cut an older mark makes the gap longer, never too short.
    pub(crate) fn write_mark(&self, disk: &Disk, mark: &Mark) -> io::Result<()> {
        disk.write_mark(&self.0, &slot(*b"FTM1", [mark.at.0, mark.last, 0]), 0)
    }

    /// Synced: after it the segment goes.
    pub(crate) fn write_uploaded(&self, disk: &Disk, uploaded: &Uploaded) -> io::Result<()> {
        let numbers = [uploaded.last, uploaded.last_at.0, uploaded.watermark.0];
        disk.write_mark(&self.0, &slot(*b"FTU1", numbers), SLOT)?;
        self.0.sync_data()
    }
}

/// Reads both slots; one that is torn or was never written is `None`.
pub(crate) fn read(path: &Path) -> (Option<Mark>, Option<Uploaded>) {
    let bytes = std::fs::read(path).unwrap_or_default();
    let mark = parse(&bytes, 0, *b"FTM1").map(|[at, last, _]| Mark { at: Micros(at), last });
    let uploaded = parse(&bytes, SLOT as usize, *b"FTU1").map(|[last, last_at, watermark]| {
        Uploaded { last, last_at: Micros(last_at), watermark: Micros(watermark) }
    });
    (mark, uploaded)
}

fn slot(magic: [u8; 4], numbers: [i64; 3]) -> [u8; LEN + 4] {
    let mut bytes = [0; LEN + 4];
    bytes[..4].copy_from_slice(&magic);
    for (place, number) in bytes[4..LEN].chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let crc = crc32c::crc32c(&bytes[..LEN]);
    bytes[LEN..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn parse(bytes: &[u8], start: usize, magic: [u8; 4]) -> Option<[i64; 3]> {
    let bytes = bytes.get(start..start + LEN + 4)?;
    let (body, crc) = bytes.split_at(LEN);
    if body[..4] != magic[..] || crc != crc32c::crc32c(body).to_le_bytes() {
        return None;
    }
    let mut numbers = [0; 3];
    for (number, place) in numbers.iter_mut().zip(body[4..].chunks_exact(8)) {
        *number = i64::from_le_bytes(*place.first_chunk()?);
    }
    Some(numbers)
}

/// Number of a row as [`Mark`] and [`Uploaded`] count: 0 before the first.
pub(crate) fn seq_or_none(last: i64) -> Option<Seq> {
    (last > 0).then_some(Seq(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_slot_costs_that_slot_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        let disk = Disk::default();
        let mark = Mark { at: Micros(5), last: 7 };
        let file = MarkFile::create(&path, &disk, &mark).unwrap();
        assert_eq!(read(&path), (Some(mark), None));
        let uploaded = Uploaded { last: 3, last_at: Micros(1), watermark: Micros(2) };
        file.write_uploaded(&disk, &uploaded).unwrap();
        assert_eq!(read(&path), (Some(mark), Some(uploaded)));
        let whole = std::fs::read(&path).unwrap();
        for flipped in 0..LEN + 4 {
            let mut bytes = whole.clone();
            bytes[flipped] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read(&path), (None, Some(uploaded)), "byte {flipped}");
        }
        assert_eq!(read(&folder.path().join("none")), (None, None));
    }
}
