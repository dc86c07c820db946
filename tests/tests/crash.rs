//! Agent, broker and store killed at random points under load, disks that stall or are full, a
//! store that is away: whatever was confirmed is recorded, what is not is said by a `gap` of
//! bounded length, no row comes twice and none is missing between two.
//!
//! The seed is printed; `FLOWTAP_SEED` repeats a run, `FLOWTAP_LONG=1` makes more rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use flowtap_tests::disk::StallableDisk;
use flowtap_tests::process::{Folder, Process, run};
use flowtap_tests::rabbitmq::{RabbitMq, Version, Vhost};
use flowtap_tests::raw::{self, Hello, MESSAGE_ID, Raw};
use flowtap_tests::s3::S3Server;
use flowtap_tests::sidecar::{Options, Sidecar};
use flowtap_tests::sql::Store;
use flowtap_tests::{chance, program, wait_until};
use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use rand::Rng;
use rand::seq::SliceRandom;
use serde_json::Value;

/// A second between two time marks in the spool, and half of one for a busy machine.
const MARK: Duration = Duration::from_millis(1500);

fn rounds(short: usize, long: usize) -> usize {
    if flowtap_tests::long() { long } else { short }
}

/// Ids that were confirmed, and when the client knew.
type Confirmed = Arc<Mutex<BTreeMap<String, i64>>>;

fn lock(confirmed: &Confirmed) -> MutexGuard<'_, BTreeMap<String, i64>> {
    confirmed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One round of load: publishes with confirms and consumes until the connection breaks or
/// `enough` were confirmed.
async fn load(url: String, round: usize, enough: usize, confirmed: Confirmed) {
    let properties = ConnectionProperties::default;
    let Ok(connection) = Connection::connect(&url, properties()).await else { return };
    let (Ok(publisher), Ok(consumer)) =
        (connection.create_channel().await, connection.create_channel().await)
    else {
        return;
    };
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let ready = async {
        publisher.queue_declare("q".into(), durable, FieldTable::default()).await?;
        publisher.confirm_select(ConfirmSelectOptions::default()).await?;
        consumer.basic_qos(10, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        consumer.basic_consume("q".into(), "".into(), options, FieldTable::default()).await
    };
    let Ok(mut deliveries) = ready.await else { return };
    let consuming = tokio::spawn(async move {
        while let Some(Ok(delivery)) = deliveries.next().await {
            if delivery.ack(BasicAckOptions::default()).await.is_err() {
                break;
            }
        }
    });
    for number in 0..enough {
        let id = format!("m-{round}-{number}");
        let properties =
            BasicProperties::default().with_message_id(id.as_str().into()).with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let sent = publisher.basic_publish("".into(), "q".into(), options, b"{}", properties).await;
        let Ok(answer) = sent else { break };
        if answer.await.is_err() {
            break;
        }
        lock(&confirmed).insert(id, now());
    }
    // After a break there is nothing to close.
    let _closed = connection.close(200, "".into()).await;
    consuming.await.expect("it does not panic");
}

/// Microseconds since 1970, as rows have them.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("it is later than 1970").as_micros() as i64
}

#[derive(Clone, Copy, Debug)]
enum Victim {
    Agent,
    Broker,
    Store,
    /// Who moves rows into the table and merges its files.
    Ingester,
}

