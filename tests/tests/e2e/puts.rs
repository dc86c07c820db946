//! What an agent asks of its store, counted before a real S3 server: each put costs money there.

use std::time::{Duration, Instant};

use flowtap_tests::rabbitmq::{RabbitMq, Version, Vhost};
use flowtap_tests::raw::Raw;
use flowtap_tests::s3::S3Server;
use flowtap_tests::s3meter::{self, Meter, Request};
use flowtap_tests::sidecar::{Options, Sidecar};
use flowtap_tests::sql::Store;
use flowtap_tests::wait_until;
use rand::RngCore;

use crate::support::{caught_up, confirming, metric, publish};

/// A sidecar whose store lies behind a meter.
struct Metered<'a> {
    server: S3Server,
    meter: Meter,
    vhost: Vhost<'a>,
    shop: Sidecar,
}

/// `None`: this machine hasn't got the servers.
fn metered(tables: &[&str]) -> Option<Metered<'static>> {
    metered_with(tables, &[])
}

fn metered_with(tables: &[&str], env: &[(&str, &str)]) -> Option<Metered<'static>> {
    let server = S3Server::start()?;
    let broker = RabbitMq::shared(Version::V3_10)?;
    let meter = Meter::start(server.port(), None);
    let mut options = Options::new("shop", broker.port(), server.url("m"));
    options.env = server.env_through(meter.port());
    options.env.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    options.tables = tables.iter().map(|table| (*table).to_owned()).collect();
    let shop = Sidecar::start(&options);
    Some(Metered { server, meter, vhost: broker.vhost(), shop })
}

impl Metered<'_> {
    fn client(&self) -> Raw {
        confirming(&self.shop, &self.vhost)
    }

    fn inbox(&self) -> usize {
        self.meter.count("PUT", "m/inbox/")
    }

    fn statuses(&self) -> usize {
        self.meter.count("PUT", "m/agents/")
    }

    fn store(&self) -> Store {
        Store::with_env(self.server.url("m"), self.server.env())
    }

    fn metric(&self, name: &str) -> i64 {
        metric(&self.shop, name)
    }
}

/// How often something of this period comes in a time, at most: once more at its beginning.
fn at_most(elapsed: Duration, period: Duration) -> usize {
    (elapsed.as_secs_f64() / period.as_secs_f64()).floor() as usize + 1
}

#[test]
fn an_idle_agent_puts_nothing_but_its_status_object() {
    let Some(mut idle) = metered(&["[upload]\nage = \"100ms\"\nstatus = \"500ms\""]) else {
        return;
    };
    // A service that is connected and says nothing is idle, too, once its session is recorded.
    let mut client = idle.client();
    wait_until("the session is uploaded", || {
        let recorded = idle.metric("flowtap_agent_rows_total");
        recorded > 0 && idle.metric("flowtap_agent_upload_rows_total") == recorded
    });
    let reset = Instant::now();
    idle.meter.reset();
    wait_until("four more status objects are put", || idle.statuses() >= 4);
    let (requests, elapsed) = (idle.meter.requests(), reset.elapsed());
    let puts: Vec<&Request> = requests.iter().filter(|request| request.verb == "PUT").collect();
    assert!(puts.iter().all(|put| put.key == puts[0].key), "{puts:?}");
    assert!(puts[0].key.starts_with("m/agents/shop-"), "{puts:?}");
    assert!(puts.len() <= at_most(elapsed, Duration::from_millis(500)), "{puts:?} in {elapsed:?}");
    // What it asks besides is when the store took the one before; it lists nothing.
    let others: Vec<_> = requests.iter().filter(|request| request.verb != "PUT").collect();
    assert!(others.iter().all(|it| it.verb == "HEAD" && it.key == puts[0].key), "{others:?}");
    assert!(others.len() <= puts.len(), "{others:?}");
    client.close();
    idle.shop.terminate();
}

