//! Headers. A request says which API and version it is; an answer only repeats the correlation id,
//! so that its form is known by the request that it answers.

use super::api::api;
use super::read::{Fault, Reader};

/// Request header v1 and v2. The `client_id` has a length of 16 bits in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestHeader<'a> {
    pub(crate) key: i16,
    pub(crate) version: i16,
    pub(crate) correlation: i32,
    pub(crate) client_id: Option<&'a [u8]>,
}

impl<'a> RequestHeader<'a> {
    /// Reads the header at the start of a frame (behind its length). What is left in the reader is
    /// the body. The tagged fields of v2 are passed over where the API is known.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<(Self, Reader<'a>), Fault> {
        let mut plain = Reader::new(bytes, false);
        let (key, version, correlation) = (plain.i16()?, plain.i16()?, plain.i32()?);
        let client_id = plain.plain_string()?;
        let flexible = api(key).is_some_and(|api| api.is_flexible(version));
        let mut body = Reader::new(plain.rest(), flexible);
        body.skip_tags()?;
        Ok((Self { key, version, correlation, client_id }, body))
    }
}

/// The body of an answer, behind its length: what follows the correlation id and, in header v1,
/// the tagged fields. ApiVersions answers have header v0 in every version.
pub(crate) fn response_body(key: i16, version: i16, frame: &[u8]) -> Result<(i32, &[u8]), Fault> {
    let flexible = api(key).is_some_and(|api| api.is_flexible(version));
    let mut reader = Reader::new(frame, flexible && key != super::api::key::API_VERSIONS);
    let correlation = reader.i32()?;
    reader.skip_tags()?;
    Ok((correlation, reader.rest()))
}
