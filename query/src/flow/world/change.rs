//! What is there from when to when, and which keys a binding takes.

use flowtap_record::Micros;

/// So many deletions and purges of one queue or exchange are kept, the newest.
const MANY_ENDS: usize = 64;

/// From `at` on it is there, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) at: Micros,
    pub(super) there: bool,
}

/// Keeps the newest of what happened, in order.
pub(super) fn keep_newest<T: Ord>(all: &mut Vec<T>, one: T) {
    let index = all.partition_point(|known| *known <= one);
    all.insert(index, one);
    if all.len() > MANY_ENDS {
        all.remove(0);
    }
}

/// Keeps what changed, by time. Of what is said again and again the first and the last time are
/// kept: what is learned later may lie between them.
pub(super) fn note(changes: &mut Vec<Change>, change: Change) {
    let index = changes.partition_point(|known| known.at <= change.at);
    changes.insert(index, change);
    let same = |index: usize| changes.get(index).is_some_and(|it| it.there == change.there);
    let from = (0..index).rev().take_while(|&it| same(it)).last().unwrap_or(index);
    let to = (index..changes.len()).take_while(|&it| same(it)).last().unwrap_or(index);
    if to > from + 1 {
        changes.drain(from + 1..to);
    }
}

pub(super) fn there(changes: &[Change], at: Micros) -> bool {
    changes.iter().rev().find(|change| change.at <= at).is_some_and(|change| change.there)
}

/// Whether a binding key takes a routing key. Of an exchange of unknown type, and of types that
/// look at headers, only the same key is sure.
pub(super) fn matches(kind: Option<&str>, pattern: &str, key: &str) -> bool {
    match kind {
        Some("fanout") => true,
        Some("topic") => topic(&words(pattern), &words(key)),
        _ => pattern == key,
    }
}

fn words(key: &str) -> Vec<&str> {
    if key.is_empty() { Vec::new() } else { key.split('.').collect() }
}

/// AMQP 0-9-1, 3.1.3.3: `*` is one word, `#` any number of them.
fn topic(pattern: &[&str], key: &[&str]) -> bool {
    match pattern.split_first() {
        None => key.is_empty(),
        Some((&"#", rest)) => (0..=key.len()).any(|skip| topic(rest, &key[skip..])),
        Some((&word, rest)) => match key.split_first() {
            Some((&first, others)) => (word == "*" || word == first) && topic(rest, others),
            None => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_patterns_take_what_the_specification_says() {
        for (pattern, key, want) in [
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.c", false),
            ("#", "", true),
            ("a.#", "a", true),
            ("a.#", "a.b.c", true),
            ("#.c", "a.b.c", true),
            ("a.#.c", "a.c", true),
            ("*", "a.b", false),
        ] {
            assert_eq!(topic(&words(pattern), &words(key)), want, "{pattern} {key}");
        }
    }

    #[test]
    fn changes_are_kept_in_time_whatever_order_they_come_in() {
        let mut changes = Vec::new();
        let change = |at, there| Change { at: Micros(at), there };
        for (at, is) in [(5, true), (3, true), (9, false), (7, true), (8, false)] {
            note(&mut changes, change(at, is));
        }
        assert!(!there(&changes, Micros(2)));
        assert!(there(&changes, Micros(4)));
        assert!(there(&changes, Micros(7)));
        assert!(!there(&changes, Micros(8)));
    }
}
