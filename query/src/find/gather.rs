//! From an id to all rows of a flow: those that share the transaction id, and messages without one
//! that a causation id ties to them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use flowtap_record::Kind;

use super::catalog::Catalog;
use super::object::hash;
use super::read::Wanted;
use super::reading::{Keep, Reach};
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

/// Rows that an id was found in.
#[derive(Clone, Debug, Default)]
pub struct Hits {
    /// Of more than [`MAX_RECORDS`] the newest.
    pub rows: Vec<Row>,
    /// There are older ones.
    pub truncated: bool,
}

impl Catalog {
    /// All rows of a flow; none if there is no such flow.
    pub async fn gather(&self, flow: &FlowId, wanted: Wanted) -> Result<Gathered, String> {
        self.gather_within(flow, Reach::Far, wanted).await
    }

    /// The same, for a list.
    pub(super) async fn gather_within(
        &self,
        flow: &FlowId,
        reach: Reach,
        wanted: Wanted,
    ) -> Result<Gathered, String> {
        let (rows, truncated) = match flow {
            FlowId::Transaction(id) => {
                let hashes = [hash::transaction(id)];
                let found = self.carriers(&hashes, Keep::Oldest, reach, wanted).await?;
                let (mut rows, truncated) = found;
                rows.retain(|row| row.transaction_id.as_ref() == Some(id));
                (rows, truncated)
            }
            FlowId::Root(root) => self.root(root, reach, wanted).await?,
        };
        self.absorb(rows, truncated, reach, wanted).await
    }

    async fn root(
        &self,
        root: &RowId,
        reach: Reach,
        wanted: Wanted,
    ) -> Result<(Vec<Row>, bool), String> {
        let find = |catalog: &Self| (catalog.place_of(root), ());
        let (mut rows, ()) = self.rows(Wanted::Rules, find).await?;
        if rows.is_empty() {
            let hashes = [hash::row(&root.boot, root.seq)];
            rows = self.carriers(&hashes, Keep::Oldest, reach, Wanted::Rules).await?.0;
        }
        let row = rows.into_iter().find(|row| row.id == *root);
        let event = row.filter(|row| row.transaction_id.is_none()).and_then(|row| row.event_id);
        let Some(event) = event else { return Ok((Vec::new(), false)) };
        self.loose_rows(&[event], reach, wanted).await
    }

    /// Adds what has no transaction id and hangs on these rows by causation ids, and the rows that
    /// bear no id at all but conclude one of these.
    pub(super) async fn absorb(
        &self,
        rows: Vec<Row>,
        mut truncated: bool,
        reach: Reach,
        wanted: Wanted,
    ) -> Result<Gathered, String> {
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
            let (near, cut) = self.carriers(&hashes, Keep::Oldest, reach, Wanted::Rules).await?;
            truncated |= cut;
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
            let (found, cut) = self.loose_rows(&tied, reach, wanted).await?;
            truncated |= cut;
            let before = all.len();
            all.extend(found.into_iter().map(|row| (row.id.clone(), row)));
            if all.len() == before {
                break;
            }
        }
        truncated |= self.conclusions(&mut all, reach, wanted).await?;
        let gathered = Gathered::of(all, truncated);
        Ok(Gathered { related: related.into_iter().collect(), ..gathered })
    }

    /// Ends of broker transactions, and answers that repeat no id. True: there are too many.
    async fn conclusions(
        &self,
        all: &mut HashMap<RowId, Row>,
        reach: Reach,
        wanted: Wanted,
    ) -> Result<bool, String> {
        let hashes: BTreeSet<u64> = concluding(all.values()).collect();
        if hashes.is_empty() {
            return Ok(false);
        }
        let hashes: Vec<u64> = hashes.into_iter().collect();
        let (rows, truncated) = self.carriers(&hashes, Keep::Oldest, reach, wanted).await?;
        for row in rows {
            let concludes = row.concludes.as_ref().is_some_and(|row| all.contains_key(row));
            if concludes || row.kind == Kind::Transaction {
                all.entry(row.id.clone()).or_insert(row);
            }
        }
        Ok(truncated)
    }

    /// All rows of messages without a transaction id, by their event ids.
    async fn loose_rows(
        &self,
        events: &[String],
        reach: Reach,
        wanted: Wanted,
    ) -> Result<(Vec<Row>, bool), String> {
        if events.is_empty() {
            return Ok((Vec::new(), false));
        }
        let hashes: Vec<u64> = events.iter().map(|event| hash::event(event)).collect();
        let (rows, truncated) = self.carriers(&hashes, Keep::Oldest, reach, wanted).await?;
        let ours = |row: &Row| {
            row.transaction_id.is_none()
                && row.event_id.as_ref().is_some_and(|event| events.contains(event))
        };
        Ok((rows.into_iter().filter(ours).collect(), truncated))
    }

    /// Rows that carry `id` as transaction id, event id, command id, trace id or value of a business key.
    pub async fn hits(&self, id: &str) -> Result<Hits, String> {
        let kinds = [hash::transaction, hash::event, hash::command, hash::trace, hash::key];
        let hashes = kinds.map(|hash| hash(id));
        let (rows, truncated) =
            self.carriers(&hashes, Keep::Newest, Reach::Far, Wanted::Rules).await?;
        let says = |row: &Row| {
            let ids = [&row.transaction_id, &row.event_id, &row.command_id, &row.trace_id];
            ids.into_iter().any(|known| known.as_deref() == Some(id))
                || row.keys.iter().any(|key| key.value == id)
        };
        Ok(Hits { rows: rows.into_iter().filter(says).collect(), truncated })
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
        let (found, mut truncated) =
            self.carriers(&hashes, Keep::Newest, Reach::Far, Wanted::All).await?;
        let mut all: HashMap<RowId, Row> =
            found.into_iter().map(|row| (row.id.clone(), row)).collect();
        truncated |= self.conclusions(&mut all, Reach::Far, Wanted::All).await?;
        Ok(Gathered::of(all, truncated))
    }
}

impl Gathered {
    /// By time, not more than are shown.
    fn of(all: HashMap<RowId, Row>, truncated: bool) -> Self {
        let truncated = truncated || all.len() > MAX_RECORDS;
        let mut rows: Vec<Row> = all.into_values().collect();
        rows.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        rows.truncate(MAX_RECORDS);
        Self { rows, truncated, related: Vec::new() }
    }
}

/// Where ends of broker transactions, and answers that repeat no id, are looked for.
pub(super) fn concluding<'a>(
    rows: impl Iterator<Item = &'a Row> + Clone,
) -> impl Iterator<Item = u64> {
    let concluded: HashSet<&RowId> =
        rows.clone().filter_map(|row| row.concludes.as_ref()).collect();
    rows.flat_map(move |row| {
        let transaction = row.broker_txn.as_deref();
        let transaction = transaction.map(|name| hash::broker_transaction(&row.id.boot, name));
        let open =
            matches!(row.kind, Kind::Publish | Kind::Deliver) && !concluded.contains(&row.id);
        let answer = open.then(|| hash::concluded(&row.id.boot, row.id.seq));
        [transaction, answer].into_iter().flatten()
    })
}
