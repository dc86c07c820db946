//! Rows of a store as `flowtap sql` shows them: whole-program tests read what users read.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::process::run;
use crate::program;

/// A store as a reader sees it.
#[derive(Clone, Debug)]
pub struct Store {
    url: String,
    env: Vec<(String, String)>,
}

impl Store {
    /// A store in a local folder.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), env: Vec::new() }
    }

    /// A store that needs an environment, as [`crate::s3::S3Server::env`] gives it.
    pub fn with_env(url: impl Into<String>, env: Vec<(String, String)>) -> Self {
        Self { url: url.into(), env }
    }

    /// The rows of a query, one object a row.
    pub fn sql(&self, query: &str) -> Vec<Value> {
        let mut command = Command::new(program("flowtap"));
        command.args(["sql", "--store", &self.url, "--json", query]).envs(self.env.iter().cloned());
        let output = run(&mut command);
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("{query}: {error}: {output}"))
    }

    /// The one number that a query gives.
    pub fn number(&self, query: &str) -> i64 {
        let rows = self.sql(query);
        let values = rows.first().and_then(Value::as_object);
        values
            .and_then(|row| row.values().next())
            .and_then(Value::as_i64)
            .unwrap_or_else(|| panic!("{query}: no number in {rows:?}"))
    }

    /// `flowtap verify` finds nothing missing, doubled or concluding what is not there. What it cannot
    /// prove while agents run is no fault.
    pub fn assert_no_hole(&self) {
        let mut command = Command::new(program("flowtap"));
        command.args(["verify", "--store", &self.url, "--json"]).envs(self.env.iter().cloned());
        let output = command.output().expect("flowtap is there");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("verify: {error}: {}", String::from_utf8_lossy(&output.stderr))
        });
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 4)), "exit code {code:?}: {report:#}");
        assert_eq!(report["problems"], Value::Array(Vec::new()), "{report:#}");
    }

    /// How many rows of `history` a service has, by kind and outcome: `publish`, `settle acked`.
    pub fn tally(&self, service: &str) -> BTreeMap<String, i64> {
        let rows = self.sql(&format!(
            "SELECT kind, outcome, count(*) AS n FROM history WHERE service = '{service}' \
             AND kind IN ('publish', 'confirm', 'return', 'deliver', 'settle', 'gap', 'transaction') \
             GROUP BY kind, outcome"
        ));
        rows.iter()
            .map(|row| {
                let kind = row["kind"].as_str().expect("kind is a string");
                let name = match row["outcome"].as_str() {
                    Some(outcome) => format!("{kind} {outcome}"),
                    None => kind.to_owned(),
                };
                (name, row["n"].as_i64().expect("a count is a number"))
            })
            .collect()
    }
}

/// A tally from literals, without the zeros.
pub fn tally<const N: usize>(entries: [(&str, i64); N]) -> BTreeMap<String, i64> {
    entries
        .into_iter()
        .filter(|&(_, count)| count != 0)
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}
