//! What is known of the brokers behind a tap: for each id a local port, which never changes, and
//! the address behind it, which may. An id that an answer names for the first time gets its
//! listener before that answer goes on. Ports outlive the agent: clients go on using those that they
//! were told ([`super::memory`]).

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use super::memory::Memory;
use super::wire::TopicId;
use crate::config::{HostPort, PortRange};

/// A broker that could not be reached is tried last for this long.
const GRUDGE: Duration = Duration::from_secs(30);

/// A broker's local listener, just bound.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) id: i32,
    pub(crate) listener: TcpListener,
}

/// One broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broker {
    /// The local port for it.
    pub(crate) port: u16,
    /// Where it is.
    pub(crate) address: HostPort,
}

/// Where local listeners are bound, and what clients are told of them.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    /// The address of the bootstrap listener.
    pub(crate) ip: IpAddr,
    pub(crate) ports: PortRange,
    /// The host in rewritten addresses.
    pub(crate) advertise: String,
}

/// What is kept across restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) brokers: BTreeMap<i32, Broker>,
    pub(crate) topics: BTreeMap<TopicId, String>,
}

/// All that is known of the brokers behind a tap. Connections and the decoding thread share it.
#[derive(Debug)]
pub(crate) struct Brokers {
    local: Local,
    kept: Mutex<Kept>,
    failed: Mutex<HashMap<HostPort, Instant>>,
    /// Listeners that are to be served.
    opened: mpsc::UnboundedSender<Opened>,
    /// Something that is kept across restarts has changed.
    changed: Arc<Notify>,
    /// Where a port stands before a client is told it.
    memory: Option<Memory>,
}

impl Brokers {
    /// Binds the port of every broker that is known from before.
    pub(crate) fn new(
        local: Local,
        kept: Kept,
        opened: mpsc::UnboundedSender<Opened>,
    ) -> Result<Self, PortTaken> {
        let brokers = Self {
            local,
            kept: Mutex::new(Kept { topics: kept.topics, ..Kept::default() }),
            failed: Mutex::default(),
            opened,
            changed: Arc::default(),
            memory: None,
        };
        let (inside, outside): (Vec<_>, Vec<_>) =
            kept.brokers.into_iter().partition(|(_, known)| {
                brokers.local.ports.first == 0 || brokers.local.ports.contains(known.port)
            });
        for (id, known) in inside {
            let place = SocketAddr::new(brokers.local.ip, known.port);
            let listener =
                bind(place).map_err(|error| PortTaken { id, port: known.port, error })?;
            brokers.open(&mut brokers.kept(), id, listener, known.address);
        }
        // The range was changed since: these move into it.
        for (id, known) in outside {
            tracing::info!(broker = id, port = known.port, ports = %brokers.local.ports, "port left");
            brokers.learn(id, known.address).map_err(|error| PortTaken {
                id,
                port: known.port,
                error,
            })?;
        }
        Ok(brokers)
    }

