//! Plays a scene twice, straight to the broker and through a sidecar, each in a fresh vhost, and
//! compares what the clients saw. Then the rows of the second can be asked for.

use flowtap_tests::process::Folder;
use flowtap_tests::rabbitmq::{RabbitMq, Version, Vhost};
use flowtap_tests::raw::{BODY, Frame, Hello, Raw};
use flowtap_tests::sidecar::{Options, Sidecar};
use flowtap_tests::sql::Store;
use serde_json::Value;

/// Where a scene plays.
pub(crate) struct Place<'a> {
    pub(crate) broker: &'a RabbitMq,
    pub(crate) port: u16,
    pub(crate) vhost: &'a str,
    /// The sidecar, unless it plays without one.
    pub(crate) sidecar: Option<&'a Sidecar>,
}

impl Place<'_> {
    /// A client with one open channel, number 1.
    pub(crate) fn client(&self) -> Raw {
        self.client_with(&Hello::new(self.vhost))
    }

    /// The same, with an introduction of its own.
    pub(crate) fn client_with(&self, hello: &Hello<'_>) -> Raw {
        let mut client = Raw::connect(self.port, hello);
        client.open(1);
        client
    }

    /// A client that stands beside the scene: nobody records it.
    pub(crate) fn bystander(&self) -> Raw {
        let mut client = Raw::connect(self.broker.port(), &Hello::new(self.vhost));
        client.open(1);
        client
    }
}

/// What a client saw, in words that are equal for equal sights.
pub(crate) type Sight = Vec<String>;

/// Every frame with every byte, but for names that the broker makes up.
pub(crate) fn all(client: &Raw) -> Sight {
    client.transcript.iter().map(words).collect()
}

/// Only which frames came, where the bytes differ each time.
pub(crate) fn shape(client: &Raw) -> Sight {
    let word = |frame: &Frame| format!("{} {} {:?}", frame.kind, frame.channel, frame.id());
    client.transcript.iter().map(word).collect()
}

fn words(frame: &Frame) -> String {
    if frame.kind == BODY && frame.payload.len() > 200 {
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        std::hash::Hash::hash(&frame.payload, &mut hasher);
        let hash = std::hash::Hasher::finish(&hasher);
        return format!("body on {}: {} bytes, {hash:x}", frame.channel, frame.payload.len());
    }
    let text = format!("{} on {}: {}", frame.kind, frame.channel, frame.payload.escape_ascii());
    ["amq.gen-", "amq.ctag-"].iter().fold(text, |text, prefix| without_names(&text, prefix))
}

/// Replaces what stands behind a prefix of 22 characters that the broker made up.
fn without_names(text: &str, prefix: &str) -> String {
    let mut pieces = text.split(prefix);
    let mut result = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        result.push_str(prefix);
        result.push_str(piece.get(22..).unwrap_or_default());
    }
    result
}

/// What a scene left when it was played through the sidecar.
pub(crate) struct Played {
    store: Store,
    pub(crate) folder: Folder,
    pub(crate) sidecar: Sidecar,
    pub(crate) sight: Sight,
}

