//! Walks through a frame that holds records while it arrives: Produce requests, Fetch and
//! ShareFetch answers (`ProduceRequest.json`, `FetchResponse.json`, `ShareFetchResponse.json`).
//! Records go by without being looked at; of everything else no more is kept than one field or a
//! few, until the rest of them comes.

use super::api::key;
use super::read::{Fault, Reader};
use super::types::{ProduceHead, TopicRef};
use super::{api, topic};

/// What a walker meets, in the order of the wire.
pub(super) trait Visit {
    /// A Produce request begins.
    fn produce(&mut self, _head: ProduceHead<'_>) {}
    /// An answer begins.
    fn fetch(&mut self, _error: i16, _session: i32) {}
    fn topic(&mut self, _topic: TopicRef<'_>) {}
    /// A partition begins. `aborts`: whether it lists aborted transactions, which follow.
    fn partition(&mut self, _partition: i32, _error: i16, _aborts: bool) {}
    fn aborted(&mut self, _producer_id: i64, _first_offset: i64) -> Result<(), Fault> {
        Ok(())
    }
    /// The partition's records begin.
    fn records(&mut self) {}
    /// Some of them, of the `left` bytes that are still to come with these.
    fn bytes(&mut self, _bytes: &[u8], _left: usize) -> Result<(), Fault> {
        Ok(())
    }
}

/// Which message is walked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Produce,
    Fetch,
    ShareFetch,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing of this version is understood.
    Unknown,
    Head,
    Topic,
    Partition,
    Aborted,
    RecordsLength,
    Records(usize),
    /// ShareFetch: how many ranges of offsets are for this consumer.
    AcquiredCount,
    Acquired,
    TagCount(Behind),
    Tag(Behind, u32),
    TagValue(Behind, u32, usize),
    /// All topics are behind.
    Tail,
    End,
}

/// Behind which struct tagged fields stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Aborted,
    Leader,
    Acquired,
    Partition,
    Topic,
    Message,
}

/// The place in one frame.
#[derive(Debug)]
pub(super) struct Walker {
    message: Message,
    version: i16,
    flexible: bool,
    step: Step,
    /// Topics after this one.
    topics: u32,
    /// Partitions of this topic after this one.
    partitions: u32,
    /// Entries of the list that is walked through after this one.
    entries: u32,
    /// The beginning of what [`Self::element`] could not read yet.
    pending: Vec<u8>,
}

impl Walker {
    pub(super) fn produce(version: i16) -> Self {
        Self::new(Message::Produce, key::PRODUCE, version)
    }

    pub(super) fn fetch(version: i16) -> Self {
        Self::new(Message::Fetch, key::FETCH, version)
    }

    pub(super) fn share_fetch(version: i16) -> Self {
        Self::new(Message::ShareFetch, key::SHARE_FETCH, version)
    }

    fn new(message: Message, key: i16, version: i16) -> Self {
        let api = api(key).filter(|api| api.knows(version));
        Self {
            message,
            version,
            flexible: api.is_some_and(|api| api.is_flexible(version)),
            step: if api.is_some() { Step::Head } else { Step::Unknown },
            topics: 0,
            partitions: 0,
            entries: 0,
            pending: Vec::new(),
        }
    }

    /// Walks through the next piece, as far as to the tail, which is what follows the last topic:
    /// says where in the piece it begins, which may be at its end.
    pub(super) fn feed_to_tail(
        &mut self,
        piece: &[u8],
        visit: &mut impl Visit,
    ) -> Result<Option<usize>, Fault> {
        self.walk(piece, visit, true)
    }

    /// Walks through the next piece.
    pub(super) fn feed(&mut self, piece: &[u8], visit: &mut impl Visit) -> Result<(), Fault> {
        self.walk(piece, visit, false).map(drop)
    }

