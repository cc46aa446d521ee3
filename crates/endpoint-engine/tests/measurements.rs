//! Measuring paths, for a person who asks.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use mixline_endpoint_engine::QueryError;
use mixline_endpoint_engine::command::{Answer, Question};
use mixline_endpoint_engine::status::PingReport;
use mixline_endpoint_engine::testing::relay::Malice;
use mixline_endpoint_engine::testing::*;

const INTERVAL: Duration = Duration::from_millis(250);

fn ping(world: &mut World, from: usize, to: usize, count: u32) -> Result<PingReport, QueryError> {
    let id = world.nodes[to].id;
    let interval = INTERVAL;
    let question = Question::Ping {
        id,
        count,
        interval,
    };
    match world.ask(from, question)? {
        Answer::Ping(report) => Ok(*report),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_path_of_a_session_is_measured() {
    let mut world = World::connected(1);
    let report = ping(&mut world, 2, 1, 5).unwrap();
    assert!(!report.opened && report.opened_ms.is_none());
    assert_eq!(report.peer, world.nodes[1].id.to_string());
    let status = world.session(2, 1);
    assert_eq!(report.paths.len(), status.paths.len());
    for (path, shown) in report.paths.iter().zip(&status.paths) {
        assert_eq!((&path.head, &path.tail), (&shown.head, &shown.tail));
        assert_eq!((path.sent, path.answered), (5, 5), "{path:?}");
        // Six relays and two links there, and as many back.
        let trip = path.rtt_ms.unwrap();
        let hop = HOP.as_secs_f64() * 1e3;
        assert!(
            trip.min_ms >= 14.0 * hop && trip.max_ms < 30.0 * hop,
            "{trip:?}"
        );
        assert!(trip.min_ms <= trip.average_ms && trip.average_ms <= trip.max_ms);
    }
}

#[test]
fn a_session_is_opened_for_it_and_the_peer_looked_up() {
    let mut world = World::pair(2);
    let report = ping(&mut world, 2, 1, 3).unwrap();
    assert!(report.opened && report.opened_ms.is_some());
    // One that is being replaced is measured, too.
    assert!((4..=5).contains(&report.paths.len()), "{report:#?}");
    assert!(
        report.paths.iter().all(|path| path.answered == 3),
        "{report:#?}"
    );
}

#[test]
fn what_a_relay_swallows_is_lost_on_its_paths_only() {
    let mut world = World::connected(3);
    let head = world.session(2, 1).paths[0].head.clone();
    let at = world.relay_named(&head[2]);
    world.relays[at].malice = Malice::Swallow;
    let name = world.relays[at].name.clone();
    let report = ping(&mut world, 2, 1, 4).unwrap();
    let through: Vec<_> = report
        .paths
        .iter()
        .filter(|p| p.head.contains(&name))
        .collect();
    assert!(!through.is_empty());
    assert!(
        through
            .iter()
            .all(|path| path.answered == 0 && path.sent > 0),
        "{report:#?}"
    );
    assert!(
        through
            .iter()
            .all(|path| path.replies.iter().all(Option::is_none))
    );
    assert!(
        report.paths.iter().any(|path| path.answered == path.sent),
        "{report:#?}"
    );
}

#[test]
fn nobody_and_the_dead_are_said() {
    let mut world = World::pair(4);
    let nobody = world.random_key().anonymous_id();
    let question = Question::Ping {
        id: nobody,
        count: 1,
        interval: INTERVAL,
    };
    assert!(matches!(
        world.ask(2, question),
        Err(QueryError::Refused(_))
    ));
    let own = ping(&mut world, 2, 2, 1);
    assert!(matches!(own, Err(QueryError::Refused(_))), "{own:?}");
    world.nodes[1].dead = true;
    let dead = ping(&mut world, 2, 1, 1);
    assert!(matches!(dead, Err(QueryError::Timeout(_))), "{dead:?}");
}

#[test]
fn a_peer_that_dies_meanwhile_leaves_what_was_measured() {
    let mut world = World::connected(5);
    let before = ping(&mut world, 2, 1, 2).unwrap();
    assert!(before.paths.iter().all(|path| path.answered == 2));
    world.nodes[1].dead = true;
    let report = ping(&mut world, 2, 1, 20).unwrap();
    assert!(
        report.paths.iter().all(|path| path.answered == 0),
        "{report:#?}"
    );
}

#[test]
fn measurements_are_few_at_a_time_and_end_with_the_endpoint() {
    let mut world = World::connected(6);
    let id = world.nodes[1].id;
    let ask = |world: &mut World, number| {
        let question = Question::Ping {
            id,
            count: 100,
            interval: Duration::from_secs(1),
        };
        let number = mixline_endpoint_engine::command::RequestNumber(number);
        world.command(
            2,
            mixline_endpoint_engine::command::Command::Ask(number, question),
        );
        number
    };
    let numbers: Vec<_> = (1000..1008).map(|number| ask(&mut world, number)).collect();
    let one_more = ask(&mut world, 2000);
    assert!(matches!(
        world.nodes[2].answers.remove(&one_more),
        Some(Err(QueryError::Busy))
    ));
    world.run(Duration::from_secs(2));
    assert!(world.nodes[2].answers.is_empty());
    world.command(2, mixline_endpoint_engine::command::Command::Shutdown);
    for number in numbers {
        let answer = world.nodes[2].answers.remove(&number);
        assert!(
            matches!(answer, Some(Err(QueryError::Stopped))),
            "{answer:?}"
        );
    }
}
