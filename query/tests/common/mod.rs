//! A store in a temporary folder, filled as agents fill it.
#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod busy;
pub(crate) mod counting;
pub(crate) mod moody;
pub(crate) mod reshape;
pub(crate) mod table;

use std::fs::File;
use std::path::PathBuf;

use flowtap_query::store::Store;
use flowtap_query::tables::{Limits, context};
use flowtap_record::path::{self, HISTORY, InboxName};
use flowtap_record::{
    AgentState, AgentStatus, Encoding, Field, Gap, HistoryBuilder, Id, Kind, Micros, Observation,
    Outcome, RowRef, SCHEMA_VERSION, Seq, SpoolStatus, TableStatus, Tap, footer,
};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde_json::Value;
use tempfile::TempDir;

/// 2026-11-21T12:00:00Z.
pub(crate) const NOON: i64 = 1_795_262_400_000_000;
pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const BOOT_1: &str = "01940000-0000-7000-8000-000000000001";
pub(crate) const BOOT_2: &str = "01940000-0000-7000-8000-000000000002";

/// A store of one test.
pub(crate) struct Inbox {
    pub(crate) folder: TempDir,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.folder.path().display())
    }

    pub(crate) fn name(agent: &str, boot: &str, first: i64, last: i64) -> InboxName {
        InboxName {
            table: HISTORY.into(),
            agent: agent.into(),
            boot: boot.into(),
            first: Seq(first),
            last: Seq(last),
        }
    }

    /// The footer that an agent writes for `name`.
    pub(crate) fn footer(name: &InboxName) -> Vec<(&'static str, String)> {
        vec![
            (footer::AGENT, name.agent.clone()),
            (footer::BOOT, name.boot.clone()),
            (footer::FIRST, name.first.0.to_string()),
            (footer::LAST, name.last.0.to_string()),
            (footer::SCHEMA, SCHEMA_VERSION.to_owned()),
            (footer::WATERMARK, (NOON + 60 * SECOND).to_string()),
            (footer::UPLOADED_AT, (NOON + 61 * SECOND).to_string()),
        ]
    }

    /// Puts `rows`, numbered from `first`, as one honest object. Returns its path on disk.
    pub(crate) fn put(
        &self,
        agent: &str,
        boot: &str,
        first: i64,
        rows: &[Observation<'_>],
    ) -> PathBuf {
        let last = first + rows.len() as i64 - 1;
        let name = Self::name(agent, boot, first, last);
        let footer = Self::footer(&name);
        self.put_as(&name, &footer, agent, boot, first, rows)
    }

    /// Puts `rows` of `agent` and `boot`, numbered from `first`, under any name and footer.
    pub(crate) fn put_as(
        &self,
        name: &InboxName,
        footer: &[(&str, String)],
        agent: &str,
        boot: &str,
        first: i64,
        rows: &[Observation<'_>],
    ) -> PathBuf {
        let numbered: Vec<_> = (first..).zip(rows).collect();
        self.put_numbered(name, footer, agent, boot, &numbered)
    }

    /// The same with rows that bear any numbers.
    pub(crate) fn put_numbered(
        &self,
        name: &InboxName,
        footer: &[(&str, String)],
        agent: &str,
        boot: &str,
        rows: &[(i64, &Observation<'_>)],
    ) -> PathBuf {
        let mut builder = HistoryBuilder::new(agent, boot);
        for &(seq, row) in rows {
            builder.append(Seq(seq), row);
        }
        let batch = builder.finish().unwrap();
        let pairs =
            footer.iter().map(|(key, value)| KeyValue::new((*key).to_owned(), value.clone()));
        let properties = WriterProperties::builder()
            .set_key_value_metadata(Some(pairs.collect()))
            .set_max_row_group_row_count(Some(1000))
            .build();
        let path = self.folder.path().join(name.path());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // As agents do: it is there whole or not at all.
        let partial = self.folder.path().join(format!("{}-{}.partial", name.agent, name.first.0));
        let file = File::create(&partial).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        std::fs::rename(&partial, &path).unwrap();
        path
    }

    /// The answer as JSON.
    pub(crate) async fn ask(&self, query: &str) -> Value {
        self.try_ask(query).await.unwrap_or_else(|error| panic!("{query}\n{error}"))
    }

    /// The answer as JSON, or the error as a person reads it.
    pub(crate) async fn try_ask(&self, query: &str) -> Result<Value, String> {
        let text = self.write(query, flowtap_query::sql::output::Format::Json).await?;
        Ok(serde_json::from_str(&text).unwrap())
    }

    /// The answer in a format.
    pub(crate) async fn write(
        &self,
        query: &str,
        format: flowtap_query::sql::output::Format,
    ) -> Result<String, String> {
        let store = Store::open(&self.url()).map_err(|error| error.to_string())?;
        let limits = Limits::default();
        let context = context(&store, &limits).await.map_err(|error| error.to_string())?;
        let rows = flowtap_query::sql::query(&context, query).await;
        let rows = rows.map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        flowtap_query::sql::output::write(query, rows, format, limits.rows, &mut out)
            .await
            .map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }
}

/// All rows, whole, in order.
pub(crate) async fn everything(inbox: &Inbox) -> Value {
    inbox.ask("SELECT * FROM history ORDER BY agent, boot, seq").await
}

/// How many rows there are, and how many of them twice.
pub(crate) async fn counts(inbox: &Inbox) -> Value {
    let query = "SELECT count(*) AS rows, count(*) - count(DISTINCT agent || boot || seq) AS twice \
                 FROM history";
    inbox.ask(query).await
}

/// How many files lie below a folder.
pub(crate) fn objects_in(folder: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let entries = entries.map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { objects_in(&path) } else { 1 }).sum()
}

/// An agent's word: how it is, the last row it gave a number, and the last it uploaded.
pub(crate) fn says(
    inbox: &Inbox,
    agent: &str,
    boot: &str,
    state: AgentState,
    last: i64,
    uploaded: i64,
) {
    let tables = [(HISTORY.to_owned(), TableStatus { last_seq: last, uploaded_seq: uploaded })];
    let segments = u64::from(uploaded < last);
    let status = AgentStatus {
        version: "1".into(),
        schema: "1".into(),
        agent: agent.into(),
        boot: boot.into(),
        service: "shop".into(),
        instance: "i".into(),
        state,
        started_at: Micros(NOON),
        at: Micros(NOON),
        period_s: 5,
        watermark: Micros(NOON),
        tables: tables.into(),
        taps: Vec::new(),
        spool: SpoolStatus { segments, ..SpoolStatus::default() },
        clock: None,
    };
    let file = inbox.folder.path().join(path::status(agent, boot));
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, serde_json::to_vec(&status).unwrap()).unwrap();
}

pub(crate) fn row(kind: Kind, at: i64) -> Observation<'static> {
    let mut row = Observation::new(kind, Micros(at));
    row.tap = Some(Tap::Proxy);
    row.place.system = Some("rabbitmq");
    row.place.cluster = Some("rabbit@one");
    row.place.vhost = Some("/");
    row
}

