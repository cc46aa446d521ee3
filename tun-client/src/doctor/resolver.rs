//! How programs of this host find names, and whether they come to the client with them.
//!
//! The question that tells is for [`CANARY`]: the client answers that there is no such name, and
//! everybody else has an address for it. So nothing virtual is asked of anybody, whatever is wrong.

use std::fs;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use mixline_daemon::doctor::{Finding, command};

use super::client::Client;
use crate::dns::zone::CANARY;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const NSSWITCH: &str = "/etc/nsswitch.conf";
const HOSTS: &str = "/etc/hosts";
/// How long a lookup may take: two attempts of 5 s (resolv.conf(5)), and a little.
const PATIENCE: Duration = Duration::from_secs(12);
/// What glibc does without a line for hosts (nss(5)).
const USUAL: &str = "files dns";

/// What came of the question for the canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canary {
    /// There is no such name: the client answered, or nobody did.
    Absent,
    /// It has an address: somebody else answered.
    Found,
    /// Nobody answered in time.
    Silent,
}

/// What was seen of the host's resolver.
#[derive(Debug, Clone)]
pub struct ResolverSeen {
    /// The text of resolv.conf, or none.
    pub resolv_conf: Option<String>,
    /// Where it really is.
    pub place: Option<PathBuf>,
    /// The text of nsswitch.conf.
    pub nsswitch: Option<String>,
    /// The text of the hosts file.
    pub hosts: String,
    /// Whether systemd-resolved answers.
    pub resolved: bool,
    /// The domains that systemd-resolved asks the client for; none if it does not say.
    pub domains: Option<String>,
    /// The canary.
    pub canary: Canary,
}

impl ResolverSeen {
    /// Looks at the files, and asks as programs do.
    pub async fn read(client: &Client) -> Self {
        let up = client.status().is_some();
        // Where programs are not to ask the client, nobody is asked at all.
        let is_asked = client.status().is_some_and(|status| {
            let mode = status["dns"]["mode"].as_str();
            mode.is_some_and(|mode| mode != "off")
        });
        let read = move || {
            // Of all links: the client has one for this, which has another name than its interface.
            let domains = up
                .then(|| command::output("resolvectl", &["domain"]))
                .flatten();
            Self {
                resolv_conf: fs::read_to_string(RESOLV_CONF).ok(),
                place: fs::canonicalize(RESOLV_CONF).ok(),
                nsswitch: fs::read_to_string(NSSWITCH).ok(),
                hosts: fs::read_to_string(HOSTS).unwrap_or_default(),
                resolved: command::output("resolvectl", &["status"]).is_some(),
                domains,
                canary: if is_asked { canary() } else { Canary::Absent },
            }
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(seen) => seen,
            Err(_) => Self {
                resolv_conf: None,
                place: None,
                nsswitch: None,
                hosts: String::new(),
                resolved: false,
                domains: None,
                canary: Canary::Silent,
            },
        }
    }

    /// Compares it with what the client needs.
    #[must_use]
    pub fn judge(&self, client: &Client) -> Vec<Finding> {
        let dns = client.status().map(|status| &status["dns"]);
        let mode = dns.and_then(|dns| dns["mode"].as_str());
        let mut findings = vec![self.judge_file(mode)];
        findings.extend(self.judge_order(mode));
        findings.extend(self.judge_hosts());
        if let Some(mode) = mode {
            findings.push(self.judge_mode(mode));
        }
        findings
    }

