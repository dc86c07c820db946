//! ApiVersions answers. Clients are offered no newer version than the tap knows of the APIs that
//! carry records or addresses; everything else stays as the broker says it: its minimum (librdkafka
//! compresses only when Produce goes back to 0), its features (transactions V2 follow from them),
//! all other APIs.

use super::wire::{Api, Fault, Reader, api, key};

/// The error with which a broker that does not know the client's version answers as version 0.
const UNSUPPORTED_VERSION: i16 = 35;

/// The body of an answer with the newest versions lowered; `None` when nothing is to be changed.
pub(crate) fn clamp(version: i16, body: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let error = Reader::new(body, false).i16()?;
    let flexible = version >= 3 && error != UNSUPPORTED_VERSION;
    let mut reader = Reader::new(body, flexible);
    let at = |reader: &Reader<'_>| body.len() - reader.rest().len();
    reader.i16()?;
    let count_at = at(&reader);
    let count = reader.array()?.unwrap_or(0);
    let first = at(&reader);
    let mut kept = Vec::with_capacity(body.len());
    let (mut left, mut changed) = (count, false);
    for _ in 0..count {
        let start = at(&reader);
        let (key, oldest, newest) = (reader.i16()?, reader.i16()?, reader.i16()?);
        reader.skip_tags()?;
        let end = at(&reader);
        match api(key).filter(|api| api.is_clamped() && newest > api.newest) {
            _ if api(key).is_some_and(|api| is_out_of_reach(api, oldest, newest)) => {
                left -= 1;
                changed = true;
            }
            Some(api) => {
                kept.extend_from_slice(&body[start..start + 4]);
                kept.extend_from_slice(&api.newest.to_be_bytes());
                kept.extend_from_slice(&body[start + 6..end]);
                changed = true;
            }
            None => kept.extend_from_slice(&body[start..end]),
        }
    }
    if !changed {
        return Ok(None);
    }
    let mut new = body[..count_at].to_vec();
    if left == count {
        new.extend_from_slice(&body[count_at..first]);
    } else if flexible {
        super::addresses::put_uvarint(&mut new, left + 1);
    } else {
        new.extend_from_slice(&(left as i32).to_be_bytes());
    }
    new.append(&mut kept);
    new.extend_from_slice(reader.rest());
    Ok(Some(new))
}

/// Whether broker and tap have no version in common, so that the API can't be offered at all.
fn is_out_of_reach(api: &Api, oldest: i16, newest: i16) -> bool {
    api.is_clamped() && (oldest > api.newest || newest < oldest_passed(api))
}

/// The oldest version that may pass: old ones of Produce and Fetch carry no addresses, so that they
/// pass although they are not read.
fn oldest_passed(api: &Api) -> i16 {
    match api.key {
        key::PRODUCE | key::FETCH => 0,
        _ => api.oldest,
    }
}

/// Whether a request in this version must not go on, as the answer would carry addresses that the
/// tap can't find.
pub(crate) fn would_leak(api: &Api, version: i16) -> bool {
    api.carries_addresses() && (version > api.newest || version < oldest_passed(api))
}