#[allow(clippy::unnecessary_wraps, reason = "as fields want it")]
pub(crate) fn id(value: &'static str) -> Option<Id<'static>> {
    Some(Id { value, from: "property:message_id" })
}

fn concluding(kind: Kind, at: i64, seq: i64, outcome: Outcome) -> Observation<'static> {
    let mut row = row(kind, at);
    row.concludes = Some(RowRef { boot: None, seq: Seq(seq) });
    row.outcome = Some(outcome);
    row
}

/// A small car maker's noon. `shop` publishes three messages: one is confirmed and rejected at
/// `factory`, one nobody is bound to, one is refused; `factory` then dies with a delivery open.
pub(crate) fn cars() -> Inbox {
    let inbox = Inbox::new();
    let publish = |at, event, key: &'static str, order: &'static str| {
        let mut publish = row(Kind::Publish, at);
        publish.who.service = Some("shop");
        publish.who.client = Some("pika 1.3");
        publish.place.destination = Some("orders");
        publish.place.routing_key = Some(key);
        publish.message.ids.event_id = id(event);
        publish.message.ids.event_type = id("PaymentTaken");
        publish.message.ids.transaction_id = id(order);
        publish.message.message = Some(event);
        publish.message.size = Some(120);
        publish.session.confirm_expected = Some(true);
        publish
    };
    let mut first = publish(NOON, "e-1", "payment.taken", "order-1042");
    first.message.keys = vec![Field { name: "order_id", value: "1042", encoding: Encoding::Text }];
    first.message.headers = vec![Field { name: "x-retry", value: "3", encoding: Encoding::Json }];
    let mut declared = row(Kind::Topology, NOON - SECOND);
    declared.outcome = Some(Outcome::Declared);
    declared.place.subscription = Some("factory.payments");
    declared.details = Some(r#"{"what":"queue","arguments":{"x-max-length":10}}"#);
    let mut returned = concluding(Kind::Return, NOON + SECOND + 400, 3, Outcome::Unroutable);
    returned.reason = Some("312 NO_ROUTE");
    let mut refused = concluding(Kind::Confirm, NOON + 2 * SECOND + 700, 6, Outcome::Refused);
    refused.reason = Some("nack");
    inbox.put(
        "shop-a1",
        BOOT_1,
        1,
        &[declared, first, publish(NOON + SECOND, "e-2", "nowhere", "order-1043")],
    );
    inbox.put(
        "shop-a1",
        BOOT_1,
        4,
        &[
            concluding(Kind::Confirm, NOON + 900, 2, Outcome::Confirmed),
            returned,
            publish(NOON + 2 * SECOND, "e-3", "payment.taken", "order-1044"),
            concluding(Kind::Confirm, NOON + SECOND + 800, 3, Outcome::Confirmed),
            refused,
            publish(NOON + 3 * SECOND, "e-4", "payment.taken", "order-1045"),
        ],
    );

    let deliver = |at, event, order| {
        let mut deliver = row(Kind::Deliver, at);
        deliver.who.service = Some("factory");
        deliver.place.destination = Some("orders");
        deliver.place.routing_key = Some("payment.taken");
        deliver.place.subscription = Some("factory.payments");
        deliver.message.ids.event_id = id(event);
        deliver.message.ids.transaction_id = id(order);
        deliver.message.message = Some(event);
        deliver.session.redelivered = Some(false);
        deliver
    };
    let mut rejected = concluding(Kind::Settle, NOON + 36_000, 1, Outcome::Rejected);
    rejected.session.took_us = Some(35_000);
    inbox.put(
        "factory-b2",
        BOOT_1,
        1,
        &[
            deliver(NOON + 1000, "e-1", "order-1042"),
            rejected,
            deliver(NOON + 4 * SECOND, "e-4", "order-1045"),
        ],
    );
    let mut died = Observation::new(Kind::Gap, Micros(NOON + 9 * SECOND));
    died.who.service = Some("factory");
    died.reason = Some("agent_died");
    died.concludes = Some(RowRef { boot: Some(BOOT_1), seq: Seq(3) });
    died.gap = Gap {
        from: Some(Micros(NOON + 5 * SECOND)),
        to: Some(Micros(NOON + 9 * SECOND)),
        count: None,
    };
    inbox.put("factory-b2", BOOT_2, 1, &[died, deliver(NOON + 10 * SECOND, "e-5", "order-1046")]);
    inbox
}
