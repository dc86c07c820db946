//! The decoders against messages that another implementation encodes (`kafka-protocol`, of Kafka
//! 4.1), against bytes by hand for the versions that it lacks, and against garbage.

mod batches;
mod by_hand;
mod groups;
mod hostile;
mod offsets;
mod streams;
mod topics;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::{Encodable, StrBytes};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use super::*;

/// Makes up what messages say.
struct Dice(StdRng);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    fn any<T>(&mut self) -> T
    where
        rand::distr::StandardUniform: rand::distr::Distribution<T>,
    {
        self.0.random()
    }

    fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    fn one_of<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[self.below(N)]
    }

    fn below_one_of<const N: usize>(&mut self, ends: [usize; N]) -> usize {
        let end = self.one_of(ends);
        self.below(end)
    }

    /// Of every length that takes another number of bytes, mostly short.
    fn text(&mut self) -> StrBytes {
        let length = self.below_one_of([3, 3, 3, 20, 200]);
        let text: String = (0..length).map(|_| self.0.random_range('a'..='é')).collect();
        text.into()
    }

    fn text_if_any(&mut self) -> Option<StrBytes> {
        self.any::<bool>().then(|| self.text())
    }

    fn bytes(&mut self) -> Bytes {
        let length = self.below(200);
        (0..length).map(|_| self.any::<u8>()).collect()
    }

    fn topic(&mut self) -> TopicName {
        TopicName(self.text())
    }

    fn id(&mut self) -> Uuid {
        Uuid::from_bytes(self.any())
    }

    fn some<T>(&mut self, mut element: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.one_of([0, 1, 1, 2, 5, 200]);
        let count = if count == 200 && self.below(20) > 0 { 3 } else { count };
        (0..count).map(|_| element(self)).collect()
    }

    fn integers(&mut self) -> Vec<i32> {
        self.some(Self::any)
    }
}

fn encode(message: &impl Encodable, version: i16) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    message.encode(&mut buffer, version).expect("a message that the version has");
    buffer.to_vec()
}

/// Tagged fields that nobody has defined, at the end of a struct.
macro_rules! tagged {
    ($dice:expr, $message:expr) => {{
        let mut message = $message;
        if $dice.below(3) == 0 {
            for tag in [100, 300] {
                message.unknown_tagged_fields.insert(tag, $dice.bytes());
            }
        }
        message
    }};
}
use tagged;

fn text(text: &StrBytes) -> &[u8] {
    text.as_bytes()
}

fn text_of(text: Option<&StrBytes>) -> Option<&[u8]> {
    text.map(|text| text.as_bytes())
}

fn name_or_id(by_id: bool, name: &TopicName, id: Uuid) -> TopicRef<'_> {
    if by_id { TopicRef::Id(TopicId(id.into_bytes())) } else { TopicRef::Name(name.0.as_bytes()) }
}
