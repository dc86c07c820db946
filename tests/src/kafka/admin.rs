//! What tests ask of a cluster and change in it: topics, offsets, leaders, groups.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Kafka;
use super::wire::{Answer, Api, Body, call};
use crate::wait_until;

const METADATA: Api = Api { key: 3, version: 10, flexible: true };
const LIST_OFFSETS: Api = Api { key: 2, version: 2, flexible: false };
const OFFSET_FETCH: Api = Api { key: 9, version: 2, flexible: false };
const FIND_COORDINATOR: Api = Api { key: 10, version: 1, flexible: false };
const DESCRIBE_GROUPS: Api = Api { key: 15, version: 1, flexible: false };
const CREATE_TOPICS: Api = Api { key: 19, version: 4, flexible: false };
const DELETE_TOPICS: Api = Api { key: 20, version: 3, flexible: false };
const DELETE_RECORDS: Api = Api { key: 21, version: 1, flexible: false };
const ELECT_LEADERS: Api = Api { key: 43, version: 1, flexible: false };
const INCREMENTAL_ALTER_CONFIGS: Api = Api { key: 44, version: 0, flexible: false };
const ALTER_PARTITION_REASSIGNMENTS: Api = Api { key: 45, version: 0, flexible: true };

/// What settings belong to.
const TOPIC: i8 = 2;
const GROUP: i8 = 32;

const EARLIEST: i64 = -2;
const LATEST: i64 = -1;
const ELECTION_NOT_NEEDED: i16 = 84;

/// What a cluster says of itself.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// Its id.
    pub cluster_id: String,
    /// Its live brokers' addresses by id, as they advertise them.
    pub brokers: BTreeMap<i32, (String, u16)>,
    /// The topics that were asked for and are there.
    pub topics: BTreeMap<String, Topic>,
}

/// What a cluster says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its id: another one when it is deleted and made anew.
    pub id: [u8; 16],
    /// Its partitions by number.
    pub partitions: BTreeMap<i32, Partition>,
}

/// Who has a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The broker that leads it (-1: nobody).
    pub leader: i32,
    /// The brokers that shall have it, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub in_sync: Vec<i32>,
}

/// A group of the classic protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// `Stable`, `Empty`, `PreparingRebalance`, `Dead`, ...
    pub state: String,
    /// Its members' ids and client ids.
    pub members: Vec<(String, String)>,
}

impl Kafka {
    pub(super) fn ask(&self, address: SocketAddr, api: Api, body: Body) -> Answer {
        call(address, api, body).unwrap_or_else(|error| {
            self.print_logs();
            panic!("{api:?} at {address}: {error}")
        })
    }

