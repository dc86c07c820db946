//! Channel 0: the handshake, and what it tells of the two ends. Credentials pass through the bytes
//! of start-ok, secure-ok and update-secret; only the user's name is read from them.

use std::net::SocketAddr;

use flowtap_record::{Kind, Outcome, escape_bytes};
use serde_json::json;

use super::context::{Connection, Context};
use super::method::Method;
use super::topology::table_json;
use super::wire::{Table, lookup_bytes, read_entries};

/// Where the sockets of a connection end.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    /// The client's address, `unix` for a Unix socket.
    pub client: Option<String>,
    /// The agent's own end of the socket to the broker: the broker's list of connections shows it.
    pub local: Option<SocketAddr>,
    /// The broker's address.
    pub broker: Option<String>,
}

/// The handshake's state.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    pub(crate) peers: Peers,
    client_properties: serde_json::Value,
    server: serde_json::Value,
    /// The client has said who it is.
    introduced: bool,
    opened: bool,
    closed: bool,
    close_reason: Option<String>,
}

/// What the handshake may object to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Objection {
    /// SASL EXTERNAL, without `allow_external`.
    External,
}

impl Handshake {
    pub(crate) fn new(peers: Peers) -> Self {
        Self { peers, ..Self::default() }
    }

    /// connection.start: the broker says who it is.
    pub(crate) fn start(
        &mut self,
        connection: &mut Connection,
        properties: &Table<'_>,
        cluster: Option<&str>,
    ) {
        let text =
            |name| lookup_bytes(properties, name).map(|text| escape_bytes(text).into_owned());
        connection.is_rabbitmq = text("product").as_deref() == Some("RabbitMQ");
        connection.cluster = cluster.map(str::to_owned).or_else(|| text("cluster_name"));
        self.server = json!({"product": text("product"), "version": text("version")});
    }

    /// connection.start-ok: the client says who it is.
    pub(crate) fn start_ok(
        &mut self,
        connection: &mut Connection,
        properties: &Table<'_>,
        mechanism: &[u8],
        response: &[u8],
        allow_external: bool,
    ) -> Result<(), Objection> {
        let text =
            |name| lookup_bytes(properties, name).map(|text| escape_bytes(text).into_owned());
        let mut client = text("product").unwrap_or_default();
        let name = text("connection_name").map(|name| format!("({name})"));
        for part in [text("version"), name].into_iter().flatten() {
            client.push_str(if client.is_empty() { "" } else { " " });
            client.push_str(&part);
        }
        connection.client = (!client.is_empty()).then_some(client);
        connection.principal = user(mechanism, response);
        self.client_properties = table_json(properties);
        self.introduced = true;
        if mechanism == b"EXTERNAL" && !allow_external {
            return Err(Objection::External);
        }
        Ok(())
    }

    /// Rows of channel 0 after the handshake.
    pub(crate) fn method(&mut self, cx: &mut Context<'_>, method: &Method<'_>) {
        match method {
            Method::ConnectionOpenOk => {
                self.opened = true;
                row(cx, Outcome::Opened, None, &self.who());
            }
            Method::ConnectionBlocked { reason } => {
                let reason = escape_bytes(reason);
                row(cx, Outcome::Blocked, Some(&reason), &json!({"what": "connection"}));
            }
            Method::ConnectionUnblocked => {
                row(cx, Outcome::Unblocked, None, &json!({"what": "connection"}));
            }
            _ => {}
        }
    }

    /// connection.close from either side: why, once.
    pub(crate) fn closing(&mut self, reason: String) {
        self.close_reason.get_or_insert(reason);
    }

    /// Why the connection ends; `socket` says how the sockets ended.
    pub(crate) fn reason(&self, socket: &str) -> String {
        self.close_reason.clone().unwrap_or_else(|| socket.to_owned())
    }

    /// Both ends of the connection, as far as they are known.
    fn who(&self) -> serde_json::Value {
        json!({
            "what": "connection",
            "client_address": self.peers.client,
            "client_properties": self.client_properties,
            "local_address": self.peers.local.map(|local| local.ip().to_string()),
            "local_port": self.peers.local.map(|local| local.port()),
            "broker_address": self.peers.broker,
            "server": self.server,
        })
    }

    /// The sockets are closed. A client that said who it is and was not let in is a row, too.
    pub(crate) fn end(&mut self, cx: &mut Context<'_>, reason: &str) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        if self.opened {
            row(cx, Outcome::Closed, Some(reason), &json!({"what": "connection"}));
        } else if self.introduced {
            let mut details = self.who();
            details["opened"] = false.into();
            row(cx, Outcome::Closed, Some(reason), &details);
        }
    }
}

fn row(cx: &mut Context<'_>, outcome: Outcome, reason: Option<&str>, details: &serde_json::Value) {
    let details = details.to_string();
    let mut row = cx.row(Kind::Session, None);
    row.outcome = Some(outcome);
    row.reason = reason;
    row.details = Some(&details);
    cx.record(&row);
}

/// The user's name, from mechanisms that send it in the clear. What follows it is the password.
fn user(mechanism: &[u8], response: &[u8]) -> Option<String> {
    let name = match mechanism {
        b"PLAIN" => response.split(|byte| *byte == 0).nth(1)?,
        b"AMQPLAIN" => {
            let table = read_entries(response, 0).ok()?;
            return lookup_bytes(&table, "LOGIN").map(|name| escape_bytes(name).into_owned());
        }
        _ => return None,
    };
    Some(escape_bytes(name).into_owned())
}

/// A connection.close frame as the tap sends it to a client that it refuses.
pub(crate) fn close_frame(code: u16, text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(255)];
    let mut payload = vec![0, 10, 0, 50];
    payload.extend(code.to_be_bytes());
    payload.push(text.len() as u8);
    payload.extend(text);
    payload.extend([0, 10, 0, 11]);
    let mut frame = vec![1, 0, 0];
    frame.extend((payload.len() as u32).to_be_bytes());
    frame.extend(payload);
    frame.push(super::frame::END);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_is_taken_from_a_response() {
        assert_eq!(user(b"PLAIN", b"\0shop\0s3cret").as_deref(), Some("shop"));
        assert_eq!(user(b"PLAIN", b"shop"), None);
        let amqplain = b"\x05LOGINS\0\0\0\x04shop\x08PASSWORDS\0\0\0\x06s3cret";
        assert_eq!(user(b"AMQPLAIN", amqplain).as_deref(), Some("shop"));
        assert_eq!(user(b"EXTERNAL", b""), None);
        assert_eq!(user(b"RABBIT-CR-DEMO", b"shop\0s3cret"), None);
    }
}
