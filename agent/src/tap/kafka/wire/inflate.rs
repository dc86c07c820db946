//! What compressed batches inflate to. Its size is bounded before it is made; the codecs' state and
//! the bytes are kept for the next batch.

use flate2::{Decompress, FlushDecompress, Status};
use lz4_flex::block::{DecompressError, decompress_into, decompress_into_with_dict};
use zstd::zstd_safe::{DCtx, get_error_name, get_frame_content_size};

use super::read::{Fault, Reader};
use super::types::Codec;

/// More than this is not kept for the next batch.
const KEPT: usize = 8 << 20;

const TOO_MUCH: Fault = Fault::Bad("inflates to more than the limit");

/// Room for what batches inflate to, and the codecs' state.
#[derive(Default)]
pub(crate) struct Scratch {
    room: Vec<u8>,
    gzip: Option<Decompress>,
    snappy: snap::raw::Decoder,
    zstd: Option<DCtx<'static>>,
}

impl Scratch {
    /// Inflates a batch's records to no more than `limit` bytes.
    pub(super) fn inflate(
        &mut self,
        codec: Codec,
        bytes: &[u8],
        limit: usize,
    ) -> Result<&[u8], Fault> {
        let limit = limit.min(i32::MAX as usize);
        if self.room.len() > KEPT {
            self.room = Vec::new();
        }
        let size = match codec {
            Codec::None => return Err(Fault::Bad("not compressed")),
            Codec::Gzip => self.gzip(bytes, limit),
            Codec::Snappy => self.snappy(bytes, limit),
            Codec::Lz4 => self.lz4(bytes, limit),
            Codec::Zstd => self.zstd(bytes, limit),
        }?;
        if size > limit { Err(TOO_MUCH) } else { Ok(&self.room[..size]) }
    }

    /// How many bytes are kept.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.room.len()
    }

    /// Makes room for more than `filled` bytes, which stay.
    fn grow(&mut self, filled: usize, limit: usize) -> Result<(), Fault> {
        if filled > limit {
            return Err(TOO_MUCH);
        }
        // One more than the limit, so that what inflates to just the limit comes to its end.
        let more = (filled * 2).max(1 << 16).min(limit + 1);
        if self.room.len() < more {
            self.room.resize(more, 0);
        }
        Ok(())
    }

    /// RFC 1952, of one member or several.
    fn gzip(&mut self, bytes: &[u8], limit: usize) -> Result<usize, Fault> {
        let mut inflater = self.gzip.take().unwrap_or_else(|| Decompress::new(false));
        let mut rest = bytes;
        let mut filled = 0;
        loop {
            rest = behind_gzip_header(rest)?;
            inflater.reset(false);
            loop {
                if filled >= self.room.len().min(limit + 1) {
                    self.grow(filled, limit)?;
                }
                let (read, written) = (inflater.total_in(), inflater.total_out());
                let end = self.room.len().min(limit + 1);
                let status = inflater
                    .decompress(rest, &mut self.room[filled..end], FlushDecompress::None)
                    .map_err(|_| Fault::Bad("not gzip"))?;
                let count = (inflater.total_in() - read) as usize;
                let made = (inflater.total_out() - written) as usize;
                rest = rest.get(count..).ok_or(Fault::Short)?;
                filled += made;
                if status == Status::StreamEnd {
                    break;
                }
                if count == 0 && made == 0 {
                    return Err(Fault::Short);
                }
            }
            // CRC-32 and size: the batch's own checksum covers them.
            rest = rest.get(8..).ok_or(Fault::Short)?;
            if !rest.starts_with(&GZIP) {
                self.gzip = Some(inflater);
                return Ok(filled);
            }
        }
    }

    /// One block, or the framing of snappy-java ("xerial"), which most clients write.
    fn snappy(&mut self, bytes: &[u8], limit: usize) -> Result<usize, Fault> {
        if !bytes.starts_with(XERIAL) {
            return self.snappy_block(bytes, 0, limit);
        }
        let mut reader = Reader::new(bytes, false);
        let mut filled = 0;
        while !reader.rest().is_empty() {
            // It stands in front, and again where streams were strung together.
            if reader.rest().starts_with(XERIAL) {
                reader.take(XERIAL.len() + 4 + 4)?; // version, oldest version that can read it
                continue;
            }
            let block = reader.bytes()?.ok_or(Fault::Bad("not snappy"))?;
            filled += self.snappy_block(block, filled, limit)?;
        }
        Ok(filled)
    }

    fn snappy_block(&mut self, block: &[u8], filled: usize, limit: usize) -> Result<usize, Fault> {
        let bad = |_| Fault::Bad("not snappy");
        let size = snap::raw::decompress_len(block).map_err(bad)?;
        if size > limit - filled {
            return Err(TOO_MUCH);
        }
        // Three bytes make 64 at the most.
        if size / 32 > block.len() {
            return Err(Fault::Bad("not snappy"));
        }
        if self.room.len() < filled + size {
            self.room.resize(filled + size, 0);
        }
        let room = &mut self.room[filled..filled + size];
        self.snappy.decompress(block, room).map_err(bad)
    }

    /// LZ4's frame format. Its checksums are passed over: the batch's own covers them.
    fn lz4(&mut self, bytes: &[u8], limit: usize) -> Result<usize, Fault> {
        let mut reader = Reader::new(bytes, false);
        let (frame, end) = Lz4Frame::read(&mut reader)?;
        let mut filled = 0;
        loop {
            let size = little(&mut reader)?;
            if size == 0 {
                return Ok(filled);
            }
            let block = reader.take((size & (i32::MAX as u32)) as usize)?;
            if frame.block_checksums {
                reader.take(4)?;
            }
            let most = end.min(limit + 1 - filled);
            if self.room.len() < filled + most {
                self.room.resize(filled + most, 0);
            }
            let (before, room) = self.room.split_at_mut(filled);
            let room = &mut room[..most];
            let made = if size >> 31 == 1 {
                // Not compressed.
                let room = room.get_mut(..block.len());
                room.map(|room| room.copy_from_slice(block)).map(|()| block.len())
            } else {
                let result = if frame.linked {
                    decompress_into_with_dict(block, room, before)
                } else {
                    decompress_into(block, room)
                };
                match result {
                    Ok(made) => Some(made),
                    Err(DecompressError::OutputTooSmall { .. }) => None,
                    Err(_) => return Err(Fault::Bad("not LZ4")),
                }
            };
            match made {
                Some(made) => filled += made,
                None if most < end => return Err(TOO_MUCH),
                None => return Err(Fault::Bad("not LZ4")),
            }
            if filled > limit {
                return Err(TOO_MUCH);
            }
        }
    }

    /// Inflated as a whole, for then the window that a frame asks for costs nothing. Most frames
    /// don't say how large they are: if the room is too small, once more with more of it.
    fn zstd(&mut self, bytes: &[u8], limit: usize) -> Result<usize, Fault> {
        let claimed = get_frame_content_size(bytes).map_err(|_| Fault::Bad("not zstd"))?;
        let guess = claimed.unwrap_or(bytes.len() as u64 * 4);
        if claimed.is_some_and(|claimed| claimed > limit as u64) {
            return Err(TOO_MUCH);
        }
        let mut size = usize::try_from(guess).unwrap_or(limit).clamp(1 << 16, limit.max(1 << 16));
        let context = self.zstd.get_or_insert_with(DCtx::create);
        loop {
            if self.room.len() < size {
                self.room = vec![0; size];
            }
            match context.decompress(&mut self.room[..], bytes) {
                Ok(made) => return Ok(made),
                Err(code) if get_error_name(code) != "Destination buffer is too small" => {
                    return Err(Fault::Bad("not zstd"));
                }
                Err(_) if self.room.len() >= limit => return Err(TOO_MUCH),
                Err(_) => size = self.room.len().saturating_mul(4).min(limit),
            }
        }
    }
}

