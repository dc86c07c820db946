//! A hop before an S3 server that counts what passes and can make it slow: requests by verb and by
//! the beginning of their keys, bytes in both directions, how many depend on each other, how many
//! are under way at once. It changes no byte, so that signatures stay valid: the `Host` that a
//! client signs is the one that the server sees.
//!
//! Buckets must be named in the path (path style). `cargo run --example s3meter` is the same as a
//! program.

mod delay;
mod http;
mod tally;

use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub use delay::{Delays, Lognormal};
pub use tally::{Count, Request, most_at_once, of, rounds, tally};

use http::{Body, Head};

/// A running meter. It serves as long as the process runs.
#[derive(Clone, Debug)]
pub struct Meter {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: u16,
    delays: Option<Delays>,
    started: Instant,
    requests: Mutex<Vec<Request>>,
}

impl Meter {
    /// Starts a meter before the server on this port of loopback, which need not be there yet.
    pub fn start(upstream: u16, delays: Option<Delays>) -> Self {
        Self::listen(0, upstream, delays).expect("some port is free")
    }

    /// The same on a port of one's own choice.
    pub fn listen(port: u16, upstream: u16, delays: Option<Delays>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let port = listener.local_addr()?.port();
        let started = Instant::now();
        let shared = Arc::new(Shared { upstream, delays, started, requests: Mutex::default() });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&accepting);
                // However it ends, both sides see it: their sockets close.
                std::thread::spawn(move || serve(&client, &shared));
            }
        });
        Ok(Self { port, shared })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// All requests since the start or the last [`Self::reset`], in the order of their answers. A
    /// request stands there before its client sees the answer.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests().clone()
    }

    /// How many requests of a verb were answered with success whose keys begin like this.
    pub fn count(&self, verb: &str, prefix: &str) -> usize {
        of(&self.requests(), verb, prefix).filter(|request| request.worked()).count()
    }

    /// Forgets what was counted, and returns it.
    pub fn reset(&self) -> Vec<Request> {
        std::mem::take(&mut *self.shared.requests())
    }
}

impl Shared {
    fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes the requests of one connection on, one after the other.
fn serve(client: &TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut from_client = BufReader::new(client);
    let mut server = None;
    while let Some(head) = Head::read(&mut from_client)? {
        let [method, target, _] = head.first_line();
        if let Some(order) = target.strip_prefix("/-/") {
            let mut to_client = client;
            to_client.write_all(&own_answer(shared, method, order))?;
            continue;
        }
        let mut request = Request::begin(method, target, shared.started.elapsed());
        let connection = match server.take().filter(is_open).map_or_else(|| dial(shared), Ok) {
            Ok(connection) => connection,
            Err(error) => {
                request.ended = shared.started.elapsed();
                shared.requests().push(request);
                return Err(error);
            }
        };
        let goes_on = exchange(&head, &mut from_client, client, &connection, request, shared)?;
        if !goes_on {
            break;
        }
        server = Some(connection);
    }
    Ok(())
}

fn dial(shared: &Shared) -> io::Result<TcpStream> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.upstream))?;
    server.set_nodelay(true)?;
    Ok(server)
}

/// Whether a connection without a request under way still lives.
fn is_open(connection: &TcpStream) -> bool {
    let asked = connection
        .set_nonblocking(true)
        .and_then(|()| connection.peek(&mut [0]))
        .map_err(|error| error.kind());
    connection.set_nonblocking(false).is_ok() && asked == Err(io::ErrorKind::WouldBlock)
}

/// Passes one request and its answer on. Returns whether the connections can take another.
fn exchange(
    head: &Head,
    from_client: &mut BufReader<&TcpStream>,
    mut client: &TcpStream,
    mut server: &TcpStream,
    mut request: Request,
    shared: &Shared,
) -> io::Result<bool> {
    let method = head.first_line()[0];
    let mut from_server = BufReader::new(server);
    let mut sent = server.write_all(&head.bytes);
    let mut answer = None;
    if head.says("expect", "100-continue") && sent.is_ok() {
        let first = Head::read(&mut from_server)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if first.status() == 100 {
            client.write_all(&first.bytes)?;
        } else {
            answer = Some(first);
        }
    }
    if answer.is_none() && sent.is_ok() {
        sent = http::pass(from_client, &mut server, head.request_body()).map(|bytes| {
            request.bytes_in = bytes;
        });
    }
    // A server that refuses a request may not have read all of it: it has answered all the same.
    let mut passes_all = sent.is_ok() && answer.is_none();
    while answer.is_none() {
        let next = match Head::read(&mut from_server) {
            Ok(Some(next)) => next,
            ended => {
                request.ended = shared.started.elapsed();
                shared.requests().push(request);
                return ended.map(|_| false);
            }
        };
        // Interim answers go on as they come.
        if (100..200).contains(&next.status()) {
            client.write_all(&next.bytes)?;
        } else {
            answer = Some(next);
        }
    }
    let answer = answer.expect("the loop ends with one");
    if let Some(delays) = &shared.delays {
        std::thread::sleep(delays.draw(&request.verb));
    }
    request.status = answer.status();
    let number = {
        let mut requests = shared.requests();
        request.ended = shared.started.elapsed();
        requests.push(request.clone());
        requests.len() - 1
    };
    let body = answer.answer_body(method);
    client.write_all(&answer.bytes)?;
    let bytes_out = http::pass(&mut from_server, &mut client, body)?;
    if let Some(counted) = shared.requests().get_mut(number).filter(|counted| **counted == request)
    {
        counted.bytes_out = bytes_out;
        counted.ended = shared.started.elapsed();
    }
    passes_all &= !head.says("connection", "close") && !answer.says("connection", "close");
    Ok(passes_all && body != Body::Rest)
}

/// What the meter says itself: `GET /-/counts/PREFIX`, `GET /-/requests`, `POST /-/reset`. No
/// bucket has a name so short.
fn own_answer(shared: &Shared, method: &str, order: &str) -> Vec<u8> {
    let body = match (method, order.split_once('/').unwrap_or((order, ""))) {
        ("GET", ("counts", prefix)) => Some(tally::summary(&shared.requests(), prefix)),
        ("GET", ("requests", _)) => {
            Some(shared.requests().iter().map(Request::json).collect::<Vec<_>>().into())
        }
        ("POST", ("reset", _)) => {
            shared.requests().clear();
            Some(serde_json::json!({}))
        }
        _ => None,
    };
    let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
    let body = body.map_or_else(String::new, |body| body.to_string());
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