/// Moves what is uploaded into the table, in a hurry.
fn ingester(store: &str, env: &[(String, String)], folder: &Folder) -> Process {
    let mut command = Command::new(program("flowtap"));
    command
        .args(["ingest", "--store", store, "--every", "200ms", "--grace", "1s"])
        .envs(env.iter().cloned());
    Process::start("ingester", &mut command, &folder.path().join("ingester.log"))
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_what_was_confirmed_is_recorded_or_within_a_short_gap() {
    let Some(server) = S3Server::start() else { return };
    let Some(broker) = RabbitMq::start(Version::V3_10) else { return };
    let vhost = broker.vhost();
    let mut options = Options::new("shop", broker.port(), server.url("crash"));
    options.env = server.env();
    options.tables.push("[upload]\nage = \"500ms\"".to_owned());
    let mut shop = Sidecar::start(&options);
    let folder = Folder::new("ingester");
    let mut moving = ingester(&options.store, &options.env, &folder);
    let mut chance = chance();
    let mut told = BTreeMap::new();
    let mut victims = Vec::new();
    let mut agent_kills = 0;
    let mut longest_away = Duration::ZERO;
    for round in 0..rounds(10, 200) {
        // Each once in every four rounds, in any order.
        if victims.is_empty() {
            victims.extend([Victim::Agent, Victim::Broker, Victim::Store, Victim::Ingester]);
            victims.shuffle(&mut chance);
        }
        let victim = victims.pop().expect("there are four");
        let goes_on = matches!(victim, Victim::Store | Victim::Ingester);
        let enough = if goes_on { 300 } else { usize::MAX };
        let confirmed = Confirmed::default();
        let mut working =
            tokio::spawn(load(vhost.url(shop.port()), round, enough, confirmed.clone()));
        // Not a wait for something: the point of the kill is what chance decides.
        tokio::time::sleep(Duration::from_millis(chance.random_range(1..1500))).await;
        let killed = Instant::now();
        match victim {
            Victim::Agent => shop.kill9(),
            Victim::Broker => broker.kill9(),
            Victim::Store => server.kill9(),
            Victim::Ingester => moving.kill9(),
        }
        // A client whose connection breaks at an unlucky moment may wait for ever for nobody.
        match tokio::time::timeout(flowtap_tests::PATIENCE, &mut working).await {
            Ok(ended) => ended.expect("it does not panic"),
            Err(_) => working.abort(),
        }
        let confirmed = std::mem::take(&mut *lock(&confirmed));
        eprintln!("round {round}: {victim:?} killed, {} confirmed", confirmed.len());
        told.extend(confirmed);
        match victim {
            Victim::Agent => {
                shop.restart();
                longest_away = longest_away.max(killed.elapsed());
                agent_kills += 1;
            }
            Victim::Broker => broker.restart(),
            Victim::Store => server.restart(),
            Victim::Ingester => moving = ingester(&options.store, &options.env, &folder),
        }
    }
    shop.terminate();
    moving.terminate();
    // What it left is taken whole, and nothing waits for what will never come.
    let mut rest = Command::new(program("flowtap"));
    rest.args(["ingest", "--store", &options.store, "--once"]).envs(options.env.iter().cloned());
    let rest = run(&mut rest);
    assert!(rest.contains(" 0 quarantined, 0 waiting "), "{rest}");
    eprintln!("{rest}");

    let store = Store::with_env(server.url("crash"), server.env());
    store.assert_no_hole();
    assert!(!told.is_empty(), "something was confirmed");
    let gaps = store.sql(
        "SELECT reason, CAST(gap_from AS BIGINT) AS begun, CAST(gap_to AS BIGINT) AS ended FROM gaps",
    );
    let times = |gap: &Value| {
        let time = |name| gap[name].as_i64().expect("it has both its ends");
        time("begun")..=time("ended")
    };
    // A confirm is relayed after the publish is written, or 20 ms later: then it is in the gap.
    let rows = store.sql("SELECT event_id FROM history WHERE kind = 'publish'");
    let recorded: BTreeSet<_> = rows.iter().filter_map(|row| row["event_id"].as_str()).collect();
    let missing: Vec<_> = told.iter().filter(|(id, _)| !recorded.contains(id.as_str())).collect();
    eprintln!("{} confirmed, {} of them within a gap", told.len(), missing.len());
    for (id, at) in missing {
        let blind = gaps.iter().any(|gap| times(gap).contains(at));
        assert!(blind, "{id} was confirmed at {at}, is not recorded, and no gap says so: {gaps:?}");
    }
    assert_eq!(gaps.len(), agent_kills, "{gaps:?}");
    let at_most = (longest_away + MARK).as_micros() as i64;
    for gap in &gaps {
        assert_eq!(gap["reason"], "agent_died");
        let length = times(gap).end() - times(gap).start();
        assert!((0..=at_most).contains(&length), "{gap}: more than {at_most} us");
    }
    // No delivery has two ends, and only those of a dead boot have none.
    let ends = store.sql(
        "SELECT outcome, reason, count(*) AS n FROM consumes \
         WHERE outcome IS NULL OR outcome NOT IN ('acked', 'abandoned') GROUP BY outcome, reason",
    );
    for end in &ends {
        assert_eq!((&end["outcome"], &end["reason"]), (&"unknown".into(), &"agent_died".into()));
    }
}

/// A vhost, a store in a folder, and a spool on a small disk of its own.
struct Small<'a> {
    vhost: Vhost<'a>,
    folder: Folder,
    disk: StallableDisk,
    options: Options,
}

