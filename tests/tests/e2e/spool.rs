//! The spool of a whole agent at its limits: full while the store is away, torn and corrupt after a
//! kill, and how it empties beside traffic when the store is back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use flowtap_tests::rabbitmq::{RabbitMq, Version};
use flowtap_tests::s3::S3Server;
use flowtap_tests::s3meter::{self, Delays, Meter};
use flowtap_tests::sidecar::{Options, Sidecar};
use flowtap_tests::sql::Store;
use flowtap_tests::wait_until;
use rand::RngCore;
use serde_json::Value;

use crate::support::{caught_up, confirming, metric, publish};

/// All files of a spool.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the spool is a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn segments(sidecar: &Sidecar) -> Vec<PathBuf> {
    let mut found = files(&sidecar.folder().join("spool/boots"));
    found.retain(|path| path.extension().is_some_and(|kind| kind == "seg"));
    found.sort();
    found
}

fn size(path: &PathBuf) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

#[test]
fn a_full_spool_stays_in_its_bounds_and_counts_exactly_what_it_shed() {
    let Some(server) = S3Server::start() else { return };
    let Some(broker) = RabbitMq::shared(Version::V3_10) else { return };
    let vhost = broker.vhost();
    let mut options = Options::new("shop", broker.port(), server.url("full"));
    options.env = server.env();
    options.env.push(("FLOWTAP_SPOOL_MAX_SIZE".to_owned(), "256KiB".to_owned()));
    options.env.push(("FLOWTAP_SPOOL_MEMORY".to_owned(), "64KiB".to_owned()));
    options.tables.push("[upload]\nage = \"200ms\"\nstatus = \"1s\"".to_owned());
    let mut shop = Sidecar::start(&options);
    let mut client = confirming(&shop, &vhost);
    server.kill9();
    let shed = |shop: &Sidecar| metric(shop, "flowtap_agent_rows_shed_total");
    let mut count = 0;
    let mut some_more = |count: &mut usize| {
        for _ in 0..100 {
            publish(&mut client, *count, b"{}");
            *count += 1;
        }
        caught_up(&mut client);
    };
    while shed(&shop) < 500 {
        some_more(&mut count);
        assert!(count < 20_000, "nothing is shed");
        let taken: u64 = segments(&shop).iter().map(size).sum();
        // The bound is for rows; each segment ends with a frame of its own.
        assert!(taken <= 256 * 1024 + 1024, "{taken} bytes on disk");
    }
    server.restart();
    wait_until("rows are taken again", || {
        let before = shed(&shop);
        some_more(&mut count);
        metric(&shop, "flowtap_agent_spool_segments") <= 1 && shed(&shop) == before
    });
    client.close();
    wait_until("the connection has ended", || metric(&shop, "flowtap_agent_open_connections") == 0);
    let (seen, shed) = (metric(&shop, "flowtap_agent_rows_total"), shed(&shop));
    shop.terminate();

    let store = Store::with_env(server.url("full"), server.env());
    let gaps = store.sql("SELECT reason, gap_count, details FROM gaps");
    assert!(gaps.iter().all(|gap| gap["reason"] == "shed"), "{gaps:?}");
    let said: i64 = gaps.iter().filter_map(|gap| gap["gap_count"].as_i64()).sum();
    assert_eq!(said, shed, "{gaps:?}");
    let limit = |gap: &Value| gap["details"].as_str().is_some_and(|it| it.contains("\"disk\":"));
    assert!(gaps.iter().any(limit), "{gaps:?}");
    let rows = store.number("SELECT count(*) FROM history WHERE kind <> 'gap'");
    assert_eq!(rows + shed, seen, "what is not there is what was shed");
    store.assert_no_hole();
}

