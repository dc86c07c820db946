//! Holds the rows of the history against what a broker counted itself. Pure: both sides go in.
//!
//! A broker counts since it started, or since an exchange or queue was made, and says what it counted
//! some seconds late. What that leaves open is [`Judged::Open`], never a fault: a finding is one that
//! nothing but rows that are missing, doubled or went around the sidecars explains.

use std::collections::{BTreeMap, BTreeSet};

use flowtap_record::Micros;
use serde::Serialize;

use super::What;
use super::rabbitmq::{Counted, Figures, Place, PlaceKind};

/// Counters may be so late, and clocks so far apart.
const SETTLED_US: i64 = 15_000_000;

/// What the history has of one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Publishes.
    pub(super) published: i64,
    /// Of them those that the broker answered: it counted them for sure.
    pub(super) answered: i64,
    /// Deliveries.
    pub(super) delivered: i64,
    /// Of them those that ended with their channel or connection: others may have been on their way.
    pub(super) abandoned: i64,
    /// Acknowledgements.
    pub(super) acked: i64,
    /// The first and the last row.
    pub(super) first: Micros,
    pub(super) last: Micros,
}

/// What the history has of one cluster, of the time that is compared.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) places: BTreeMap<Place, Seen>,
    /// The first row of the cluster, at any time.
    pub(super) first: Option<Micros>,
    /// Clusters that it has rows of.
    pub(super) clusters: Vec<String>,
    /// Virtual hosts that it has rows of: of others no sidecar knows anything.
    pub(super) vhosts: BTreeSet<String>,
    /// Places that were deleted, by the rows.
    pub(super) deleted: BTreeSet<Place>,
    /// Sidecars' own connections to the broker.
    pub(super) own: BTreeSet<(String, u16)>,
    /// Why rows may be missing, by the sidecars' word.
    pub(super) incomplete: Option<String>,
}

/// A figure of the broker's that the history does not bear out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What is wrong with the history: rows are missing, or doubled.
    pub what: What,
    /// Where.
    pub place: Place,
    /// `published`, `delivered` or `acked`.
    pub counter: &'static str,
    /// What the broker counted.
    pub broker: i64,
    /// What the history has.
    pub history: i64,
}

/// What came of the comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Compared {
    /// The broker's cluster.
    pub cluster: String,
    /// Since when both were counted; none: since the broker counts.
    pub since: Option<Micros>,
    /// Exchanges and queues whose figures are borne out.
    pub equal: usize,
    /// Messages published, by the broker's figures of those.
    pub published: i64,
    /// Exchanges and queues that the broker does not have any more.
    pub gone: usize,
    /// What is missing or doubled.
    pub differences: Vec<Difference>,
    /// What cannot be proved, and why.
    pub unproven: Vec<String>,
}

enum Judged {
    Equal,
    Wrong(What),
    Open(String),
}

/// Compares. `before`: the broker's figures as they were kept earlier, to compare only what was added.
pub(super) fn compare(counted: &Counted, before: Option<&Counted>, history: &History) -> Compared {
    let mut compared = Compared {
        cluster: counted.cluster.clone(),
        since: before.map(|before| before.at),
        ..Compared::default()
    };
    if let Some(why) = not_comparable(counted, before, history) {
        compared.unproven.push(why);
        return compared;
    }
    let earlier: BTreeMap<&Place, &Figures> = before
        .iter()
        .flat_map(|it| it.places.iter().map(|(place, figures)| (place, figures)))
        .collect();
    for vhost in history.vhosts.difference(&counted.vhosts) {
        compared.unproven.push(format!("the vhost {vhost} is gone, or the user may not see it"));
    }
    let mut there = BTreeSet::new();
    for (place, now) in counted.places.iter().filter(|it| history.vhosts.contains(&it.0.vhost)) {
        there.insert(place);
        let seen = history.places.get(place).copied().unwrap_or_default();
        let one = One { counted, before, history, place, now, seen };
        let was = earlier.get(place).copied().copied().unwrap_or_default();
        let mut equal = true;
        for (counter, figure, least, most) in [
            ("published", now.published - was.published, seen.answered, seen.published),
            ("delivered", now.delivered - was.delivered, seen.delivered, seen.delivered),
            // What was sent last may not have reached the broker.
            ("acked", now.acked - was.acked, 0, seen.acked),
        ] {
            let applies = (counter == "published") == (place.kind == PlaceKind::Exchange);
            if !applies {
                continue;
            }
            match one.judge(figure, least, most) {
                Judged::Equal => {}
                Judged::Wrong(what) => {
                    equal = false;
                    compared.differences.push(Difference {
                        what,
                        place: place.clone(),
                        counter,
                        broker: figure,
                        history: most,
                    });
                }
                Judged::Open(why) => {
                    equal = false;
                    let (kind, name, vhost) = (place.kind.as_str(), &place.name, &place.vhost);
                    compared.unproven.push(format!(
                        "{kind} {name:?} of vhost {vhost}: {counter} {figure} by the broker, {most} in \
                         the history; {why}"
                    ));
                }
            }
        }
        compared.equal += usize::from(equal);
        if equal {
            compared.published += now.published - was.published;
        }
    }
    compared.gone = history.places.keys().filter(|place| !there.contains(place)).count();
    compared
}

