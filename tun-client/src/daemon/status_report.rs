//! The status of a running client, put together from all who know a part of it.

use super::names::ClaimState;
use super::shared::Shared;
use super::status::{SnapshotStatus, Status};
use crate::host_dns;

/// With a clock that differs by more than this, records soon seem to have expired; seconds.
const CLOCK_TOLERANCE: i64 = 60;

/// The status now.
pub async fn collect(shared: &Shared) -> Status {
    let mut endpoint = shared.handle.status().await.unwrap_or_default();
    let (config, facts) = (shared.config(), shared.facts());
    let follow = shared.follow.borrow().clone();
    let names = shared.names.list();
    let lease = *shared.lease.borrow();
    if endpoint.id.is_empty() {
        endpoint.id = shared.handle.id().to_string();
    }
    let mut problems = Vec::new();
    problems.extend(follow.last_error.clone());
    problems.extend(clock_problem(follow.clock_ahead));
    problems.append(&mut endpoint.problems);
    {
        let own = shared.problems();
        problems.extend(own.lease.clone());
        problems.extend(own.dns.clone());
    }
    problems.extend(shared.host_state.report().problems);
    problems.extend(host_dns::check(
        &shared.host,
        &facts.dns.mode,
        shared.state.directory(),
    ));
    for name in &names {
        match &name.claim {
            ClaimState::Refused(why) => problems.push(format!("{}: refused: {why}", name.name)),
            ClaimState::Waiting(why) => problems.push(format!("{}: {why}", name.name)),
            ClaimState::Claiming | ClaimState::Published => {}
        }
    }
    endpoint.problems = problems;
    Status {
        state: facts.phase,
        step: facts.step,
        pid: std::process::id(),
        cpu: mixline_daemon::processor::in_use(),
        interface: config.interface.clone(),
        accepting: shared.accepting(),
        lease_expires: lease.map(|lease| lease.expires.0),
        dns: facts.dns,
        names,
        snapshot: SnapshotStatus {
            url: config.network.urls.first().cloned().unwrap_or_default(),
            last_success: follow.last_success.map(|time| time.0),
            last_error: follow.last_error,
            clock_ahead_s: follow.clock_ahead,
            round: follow.round.map(|round| round.0),
            roster: follow.roster,
            directories: follow.directories.into_iter().map(Into::into).collect(),
        },
        endpoint,
    }
}

fn clock_problem(ahead: Option<i64>) -> Option<String> {
    let ahead = ahead.filter(|ahead| ahead.abs() > CLOCK_TOLERANCE)?;
    let way = if ahead > 0 { "ahead of" } else { "behind" };
    Some(format!(
        "this machine's clock is {} s {way} the directory's: set it",
        ahead.abs()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_told() {
        assert_eq!(clock_problem(None), None);
        assert_eq!(clock_problem(Some(-30)), None);
        assert!(clock_problem(Some(3600)).unwrap().contains("3600 s ahead"));
        assert!(
            clock_problem(Some(-3600))
                .unwrap()
                .contains("3600 s behind")
        );
    }
}
