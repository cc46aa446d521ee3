#![allow(clippy::unwrap_used)]
use mixline_endpoint_engine::command::{Answer, Question};
use mixline_endpoint_engine::testing::*;
use std::time::Duration;
#[test]
fn seeds() {
    let mut counts = std::collections::BTreeMap::new();
    for seed in 0..60 {
        let mut world = World::pair(seed);
        let id = world.nodes[1].id;
        let r = world.ask(
            2,
            Question::Ping {
                id,
                count: 3,
                interval: Duration::from_millis(200),
            },
        );
        if let Ok(Answer::Ping(r)) = r {
            *counts.entry(r.paths.len()).or_insert(0) += 1;
        }
    }
    panic!("{counts:?}");
}
