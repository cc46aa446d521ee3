//! What a client tells the service manager while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mixline_daemon::service_manager;
use mixline_daemon::watchdog::Watchdog;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::shared::Shared;
use super::status::Phase;
use super::status_report;

/// How often the status line is looked at.
const STATUS: Duration = Duration::from_secs(10);

/// Shows what is wrong with a client that is up, whenever that changes.
pub async fn show_problems(shared: Arc<Shared>, all_is_well: String) {
    let mut shown = all_is_well.clone();
    let mut ticks = interval(STATUS);
    loop {
        ticks.tick().await;
        let status = status_report::collect(&shared).await;
        let line = match status.endpoint.problems.first() {
            _ if status.state != Phase::Up => continue,
            None => all_is_well.clone(),
            Some(problem) => format!("{all_is_well}; problem: {problem}"),
        };
        if line != shown {
            service_manager::status(&line);
            shown = line;
        }
    }
}

/// Keeps the watchdog quiet as long as the endpoint's thread answers, if there is a watchdog.
pub async fn keep_alive(shared: Arc<Shared>) {
    let Some(mut dog) = Watchdog::asked_for() else {
        return;
    };
    let every = dog.every();
    let answers = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&answers);
    // An answer that takes longer than a round is one that did not come.
    dog.watch("the endpoint", every * 2, move || {
        counted.load(Ordering::Relaxed)
    });
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Ok(Some(_)) = timeout(every, shared.handle.status()).await {
            answers.fetch_add(1, Ordering::Relaxed);
        }
        dog.look(Instant::now());
    }
}
