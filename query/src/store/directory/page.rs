//! Pages of a directory: sorted entries in pieces of one size, so that where an entry lies is
//! computed. What does not fit into its own page goes on in the next one.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of a page: one small request.
pub(crate) const PAGE: usize = 8 << 10;
/// Checksum, bytes used, flags.
const HEADER: usize = 8 + 2 + 1;
const BODY: usize = PAGE - HEADER;
/// Flag: entries whose own page is this one, or one before, go on in the next.
const GOES_ON: u8 = 1;
/// Bits of an entry that say where.
const SLOT_BITS: u32 = 24;
/// Bits of a hash that are kept.
const KEY_BITS: u32 = u64::BITS - SLOT_BITS;

/// More row groups than these have no place in one directory.
pub(crate) const MAX_SLOTS: u32 = 1 << SLOT_BITS;

/// The upper bits of a hash, and the slot of the row group that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry(pub(super) u64);

impl Entry {
    pub(crate) fn new(hash: u64, slot: u32) -> Self {
        Self(hash >> SLOT_BITS << SLOT_BITS | u64::from(slot & (MAX_SLOTS - 1)))
    }

    pub(crate) fn slot(self) -> u32 {
        (self.0 & u64::from(MAX_SLOTS - 1)) as u32
    }

    /// The same in another slot.
    pub(crate) fn moved(self, slot: u32) -> Self {
        Self::new(self.0, slot)
    }

    /// Whether its hash is the smaller one, as far as it is kept.
    pub(crate) fn is_before(self, other: Self) -> bool {
        self.key() < other.key()
    }

    pub(super) fn key(self) -> u64 {
        self.0 >> SLOT_BITS
    }
}

/// What of a hash is kept: hashes that differ only below are taken for each other, and told apart
/// by the rows.
pub(super) fn key(hash: u64) -> u64 {
    hash >> SLOT_BITS
}

/// The page of a key, of so many.
pub(super) fn home(key: u64, pages: u64) -> u64 {
    ((u128::from(key) * u128::from(pages)) >> KEY_BITS) as u64
}

/// How many pages so many entries want: nearly full ones, so that few go on in the next.
fn pages_for(entries: u64, slots: u32) -> u64 {
    let slots = varint_len(u64::from(slots.max(1) - 1)) as f64;
    let distance = (1_u64 << KEY_BITS) as f64 / entries.max(1) as f64;
    // Distances of hashes are distributed like times between calls.
    let longer = |bits: u32| (-((1_u64 << bits) as f64) / distance).exp();
    let key = 1.0 + [7, 14, 21, 28, 35].into_iter().map(longer).sum::<f64>();
    let bytes = entries as f64 * (key + slots);
    ((bytes / (BODY as f64 * 0.9)).ceil() as u64).max(1)
}

/// Makes pages of entries whose keys rise.
pub(crate) struct Pages {
    /// How many there are but for what overflows the last.
    count: u64,
    current: u64,
    body: Vec<u8>,
    last: u64,
    entries: u64,
    out: Vec<u8>,
}

impl Pages {
    /// For at most so many entries in so many slots.
    pub(crate) fn new(entries: u64, slots: u32) -> Self {
        let count = pages_for(entries, slots);
        Self { count, current: 0, body: Vec::new(), last: 0, entries: 0, out: Vec::new() }
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        let own = home(entry.key(), self.count);
        while self.current < own {
            self.close(0);
        }
        if self.body.len() + self.needs(entry) > BODY {
            self.close(GOES_ON);
        }
        put_varint(&mut self.body, entry.key() - self.last);
        put_varint(&mut self.body, u64::from(entry.slot()));
        self.last = entry.key();
        self.entries += 1;
    }

    fn needs(&self, entry: Entry) -> usize {
        varint_len(entry.key() - self.last) + varint_len(u64::from(entry.slot()))
    }

    fn close(&mut self, flags: u8) {
        let start = self.out.len();
        self.out.extend([0; 8]);
        self.out.extend((self.body.len() as u16).to_le_bytes());
        self.out.push(flags);
        self.out.append(&mut self.body);
        self.out.resize(start + PAGE, 0);
        let sum = xxh3_64_with_seed(&self.out[start + 8..], self.current);
        self.out[start..start + 8].copy_from_slice(&sum.to_le_bytes());
        self.current += 1;
        self.last = 0;
    }

    /// Pages that are done, for whoever writes them away.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    pub(crate) fn done(&self) -> usize {
        self.out.len()
    }

    /// All entries are there: the last pages, and how many there are of what.
    pub(super) fn finish(mut self) -> (Vec<u8>, Sums) {
        self.close(0);
        while self.current < self.count {
            self.close(0);
        }
        let sums = Sums { pages: self.count, stored: self.current, entries: self.entries };
        (self.out, sums)
    }
}

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sums {
    /// Pages that hashes are distributed over.
    pub(super) pages: u64,
    /// With those that the last one goes on in.
    pub(super) stored: u64,
    pub(super) entries: u64,
}

/// A page, read.
#[derive(Debug)]
pub(crate) struct Page {
    /// Their keys rise.
    pub(crate) entries: Vec<Entry>,
    /// The next page has more entries that belong here.
    pub(crate) goes_on: bool,
}

impl Page {
    /// Reads what [`Pages`] wrote as page `number`; nothing if it is not that.
    pub(super) fn read(bytes: &[u8], number: u64) -> Option<Self> {
        if bytes.len() != PAGE {
            return None;
        }
        let (sum, rest) = bytes.split_first_chunk()?;
        if u64::from_le_bytes(*sum) != xxh3_64_with_seed(rest, number) {
            return None;
        }
        let (used, rest) = rest.split_first_chunk()?;
        let (flags, body) = rest.split_first()?;
        let mut body = body.get(..usize::from(u16::from_le_bytes(*used)))?;
        let mut entries = Vec::new();
        let mut key = 0_u64;
        while !body.is_empty() {
            key = key.checked_add(varint(&mut body)?)?;
            let slot = u32::try_from(varint(&mut body)?).ok()?;
            entries.push(Entry::new(key.checked_shl(SLOT_BITS)?, slot));
        }
        Some(Self { entries, goes_on: flags & GOES_ON != 0 })
    }

    /// Slots of the entries with this key.
    pub(super) fn slots(&self, key: u64) -> impl Iterator<Item = u32> + '_ {
        let from = self.entries.partition_point(|entry| entry.key() < key);
        let found = self.entries[from..].iter().take_while(move |entry| entry.key() == key);
        found.map(|entry| entry.slot())
    }
}

fn varint_len(number: u64) -> usize {
    (u64::BITS - number.leading_zeros()).div_ceil(7).max(1) as usize
}

fn put_varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
