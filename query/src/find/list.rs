//! Rows of many flows at once, for a list: what all of them need is read together, and what only
//! some of them need is read for those.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};

use flowtap_record::Kind;

use super::catalog::{Catalog, FlowEntry, Order, Places};
use super::gather::{FlowId, concluding};
use super::object::hash;
use super::read::Wanted;
use super::reading::{Keep, Reach};
use crate::flow::{Row, RowId};

/// A flow of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its id.
    pub id: FlowId,
    /// Its rows.
    pub rows: Arc<Vec<Row>>,
    /// It has more rows than these.
    pub truncated: bool,
}

/// A flow's rows while they are put together.
struct Rows {
    rows: Arc<Vec<Row>>,
    truncated: bool,
}

impl Catalog {
    /// Rows of many flows for a list.
    pub async fn gather_list(
        &self,
        orders: &[(Order, Option<FlowEntry>)],
    ) -> Result<HashMap<Order, Listed>, String> {
        let entries: Vec<(Order, &FlowEntry)> =
            orders.iter().filter_map(|(order, entry)| Some((*order, entry.as_ref()?))).collect();
        let mut found = self.by_id(&entries).await?;
        self.conclude(&entries, &mut found).await?;
        let mut listed = HashMap::new();
        for (order, Rows { rows, truncated }) in found {
            let Some(id) = rows.iter().find_map(|row| row.transaction_id.clone()) else { continue };
            let (rows, truncated) = if self.are_tied(&rows) {
                let all = self.absorb(rows.to_vec(), truncated, Reach::Near, Wanted::Rules).await?;
                (Arc::new(all.rows), all.truncated)
            } else {
                (rows, truncated)
            };
            listed.insert(order, Listed { id: FlowId::Transaction(id), rows, truncated });
        }
        for (order, _) in orders.iter().filter(|(_, entry)| entry.is_none()) {
            if let Some(chain) = self.gather_loose(*order).await? {
                listed.insert(*order, chain);
            }
        }
        Ok(listed)
    }

    /// Rows that carry the flows' ids. Only what is new since the last list is read.
    async fn by_id(&self, entries: &[(Order, &FlowEntry)]) -> Result<HashMap<Order, Rows>, String> {
        let mut found = HashMap::new();
        let mut missing = Vec::new();
        {
            let lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
            for (order, entry) in entries {
                match lately.get(order.1, entry.rows) {
                    Some(rows) => drop(found.insert(*order, Rows { rows, truncated: false })),
                    None => missing.push((*order, *entry)),
                }
            }
        }
        // Each of the flows is cut by itself.
        let find = |catalog: &Self| {
            let mut places = Places::new();
            let mut cut = BTreeSet::new();
            for (order, _) in &missing {
                let (own, is_cut) = catalog.cut(&[order.1], Keep::Oldest);
                if is_cut {
                    cut.insert(*order);
                }
                for (place, rows) in own {
                    places.entry(place).or_default().extend(rows);
                }
            }
            (places, cut)
        };
        let (rows, cut) = self.rows(Wanted::Rules, find).await?;
        let mut by_flow: HashMap<u64, Vec<Row>> = HashMap::new();
        for row in rows {
            if let Some(id) = row.transaction_id.as_deref() {
                by_flow.entry(hash::transaction(id)).or_default().push(row);
            }
        }
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        for (order, entry) in missing {
            let rows = Arc::new(by_flow.remove(&order.1).unwrap_or_default());
            let truncated = cut.contains(&order);
            // Kept is only what is whole: rows may have come since they were counted.
            if !truncated && rows.len() as u64 == entry.rows {
                lately.put(order.1, entry.rows, rows.clone());
            }
            found.insert(order, Rows { rows, truncated });
        }
        Ok(found)
    }

    /// Adds ends of broker transactions and answers without ids, where there may be any.
    async fn conclude(
        &self,
        entries: &[(Order, &FlowEntry)],
        found: &mut HashMap<Order, Rows>,
    ) -> Result<(), String> {
        let mut flows_of: HashMap<u64, Vec<Order>> = HashMap::new();
        for (order, entry) in entries {
            let Some(Rows { rows, .. }) = found.get(order) else { continue };
            if entry.bare || rows.iter().any(|row| row.broker_txn.is_some()) {
                for hash in concluding(rows.iter()) {
                    flows_of.entry(hash).or_default().push(*order);
                }
            }
        }
        if flows_of.is_empty() {
            return Ok(());
        }
        let hashes: Vec<u64> = flows_of.keys().copied().collect();
        let mut more: HashMap<Order, HashMap<RowId, Row>> = HashMap::new();
        let find = |catalog: &Self| (catalog.places_of(&hashes), ());
        let (rows, ()) = self.rows(Wanted::Rules, find).await?;
        for row in rows {
            let ended = row.broker_txn.as_deref().filter(|_| row.kind == Kind::Transaction);
            let ended = ended.map(|name| hash::broker_transaction(&row.id.boot, name));
            let concluded = row.concludes.as_ref().map(|row| hash::concluded(&row.boot, row.seq));
            for hash in [ended, concluded].into_iter().flatten() {
                for order in flows_of.get(&hash).into_iter().flatten() {
                    more.entry(*order).or_default().insert(row.id.clone(), row.clone());
                }
            }
        }
        for (order, more) in more {
            if let Some(flow) = found.get_mut(&order) {
                let mut rows = flow.rows.to_vec();
                rows.extend(more.into_values());
                flow.rows = Arc::new(rows);
            }
        }
        Ok(())
    }

    async fn gather_loose(&self, order: Order) -> Result<Option<Listed>, String> {
        let root = |catalog: &Self| {
            let root = catalog.loose_root(order);
            (root.map(|(place, row)| (place, vec![row])).into_iter().collect(), ())
        };
        let (rows, ()) = self.rows(Wanted::Rules, root).await?;
        let Some(root) = rows.into_iter().next() else { return Ok(None) };
        let id = FlowId::Root(root.id);
        let all = self.gather_within(&id, Reach::Near, Wanted::Rules).await?;
        Ok(Some(Listed { id, rows: Arc::new(all.rows), truncated: all.truncated }))
    }
}
