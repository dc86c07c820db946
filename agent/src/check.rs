//! `flowtap-agent check`: reaches every broker, the store and the spool as a run would, and says
//! line by line what it found. It logs in nowhere and leaves no file or folder behind.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::clock::Clock;
use crate::config::{ByteSize, Config, HostPort, SpoolConfig, StoreUrl, TapConfig, TapKind};
use crate::dial::{Dialer, Duplex};
use crate::upload::Store;
use crate::{spool, tls, upload};

mod greeting;
mod kafka;

/// How long to wait for a broker or the store.
const PATIENCE: Duration = Duration::from_secs(10);

/// Checks everything; each line goes to `say` as soon as it is known. Whether all is well.
pub async fn run(config: &Config, say: &mut dyn FnMut(String)) -> bool {
    let mut all_well = true;
    let mut report = |what: String, found: Result<String, String>| match found {
        Ok(found) => say(format!("ok    {what}: {found}")),
        Err(wrong) => {
            all_well = false;
            say(format!("FAIL  {what}: {wrong}"));
        }
    };
    report("configuration".to_owned(), Ok(format!("service {}", config.service)));
    if let Some(files) = &config.admin.tls {
        let tls = tls::acceptor(files).map(|_| "certificate and key fit".to_owned());
        report("admin TLS".to_owned(), tls.map_err(|error| error.to_string()));
    }
    for (index, tap) in config.taps.iter().enumerate() {
        let name = format!("tap[{index}] {}", tap.listen);
        if let Some(files) = &tap.tls.listener {
            let tls = tls::acceptor(files).map(|_| "certificate and key fit".to_owned());
            report(format!("{name} TLS"), tls.map_err(|error| error.to_string()));
        }
        brokers(tap, &name, &mut report).await;
    }
    report(format!("store {}", config.store), check_store(config).await);
    let spool = format!("spool {}", config.spool.path.display());
    report(spool, check_spool(&config.spool));
    all_well
}

/// Reaches each of a tap's brokers, not only the first that answers.
async fn brokers(
    tap: &TapConfig,
    name: &str,
    report: &mut impl FnMut(String, Result<String, String>),
) {
    let dialer = match Dialer::new(tap.broker.clone(), &tap.tls, PATIENCE) {
        Ok(dialer) => dialer,
        Err(error) => {
            report(name.to_owned(), Err(error.to_string()));
            return;
        }
    };
    let tls = if tap.broker.tls { " (TLS)" } else { "" };
    let mut told = Told::default();
    for host in &tap.broker.hosts {
        let found = match dialer.dial_one(host).await {
            Err(error) => Err(format!("cannot be reached: {error}")),
            Ok(mut dialled) => {
                let asked = asked(tap.kind, &mut *dialled.stream, &mut told);
                let found = tokio::time::timeout(PATIENCE, asked).await;
                // Before a login there is no better goodbye: RabbitMQ takes `connection.close` for
                // an error then, and logs a warning of a closed connection now.
                let _ = dialled.stream.shutdown().await;
                found.unwrap_or_else(|_| {
                    Err(format!("reached, but it says nothing for {PATIENCE:?}"))
                })
            }
        };
        report(format!("{name} broker {host}{tls}"), found);
    }
    if let [first, other, ..] = &told.clusters[..] {
        let wrong = format!("belong to two clusters, {first} and {other}: give each its own tap");
        report(format!("{name} brokers"), Err(wrong));
    }
    // Clients are sent on to these, and the agent must reach them too.
    told.brokers.sort_by_key(|(id, _)| *id);
    told.brokers.dedup();
    for (id, host) in told.brokers.iter().filter(|(_, host)| !tap.broker.hosts.contains(host)) {
        let found = dialer.dial_one(host).await;
        let found = found.map(|_| "reached, as the cluster says where it is".to_owned());
        let found = found.map_err(|error| {
            format!("cannot be reached, though the cluster says that it is there: {error}")
        });
        report(format!("{name} broker {id} at {host}{tls}"), found);
    }
}

/// What Kafka's brokers tell clients.
#[derive(Default)]
struct Told {
    brokers: Vec<(i32, HostPort)>,
    /// Ids of clusters, each once.
    clusters: Vec<String>,
}

/// What a broker says of itself, and which brokers it tells clients of.
async fn asked(kind: TapKind, stream: &mut dyn Duplex, told: &mut Told) -> Result<String, String> {
    let mut stream = stream;
    match kind {
        TapKind::Amqp => match greeting::ask(&mut stream).await {
            Ok(greeting) => Ok(greeting.to_string()),
            Err(error) => Err(error.to_string()),
        },
        TapKind::Kafka => match kafka::ask(&mut stream).await {
            Ok(welcome) => {
                told.brokers.extend_from_slice(welcome.brokers());
                let new = |id: &&str| !told.clusters.iter().any(|known| known == *id);
                if let Some(id) = welcome.cluster_id().filter(new) {
                    told.clusters.push(id.to_owned());
                }
                Ok(welcome.to_string())
            }
            Err(error) => Err(error.to_string()),
        },
    }
}

/// Text from the wire for a terminal: no control characters, not endless.
fn clean(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Puts, gets and deletes an object where the agent's own status will stand.
async fn check_store(config: &Config) -> Result<String, String> {
    let store = Store::open(&config.store.to_string()).map_err(|error| error.to_string())?;
    let agent = config.agent.clone().unwrap_or_else(|| format!("{}-check", config.service));
    let _made = match &config.store {
        StoreUrl::Folder(path) => Made::of(path),
        StoreUrl::Bucket(_) => Made::default(),
    };
    let checked = upload::check_store(&store, &agent, Clock::system().now());
    let found = tokio::time::timeout(PATIENCE, checked)
        .await
        .map_err(|_| format!("no answer within {PATIENCE:?}"))?
        .map_err(|error| error.to_string())?;
    if found.notes.is_empty() {
        Ok("put, get and delete work".to_owned())
    } else {
        Ok(format!("an agent can put; {}", found.notes.join("; ")))
    }
}

/// Whether the spool folder is free, can be written, and has room for what it may take.
fn check_spool(config: &SpoolConfig) -> Result<String, String> {
    let _made = Made::of(&config.path);
    if let Some(holder) = spool::holder(&config.path).map_err(|error| error.to_string())? {
        return Err(format!(
            "another agent (process {holder}) works on it: give each agent a folder of its own"
        ));
    }
    make_private(&config.path).map_err(|error| format!("cannot be made: {error}"))?;
    let probe = config.path.join(format!(".check-{:016x}", rand::random::<u64>()));
    std::fs::write(&probe, b"").map_err(|error| format!("cannot be written: {error}"))?;
    std::fs::remove_file(&probe).map_err(|error| format!("cannot be tidied: {error}"))?;
    let disk = rustix::fs::statvfs(&config.path).map_err(|error| error.to_string())?;
    let free = ByteSize(disk.f_bavail.saturating_mul(disk.f_frsize));
    let free_mib = free.0 >> 20;
    if free < config.max_size {
        return Err(format!(
            "writable, but only {free_mib} MiB are free and spool.max_size is {}",
            config.max_size
        ));
    }
    Ok(format!("writable, {free_mib} MiB free, may take {}", config.max_size))
}

/// Folders that were not there before; removed again when this is dropped, if nothing is in them.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    /// What making this folder will make, itself first.
    fn of(path: &Path) -> Self {
        Self(path.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // The first that holds something, or cannot be removed, ends it.
        let _ = self.0.iter().try_for_each(std::fs::remove_dir);
    }
}

/// The spool holds what a service said: nobody else may read it.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests;
