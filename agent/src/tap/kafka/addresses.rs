//! Addresses of brokers in answers. Every answer that carries one, in every version:
//!
//! | key | API | versions | where |
//! |---|---|---|---|
//! | 0 | Produce | 10-13 | `NodeEndpoints`, tag 0 at the end |
//! | 1 | Fetch | 16-18 | `NodeEndpoints`, tag 0 at the end, behind all records |
//! | 3 | Metadata | 0-13 | `Brokers`, at the beginning |
//! | 10 | FindCoordinator | 0-3, 4-6 | at the top; `Coordinators` |
//! | 60 | DescribeCluster | 0-2 | `Brokers`, unless they are controllers |
//! | 78 | ShareFetch | 1-2 | `NodeEndpoints`, an array at the end, behind all records |
//! | 79 | ShareAcknowledge | 1-2 | `NodeEndpoints`, an array at the end |
//!
//! Not touched: `DescribeQuorum` (55) names controllers' listeners, for people to read; 88 and 89 hold
//! addresses of applications, 15, 69 and 77 those of clients, 29 and 31 those of rules.
//!
//! Addresses are spliced: all other bytes stay as the broker wrote them. The records of a Fetch are
//! never looked at here, only the few bytes behind them.

use std::ops::Range;

use super::wire::{Fault, Reader, api, key};

/// An address as it stands in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) id: i32,
    pub(crate) host: String,
    pub(crate) port: i32,
    /// Host with its length, and port.
    range: Range<usize>,
}

/// What was found in an answer's body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) places: Vec<Place>,
    /// The tagged field that holds them: its size, and its content.
    tagged: Option<(Range<usize>, Range<usize>)>,
    /// Up to where the body was read.
    pub(crate) end: usize,
}

/// Where in an answer addresses stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// Near its beginning: what follows them may pass as it comes.
    Front,
    /// At its end, but the whole is small.
    Whole,
    /// Behind the records.
    Tail,
}

/// Whether answers of an API in this version carry addresses, and where.
pub(crate) fn position(key: i16, version: i16) -> Option<Position> {
    match key {
        key::METADATA | key::FIND_COORDINATOR | key::DESCRIBE_CLUSTER => Some(Position::Front),
        key::PRODUCE if version >= 10 => Some(Position::Whole),
        key::SHARE_ACKNOWLEDGE => Some(Position::Whole),
        key::FETCH if version >= 16 => Some(Position::Tail),
        key::SHARE_FETCH => Some(Position::Tail),
        _ => None,
    }
}

/// Reads a message and says where it stands.
struct Cursor<'a> {
    whole: &'a [u8],
    reader: Reader<'a>,
}

impl<'a> Cursor<'a> {
    fn new(key: i16, version: i16, whole: &'a [u8]) -> Self {
        let flexible = api(key).is_some_and(|api| api.is_flexible(version));
        Self { whole, reader: Reader::new(whole, flexible) }
    }

    fn at(&self) -> usize {
        self.whole.len() - self.reader.rest().len()
    }

    /// Id, host and port, which stand together everywhere.
    fn place(&mut self) -> Result<Place, Fault> {
        let id = self.reader.i32()?;
        let start = self.at();
        let host = std::str::from_utf8(self.reader.text()?)
            .map_err(|_| Fault::Bad("a host that is no text"))?
            .to_owned();
        let port = self.reader.i32()?;
        Ok(Place { id, host, port, range: start..self.at() })
    }

    /// Each element of an array.
    fn each(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        for _ in 0..self.reader.array()?.unwrap_or(0) {
            element(self)?;
        }
        Ok(())
    }

    /// An array of id, host, port, rack.
    fn nodes(&mut self, rack: bool, fenced: bool) -> Result<Vec<Place>, Fault> {
        let mut places = Vec::new();
        self.each(|cursor| {
            places.push(cursor.place()?);
            if rack {
                cursor.reader.string()?;
            }
            if fenced {
                cursor.reader.bool()?;
            }
            cursor.reader.skip_tags()
        })?;
        Ok(places)
    }

    /// The tagged fields at the end, with `NodeEndpoints` as tag 0.
    fn tagged_nodes(&mut self, found: &mut Found) -> Result<(), Fault> {
        for _ in 0..self.reader.uvarint()? {
            let tag = self.reader.uvarint()?;
            let before = self.at();
            let size = self.reader.uvarint()? as usize;
            let start = self.at();
            if tag == 0 {
                found.places = self.nodes(true, false)?;
                if self.at() != start + size {
                    return Err(Fault::Bad("NodeEndpoints of another size"));
                }
                found.tagged = Some((before..start, start..start + size));
            } else {
                self.reader.take(size)?;
            }
        }
        Ok(())
    }
}

