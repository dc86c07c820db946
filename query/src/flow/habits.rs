//! What usually follows: in how many like handlings a service published something. This tells
//! `healthy` from `running`, and nothing more: a habit never accuses anybody.

use std::collections::HashMap;

/// Fewer like handlings than this tell nothing.
pub const ENOUGH: u64 = 20;

/// Handlings by service and type of the message.
#[derive(Clone, Debug, Default)]
pub struct Habits {
    by_kind: HashMap<(String, String), Habit>,
}

/// Handlings of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habit {
    /// So many ended well.
    pub handled: u64,
    /// After so many of them something was published.
    pub followed: u64,
}

impl Habits {
    /// Counts a handling.
    pub fn handled(&mut self, service: &str, event_type: &str) {
        self.entry(service, event_type).handled += 1;
    }

    /// Counts that something followed a handling.
    pub fn followed(&mut self, service: &str, event_type: &str) {
        self.entry(service, event_type).followed += 1;
    }

    /// The habit, where something usually follows.
    pub fn leads_on(&self, service: &str, event_type: &str) -> Option<Habit> {
        let habit = *self.by_kind.get(&(service.to_owned(), event_type.to_owned()))?;
        (habit.handled >= ENOUGH && habit.followed * 2 >= habit.handled).then_some(habit)
    }

    fn entry(&mut self, service: &str, event_type: &str) -> &mut Habit {
        self.by_kind.entry((service.to_owned(), event_type.to_owned())).or_default()
    }
}
