use super::*;

const NOW: Micros = Micros(1_000_000_000_000);
const LONG_AGO: Micros = Micros(1_000_000_000);

fn place(kind: PlaceKind, name: &str) -> Place {
    Place { vhost: "/".into(), kind, name: name.into() }
}

/// A broker that counted so many publishes to `x` and deliveries from `q`, all acknowledged.
fn counted(published: i64, delivered: i64) -> Counted {
    let exchange = Figures { published, ..Figures::default() };
    let queue = Figures { delivered, acked: delivered, ..Figures::default() };
    Counted {
        at: NOW,
        cluster: "rabbit@one".into(),
        nodes: [("rabbit@one".to_owned(), Micros(1))].into(),
        vhosts: ["/".to_owned()].into(),
        places: vec![
            (place(PlaceKind::Exchange, "x"), exchange),
            (place(PlaceKind::Queue, "q"), queue),
        ],
        ..Counted::default()
    }
}

fn earlier() -> Counted {
    Counted { at: Micros(2), ..counted(100, 100) }
}

/// A history with ten messages from `x` through `q`.
fn ten() -> History {
    let times = Seen { first: LONG_AGO, last: LONG_AGO, ..Seen::default() };
    let exchange = Seen { published: 10, answered: 10, ..times };
    let queue = Seen { delivered: 10, acked: 10, ..times };
    History {
        places: [
            (place(PlaceKind::Exchange, "x"), exchange),
            (place(PlaceKind::Queue, "q"), queue),
        ]
        .into(),
        first: Some(LONG_AGO),
        vhosts: ["/".to_owned()].into(),
        ..History::default()
    }
}

fn found(compared: &Compared) -> Vec<(What, &str, i64, i64)> {
    let differences = compared.differences.iter();
    differences.map(|it| (it.what, it.counter, it.broker, it.history)).collect()
}

/// Nothing is wrong, and this is why nothing is proved.
fn open(compared: &Compared) -> &str {
    assert_eq!(compared.differences, []);
    assert!(!compared.unproven.is_empty());
    &compared.unproven[0]
}

#[test]
fn equal_figures_are_clean_whether_figures_were_kept_or_not() {
    for compared in [
        compare(&counted(10, 10), None, &ten()),
        compare(&counted(110, 110), Some(&earlier()), &ten()),
    ] {
        assert_eq!((compared.equal, compared.published), (2, 10));
        assert_eq!((compared.differences, compared.unproven), (Vec::new(), Vec::new()));
    }
}

#[test]
fn what_the_broker_counted_and_no_row_tells_of_is_missing() {
    let compared = compare(&counted(111, 112), Some(&earlier()), &ten());
    assert_eq!(
        found(&compared),
        [
            (What::Missing, "published", 11, 10),
            (What::Missing, "delivered", 12, 10),
            (What::Missing, "acked", 12, 10),
        ]
    );
    assert_eq!(compared.differences[0].place, place(PlaceKind::Exchange, "x"));
}

#[test]
fn rows_of_what_the_broker_never_counted_are_doubled() {
    let compared = compare(&counted(109, 109), Some(&earlier()), &ten());
    // An acknowledgement may have been lost on its way to the broker.
    let doubled = [(What::Doubled, "published", 9, 10), (What::Doubled, "delivered", 9, 10)];
    assert_eq!(found(&compared), doubled);
    // As may a publish that nobody answered.
    let mut history = ten();
    history.places.get_mut(&place(PlaceKind::Exchange, "x")).unwrap().answered = 9;
    assert_eq!(found(&compare(&counted(109, 110), Some(&earlier()), &history)), []);
}

#[test]
fn more_at_the_broker_proves_nothing_where_something_else_explains_it() {
    let (more, before) = (counted(111, 110), earlier());
    assert!(open(&compare(&more, None, &ten())).contains("--since"));
    let blind = History { incomplete: Some("blind".into()), ..ten() };
    assert!(open(&compare(&more, Some(&before), &blind)).contains("blind"));
    let peer = ("/".to_owned(), "10.0.0.9".to_owned(), 5000);
    let around = Counted { connections: vec![peer], ..more.clone() };
    assert!(open(&compare(&around, Some(&before), &ten())).contains("10.0.0.9:5000"));
    let own = History { own: [("10.0.0.9".to_owned(), 5000)].into(), ..ten() };
    assert_eq!(found(&compare(&around, Some(&before), &own)).len(), 1);
    let mut cut = ten();
    cut.places.get_mut(&place(PlaceKind::Queue, "q")).unwrap().abandoned = 1;
    assert!(
        open(&compare(
            &Counted {
                places: vec![(
                    place(PlaceKind::Queue, "q"),
                    Figures { delivered: 111, acked: 110, ..Figures::default() },
                )],
                ..more.clone()
            },
            Some(&before),
            &cut
        ))
        .contains("on their way")
    );
}

#[test]
fn figures_prove_nothing_after_a_restart_or_where_they_are_off_or_young() {
    let restarted = Counted { nodes: [("b".to_owned(), Micros(3))].into(), ..counted(5, 5) };
    assert!(open(&compare(&restarted, Some(&earlier()), &ten())).contains("node b started"));
    let off = Counted { off: Some("off".into()), ..counted(10, 10) };
    assert_eq!(open(&compare(&off, None, &ten())), "off");
    let other = Counted { cluster: "two".into(), ..counted(10, 10) };
    let unknown =
        History { first: None, clusters: vec!["rabbit@one".into()], ..History::default() };
    assert!(open(&compare(&other, None, &unknown)).contains("it has: rabbit@one"));
    let mut busy = ten();
    for seen in busy.places.values_mut() {
        seen.last = NOW;
    }
    assert!(open(&compare(&counted(109, 109), Some(&earlier()), &busy)).contains("15 seconds"));
    let mut deleted = ten();
    deleted.deleted = ten().places.keys().cloned().collect();
    assert!(open(&compare(&counted(1, 1), None, &deleted)).contains("made anew"));
    let hidden = Counted { vhosts: BTreeSet::new(), ..counted(10, 10) };
    assert!(open(&compare(&hidden, None, &ten())).contains("vhost /"));
}
