//! What the history has of one RabbitMQ cluster, asked in SQL, as [`super::broker`] compares it.

use flowtap_record::Micros;
use serde::Deserialize;

use super::ask::{Asked, VerifyError, text};
use super::broker::{History, Seen};
use super::rabbitmq::{Place, PlaceKind};

/// Sums of one exchange or queue; what a question does not sum is zero.
#[derive(Deserialize)]
struct Sums {
    vhost: String,
    name: String,
    #[serde(default)]
    published: i64,
    #[serde(default)]
    answered: i64,
    #[serde(default)]
    delivered: i64,
    #[serde(default)]
    abandoned: i64,
    #[serde(default)]
    acked: i64,
    first: i64,
    last: i64,
}

impl Asked {
    /// Rows of `cluster` after `since`, which proxies saw: a copy of them by another way counts twice.
    pub(super) async fn cluster(
        &self,
        cluster: &str,
        since: Micros,
    ) -> Result<History, VerifyError> {
        let of = format!("system = 'rabbitmq' AND cluster = {} AND tap = 'proxy'", text(cluster));
        let new = format!("{of} AND arrow_cast(at, 'Int64') > {}", since.0);
        let times = "arrow_cast(min(at), 'Int64') AS first, arrow_cast(max(at), 'Int64') AS last";
        let exchanges: Vec<Sums> = self
            .ask(&format!(
                "WITH answers AS ( \
                   SELECT DISTINCT agent AS a_agent, ref_boot AS a_boot, ref_seq AS a_seq FROM history \
                   WHERE {of} AND (kind = 'return' OR kind = 'confirm' AND outcome = 'confirmed')) \
                 SELECT vhost, destination AS name, count(*) AS published, count(a_seq) AS answered, {times} \
                 FROM history LEFT JOIN answers ON agent = a_agent AND boot = a_boot AND seq = a_seq \
                 WHERE {new} AND kind = 'publish' AND vhost IS NOT NULL AND destination IS NOT NULL \
                 GROUP BY vhost, destination"
            ))
            .await?;
        let queues: Vec<Sums> = self
            .ask(&format!(
                "SELECT vhost, subscription AS name, \
                   count(*) FILTER (WHERE kind = 'deliver') AS delivered, \
                   count(*) FILTER (WHERE outcome = 'abandoned') AS abandoned, \
                   count(*) FILTER (WHERE outcome = 'acked') AS acked, {times} \
                 FROM history WHERE {new} AND kind IN ('deliver', 'settle') \
                 AND vhost IS NOT NULL AND subscription IS NOT NULL \
                 AND subscription NOT LIKE 'amq.rabbitmq.reply-to%' GROUP BY vhost, subscription"
            ))
            .await?;
        let mut history = History {
            first: self.first(&of).await?,
            clusters: self.clusters().await?,
            deleted: self.deleted(&of).await?.into_iter().collect(),
            own: self.own(&of).await?.into_iter().collect(),
            ..History::default()
        };
        let sums = exchanges.into_iter().map(|sums| (PlaceKind::Exchange, sums));
        for (kind, sums) in sums.chain(queues.into_iter().map(|sums| (PlaceKind::Queue, sums))) {
            let seen = Seen {
                published: sums.published,
                answered: sums.answered,
                delivered: sums.delivered,
                abandoned: sums.abandoned,
                acked: sums.acked,
                first: Micros(sums.first),
                last: Micros(sums.last),
            };
            history.places.insert(Place { vhost: sums.vhost, kind, name: sums.name }, seen);
        }
        history.vhosts = self.vhosts(&of).await?.into_iter().collect();
        history.incomplete = self.gap_since(since).await?;
        Ok(history)
    }

    async fn first(&self, of: &str) -> Result<Option<Micros>, VerifyError> {
        #[derive(Deserialize)]
        struct Row {
            first: Option<i64>,
        }
        let query = format!("SELECT arrow_cast(min(at), 'Int64') AS first FROM history WHERE {of}");
        let rows: Vec<Row> = self.ask(&query).await?;
        Ok(rows.first().and_then(|row| row.first).map(Micros))
    }

    async fn clusters(&self) -> Result<Vec<String>, VerifyError> {
        #[derive(Deserialize)]
        struct Row {
            cluster: String,
        }
        let rows: Vec<Row> = self
            .ask(
                "SELECT DISTINCT cluster FROM history WHERE system = 'rabbitmq' \
                 AND cluster IS NOT NULL ORDER BY cluster",
            )
            .await?;
        Ok(rows.into_iter().map(|row| row.cluster).collect())
    }

    async fn vhosts(&self, of: &str) -> Result<Vec<String>, VerifyError> {
        #[derive(Deserialize)]
        struct Row {
            vhost: String,
        }
        let query = format!("SELECT DISTINCT vhost FROM history WHERE {of} AND vhost IS NOT NULL");
        let rows: Vec<Row> = self.ask(&query).await?;
        Ok(rows.into_iter().map(|row| row.vhost).collect())
    }

    async fn deleted(&self, of: &str) -> Result<Vec<Place>, VerifyError> {
        #[derive(Deserialize)]
        struct Row {
            vhost: Option<String>,
            what: Option<String>,
            queue: Option<String>,
            exchange: Option<String>,
        }
        let rows: Vec<Row> = self
            .ask(&format!(
                "SELECT DISTINCT vhost, json_get(details, '/what') AS what, subscription AS queue, \
                   destination AS exchange FROM history \
                 WHERE {of} AND kind = 'topology' AND outcome = 'deleted'"
            ))
            .await?;
        let place = |row: Row| {
            let (kind, name) = match row.what.as_deref() {
                Some("queue") => (PlaceKind::Queue, row.queue?),
                Some("exchange") => (PlaceKind::Exchange, row.exchange?),
                _ => return None,
            };
            Some(Place { vhost: row.vhost?, kind, name })
        };
        Ok(rows.into_iter().filter_map(place).collect())
    }

    /// Sidecars' own ends of their connections, as the broker lists them.
    async fn own(&self, of: &str) -> Result<Vec<(String, u16)>, VerifyError> {
        #[derive(Deserialize)]
        struct Row {
            address: Option<String>,
            port: Option<i64>,
        }
        let rows: Vec<Row> = self
            .ask(&format!(
                "SELECT DISTINCT json_get(details, '/local_address') AS address, \
                   arrow_cast(json_get(details, '/local_port'), 'Int64') AS port \
                 FROM history WHERE {of} AND kind = 'session'"
            ))
            .await?;
        let end = |row: Row| Some((row.address?, u16::try_from(row.port?).ok()?));
        Ok(rows.into_iter().filter_map(end).collect())
    }

    /// Whether a sidecar says that it was blind since then.
    async fn gap_since(&self, since: Micros) -> Result<Option<String>, VerifyError> {
        #[derive(Deserialize)]
        struct Row {
            agent: String,
            reason: Option<String>,
        }
        let since = since.0;
        let rows: Vec<Row> = self
            .ask(&format!(
                "SELECT agent, reason FROM gaps WHERE arrow_cast(at, 'Int64') > {since} \
                 AND reason IS DISTINCT FROM 'newer_schema' ORDER BY at LIMIT 1"
            ))
            .await?;
        Ok(rows.first().map(|row| {
            let reason = row.reason.as_deref().unwrap_or("no reason");
            format!("the sidecar {} was blind for a while ({reason})", row.agent)
        }))
    }
}