/// Plays on the shared broker of a release; `None`: this machine hasn't got it.
pub(crate) fn play(version: Version, scene: impl Fn(&Place<'_>) -> Sight) -> Option<Played> {
    play_with(version, &[], scene)
}

/// The same with lines for the tap's configuration.
pub(crate) fn play_with(
    version: Version,
    tap: &[&str],
    scene: impl Fn(&Place<'_>) -> Sight,
) -> Option<Played> {
    Some(play_on(RabbitMq::shared(version)?, tap, scene))
}

/// The same on a broker of one's own.
pub(crate) fn play_on(
    broker: &RabbitMq,
    tap: &[&str],
    scene: impl Fn(&Place<'_>) -> Sight,
) -> Played {
    // Their names stand in errors: they are of one length, and are made equal below.
    let (first, mut second) = (broker.vhost(), broker.vhost());
    let direct = Place { broker, port: broker.port(), vhost: first.name(), sidecar: None };
    let seen = scene(&direct);
    let played = through(broker, tap, &mut second, scene);
    let name = |text: &String| text.replace(first.name(), second.name());
    assert_eq!(
        played.sight,
        seen.iter().map(name).collect::<Vec<_>>(),
        "left: what the client saw through the sidecar; right: without"
    );
    played
}

/// Plays only through the sidecar, where what the client sees differs each time.
pub(crate) fn play_through(
    version: Version,
    tap: &[&str],
    scene: impl Fn(&Place<'_>) -> Sight,
) -> Option<Played> {
    let broker = RabbitMq::shared(version)?;
    Some(through(broker, tap, &mut broker.vhost(), scene))
}

fn through(
    broker: &RabbitMq,
    tap: &[&str],
    vhost: &mut Vhost<'_>,
    scene: impl Fn(&Place<'_>) -> Sight,
) -> Played {
    let folder = Folder::new("store");
    let mut options = Options::new("shop", broker.port(), folder.url());
    options.tap = tap.iter().map(ToString::to_string).collect();
    // So that SIGTERM need not wait for a client that a scene has left open.
    options.lines.push("drain = \"1s\"".to_owned());
    let mut sidecar = Sidecar::start(&options);
    let place =
        Place { broker, port: sidecar.port(), vhost: vhost.name(), sidecar: Some(&sidecar) };
    let sight = scene(&place);
    sidecar.terminate();
    let played = Played { store: Store::new(folder.url()), folder, sidecar, sight };
    played.assert_sound();
    played
}

impl Played {
    /// Rows of a query, each as its values with a space between, `-` for null.
    pub(crate) fn lines(&self, query: &str) -> Vec<String> {
        // JSON objects lose the order of columns: each query names them in the order of the alphabet.
        let text = |value: &Value| match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let line = |row: &Value| {
            let row = row.as_object().expect("a row is an object");
            row.values().map(text).collect::<Vec<_>>().join(" ")
        };
        self.store.sql(query).iter().map(line).collect()
    }

    /// The one number of a query.
    pub(crate) fn number(&self, query: &str) -> i64 {
        self.store.number(query)
    }

    /// How each delivery ended, in the order of deliveries: tag, outcome, reason.
    pub(crate) fn ends(&self) -> Vec<String> {
        self.lines("SELECT delivery_tag AS a, outcome AS b, reason AS c FROM consumes ORDER BY seq")
    }

    /// What became of each publish, in their order: routing key, outcome, why mandatory or not.
    pub(crate) fn publishes(&self) -> Vec<String> {
        let lines = self.lines(
            "SELECT routing_key AS a, outcome AS b, details AS c FROM publishes ORDER BY seq",
        );
        let short = |line: &String| line.replace(r#"{"mandatory":""#, "").replace(r#""}"#, "");
        lines.iter().map(short).collect()
    }

    /// What holds of every recording: no hole in the numbers, one end to each delivery, at most
    /// one answer and one return to each publish, publish and delivery of one message are equal.
    fn assert_sound(&self) {
        let wrong = self.lines(
            "SELECT count(*) AS a, count(DISTINCT seq) AS b, max(seq) AS c FROM history \
             GROUP BY agent, boot HAVING count(*) <> max(seq) OR count(DISTINCT seq) <> max(seq)",
        );
        assert!(wrong.is_empty(), "a hole in the numbers: {wrong:?}");
        let wrong = self.lines(
            "SELECT d.kind AS a, d.seq AS b, s.kind AS c, count(s.seq) AS d FROM history d \
             LEFT JOIN history s ON s.ref_boot = d.boot AND s.ref_seq = d.seq \
             WHERE d.kind IN ('deliver', 'publish') GROUP BY d.kind, d.seq, s.kind \
             HAVING count(s.seq) > 1 OR (d.kind = 'deliver' AND count(s.seq) <> 1)",
        );
        assert!(wrong.is_empty(), "not concluded once: {wrong:?}");
    }
}
