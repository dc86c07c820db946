//! A password for SCRAM-SHA-512: what lies ready on a node's disk has one for SCRAM-SHA-256 only.

use super::wire::{Api, Body};
use super::{Kafka, USER};

const ALTER_USER_SCRAM_CREDENTIALS: Api = Api { key: 51, version: 0, flexible: true };

const SHA_512: i8 = 2;
const ITERATIONS: i32 = 4096;
const SALT: &str = "flowtap-tests";
/// PBKDF2 with HMAC-SHA-512 over [`super::PASSWORD`]: brokers are told no password, only this.
const SALTED: [u8; 64] = [
    0x0e, 0x86, 0xe5, 0x74, 0xe5, 0xf8, 0x59, 0xcf, 0xb4, 0xa9, 0x4b, 0x36, 0x1f, 0xf8, 0x63, 0x26,
    0xab, 0x53, 0x37, 0x35, 0xdd, 0xad, 0x26, 0x39, 0xb6, 0xe4, 0x72, 0x54, 0x65, 0xce, 0x74, 0x4b,
    0x23, 0xe4, 0x56, 0xd6, 0x60, 0x96, 0xad, 0xfc, 0xf7, 0x68, 0xf6, 0x3e, 0xb2, 0xad, 0x19, 0xec,
    0x67, 0xf3, 0x5e, 0xfe, 0xb6, 0x87, 0x02, 0x3b, 0x25, 0xa7, 0xb2, 0xac, 0x74, 0x6b, 0xb9, 0xff,
];

impl Kafka {
    /// Gives [`USER`] a password for SCRAM-SHA-512.
    pub(super) fn allow_scram_512(&self) {
        let body = Body::default()
            .varint(1)
            .varint(2)
            .compact(USER)
            .i8(SHA_512)
            .i32(ITERATIONS)
            .compact(SALT)
            .varint(SALTED.len() as u64 + 1)
            .raw(&SALTED)
            .varint(0)
            .varint(0);
        let mut answer = self.ask(self.anybody(), ALTER_USER_SCRAM_CREDENTIALS, body);
        answer.i32();
        let results = answer.compacts(|each| {
            let said = (each.compact(), each.i16(), each.compact());
            each.tags();
            said
        });
        for (user, error, why) in results {
            assert_eq!(error, 0, "{user:?} gets no password: {why:?}");
        }
    }
}