    fn walk(
        &mut self,
        piece: &[u8],
        visit: &mut impl Visit,
        stop_at_tail: bool,
    ) -> Result<Option<usize>, Fault> {
        let mut at = 0;
        loop {
            match self.step {
                Step::Unknown => return Err(Fault::Bad("version that is not known")),
                Step::Records(left) => {
                    let count = left.min(piece.len() - at);
                    if count > 0 {
                        visit.bytes(&piece[at..at + count], left)?;
                    }
                    at += count;
                    if count < left {
                        self.step = Step::Records(left - count);
                        return Ok(None);
                    }
                    self.step = match self.message {
                        Message::ShareFetch => Step::AcquiredCount,
                        Message::Produce | Message::Fetch => self.tags(Behind::Partition),
                    };
                }
                Step::TagValue(behind, more, left) => {
                    let count = left.min(piece.len() - at);
                    at += count;
                    if count < left {
                        self.step = Step::TagValue(behind, more, left - count);
                        return Ok(None);
                    }
                    self.step = self.tag(behind, more);
                }
                Step::Tail if stop_at_tail => return Ok(Some(at)),
                Step::Tail => self.step = self.tags(Behind::Message),
                Step::End if at < piece.len() => {
                    return Err(Fault::Bad("longer than what it says"));
                }
                Step::End => return Ok(None),
                _ => match self.read(&piece[at..], visit)? {
                    Some(count) => at += count,
                    None => return Ok(None),
                },
            }
        }
    }

    /// Whether the message has been walked through.
    pub(super) fn is_at_end(&self) -> bool {
        self.step == Step::End
    }

    /// How many bytes are kept until more come.
    pub(super) fn kept(&self) -> usize {
        self.pending.len()
    }

    /// Reads one element, of which the beginning may have come before: how many of these bytes it
    /// took, or `None` when all are kept until more come.
    fn read(&mut self, mut bytes: &[u8], visit: &mut impl Visit) -> Result<Option<usize>, Fault> {
        if self.pending.is_empty() {
            return match self.element(bytes, visit) {
                Ok(count) => Ok(Some(count)),
                Err(Fault::Short) => {
                    self.pending.extend_from_slice(bytes);
                    Ok(None)
                }
                Err(fault) => Err(fault),
            };
        }
        let mut taken = 0;
        while !bytes.is_empty() {
            let mut pending = std::mem::take(&mut self.pending);
            let had = pending.len();
            // Not all of them: records may follow, and these are not to be copied.
            let (some, rest) = bytes.split_at(bytes.len().min(had.max(64)));
            pending.extend_from_slice(some);
            let result = self.element(&pending, visit);
            match result {
                Ok(count) => {
                    pending.clear();
                    self.pending = pending;
                    return Ok(Some(taken + (count - had)));
                }
                Err(Fault::Short) => self.pending = pending,
                Err(fault) => return Err(fault),
            }
            taken += some.len();
            bytes = rest;
        }
        Ok(None)
    }

    /// Reads one element of bounded size: how many bytes it took. Nothing has happened when it
    /// ends too early.
    fn element(&mut self, bytes: &[u8], visit: &mut impl Visit) -> Result<usize, Fault> {
        let mut reader = Reader::new(bytes, self.flexible);
        match self.step {
            Step::Head => self.head(&mut reader, visit)?,
            Step::Topic => {
                let by_id = self.message == Message::ShareFetch || self.version >= 13;
                let topic = topic(&mut reader, by_id)?;
                self.partitions = count(&mut reader)?.unwrap_or(0);
                visit.topic(topic);
                self.step = self.next_partition();
            }
            Step::Partition => self.partition(&mut reader, visit)?,
            Step::Aborted => {
                let (producer_id, first_offset) = (reader.i64()?, reader.i64()?);
                visit.aborted(producer_id, first_offset)?;
                self.step = self.tags(Behind::Aborted);
            }
            Step::RecordsLength => {
                self.step = self.records_length(&mut reader)?;
                visit.records();
            }
            Step::AcquiredCount => {
                self.entries = count(&mut reader)?.unwrap_or(0);
                self.step = self.next_acquired();
            }
            Step::Acquired => {
                reader.take(8 + 8 + 2)?; // first offset, last offset, how often delivered
                self.step = self.tags(Behind::Acquired);
            }
            Step::TagCount(behind) => {
                let count = reader.uvarint()?;
                self.step = self.tag(behind, count);
            }
            Step::Tag(behind, more) => {
                let (_tag, size) = (reader.uvarint()?, reader.uvarint()?);
                self.step = Step::TagValue(behind, more, size as usize);
            }
            Step::Unknown | Step::Records(_) | Step::TagValue(..) | Step::Tail | Step::End => {}
        }
        Ok(bytes.len() - reader.rest().len())
    }