    /// The first of the nodes that answers.
    pub(super) fn anybody(&self) -> SocketAddr {
        let mut found = None;
        wait_until("a broker is up", || {
            found = self.addresses().into_iter().find(|&address| {
                std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_secs(1))
                    .is_ok()
            });
            found.is_some()
        });
        found.expect("it was awaited")
    }

    pub(super) fn try_metadata(
        address: SocketAddr,
        topics: Option<&[&str]>,
    ) -> std::io::Result<Metadata> {
        let mut body = Body::default();
        body = match topics {
            None => body.varint(0),
            Some(names) => names.iter().fold(body.varint(names.len() as u64 + 1), |body, name| {
                body.raw(&[0; 16]).compact(name).varint(0)
            }),
        };
        // No topic is made by asking for it; no word on who may do what.
        let mut answer = call(address, METADATA, body.i8(0).i8(0).i8(0).varint(0))?;
        answer.i32();
        let brokers = answer.compacts(|broker| {
            let id = broker.i32();
            let host = broker.compact().expect("a broker has a host");
            let port = u16::try_from(broker.i32()).expect("a port");
            broker.compact();
            broker.tags();
            (id, (host, port))
        });
        let cluster_id = answer.compact().unwrap_or_default();
        answer.i32();
        let topics = answer.compacts(|topic| {
            let error = topic.i16();
            let name = topic.compact().unwrap_or_default();
            let id = topic.uuid();
            topic.i8();
            let partitions = topic.compacts(|partition| {
                partition.i16();
                let index = partition.i32();
                let leader = partition.i32();
                partition.i32();
                let replicas = partition.compacts(Answer::i32);
                let in_sync = partition.compacts(Answer::i32);
                partition.compacts(Answer::i32);
                partition.tags();
                (index, Partition { leader, replicas, in_sync })
            });
            topic.i32();
            topic.tags();
            (error, name, Topic { id, partitions: partitions.into_iter().collect() })
        });
        let topics = topics.into_iter().filter(|(error, ..)| *error == 0);
        Ok(Metadata {
            cluster_id,
            brokers: brokers.into_iter().collect(),
            topics: topics.map(|(_, name, topic)| (name, topic)).collect(),
        })
    }

    /// What the cluster says of itself and of all topics, or of those named.
    pub fn metadata(&self, topics: Option<&[&str]>) -> Metadata {
        Self::try_metadata(self.anybody(), topics).unwrap_or_else(|error| {
            self.print_logs();
            panic!("no metadata: {error}")
        })
    }

    /// What the cluster says of a topic; panics if there is none.
    pub fn topic(&self, name: &str) -> Topic {
        let mut topics = self.metadata(Some(&[name])).topics;
        topics.remove(name).unwrap_or_else(|| panic!("there is no topic {name}"))
    }

    fn address_of(&self, broker: i32) -> SocketAddr {
        let brokers = self.metadata(Some(&[])).brokers;
        address(brokers.get(&broker).unwrap_or_else(|| panic!("broker {broker} is not up")))
    }

    /// Makes a topic, on as many brokers as there are, and waits until it has leaders.
    /// Settings as `("cleanup.policy", "compact")`.
    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let copies = i16::try_from(self.nodes()).expect("few nodes");
        let topic = |body: Body, name: &str| {
            body.text(name)
                .i32(partitions)
                .i16(copies)
                .i32(0)
                .each(settings.iter(), |body, (key, value)| body.text(key).text(value))
        };
        let body = Body::default().each([name].into_iter(), topic).i32(30_000).i8(0);
        let mut answer = self.ask(self.anybody(), CREATE_TOPICS, body);
        answer.i32();
        for (topic, error, why) in answer.list(|each| (each.text(), each.i16(), each.text())) {
            assert_eq!(error, 0, "topic {topic:?} can't be made: {why:?}");
        }
        let whole = |topic: &Topic| {
            topic.partitions.len() == partitions as usize
                && topic.partitions.values().all(|partition| {
                    partition.leader >= 0 && partition.in_sync.len() == self.nodes()
                })
        };
        // Each broker hears of it for itself.
        wait_until("every broker knows a new topic", || {
            self.addresses().iter().all(|&address| {
                Self::try_metadata(address, Some(&[name]))
                    .is_ok_and(|seen| seen.topics.get(name).is_some_and(whole))
            })
        });
    }

    /// Deletes a topic and waits until it is gone.
    pub fn delete_topic(&self, name: &str) {
        let body = Body::default().each([name].into_iter(), Body::text).i32(30_000);
        let mut answer = self.ask(self.anybody(), DELETE_TOPICS, body);
        answer.i32();
        for (topic, error) in answer.list(|each| (each.text(), each.i16())) {
            assert_eq!(error, 0, "topic {topic:?} can't be deleted");
        }
        wait_until("a topic is gone", || {
            self.addresses().iter().all(|&address| {
                Self::try_metadata(address, Some(&[name]))
                    .is_ok_and(|seen| !seen.topics.contains_key(name))
            })
        });
    }

    /// Changes settings of a topic.
    pub fn alter_topic(&self, name: &str, settings: &[(&str, &str)]) {
        self.alter(TOPIC, name, settings);
    }

    /// Changes settings of a group, as `("share.auto.offset.reset", "earliest")`.
    pub fn alter_group(&self, name: &str, settings: &[(&str, &str)]) {
        self.alter(GROUP, name, settings);
    }

    fn alter(&self, what: i8, name: &str, settings: &[(&str, &str)]) {
        let body = Body::default()
            .i32(1)
            .i8(what)
            .text(name)
            .each(settings.iter(), |body, (key, value)| body.text(key).i8(0).text(value))
            .i8(0);
        let mut answer = self.ask(self.anybody(), INCREMENTAL_ALTER_CONFIGS, body);
        answer.i32();
        let results = answer.list(|each| (each.i16(), each.text(), each.i8(), each.text()));
        for (error, why, ..) in results {
            assert_eq!(error, 0, "{name} can't be changed: {why:?}");
        }
    }

    fn offsets(&self, topic: &str, at: i64, read_committed: bool) -> BTreeMap<i32, i64> {
        let mut found = BTreeMap::new();
        // Where a broker has just died, a leader may be known that is none any more.
        wait_until("every partition's leader answers", || {
            let seen = self.metadata(Some(&[topic]));
            found.clear();
            let partitions = seen.topics.get(topic).map(|topic| &topic.partitions);
            partitions.is_some_and(|partitions| {
                partitions.iter().all(|(&index, partition)| {
                    let offset = seen.brokers.get(&partition.leader).and_then(|leader| {
                        try_offset(address(leader), topic, index, at, read_committed)
                    });
                    found.extend(offset.map(|offset| (index, offset)));
                    offset.is_some()
                })
            })
        });
        found
    }

    /// The offset after the newest record, by partition.
    pub fn end_offsets(&self, topic: &str) -> BTreeMap<i32, i64> {
        self.offsets(topic, LATEST, false)
    }

    /// The offset before which no transaction is open, by partition.
    pub fn stable_offsets(&self, topic: &str) -> BTreeMap<i32, i64> {
        self.offsets(topic, LATEST, true)
    }

    /// The offset of the oldest record, by partition.
    pub fn start_offsets(&self, topic: &str) -> BTreeMap<i32, i64> {
        self.offsets(topic, EARLIEST, false)
    }

    /// Deletes the records of a partition before an offset.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let leader = self.topic(topic).partitions[&partition].leader;
        let body = Body::default().i32(1).text(topic).i32(1).i32(partition).i64(before).i32(30_000);
        let mut answer = self.ask(self.address_of(leader), DELETE_RECORDS, body);
        answer.i32();
        answer.list(|topic| {
            topic.text();
            topic.list(|each| {
                each.i32();
                each.i64();
                assert_eq!(each.i16(), 0, "records can't be deleted");
            })
        });
    }

    pub(super) fn try_coordinator(
        address: SocketAddr,
        name: &str,
        transactional: bool,
    ) -> std::io::Result<Option<SocketAddr>> {
        let body = Body::default().text(name).i8(i8::from(transactional));
        let mut answer = call(address, FIND_COORDINATOR, body)?;
        answer.i32();
        let error = answer.i16();
        answer.text();
        answer.i32();
        let host = answer.text().unwrap_or_default();
        let port = answer.i32();
        Ok((error == 0).then(|| {
            let host = host.parse().expect("brokers of tests have addresses");
            SocketAddr::new(host, u16::try_from(port).expect("a port"))
        }))
    }

    /// The broker that coordinates a group.
    pub fn coordinator(&self, group: &str) -> SocketAddr {
        let mut found = None;
        wait_until("a group has a coordinator", || {
            found = Self::try_coordinator(self.anybody(), group, false).ok().flatten();
            found.is_some()
        });
        found.expect("it was awaited")
    }

    pub(super) fn try_committed(
        address: SocketAddr,
        group: &str,
    ) -> std::io::Result<BTreeMap<(String, i32), i64>> {
        let mut answer = call(address, OFFSET_FETCH, Body::default().text(group).i32(-1))?;
        let topics = answer.list(|topic| {
            let name = topic.text().unwrap_or_default();
            topic.list(|each| {
                let index = each.i32();
                let offset = each.i64();
                each.text();
                ((name.clone(), index), offset, each.i16())
            })
        });
        let failed = answer.i16();
        if failed != 0 {
            return Err(std::io::Error::other(format!("error {failed}")));
        }
        let offsets = topics.into_iter().flatten().filter(|&(_, offset, _)| offset >= 0);
        Ok(offsets.map(|(at, offset, _)| (at, offset)).collect())
    }

    /// What a group has committed, by topic and partition.
    pub fn committed(&self, group: &str) -> BTreeMap<(String, i32), i64> {
        let mut found = BTreeMap::new();
        wait_until("a group's offsets can be read", || {
            let answer = Self::try_committed(self.coordinator(group), group);
            answer.map(|offsets| found = offsets).is_ok()
        });
        found
    }

    /// A group of the classic protocol as its coordinator sees it.
    pub fn group(&self, name: &str) -> Group {
        let body = Body::default().each([name].into_iter(), Body::text);
        let mut answer = self.ask(self.coordinator(name), DESCRIBE_GROUPS, body);
        answer.i32();
        let mut groups = answer.list(|group| {
            group.i16();
            group.text();
            let state = group.text().unwrap_or_default();
            group.text();
            group.text();
            let members = group.list(|member| {
                let names = (member.text().unwrap_or_default(), member.text().unwrap_or_default());
                member.text();
                member.bytes();
                member.bytes();
                names
            });
            Group { state, members }
        });
        groups.pop().expect("one was asked for")
    }

    /// Makes another broker lead a partition, and waits until it does.
    pub fn move_leader(&self, topic: &str, partition: i32, broker: i32) {
        let mut replicas = self.topic(topic).partitions[&partition].replicas.clone();
        replicas.retain(|&each| each != broker);
        replicas.insert(0, broker);
        let body = Body::default().i32(30_000).varint(2).compact(topic).varint(2).i32(partition);
        let body = replicas
            .iter()
            .fold(body.varint(replicas.len() as u64 + 1), |body, &each| body.i32(each));
        // The tagged fields of partition, topic and request.
        let body = body.varint(0).varint(0).varint(0);
        let mut answer = self.ask(self.anybody(), ALTER_PARTITION_REASSIGNMENTS, body);
        answer.i32();
        assert_eq!(answer.i16(), 0, "{topic}/{partition} can't be reassigned");
        wait_until("a partition has its new leader", || {
            let body = Body::default().i8(0).i32(1).text(topic).i32(1).i32(partition).i32(5000);
            let mut answer = self.ask(self.anybody(), ELECT_LEADERS, body);
            answer.i32();
            let failed = answer.i16();
            let each = answer.list(|topic| {
                topic.text();
                topic.list(|each| (each.i32(), each.i16(), each.text()))
            });
            let done = |&(_, error, _): &(i32, i16, _)| error == 0 || error == ELECTION_NOT_NEEDED;
            failed == 0
                && each.iter().flatten().all(done)
                && self.topic(topic).partitions[&partition].leader == broker
        });
    }
}

fn address((host, port): &(String, u16)) -> SocketAddr {
    SocketAddr::new(host.parse().expect("brokers of tests have addresses"), *port)
}

fn try_offset(
    leader: SocketAddr,
    topic: &str,
    partition: i32,
    at: i64,
    read_committed: bool,
) -> Option<i64> {
    let body = Body::default().i32(-1).i8(i8::from(read_committed)).i32(1).text(topic);
    let mut answer = call(leader, LIST_OFFSETS, body.i32(1).i32(partition).i64(at)).ok()?;
    answer.i32();
    let answers = answer.list(|topic| {
        topic.text();
        topic.list(|each| (each.i32(), each.i16(), each.i64(), each.i64()))
    });
    let &(_, error, _, offset) = answers.first()?.first()?;
    (error == 0).then_some(offset)
}
