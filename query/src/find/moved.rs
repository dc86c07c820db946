//! What messages that moved, and positions of groups, say beyond their flows: edges of the map, ways
//! to queues, who takes from them, and what usually follows what.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use flowtap_record::{Kind, Micros};

use super::columns::Cells;
use super::object::{Beyond, MapKey, Step, hash};
use crate::flow::{Broker, Row, Slot};
use crate::progress::Mark;

/// Keys of more kinds than this a source are ids, and tell nothing about ways.
const MAX_ROUTES: usize = 1000;

/// Whose deliveries: the boot, the topic on Kafka, the queue or group.
type Taker = (u32, Option<String>, String);

/// What is kept between rows.
#[derive(Default)]
pub(super) struct Moved {
    /// The first delivery of each, and when the last was.
    deliveries: HashMap<Taker, (Row, Micros)>,
    /// Texts that come again and again.
    texts: HashSet<Arc<str>>,
}

impl Moved {
    /// A group's position.
    pub(super) fn position(
        cells: &Cells<'_>,
        row: usize,
        at: Micros,
        agent: &str,
        beyond: &mut Beyond,
    ) {
        let owned = |name: &str| cells.text(name, row).map(str::to_owned);
        let (Some(group), Some(topic), Some(partition), Some(offset)) = (
            owned("subscription"),
            owned("destination"),
            cells.int("partition", row),
            cells.long("log_offset", row),
        ) else {
            return;
        };
        let slot = Slot { broker: broker(cells, row), group, topic, partition };
        let progress = beyond.progress.entry(slot).or_default();
        progress.learn(Mark { at, offset, agent: agent.to_owned() });
    }

    /// A message went to a broker or came from one. `who`: the boot's number, agent and boot.
    pub(super) fn row(
        &mut self,
        cells: &Cells<'_>,
        row: usize,
        kind: Kind,
        at: Micros,
        who: (u32, &str, &str),
        beyond: &mut Beyond,
    ) {
        let owned = |name: &str| cells.text(name, row).map(str::to_owned);
        let broker = broker(cells, row);
        let is_kafka = broker.system.as_deref() == Some("kafka");
        let destination = owned("destination").unwrap_or_default();
        let subscription = owned("subscription");
        let publish = kind == Kind::Publish;
        if let (false, Some(queue)) = (publish, &subscription) {
            let topic = is_kafka.then(|| destination.clone());
            self.delivered(cells, row, at, who, (who.0, topic, queue.clone()));
            if !is_kafka && came_back(cells, row, queue) {
                beyond.returns.insert((broker.clone(), queue.clone()));
            }
            if !is_kafka && beyond.routes.len() < MAX_ROUTES {
                let key = owned("routing_key").unwrap_or_default();
                let route = (broker.clone(), destination.clone(), key);
                let since = beyond.routes.entry(route).or_insert(at.0);
                *since = (*since).min(at.0);
            }
        }
        beyond.steps.extend(self.step(cells, row, publish).map(|step| (at.0, step)));
        let service = owned("service").unwrap_or_default();
        let key = MapKey { publish, broker, service, destination, subscription };
        *beyond.map.entry((key, at.0.div_euclid(60_000_000))).or_default() += 1;
    }

    fn step(&mut self, cells: &Cells<'_>, row: usize, publish: bool) -> Option<Step> {
        let service = self.text(cells.text("service", row).unwrap_or_default());
        let transaction = cells.text("transaction_id", row).map(hash::transaction);
        // A copy of a message without an id of its own is the same message by its fingerprint.
        let event = cells.text("event_id", row).map(hash::event);
        let event = event.or_else(|| cells.text("message", row).map(hash::message));
        if publish {
            let cause = cells.text("causation_id", row).map(hash::event);
            return Some(Step::Published { event, cause, transaction, service });
        }
        let event_type = cells.text("event_type", row).map(|text| self.text(text));
        Some(Step::Delivered { event: event?, transaction, service, event_type })
    }

    fn delivered(
        &mut self,
        cells: &Cells<'_>,
        row: usize,
        at: Micros,
        (_, agent, boot): (u32, &str, &str),
        taker: Taker,
    ) {
        match self.deliveries.get_mut(&taker) {
            Some((first, last)) => {
                *last = at.max(*last);
                if at < first.at
                    && let Some(earlier) = cells.row(agent, boot, row)
                {
                    *first = earlier;
                }
            }
            None => {
                if let Some(first) = cells.row(agent, boot, row) {
                    self.deliveries.insert(taker, (first, at));
                }
            }
        }
    }

    /// One that is shared with equal ones.
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        let new: Arc<str> = text.into();
        self.texts.insert(new.clone());
        new
    }

    /// All rows are there. When a group took from a topic last tells whether it left.
    pub(super) fn finish(&mut self, beyond: &mut Beyond) {
        for (_, (first, last)) in self.deliveries.drain() {
            if first.is_kafka() && last > first.at {
                beyond.deliveries.push(Row { at: last, ..first.clone() });
            }
            beyond.deliveries.push(first);
        }
        beyond.deliveries.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
    }
}

fn broker(cells: &Cells<'_>, row: usize) -> Broker {
    let owned = |name: &str| cells.text(name, row).map(str::to_owned);
    Broker { system: owned("system"), cluster: owned("cluster"), vhost: owned("vhost") }
}

/// Whether a delivery is of a message that this queue had given up before, and that other queues
/// led back. What somebody took out of the last of them and published here by hand came from there
/// at once: its newest death is that in this queue.
fn came_back(cells: &Cells<'_>, row: usize, queue: &str) -> bool {
    let details = cells.text("details", row).filter(|details| details.contains(r#""death""#));
    let Some(details) = details else { return false };
    cells.int("attempt", row).is_some_and(|attempt| attempt > 1)
        && cells.flag("redelivered", row) == Some(false)
        && serde_json::from_str::<serde_json::Value>(details).is_ok_and(|details| {
            details["death"]["queue"].as_str().is_some_and(|died_in| died_in != queue)
        })
}
