//! From an id to all rows of a flow: those that share the transaction id, and messages without one
//! that a causation id ties to them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, PoisonError};

use flowtap_record::Kind;

use super::catalog::{Catalog, FlowEntry, Order};
use super::object::hash;
use super::read::Wanted;
use crate::flow::{Row, RowId};

/// More rows than these are not shown of one flow.
pub const MAX_RECORDS: usize = 10_000;

/// Steps over causation ids: a chain longer than this is cut.
const MAX_STEPS: usize = 64;

/// The id of a flow: the transaction id, or, without one, the first row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FlowId {
    /// What all its messages share.
    Transaction(String),
    /// Its first row.
    Root(RowId),
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transaction(id) => f.write_str(id),
            Self::Root(row) => write!(f, "~{}~{}.{}", row.agent, row.boot, row.seq),
        }
    }
}

impl FlowId {
    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Self {
        let root = || {
            let (boot, seq) = text.strip_prefix('~')?.rsplit_once('.')?;
            let (agent, boot) = boot.split_once('~')?;
            let (agent, boot) = (agent.to_owned(), boot.to_owned());
            Some(RowId { agent, boot, seq: seq.parse().ok()? })
        };
        root().map_or_else(|| Self::Transaction(text.to_owned()), Self::Root)
    }
}

/// Rows of one flow, or of messages that are none.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// In no order.
    pub rows: Vec<Row>,
    /// There are more.
    pub truncated: bool,
    /// Other transaction ids that it touches, and how.
    pub related: Vec<(String, &'static str)>,
}

/// A row that an id was found in.
#[derive(Clone, Debug)]
pub struct Hit {
    /// The row.
    pub row: Row,
}

impl Catalog {
    /// All rows of a flow; none if there is no such flow.
    pub async fn gather(&self, flow: &FlowId, wanted: Wanted) -> Result<Gathered, String> {
        let rows = match flow {
            FlowId::Transaction(id) => {
                let places = self.rows_of(&[hash::transaction(id)]);
                let rows = self.rows(cut(places), wanted).await?;
                rows.into_iter().filter(|row| row.transaction_id.as_ref() == Some(id)).collect()
            }
            FlowId::Root(root) => self.root(root, wanted).await?,
        };
        self.absorb(rows, wanted).await
    }

    async fn root(&self, root: &RowId, wanted: Wanted) -> Result<Vec<Row>, String> {
        // The rows of a boot lie in its objects in order.
        let Some(place) = self.place_of(root) else { return Ok(Vec::new()) };
        let rows = self.rows([(place.0, place.1)].into(), Wanted::Rules).await?;
        let row = rows.into_iter().find(|row| row.id == *root);
        let Some(row) = row.filter(|row| row.transaction_id.is_none()) else {
            return Ok(Vec::new());
        };
        let Some(event) = row.event_id else { return Ok(Vec::new()) };
        self.loose_rows(&[event], wanted).await
    }

