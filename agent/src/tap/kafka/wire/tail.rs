//! Where the addresses of brokers stand in an answer that holds records: at its end. The relay asks
//! while it forwards, so nothing is copied and records are not looked at.

use super::read::Fault;
use super::walk::{Visit, Walker};

/// Looks for the tail of one answer.
#[derive(Debug)]
pub(crate) struct TailFinder {
    walker: Walker,
    found: bool,
}

impl TailFinder {
    /// Of a Fetch answer: the tagged fields of the whole, from version 12 on. The older ones end
    /// where their tail would begin.
    pub(crate) fn fetch(version: i16) -> Self {
        Self { walker: Walker::fetch(version), found: false }
    }

    /// Of a ShareFetch answer: the array `NodeEndpoints`.
    pub(crate) fn share_fetch(version: i16) -> Self {
        Self { walker: Walker::share_fetch(version), found: false }
    }

    /// Looks at the next piece of the body: the index at which the tail begins, once. It is the
    /// piece's length when it begins with the next one. After a fault no more can be said.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<Option<usize>, Fault> {
        if self.found {
            return Ok(None);
        }
        let tail = self.walker.feed_to_tail(piece, &mut Nothing)?;
        self.found = tail.is_some();
        Ok(tail)
    }
}

struct Nothing;

impl Visit for Nothing {}
