//! Kafka's protocol as bytes: what a broker or a client may send is read here, with a bound on
//! everything that it counts. Nothing here allocates by a number that was read before checking it
//! against the bytes that are there.
//!
//! Formats: `clients/src/main/resources/common/message/*.json` of Apache Kafka.

mod api;
mod batch;
mod cluster;
mod errors;
mod fetch;
mod groups;
mod header;
mod inflate;
mod offsets;
mod produce;
mod read;
mod sasl;
mod stream;
mod tail;
mod transactions;
mod types;
mod walk;

pub(crate) use api::{Api, api, key};
pub(crate) use batch::{control_type, for_each_record, magic};
pub(crate) use errors::{error, error_name, is_retriable};
pub(crate) use fetch::{old_fetch_records, share_fetch_records};
pub(crate) use groups::{groups_looked_for, heartbeat_error};
pub(crate) use header::{RequestHeader, response_body};
pub(crate) use inflate::Scratch;
pub(crate) use read::{Fault, Reader};
pub(crate) use sasl::{auth_bytes, handshake_mechanism, user_name};
pub(crate) use stream::RecordStream;
pub(crate) use tail::TailFinder;
pub(crate) use types::*;

/// A reader of one message's body, if the tap knows that version.
fn open(key: i16, version: i16, body: &[u8]) -> Result<Reader<'_>, Fault> {
    match api(key) {
        Some(api) if api.knows(version) => Ok(Reader::new(body, api.is_flexible(version))),
        _ => Err(Fault::Bad("version that is not known")),
    }
}

/// A topic's name, or its id in versions that have ids instead.
fn topic<'a>(reader: &mut Reader<'a>, by_id: bool) -> Result<TopicRef<'a>, Fault> {
    Ok(if by_id { TopicRef::Id(TopicId(reader.uuid()?)) } else { TopicRef::Name(reader.text()?) })
}

/// An array of topics, each with an array of something said of its partitions.
fn by_topic<'a, T>(
    reader: &mut Reader<'a>,
    by_id: bool,
    mut element: impl FnMut(&mut Reader<'a>) -> Result<T, Fault>,
) -> Result<ByTopic<'a, T>, Fault> {
    reader.each(|reader| one_topic(reader, by_id, &mut element))
}

/// One element of [`by_topic`].
fn one_topic<'a, T>(
    reader: &mut Reader<'a>,
    by_id: bool,
    element: impl FnMut(&mut Reader<'a>) -> Result<T, Fault>,
) -> Result<(TopicRef<'a>, Vec<T>), Fault> {
    let topic = topic(reader, by_id)?;
    let partitions = reader.each(element)?;
    reader.skip_tags()?;
    Ok((topic, partitions))
}

/// An id of zeros is none.
fn id_if_any(id: [u8; 16]) -> Option<TopicId> {
    (id != [0; 16]).then_some(TopicId(id))
}

#[cfg(test)]
mod tests;
