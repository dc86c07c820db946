//! Bytes of a Parquet file that are at hand: all of them, or those that will be asked for.

use std::io::{Error, ErrorKind, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

/// Parts of a file.
#[derive(Clone)]
pub(super) struct Chunks {
    length: u64,
    /// By where each begins.
    pieces: Arc<[(u64, Bytes)]>,
}

impl Chunks {
    /// All of it.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { length: bytes.len() as u64, pieces: [(0, bytes)].into() }
    }

    /// Pieces of a file of `length` bytes, with where each begins.
    pub(super) fn some(length: u64, mut pieces: Vec<(u64, Bytes)>) -> Self {
        pieces.sort_by_key(|(start, _)| *start);
        Self { length, pieces: pieces.into() }
    }

    /// Bytes in memory.
    pub(super) fn held(&self) -> usize {
        self.pieces.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// From `start` to the end of the piece that holds it.
    fn from(&self, start: u64) -> Result<Bytes> {
        let after = self.pieces.partition_point(|(begin, _)| *begin <= start);
        let piece = after.checked_sub(1).and_then(|index| self.pieces.get(index));
        let found = piece.and_then(|(begin, bytes)| {
            let at = usize::try_from(start - begin).ok()?;
            (at <= bytes.len()).then(|| bytes.slice(at..))
        });
        found.ok_or_else(|| missing(start))
    }
}

fn missing(start: u64) -> ParquetError {
    ParquetError::EOF(format!("byte {start} is in no column that was asked for"))
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Chunks {
    type T = Reader;

    fn get_read(&self, start: u64) -> Result<Reader> {
        Ok(Reader(self.from(start)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let bytes = self.from(start)?;
        if bytes.len() < length {
            return Err(missing(start + bytes.len() as u64));
        }
        Ok(bytes.slice(..length))
    }
}

/// Reads on in one piece, and never beyond it.
pub(super) struct Reader(Bytes);

impl Read for Reader {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        if self.0.is_empty() && !to.is_empty() {
            return Err(Error::from(ErrorKind::UnexpectedEof));
        }
        let count = to.len().min(self.0.len());
        self.0.copy_to_slice(&mut to[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_at_hand_is_an_error_and_no_panic() {
        let pieces = vec![(100, Bytes::from_static(b"klmno")), (10, Bytes::from_static(b"abcde"))];
        let chunks = Chunks::some(1000, pieces);
        assert_eq!((chunks.len(), chunks.held()), (1000, 10));
        assert_eq!(chunks.get_bytes(11, 3).expect("it is there"), "bcd");
        assert_eq!(chunks.get_bytes(100, 5).expect("it is there"), "klmno");
        for (start, length) in [(9, 1), (12, 4), (15, 1), (50, 1), (999, 1)] {
            assert!(chunks.get_bytes(start, length).is_err(), "{start}");
        }
        let mut text = [0; 2];
        let mut reader = chunks.get_read(13).expect("it is there");
        reader.read_exact(&mut text).expect("two are left");
        assert_eq!(&text, b"de");
        assert!(reader.read_exact(&mut text).is_err());
    }
}
