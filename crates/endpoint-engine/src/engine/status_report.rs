//! The engine's state, for a person.

use mixline_protocol::identity::ShortId;

use super::Engine;
use crate::clock::Now;
use crate::directory::pseudonyms::Pseudonym;
use crate::guard_links::GuardTarget;
use crate::limits::{NEW_RELAYS_BURST, NEW_RELAYS_PER_HOUR};
use crate::relays::layers::Member;
use crate::session::paths::{Health, Path};
use crate::session::{Phase, Session};
use crate::status::{
    BudgetStatus, DirectoryStatus, EffortStatus, GuardStatus, KeptRelayStatus, LayerStatus,
    NetworkStatus, PathStatus, SessionStatus, Status, TailStatus, milliseconds,
};
use crate::tails::Owner;

impl Engine {
    /// The state of everything.
    #[must_use]
    pub fn status(&self, now: Now) -> Status {
        let lease = self.pseudonyms.lease(now.unix());
        let mut counters = self.counters;
        counters.datagrams_out = self.outbox.total();
        counters.overflow += self.outbox.dropped();
        Status {
            id: self.pseudonyms.get(Pseudonym::Own).id.to_string(),
            ipv4: lease.map(|lease| lease.ipv4.to_string()),
            ipv6: self.ipv6.to_string(),
            online: self.online,
            uptime_s: now
                .instant
                .saturating_duration_since(self.started.instant)
                .as_secs(),
            problems: self.problems_at(now),
            network: self.network_status(),
            guards: self.guard_status(),
            layers: self.layer_status(),
            budget: BudgetStatus {
                left: self.budgets.left(now.instant),
                most: NEW_RELAYS_BURST,
                per_hour: NEW_RELAYS_PER_HOUR,
                peers_used_up: self.budgets.used_up(now.instant),
            },
            effort: EffortStatus {
                suggested: self.strangers.suggestion.current(),
                published: self.asked_effort(),
                waiting: self.strangers.waiting(),
            },
            tails: self.tail_status(),
            sessions: self
                .sessions
                .iter()
                .map(|(_, s)| self.session_status(s, now))
                .collect(),
            directory: DirectoryStatus {
                pending: self.queries.len(),
                published: self.publication.published_at,
                last_error: self.queries.last_error.clone(),
            },
            counters,
        }
    }

