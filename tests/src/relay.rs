//! A relay that writes down every byte that passes, in both directions, connection by connection:
//! one before a sidecar and one behind it show what the sidecar changed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Where a relay passes connections on to.
#[derive(Clone, Debug)]
pub enum Target {
    /// A port of loopback.
    Port(u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// What passed on one connection.
#[derive(Clone, Debug, Default)]
pub struct Passed {
    /// From who connected.
    pub up: Vec<u8>,
    /// To who connected.
    pub down: Vec<u8>,
    /// How many of the two directions have ended.
    pub ended: u8,
}

/// A running relay. It serves as long as the test runs.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    passed: Arc<Mutex<Vec<Passed>>>,
}

/// Either kind of socket.
trait Socket: Read + Write + Send {
    fn ends(&self);
}

impl Socket for TcpStream {
    fn ends(&self) {
        // It may be closed already.
        let _closed = self.shutdown(Shutdown::Write);
    }
}

impl Socket for UnixStream {
    fn ends(&self) {
        let _closed = self.shutdown(Shutdown::Write);
    }
}

type Half = Box<dyn Socket>;

fn dial(target: &Target) -> std::io::Result<(Half, Half)> {
    Ok(match target {
        Target::Port(port) => {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, *port))?;
            stream.set_nodelay(true)?;
            (Box::new(stream.try_clone()?), Box::new(stream))
        }
        Target::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            (Box::new(stream.try_clone()?), Box::new(stream))
        }
    })
}

impl Relay {
    /// Starts a relay. A target that cannot be reached ends the connection.
    pub fn start(target: Target) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("some port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let passed = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&passed);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok((to_target, from_target)) = dial(&target) else { continue };
                let _faster = client.set_nodelay(true);
                let Ok(to_client) = client.try_clone() else { continue };
                let number = {
                    let mut list = lock(&list);
                    list.push(Passed::default());
                    list.len() - 1
                };
                copy(Box::new(client), to_target, number, &list, |passed| &mut passed.up);
                copy(from_target, Box::new(to_client), number, &list, |passed| &mut passed.down);
            }
        });
        Self { port, passed }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What passed, once every connection has ended.
    pub fn passed(&self) -> Vec<Passed> {
        crate::wait_until("all connections of a relay have ended", || {
            lock(&self.passed).iter().all(|passed| passed.ended == 2)
        });
        lock(&self.passed).clone()
    }
}

fn lock(passed: &Mutex<Vec<Passed>>) -> std::sync::MutexGuard<'_, Vec<Passed>> {
    passed.lock().unwrap_or_else(PoisonError::into_inner)
}

fn copy(
    mut from: Half,
    mut to: Half,
    number: usize,
    list: &Arc<Mutex<Vec<Passed>>>,
    direction: fn(&mut Passed) -> &mut Vec<u8>,
) {
    let list = Arc::clone(list);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        loop {
            let count = from.read(&mut buffer).unwrap_or(0);
            direction(&mut lock(&list)[number]).extend(&buffer[..count]);
            if count == 0 || to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        to.ends();
        lock(&list)[number].ended += 1;
    });
}
