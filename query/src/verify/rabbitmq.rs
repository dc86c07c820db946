//! Asks RabbitMQ's management API for its counters. It is input from outside: what is missing in an
//! answer is zero or "not known", never a panic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flowtap_record::Micros;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where user and password come from, unless the URL has them.
const USER: &str = "FLOWTAP_BROKER_USER";
const PASSWORD: &str = "FLOWTAP_BROKER_PASSWORD";

/// Why a broker's counters are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// It does not answer, or not what is needed.
    #[error("the broker's management API at {url} {why}")]
    Silent {
        /// Without user and password.
        url: String,
        /// What happened.
        why: String,
    },
}

/// Something that a broker counts for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Its virtual host.
    pub vhost: String,
    /// What it is.
    pub kind: PlaceKind,
    /// Its name; the default exchange has an empty one.
    pub name: String,
}

/// The kinds of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaceKind {
    /// Counts what is published to it.
    Exchange,
    /// Counts what is delivered from it.
    Queue,
}

impl PlaceKind {
    /// As it is called.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Queue => "queue",
        }
    }
}

/// A place's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Messages published to the exchange.
    pub published: i64,
    /// Messages delivered from the queue, by consume or get.
    pub delivered: i64,
    /// Deliveries acknowledged.
    pub acked: i64,
    /// It goes away by itself, and may come back with counters at zero.
    pub fleeting: bool,
}

/// What a broker says at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// When it was asked, by our clock.
    pub at: Micros,
    /// The cluster's name.
    pub cluster: String,
    /// When each node started, by our clock: counters begin then.
    pub nodes: BTreeMap<String, Micros>,
    /// Virtual hosts that the user may see.
    pub vhosts: BTreeSet<String>,
    /// All exchanges and queues.
    pub places: Vec<(Place, Figures)>,
    /// Open connections: virtual host, and the client's address and port.
    pub connections: Vec<(String, String, u16)>,
    /// Why nothing is counted, if so.
    pub off: Option<String>,
}

/// A management API.
#[derive(Debug)]
pub struct Management {
    url: Url,
    user: String,
    password: String,
    client: reqwest::Client,
}

impl Management {
    /// The API at `http://[user:password@]host:15672`; user and password may also stand in the
    /// environment.
    ///
    /// # Errors
    /// When it is no such URL, or no user is named.
    pub fn new(text: &str) -> Result<Self, BrokerError> {
        let told = flowtap_place::without_userinfo(text);
        let usage = |why: &str| BrokerError::Usage(format!("--against-broker {told}: {why}"));
        let want = "give the URL of RabbitMQ's management API, http://HOST:15672";
        let mut url = Url::parse(text).map_err(|_| usage(want))?;
        if url.scheme() == "kafka" {
            return Err(usage(
                "only RabbitMQ counts what can be compared; a Kafka row bears the broker's own offset",
            ));
        }
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() {
            return Err(usage(want));
        }
        let from_url = |part: &str| {
            let decoded =
                url::form_urlencoded::parse(format!("x={}", part.replace('+', "%2B")).as_bytes())
                    .next()
                    .map(|(_, value)| value.into_owned());
            decoded.unwrap_or_default()
        };
        let from_env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let user = Some(from_url(url.username())).filter(|it| !it.is_empty());
        let user = user.or_else(|| from_env(USER));
        let password = url.password().map(from_url).or_else(|| from_env(PASSWORD));
        let (Some(user), Some(password)) = (user, password) else {
            return Err(usage(&format!("no user or no password; set {USER} and {PASSWORD}")));
        };
        // A URL that has a host takes both.
        let cleared = url.set_username("").and_then(|()| url.set_password(None));
        cleared.map_err(|()| usage(want))?;
        // The broker is asked as it is named, whatever proxy the environment sets.
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
        let client = client.map_err(|error| usage(&error.to_string()))?;
        Ok(Self { url, user, password, client })
    }

