//! Whom this client reaches by the host's other interfaces: relays, directories, name servers.
//!
//! Some may have addresses inside the virtual networks, and are let through the closed host.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::shared::Shared;
use super::startup::Snapshots;
use crate::config::DNS_PORT;
use crate::host::outside::Outside;

/// Where systemd-resolved writes down the servers that the network has given (systemd-resolved(8)).
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// How often the host's name servers are looked at.
const SERVERS_EVERY: Duration = Duration::from_secs(5);
/// How long a directory's name may take to be looked up.
const LOOKUP: Duration = Duration::from_secs(5);

/// All of them, as far as they are known.
pub async fn of(shared: &Shared, snapshots: &Snapshots) -> BTreeSet<Outside> {
    let mut directories = Directories::default();
    directories.look_up(urls(shared)).await;
    with(shared, snapshots, &directories)
}

/// All of them but the directories, which may have to be looked up.
pub fn known(shared: &Shared, snapshots: &Snapshots) -> BTreeSet<Outside> {
    with(shared, snapshots, &Directories::default())
}

/// The addresses of directories: those that are configured, and those that are asked because the roster
/// says so.
fn urls(shared: &Shared) -> BTreeSet<String> {
    let mut urls: BTreeSet<String> = shared.config().network.urls.iter().cloned().collect();
    let followed = shared.follow.borrow();
    urls.extend(followed.directories.iter().map(|of| of.url.clone()));
    let known = shared.known.borrow();
    let members = known.roster().into_iter().flat_map(|it| &it.members);
    urls.extend(members.map(|member| member.url.clone()));
    urls
}

/// Where directories are, by their URLs.
#[derive(Default)]
struct Directories(HashMap<String, Vec<SocketAddr>>);

impl Directories {
    /// Looks all of them up. Where one was is kept while its name cannot be looked up.
    async fn look_up(&mut self, urls: BTreeSet<String>) {
        self.0.retain(|url, _| urls.contains(url));
        let found = urls.into_iter().map(|url| async {
            let addresses = addresses_of(&url).await;
            (url, addresses)
        });
        for (url, addresses) in join_all(found).await {
            let known = self.0.entry(url).or_default();
            if !addresses.is_empty() {
                *known = addresses;
            }
        }
    }

    /// Whether these are they, and where each of them is is known.
    fn are_known(&self, urls: &BTreeSet<String>) -> bool {
        let known = |url| self.0.get(url).is_some_and(|it| !it.is_empty());
        self.0.len() == urls.len() && urls.iter().all(known)
    }
}

/// All of them, given where the directories are.
fn with(shared: &Shared, snapshots: &Snapshots, directories: &Directories) -> BTreeSet<Outside> {
    let config = shared.config();
    let directories = directories.0.values().flatten().copied();
    let mut outside: BTreeSet<Outside> = directories.map(Outside::tcp).collect();
    let servers = shared.facts().dns.upstream;
    let told = servers
        .iter()
        .filter_map(|text| text.parse::<IpAddr>().ok());
    let files = [shared.host.resolv_conf.as_path(), Path::new(RESOLVED)];
    let read = files.into_iter().flat_map(servers_in);
    let servers = told
        .chain(read)
        .map(|server| SocketAddr::new(server, DNS_PORT));
    for server in servers.chain(config.dns.upstream.iter().copied()) {
        outside.extend([Outside::udp(server), Outside::tcp(server)]);
    }
    if let Some(snapshot) = snapshots.borrow().as_ref() {
        let relays = snapshot.relays.iter().map(|listed| &listed.descriptor);
        outside.extend(relays.flat_map(|relay| relay.addresses.iter().copied().map(Outside::udp)));
    }
    outside
}

/// The name servers that a file of the resolver's names (resolv.conf(5)); none if it is not there.
fn servers_in(file: &Path) -> Vec<IpAddr> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse().ok())
        .collect()
}

/// Follows snapshots, the configuration, the roster, and the host's name servers, for ever.
pub async fn keep(shared: Arc<Shared>, mut snapshots: Snapshots) {
    let mut configs = shared.reloader.follow();
    let mut known = shared.known.subscribe();
    let mut directories = Directories::default();
    directories.look_up(urls(&shared)).await;
    loop {
        let changed = async {
            let changed = tokio::select! {
                changed = snapshots.changed() => changed,
                changed = configs.changed() => changed,
                changed = known.changed() => changed,
            };
            changed.is_ok()
        };
        match tokio::time::timeout(SERVERS_EVERY, changed).await {
            Ok(false) => return,
            Ok(true) => directories.look_up(urls(&shared)).await,
            // They may have been looked up before there was a network to ask.
            Err(_) => {
                let urls = urls(&shared);
                if !directories.are_known(&urls) {
                    directories.look_up(urls).await;
                }
            }
        }
        let outside = with(&shared, &snapshots, &directories);
        let same = |wanted: &crate::host::desired::Wanted| wanted.outside == outside;
        if shared.host_state.wanted().as_ref().is_some_and(same) {
            continue;
        }
        shared.host_state.want(|wanted| wanted.outside = outside);
    }
}

/// Where a URL leads to; nowhere if its name cannot be looked up, which who asks there will say.
async fn addresses_of(url: &str) -> Vec<SocketAddr> {
    let Some(target) = authority(url) else {
        return Vec::new();
    };
    let found = tokio::time::timeout(LOOKUP, tokio::net::lookup_host(target));
    match found.await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// Where a URL leads to without a look-up.
pub fn address_in(url: &str) -> Option<SocketAddr> {
    authority(url)?.parse().ok()
}

/// Host and port of a URL.
fn authority(url: &str) -> Option<String> {
    let authority = url.strip_prefix("http://")?.split('/').next()?;
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Some(if has_port {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_a_url_leads() {
        for (url, expected) in [
            ("http://10.1.2.3:8080", "10.1.2.3:8080"),
            ("http://10.1.2.3/directory", "10.1.2.3:80"),
            ("http://[fd00::1]:8080/", "[fd00::1]:8080"),
            ("http://[fd00::1]", "[fd00::1]:80"),
        ] {
            let expected: SocketAddr = expected.parse().unwrap();
            assert_eq!(addresses_of(url).await, [expected], "{url}");
            assert_eq!(address_in(url), Some(expected), "{url}");
        }
        assert_eq!(address_in("http://a.name:8080"), None);
        assert!(addresses_of("nothing").await.is_empty());
    }

    #[tokio::test]
    async fn every_directory_is_looked_up_and_none_is_forgotten_for_a_while_without_names() {
        let set = |urls: &[&str]| urls.iter().map(|&url| url.to_owned()).collect();
        let mut directories = Directories::default();
        let both: BTreeSet<String> = set(&["http://10.1.2.3:1", "http://10.1.2.4:2"]);
        assert!(!directories.are_known(&both));
        directories.look_up(both.clone()).await;
        assert!(directories.are_known(&both));
        // One has moved, and its name says nothing.
        let moved: BTreeSet<String> = set(&["http://10.1.2.3:1", "nothing"]);
        directories.look_up(moved.clone()).await;
        assert!(!directories.are_known(&moved) && !directories.are_known(&both));
        assert_eq!(directories.0.len(), 2);
        let old = directories
            .0
            .insert("nothing".into(), vec![([10, 9, 9, 9], 3).into()]);
        assert_eq!(old, Some(Vec::new()));
        directories.look_up(moved.clone()).await;
        assert!(directories.are_known(&moved));
    }
}