    /// From now on ports of new brokers stand in this file before [`Self::learn`] says them.
    pub(crate) fn kept_in(self, memory: Memory) -> Self {
        Self { memory: Some(memory), ..self }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host that clients are told.
    pub(crate) fn advertise(&self) -> &str {
        &self.local.advertise
    }

    /// Takes in where a broker is, and says the local port for it, whose listener is bound now.
    pub(crate) fn learn(&self, id: i32, address: HostPort) -> io::Result<u16> {
        let mut kept = self.kept();
        if let Some(known) = kept.brokers.get_mut(&id) {
            let port = known.port;
            if known.address != address {
                tracing::info!(broker = id, from = %known.address, to = %address, "broker moved");
                known.address = address;
                self.changed.notify_one();
            }
            return Ok(port);
        }
        let listener = self.bind_for(&kept, id)?;
        let port = self.open(&mut kept, id, listener, address);
        if let Some(memory) = &self.memory
            && let Err(error) = memory.save_now(&kept)
        {
            tracing::warn!(broker = id, %error, "a broker's port can't be kept for the next start");
        }
        drop(kept);
        self.changed.notify_one();
        Ok(port)
    }

    /// The port that is as far into the range as the id says, else the next free one.
    fn bind_for(&self, kept: &Kept, id: i32) -> io::Result<TcpListener> {
        let PortRange { first, last } = self.local.ports;
        let at = |port| bind(SocketAddr::new(self.local.ip, port));
        if first == 0 {
            return at(0);
        }
        let taken = |port: &u16| kept.brokers.values().any(|known| known.port == *port);
        let wanted = u16::try_from(id).ok().and_then(|id| first.checked_add(id));
        let wanted = wanted.filter(|port| *port <= last);
        let mut failure = None;
        for port in wanted.into_iter().chain(first..=last).filter(|port| !taken(port)) {
            match at(port) {
                Ok(listener) => return Ok(listener),
                Err(error) => failure = Some(error),
            }
        }
        // Better a port that nobody expected than a broker that nobody reaches.
        let why =
            failure.map_or_else(|| "each has its broker".to_owned(), |error| error.to_string());
        let listener = at(0)?;
        let port = listener.local_addr()?.port();
        tracing::warn!(
            broker = id, port, ports = %self.local.ports, why,
            "no port of the range is free: took another; give the tap a wider range of `ports`"
        );
        Ok(listener)
    }

    fn open(&self, kept: &mut Kept, id: i32, listener: TcpListener, address: HostPort) -> u16 {
        let port = listener.local_addr().map_or(0, |address| address.port());
        tracing::info!(broker = id, %address, port, "listening for a broker");
        kept.brokers.insert(id, Broker { port, address });
        // Nobody takes it when the tap is closing.
        let _ = self.opened.send(Opened { id, listener });
        port
    }

    /// Where a broker is.
    pub(crate) fn address(&self, id: i32) -> Option<HostPort> {
        self.kept().brokers.get(&id).map(|known| known.address.clone())
    }

    /// Which brokers the bootstrap listener tries: the configured ones, then all that are known;
    /// those that could not be reached lately last.
    pub(crate) fn candidates(&self, configured: &[HostPort]) -> Vec<HostPort> {
        let mut all: Vec<HostPort> = configured.to_vec();
        for known in self.kept().brokers.values() {
            if !all.contains(&known.address) {
                all.push(known.address.clone());
            }
        }
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        all.sort_by_key(|host| failed.get(host).is_some_and(|when| when.elapsed() < GRUDGE));
        all
    }

    /// Whether a broker could be reached.
    pub(crate) fn tried(&self, host: &HostPort, reached: bool) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if reached {
            failed.remove(host);
        } else {
            failed.retain(|_, when| when.elapsed() < GRUDGE);
            failed.insert(host.clone(), Instant::now());
        }
    }

    /// Keeps the names of topics across restarts.
    pub(crate) fn remember_topics<'a>(&self, topics: impl IntoIterator<Item = (TopicId, &'a str)>) {
        let mut kept = self.kept();
        let mut new = false;
        for (id, name) in topics {
            if kept.topics.get(&id).is_none_or(|known| known != name) {
                kept.topics.insert(id, name.to_owned());
                new = true;
            }
        }
        drop(kept);
        if new {
            self.changed.notify_one();
        }
    }

    /// The names of all topics that were ever seen.
    pub(crate) fn topics(&self) -> Vec<(TopicId, String)> {
        self.kept().topics.iter().map(|(id, name)| (*id, name.clone())).collect()
    }

    /// All that is kept across restarts.
    pub(crate) fn to_keep(&self) -> Kept {
        self.kept().clone()
    }

    /// Notified when [`Self::to_keep`] has changed.
    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }
}

fn bind(place: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(place)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The port that a broker's clients were told is not free.
#[derive(Debug, thiserror::Error)]
#[error(
    "port {port}, which clients were told for broker {id}, cannot be bound: {error}; is another agent or program there? If it may stay, change the tap's `ports` so that they leave it out"
)]
pub struct PortTaken {
    id: i32,
    port: u16,
    error: io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(ports: PortRange) -> Local {
        Local { ip: [127, 0, 0, 1].into(), ports, advertise: "localhost".to_owned() }
    }

    /// Ports that are free now, from the first on. Another program may take one meanwhile; none of
    /// these is in the range that the system gives out by itself.
    fn free(count: u16) -> PortRange {
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        let start = 21_000 + rand::random::<u16>() % 8_000;
        let first = (start..)
            .step_by(usize::from(count))
            .find(|first| (*first..first + count).all(is_free));
        let first = first.unwrap();
        PortRange { first, last: first + count - 1 }
    }

    fn host(text: &str) -> HostPort {
        HostPort::parse(text).unwrap()
    }

    fn of(local: Local, kept: Kept) -> (Brokers, mpsc::UnboundedReceiver<Opened>) {
        let (opened, listeners) = mpsc::unbounded_channel();
        (Brokers::new(local, kept, opened).unwrap(), listeners)
    }