// === headers ===

const GZIP: [u8; 2] = [0x1f, 0x8b];

const XERIAL: &[u8] = b"\x82SNAPPY\0";

/// RFC 1952, section 2.3.
fn behind_gzip_header(bytes: &[u8]) -> Result<&[u8], Fault> {
    let mut reader = Reader::new(bytes, false);
    if reader.take(2)? != GZIP || reader.i8()? != 8 {
        return Err(Fault::Bad("not gzip"));
    }
    let flags = reader.i8()?;
    reader.take(4 + 1 + 1)?; // time, extra flags, system
    if flags & 4 != 0 {
        let size = reader.u16()?.swap_bytes();
        reader.take(size.into())?;
    }
    for text in [8, 16] {
        if flags & text != 0 {
            let end = reader.rest().iter().position(|byte| *byte == 0);
            reader.take(end.ok_or(Fault::Short)? + 1)?;
        }
    }
    if flags & 2 != 0 {
        reader.take(2)?;
    }
    Ok(reader.rest())
}

/// What the header of an LZ4 frame says of its blocks.
struct Lz4Frame {
    /// Blocks refer to what came before them.
    linked: bool,
    block_checksums: bool,
}

impl Lz4Frame {
    /// Also: the most that one block inflates to.
    fn read(reader: &mut Reader<'_>) -> Result<(Self, usize), Fault> {
        let bad = Fault::Bad("not LZ4");
        let (magic, flags, sizes) = (little(reader)?, reader.i8()? as u8, reader.i8()?);
        if magic != 0x184D_2204 || flags >> 6 != 1 {
            return Err(bad);
        }
        let most = match (sizes >> 4) & 7 {
            4 => 1 << 16,
            5 => 1 << 18,
            6 => 1 << 20,
            7 => 1 << 22,
            _ => return Err(bad),
        };
        if flags & 8 != 0 {
            reader.i64()?; // size of the content
        }
        if flags & 1 != 0 {
            return Err(Fault::Bad("LZ4 with a dictionary"));
        }
        reader.i8()?; // checksum of the header
        Ok((Self { linked: flags & 32 == 0, block_checksums: flags & 16 != 0 }, most))
    }
}

fn little(reader: &mut Reader<'_>) -> Result<u32, Fault> {
    reader.i32().map(|raw| (raw as u32).swap_bytes())
}
