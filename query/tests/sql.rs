//! One query: what it may not do, how it fails, how its rows are written.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Inbox, cars};
use flowtap_query::sql::output::{Format, write};
use flowtap_query::store::Store;
use flowtap_query::tables::{Limits, context};

#[tokio::test]
async fn whatever_writes_or_changes_settings_is_refused() {
    let cars = cars();
    let target = cars.folder.path().join("out.csv");
    for query in [
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/etc'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "CREATE SCHEMA s",
        "CREATE DATABASE d",
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        "DROP TABLE history",
        "DROP VIEW publishes",
        "ALTER TABLE history ADD COLUMN x INT",
        "INSERT INTO history SELECT * FROM history",
        "UPDATE history SET seq = 1",
        "DELETE FROM history",
        "TRUNCATE TABLE history",
        &format!("COPY history TO '{}'", target.display()),
        &format!("COPY (SELECT 1) TO '{}' STORED AS CSV", target.display()),
        &format!("EXPLAIN ANALYZE COPY (SELECT 1) TO '{}' STORED AS CSV", target.display()),
        "SET datafusion.execution.batch_size = 1",
        "SET datafusion.catalog.information_schema = false",
        "RESET datafusion.execution.batch_size",
        "BEGIN",
        "COMMIT",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "DEALLOCATE p",
        "USE s",
        "SELECT 1 INTO t",
        "SELECT * INTO t FROM history",
        "WITH x AS (DELETE FROM history RETURNING *) SELECT * FROM x",
        "EXPLAIN ANALYZE INSERT INTO history SELECT * FROM history",
        "EXPLAIN ANALYZE DROP TABLE history",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE history",
        "",
        ";",
        "-- nothing",
    ] {
        let error = cars.try_ask(query).await.expect_err(query);
        assert!(!error.is_empty(), "{query}");
    }
    assert!(!target.exists());
    assert_eq!(
        cars.ask("SELECT count(*) AS n FROM history").await,
        serde_json::json!([{ "n": 14 }])
    );
}

#[tokio::test]
async fn no_file_and_no_url_is_a_table() {
    let cars = cars();
    let object = cars.folder.path().join("inbox");
    for table in [
        "'/etc/passwd'",
        "\"/etc/passwd\"",
        "'file:///etc/passwd'",
        &format!("'{}/'", object.display()),
        "'flowtap://store/inbox/'",
        "'s3://bucket/x.parquet'",
        "read_csv('/etc/passwd')",
        "parquet_metadata('/etc/passwd')",
        "refused",
        "inbox",
    ] {
        let error = cars.try_ask(&format!("SELECT * FROM {table}")).await.expect_err(table);
        assert!(error.contains("not found") || error.contains("found: "), "{table}: {error}");
    }
}