    /// Adds what has no transaction id and hangs on these rows by causation ids, and the rows that
    /// bear no id at all but conclude one of these.
    async fn absorb(&self, rows: Vec<Row>, wanted: Wanted) -> Result<Gathered, String> {
        let mut all: HashMap<RowId, Row> =
            rows.into_iter().map(|row| (row.id.clone(), row)).collect();
        let mut related: BTreeSet<(String, &'static str)> = BTreeSet::new();
        let mut asked: HashSet<String> = HashSet::new();
        let loose = self.has_loose();
        for _ in 0..MAX_STEPS {
            if all.len() > MAX_RECORDS {
                break;
            }
            let own: BTreeSet<Option<String>> =
                all.values().map(|row| row.transaction_id.clone()).collect();
            let ids = |of: fn(&Row) -> &Option<String>| -> BTreeSet<String> {
                all.values().filter_map(|row| of(row).clone()).collect()
            };
            let events = ids(|row| &row.event_id);
            let causes: BTreeSet<String> =
                ids(|row| &row.causation_id).difference(&events).cloned().collect();
            let new: Vec<String> = events
                .iter()
                .chain(&causes)
                .filter(|id| asked.insert((*id).clone()))
                .cloned()
                .collect();
            if new.is_empty() || (!loose && wanted == Wanted::Rules) {
                break;
            }
            let mut hashes: Vec<u64> = new.iter().map(|id| hash::cause(id)).collect();
            hashes.extend(new.iter().filter(|id| causes.contains(*id)).map(|id| hash::event(id)));
            let near = self.rows(cut(self.rows_of(&hashes)), Wanted::Rules).await?;
            let mut tied: BTreeSet<String> = BTreeSet::new();
            for row in near {
                let up = row.event_id.as_ref().is_some_and(|event| causes.contains(event));
                match (&row.transaction_id, &row.event_id) {
                    (Some(other), _) if !own.contains(&Some(other.clone())) => {
                        let how = if up { "it caused this flow" } else { "this flow caused it" };
                        related.insert((other.clone(), how));
                    }
                    (None, Some(event)) if !all.contains_key(&row.id) => {
                        tied.insert(event.clone());
                    }
                    _ => {}
                }
            }
            let tied: Vec<String> = tied.into_iter().collect();
            let found = self.loose_rows(&tied, wanted).await?;
            let before = all.len();
            all.extend(found.into_iter().map(|row| (row.id.clone(), row)));
            if all.len() == before {
                break;
            }
        }
        self.conclusions(&mut all, wanted).await?;
        let truncated = all.len() > MAX_RECORDS;
        let mut rows: Vec<Row> = all.into_values().collect();
        rows.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        rows.truncate(MAX_RECORDS);
        Ok(Gathered { rows, truncated, related: related.into_iter().collect() })
    }

    /// Ends of broker transactions, and answers that repeat no id.
    async fn conclusions(
        &self,
        all: &mut HashMap<RowId, Row>,
        wanted: Wanted,
    ) -> Result<(), String> {
        let mut hashes: BTreeSet<u64> = all
            .values()
            .filter_map(|row| {
                Some(hash::broker_transaction(&row.id.boot, row.broker_txn.as_deref()?))
            })
            .collect();
        let concluded: HashSet<&RowId> =
            all.values().filter_map(|row| row.concludes.as_ref()).collect();
        let open = all.values().filter(|row| {
            matches!(row.kind, Kind::Publish | Kind::Deliver) && !concluded.contains(&row.id)
        });
        hashes.extend(open.map(|row| hash::concluded(&row.id.boot, row.id.seq)));
        if hashes.is_empty() {
            return Ok(());
        }
        let hashes: Vec<u64> = hashes.into_iter().collect();
        for row in self.rows(cut(self.rows_of(&hashes)), wanted).await? {
            let concludes = row.concludes.as_ref().is_some_and(|row| all.contains_key(row));
            if concludes || row.kind == Kind::Transaction {
                all.entry(row.id.clone()).or_insert(row);
            }
        }
        Ok(())
    }

    /// All rows of messages without a transaction id, by their event ids.
    async fn loose_rows(&self, events: &[String], wanted: Wanted) -> Result<Vec<Row>, String> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let hashes: Vec<u64> = events.iter().map(|event| hash::event(event)).collect();
        let rows = self.rows(cut(self.rows_of(&hashes)), wanted).await?;
        let ours = |row: &Row| {
            row.transaction_id.is_none()
                && row.event_id.as_ref().is_some_and(|event| events.contains(event))
        };
        Ok(rows.into_iter().filter(ours).collect())
    }

    /// Rows that carry `id` as transaction id, event id, trace id or value of a business key.
    pub async fn hits(&self, id: &str) -> Result<Vec<Hit>, String> {
        let hashes = [hash::transaction(id), hash::event(id), hash::trace(id), hash::key(id)];
        let rows = self.rows(cut(self.rows_of(&hashes)), Wanted::Rules).await?;
        let says = |row: &Row| {
            let ids = [&row.transaction_id, &row.event_id, &row.trace_id];
            ids.into_iter().any(|known| known.as_deref() == Some(id))
                || row.keys.iter().any(|key| key.value == id)
        };
        Ok(rows.into_iter().filter(says).map(|row| Hit { row }).collect())
    }

