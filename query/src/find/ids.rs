//! What a row can be found by: the one list of ids, for the index in memory, for the directory of a
//! day, and for files that neither of them knows.

use arrow::array::RecordBatch;
use flowtap_record::Kind;

use super::columns::Cells;
use super::object::hash;

/// Columns that ids are made of.
pub(crate) const COLUMNS: [&str; 14] = [
    "agent",
    "boot",
    "seq",
    "ref_boot",
    "ref_seq",
    "kind",
    "message",
    "event_id",
    "transaction_id",
    "causation_id",
    "command_id",
    "trace_id",
    "keys",
    "broker_txn",
];

/// Gives the hash of each id of a row. True: it bears none, and concludes another.
pub(super) fn of_row(
    cells: &Cells<'_>,
    row: usize,
    kind: Kind,
    boot: &str,
    mut add: impl FnMut(u64),
) -> bool {
    if matches!(kind, Kind::Gap | Kind::Topology | Kind::Session | Kind::Position) {
        return false;
    }
    let text = |name: &str| cells.text(name, row);
    if let (Kind::Transaction, Some(name)) = (kind, text("broker_txn")) {
        add(hash::broker_transaction(boot, name));
    }
    let (transaction, event) = (text("transaction_id"), text("event_id"));
    for hash in [
        transaction.map(hash::transaction),
        event.map(hash::event),
        text("causation_id").map(hash::cause),
        text("command_id").map(hash::command),
        text("trace_id").map(hash::trace),
    ] {
        hash.into_iter().for_each(&mut add);
    }
    for (_, value) in cells.fields("keys", row) {
        add(hash::key(value));
    }
    if transaction.is_some() || event.is_some() {
        return false;
    }
    text("message").map(hash::message).into_iter().for_each(&mut add);
    // What a row concludes says what it is about, where it says nothing itself.
    let Some(seq) = cells.long("ref_seq", row) else { return false };
    add(hash::concluded(text("ref_boot").unwrap_or(boot), seq));
    true
}

/// The ids of a row group: hashes, sorted, with the rows that carry them.
#[derive(Default)]
pub(crate) struct Ids {
    pairs: Vec<(u64, u32)>,
    rows: u32,
}

impl Ids {
    /// Takes all rows of a batch. Beyond what an index in memory has, a message of no flow can be
    /// found by where its row comes from: that is the id of a flow that begins with it.
    pub(super) fn batch(&mut self, batch: &RecordBatch) {
        let cells = Cells::new(batch);
        for row in 0..batch.num_rows() {
            let number = self.rows;
            self.rows += 1;
            let (Some(kind), Some(boot)) = (cells.kind(row), cells.text("boot", row)) else {
                continue;
            };
            let mut add = |hash| self.pairs.push((hash, number));
            of_row(&cells, row, kind, boot, &mut add);
            let begins = matches!(kind, Kind::Publish | Kind::Deliver)
                && cells.text("transaction_id", row).is_none()
                && cells.text("event_id", row).is_some();
            if let (true, Some(seq)) = (begins, cells.long("seq", row)) {
                add(hash::row(boot, seq));
            }
        }
    }

    pub(super) fn sort(&mut self) {
        self.pairs.sort_unstable();
        self.pairs.dedup();
    }

    /// Rows that carry any of `hashes`, rising.
    pub(super) fn rows_of(&self, hashes: &[u64]) -> Vec<u32> {
        let mut rows = Vec::new();
        for hash in hashes {
            let from = self.pairs.partition_point(|(known, _)| known < hash);
            let carry = self.pairs[from..].iter().take_while(|(known, _)| known == hash);
            rows.extend(carry.map(|(_, row)| *row));
        }
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// All of them, each once as far as a directory keeps them apart.
    pub(super) fn hashes(self) -> Vec<u64> {
        let mut hashes: Vec<u64> = self.pairs.into_iter().map(|(hash, _)| hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }

    /// Bytes that they take.
    pub(super) fn held(&self) -> usize {
        self.pairs.len() * size_of::<(u64, u32)>()
    }
}
