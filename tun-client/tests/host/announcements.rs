//! What the kernel announces is heard of: nothing here is looked at again because time has gone by.

use std::process::Command;
use std::time::Duration;

use mixline_client::host::announcements::Announcements;
use mixline_testnet::programs::find_tool;
use tokio::runtime::Builder;
use tokio::time::timeout;

use crate::wire::{Wire, ip};

/// How often what nobody announces is looked at.
const NEVER: Duration = Duration::from_secs(3600);
/// How long an announcement may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// After this time without one, all that was done is told.
const SILENCE: Duration = Duration::from_millis(200);

/// Changes of what the client looks at, by `ip`, each with its undoing behind it.
const CHANGES: [&str; 12] = [
    "link set eth0 mtu 1400",
    "link set eth0 mtu 1500",
    "address add 198.51.100.2/24 dev lo",
    "address del 198.51.100.2/24 dev lo",
    "address add 2001:db8:1::1/64 dev lo nodad",
    "address del 2001:db8:1::1/64 dev lo",
    "route add 10.0.0.0/8 via 192.0.2.1",
    "-6 route add fd00::/8 via 2001:db8::1",
    "rule add to 10.0.0.0/8 lookup 28009",
    "rule del to 10.0.0.0/8 lookup 28009",
    "-6 rule add to fd00::/8 lookup 28009",
    "-6 rule del to fd00::/8 lookup 28009",
];

fn nft(arguments: &str) {
    let nft = find_tool("nft").unwrap();
    let done = Command::new(nft).args(arguments.split(' ')).output();
    let done = done.unwrap();
    assert!(done.status.success(), "{done:?}");
}

/// Fails unless a change is heard of that comes after a silence.
async fn heard(announcements: &mut Announcements, what: &str, change: impl FnOnce()) {
    while timeout(SILENCE, announcements.changed()).await.is_ok() {}
    change();
    let heard = timeout(PATIENCE, announcements.changed()).await;
    assert!(heard.is_ok(), "{what} is not heard of");
}

#[test]
fn each_change_of_routes_rules_addresses_links_and_filter_is_heard_of() {
    let Some(wire) = Wire::new() else { return };
    wire.on_host(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut announcements = Announcements::listen().unwrap().looking_every(NEVER);
            for change in CHANGES {
                heard(&mut announcements, change, || drop(ip(change))).await;
            }
            for change in ["add table inet mixline", "delete table inet mixline"] {
                heard(&mut announcements, change, || nft(change)).await;
            }
        });
    });
}