    /// All rows of single messages: by event id, and by fingerprint where they bear no event id.
    pub async fn single_messages(&self, rows: Vec<Row>) -> Result<Gathered, String> {
        let mut hashes: BTreeSet<u64> = BTreeSet::new();
        for row in &rows {
            match (&row.event_id, &row.message) {
                (Some(event), _) => hashes.insert(hash::event(event)),
                (None, Some(message)) => hashes.insert(hash::message(message)),
                (None, None) => false,
            };
        }
        let hashes: Vec<u64> = hashes.into_iter().collect();
        let found = self.rows(cut(self.rows_of(&hashes)), Wanted::All).await?;
        let mut all: HashMap<RowId, Row> =
            found.into_iter().map(|row| (row.id.clone(), row)).collect();
        self.conclusions(&mut all, Wanted::All).await?;
        let truncated = all.len() > MAX_RECORDS;
        let mut rows: Vec<Row> = all.into_values().collect();
        rows.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        rows.truncate(MAX_RECORDS);
        Ok(Gathered { rows, truncated, related: Vec::new() })
    }

    /// Rows of many flows for a list, each with its id.
    pub async fn gather_list(
        &self,
        orders: &[(Order, Option<FlowEntry>)],
    ) -> Result<HashMap<Order, (FlowId, Arc<Vec<Row>>)>, String> {
        let mut found = HashMap::new();
        let mut missing = Vec::new();
        {
            let lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
            for (order, entry) in orders {
                let Some(entry) = entry else { continue };
                match lately.get(order.1, entry.rows) {
                    Some(rows) => drop(found.insert(*order, rows)),
                    None => missing.push((*order, entry)),
                }
            }
        }
        let mut places: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (order, entry) in &missing {
            let mut left = MAX_RECORDS;
            for (place, rows) in self.rows_in(&entry.objects, order.1) {
                let rows = &rows[..rows.len().min(left)];
                left -= rows.len();
                places.entry(place).or_default().extend(rows);
            }
        }
        let mut by_flow: HashMap<u64, Vec<Row>> = HashMap::new();
        for row in self.rows(places, Wanted::Rules).await? {
            if let Some(id) = row.transaction_id.as_deref() {
                by_flow.entry(hash::transaction(id)).or_default().push(row);
            }
        }
        for (order, entry) in missing {
            let rows = by_flow.remove(&order.1).unwrap_or_default();
            let simple = !self.has_loose()
                && !self.has_bare()
                && rows.iter().all(|row| row.broker_txn.is_none());
            let rows = if simple { rows } else { self.absorb(rows, Wanted::Rules).await?.rows };
            let rows = Arc::new(rows);
            let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
            lately.put(order.1, entry.rows, rows.clone());
            found.insert(order, rows);
        }
        let mut named: HashMap<Order, (FlowId, Arc<Vec<Row>>)> = HashMap::new();
        for (order, rows) in found {
            let id = rows.iter().find_map(|row| row.transaction_id.clone());
            if let Some(id) = id {
                named.insert(order, (FlowId::Transaction(id), rows));
            }
        }
        for (order, entry) in orders {
            if entry.is_none()
                && let Some((id, rows)) = self.gather_loose(*order).await?
            {
                named.insert(*order, (id, Arc::new(rows)));
            }
        }
        Ok(named)
    }

    async fn gather_loose(&self, order: Order) -> Result<Option<(FlowId, Vec<Row>)>, String> {
        let Some((object, row)) = self.loose_root(order) else { return Ok(None) };
        let rows = self.rows([(object, vec![row])].into(), Wanted::Rules).await?;
        let Some(root) = rows.into_iter().next() else { return Ok(None) };
        let id = FlowId::Root(root.id);
        let rows = self.gather(&id, Wanted::Rules).await?.rows;
        Ok(Some((id, rows)))
    }
}

/// Keeps a runaway id from reading the whole store.
fn cut(places: BTreeMap<u32, Vec<u32>>) -> BTreeMap<u32, Vec<u32>> {
    let mut left = MAX_RECORDS + 1;
    places
        .into_iter()
        .map(|(place, mut rows)| {
            rows.truncate(left);
            left -= rows.len();
            (place, rows)
        })
        .filter(|(_, rows)| !rows.is_empty())
        .collect()
}
