//! What is known of brokers, in two copies: one is shown and never changes while somebody reads it,
//! the other learns. They change places after each look at the store, and the one that was shown
//! learns what it missed: so nobody waits for a copy to be made.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use flowtap_record::Micros;

use crate::flow::{Broker, Name, Row, Slot, World};
use crate::progress::Progress;

/// More changes than this are not told twice: then the shown one is copied.
const FEW: usize = 10_000;
/// Ways to queues that are remembered. Beyond, a message that nobody takes is a remark, not a fault.
const MAX_ROUTES: usize = 500_000;

/// Something to learn.
#[derive(Clone, Default)]
pub(super) struct Lesson {
    pub(super) rows: Vec<Row>,
    pub(super) routes: HashMap<(Broker, String, String), i64>,
    pub(super) returns: HashSet<(Broker, String)>,
    pub(super) deliveries: Vec<Row>,
    pub(super) progress: HashMap<Slot, Progress>,
    /// Starts of agents that are over, all of them, where that changed.
    pub(super) over: Option<HashMap<String, Micros>>,
}

impl Lesson {
    fn len(&self) -> usize {
        self.rows.len()
            + self.routes.len()
            + self.returns.len()
            + self.deliveries.len()
            + self.progress.len()
            + self.over.as_ref().map_or(0, |over| over.len().max(1))
    }

    fn teach(&self, world: &mut World) {
        for row in &self.rows {
            world.learn(row);
        }
        for ((broker, exchange, key), at) in &self.routes {
            world.learn_route(broker, exchange, key, Micros(*at));
        }
        for (broker, queue) in &self.returns {
            world.learn_return(Name::new(broker, queue));
        }
        for row in &self.deliveries {
            world.learn_delivery(row);
        }
        for (slot, progress) in &self.progress {
            world.groups.learn_progress(slot.clone(), progress.clone());
        }
        if let Some(over) = &self.over {
            world.learn_ends(over);
        }
    }
}

#[derive(Default)]
pub(super) struct Twin {
    shown: Arc<World>,
    learning: Arc<World>,
    /// What the learning one knows and the shown one does not.
    lessons: Vec<Lesson>,
    lessons_len: usize,
    /// What the learning one missed while it was shown.
    missed: Vec<Lesson>,
    routes: HashMap<(Broker, String, String), i64>,
}

impl Twin {
    pub(super) fn learn(&mut self, mut lesson: Lesson) {
        let full = self.routes.len() >= MAX_ROUTES;
        lesson.routes.retain(|route, at| match self.routes.get_mut(route) {
            Some(known) if *known <= *at => false,
            Some(known) => {
                *known = *at;
                true
            }
            None if full => false,
            None => {
                self.routes.insert(route.clone(), *at);
                true
            }
        });
        if lesson.len() == 0 {
            return;
        }
        // Copied only where somebody still reads what was shown two looks ago.
        let learning = Arc::make_mut(&mut self.learning);
        for missed in self.missed.drain(..) {
            missed.teach(learning);
        }
        lesson.teach(learning);
        self.lessons_len += lesson.len();
        if self.lessons_len <= FEW {
            self.lessons.push(lesson);
        } else {
            self.lessons.clear();
        }
    }

    /// What is shown from now on.
    pub(super) fn show(&mut self) -> Arc<World> {
        if self.lessons_len > 0 {
            std::mem::swap(&mut self.shown, &mut self.learning);
            if self.lessons_len > FEW {
                self.learning = Arc::new(World::clone(&self.shown));
                self.lessons.clear();
            }
            self.missed = std::mem::take(&mut self.lessons);
            self.lessons_len = 0;
        }
        self.shown.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(key: usize) -> Lesson {
        let route = (Broker::default(), "orders".to_owned(), key.to_string());
        Lesson { routes: [(route, 1)].into(), ..Lesson::default() }
    }

    fn knows(world: &World, key: usize) -> bool {
        let exchange = Name::new(&Broker::default(), "orders");
        world.reached_before(&exchange, &key.to_string(), Micros(2))
    }

    #[test]
    fn both_copies_learn_everything_and_what_is_shown_stays_as_it_was() {
        let mut twin = Twin::default();
        let mut shown = Vec::new();
        for key in 0..20 {
            twin.learn(route(key));
            shown.push(twin.show());
            // Somebody reads on in every other one.
            if key % 2 == 0 {
                shown.clear();
            }
        }
        let last = twin.show();
        assert!((0..20).all(|key| knows(&last, key)));
        let kept = &shown[0];
        assert!(knows(kept, 19) && !knows(kept, 20));
        twin.learn(route(20));
        assert!(!knows(kept, 20) && !knows(&last, 20), "what is shown does not change");
        assert!((0..=20).all(|key| knows(&twin.show(), key)));
    }

    #[test]
    fn a_great_lesson_reaches_both_copies_too() {
        let mut twin = Twin::default();
        let mut lesson = Lesson::default();
        for key in 0..=FEW {
            lesson.routes.extend(route(key).routes);
        }
        twin.learn(lesson);
        assert!(knows(&twin.show(), FEW));
        twin.learn(route(FEW + 1));
        let world = twin.show();
        assert!(knows(&world, 0) && knows(&world, FEW) && knows(&world, FEW + 1));
    }
}