    /// What keeps the endpoint from being online.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.network.is_none() {
            problems.push("there is no snapshot of the network yet".to_owned());
        } else if self.guards.in_use().next().is_none() {
            problems.push("the network has no relay that can be a guard from here".to_owned());
        } else if !self.links.any_up() {
            problems.push("no guard can be reached".to_owned());
        }
        let narrow = self.links.findings().filter(|(_, found)| found.is_narrow());
        problems.extend(narrow.map(|(guard, found)| {
            let name = self.relay_name(&guard);
            format!(
                "guard {name}: {found}; raise the MTU on the way, of this host's interface first"
            )
        }));
        problems.extend(self.mailboxes.refusing().map(|guard| {
            let name = self.relay_name(&guard);
            format!("guard {name} takes no more mailboxes: nothing is received through it")
        }));
        problems.extend(self.shortage.clone());
        problems
    }

    fn problems_at(&self, now: Now) -> Vec<String> {
        let mut problems = self.problems();
        if let Some(network) = &self.network
            && now.unix() >= network.snapshot().valid_until
        {
            problems.push(
                "the snapshot of the network has expired: the directory cannot be reached, or \
                 this machine's clock is wrong"
                    .to_owned(),
            );
        }
        problems
    }

    fn network_status(&self) -> NetworkStatus {
        let shortage = self.shortage.clone();
        match &self.network {
            Some(network) => NetworkStatus {
                relays: network.relays().len(),
                issued: network.snapshot().issued.0,
                valid_until: network.snapshot().valid_until.0,
                shortage,
            },
            None => NetworkStatus {
                shortage,
                ..NetworkStatus::default()
            },
        }
    }

    fn layer_status(&self) -> Vec<LayerStatus> {
        let one = |(member, substitute): (&Member, bool)| {
            let relay = member.relay();
            let network = self.network.as_ref();
            KeptRelayStatus {
                name: self.relay_name(&relay),
                relay: relay.to_string(),
                until: member.until(),
                substitute,
                listed: network.is_some_and(|network| network.relay(&relay).is_some()),
            }
        };
        ["second", "third"]
            .into_iter()
            .zip(self.guards.kept())
            .map(|(name, layer)| LayerStatus {
                layer: name.to_owned(),
                relays: layer.views().map(one).collect(),
            })
            .filter(|layer| !layer.relays.is_empty())
            .collect()
    }

    fn guard_status(&self) -> Vec<GuardStatus> {
        let one = |(id, temporary): (mixline_protocol::identity::RelayId, bool)| {
            let short = id.short();
            let view = self.links.view(&id);
            let finding = view.as_ref().and_then(|view| view.finding);
            let relay = self
                .network
                .as_ref()
                .and_then(|network| network.relay_of(&id));
            let state = match (&view, relay) {
                (Some(view), _) if view.up => "up",
                (_, None) => "not in the snapshot",
                (Some(view), _) if view.last_error.is_some() => "down",
                _ => "connecting",
            };
            GuardStatus {
                name: relay.map_or_else(|| short.to_string(), |relay| relay.name.clone()),
                relay: short.to_string(),
                temporary,
                state: state.to_owned(),
                rtt_ms: view.as_ref().and_then(|view| view.rtt).map(milliseconds),
                mailboxes: self.tails.at_guard(&short),
                mtu_out: finding.and_then(|finding| finding.narrow_out()),
                mtu_in: finding.and_then(|finding| finding.narrow_back()),
                last_error: finding
                    .map(|finding| finding.to_string())
                    .or_else(|| view.and_then(|view| view.last_error)),
            }
        };
        self.guards.in_use().map(one).collect()
    }

    /// The guards in use and how each is reached.
    pub(super) fn guard_targets(&self) -> Vec<GuardTarget> {
        let ids = self.guards.in_use().map(|(id, _)| id);
        ids.zip(self.guard_status())
            .filter_map(|(id, status)| {
                let (link, addresses) = self.links.reached(&id)?;
                Some(GuardTarget {
                    status,
                    link,
                    addresses,
                })
            })
            .collect()
    }

    fn tail_status(&self) -> TailStatus {
        let mut status = TailStatus::default();
        for (_, tail) in self.tails.iter() {
            match tail.owner {
                _ if !tail.registration.is_done() => status.registering += 1,
                _ if tail.draining.is_some() => {}
                Owner::Public => status.public += 1,
                Owner::Session(_) => status.private += 1,
                Owner::Spare => status.spare += 1,
            }
        }
        status
    }

    fn session_status(&self, session: &Session, now: Now) -> SessionStatus {
        let since = |at| now.instant.saturating_duration_since(at).as_secs();
        SessionStatus {
            peer: session.peer.to_string(),
            ipv4: session.ipv4.map(|(ip, _)| ip.to_string()),
            ipv6: session.ipv6.to_string(),
            state: match session.phase {
                Phase::Opening => "connecting",
                Phase::Unconfirmed => "answering",
                Phase::Established => "established",
            }
            .to_owned(),
            local: session.pseudonym.name().to_owned(),
            initiated: session.initiated,
            age_s: since(session.since),
            idle_s: since(session.used),
            paths: session
                .paths
                .iter()
                .map(|path| self.path_status(path, now))
                .collect(),
            traffic: session.traffic,
            last_error: session.last_error.clone(),
        }
    }

    /// What people call a relay.
    pub(super) fn relay_name(&self, relay: &ShortId) -> String {
        match &self.network {
            Some(network) => network.name(relay),
            None => relay.to_string(),
        }
    }

    fn path_status(&self, path: &Path, now: Now) -> PathStatus {
        let name = |relay| self.relay_name(relay);
        PathStatus {
            head: path.relays.iter().map(name).collect(),
            tail: name(&path.tail_first),
            state: match path.health(now.instant) {
                _ if path.retiring.is_some() => "retiring",
                Health::Alive => "alive",
                Health::Unproven => "unproven",
                Health::Suspect => "suspect",
            }
            .to_owned(),
            rtt_ms: path.rtt.map(milliseconds),
            cells: path.cells,
        }
    }
}