    #[test]
    fn a_broker_gets_the_port_of_its_id_or_the_next_that_is_free() {
        let ports = free(5);
        let (brokers, mut opened) = of(local(ports), Kept::default());
        let other = TcpListener::bind(("127.0.0.1", ports.first)).unwrap();
        assert_eq!(brokers.learn(3, host("k3:9092")).unwrap(), ports.first + 3);
        assert_eq!(brokers.learn(1003, host("k1003:9092")).unwrap(), ports.first + 1);
        assert_eq!(brokers.learn(1, host("k1:9092")).unwrap(), ports.first + 2);
        assert_eq!(brokers.learn(3, host("k3:9092")).unwrap(), ports.first + 3);
        let ids: Vec<i32> = std::iter::from_fn(|| opened.try_recv().ok()).map(|o| o.id).collect();
        assert_eq!(ids, [3, 1003, 1]);
        drop(other);
    }

    #[test]
    fn a_full_range_strands_no_broker() {
        let ports = free(1);
        let (brokers, _opened) = of(local(ports), Kept::default());
        assert_eq!(brokers.learn(7, host("a:1")).unwrap(), ports.first);
        assert_ne!(brokers.learn(8, host("b:1")).unwrap(), ports.first);
    }

    #[test]
    fn an_address_may_change_and_the_port_stays() {
        let (brokers, mut opened) = of(local(free(3)), Kept::default());
        let port = brokers.learn(1, host("old:9092")).unwrap();
        assert_eq!(brokers.learn(1, host("new:9093")).unwrap(), port);
        assert_eq!(brokers.address(1), Some(host("new:9093")));
        assert!(opened.try_recv().is_ok() && opened.try_recv().is_err(), "bound once");
    }

    #[test]
    fn what_is_kept_is_bound_again_and_a_taken_port_is_named() {
        let ports = free(4);
        let mut kept = Kept::default();
        kept.brokers.insert(9, Broker { port: ports.last, address: host("k:1") });
        let (brokers, mut opened) = of(local(ports), kept.clone());
        assert_eq!(brokers.to_keep(), kept);
        assert!(opened.try_recv().is_ok());
        let (sender, _receiver) = mpsc::unbounded_channel();
        // The first one's listener is still open.
        drop(brokers);
        let _other = TcpListener::bind(("127.0.0.1", ports.last));
        let error = Brokers::new(local(ports), kept, sender).err();
        drop(opened);
        if let Some(error) = error {
            assert!(error.to_string().contains("`ports`"), "{error}");
        }
    }

    #[test]
    fn brokers_move_into_a_range_that_has_changed() {
        let ports = free(4);
        let mut kept = Kept::default();
        kept.brokers.insert(2, Broker { port: 1, address: host("k:1") });
        let (brokers, _opened) = of(local(ports), kept);
        assert_eq!(brokers.to_keep().brokers[&2].port, ports.first + 2);
    }

    #[test]
    fn the_bootstrap_tries_those_last_that_failed() {
        let (brokers, _opened) = of(local(PortRange { first: 0, last: 0 }), Kept::default());
        brokers.learn(1, host("a:1")).unwrap();
        brokers.learn(2, host("c:1")).unwrap();
        let configured = [host("a:1"), host("b:1")];
        assert_eq!(brokers.candidates(&configured), [host("a:1"), host("b:1"), host("c:1")]);
        brokers.tried(&host("a:1"), false);
        assert_eq!(brokers.candidates(&configured), [host("b:1"), host("c:1"), host("a:1")]);
        brokers.tried(&host("a:1"), true);
        assert_eq!(brokers.candidates(&configured)[0], host("a:1"));
    }

    #[test]
    fn a_port_is_kept_before_anybody_is_told_it() {
        let folder = tempfile::tempdir().unwrap();
        let listen = crate::config::ListenAddr::parse("127.0.0.1:19092").unwrap();
        let memory = Memory::new(folder.path(), &listen);
        let (brokers, _opened) = of(local(PortRange { first: 0, last: 0 }), Kept::default());
        let brokers = brokers.kept_in(memory.clone());
        let port = brokers.learn(3, host("k3:9092")).unwrap();
        assert_eq!(memory.load().brokers[&3].port, port);
    }

    #[test]
    fn topics_are_remembered_once() {
        let (brokers, _opened) = of(local(PortRange { first: 0, last: 0 }), Kept::default());
        brokers.remember_topics([(TopicId([1; 16]), "orders"), (TopicId([1; 16]), "orders")]);
        assert_eq!(brokers.topics(), [(TopicId([1; 16]), "orders".to_owned())]);
    }
}
