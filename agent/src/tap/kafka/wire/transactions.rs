//! Transactions: InitProducerId 22 and EndTxn 26 (`InitProducerIdRequest.json` and so on).

use super::read::Fault;
use super::types::{EndTxnRequest, EndTxnResponse, InitProducerRequest, InitProducerResponse};
use super::{key, open};

impl<'a> InitProducerRequest<'a> {
    /// Versions 0 to 5.
    pub(crate) fn decode(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::INIT_PRODUCER_ID, version, body)?;
        Ok(Self { transactional_id: reader.string()?, timeout_ms: reader.i32()? })
    }
}

impl InitProducerResponse {
    /// Versions 0 to 5.
    pub(crate) fn decode(version: i16, body: &[u8]) -> Result<Self, Fault> {
        let mut reader = open(key::INIT_PRODUCER_ID, version, body)?;
        reader.i32()?; // throttle time
        Ok(Self { error: reader.i16()?, producer_id: reader.i64()?, epoch: reader.i16()? })
    }
}

impl<'a> EndTxnRequest<'a> {
    /// Versions 0 to 5.
    pub(crate) fn decode(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::END_TXN, version, body)?;
        Ok(Self {
            transactional_id: reader.text()?,
            producer_id: reader.i64()?,
            epoch: reader.i16()?,
            committed: reader.bool()?,
        })
    }
}

impl EndTxnResponse {
    /// Versions 0 to 5. Before 5, and where it says -1, the producer keeps id and epoch.
    pub(crate) fn decode(version: i16, body: &[u8]) -> Result<Self, Fault> {
        let mut reader = open(key::END_TXN, version, body)?;
        reader.i32()?; // throttle time
        let error = reader.i16()?;
        let next = if version >= 5 { Some((reader.i64()?, reader.i16()?)) } else { None };
        Ok(Self { error, next: next.filter(|(producer_id, _)| *producer_id >= 0) })
    }
}
