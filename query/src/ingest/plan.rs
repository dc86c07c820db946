//! Which inbox objects the next commit takes. Pure: the listing, what is committed and the time go
//! in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use flowtap_record::Micros;
use flowtap_record::path::InboxName;
use object_store::ObjectMeta;

use crate::store::{Lost, Progress};

/// What is missing for so long, while what lies behind it is there, is given up.
pub(super) const MISSING_US: i64 = 24 * 3_600_000_000;

/// An object that is to be taken.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Take {
    pub(super) name: InboxName,
    pub(super) meta: ObjectMeta,
    /// Its first row that is not taken yet.
    pub(super) from: i64,
    /// Rows before it that are given up.
    pub(super) lost: Option<Lost>,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// In order for each boot, else oldest first.
    pub(super) takes: VecDeque<Take>,
    /// Objects behind a hole.
    pub(super) waiting: usize,
}

/// All objects that could be taken now.
pub(super) fn plan(listed: &[(InboxName, ObjectMeta)], progress: &Progress, now: Micros) -> Plan {
    let mut boots: BTreeMap<(&str, &str), Vec<&(InboxName, ObjectMeta)>> = BTreeMap::new();
    for object in listed {
        let name = &object.0;
        boots.entry((&name.agent, &name.boot)).or_default().push(object);
    }
    let mut plan = Plan::default();
    let mut queues = Vec::new();
    for ((agent, boot), mut objects) in boots {
        objects.sort_by_key(|(name, _)| (name.first, name.last));
        let mut queue = VecDeque::new();
        let mut next = progress.last_of(agent, boot) + 1;
        for (at, (name, meta)) in objects.iter().enumerate() {
            if name.last.0 < next {
                continue;
            }
            let put_at = Micros(meta.last_modified.timestamp_micros());
            let mut lost = None;
            if name.first.0 > next {
                if now.since(put_at) < MISSING_US {
                    plan.waiting += objects.len() - at;
                    break;
                }
                lost = Some(Lost {
                    agent: agent.to_owned(),
                    boot: boot.to_owned(),
                    first: next,
                    last: name.first.0 - 1,
                    since: put_at,
                });
            }
            let from = next.max(name.first.0);
            queue.push_back(Take { name: name.clone(), meta: meta.clone(), from, lost });
            next = name.last.0 + 1;
        }
        queues.push(queue);
    }
    plan.takes = oldest_first(queues);
    plan
}

/// One queue of many, each of which keeps its order.
fn oldest_first(mut queues: Vec<VecDeque<Take>>) -> VecDeque<Take> {
    let time = |queue: &VecDeque<Take>| queue.front().map(|take| take.meta.last_modified);
    let mut heads: BinaryHeap<_> = queues
        .iter()
        .enumerate()
        .filter_map(|(index, queue)| Some(Reverse((time(queue)?, index))))
        .collect();
    let mut all = VecDeque::new();
    while let Some(Reverse((_, index))) = heads.pop() {
        all.extend(queues[index].pop_front());
        if let Some(next) = time(&queues[index]) {
            heads.push(Reverse((next, index)));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use flowtap_record::Seq;
    use flowtap_record::path::HISTORY;
    use object_store::path::Path;

    use super::*;
    use crate::store::BootProgress;

    const NOW: Micros = Micros(10 * MISSING_US);

    fn object(boot: &str, first: i64, last: i64, age_us: i64) -> (InboxName, ObjectMeta) {
        let name = InboxName {
            table: HISTORY.to_owned(),
            agent: "shop".to_owned(),
            boot: boot.to_owned(),
            first: Seq(first),
            last: Seq(last),
        };
        let put_at = jiff::Timestamp::from_microsecond(NOW.0 - age_us).expect("a time");
        let put_at = put_at.to_string().parse().expect("the same time");
        let meta = ObjectMeta {
            location: Path::from(name.path()),
            last_modified: put_at,
            size: 1,
            e_tag: None,
            version: None,
        };
        (name, meta)
    }

    fn taken(plan: &Plan) -> Vec<(&str, i64, i64)> {
        let take = |take: &'_ Take| (take.from, take.name.last.0);
        plan.takes.iter().map(|it| (it.name.boot.as_str(), take(it).0, take(it).1)).collect()
    }

    fn progress(boot: &str, last: i64) -> Progress {
        let mut progress = Progress::default();
        let at = BootProgress { last, ..BootProgress::default() };
        progress.boots.entry("shop".to_owned()).or_default().insert(boot.to_owned(), at);
        progress
    }

    #[test]
    fn a_boot_is_taken_in_order_and_boots_by_age() {
        let listed = [object("a", 11, 20, 1), object("a", 1, 10, 9), object("b", 1, 5, 5)];
        let plan = plan(&listed, &Progress::default(), NOW);
        assert_eq!(taken(&plan), [("a", 1, 10), ("b", 1, 5), ("a", 11, 20)]);
    }

    #[test]
    fn what_is_committed_is_left_out_and_half_of_an_object_is_half_taken() {
        let listed = [object("a", 1, 10, 9), object("a", 5, 15, 1)];
        assert_eq!(taken(&plan(&listed, &progress("a", 10), NOW)), [("a", 11, 15)]);
        assert_eq!(taken(&plan(&listed, &progress("a", 15), NOW)), []);
        // Also where two objects overlap that are both new.
        assert_eq!(taken(&plan(&listed, &Progress::default(), NOW)), [("a", 1, 10), ("a", 11, 15)]);
    }

    #[test]
    fn a_boot_waits_before_a_hole_until_the_hole_is_given_up() {
        let young = [object("a", 1, 10, 9), object("a", 21, 30, 8), object("a", 31, 40, 7)];
        let waits = plan(&young, &Progress::default(), NOW);
        assert_eq!((taken(&waits), waits.waiting), (vec![("a", 1, 10)], 2));
        let old = [object("a", 21, 30, MISSING_US), object("a", 31, 40, 7)];
        let given_up = plan(&old, &progress("a", 10), NOW);
        assert_eq!(taken(&given_up), [("a", 21, 30), ("a", 31, 40)]);
        let lost = given_up.takes[0].lost.as_ref().expect("a hole");
        assert_eq!((lost.first, lost.last), (11, 20));
        assert_eq!(given_up.takes[1].lost, None);
    }
}
