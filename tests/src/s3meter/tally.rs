//! What a meter counted.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

/// One request and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its method, or `LIST` for a GET that lists.
    pub verb: String,
    /// The object's key without the bucket, or what a list is to begin with.
    pub key: String,
    /// The answer's status; 0 if none came.
    pub status: u16,
    /// Bytes of its body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// When it came, since the meter started.
    pub begun: Duration,
    /// When its answer had gone out.
    pub ended: Duration,
}

/// How much of one sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many requests.
    pub requests: u64,
    /// How many of them were answered with an error or not at all.
    pub failed: u64,
    /// Bytes of their bodies.
    pub bytes_in: u64,
    /// Bytes of the answers' bodies.
    pub bytes_out: u64,
}

impl Request {
    pub(super) fn begin(method: &str, target: &str, begun: Duration) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let key = path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
        let parameter = |wanted: &str| {
            let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value)
        };
        let lists = method == "GET" && key.is_empty() && parameter("list-type").is_some();
        let (verb, key) =
            if lists { ("LIST", parameter("prefix").unwrap_or_default()) } else { (method, key) };
        Self {
            verb: verb.to_owned(),
            key: decoded(key),
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            begun,
            ended: begun,
        }
    }

    /// Whether it was answered with success.
    pub fn worked(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "verb": self.verb, "key": self.key, "status": self.status,
            "bytes_in": self.bytes_in, "bytes_out": self.bytes_out,
            "begun_us": self.begun.as_micros() as u64, "ended_us": self.ended.as_micros() as u64,
        })
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.first_chunk::<2>().and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(byte) = byte.filter(|_| *first == b'%') {
            bytes.push(byte);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Those of a verb whose keys begin like this.
pub fn of<'a>(
    requests: &'a [Request],
    verb: &'a str,
    prefix: &'a str,
) -> impl Iterator<Item = &'a Request> {
    requests.iter().filter(move |request| request.verb == verb && request.key.starts_with(prefix))
}

/// Requests below a prefix by verb and by the next part of their keys: (`PUT`, `inbox`).
pub fn tally(requests: &[Request], prefix: &str) -> BTreeMap<(String, String), Count> {
    let mut counts: BTreeMap<(String, String), Count> = BTreeMap::new();
    for request in requests {
        let Some(below) = request.key.strip_prefix(prefix) else { continue };
        let part = below.trim_start_matches('/').split('/').next().unwrap_or_default();
        let count = counts.entry((request.verb.clone(), part.to_owned())).or_default();
        count.requests += 1;
        count.failed += u64::from(!request.worked());
        count.bytes_in += request.bytes_in;
        count.bytes_out += request.bytes_out;
    }
    counts
}

/// How many requests followed each other at least: the longest chain of which each began when the
/// one before had ended. Requests that ran beside each other count as one round.
pub fn rounds(requests: &[Request]) -> usize {
    let mut by_end: Vec<_> = requests.iter().collect();
    by_end.sort_by_key(|request| request.ended);
    let (mut rounds, mut until) = (0, None);
    for request in by_end {
        if until.is_none_or(|until| request.begun >= until) {
            rounds += 1;
            until = Some(request.ended);
        }
    }
    rounds
}

/// How many of them were under way at once, at most.
pub fn most_at_once<'a>(requests: impl IntoIterator<Item = &'a Request>) -> usize {
    // Where one ends as another begins, the end comes first.
    let mut changes: Vec<(Duration, i32)> = requests
        .into_iter()
        .flat_map(|request| [(request.begun, 1), (request.ended, -1)])
        .collect();
    changes.sort();
    let (mut now, mut most) = (0, 0);
    for (_, change) in changes {
        now += change;
        most = most.max(now);
    }
    usize::try_from(most).unwrap_or(0)
}

/// All of it as JSON.
pub(super) fn summary(requests: &[Request], prefix: &str) -> Value {
    let counts: Vec<_> = tally(requests, prefix)
        .into_iter()
        .map(|((verb, part), count)| {
            json!({
                "verb": verb, "part": part, "requests": count.requests, "failed": count.failed,
                "bytes_in": count.bytes_in, "bytes_out": count.bytes_out,
            })
        })
        .collect();
    let below: Vec<_> =
        requests.iter().filter(|request| request.key.starts_with(prefix)).cloned().collect();
    json!({
        "counts": counts, "requests": below.len(), "rounds": rounds(&below),
        "most_at_once": most_at_once(&below),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(begun: u64, ended: u64) -> Request {
        let mut request = Request::begin("GET", "/b/k", Duration::from_millis(begun));
        request.ended = Duration::from_millis(ended);
        request
    }

    #[test]
    fn a_request_is_named_by_verb_and_key() {
        let named = |method, target| {
            let request = Request::begin(method, target, Duration::ZERO);
            (request.verb, request.key)
        };
        for (method, target, verb, key) in [
            ("PUT", "/flowtap/team/inbox/a%20b.parquet", "PUT", "team/inbox/a b.parquet"),
            ("GET", "/flowtap/?list-type=2&prefix=team%2Finbox%2F", "LIST", "team/inbox/"),
            ("GET", "/flowtap?prefix=x&list-type=2", "LIST", "x"),
            ("GET", "/flowtap/k?partNumber=1", "GET", "k"),
            ("POST", "/flowtap?delete", "POST", ""),
            ("HEAD", "/flowtap/100%", "HEAD", "100%"),
        ] {
            assert_eq!(named(method, target), (verb.to_owned(), key.to_owned()));
        }
    }

    #[test]
    fn rounds_are_what_cannot_have_been_asked_at_once() {
        assert_eq!(rounds(&[]), 0);
        assert_eq!(rounds(&[request(0, 5), request(0, 9), request(1, 2)]), 1);
        assert_eq!(rounds(&[request(0, 5), request(5, 9), request(6, 8), request(9, 10)]), 3);
    }

    #[test]
    fn those_that_only_touch_are_not_under_way_at_once() {
        assert_eq!(most_at_once(&[request(0, 5), request(5, 9)]), 1);
        assert_eq!(most_at_once(&[request(0, 5), request(4, 9), request(4, 6)]), 3);
    }
}
