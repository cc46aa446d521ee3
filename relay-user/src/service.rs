//! What a relay tells the service manager while it runs.

use std::time::{Duration, Instant};

use mixline_daemon::service_manager;
use mixline_daemon::watchdog::Watchdog;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::observe::{Report, Source};

/// How often the status line is looked at.
const STATUS: Duration = Duration::from_secs(5);
/// A worker's loop and the control plane's make a round in a second at the latest; twice as much,
/// and some for a machine that is busy.
const ROUND: Duration = Duration::from_secs(3);
/// How long the workers have for their first round.
const FIRST_ROUND: Duration = Duration::from_secs(10);

/// Waits until all workers have made a round: from then on the relay relays. One that does not
/// in time is the watchdog's affair.
pub async fn wait_for_workers(source: &Source) {
    let end = Instant::now() + FIRST_ROUND;
    while source.workers().iter().any(|worker| worker.rounds() == 0) && Instant::now() < end {
        sleep(Duration::from_millis(2)).await;
    }
}

/// Shows what the relay does, whenever that changes.
pub async fn show_status(source: &Source) {
    let mut shown = String::new();
    let mut ticks = interval(STATUS);
    loop {
        ticks.tick().await;
        let line = line(&source.report());
        if line != shown {
            service_manager::status(&line);
            shown = line;
        }
    }
}

/// Keeps the watchdog quiet as long as the control plane and all workers live, if there is
/// a watchdog. It runs on the control plane's thread.
pub async fn keep_alive(source: &Source) {
    let Some(mut dog) = Watchdog::asked_for() else {
        return std::future::pending().await;
    };
    let control = source.control.clone();
    dog.watch("the control plane", ROUND, move || control.ticks());
    for (number, worker) in source.workers().iter().enumerate() {
        let worker = worker.clone();
        dog.watch(format!("worker {number}"), ROUND, move || worker.rounds());
    }
    let mut ticks = interval(dog.every());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        dog.look(Instant::now());
    }
}

/// A report in one line.
pub fn line(report: &Report) -> String {
    let directory = &report.directory;
    let standing = match &directory.last_error {
        _ if report.hibernating => "hibernating until the next month".into(),
        _ if report.leaving => "leaving: no new paths".into(),
        Some(error) => format!("not registered: {error}"),
        None if directory.listed => "in the directory".into(),
        None => "not in the directory yet".into(),
    };
    format!(
        "{standing}; port {}, {} relays, {} clients, {} paths, {} of {} datagrams/s",
        report.port.kind,
        report.links.relays,
        report.links.clients,
        report.paths.known,
        report.load,
        report.capacity
    )
}
