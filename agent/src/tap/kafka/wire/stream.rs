//! The records of a Produce request or a Fetch answer, lent while the frame arrives. A batch that
//! lies whole in one piece is lent from there; of one that does not, and only of that, a copy is
//! made.

use super::read::Fault;
use super::types::{Part, PartitionHead, ProduceHead, TopicId, TopicRef};
use super::walk::{Visit, Walker};

/// Offset and length, which every format of batches and messages begins with.
const PREFIX: usize = 12;

/// What the shortest message of format 0 has behind [`PREFIX`].
const SHORTEST: i32 = 14;

/// More aborted transactions in one partition of one answer than this are not believed.
const MAX_ABORTED: usize = 1 << 20;

/// Reads one frame. What it keeps of it is bounded by the largest batch that it is to lend.
#[derive(Debug)]
pub(crate) struct RecordStream {
    walker: Walker,
    place: Place,
}

impl RecordStream {
    /// A Produce request, versions 3 to 13. Batches of more than `max_batch` bytes are passed over.
    pub(crate) fn produce(version: i16, max_batch: usize) -> Self {
        Self { walker: Walker::produce(version), place: Place::new(max_batch) }
    }

    /// A Fetch answer, versions 4 to 18.
    pub(crate) fn fetch(version: i16, max_batch: usize) -> Self {
        Self { walker: Walker::fetch(version), place: Place::new(max_batch) }
    }

    /// Reads the next piece of the body. After a fault nothing more can be read.
    pub(crate) fn feed(
        &mut self,
        piece: &[u8],
        each: &mut dyn FnMut(Part<'_>),
    ) -> Result<(), Fault> {
        self.walker.feed(piece, &mut Visitor { place: &mut self.place, each })
    }

    /// How many bytes are kept until more come.
    pub(crate) fn kept(&self) -> usize {
        let aborted = self.place.aborted.as_ref().map_or(0, |aborted| aborted.len() * 16);
        self.walker.kept() + self.place.name.len() + self.place.batches.carry.len() + aborted
    }

    /// Whether the frame ended where its message does.
    pub(crate) fn end(&self) -> Result<(), Fault> {
        if self.walker.is_at_end() { Ok(()) } else { Err(Fault::Short) }
    }
}

/// Where in the message the stream is.
#[derive(Debug)]
struct Place {
    /// The topic's name, unless it has an id.
    name: Vec<u8>,
    id: Option<TopicId>,
    partition: i32,
    error: i16,
    aborted: Option<Vec<(i64, i64)>>,
    batches: Batches,
}

impl Place {
    fn new(max_batch: usize) -> Self {
        let batches = Batches { max: max_batch, carry: Vec::new(), total: 0, pass: 0 };
        Self { name: Vec::new(), id: None, partition: 0, error: 0, aborted: None, batches }
    }
}

struct Visitor<'s, 'e> {
    place: &'s mut Place,
    each: &'e mut dyn FnMut(Part<'_>),
}

impl Visit for Visitor<'_, '_> {
    fn produce(&mut self, head: ProduceHead<'_>) {
        (self.each)(Part::Produce(head));
    }

    fn fetch(&mut self, error: i16, session: i32) {
        (self.each)(Part::Fetch { error, session });
    }

    fn topic(&mut self, topic: TopicRef<'_>) {
        self.place.name.clear();
        self.place.id = match topic {
            TopicRef::Name(name) => {
                self.place.name.extend_from_slice(name);
                None
            }
            TopicRef::Id(id) => Some(id),
        };
    }

    fn partition(&mut self, partition: i32, error: i16, aborts: bool) {
        (self.place.partition, self.place.error) = (partition, error);
        self.place.aborted = aborts.then(Vec::new);
    }

    fn aborted(&mut self, producer_id: i64, first_offset: i64) -> Result<(), Fault> {
        let aborted = self.place.aborted.get_or_insert_default();
        if aborted.len() == MAX_ABORTED {
            return Err(Fault::Bad("more aborted transactions than can be"));
        }
        aborted.push((producer_id, first_offset));
        Ok(())
    }

    fn records(&mut self) {
        let place = &mut *self.place;
        (self.each)(Part::Partition(PartitionHead {
            topic: place.id.map_or(TopicRef::Name(&place.name), TopicRef::Id),
            partition: place.partition,
            error: place.error,
            aborted: place.aborted.take(),
        }));
        place.batches.begin();
    }

    fn bytes(&mut self, bytes: &[u8], left: usize) -> Result<(), Fault> {
        self.place.batches.feed(bytes, left, self.each)
    }
}

/// Cuts a partition's records into batches. The last one may be cut short by the broker (its limit
/// on bytes), even within its first fields: that is no fault.
#[derive(Debug)]
struct Batches {
    max: usize,
    /// The beginning of a batch whose rest is still to come.
    carry: Vec<u8>,
    /// How long that batch is, once `carry` has its first fields.
    total: usize,
    /// How many bytes are to be passed over.
    pass: usize,
}

impl Batches {
    fn begin(&mut self) {
        self.carry.clear();
        self.pass = 0;
    }

    /// Takes some of the `left` bytes that a partition still has.
    fn feed(
        &mut self,
        mut bytes: &[u8],
        mut left: usize,
        each: &mut dyn FnMut(Part<'_>),
    ) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let count;
            if self.pass > 0 {
                count = self.pass.min(bytes.len());
                self.pass -= count;
            } else if self.carry.is_empty() && bytes.len() >= PREFIX {
                let total = self.look(bytes, left, each)?;
                if total == 0 {
                    continue;
                }
                count = total.min(bytes.len());
                if count == total {
                    each(Part::Batch(&bytes[..total]));
                } else {
                    self.total = total;
                    self.carry.extend_from_slice(bytes);
                }
            } else if self.carry.len() < PREFIX {
                count = (PREFIX - self.carry.len()).min(bytes.len());
                self.carry.extend_from_slice(&bytes[..count]);
                if self.carry.len() == PREFIX {
                    let carry = std::mem::take(&mut self.carry);
                    self.total = self.look(&carry, left - count + PREFIX, each)?;
                    self.carry = carry;
                    if self.total == 0 {
                        self.carry.clear();
                        self.pass -= PREFIX;
                    }
                }
            } else {
                count = (self.total - self.carry.len()).min(bytes.len());
                self.carry.extend_from_slice(&bytes[..count]);
                if self.carry.len() == self.total {
                    each(Part::Batch(&self.carry));
                    self.carry.clear();
                }
            }
            bytes = &bytes[count..];
            left -= count;
        }
        Ok(())
    }

    /// How long the batch is that begins with these bytes; 0 when it is to be passed over.
    fn look(
        &mut self,
        bytes: &[u8],
        left: usize,
        each: &mut dyn FnMut(Part<'_>),
    ) -> Result<usize, Fault> {
        let mut reader = super::Reader::new(bytes, false);
        let (base_offset, length) = (reader.i64()?, reader.i32()?);
        if length < SHORTEST {
            return Err(Fault::Bad("batch that is shorter than any can be"));
        }
        let total = PREFIX + length as usize;
        if total > left {
            self.pass = left;
            return Ok(0);
        }
        if total > self.max {
            each(Part::TooLarge { base_offset, bytes: total });
            self.pass = total;
            return Ok(0);
        }
        Ok(total)
    }
}
