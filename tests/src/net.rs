//! Ports and the little HTTP that the harness speaks.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A port on loopback that nobody listens on, and that no other call here was given.
///
/// Below the range from which the kernel takes the ports of outgoing connections: those could
/// take it away before it is used.
pub fn free_port() -> u16 {
    free_ports(1)
}

/// The first of so many such ports in a row.
pub fn free_ports(count: u16) -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_default();
    let start = std::process::id() as usize * 97;
    let first = (0..12_000)
        .map(|step| u16::try_from(20_000 + (start + step) % 12_000).expect("below 32 000"))
        .find(|&first| {
            (first..first + count).all(|port| {
                !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            })
        })
        .expect("some ports are free");
    given.extend(first..first + count);
    first
}

/// Whether somebody listens on a port of loopback.
pub fn listens(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// Where the TCP connections of a process lead that are being made or used.
pub fn peers(pid: u32) -> Vec<SocketAddr> {
    // Threads and children have the sockets of their process or their own: one process is asked.
    let sockets: HashSet<u64> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap_or_else(|error| panic!("the sockets of {pid}: {error}"))
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect();
    let mut found = Vec::new();
    for file in ["tcp", "tcp6"] {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let [_, _, remote, state, .., _] = fields[..] else { continue };
            let inode = fields.get(9).and_then(|inode| inode.parse().ok());
            // 01: established, 02: SYN sent.
            let is_open = ["01", "02"].contains(&state);
            if is_open && inode.is_some_and(|inode| sockets.contains(&inode)) {
                found.push(peer(remote));
            }
        }
    }
    found
}

/// An address as the kernel writes it: each word of four bytes in the order of this machine.
fn peer(text: &str) -> SocketAddr {
    let (ip, port) = text.split_once(':').expect("an address and a port");
    let port = u16::from_str_radix(port, 16).expect("a port");
    let words = (0..ip.len()).step_by(8).map(|at| u32::from_str_radix(&ip[at..at + 8], 16));
    let bytes: Vec<u8> = words.flat_map(|word| word.expect("a word").to_ne_bytes()).collect();
    let ip = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(four) => IpAddr::from(four),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(&bytes[..]).expect("sixteen bytes")),
    };
    SocketAddr::new(ip.to_canonical(), port)
}

/// The status and body of a GET, or none if nobody answers.
pub fn http_get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_connected_to_what_it_connects_to() {
        let listener = TcpListener::bind("127.0.0.2:0").expect("loopback has many addresses");
        let address = listener.local_addr().expect("it is bound");
        let _client = TcpStream::connect(address).expect("it listens");
        assert!(peers(std::process::id()).contains(&address));
    }

    #[test]
    fn both_forms_of_an_address_are_read() {
        let loopback = u32::from_ne_bytes([127, 0, 0, 2]);
        let mapped = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
        let expected = "127.0.0.2:9092".parse().expect("an address");
        assert_eq!(peer(&format!("{loopback:08X}:2384")), expected);
        let text = format!("{:016}{mapped:08X}{loopback:08X}:2384", 0);
        assert_eq!(peer(&text), expected);
    }
}
