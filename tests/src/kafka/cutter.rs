//! A relay that loses answers: it passes requests on, and where one of the answers comes that are
//! to be lost, it closes the connection instead. The broker has done then what the client was not
//! told of.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const PRODUCE: i16 = 0;

/// A running relay. It serves as long as the test runs.
#[derive(Debug)]
pub struct Cutter {
    port: u16,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of so many answers to Produce one is lost; none at 0.
    every: AtomicU32,
    answers: AtomicU32,
    lost: AtomicU32,
}

impl Cutter {
    /// Starts a relay on a port of loopback that passes everything on. A target that cannot be
    /// reached ends the connection.
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("some port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(broker) = TcpStream::connect(target) else { continue };
                let state = Arc::clone(&shared);
                std::thread::spawn(move || connection(&client, &broker, &state));
            }
        });
        Self { port, state }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on it loses one of so many answers to Produce; none at 0.
    pub fn lose(&self, every: u32) {
        self.state.every.store(every, Ordering::SeqCst);
    }

    /// How many answers it has lost.
    pub fn lost(&self) -> u32 {
        self.state.lost.load(Ordering::SeqCst)
    }
}

fn connection(client: &TcpStream, broker: &TcpStream, state: &State) {
    // Which requests wait for an answer, the oldest first.
    let asked: Mutex<VecDeque<i16>> = Mutex::default();
    let asked = || asked.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while let Some(frame) = frame(client) {
                let key = i16::from_be_bytes([frame[4], frame[5]]);
                asked().push_back(key);
                if (&*broker).write_all(&frame).is_err() {
                    break;
                }
            }
            let _closed = broker.shutdown(Shutdown::Both);
        });
        while let Some(frame) = frame(broker) {
            let key = asked().pop_front();
            let every = state.every.load(Ordering::SeqCst);
            if key == Some(PRODUCE) && every > 0 {
                let number = state.answers.fetch_add(1, Ordering::SeqCst);
                if number % every == every - 1 {
                    state.lost.fetch_add(1, Ordering::SeqCst);
                    break;
                }
            }
            if (&*client).write_all(&frame).is_err() {
                break;
            }
        }
        let _closed = client.shutdown(Shutdown::Both);
        let _closed = broker.shutdown(Shutdown::Both);
    });
}

/// A frame with its length, or none at the end. Clients of tests all want their records
/// acknowledged, so that each request has its answer.
fn frame(mut from: &TcpStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame).ok()?;
    let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
    frame.resize(4 + length as usize, 0);
    from.read_exact(&mut frame[4..]).ok()?;
    Some(frame)
}
