//! Words for people: times, places, the line about coverage.

use flowtap_record::{DAY_US, Micros};

use super::assemble::{Flow, Message};
use super::coverage::Coverage;
use super::row::Row;

/// A time of day in UTC with milliseconds; with the date where that is not the day of `now`.
pub fn clock(at: Micros, now: Micros) -> String {
    let text = at.to_string();
    let Some((date, time)) = text.split_once('T') else { return text };
    let time = time.get(..12).unwrap_or(time);
    if at.0.div_euclid(DAY_US) == now.0.div_euclid(DAY_US) {
        time.to_owned()
    } else {
        format!("{date} {time}")
    }
}

/// A time to the second.
pub(super) fn seconds(at: Micros, now: Micros) -> String {
    let text = clock(at, now);
    text.rsplit_once('.').map_or(text.clone(), |(text, _)| text.to_owned())
}

/// "complete to 12:04:31 for 6 of 6 sidecars".
pub fn coverage_sentence(coverage: &Coverage, now: Micros) -> String {
    let (live, total) = coverage.counts();
    let sidecars = if total == 1 { "sidecar" } else { "sidecars" };
    match coverage.complete_to() {
        None => "no sidecar has reported yet".to_owned(),
        Some(to) if live == 0 => {
            format!("nothing is seen since {}: 0 of {total} {sidecars} are live", seconds(to, now))
        }
        Some(to) => format!("complete to {} for {live} of {total} {sidecars}", seconds(to, now)),
    }
}

/// "rejected it after 35 ms".
pub(super) fn took(micros: i64) -> String {
    match micros {
        ..1_000 => format!("{micros} us"),
        1_000..10_000_000 => format!("{} ms", (micros + 500) / 1000),
        10_000_000..600_000_000 => format!("{:.1} s", micros as f64 / 1e6),
        _ => format!("{} min", micros / 60_000_000),
    }
}

/// A message by its type, else by its id.
pub(super) fn message(message: &Message) -> String {
    match (&message.event_type, &message.event_id) {
        (Some(event_type), _) => event_type.clone(),
        (None, Some(event_id)) => format!("message {event_id}"),
        (None, None) => "a message".to_owned(),
    }
}

/// "exchange orders, key order.placed"; the default exchange sends to the queue of its key.
pub(super) fn exchange(name: &str, key: &str) -> String {
    match (name, key) {
        ("", key) => format!("queue {key}"),
        (name, "") => format!("exchange {name}"),
        (name, key) => format!("exchange {name}, key {key}"),
    }
}

/// Where a message was published: "exchange orders, key order.placed", or
/// "topic cars, partition 1, offset 57".
pub(super) fn destination(row: &Row) -> String {
    let name = row.destination.as_deref().unwrap_or_default();
    if !row.is_kafka() {
        return exchange(name, row.routing_key.as_deref().unwrap_or_default());
    }
    let part = |word: &str, number: Option<i64>| {
        number.map(|number| format!(", {word} {number}")).unwrap_or_default()
    };
    let partition = part("partition", row.partition.map(i64::from));
    format!("topic {name}{partition}{}", part("offset", row.log_offset))
}

/// Where a message came out: "queue factory.orders", or "topic cars, partition 1, offset 57 in
/// group showroom".
pub(super) fn source(row: &Row) -> String {
    let subscription = row.subscription.as_deref().unwrap_or_default();
    match (row.is_kafka(), &row.subscription) {
        (false, _) => format!("queue {subscription}"),
        (true, None) => destination(row),
        (true, Some(group)) => format!("{} in group {group}", destination(row)),
    }
}

/// Where a message waits: "queue factory.orders", or "topic cars, group showroom".
pub(super) fn subscription(topic: &str, group: &str) -> String {
    format!("topic {topic}, group {group}")
}

/// The way to a message: `PlaceOrder -> ... -> PaymentTaken`.
pub fn path(flow: &Flow, message: Option<usize>) -> Option<String> {
    let end = message?;
    let mut steps = vec![end];
    let mut at = end;
    while let Some(edge) = flow.edges.iter().find(|edge| edge.to == at) {
        if steps.contains(&edge.from) {
            break;
        }
        at = edge.from;
        steps.push(at);
    }
    let mut names: Vec<String> =
        steps.iter().rev().filter_map(|&step| flow.messages[step].event_type.clone()).collect();
    if let Some(command) = flow.messages[at].command.clone()
        && names.first() != Some(&command)
    {
        names.insert(0, command);
    }
    match names.as_slice() {
        [] => None,
        [.., last] if names.len() > 3 => Some(format!("{} -> ... -> {last}", names[0])),
        _ => Some(names.join(" -> ")),
    }
}