#[test]
fn under_traffic_an_object_is_put_as_often_as_its_age_says() {
    let age = Duration::from_secs(1);
    let status = Duration::from_secs(2);
    let Some(mut busy) = metered(&["[upload]\nage = \"1s\"\nstatus = \"2s\""]) else { return };
    let begun = Instant::now();
    busy.meter.reset();
    let mut client = busy.client();
    let mut count = 0;
    while busy.inbox() < 3 {
        assert!(begun.elapsed() < flowtap_tests::PATIENCE, "no object is put");
        for _ in 0..10 {
            publish(&mut client, count, b"{}");
            count += 1;
        }
        caught_up(&mut client);
        std::thread::sleep(Duration::from_millis(5));
    }
    let (inbox, statuses, elapsed) = (busy.inbox(), busy.statuses(), begun.elapsed());
    assert!(inbox <= at_most(elapsed, age), "{inbox} in {elapsed:?}");
    // One was put at the start, before the count, or just after.
    assert!(statuses <= at_most(elapsed, status) + 1, "{statuses} in {elapsed:?}");
    client.close();
    busy.shop.terminate();
    let store = busy.store();
    assert_eq!(store.number("SELECT count(*) FROM publishes"), count as i64);
    store.assert_no_hole();
}

#[test]
fn where_rows_come_fast_objects_have_the_size_that_was_asked_for() {
    let tables =
        ["[upload]\nage = \"1h\"\nstatus = \"1h\"\nsize = \"4MiB\"", "[record]\npayload = \"all\""];
    // A segment takes a quarter of the spool at most: here 8 MiB, else 32 MiB.
    let Some(mut busy) = metered_with(&tables, &[("FLOWTAP_SPOOL_MAX_SIZE", "32MiB")]) else {
        return;
    };
    let mut client = busy.client();
    // Chance does not compress: what goes into the spool comes out as large.
    let mut body = vec![0; 60_000];
    let mut count = 0;
    let mut one_more = || {
        rand::rng().fill_bytes(&mut body);
        publish(&mut client, count, &body);
        caught_up(&mut client);
        count += 1;
        count
    };
    // The first object is made of a whole segment; once it is put it is known how much makes 4 MiB.
    while one_more() < 150 {}
    wait_until("the first object is put", || busy.inbox() > 0);
    while busy.inbox() < 4 {
        assert!(one_more() < 500, "30 MB are recorded, and no four objects are put");
    }
    let requests = busy.meter.requests();
    let sizes: Vec<_> = s3meter::of(&requests, "PUT", "m/inbox/").map(|put| put.bytes_in).collect();
    assert!((7 << 20..9 << 20).contains(&sizes[0]), "{sizes:?}");
    assert!(sizes[1..].iter().all(|size| (3 << 20..5 << 20).contains(size)), "{sizes:?}");
    client.close();
    busy.shop.terminate();
    busy.store().assert_no_hole();
}

/// Two million rows at the rate at which the number of puts is promised, with the defaults for S3.
#[test]
#[ignore = "long: make test-long"]
fn a_million_rows_at_5000_a_second_cost_24_puts_at_most() {
    const ROWS: i64 = 2_000_000;
    const RATE: f64 = 5000.0;
    let Some(mut busy) = metered(&[]) else { return };
    let mut client = busy.client();
    let begin = |busy: &Metered<'_>| busy.metric("flowtap_agent_rows_total");
    let (first, begun) = (begin(&busy), Instant::now());
    busy.meter.reset();
    let mut count = 0;
    // A publish and its confirm are two rows.
    while (count as i64) < ROWS / 2 {
        let due = (begun.elapsed().as_secs_f64() * RATE / 2.0) as usize;
        while count < due {
            publish(&mut client, count, b"{\"order_id\":\"a\"}");
            count += 1;
        }
        caught_up(&mut client);
        std::thread::sleep(Duration::from_millis(20));
    }
    let elapsed = begun.elapsed();
    wait_until("every confirm is recorded", || begin(&busy) - first >= ROWS);
    let requests = busy.meter.requests();
    let rate = ROWS as f64 / elapsed.as_secs_f64();
    // The count depends on the rate: on a machine that is too slow it would say nothing.
    assert!(rate > RATE * 0.98, "{rate} rows a second");
    let puts = s3meter::of(&requests, "PUT", "m/").count();
    let inbox: Vec<_> = s3meter::of(&requests, "PUT", "m/inbox/").collect();
    let bytes: u64 = inbox.iter().map(|put| put.bytes_in).sum();
    eprintln!(
        "{ROWS} rows at {rate:.0} a second: {puts} puts, {} of them inbox objects of {} kB on average, {:.1} bytes a row",
        inbox.len(),
        bytes / 1000 / inbox.len() as u64,
        bytes as f64 / ROWS as f64,
    );
    assert!(puts as f64 <= 24.0 * ROWS as f64 / 1e6, "{puts} puts");
    client.close();
    busy.shop.terminate();
    busy.store().assert_no_hole();
}
