use super::*;
use crate::machine;
use crate::measure::Summary;
use crate::outcome::{Axis, Bar, Bars, Bound, Lines, Point, Scale, Series};

fn outcome() -> Outcome {
    let summary = Summary {
        median: 10.0,
        low: 9.0,
        high: 12.0,
    };
    let axis = |scale| Axis {
        label: "paths & sessions".into(),
        scale,
    };
    let point = |x, y| Point {
        x,
        y,
        spread: Some((y * 0.9, y * 1.1)),
    };
    let lines = |scale| {
        Plot::Lines(Lines {
            title: "lines".into(),
            note: String::new(),
            x: axis(scale),
            y: axis(Scale::Linear),
            series: vec![
                Series {
                    label: "first <line>".into(),
                    points: vec![point(0.5, 1.0), point(0.9, 1.5), point(0.99, f64::NAN)],
                },
                Series {
                    label: "second".into(),
                    points: Vec::new(),
                },
            ],
            bounds: vec![("at most 1.6".into(), 1.6)],
        })
    };
    Outcome {
        table: "a table <of> figures".into(),
        json: serde_json::json!({}),
        goals: vec![
            Goal::at_most("a ratio", Some(1.2), 1.35),
            Goal::at_least("a rate", Some(1.0), 2.0),
            Goal::at_least("a missing one", None, 2.0),
        ],
        plots: vec![
            Plot::Bars(Bars {
                title: "bars".into(),
                note: "\"quoted\"".into(),
                unit: "ns".into(),
                bars: vec![
                    Bar::new("relay", summary).with(Bound::AtMost(13.5)),
                    Bar::new("baseline", Summary::of(f64::NAN)),
                ],
            }),
            lines(Scale::Linear),
            lines(Scale::Logarithmic),
            lines(Scale::Nines),
        ],
    }
}

fn page() -> String {
    let outcome = outcome();
    let section = Section {
        name: "hop",
        about: "one & only",
        outcome: &outcome,
    };
    html(&machine::describe(), &[section])
}

/// Every element that is opened is closed, in order.
#[test]
fn elements_are_nested() {
    let page = page();
    let mut open = Vec::new();
    for tag in page.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        let name = tag.split_whitespace().next().unwrap();
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "in {tag}"),
            None if name == "!doctype" || name == "meta" => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?} still open");
}

#[test]
fn what_was_found_is_there_and_escaped() {
    let page = page();
    for text in [
        "<h2 id=\"hop\">hop</h2>",
        "one &amp; only",
        "a table &lt;of&gt; figures",
        "first &lt;line&gt;",
        "✓ 1.2  (≤ 1.35)",
        "✗ 1  (≥ 2)",
        "not measured",
        "10 ns  (≤ 13.5)",
    ] {
        assert!(page.contains(text), "no {text}");
    }
    assert_eq!(page.matches("<svg").count(), 5);
}

/// Nothing is fetched from anywhere, and nothing is drawn nowhere.
#[test]
fn the_file_needs_no_other() {
    let page = page();
    for foreign in [
        "<script", "<link", "src=", "href=", "url(", "@import", "NaN", "inf\"",
    ] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}