    fn judge_file(&self, mode: Option<&str>) -> Finding {
        let check = "resolv.conf";
        let Some(text) = &self.resolv_conf else {
            return Finding::warning(
                check,
                format!("{RESOLV_CONF} cannot be read: programs ask this host itself"),
                "see which program should make it (`systemctl status systemd-resolved \
                 NetworkManager`)",
            );
        };
        let servers: Vec<&str> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("nameserver"))
            .map(str::trim)
            .collect();
        let servers = if servers.is_empty() {
            "no server, so this host itself".to_owned()
        } else {
            servers.join(", ")
        };
        let owner = owner(text, self.place.as_deref());
        let found = format!("of {owner}; names {servers}");
        if mode == Some("resolv-conf") && owner != Owner::Mixline {
            return Finding::problem(
                check,
                format!("{found}: programs do not ask the client"),
                "keep that program from writing it (NetworkManager: `dns=none`), or systemd-resolved \
                 with `dns: {mode: resolved}`",
            );
        }
        if mode.is_none() && owner == Owner::Mixline {
            return Finding::problem(
                check,
                format!("{found}: left by a client that does not run"),
                "sudo mixline-client up, or down",
            );
        }
        Finding::ok(check, found)
    }

    /// The order in which libc asks (nsswitch.conf(5)).
    fn judge_order(&self, mode: Option<&str>) -> Vec<Finding> {
        let check = "nsswitch.conf";
        let line = self.nsswitch.as_deref().and_then(hosts_line);
        let line = line.unwrap_or(USUAL);
        let services: Vec<&str> = line
            .split_whitespace()
            .filter(|word| !word.starts_with('['))
            .collect();
        let place = |name: &str| services.iter().position(|service| *service == name);
        let found = format!("hosts: {line}");
        let mut findings = Vec::new();
        match (place("dns"), place("resolve")) {
            (None, None) => findings.push(Finding::problem(
                check,
                format!("{found}: names are asked of no server"),
                format!("add `dns` to the line `hosts:` of {NSSWITCH}"),
            )),
            // It asks systemd-resolved directly, and resolv.conf is not looked at.
            (dns, Some(resolve))
                if mode == Some("resolv-conf")
                    && self.resolved
                    && dns.is_none_or(|dns| resolve < dns) =>
            {
                findings.push(Finding::problem(
                    check,
                    format!(
                        "{found}: programs ask systemd-resolved before resolv.conf, which does not \
                         know of .anon"
                    ),
                    "`dns: {mode: resolved}` in the configuration, and mixline-client down, up",
                ));
            }
            _ => findings.push(Finding::ok(check, found)),
        }
        if let Some(name) = ["mdns", "mdns4", "mdns6"]
            .into_iter()
            .find(|name| place(name) < place("dns") && place(name).is_some())
        {
            findings.push(Finding::warning(
                check,
                format!(
                    "{name} is asked before `dns`, and with {} asks the neighbours for any name",
                    "/etc/mdns.allow"
                ),
                format!("{name}_minimal in its place, which asks for .local only"),
            ));
        }
        findings
    }

    fn judge_hosts(&self) -> Option<Finding> {
        let names: Vec<&str> = self
            .hosts
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default())
            .flat_map(|line| line.split_whitespace().skip(1))
            .filter(|name| name.to_ascii_lowercase().ends_with(".anon"))
            .take(4)
            .collect();
        (!names.is_empty()).then(|| {
            Finding::warning(
                "hosts",
                format!(
                    "{HOSTS} has {}, and goes before the client",
                    names.join(", ")
                ),
                format!("remove the names of .anon from {HOSTS}"),
            )
        })
    }

    fn judge_mode(&self, mode: &str) -> Finding {
        let check = "asked by programs";
        let how = match mode {
            "off" => {
                return Finding::ok(
                    check,
                    "no: the host's resolver is left alone (`dns: {mode: off}`)",
                );
            }
            "resolved" => "through systemd-resolved",
            _ => "through resolv.conf",
        };
        if mode == "resolved"
            && let Some(domains) = &self.domains
            && !domains.contains("~anon")
        {
            return Finding::problem(
                check,
                "systemd-resolved does not ask the client for .anon",
                "see who reverts its settings (`journalctl -u systemd-resolved`); sudo \
                 mixline-client down, up",
            );
        }
        match self.canary {
            Canary::Absent => Finding::ok(check, format!("yes, {how}")),
            Canary::Found => Finding::problem(
                check,
                format!(
                    "no: {CANARY}, for which the client has no address, has one; somebody else \
                     is asked"
                ),
                "the lines before this one; a program that caches names (nscd) is restarted",
            ),
            Canary::Silent => Finding::problem(
                check,
                format!(
                    "nobody answers a question for {CANARY} within {} s",
                    PATIENCE.as_secs()
                ),
                "the lines before this one; dig @RESOLVER use-application-dns.net, with the \
                 resolver that `mixline-client status` shows",
            ),
        }
    }
}

/// Who made resolv.conf.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    Mixline,
    Other(&'static str),
    Unknown,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mixline => "the client",
            Self::Other(name) => name,
            Self::Unknown => "nobody who says so",
        })
    }
}

/// What programs put into the file, or where they keep it.
fn owner(text: &str, place: Option<&Path>) -> Owner {
    if text.starts_with("#mixline-client: ") {
        return Owner::Mixline;
    }
    let place = place.unwrap_or(Path::new(RESOLV_CONF));
    for (directory, name) in [
        ("/run/systemd/resolve", "systemd-resolved"),
        ("/run/NetworkManager", "NetworkManager"),
        ("/run/resolvconf", "resolvconf"),
        ("/run/connman", "connman"),
        ("/mnt/wsl", "WSL"),
    ] {
        if place.starts_with(directory) {
            return Owner::Other(name);
        }
    }
    let comments: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with(['#', ';']))
        .collect();
    for name in [
        "NetworkManager",
        "systemd-resolved",
        "resolvconf",
        "dhcpcd",
        "dhclient",
        "tailscale",
        "connman",
    ] {
        if comments.iter().any(|line| line.contains(name)) {
            return Owner::Other(name);
        }
    }
    Owner::Unknown
}

/// What stands behind `hosts:`.
fn hosts_line(text: &str) -> Option<&str> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .find_map(|line| line.strip_prefix("hosts:"))
        .map(str::trim)
}