fn small(memory: &str) -> Option<Small<'static>> {
    let broker = RabbitMq::shared(Version::V3_10)?;
    let disk = StallableDisk::new(32)?;
    let folder = Folder::new("store");
    let mut options = Options::new("shop", broker.port(), folder.url());
    options.spool = Some(disk.path().join("spool"));
    options.env.push(("FLOWTAP_SPOOL_MEMORY".to_owned(), memory.to_owned()));
    Some(Small { vhost: broker.vhost(), folder, disk, options })
}

/// A client in confirm mode with a queue `q`.
fn confirming(sidecar: &Sidecar, vhost: &Vhost<'_>) -> Raw {
    let mut client = Raw::connect(sidecar.port(), &Hello::new(vhost.name()));
    client.open(1);
    client.queue(1, "q");
    client.confirms(1);
    client
}

fn publish(client: &mut Raw, number: usize) {
    let id = raw::Args::new().short(format!("m-{number}"));
    client.send(&raw::message(1, b"", b"q", 0, (MESSAGE_ID, id.as_ref()), b"{}"));
}

/// Each is published only after the one before was confirmed.
fn round_trips(client: &mut Raw, numbers: std::ops::Range<usize>) {
    for number in numbers {
        publish(client, number);
        client.until((60, 80));
    }
}

fn metric(sidecar: &Sidecar, name: &str) -> i64 {
    let metrics = sidecar.metrics();
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as i64
}

/// What the taps saw is in the store, or counted in a gap. Call it once the sidecar has ended;
/// `seen` is what its metrics said before.
fn assert_nothing_is_missed_unsaid(store: &Store, seen: i64) {
    let rows = store.number("SELECT count(*) FROM history WHERE kind <> 'gap'");
    let shed = store.number("SELECT coalesce(sum(gap_count), 0) FROM gaps WHERE reason = 'shed'");
    assert_eq!(rows + shed, seen, "{rows} rows and {shed} counted as shed");
}

#[test]
fn a_stalled_disk_holds_no_frame_and_every_row_is_there_afterwards() {
    let Some(small) = small("16MiB") else { return };
    let mut shop = Sidecar::start(&small.options);
    let mut client = confirming(&shop, &small.vhost);
    round_trips(&mut client, 0..10);
    small.disk.stall();
    let count = rounds(200, 2000);
    let begun = Instant::now();
    round_trips(&mut client, 10..10 + count);
    let took = begun.elapsed();
    // Not a measure of speed: a confirm that waited for the disk would wait for ever. Each may be
    // held for 20 ms, and the machine is busy.
    let at_most = Duration::from_millis(20) * count as u32 * 2 + Duration::from_secs(10);
    assert!(took < at_most, "{count} round trips took {took:?}");
    assert!(metric(&shop, "flowtap_agent_held_timeouts_total") > 0, "they were held, and let go");
    small.disk.recover();
    client.close();
    wait_until("the connection has ended", || metric(&shop, "flowtap_agent_open_connections") == 0);
    let seen = metric(&shop, "flowtap_agent_rows_total");
    shop.terminate();
    let store = Store::new(small.folder.url());
    assert_nothing_is_missed_unsaid(&store, seen);
    store.assert_no_hole();
    let confirmed = "SELECT count(*) FROM publishes WHERE outcome = 'confirmed'";
    assert_eq!(store.number(confirmed), 10 + count as i64);
}

