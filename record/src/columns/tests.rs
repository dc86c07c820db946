use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};

use super::*;
use crate::observation::{Encoding, Gap, Ids, Kind, Outcome, Tap};

fn id(value: &'static str) -> Id<'static> {
    Id { value, from: "rule:test" }
}

/// A row whose every column holds its own name (or a number of its own).
fn full_row() -> Observation<'static> {
    let mut row = Observation::new(Kind::Settle, Micros(5));
    row.broker_at = Some(Micros(6));
    row.outcome = Some(Outcome::Acked);
    row.reason = Some("reason");
    row.details = Some("details");
    row.tap = Some(Tap::Proxy);
    row.concludes = Some(RowRef { boot: None, seq: Seq(2) });
    row.place.system = Some("system");
    row.place.cluster = Some("cluster");
    row.place.vhost = Some("vhost");
    row.place.destination = Some("destination");
    row.place.routing_key = Some("routing_key");
    row.place.subscription = Some("subscription");
    row.place.partition = Some(10);
    row.place.log_offset = Some(11);
    row.who.service = Some("service");
    row.who.instance = Some("instance");
    row.who.client = Some("client");
    row.who.principal = Some("principal");
    row.who.connection = Some(12);
    row.who.channel = Some(13);
    row.who.consumer = Some("consumer");
    row.who.delivery_tag = Some(14);
    row.message.message = Some("message");
    row.message.ids = Ids {
        event_id: Some(id("event_id")),
        event_type: Some(id("event_type")),
        transaction_id: Some(id("transaction_id")),
        causation_id: Some(id("causation_id")),
        command: Some(id("command")),
        command_id: Some(id("command_id")),
        trace_id: Some(id("trace_id")),
        span_id: Some(id("span_id")),
    };
    row.message.keys = vec![Field { name: "k", value: "v", encoding: Encoding::Text }];
    row.message.headers = vec![Field { name: "h", value: "1", encoding: Encoding::Json }];
    row.message.size = Some(15);
    row.message.content_type = Some("content_type");
    row.message.payload = Some(b"payload");
    row.session.redelivered = Some(true);
    row.session.attempt = Some(16);
    row.session.took_us = Some(17);
    row.session.confirm_expected = Some(false);
    row.session.broker_txn = Some("broker_txn");
    row.causes = vec![RowRef { boot: Some("other"), seq: Seq(18) }];
    row.rung = Some("rung");
    row.rule_version = Some("rule_version");
    row.confidence = Some(0.5);
    row.gap = Gap { from: Some(Micros(19)), to: Some(Micros(20)), count: Some(21) };
    row
}

#[test]
fn every_value_lands_in_the_column_of_its_name() {
    let mut builder = HistoryBuilder::new("agent", "boot");
    builder.append(Seq(1), &full_row());
    builder.append(Seq(2), &Observation::new(Kind::Gap, Micros(9)));
    let batch = builder.finish().unwrap();
    assert_eq!(batch.num_rows(), 2);
    assert!(builder.is_empty());

    let fixed = [("ref_boot", "boot"), ("kind", "settle"), ("outcome", "acked"), ("tap", "proxy")];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        assert!(!column.is_null(0), "{} is null in a full row", field.name());
        if let Some(texts) = column.as_string_opt::<i32>() {
            let want = fixed.iter().find(|(name, _)| name == field.name()).map_or_else(
                || if field.name().ends_with("_from") { "rule:test" } else { field.name() },
                |(_, want)| want,
            );
            assert_eq!(texts.value(0), want, "column {}", field.name());
        }
        if field.is_nullable() {
            assert!(column.is_null(1), "{} is not null in an empty row", field.name());
        }
    }
    let int64 =
        |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(0);
    let int32 =
        |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int32Type>().value(0);
    let time = |name: &str| {
        batch.column_by_name(name).unwrap().as_primitive::<TimestampMicrosecondType>().value(0)
    };
    assert_eq!([int64("seq"), int64("ref_seq"), int64("log_offset")], [1, 2, 11]);
    assert_eq!([int64("connection"), int64("delivery_tag"), int64("took_us")], [12, 14, 17]);
    assert_eq!([int64("gap_count"), int64("size")], [21, 15]);
    assert_eq!([int32("partition"), int32("channel"), int32("attempt")], [10, 13, 16]);
    assert_eq!([time("at"), time("broker_at"), time("gap_from"), time("gap_to")], [5, 6, 19, 20]);
}

#[test]
fn lists_keep_their_rows() {
    let mut builder = HistoryBuilder::new("a", "b");
    let mut row = Observation::new(Kind::Publish, Micros(0));
    row.message.keys = vec![
        Field { name: "order_id", value: "1", encoding: Encoding::Text },
        Field { name: "order_id", value: "2", encoding: Encoding::Text },
    ];
    builder.append(Seq(1), &row);
    builder.append(Seq(2), &Observation::new(Kind::Publish, Micros(0)));
    row.message.keys.truncate(1);
    builder.append(Seq(3), &row);
    let batch = builder.finish().unwrap();
    let keys = batch.column_by_name("keys").unwrap().as_list::<i32>();
    assert_eq!((keys.value(0).len(), keys.is_null(1), keys.value(2).len()), (2, true, 1));
}
