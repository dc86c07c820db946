//! The harness of the end-to-end tests: real brokers, a real S3 server, real clients and the
//! sidecar between them, each started for a test and gone after it, whatever happens to the test.
//!
//! | module | gives |
//! |---|---|
//! | [`rabbitmq`] | a RabbitMQ 3.10 or 4.0 node of one's own |
//! | [`kafka`] | a Kafka 3.9 or 4 cluster of one's own |
//! | [`raw`] | AMQP frames written by hand |
//! | [`relay`] | what passed, byte by byte |
//! | [`s3`] | an S3 server with conditional puts |
//! | [`s3meter`] | what is asked of it, counted, and answers as late as from S3 |
//! | [`sidecar`] | the agent between a service and its broker |
//! | [`sql`] | rows of a store, through `flowtap sql` |
//! | [`client`] | services in Python, Ruby, JavaScript, Go, Java and Rust with clients that nobody here wrote |
//! | [`disk`] | a disk that can be made to stall |
//! | [`process`] | child processes that cannot outlive the tests |
//!
//! Everything here panics with a sentence when it can't do its work: it only ever runs in tests.
#![allow(clippy::missing_panics_doc)]

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::StdRng;

pub mod client;
pub mod disk;
pub mod edison;
mod janitor;
pub mod kafka;
pub mod net;
pub mod process;
pub mod rabbitmq;
pub mod raw;
pub mod relay;
pub mod s3;
pub mod s3meter;
pub mod secrets;
pub mod sidecar;
pub mod sql;

/// How long the harness waits for something that should happen soon. Generous: nothing is
/// measured by it, and a machine that compiles beside the tests is slow.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until a condition holds, and panics with what was awaited if it does not in [`PATIENCE`].
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a test can run that needs something which not every machine has.
///
/// Where it can't, it says so loudly, and on CI it fails: a test that is skipped there proves
/// nothing to anybody.
#[must_use]
pub fn available(there: bool, what: &str) -> bool {
    if !there {
        assert!(!on_ci(), "not available on CI: {what} (run scripts/setup.sh test)");
        // Not by a macro: what those print in a test that passes is never shown.
        let mut stderr = std::io::stderr().lock();
        let _said = writeln!(stderr, "\nSKIPPED, NOT TESTED: {what} (run scripts/setup.sh test)");
    }
    there
}

/// Whether this runs on CI.
pub fn on_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

/// Whether the long form of a test is wanted: `FLOWTAP_LONG=1`, which `make test-long` sets.
pub fn long() -> bool {
    std::env::var_os("FLOWTAP_LONG").is_some_and(|value| value == "1")
}

/// A seeded source of chance; `FLOWTAP_SEED` is printed for whoever wants the same run again.
pub fn chance() -> StdRng {
    let seed = std::env::var("FLOWTAP_SEED")
        .map_or_else(|_| rand::random(), |seed| seed.parse().expect("FLOWTAP_SEED is a number"));
    eprintln!("FLOWTAP_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Whether this process may mount and make namespaces.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The folder of this package. Asked when it runs: on CI one target folder serves every clone, and
/// what another clone has compiled names that one's folders.
pub fn package_dir() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// Where `scripts/setup.sh` keeps what it fetched.
pub fn cache_dir() -> PathBuf {
    match std::env::var_os("FLOWTAP_CACHE") {
        Some(folder) => folder.into(),
        None => {
            PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/flowtap")
        }
    }
}

/// A program of this workspace: beside the test executable, or in `FLOWTAP_BIN_DIR`.
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("FLOWTAP_BIN_DIR").map_or_else(
        || {
            let test = std::env::current_exe().expect("a running program has a path");
            test.ancestors().nth(2).expect("it lies in target/<profile>/deps").to_owned()
        },
        PathBuf::from,
    );
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run cargo build --workspace --bins", path.display());
    path
}
