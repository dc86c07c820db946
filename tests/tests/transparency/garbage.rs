//! Clients that send anything: it reaches the broker as it is.

use flowtap_tests::rabbitmq::{BOTH, RabbitMq};
use flowtap_tests::raw::{self, Hello, Raw, method};
use flowtap_tests::relay::Passed;
use rand::Rng;
use rand::rngs::StdRng;

use crate::watched;

/// Bytes of a client that has lost its mind: noise, and frames with a wrong kind, end or content.
fn garbage(chance: &mut StdRng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..chance.random_range(1..6) {
        let mut noise = vec![0; chance.random_range(1..200)];
        chance.fill(noise.as_mut_slice());
        let mut piece = match chance.random_range(0..4) {
            0 => noise,
            1 => raw::frame(chance.random_range(0..10), chance.random_range(0..3), &noise),
            2 => method(1, (chance.random_range(0..100), chance.random_range(0..130)), noise),
            _ => raw::message(1, b"", b"q", chance.random(), (chance.random(), &noise), b"x"),
        };
        if chance.random_bool(0.3) {
            piece.truncate(chance.random_range(0..=piece.len()));
        }
        bytes.extend(piece);
    }
    bytes
}

#[test]
fn garbage_reaches_the_broker_as_it_is_and_the_sidecar_lives_on() {
    let mut chance = flowtap_tests::chance();
    for version in BOTH {
        let Some(broker) = RabbitMq::shared(version) else { continue };
        let watched = watched(broker);
        let port = watched.before.port();
        let hello = Hello::new(watched.vhost.name());
        // All at once: to some of it the broker answers after seconds only.
        std::thread::scope(|threads| {
            for number in 0..60 {
                let (noise, hello) = (garbage(&mut chance), &hello);
                threads.spawn(move || {
                    let mut client = match number % 4 {
                        0 => Raw::silent(port),
                        1 => {
                            let mut client = Raw::silent(port);
                            client.send(b"AMQP\0\0\x09\x01");
                            client
                        }
                        _ => {
                            let mut client = Raw::connect(port, hello);
                            client.open(1);
                            client.queue(1, "q");
                            client
                        }
                    };
                    client.send(&noise);
                    // The broker may wait for the rest of a frame: the client has said all.
                    let _gone = client.stream().shutdown(std::net::Shutdown::Write);
                    let _reset = std::io::copy(client.stream(), &mut std::io::sink());
                });
            }
        });
        Raw::connect(port, &hello).close();
        let (entered, left) = (watched.before.passed(), watched.behind.passed());
        assert_eq!(entered.len(), left.len(), "as many connections to the broker as to the tap");
        let pairs = pair(&entered, &left);
        let unpaired = entered.iter().zip(&pairs).filter(|(_, pair)| pair.is_none());
        let unpaired: Vec<_> = unpaired.map(|(client, _)| client).collect();
        assert!(unpaired.is_empty(), "behind the sidecar is the same connection: {unpaired:?}");
        let both =
            || entered.iter().zip(pairs.iter().map(|pair| &left[pair.expect("all are paired")]));
        let bits: usize =
            both().filter_map(|(client, broker)| bits_of_garbage(client, broker)).sum();
        let whole = both().filter(|(client, broker)| whole(client, broker)).count();
        eprintln!("{whole} of {} whole, {bits} bits set", entered.len());
        assert!(whole > 1, "not only the well-behaved session comes through whole");
    }
}

/// Which connection behind the sidecar is which before it. They begin alike, and a broken one is
/// the beginning of many others: so whole ones first, then those that take others' places until
/// all have one.
fn pair(entered: &[Passed], left: &[Passed]) -> Vec<Option<usize>> {
    let mut taken_by = vec![None; left.len()];
    for (number, client) in entered.iter().enumerate() {
        let same = |&at: &usize| taken_by[at].is_none() && whole(client, &left[at]);
        let found = (0..left.len()).find(same);
        if let Some(at) = found {
            taken_by[at] = Some(number);
        }
    }
    for number in 0..entered.len() {
        if !taken_by.contains(&Some(number)) {
            place(number, entered, left, &mut taken_by, &mut vec![false; left.len()]);
        }
    }
    let at = |number| taken_by.iter().position(|taken| *taken == Some(number));
    (0..entered.len()).map(at).collect()
}

/// Finds a place for one connection, moving others that fit elsewhere (an augmenting path).
fn place(
    number: usize,
    entered: &[Passed],
    left: &[Passed],
    taken_by: &mut [Option<usize>],
    tried: &mut [bool],
) -> bool {
    for at in 0..left.len() {
        if tried[at] || bits_of_garbage(&entered[number], &left[at]).is_none() {
            continue;
        }
        tried[at] = true;
        let free = taken_by[at].is_none_or(|other| place(other, entered, left, taken_by, tried));
        if free {
            taken_by[at] = Some(number);
            return true;
        }
    }
    false
}

/// Whether all that was sent arrived, both ways.
fn whole(client: &Passed, broker: &Passed) -> bool {
    client.up.len() == broker.up.len()
        && client.down == broker.down
        && bits_of_garbage(client, broker).is_some()
}

/// How often the one bit was set, if nothing else differs. A broker that is disgusted resets: what
/// was on its way then reaches nobody.
fn bits_of_garbage(client: &Passed, broker: &Passed) -> Option<usize> {
    if broker.up.len() > client.up.len() || !broker.down.starts_with(&client.down) {
        return None;
    }
    let differs: Vec<_> = client.up.iter().zip(&broker.up).filter(|(a, b)| a != b).collect();
    differs.iter().all(|(sent, got)| **sent | 1 == **got).then_some(differs.len())
}
