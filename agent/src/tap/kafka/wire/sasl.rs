//! SASL, as far as it says who the client is: SaslHandshake 17 and SaslAuthenticate 36. Tokens hold
//! passwords: nothing of them is kept but the user's name.

use std::borrow::Cow;

use super::read::Fault;
use super::{key, open};

/// The mechanism that a SaslHandshake request asks for, versions 0 and 1.
pub(crate) fn handshake_mechanism(version: i16, body: &[u8]) -> Result<&[u8], Fault> {
    open(key::SASL_HANDSHAKE, version, body)?.text()
}

/// The token in a SaslAuthenticate request, versions 0 to 2.
pub(crate) fn auth_bytes(version: i16, body: &[u8]) -> Result<&[u8], Fault> {
    Ok(open(key::SASL_AUTHENTICATE, version, body)?.bytes()?.unwrap_or_default())
}

/// The user's name in a client's first token: PLAIN (RFC 4616), SCRAM (RFC 5802). `None` for other
/// mechanisms and for later tokens.
pub(crate) fn user_name<'a>(mechanism: &[u8], token: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    if mechanism == b"PLAIN" {
        // authorisation identity, authentication identity, password
        let mut parts = token.split(|byte| *byte == 0);
        let (_, name, _) = (parts.next()?, parts.next()?, parts.next()?);
        return (!name.is_empty() && parts.next().is_none()).then_some(Cow::Borrowed(name));
    }
    if !mechanism.starts_with(b"SCRAM-SHA-") {
        return None;
    }
    // gs2-cbind-flag "," [authzid] "," [reserved-mext ","] username "," nonce ...
    let mut parts = token.split(|byte| *byte == b',');
    let flag = parts.next()?;
    if !(flag == b"n" || flag == b"y" || flag.starts_with(b"p=")) {
        return None;
    }
    parts.next()?;
    let name = parts.find_map(|part| part.strip_prefix(b"n="))?;
    (!name.is_empty()).then(|| unescape(name))
}

/// SCRAM writes `,` and `=` of a name as `=2C` and `=3D`.
fn unescape(name: &[u8]) -> Cow<'_, [u8]> {
    if !name.contains(&b'=') {
        return Cow::Borrowed(name);
    }
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match after.split_first_chunk() {
            Some((b"2C", after)) if *first == b'=' => (b',', after),
            Some((b"3D", after)) if *first == b'=' => (b'=', after),
            _ => (*first, after),
        };
        plain.push(byte);
        rest = after;
    }
    Cow::Owned(plain)
}