#[test]
fn a_spool_torn_and_corrupt_loses_what_its_gaps_name_and_nothing_else() {
    let Some(server) = S3Server::start() else { return };
    let Some(broker) = RabbitMq::shared(Version::V3_10) else { return };
    let vhost = broker.vhost();
    let mut options = Options::new("shop", broker.port(), server.url("torn"));
    options.env = server.env();
    options.tables.push("[upload]\nage = \"1h\"".to_owned());
    let mut shop = Sidecar::start(&options);
    let mut client = confirming(&shop, &vhost);
    let count = 300;
    for number in 0..count {
        // Each waits for its confirm, and that for its rows to be written: many small frames.
        publish(&mut client, number, b"{}");
        client.until((60, 80));
    }
    shop.kill9();
    let [segment] = &segments(&shop)[..] else { panic!("one segment: {:?}", segments(&shop)) };
    let mut bytes = std::fs::read(segment).expect("our own folder");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    // As a power cut leaves it: half of the last frame.
    bytes.truncate(bytes.len() - 7);
    std::fs::write(segment, bytes).expect("our own folder");
    shop.restart();
    // Before it ends: a spool that is closed takes no gap row any more, and the next boot says it.
    wait_until("what is left of the dead boot is put", || {
        metric(&shop, "flowtap_agent_uploads_total") > 0
    });
    shop.terminate();

    let store = Store::with_env(server.url("torn"), server.env());
    store.assert_no_hole();
    let gaps = store.sql(
        "SELECT reason, gap_count, ref_boot, ref_seq, json_get(details, '/boot') AS of, \
         json_get(details, '/first_seq') AS first, json_get(details, '/last_seq') AS last \
         FROM history WHERE kind = 'gap'",
    );
    let gap = |reason: &str| {
        let found: Vec<_> = gaps.iter().filter(|gap| gap["reason"] == reason).collect();
        let [gap] = found[..] else { panic!("one {reason}: {gaps:?}") };
        gap.clone()
    };
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    let (died, corrupt) = (gap("agent_died"), gap("spool_corrupt"));
    assert_eq!(died["ref_boot"], corrupt["of"]);
    let number =
        |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok()).expect("a number");
    let lost = number(&corrupt["first"])..=number(&corrupt["last"]);
    assert_eq!(number(&corrupt["gap_count"]), lost.end() - lost.start() + 1);
    let boot = died["ref_boot"].as_str().expect("it names the dead boot");
    let rows = store.sql(&format!("SELECT seq FROM history WHERE boot = '{boot}'"));
    let there: BTreeSet<i64> = rows.iter().map(|row| number(&row["seq"])).collect();
    let last = number(&died["ref_seq"]);
    let missing: Vec<i64> = (1..=last).filter(|seq| !there.contains(seq)).collect();
    assert_eq!(missing, lost.collect::<Vec<_>>());
    assert_eq!(there.last(), Some(&last));
    // A frame in the middle and one at the end; nearly all is there.
    assert!(there.len() > 2 * count * 9 / 10, "{} rows", there.len());
}

/// By how much the threads of a process with this name give way to others.
fn niceness(pid: u32, thread: &str) -> Vec<i64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    let stats =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
    stats
        .filter_map(|stat| {
            let (before, after) = stat.rsplit_once(')')?;
            let named = before.split_once('(').is_some_and(|(_, name)| name == thread);
            // The 19th field of all; the first two stand before.
            named.then(|| after.split_whitespace().nth(16)?.parse().ok()).flatten()
        })
        .collect()
}

#[test]
fn a_backlog_goes_object_by_object_behind_the_traffic() {
    let Some(server) = S3Server::start() else { return };
    let Some(broker) = RabbitMq::shared(Version::V3_10) else { return };
    let vhost = broker.vhost();
    let meter = Meter::start(server.port(), Some(Delays::realistic()));
    server.kill9();
    let mut options = Options::new("shop", broker.port(), server.url("backlog"));
    options.env = server.env_through(meter.port());
    options.env.push(("FLOWTAP_SPOOL_MAX_SIZE".to_owned(), "16MiB".to_owned()));
    options.tables.push("[upload]\nage = \"200ms\"\nstatus = \"1s\"".to_owned());
    options.tables.push("[record]\npayload = \"all\"".to_owned());
    let mut shop = Sidecar::start(&options);
    let mut client = confirming(&shop, &vhost);
    let mut count = 0;
    let mut body = vec![0; 60_000];
    // While the store is away the open segment grows to a quarter of what the spool may take.
    while metric(&shop, "flowtap_agent_spool_segments") < 3 {
        for _ in 0..10 {
            rand::rng().fill_bytes(&mut body);
            publish(&mut client, count, &body);
            count += 1;
        }
        caught_up(&mut client);
    }
    assert_eq!(niceness(shop.pid(), "uploader"), [10]);
    server.restart();
    // Traffic goes on, each message after the one before was confirmed.
    wait_until("the backlog is gone", || {
        publish(&mut client, count, b"{}");
        client.until((60, 80));
        client.transcript.clear();
        count += 1;
        metric(&shop, "flowtap_agent_spool_segments") <= 1
            && meter.count("PUT", "backlog/inbox/") >= 3
    });
    client.close();
    shop.terminate();
    let requests = meter.requests();
    let inbox = s3meter::of(&requests, "PUT", "backlog/inbox/");
    assert_eq!(s3meter::most_at_once(inbox), 1, "one object after the other");
    let store = Store::with_env(server.url("backlog"), server.env());
    assert_eq!(store.number("SELECT count(*) FROM publishes"), count as i64);
    assert_eq!(store.number("SELECT count(*) FROM gaps"), 0);
    store.assert_no_hole();
}