    fn head(&mut self, reader: &mut Reader<'_>, visit: &mut impl Visit) -> Result<(), Fault> {
        match self.message {
            Message::Produce => {
                let (transactional_id, acks) = (reader.string()?, reader.i16()?);
                reader.i32()?; // how long the broker may take
                self.topics = count(reader)?.unwrap_or(0);
                visit.produce(ProduceHead { transactional_id, acks });
            }
            Message::Fetch => {
                reader.i32()?; // throttle time
                let (error, session) =
                    if self.version >= 7 { (reader.i16()?, reader.i32()?) } else { (0, 0) };
                self.topics = count(reader)?.unwrap_or(0);
                visit.fetch(error, session);
            }
            Message::ShareFetch => {
                reader.i32()?; // throttle time
                let error = reader.i16()?;
                reader.string()?; // message
                reader.i32()?; // how long records are locked
                self.topics = count(reader)?.unwrap_or(0);
                visit.fetch(error, 0);
            }
        }
        self.step = self.next_topic();
        Ok(())
    }

    fn partition(&mut self, reader: &mut Reader<'_>, visit: &mut impl Visit) -> Result<(), Fault> {
        let partition = reader.i32()?;
        match self.message {
            Message::Produce => {
                self.step = self.records_length(reader)?;
                visit.partition(partition, 0, false);
                visit.records();
            }
            Message::Fetch => {
                let error = reader.i16()?;
                reader.take(8 + 8)?; // high watermark, last stable offset
                if self.version >= 5 {
                    reader.i64()?; // log start offset
                }
                let aborted = count(reader)?;
                let entries = aborted.unwrap_or(0);
                let step = if entries == 0 { self.records_length(reader)? } else { Step::Aborted };
                self.entries = entries.saturating_sub(1);
                self.step = step;
                visit.partition(partition, error, aborted.is_some());
                if entries == 0 {
                    visit.records();
                }
            }
            Message::ShareFetch => {
                let error = reader.i16()?;
                reader.string()?; // message
                reader.i16()?; // error of acknowledging
                reader.string()?; // its message
                reader.take(4 + 4)?; // leader, its epoch
                visit.partition(partition, error, false);
                self.step = self.tags(Behind::Leader);
            }
        }
        Ok(())
    }

    fn records_length(&self, reader: &mut Reader<'_>) -> Result<Step, Fault> {
        if self.message == Message::Fetch && self.version >= 11 {
            reader.i32()?; // a replica that the client had better ask
        }
        Ok(Step::Records(count(reader)?.unwrap_or(0) as usize))
    }

    fn next_topic(&mut self) -> Step {
        match self.topics.checked_sub(1) {
            Some(more) => {
                self.topics = more;
                Step::Topic
            }
            None => Step::Tail,
        }
    }

    fn next_partition(&mut self) -> Step {
        match self.partitions.checked_sub(1) {
            Some(more) => {
                self.partitions = more;
                Step::Partition
            }
            None => self.tags(Behind::Topic),
        }
    }

    fn next_acquired(&mut self) -> Step {
        match self.entries.checked_sub(1) {
            Some(more) => {
                self.entries = more;
                Step::Acquired
            }
            None => self.tags(Behind::Partition),
        }
    }

    fn tags(&mut self, behind: Behind) -> Step {
        if self.flexible { Step::TagCount(behind) } else { self.behind(behind) }
    }

    fn tag(&mut self, behind: Behind, count: u32) -> Step {
        match count.checked_sub(1) {
            Some(more) => Step::Tag(behind, more),
            None => self.behind(behind),
        }
    }

    /// What comes behind a struct and its tagged fields.
    fn behind(&mut self, behind: Behind) -> Step {
        match behind {
            Behind::Aborted => match self.entries.checked_sub(1) {
                Some(more) => {
                    self.entries = more;
                    Step::Aborted
                }
                None => Step::RecordsLength,
            },
            Behind::Leader => Step::RecordsLength,
            Behind::Acquired => self.next_acquired(),
            Behind::Partition => self.next_partition(),
            Behind::Topic => self.next_topic(),
            Behind::Message => Step::End,
        }
    }
}

/// Length of an array or of bytes, `None` for null. Nothing may be allocated by it: what it counts
/// is still to come.
fn count(reader: &mut Reader<'_>) -> Result<Option<u32>, Fault> {
    if reader.is_flexible() {
        return Ok(reader.uvarint()?.checked_sub(1));
    }
    match reader.i32()? {
        -1 => Ok(None),
        count => u32::try_from(count).map(Some).map_err(|_| Fault::Bad("negative count")),
    }
}
