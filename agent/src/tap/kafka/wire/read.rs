//! Kafka's primitive types, read from a slice. Whatever counts elements is checked against the
//! bytes that are left before anything is allocated.

/// Why bytes could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// They end too early. While a frame is still arriving, more may help.
    #[error("ends too early")]
    Short,
    /// They are not what the protocol says.
    #[error("{0}")]
    Bad(&'static str),
}

/// Reads one message. `flexible` messages have compact lengths and tagged fields (KIP-482).
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    flexible: bool,
}

macro_rules! integers {
    ($($(#[$doc:meta])* $name:ident -> $type:ty;)*) => {
        $($(#[$doc])* pub(crate) fn $name(&mut self) -> Result<$type, Fault> {
            let bytes = self.take(size_of::<$type>())?;
            Ok(<$type>::from_be_bytes(bytes.try_into().map_err(|_| Fault::Short)?))
        })*
    };
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], flexible: bool) -> Self {
        Self { bytes, flexible }
    }

    integers! {
        /// INT8
        i8 -> i8;
        /// INT16
        i16 -> i16;
        /// INT32
        i32 -> i32;
        /// INT64
        i64 -> i64;
        /// UINT16
        u16 -> u16;
    }

    /// BOOLEAN
    pub(crate) fn bool(&mut self) -> Result<bool, Fault> {
        Ok(self.i8()? != 0)
    }

    /// UUID, as its 16 bytes.
    pub(crate) fn uuid(&mut self) -> Result<[u8; 16], Fault> {
        self.take(16)?.try_into().map_err(|_| Fault::Short)
    }

    /// `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Fault::Short)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// `UNSIGNED_VARINT`
    pub(crate) fn uvarint(&mut self) -> Result<u32, Fault> {
        // Most are lengths of one byte.
        if let Some((&byte @ 0..0x80, rest)) = self.bytes.split_first() {
            self.bytes = rest;
            return Ok(byte.into());
        }
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                return Err(Fault::Bad("number of more than 32 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Fault::Bad("number of more than 32 bits"))
    }

    /// VARINT: zigzag, 32 bits.
    pub(crate) fn varint(&mut self) -> Result<i32, Fault> {
        let raw = self.uvarint()?;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    /// VARLONG: zigzag, 64 bits.
    pub(crate) fn varlong(&mut self) -> Result<i64, Fault> {
        if let Some((&byte @ 0..0x80, rest)) = self.bytes.split_first() {
            self.bytes = rest;
            let raw = i64::from(byte);
            return Ok(raw >> 1 ^ -(raw & 1));
        }
        let mut raw = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            raw |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok((raw >> 1) as i64 ^ -((raw & 1) as i64));
            }
        }
        Err(Fault::Bad("number of more than 64 bits"))
    }

    /// STRING, `NULLABLE_STRING` and their compact forms. A string of 16-bit length that claims to be
    /// compact (`client_id` of request header v2) is read by [`Self::plain_string`]. Compact ones
    /// are no longer than the others can be.
    pub(crate) fn string(&mut self) -> Result<Option<&'a [u8]>, Fault> {
        if self.flexible { self.compact(i16::MAX as u32) } else { self.plain_string() }
    }

    /// A string that may not be null.
    pub(crate) fn text(&mut self) -> Result<&'a [u8], Fault> {
        self.string()?.ok_or(Fault::Bad("null where a string must be"))
    }

    /// `NULLABLE_STRING` with a length of 16 bits, in any version.
    pub(crate) fn plain_string(&mut self) -> Result<Option<&'a [u8]>, Fault> {
        match self.i16()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| Fault::Bad("negative length"))?;
                self.take(length).map(Some)
            }
        }
    }

    /// BYTES, `NULLABLE_BYTES`, RECORDS and their compact forms.
    pub(crate) fn bytes(&mut self) -> Result<Option<&'a [u8]>, Fault> {
        if self.flexible {
            return self.compact(i32::MAX as u32);
        }
        match self.i32()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| Fault::Bad("negative length"))?;
                self.take(length).map(Some)
            }
        }
    }

    fn compact(&mut self, longest: u32) -> Result<Option<&'a [u8]>, Fault> {
        match self.uvarint()?.checked_sub(1) {
            None => Ok(None),
            Some(length) if length > longest => Err(Fault::Bad("length that nothing may have")),
            Some(length) => self.take(length as usize).map(Some),
        }
    }

    /// Length of an ARRAY or `COMPACT_ARRAY`, `None` for null; no more than there are bytes left, as
    /// each element takes at least one.
    pub(crate) fn array(&mut self) -> Result<Option<usize>, Fault> {
        let count = if self.flexible {
            match self.uvarint()? {
                0 => return Ok(None),
                more => more as usize - 1,
            }
        } else {
            match self.i32()? {
                -1 => return Ok(None),
                count => usize::try_from(count).map_err(|_| Fault::Bad("negative count"))?,
            }
        };
        if count > self.bytes.len() { Err(Fault::Short) } else { Ok(Some(count)) }
    }

    /// An array's elements; null is none.
    pub(crate) fn each<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let count = self.array()?.unwrap_or(0);
        // Not with the count as capacity: an element may be larger here than on the wire.
        let mut elements = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(elements)
    }

    /// INT32 each.
    pub(crate) fn integers(&mut self) -> Result<Vec<i32>, Fault> {
        self.each(Self::i32)
    }

    /// An array that may be null.
    pub(crate) fn each_if_any<T>(
        &mut self,
        element: impl FnMut(&mut Self) -> Result<T, Fault>,
    ) -> Result<Option<Vec<T>>, Fault> {
        // The length is read twice: once to see whether it is null.
        if self.clone().array()?.is_none() {
            self.array()?;
            return Ok(None);
        }
        self.each(element).map(Some)
    }

    /// An array of which only the length matters; null is none.
    pub(crate) fn pass(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), Fault>,
    ) -> Result<usize, Fault> {
        let count = self.array()?.unwrap_or(0);
        for _ in 0..count {
            element(self)?;
        }
        Ok(count)
    }

    /// The tagged fields at the end of each struct of a flexible message; nothing in others.
    pub(crate) fn tags(
        &mut self,
        mut field: impl FnMut(u32, &'a [u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let size = self.uvarint()? as usize;
            field(tag, self.take(size)?)?;
        }
        Ok(())
    }

    /// Passes over the tagged fields.
    pub(crate) fn skip_tags(&mut self) -> Result<(), Fault> {
        self.tags(|_, _| Ok(()))
    }

    /// What is left.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn is_flexible(&self) -> bool {
        self.flexible
    }
}
