//! `docs/sql.md` says what is so: its questions run, its columns are all there.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{BOOT_1, NOON, SECOND, cars, row};
use flowtap_record::{Kind, Observation};

const PAGE: &str = include_str!("../../docs/sql.md");

/// A record that a group took, and the group set back.
fn kafka() -> [Observation<'static>; 2] {
    let at = |kind, at, offset| {
        let mut row = row(kind, at);
        row.place.system = Some("kafka");
        row.place.destination = Some("car-events");
        row.place.subscription = Some("showroom");
        row.place.partition = Some(1);
        row.place.log_offset = Some(offset);
        row
    };
    let mut back = at(Kind::Position, NOON + SECOND, 50);
    back.details = Some(r#"{"from":58}"#);
    [at(Kind::Deliver, NOON, 57), back]
}

#[tokio::test]
async fn each_question_of_the_page_has_an_answer() {
    let cars = cars();
    cars.put("showroom-c3", BOOT_1, 1, &kafka());
    let questions: Vec<&str> = PAGE
        .split("```sql\n")
        .skip(1)
        .map(|rest| rest.split("```").next().expect("split gives one"))
        .collect();
    assert_eq!(questions.len(), 12);
    for question in questions {
        let answer = cars.ask(question).await;
        let rows = answer.as_array().unwrap();
        let none = question.contains("LEFT ANTI JOIN");
        assert_eq!(rows.is_empty(), none, "{question}\n{answer}");
    }
}

#[tokio::test]
async fn the_page_names_every_column() {
    let cars = cars();
    for table in
        ["history", "publishes", "consumes", "positions", "topology", "gaps", "flows", "flow_days"]
    {
        for column in cars.ask(&format!("DESCRIBE {table}")).await.as_array().unwrap() {
            let name = column["column_name"].as_str().unwrap();
            assert!(PAGE.contains(&format!("`{name}`")), "{table}.{name}");
        }
    }
}