#[tokio::test]
async fn errors_say_what_and_where() {
    let cars = cars();
    let mut told = Vec::new();
    for query in [
        "SELEKT 1",
        "SELECT service FORM publishes",
        "SELECT\n  servise,\n  count(*)\nFROM publishes\nGROUP BY service",
        "SELECT * FROM publish",
        "SELECT coutn(*) FROM publishes",
        "SELECT service, count(*) FROM publishes",
        "SET x = 1",
        "COPY history TO '/tmp/x'",
        "SELECT 1; SELECT 2",
        "SELECT CAST(event_id AS BIGINT) FROM publishes WHERE event_id = 'e-3'",
        "SELECT repeat('x', 2000000000)",
        "SELECT field_get(service, 'x') FROM publishes",
    ] {
        let error = cars.try_ask(query).await.expect_err(query);
        told.push(format!("{query}\n=> {error}\n"));
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    SELEKT 1
    => SQL error: ParserError("Expected: an SQL statement, found: SELEKT at Line: 1, Column: 1")
     --> line 1, column 1
    1 | SELEKT 1
      | ^

    SELECT service FORM publishes
    => SQL error: ParserError("Expected: end of statement, found: publishes at Line: 1, Column: 21")
     --> line 1, column 21
    1 | SELECT service FORM publishes
      |                     ^^^^^^^^^

    SELECT
      servise,
      count(*)
    FROM publishes
    GROUP BY service
    => Schema error: No field named servise. Did you mean 'publishes.service'?
    Valid fields are publishes.agent, publishes.boot, publishes.seq, publishes.at, publishes.broker_at, publishes.day, publishes.tap, publishes.system, publishes.cluster, publishes.vhost, publishes.destination, publishes.routing_key, publishes.partition, publishes.log_offset, publishes.service, publishes.instance, publishes.client, publishes.principal, publishes.connection, publishes.channel, publishes.delivery_tag, publishes.message, publishes.cluster_key, publishes.event_id, publishes.event_id_from, publishes.event_type, publishes.event_type_from, publishes.transaction_id, publishes.transaction_id_from, publishes.causation_id, publishes.causation_id_from, publishes.command, publishes.command_from, publishes.command_id, publishes.command_id_from, publishes.trace_id, publishes.trace_id_from, publishes.span_id, publishes.span_id_from, publishes.keys, publishes.headers, publishes.size, publishes.content_type, publishes.payload, publishes.confirm_expected, publishes.broker_txn, publishes.details, publishes.outcome, publishes.reason, publishes.transaction_outcome, publishes.confirmed_at, publishes.returned_at, publishes.confirm_us.
     --> line 2, column 3
    2 |   servise,
      |   ^^^^^^^
    help: possible column publishes.service

    SELECT * FROM publish
    => Error during planning: table 'flowtap.public.publish' not found
     --> line 1, column 15
    1 | SELECT * FROM publish
      |               ^^^^^^^

    SELECT coutn(*) FROM publishes
    => Error during planning: Invalid function 'coutn'.
    Did you mean 'cot'?
     --> line 1, column 8
    1 | SELECT coutn(*) FROM publishes
      |        ^^^^^
    help: Possible function 'cot'

    SELECT service, count(*) FROM publishes
    => Error during planning: Column in SELECT must be in GROUP BY or an aggregate function: While expanding wildcard, column "publishes.service" must appear in the GROUP BY clause or must be part of an aggregate function, currently only "count(Int64(1))" appears in the SELECT clause satisfies this requirement
     --> line 1, column 8
    1 | SELECT service, count(*) FROM publishes
      |        ^^^^^^^
    help: Either add 'publishes.service' to GROUP BY clause, or use an aggregate function like ANY_VALUE(publishes.service)

    SET x = 1
    => SET x is not allowed: flowtap only reads. Ask with SELECT, WITH, VALUES, EXPLAIN, DESCRIBE or SHOW

    COPY history TO '/tmp/x'
    => COPY history is not allowed: flowtap only reads. Ask with SELECT, WITH, VALUES, EXPLAIN, DESCRIBE or SHOW

    SELECT 1; SELECT 2
    => one statement at a time, these are 2

    SELECT CAST(event_id AS BIGINT) FROM publishes WHERE event_id = 'e-3'
    => Arrow error: Cast error: Cannot cast string 'e-3' to value of Int64 type

    SELECT repeat('x', 2000000000)
    => Execution error: repeat would make 1907 MiB at once, more than the 128 MiB that a function may

    SELECT field_get(service, 'x') FROM publishes
    => Execution error: field_get(fields, name) reads the columns keys and headers
    "#);
}

#[tokio::test]
async fn functions_that_make_much_of_little_are_bounded() {
    let inbox = Inbox::new();
    for call in [
        "repeat('x', 2000000000)",
        "lpad('x', 2000000000, 'yz')",
        "rpad('x', 2000000000)",
        "array_repeat('x', 2000000000)",
        "array_resize(make_array(1), 2000000000, 0)",
        "range(0, 2000000000)",
        "range(2000000000)",
        "generate_series(1, 2000000000)",
        "replace(repeat('x', 100000), 'x', repeat('y', 100000))",
        "regexp_replace(repeat('x', 100000), 'x', repeat('y', 100000), 'g')",
        "array_to_string(range(100000), repeat('y', 100000))",
    ] {
        let error = inbox.try_ask(&format!("SELECT {call}")).await.expect_err(call);
        assert!(error.contains("more than the"), "{call}: {error}");
        // The same where it cannot be folded into a constant.
        let query =
            format!("SELECT {call} FROM (SELECT * FROM generate_series(1, 3)) WHERE value > 1");
        assert!(inbox.try_ask(&query).await.is_err(), "{call}");
    }
    let ordinary = inbox
        .ask(
            "SELECT repeat('ab', 3) AS a, lpad('7', 3, '0') AS b, rpad('7', 3) AS c, \
              replace('a-b', '-', '+') AS d, range(1, 4) AS e, array_to_string(make_array(1, 2), ', ') AS f, \
              regexp_replace('a1b2', '[0-9]', '#', 'g') AS g",
        )
        .await;
    assert_eq!(
        ordinary,
        serde_json::json!([{ "a": "ababab", "b": "007", "c": "7  ", "d": "a+b",
                             "e": [1, 2, 3], "f": "1, 2", "g": "a#b#" }])
    );
}

#[tokio::test]
async fn joins_and_aggregates_are_bounded_in_memory() {
    let inbox = Inbox::new();
    for query in [
        "SELECT count(*) FROM generate_series(1, 100000000) a \
         JOIN generate_series(1, 100000000) b ON a.value = b.value + 1",
        "SELECT value FROM generate_series(1, 100000000) ORDER BY -value % 7919",
    ] {
        let limits = Limits { memory_bytes: 32 << 20, ..Limits::default() };
        let store = Store::open(&inbox.url()).unwrap();
        let context = context(&store, &limits).await.unwrap();
        let rows = flowtap_query::sql::query(&context, query).await.unwrap();
        let ended = write(query, rows, Format::Json, limits.rows, &mut std::io::sink()).await;
        let error = ended.expect_err(query).to_string();
        assert!(error.starts_with("the query needs more memory than it may take"), "{error}");
    }
}

#[tokio::test]
async fn a_table_is_readable_and_cannot_steer_the_terminal() {
    let cars = cars();
    let query = "SELECT event_id, outcome, keys, at FROM publishes ORDER BY at LIMIT 2";
    let table = cars.write(query, Format::Table { width: None }).await.unwrap();
    insta::assert_snapshot!(table, @r#"
    +----------+------------+-------------------------------------------------+----------------------+
    | event_id | outcome    | keys                                            | at                   |
    +----------+------------+-------------------------------------------------+----------------------+
    | e-1      | confirmed  | [{name: order_id, value: 1042, encoding: text}] | 2026-11-21T12:00:00Z |
    | e-2      | unroutable |                                                 | 2026-11-21T12:00:01Z |
    +----------+------------+-------------------------------------------------+----------------------+
    "#);
    let narrow = cars.write(query, Format::Table { width: Some(60) }).await.unwrap();
    assert!(narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
    let crowded =
        cars.write("SELECT * FROM topology", Format::Table { width: Some(80) }).await.unwrap();
    insta::assert_snapshot!(crowded, @r#"
    -- row 1 --------------------
    agent        | shop-a1
    boot         | 01940000-0000-7000-8000-000000000001
    seq          | 1
    at           | 2026-11-21T11:59:59Z
    day          | 2026-11-21
    tap          | proxy
    system       | rabbitmq
    cluster      | rabbit@one
    vhost        | /
    what         | queue
    outcome      | declared
    subscription | factory.payments
    arguments    | {"x-max-length":10}
    details      | {"what":"queue","arguments":{"x-max-length":10}}
    "#);
    let steered = cars
        .write("SELECT chr(27) || '[2J' AS \"x\"", Format::Table { width: None })
        .await
        .unwrap();
    assert!(steered.contains(r"\u{1b}[2J") && !steered.contains('\u{1b}'), "{steered}");
}

#[tokio::test]
async fn csv_has_a_header_and_lists_as_json() {
    let cars = cars();
    let csv = cars
        .write(
            "SELECT event_id, outcome, keys, 'a,\"b' AS odd, at FROM publishes ORDER BY at LIMIT 2",
            Format::Csv,
        )
        .await
        .unwrap();
    insta::assert_snapshot!(csv, @r#"
    event_id,outcome,keys,odd,at
    e-1,confirmed,"[{""name"":""order_id"",""value"":""1042"",""encoding"":""text""}]","a,""b",2026-11-21T12:00:00Z
    e-2,unroutable,,"a,""b",2026-11-21T12:00:01Z
    "#);
    let none = cars.write("SELECT event_id, keys FROM publishes WHERE false", Format::Csv).await;
    assert_eq!(none.unwrap(), "event_id,keys\n");
}

#[tokio::test]
async fn json_wants_every_name_once() {
    let cars = cars();
    let error = cars
        .try_ask("SELECT p.event_id, c.event_id FROM publishes p JOIN consumes c ON p.message = c.message")
        .await
        .unwrap_err();
    assert_eq!(error, "two columns are called \"event_id\"; name one of them with AS");
}
