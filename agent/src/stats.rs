//! Counters of spool and upload, as plain atomics: written by those who know, read by the admin
//! endpoint and the status object.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// What spool and upload have done since the start of the process.
#[derive(Debug, Default)]
pub struct Stats {
    /// Rows that were given a number, gap rows included.
    pub rows: AtomicU64,
    /// Rows refused because memory or disk was full; each stands within a `gap` row.
    pub shed: AtomicU64,
    /// Rows whose `at` was older than a watermark already told; see `spool::Recorder`.
    pub late: AtomicU64,
    /// Bytes written to segments.
    pub written_bytes: AtomicU64,
    /// Failed writes, syncs and renames in the spool.
    pub spool_errors: AtomicU64,
    /// Bytes of segments on disk, of all boots.
    pub spool_bytes: AtomicU64,
    /// Segments on disk, of all boots.
    pub segments: AtomicU64,
    /// Rows that could not be read back from a segment; each stands within a `gap` row.
    pub lost: AtomicU64,
    /// Objects put into the inbox.
    pub uploads: AtomicU64,
    /// Puts that failed, status objects included.
    pub upload_failures: AtomicU64,
    /// Bytes of the objects put into the inbox.
    pub upload_bytes: AtomicU64,
    /// Rows in the objects put into the inbox.
    pub upload_rows: AtomicU64,
    /// When the last object was put, microseconds since 1970; 0 before the first.
    pub last_upload_at: AtomicI64,
    /// Status objects put.
    pub status_puts: AtomicU64,
}

impl Stats {
    /// Reads a counter.
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// When the last object was put, since 1970; `None` before the first.
    pub fn last_upload(&self) -> Option<Duration> {
        let micros = u64::try_from(self.last_upload_at.load(Ordering::Relaxed)).ok()?;
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn sub(counter: &AtomicU64, n: u64) {
        counter.fetch_sub(n, Ordering::Relaxed);
    }
}
