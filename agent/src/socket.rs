//! What the agent asks of its sockets, towards services and brokers alike.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::io;
use rustix::net::sockopt;
use tokio::net::TcpStream;

/// Silent for so long, a peer is asked whether it is there, and asked again so often and so many
/// times: a host that has died is noticed within a minute and a half.
const IDLE: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_secs(10);
const PROBES: u32 = 6;

/// Small frames go out at once, and a host that has died is noticed though nothing is sent.
///
/// No limit is set on how long sent bytes may stay unacknowledged (`TCP_USER_TIMEOUT`): Linux counts
/// there, too, a peer that lives and does not read, and a broker under a memory alarm does not read
/// for as long as that takes.
pub(crate) fn prepare(stream: &TcpStream) {
    // Without these a connection works all the same, slower or longer than it should.
    let _ = stream.set_nodelay(true);
    let _ = keepalive(stream);
}

fn keepalive(stream: &TcpStream) -> io::Result<()> {
    let socket = stream.as_fd();
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, IDLE)?;
    sockopt::set_tcp_keepintvl(socket, INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, PROBES)
}

/// Lets a side see a reset where the other one failed, as it would without a proxy.
pub(crate) fn reset(stream: &TcpStream) {
    // If the socket is gone already, so is its peer.
    let _ = sockopt::set_socket_linger(stream.as_fd(), Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_prepared_socket_asks_whether_its_silent_peer_is_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        prepare(&stream);
        assert!(stream.nodelay().unwrap());
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), IDLE);
        assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), INTERVAL);
        assert_eq!(sockopt::tcp_keepcnt(&stream).unwrap(), PROBES);
    }
}