/// Why nothing can be compared, if so.
fn not_comparable(
    counted: &Counted,
    before: Option<&Counted>,
    history: &History,
) -> Option<String> {
    if let Some(off) = &counted.off {
        return Some(off.clone());
    }
    let cluster = &counted.cluster;
    let Some(first) = history.first else {
        let known = match history.clusters.join(", ") {
            none if none.is_empty() => "none".to_owned(),
            known => known,
        };
        return Some(format!("the history has no rows of the cluster {cluster}; it has: {known}"));
    };
    if let Some(before) = before.filter(|before| before.cluster != *cluster) {
        return Some(format!(
            "the figures kept before are of the cluster {}, not {cluster}",
            before.cluster
        ));
    }
    let since = before.map_or(first, |before| before.at);
    let restarted = counted.nodes.iter().find(|(_, started)| started.0 > since.0);
    restarted.map(|(node, started)| {
        format!("the broker's node {node} started at {started}: it counts since then only")
    })
}

/// One exchange or queue.
struct One<'a> {
    counted: &'a Counted,
    before: Option<&'a Counted>,
    history: &'a History,
    place: &'a Place,
    now: &'a Figures,
    seen: Seen,
}

impl One<'_> {
    /// The broker's figure against what it must be at least and at most.
    fn judge(&self, figure: i64, least: i64, most: i64) -> Judged {
        if (least..=most).contains(&figure) {
            return Judged::Equal;
        }
        if let Some(why) = self.moves() {
            return Judged::Open(why);
        }
        if figure < least {
            return Judged::Wrong(What::Doubled);
        }
        match self.excuse() {
            Some(why) => Judged::Open(why),
            None => Judged::Wrong(What::Missing),
        }
    }

    /// Why figures of this place say nothing, in either direction.
    fn moves(&self) -> Option<String> {
        if self.now.fleeting || self.history.deleted.contains(self.place) {
            return Some("it may have been made anew, and counts from nothing then".to_owned());
        }
        let any = self.seen.last.0 > 0;
        if any && self.seen.last.0 > self.counted.at.0 - SETTLED_US {
            return Some(
                "it was used within the last 15 seconds, and figures come late".to_owned(),
            );
        }
        let began = self.before.map(|before| before.at.0 + SETTLED_US);
        if any && began.is_some_and(|began| self.seen.first.0 < began) {
            return Some("it was used while the figures were kept, and they come late".to_owned());
        }
        None
    }

    /// Why the broker may have counted more than the history has, though no row is missing.
    fn excuse(&self) -> Option<String> {
        if let Some(why) = &self.history.incomplete {
            return Some(why.clone());
        }
        let Some(before) = self.before else {
            return Some(
                "what went by before there were sidecars counts, too: keep figures with --save now and \
                 compare --since them later"
                    .to_owned(),
            );
        };
        let outsiders = |counted: &Counted| {
            let mut all = counted.connections.iter().filter(|it| it.0 == self.place.vhost);
            all.find(|it| !self.history.own.contains(&(it.1.clone(), it.2))).cloned()
        };
        if let Some((_, host, port)) = outsiders(self.counted).or_else(|| outsiders(before)) {
            return Some(format!("the connection from {host}:{port} goes around the sidecars"));
        }
        (self.place.kind == PlaceKind::Queue && self.seen.abandoned > 0)
            .then(|| "connections ended with deliveries on their way".to_owned())
    }
}

#[cfg(test)]
mod tests;
