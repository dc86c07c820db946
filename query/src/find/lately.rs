//! Rows of flows that were read for a list: the next look at the same page reads only what changed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::flow::Row;

/// Rows kept.
const ROWS: usize = 200_000;

/// Rows that carry a flow's id, by flow and by how many there were.
#[derive(Default)]
pub(super) struct Lately {
    rows: HashMap<u64, (u64, Arc<Vec<Row>>)>,
    order: VecDeque<u64>,
    held: usize,
}

impl Lately {
    pub(super) fn get(&self, flow: u64, rows: u64) -> Option<Arc<Vec<Row>>> {
        self.rows.get(&flow).filter(|(known, _)| *known == rows).map(|(_, found)| found.clone())
    }

    pub(super) fn put(&mut self, flow: u64, rows: u64, found: Arc<Vec<Row>>) {
        self.held += found.len();
        if let Some((_, old)) = self.rows.insert(flow, (rows, found)) {
            self.held -= old.len();
        } else {
            self.order.push_back(flow);
        }
        while self.held > ROWS
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some((_, gone)) = self.rows.remove(&oldest) {
                self.held -= gone.len();
            }
        }
    }
}
