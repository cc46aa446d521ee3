//! The leased IPv4 address: the client asks for it, keeps it and renews it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mixline_daemon::due::Due;
use mixline_protocol::address::VirtualNetwork;
use mixline_protocol::identity::{AnonymousId, NetworkId};
use mixline_protocol::records::{Lease, Snapshot};
use mixline_protocol::time::UnixTime;

use super::shared::Shared;

/// A renewal that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(10);
/// Bounds of the time to the next renewal, which is at half of what is left.
const SOONEST: u64 = 60;
const LATEST: u64 = 6 * 3600;

/// The kept lease, if it is this ID's, holds, and lies in the network as it is now.
#[must_use]
pub fn usable(
    kept: Option<Lease>,
    id: AnonymousId,
    directory: &AnonymousId,
    network: &VirtualNetwork,
    now: UnixTime,
) -> Option<Lease> {
    kept.filter(|lease| {
        lease.id == id && network.leasable(lease.ipv4) && lease.verify(directory, now).is_ok()
    })
}

/// Who grants leases, as far as a snapshot says; the network itself is the directory that is alone.
#[must_use]
pub fn granted_by(snapshot: Option<&Snapshot>, network: NetworkId) -> AnonymousId {
    let service = snapshot.and_then(Snapshot::service);
    service.map_or(AnonymousId(network.0), |service| service.id)
}

/// Asks for a lease and renews it, for ever.
pub async fn keep(shared: Arc<Shared>) {
    loop {
        let wait = match shared.handle.directory().lease().await {
            Ok(lease) => {
                adopt(&shared, lease);
                shared.problems().lease = None;
                Duration::from_secs(renewal(&lease, UnixTime::from(SystemTime::now())))
            }
            Err(error) => {
                let text = format!("no lease: {error}");
                if shared.problems().lease.replace(text) != Some(format!("no lease: {error}")) {
                    tracing::warn!(%error, "no lease of an IPv4 address; trying again");
                }
                RETRY
            }
        };
        // Leases end by the wall clock.
        Due::after(wait).wait().await;
    }
}

/// Uses a lease: it goes to the disk, to the host and to the responder. The endpoint has it already.
pub fn adopt(shared: &Shared, lease: Lease) {
    shared
        .host_state
        .want(|wanted| wanted.lease = Some(lease.ipv4));
    let before: Option<Ipv4Addr> = shared.lease.borrow().as_ref().map(|lease| lease.ipv4);
    shared.lease.send_replace(Some(lease));
    if before.is_some_and(|before| before != lease.ipv4) {
        tracing::info!("the leased address is another now");
    }
    if let Err(error) = shared.state.keep_lease(&lease) {
        // The address can be leased again after a restart.
        tracing::warn!(%error, "the lease is not kept");
    }
}

/// Seconds until the lease should be renewed.
fn renewal(lease: &Lease, now: UnixTime) -> u64 {
    (lease.expires.since(now) / 2).clamp(SOONEST, LATEST)
}

#[cfg(test)]
mod tests {
    use mixline_protocol::identity::IdentityKey;

    use super::*;

    #[test]
    fn only_a_lease_that_holds_is_used() {
        let (own, directory) = (
            IdentityKey::from_seed([1; 32]),
            IdentityKey::from_seed([2; 32]),
        );
        let (id, directory_id) = (own.anonymous_id(), directory.anonymous_id());
        let (now, network) = (UnixTime(1_000_000), VirtualNetwork::default());
        let address = Ipv4Addr::new(10, 1, 2, 3);
        let lease = Lease::grant(address, id, now.plus(100), &directory);
        let check = |lease, id, network: &VirtualNetwork, now| {
            usable(Some(lease), id, &directory_id, network, now).is_some()
        };
        assert!(check(lease, id, &network, now));
        assert!(!check(lease, id, &network, now.plus(101)));
        assert!(!check(lease, directory_id, &network, now));
        let moved = VirtualNetwork {
            prefix: Ipv4Addr::new(100, 64, 0, 0),
            length: 10,
        };
        assert!(!check(lease, id, &moved, now));
        let forged = Lease::grant(address, id, now.plus(100), &own);
        assert!(!check(forged, id, &network, now));
        assert!(usable(None, id, &directory_id, &network, now).is_none());
    }

    #[test]
    fn renewal_is_at_half() {
        let key = IdentityKey::from_seed([1; 32]);
        let now = UnixTime(1_000_000);
        let lease = |left| {
            Lease::grant(
                Ipv4Addr::new(10, 1, 2, 3),
                key.anonymous_id(),
                now.plus(left),
                &key,
            )
        };
        assert_eq!(renewal(&lease(7200), now), 3600);
        assert_eq!(renewal(&lease(10), now), SOONEST);
        assert_eq!(renewal(&lease(10_000_000), now), LATEST);
    }
}