/// Asks as programs do, through libc.
fn canary() -> Canary {
    let (done, answer) = mpsc::channel();
    std::thread::spawn(move || {
        let found = (CANARY, 443).to_socket_addrs();
        // If it took too long, nobody waits any more.
        let _ = done.send(found.is_ok_and(|mut addresses| addresses.next().is_some()));
    });
    match answer.recv_timeout(PATIENCE) {
        Ok(true) => Canary::Found,
        Ok(false) => Canary::Absent,
        Err(_) => Canary::Silent,
    }
}

#[cfg(test)]
mod tests {
    use mixline_daemon::doctor::Level;
    use serde_json::json;

    use super::*;

    fn seen() -> ResolverSeen {
        ResolverSeen {
            resolv_conf: Some("nameserver 192.0.2.53\n".into()),
            place: None,
            nsswitch: Some("hosts: files mdns4_minimal [NOTFOUND=return] dns\n".into()),
            hosts: "127.0.0.1 localhost\n".into(),
            resolved: false,
            domains: None,
            canary: Canary::Absent,
        }
    }

    fn running(mode: &str) -> Client {
        Client::saying(json!({"dns": {"mode": mode}}))
    }

    fn worst(seen: &ResolverSeen, client: &Client) -> (Level, String) {
        let findings = seen.judge(client);
        let worst = findings.iter().max_by_key(|finding| finding.level).unwrap();
        (worst.level, format!("{}: {}", worst.check, worst.found))
    }

    #[test]
    fn a_host_as_it_should_be() {
        assert_eq!(worst(&seen(), &Client::missing()).0, Level::Ok);
        let ours = ResolverSeen {
            resolv_conf: Some("#mixline-client: /var/lib/mixline\nnameserver 10.0.0.53\n".into()),
            ..seen()
        };
        assert_eq!(worst(&ours, &running("resolv-conf")).0, Level::Ok);
        let resolved = ResolverSeen {
            place: Some("/run/systemd/resolve/stub-resolv.conf".into()),
            nsswitch: Some("hosts: files resolve [!UNAVAIL=return] dns".into()),
            resolved: true,
            domains: Some("Link 7 (mixline0): ~anon ~10.in-addr.arpa\n".into()),
            ..seen()
        };
        assert_eq!(worst(&resolved, &running("resolved")).0, Level::Ok);
        assert_eq!(worst(&seen(), &running("off")).0, Level::Ok);
    }

    #[test]
    fn what_keeps_programs_from_asking_is_a_problem() {
        let ours = Some("#mixline-client: /var/lib/mixline\nnameserver 10.0.0.53\n".to_owned());
        for (seen, mode, expected) in [
            (
                ResolverSeen {
                    resolv_conf: Some("# Generated by NetworkManager\nnameserver 192.0.2.1".into()),
                    ..seen()
                },
                "resolv-conf",
                "resolv.conf: of NetworkManager; names 192.0.2.1",
            ),
            (
                ResolverSeen {
                    nsswitch: Some("hosts: files\n".into()),
                    ..seen()
                },
                "off",
                "nsswitch.conf: hosts: files: names are asked of no server",
            ),
            (
                ResolverSeen {
                    resolv_conf: ours.clone(),
                    nsswitch: Some("hosts: files resolve [!UNAVAIL=return] dns".into()),
                    resolved: true,
                    ..seen()
                },
                "resolv-conf",
                "before resolv.conf",
            ),
            (
                ResolverSeen {
                    resolv_conf: ours.clone(),
                    canary: Canary::Found,
                    ..seen()
                },
                "resolv-conf",
                "asked by programs: no",
            ),
            (
                ResolverSeen {
                    resolv_conf: ours,
                    canary: Canary::Silent,
                    ..seen()
                },
                "resolv-conf",
                "nobody answers",
            ),
            (
                ResolverSeen {
                    domains: Some("Link 7 (mixline0):\n".into()),
                    ..seen()
                },
                "resolved",
                "does not ask the client for .anon",
            ),
        ] {
            let (level, text) = worst(&seen, &running(mode));
            assert_eq!(level, Level::Problem, "{text}");
            assert!(text.contains(expected), "{text}");
        }
        let left = ResolverSeen {
            resolv_conf: Some("#mixline-client: /x\n".into()),
            ..seen()
        };
        assert_eq!(worst(&left, &Client::missing()).0, Level::Problem);
    }

    #[test]
    fn what_goes_before_the_client_is_warned_of() {
        let hosts = ResolverSeen {
            hosts: "192.0.2.1 freespeech.anon # mine\n".into(),
            ..seen()
        };
        let (level, text) = worst(&hosts, &running("off"));
        assert_eq!(level, Level::Warning);
        assert!(text.contains("freespeech.anon"), "{text}");
        let wide = ResolverSeen {
            nsswitch: Some("hosts: files mdns4 dns".into()),
            ..seen()
        };
        assert_eq!(worst(&wide, &running("off")).0, Level::Warning);
        assert_eq!(hosts_line("passwd: files\n"), None);
    }
}
