//! Checks beyond a value's type: of single values, for the table of keys, and of what must fit
//! together, once everything is read.

use std::collections::HashMap;

use flowtap_record::path::check_agent;

use super::problems::Origin;
use super::{CertAndKey, Config, ListenAddr, PortRange, StoreUrl, TapConfig, TapKind, files};
use crate::identify::{self, Redact, Source, SpecError, is_excluded};

/// Longest service name: the agent's name adds a random part and may take 80.
const MAX_SERVICE: usize = 60;

// === single values ===

pub(super) fn service_name(name: String) -> Result<String, String> {
    if check_agent(&name).is_ok() && name.len() <= MAX_SERVICE {
        Ok(name)
    } else {
        Err(format!("{name:?}: want 1 to {MAX_SERVICE} of the characters A-Z a-z 0-9 . _ -"))
    }
}

pub(super) fn agent_name(name: String) -> Result<String, String> {
    match check_agent(&name) {
        Ok(()) => Ok(name),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn tcp_only(address: ListenAddr) -> Result<ListenAddr, String> {
    match address {
        ListenAddr::Tcp { .. } => Ok(address),
        ListenAddr::Unix(_) => {
            Err("want host:port, such as \"127.0.0.1:9464\": probes and scrapers come by TCP"
                .to_owned())
        }
    }
}

pub(super) fn server_name(name: String) -> Result<String, String> {
    match rustls_pki_types::ServerName::try_from(name.as_str()) {
        Ok(_) => Ok(name),
        Err(_) => Err(format!("{name:?} is no host name: want one such as \"rabbit.example.org\"")),
    }
}

pub(super) fn recordable_names(names: Vec<String>) -> Result<Vec<String>, String> {
    match names.iter().find(|name| is_excluded(name.as_bytes())) {
        Some(name) => Err(format!(
            "{name:?} is never recorded, for it looks like a secret or a person's data: leave it out"
        )),
        None => Ok(names),
    }
}

pub(super) fn source(text: String) -> Result<String, String> {
    Source::parse(&text).map(|_| text)
}

pub(super) fn sources(pairs: Vec<(String, String)>) -> Result<Vec<(String, String)>, String> {
    for (at, (name, text)) in pairs.iter().enumerate() {
        Source::parse(text).map_err(|error| format!("{name}: {error}"))?;
        if pairs[..at].iter().any(|(other, _)| other == name) {
            return Err(format!("{name:?} stands twice: give each key once"));
        }
    }
    Ok(pairs)
}

pub(super) fn redactions(texts: Vec<String>) -> Result<Vec<String>, String> {
    texts.iter().try_for_each(|text| Redact::parse(text).map(|_| ()))?;
    Ok(texts)
}

// === what must fit together ===

/// Finds what does not fit together. Calls `report` with the section (`tap`, 0), the key and what
/// is wrong. Values that could not be read are blank here and are passed over.
pub(super) fn whole(config: &Config, mut report: impl FnMut(Section, &str, String)) {
    let admin = &config.admin;
    let guarded = admin.token_file.is_some() && admin.tls.is_some();
    if !admin.listen.is_loopback() && !guarded && !admin.insecure {
        let what = format!(
            "other machines reach {}: set admin.token_file, admin.cert and admin.key, or \
             admin.insecure = true",
            admin.listen
        );
        report(None, "admin.listen", what);
    }
    if half(admin.tls.as_ref()) {
        report(None, "admin.cert", "cert and key go together: set both or none".to_owned());
    }
    if config.taps.is_empty() {
        let what = "missing: write a [[tap]] with kind, listen and broker, or give --tap 'amqp \
                    127.0.0.1:5673 amqp://rabbit:5672'";
        report(None, "tap", what.to_owned());
    }
    for (index, tap) in config.taps.iter().enumerate() {
        one_tap(tap, |key, what| report(Some(("tap", index)), key, what));
    }
    places(config, &mut report);
    for SpecError { section, key, message } in config.identifier().err().unwrap_or_default() {
        match section {
            identify::Section::Rule(index) => report(Some(("rule", index)), &key, message),
            identify::Section::Record => report(None, &format!("record.{key}"), message),
        }
    }
    files::check(config, report);
}

/// What does not fit together within one tap.
fn one_tap(tap: &TapConfig, mut report: impl FnMut(&str, String)) {
    if !tap.listen.is_loopback() && !tap.allow_remote {
        let what = format!(
            "other machines reach {}: want a loopback address, or allow_remote = true",
            tap.listen
        );
        report("listen", what);
    }
    if half(tap.tls.listener.as_ref()) {
        report("tls.cert", "cert and key go together: set both or none".to_owned());
    }
    if tap.tls.listener.is_some() && matches!(tap.listen, ListenAddr::Unix(_)) {
        let what = "has no effect: TLS is for TCP, and only this machine reaches a Unix socket; \
                    leave cert and key out, or listen on host:port";
        report("tls.cert", what.to_owned());
    }
    if half(tap.tls.client.as_ref()) {
        let what = "client_cert and client_key go together: set both or none";
        report("tls.client_cert", what.to_owned());
    }
    let dialled = !tap.broker.hosts.is_empty();
    let (word, plain, tls) = match tap.kind {
        TapKind::Amqp => ("amqp", "amqp://rabbit:5672", "amqps://"),
        TapKind::Kafka => ("kafka", "kafka://kafka-1:9092,kafka-2:9092", "kafka+ssl://"),
    };
    if dialled && tap.broker.kind != tap.kind {
        let what = format!("is no address for kind = \"{word}\": want one such as \"{plain}\"");
        report("broker", what);
    }
    let towards_broker = [
        ("tls.ca", tap.tls.ca.is_some()),
        ("tls.server_name", tap.tls.server_name.is_some()),
        ("tls.client_cert", tap.tls.client.is_some()),
    ];
    let in_the_clear = dialled && !tap.broker.tls;
    for (key, _) in towards_broker.iter().filter(|(_, given)| in_the_clear && *given) {
        let what = "has no effect: the broker is dialled without TLS; write";
        report(key, format!("{what} {tls} to use it"));
    }
    if tap.kind != TapKind::Kafka || tap.listen.is_unset() {
        return;
    }
    match &tap.listen {
        ListenAddr::Unix(_) => {
            let what = "Kafka clients connect by TCP: want host:port such as \"127.0.0.1:19092\"";
            report("listen", what.to_owned());
        }
        ListenAddr::Tcp { .. } => {
            if tap.listen.is_wildcard() && tap.advertise.is_none() {
                let what = "missing: clients can't be told the wildcard of listen as the \
                            brokers' host; give the one by which they reach this agent";
                report("advertise", what.to_owned());
            }
            if tap.port_range().is_none() {
                let what = "missing: no port is behind the one of listen";
                report("ports", what.to_owned());
            }
        }
    }
}

/// Addresses that are wanted twice.
fn places(config: &Config, report: &mut impl FnMut(Section, &str, String)) {
    let mut taken: HashMap<&ListenAddr, String> = HashMap::new();
    taken.insert(&config.admin.listen, "admin.listen".to_owned());
    for (index, tap) in config.taps.iter().enumerate() {
        let chosen_by_system = matches!(&tap.listen, ListenAddr::Tcp { port: 0, .. });
        if !chosen_by_system && !tap.listen.is_unset() {
            if let Some(other) = taken.get(&tap.listen) {
                let what = format!("{} is already taken by {other}", tap.listen);
                report(Some(("tap", index)), "listen", what);
            } else {
                taken.insert(&tap.listen, format!("tap[{index}]"));
            }
        }
    }
    let mut ranges: Vec<(usize, &str, PortRange)> = Vec::new();
    for (index, tap) in config.taps.iter().enumerate() {
        let ListenAddr::Tcp { host, .. } = &tap.listen else { continue };
        let range = tap.port_range().filter(|range| range.first != 0);
        let (TapKind::Kafka, Some(range)) = (tap.kind, range) else { continue };
        let meets = |other: &str| {
            other == host || tap.listen.is_wildcard() || matches!(other, "0.0.0.0" | "::")
        };
        let listener = taken.iter().find(|(address, _)| match address {
            ListenAddr::Tcp { host, port } => meets(host) && range.contains(*port),
            ListenAddr::Unix(_) => false,
        });
        let overlap = ranges.iter().find(|(_, host, other)| {
            meets(host) && other.first <= range.last && range.first <= other.last
        });
        let other = match (listener, overlap) {
            (Some((address, owner)), _) => format!("{address} of {owner}"),
            (None, Some((other, _, range))) => format!("ports of tap[{other}], {range}"),
            (None, None) => {
                ranges.push((index, host, range));
                continue;
            }
        };
        let what = format!("{range} for the brokers meet {other}: give a range of its own");
        report(Some(("tap", index)), "ports", what);
    }
}

/// What is wrong with a key in a tap of a kind that does not know it.
pub(super) fn of_other_kind(kind: TapKind, key: &str) -> Option<String> {
    match (kind, key) {
        (TapKind::Kafka, "detect_unroutable" | "unroutable_max_body") => {
            Some("is for AMQP only: Kafka refuses what it can't route".to_owned())
        }
        (TapKind::Kafka, "allow_external") => {
            Some("is for AMQP only: Kafka has no SASL EXTERNAL".to_owned())
        }
        (TapKind::Amqp, "ports" | "advertise") => Some(
            "is for Kafka only: an AMQP broker tells its clients no other addresses".to_owned(),
        ),
        (TapKind::Amqp, "record") => {
            Some("is for Kafka only: an AMQP tap rewrites nothing, so leave it out".to_owned())
        }
        _ => None,
    }
}

fn half(files: Option<&CertAndKey>) -> bool {
    files.is_some_and(CertAndKey::is_half)
}

impl TapConfig {
    /// Kafka: where the brokers' local listeners are; `None` if there is no port behind `listen`.
    pub fn port_range(&self) -> Option<PortRange> {
        let ListenAddr::Tcp { port, .. } = self.listen else { return self.ports };
        let behind = || match port {
            0 => Some(PortRange { first: 0, last: 0 }),
            _ => Some(PortRange { first: port.checked_add(1)?, last: port.saturating_add(100) }),
        };
        self.ports.or_else(behind)
    }
}

/// Fills in what depends on other keys.
pub(super) fn fill(config: &mut Config) {
    use std::time::Duration;
    let (age, status) = match config.store {
        StoreUrl::Folder(_) => (Duration::from_secs(2), Duration::from_secs(5)),
        StoreUrl::Bucket(_) => (Duration::from_secs(10), Duration::from_mins(1)),
    };
    if config.upload.age.is_zero() {
        config.upload.age = age;
    }
    if config.upload.status.is_zero() {
        config.upload.status = status;
    }
    if config.instance.is_empty() {
        config.instance = rustix::system::uname().nodename().to_string_lossy().into_owned();
    }
}

/// A section that repeats, and which of them; `None` for what stands once.
pub(super) type Section = Option<(&'static str, usize)>;

/// A key as it is named in a report: `tap[0].listen`.
pub(super) fn shown(section: Section, key: &str) -> String {
    match section {
        Some((name, index)) => format!("{name}[{index}].{key}"),
        None => key.to_owned(),
    }
}

/// Where each key was set last, for reports on what does not fit together.
pub(super) type Origins = HashMap<(Section, String), Origin>;
