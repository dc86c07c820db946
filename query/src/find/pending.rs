//! Deliveries that wait for what they cause: this is how habits are learned, and how a service is
//! seen to publish again what it had received.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::object::Step;
use crate::flow::Habits;

/// Deliveries that wait.
const PENDING: usize = 200_000;

#[derive(Default)]
pub(super) struct Pending {
    by_event: HashMap<(Arc<str>, u64), Waiting>,
    by_transaction: HashMap<(Arc<str>, u64), u64>,
    order: VecDeque<(Arc<str>, u64, Option<u64>)>,
}

struct Waiting {
    event_type: Option<Arc<str>>,
    followed: bool,
}

impl Pending {
    /// Takes one step; each delivery counts once. Says the flow of a message that its service had
    /// received and publishes again.
    pub(super) fn step(&mut self, step: Step, habits: &mut Habits) -> Option<u64> {
        match step {
            Step::Delivered { event, transaction, service, event_type } => {
                self.delivered(event, transaction, service, event_type, habits);
                None
            }
            Step::Published { event, cause, transaction, service } => {
                let again = event
                    .is_some_and(|event| self.by_event.contains_key(&(service.clone(), event)));
                self.published(cause, transaction, &service, habits);
                transaction.filter(|_| again)
            }
        }
    }

    fn delivered(
        &mut self,
        event: u64,
        transaction: Option<u64>,
        service: Arc<str>,
        event_type: Option<Arc<str>>,
        habits: &mut Habits,
    ) {
        let key = (service.clone(), event);
        if self.by_event.contains_key(&key) {
            return;
        }
        if let Some(event_type) = &event_type {
            habits.handled(&service, event_type);
        }
        self.by_event.insert(key, Waiting { event_type, followed: false });
        if let Some(transaction) = transaction {
            self.by_transaction.insert((service.clone(), transaction), event);
        }
        self.order.push_back((service, event, transaction));
        if self.order.len() > PENDING
            && let Some((service, event, transaction)) = self.order.pop_front()
        {
            self.by_event.remove(&(service.clone(), event));
            if let Some(transaction) = transaction {
                self.by_transaction.remove(&(service, transaction));
            }
        }
    }

    fn published(
        &mut self,
        cause: Option<u64>,
        transaction: Option<u64>,
        service: &Arc<str>,
        habits: &mut Habits,
    ) {
        let by_transaction = || {
            let transaction = transaction?;
            self.by_transaction.get(&(service.clone(), transaction)).copied()
        };
        let Some(event) = cause.or_else(by_transaction) else { return };
        let waiting = self.by_event.get_mut(&(service.clone(), event));
        if let Some(Waiting { event_type: Some(event_type), followed: followed @ false }) = waiting
        {
            *followed = true;
            habits.followed(service, event_type);
        }
    }
}
