//! What the kernel announces: when to look at the host again.

use std::time::Duration;

use mixline_netlink::{Changes, NETFILTER, ROUTE};
use tokio::io::unix::AsyncFd;

use super::kernel::KernelError;

/// Groups of announcements (Linux, `linux/rtnetlink.h`): links, addresses, routes and rules, IPv4
/// and IPv6.
const LINKS: u32 = 1;
const ADDRESSES: [u32; 2] = [5, 9];
const ROUTES: [u32; 2] = [7, 11];
const RULES: [u32; 2] = [8, 19];
/// `NFNLGRP_NFTABLES` (Linux, `linux/netfilter/nfnetlink.h`).
const FILTERS: u32 = 7;
/// What failed is tried again after this time, and what nobody announces is looked at.
const AGAIN: Duration = Duration::from_secs(2);
/// Changes come in groups; a host that changes all the time is looked at this often at most.
const PAUSE: Duration = Duration::from_millis(20);

/// Hears of changes of what the client looks at.
pub struct Announcements {
    routes: AsyncFd<Changes>,
    filters: AsyncFd<Changes>,
    again: Duration,
}

impl Announcements {
    /// Listens to the kernel of this thread's network namespace. In a runtime.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn listen() -> Result<Self, KernelError> {
        let groups: Vec<u32> = [LINKS]
            .into_iter()
            .chain(ADDRESSES)
            .chain(ROUTES)
            .chain(RULES)
            .collect();
        Ok(Self {
            routes: listen(ROUTE, &groups)?,
            filters: listen(NETFILTER, &[FILTERS])?,
            again: AGAIN,
        })
    }

    /// The same, with another time after which a change is taken to have happened that nobody announced.
    #[must_use]
    pub fn looking_every(self, again: Duration) -> Self {
        Self { again, ..self }
    }

    /// Waits until the kernel announces a change of what was looked at, or some time has gone by.
    pub async fn changed(&mut self) {
        let announced = async {
            tokio::select! {
                () = heard(&mut self.routes) => {}
                () = heard(&mut self.filters) => {}
            }
            tokio::time::sleep(PAUSE).await;
        };
        let _ = tokio::time::timeout(self.again, announced).await;
    }
}

/// Listens to groups of announcements.
#[expect(
    deprecated,
    reason = "the form without `unsafe`: `Changes` keeps its socket as long as it lives"
)]
fn listen(protocol: isize, groups: &[u32]) -> Result<AsyncFd<Changes>, KernelError> {
    let listening = Changes::listen(protocol, groups);
    listening
        .and_then(|changes| AsyncFd::new(changes).map_err(mixline_netlink::Error::Socket))
        .map_err(|source| KernelError {
            action: "listen to the kernel".into(),
            source,
        })
}

/// Waits for an announcement.
async fn heard(announcements: &mut AsyncFd<Changes>) {
    loop {
        let Ok(mut guard) = announcements.readable_mut().await else {
            return std::future::pending().await;
        };
        let heard = guard.get_inner_mut().heard();
        guard.clear_ready();
        if heard {
            return;
        }
    }
}
