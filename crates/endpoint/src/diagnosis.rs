//! Looking at the way to guards that do not answer, now and then, so that the status says why.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mixline_endpoint_engine::PathFinding;
use mixline_protocol::identity::{ShortId, X25519Public};
use tokio::task::JoinSet;

use crate::guard_probes::{AddressProbe, ProbeOptions, probe_address};

/// How often the way to one guard is looked at while it is down.
const EVERY: Duration = Duration::from_secs(30);
/// Short questions to it.
const QUESTIONS: u32 = 4;
/// Ways that are looked at at the same time.
const AT_ONCE: usize = 8;

/// The ways that are being looked at, and when each was last.
#[derive(Default)]
pub struct Diagnosis {
    looking: JoinSet<(ShortId, PathFinding)>,
    looked: HashMap<ShortId, Instant>,
}

impl Diagnosis {
    /// Begins to look at the ways to these guards, unless that was done lately. In a runtime.
    pub fn look(
        &mut self,
        guards: impl Iterator<Item = (ShortId, SocketAddr, X25519Public)>,
        now: Instant,
    ) {
        self.looked
            .retain(|_, at| now.saturating_duration_since(*at) < EVERY);
        for (guard, address, link) in guards {
            if self.looking.len() >= AT_ONCE || self.looked.contains_key(&guard) {
                continue;
            }
            self.looked.insert(guard, now);
            self.looking.spawn(async move {
                let options = ProbeOptions {
                    questions: QUESTIONS,
                    ..ProbeOptions::default()
                };
                let probed = probe_address(address, link, &options).await;
                (guard, finding(address, &probed))
            });
        }
    }

    /// The host has moved: what was found out holds no more.
    pub fn forget(&mut self) {
        self.looked.clear();
    }

    /// Waits for the next finding; for ever if nothing is looked at.
    pub async fn found(&mut self) -> (ShortId, PathFinding) {
        loop {
            match self.looking.join_next().await {
                Some(Ok(found)) => return found,
                Some(Err(error)) => tracing::debug!(%error, "looking at the way to a guard"),
                None => return std::future::pending().await,
            }
        }
    }
}

fn finding(address: SocketAddr, probed: &AddressProbe) -> PathFinding {
    let answers = probed.answered > 0;
    // A relay that answers no such question leaves what the kernel knows.
    let known = probed.mtu_known.filter(|_| !answers);
    PathFinding {
        address,
        answers,
        needed: probed.mtu_needed,
        out: probed.mtu_out.or(known),
        back: probed.mtu_in,
    }
}