    /// Its counters, as of `now`.
    ///
    /// # Errors
    /// When it does not answer, or lets the user not see what is needed.
    pub async fn ask(&self, now: Micros) -> Result<Counted, BrokerError> {
        let overview: Overview = self.get("overview").await?;
        let nodes: Vec<Node> = self.get("nodes").await?;
        let vhosts: Vec<Named> = self.get("vhosts?columns=name").await?;
        let exchanges: Vec<Thing> =
            self.get("exchanges?columns=vhost,name,auto_delete,message_stats").await?;
        let columns = "vhost,name,type,auto_delete,exclusive,arguments,message_stats";
        let queues: Vec<Thing> = self.get(&format!("queues?columns={columns}")).await?;
        let connections: Vec<Connection> =
            self.get("connections?columns=vhost,peer_host,peer_port").await?;
        let queues = queues.into_iter().filter(|queue| {
            // A stream is read, and read again: it counts otherwise.
            queue.kind.as_deref() != Some("stream")
        });
        let places = exchanges.into_iter().map(|it| it.place(PlaceKind::Exchange));
        Ok(Counted {
            at: now,
            off: overview.off(),
            cluster: overview.cluster_name,
            nodes: nodes
                .into_iter()
                .map(|node| (node.name, Micros(now.0 - node.uptime * 1000)))
                .collect(),
            vhosts: vhosts.into_iter().map(|vhost| vhost.name).collect(),
            places: places.chain(queues.map(|it| it.place(PlaceKind::Queue))).collect(),
            connections: connections
                .into_iter()
                .filter_map(|it| {
                    let host = it.peer_host?;
                    // An IPv4 address as IPv6 sockets tell it.
                    let host = host.strip_prefix("::ffff:").unwrap_or(&host).to_owned();
                    Some((it.vhost?, host, it.peer_port?))
                })
                .collect(),
        })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, BrokerError> {
        let base = self.url.as_str().trim_end_matches('/');
        let silent = |why: String| BrokerError::Silent { url: base.to_owned(), why };
        let request = self.client.get(format!("{base}/api/{path}"));
        let request = request.basic_auth(&self.user, Some(&self.password));
        let answer = request
            .send()
            .await
            .map_err(|error| silent(format!("does not answer: {}", root(&error))))?;
        let status = answer.status();
        if matches!(status.as_u16(), 401 | 403) {
            return Err(silent(format!(
                "refuses /api/{path}: user or password are wrong, or the user lacks the tag `monitoring`"
            )));
        }
        if !status.is_success() {
            return Err(silent(format!("answers /api/{path} with HTTP {status}")));
        }
        let bytes = answer
            .bytes()
            .await
            .map_err(|error| silent(format!("breaks off: {}", root(&error))))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| silent(format!("answers /api/{path} with something else: {error}")))
    }
}

/// The reason behind the layers of an HTTP client.
fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[derive(Deserialize)]
struct Overview {
    cluster_name: String,
    rates_mode: Option<String>,
    statistics_level: Option<String>,
    #[serde(default)]
    disable_stats: bool,
}

impl Overview {
    fn off(&self) -> Option<String> {
        let level = self.statistics_level.as_deref();
        if self.disable_stats || self.rates_mode.as_deref() == Some("none") {
            return Some("the broker's statistics are switched off".to_owned());
        }
        level.filter(|level| *level != "fine").map(|level| {
            format!("the broker's statistics are {level}: it does not count by exchange and queue")
        })
    }
}

#[derive(Deserialize)]
struct Node {
    name: String,
    /// Milliseconds.
    #[serde(default)]
    uptime: i64,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Connection {
    vhost: Option<String>,
    peer_host: Option<String>,
    peer_port: Option<u16>,
}

/// An exchange or a queue.
#[derive(Deserialize)]
struct Thing {
    vhost: String,
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    auto_delete: bool,
    #[serde(default)]
    exclusive: bool,
    #[serde(default)]
    arguments: Value,
    /// An object; an empty list where nothing was counted yet.
    #[serde(default)]
    message_stats: Value,
}

impl Thing {
    fn place(self, kind: PlaceKind) -> (Place, Figures) {
        let count = |name: &str| self.message_stats[name].as_i64().unwrap_or_default();
        let figures = Figures {
            published: count("publish_in"),
            delivered: count("deliver_get"),
            acked: count("ack"),
            fleeting: self.auto_delete || self.exclusive || !self.arguments["x-expires"].is_null(),
        };
        (Place { vhost: self.vhost, kind, name: self.name }, figures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_taken_from_the_url_and_never_told() {
        let management = Management::new("http://us%40er:p%2Bss+word@broker:15672/").unwrap();
        assert_eq!(
            (management.user.as_str(), management.password.as_str()),
            ("us@er", "p+ss+word")
        );
        assert_eq!(management.url.as_str(), "http://broker:15672/");
        for wrong in
            ["amqp://u:secret@broker", "kafka://u:secret@broker", "http://u:secret@broker/?x"]
        {
            let error = Management::new(wrong).unwrap_err().to_string();
            assert!(!error.contains("secret") && error.contains("broker"), "{error}");
        }
    }

    #[test]
    fn statistics_that_are_off_are_said_to_be() {
        let overview = |text| serde_json::from_str::<Overview>(text).unwrap().off();
        assert_eq!(
            overview(r#"{"cluster_name":"c","rates_mode":"basic","statistics_level":"fine"}"#),
            None
        );
        assert!(overview(r#"{"cluster_name":"c","rates_mode":"none"}"#).is_some());
        assert!(overview(r#"{"cluster_name":"c","disable_stats":true}"#).is_some());
        assert!(overview(r#"{"cluster_name":"c","statistics_level":"coarse"}"#).is_some());
    }

    #[test]
    fn a_place_without_figures_has_counted_nothing() {
        let thing: Thing =
            serde_json::from_str(r#"{"vhost":"/","name":"q","message_stats":[],"arguments":[]}"#)
                .unwrap();
        assert_eq!(thing.place(PlaceKind::Queue).1, Figures::default());
    }
}