#[test]
fn what_a_stalled_disk_leaves_no_memory_for_is_counted_in_a_gap() {
    let Some(small) = small("64KiB") else { return };
    let shop = Sidecar::start(&small.options);
    let mut client = confirming(&shop, &small.vhost);
    small.disk.stall();
    let count = 1500;
    for number in 0..count {
        publish(&mut client, number);
    }
    client.fence(1);
    wait_until("rows are shed", || metric(&shop, "flowtap_agent_rows_shed_total") > 0);
    small.disk.recover();
    round_trips_after(&mut client, count);
    assert_the_rest_is_in_a_gap(shop, client, &small.folder);
}

/// Rows were shed, and those and the rows in the store are all that the taps saw.
fn assert_the_rest_is_in_a_gap(mut shop: Sidecar, mut client: Raw, store: &Folder) {
    client.close();
    wait_until("the connection has ended", || metric(&shop, "flowtap_agent_open_connections") == 0);
    let seen = metric(&shop, "flowtap_agent_rows_total");
    shop.terminate();
    let store = Store::new(store.url());
    let shed = store.number("SELECT sum(gap_count) FROM gaps WHERE reason = 'shed'");
    assert!(shed > 0, "something was shed");
    assert_nothing_is_missed_unsaid(&store, seen);
    store.assert_no_hole();
}

/// Further messages, after which everything before is answered, too.
fn round_trips_after(client: &mut Raw, first: usize) {
    for number in first..first + 20 {
        publish(client, number);
        client.fence(1);
    }
}

#[test]
fn what_a_full_disk_does_not_take_is_counted_in_a_gap() {
    let Some(small) = small("64KiB") else { return };
    let shop = Sidecar::start(&small.options);
    let mut client = confirming(&shop, &small.vhost);
    round_trips(&mut client, 0..20);
    // Takes all that is left.
    let filler = small.disk.path().join("filler");
    let mut file = std::fs::File::create(&filler).expect("the disk is there");
    let block = vec![0; 65_536];
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
    while std::io::Write::write_all(&mut file, &[0]).is_ok() {}
    drop(file);
    let count = 3000;
    for number in 20..count {
        publish(&mut client, number);
    }
    client.fence(1);
    wait_until("rows are shed", || metric(&shop, "flowtap_agent_rows_shed_total") > 0);
    std::fs::remove_file(filler).expect("it is ours");
    wait_until("the disk takes rows again", || {
        round_trips_after(&mut client, count);
        let shed = metric(&shop, "flowtap_agent_rows_shed_total");
        round_trips_after(&mut client, count);
        metric(&shop, "flowtap_agent_rows_shed_total") == shed
    });
    assert_the_rest_is_in_a_gap(shop, client, &small.folder);
}

#[test]
fn a_store_that_is_away_is_filled_when_it_is_back() {
    let Some(server) = S3Server::start() else { return };
    let Some(broker) = RabbitMq::shared(Version::V3_10) else { return };
    let vhost = broker.vhost();
    // It is away when the agent starts, too: that is a warning and no reason not to forward.
    server.kill9();
    let mut options = Options::new("shop", broker.port(), server.url("away"));
    options.env = server.env();
    options.tables.push("[upload]\nage = \"200ms\"".to_owned());
    let mut shop = Sidecar::start(&options);
    let mut client = confirming(&shop, &vhost);
    let count = rounds(300, 3000);
    round_trips(&mut client, 0..count);
    wait_until("an upload has failed", || metric(&shop, "flowtap_agent_upload_failures_total") > 0);
    server.restart();
    client.close();
    wait_until("everything is uploaded", || {
        metric(&shop, "flowtap_agent_uploads_total") > 0
            && metric(&shop, "flowtap_agent_spool_segments") <= 1
    });
    shop.terminate();
    let store = Store::with_env(server.url("away"), server.env());
    let confirmed = "SELECT count(*) FROM publishes WHERE outcome = 'confirmed'";
    assert_eq!(store.number(confirmed), count as i64);
    store.assert_no_hole();
}