/// Finds the addresses in the body of an answer, as far as it has come. Of Fetch and ShareFetch not
/// the body is wanted, but the [`Position::Tail`].
pub(crate) fn find(key: i16, version: i16, body: &[u8]) -> Result<Found, Fault> {
    let mut cursor = Cursor::new(key, version, body);
    let mut found = Found::default();
    match key {
        key::METADATA => {
            if version >= 3 {
                cursor.reader.i32()?;
            }
            found.places = cursor.nodes(version >= 1, false)?;
        }
        key::FIND_COORDINATOR => {
            if version >= 1 {
                cursor.reader.i32()?;
            }
            if version >= 4 {
                cursor.each(|cursor| {
                    cursor.reader.string()?;
                    found.places.push(cursor.place()?);
                    cursor.reader.i16()?;
                    cursor.reader.string()?;
                    cursor.reader.skip_tags()
                })?;
            } else {
                cursor.reader.i16()?;
                if version >= 1 {
                    cursor.reader.string()?;
                }
                found.places.push(cursor.place()?);
            }
        }
        key::DESCRIBE_CLUSTER => {
            cursor.reader.i32()?;
            cursor.reader.i16()?;
            cursor.reader.string()?;
            let controllers = version >= 1 && cursor.reader.i8()? == CONTROLLERS;
            cursor.reader.string()?;
            cursor.reader.i32()?;
            let places = cursor.nodes(true, version >= 2)?;
            if !controllers {
                found.places = places;
            }
        }
        key::PRODUCE => {
            cursor.each(|topic| {
                if version >= 13 {
                    topic.reader.uuid()?;
                } else {
                    topic.reader.string()?;
                }
                topic.each(|partition| {
                    let reader = &mut partition.reader;
                    reader.take(4 + 2 + 8 + 8 + 8)?;
                    reader.each(|error| {
                        error.i32()?;
                        error.string()?;
                        error.skip_tags()
                    })?;
                    reader.string()?;
                    reader.skip_tags()
                })?;
                topic.reader.skip_tags()
            })?;
            cursor.reader.i32()?;
            cursor.tagged_nodes(&mut found)?;
        }
        key::SHARE_ACKNOWLEDGE => {
            cursor.reader.i32()?;
            cursor.reader.i16()?;
            cursor.reader.string()?;
            if version >= 2 {
                cursor.reader.i32()?;
            }
            cursor.each(|topic| {
                topic.reader.uuid()?;
                topic.each(|partition| {
                    let reader = &mut partition.reader;
                    reader.take(4 + 2)?;
                    reader.string()?;
                    reader.take(4 + 4)?;
                    reader.skip_tags()?;
                    reader.skip_tags()
                })?;
                topic.reader.skip_tags()
            })?;
            found.places = cursor.nodes(true, false)?;
        }
        key::FETCH => cursor.tagged_nodes(&mut found)?,
        key::SHARE_FETCH => found.places = cursor.nodes(true, false)?,
        _ => {}
    }
    found.end = cursor.at();
    Ok(found)
}

/// `EndpointType` of a DescribeCluster answer that lists controllers.
const CONTROLLERS: i8 = 2;

/// What takes the place of the first [`Found::end`] bytes of the body. `told` says which host and
/// port stand for a place; `None` leaves it as it is.
pub(crate) fn splice<'h>(
    key: i16,
    version: i16,
    body: &[u8],
    found: &Found,
    mut told: impl FnMut(&Place) -> Option<(&'h str, u16)>,
) -> Vec<u8> {
    let flexible = api(key).is_some_and(|api| api.is_flexible(version));
    let mut new = Vec::with_capacity(found.end + 16 * found.places.len());
    let mut copied = 0;
    let content = found.tagged.as_ref().map(|(size, content)| {
        new.extend_from_slice(&body[..size.start]);
        copied = content.start;
        content.clone()
    });
    let start = new.len();
    for place in &found.places {
        let Some((host, port)) = told(place) else { continue };
        new.extend_from_slice(&body[copied..place.range.start]);
        if flexible {
            put_uvarint(&mut new, host.len() + 1);
        } else {
            new.extend_from_slice(&(host.len() as i16).to_be_bytes());
        }
        new.extend_from_slice(host.as_bytes());
        new.extend_from_slice(&i32::from(port).to_be_bytes());
        copied = place.range.end;
    }
    if let Some(content) = content {
        new.extend_from_slice(&body[copied..content.end]);
        let tagged = new.split_off(start);
        put_uvarint(&mut new, tagged.len());
        new.extend_from_slice(&tagged);
        copied = content.end;
    }
    new.extend_from_slice(&body[copied..found.end]);
    new
}

/// A tag that no version of Fetch or ShareFetch knows: clients pass over it.
const UNKNOWN_TAG: u8 = 100;

/// Makes the tail of a large Fetch or ShareFetch answer say nothing of addresses, in as many bytes
/// as before, for the frame's length has gone out long ago. Clients ask for Metadata then.
pub(crate) fn neutralise(key: i16, version: i16, tail: &mut [u8]) -> Result<(), Fault> {
    let found = find(key, version, tail)?;
    if found.places.is_empty() {
        return Ok(());
    }
    if let Some((size, _)) = found.tagged {
        // The tag stands before its size, in one byte, for it is 0.
        tail[size.start - 1] = UNKNOWN_TAG;
        return Ok(());
    }
    // An empty array, and the old one's bytes in a tagged field behind those that follow.
    let mut tags = tail[found.end..].to_vec();
    let count = tags.first().copied().ok_or(Fault::Short)?;
    if count >= 0x7f {
        return Err(Fault::Bad("too many tagged fields"));
    }
    tags[0] += 1;
    let fixed = 1 + tags.len() + 1;
    let room = tail.len().checked_sub(fixed).ok_or(Fault::Short)?;
    let mut new = vec![1];
    new.append(&mut tags);
    new.push(UNKNOWN_TAG);
    let short = |size: usize| (1..=4).find(|bytes| size < 1 << (7 * bytes)).unwrap_or(5);
    // The size's own bytes are part of the room; where none fits exactly it takes one too many.
    let width =
        (1..=5).find(|width| room.checked_sub(*width).is_some_and(|size| short(size) <= *width));
    let width = width.ok_or(Fault::Short)?;
    let size = room - width;
    for byte in 0..width {
        let more = if byte + 1 < width { 0x80 } else { 0 };
        new.push((size >> (7 * byte)) as u8 & 0x7f | more);
    }
    new.resize(tail.len(), 0);
    tail.copy_from_slice(&new);
    Ok(())
}

pub(super) fn put_uvarint(out: &mut Vec<u8>, value: usize) {
    let mut value = value;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
