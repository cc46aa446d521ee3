//! Telling systemd-resolved, through `resolvectl`.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mixline_protocol::address::VirtualNetwork;
use mixline_protocol::identity::DOMAIN;
use tokio::process::Command;

use super::failed;
use crate::dns::zone::CANARY;
use crate::error::Result;

/// How long `resolvectl` may take: it waits for D-Bus, which may be stuck.
const TIMEOUT: Duration = Duration::from_secs(10);

/// systemd-resolved's view of one interface.
#[derive(Debug)]
pub struct Resolved {
    command: PathBuf,
    interface: String,
}

impl Resolved {
    /// `interface`, spoken of through `command`.
    #[must_use]
    pub fn new(command: &Path, interface: &str) -> Self {
        Self {
            command: command.to_owned(),
            interface: interface.to_owned(),
        }
    }

    /// Whether systemd-resolved answers.
    pub async fn is_running(&self) -> bool {
        self.run(&["status"]).await.is_ok()
    }

    /// Sends `.anon` and the reverse names of the virtual networks to `resolver`, and
    /// nothing else.
    ///
    /// # Errors
    /// [`crate::Error::HostDns`] with what `resolvectl` said.
    pub async fn apply(&self, resolver: Ipv4Addr, network: &VirtualNetwork) -> Result<()> {
        let interface = self.interface.as_str();
        let mut domains = vec![
            format!("~{DOMAIN}"),
            "~d.f.ip6.arpa".to_owned(),
            format!("~{CANARY}"),
        ];
        domains.extend(reverse_domains(network));
        let mut arguments = vec!["domain", interface];
        arguments.extend(domains.iter().map(String::as_str));
        // Names are routed before there is a server for them: until then resolved has
        // nobody to ask, and asks nobody else.
        self.run(&arguments).await?;
        self.run(&["dns", interface, &resolver.to_string()]).await?;
        // What the responder does not do. An old resolvectl may not know them all.
        for setting in [
            ["default-route", interface, "no"],
            ["dnssec", interface, "no"],
            ["dnsovertls", interface, "no"],
            ["llmnr", interface, "no"],
            ["mdns", interface, "no"],
        ] {
            if let Err(error) = self.run(&setting).await {
                tracing::debug!(%error, setting = setting[0], "resolvectl");
            }
        }
        Ok(())
    }

    /// Takes it all back. The interface's end would do so as well.
    pub async fn revert(&self) {
        if let Err(error) = self.run(&["revert", &self.interface]).await {
            tracing::debug!(%error, "resolvectl revert");
        }
    }

    async fn run(&self, arguments: &[&str]) -> Result<()> {
        let command = self.command.display();
        let child = Command::new(&self.command)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .output();
        let output = match tokio::time::timeout(TIMEOUT, child).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(failed(format!("cannot run {command}: {error}"))),
            Err(_) => return Err(failed(format!("{command} does not answer"))),
        };
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().next().unwrap_or("failed").trim();
        Err(failed(format!("{command} {}: {line}", arguments.join(" "))))
    }
}

/// The reverse zones that make up the network, cut at whole octets: one, or up to 128.
fn reverse_domains(network: &VirtualNetwork) -> Vec<String> {
    let octets = network.prefix.octets();
    let whole = usize::from(network.length / 8).min(3);
    let rest = network.length % 8;
    let tail = |upto: usize| {
        octets
            .iter()
            .take(upto)
            .rev()
            .map(|octet| format!("{octet}."))
            .collect::<String>()
    };
    if rest == 0 {
        return vec![format!("~{}in-addr.arpa", tail(whole))];
    }
    let first = octets.get(whole).copied().unwrap_or(0);
    let count = 1u16 << (8 - rest);
    (0..count)
        .map(|offset| format!("~{}.{}in-addr.arpa", u16::from(first) + offset, tail(whole)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A `resolvectl` that writes down what it was asked and fails where `fails` says.
    fn fake(fails: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let command = directory.path().join("resolvectl");
        let script = format!(
            "#!/bin/sh\necho \"$@\" >> {}/log\ncase \"$1\" in {fails}) echo 'Link unknown' >&2; \
             exit 1;; esac\n",
            directory.path().display()
        );
        std::fs::write(&command, script).unwrap();
        std::fs::set_permissions(&command, std::fs::Permissions::from_mode(0o755)).unwrap();
        (directory, command)
    }

    #[tokio::test]
    async fn only_ours_is_routed() {
        let (directory, command) = fake("none");
        let resolved = Resolved::new(&command, "mixline7");
        assert!(resolved.is_running().await);
        resolved
            .apply(Ipv4Addr::new(10, 0, 0, 53), &VirtualNetwork::default())
            .await
            .unwrap();
        resolved.revert().await;
        let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(
            lines[1],
            "domain mixline7 ~anon ~d.f.ip6.arpa ~use-application-dns.net ~10.in-addr.arpa"
        );
        assert_eq!(lines[2], "dns mixline7 10.0.0.53");
        assert!(lines.contains(&"default-route mixline7 no"));
        assert_eq!(lines.last(), Some(&"revert mixline7"));
    }

    #[tokio::test]
    async fn failures_are_told_in_its_words() {
        let (_directory, command) = fake("dns");
        let resolved = Resolved::new(&command, "mixline7");
        let network = VirtualNetwork::default();
        let error = resolved
            .apply(Ipv4Addr::LOCALHOST, &network)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("Link unknown") && error.contains("dns mixline7"),
            "{error}"
        );
        let missing = Resolved::new(Path::new("/nonexistent/resolvectl"), "mixline7");
        assert!(!missing.is_running().await);
        // What only newer ones know may fail.
        let (_directory, command) = fake("mdns");
        let resolved = Resolved::new(&command, "mixline7");
        resolved.apply(Ipv4Addr::LOCALHOST, &network).await.unwrap();
    }

    #[test]
    fn zones_of_a_network() {
        let network = |prefix: [u8; 4], length| VirtualNetwork {
            prefix: prefix.into(),
            length,
        };
        assert_eq!(
            reverse_domains(&network([10, 0, 0, 0], 8)),
            ["~10.in-addr.arpa"]
        );
        assert_eq!(
            reverse_domains(&network([10, 7, 0, 0], 16)),
            ["~7.10.in-addr.arpa"]
        );
        let halves = reverse_domains(&network([100, 64, 0, 0], 10));
        assert_eq!(halves.len(), 64);
        assert_eq!(halves[0], "~64.100.in-addr.arpa");
        assert_eq!(halves[63], "~127.100.in-addr.arpa");
    }
}
