//! Whether others can reach the relay's UDP port: whether it is free, and this machine's own
//! firewall.

use std::io;
use std::net::SocketAddr;

use mixline_udp::BatchSocket;
use nix::libc;

use super::command;
use super::finding::Finding;
use super::plan::Plan;

/// What was seen of how others reach the port.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Addresses to listen on, and the number of the error that binding to each gave.
    pub listen: Vec<(SocketAddr, Result<(), i32>)>,
    /// The rules of nftables, which also show those that iptables made; none if `nft` is not
    /// there or does not say.
    pub rules: Option<String>,
}

impl Reach {
    /// Looks at the machine. Addresses are bound for a moment, if the relay does not run.
    #[must_use]
    pub fn read(plan: &Plan) -> Self {
        let listen = plan.listen.iter().map(|address| {
            let bound = match &plan.running {
                Some(_) => Ok(()),
                None => BatchSocket::probe(*address)
                    .map_err(|error| error.raw_os_error().unwrap_or_default()),
            };
            (*address, bound)
        });
        Self {
            listen: listen.collect(),
            rules: command::output("nft", &["list", "ruleset"]),
        }
    }

    /// Compares it with what the relay needs.
    #[must_use]
    pub fn judge(&self, plan: &Plan) -> Vec<Finding> {
        let mut findings: Vec<_> = self
            .listen
            .iter()
            .map(|(address, bound)| judge_address(*address, *bound, plan))
            .collect();
        findings.push(self.judge_firewall());
        findings
    }

    fn judge_firewall(&self) -> Finding {
        let check = "firewall";
        let port = self.listen.first().map(|(address, _)| address.port());
        let port = port.map_or_else(|| "PORT".to_string(), |port| port.to_string());
        let Some(rules) = &self.rules else {
            let found = "not looked at (`nft` does not say); the relay's UDP port must be open";
            return Finding::ok(check, found);
        };
        match closed(rules, &port) {
            None => Finding::ok(
                check,
                "open here; the relay's UDP port must be open before this machine, too",
            ),
            Some(Chain {
                family,
                table,
                name,
            }) => Finding::warning(
                check,
                format!("chain {name} of table {family} {table} drops what no rule of it names"),
                format!("nft insert rule {family} {table} {name} udp dport {port} accept"),
            ),
        }
    }
}

fn judge_address(address: SocketAddr, bound: Result<(), i32>, plan: &Plan) -> Finding {
    let check = "listen";
    let Err(number) = bound else {
        let found = match plan.running {
            Some(_) => format!("{address}: the relay runs"),
            None => format!("{address}: free"),
        };
        return Finding::ok(check, found);
    };
    let error = io::Error::from_raw_os_error(number);
    let change = match number {
        libc::EADDRINUSE => format!(
            "end the program that `ss -lunp 'sport = :{}'` shows, or take another port",
            address.port()
        ),
        libc::EADDRNOTAVAIL => {
            "`listen` on 0.0.0.0 or [::], and `advertise` the outer address".into()
        }
        libc::EACCES => "a port from 1024 on, or CAP_NET_BIND_SERVICE".into(),
        libc::EAFNOSUPPORT => "take this address out of `listen`, or enable IPv6".into(),
        _ => "another address in `listen`".into(),
    };
    Finding::problem(check, format!("{address}: {error}"), change)
}

/// A chain of rules.
#[derive(Debug, PartialEq, Eq)]
struct Chain<'a> {
    family: &'a str,
    table: &'a str,
    name: &'a str,
}

/// A chain for what comes in, that drops by default and has no rule on this port.
fn closed<'a>(rules: &'a str, port: &str) -> Option<Chain<'a>> {
    let (mut table, mut chain) = (("", ""), "");
    let (mut drops, mut named) = (false, false);
    for line in rules.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["table", family, name, "{"] => table = (family, name),
            ["chain", name, "{"] => (chain, drops, named) = (name, false, false),
            ["}"] if drops && !named => {
                let (family, table) = table;
                return Some(Chain {
                    family,
                    table,
                    name: chain,
                });
            }
            ["}"] => drops = false,
            words if words.windows(2).any(|pair| pair == ["hook", "input"]) => {
                drops = line.contains("policy drop");
            }
            words => {
                let is_port = |word: &&str| word.trim_matches([',', '{', '}']) == port;
                named |= words.contains(&"udp") && words.iter().any(is_port);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PortKind;
    use crate::doctor::finding::Level;
    use crate::doctor::plan::tests::plan;

    const RULES: &str = "table inet filter {\n\
        \tchain input {\n\
        \t\ttype filter hook input priority filter; policy drop;\n\
        \t\ttcp dport 22 accept\n\
        \t\tRULE\n\
        \t}\n\
        \tchain forward {\n\
        \t\ttype filter hook forward priority filter; policy drop;\n\
        \t}\n\
        }\n";

    #[test]
    fn a_closed_port_is_seen() {
        let found = closed(RULES, "7000");
        let chain = Chain {
            family: "inet",
            table: "filter",
            name: "input",
        };
        assert_eq!(found, Some(chain));
        for open in [
            "udp dport 7000 accept",
            "udp dport { 53, 7000 } accept",
            "meta l4proto udp th dport 7000 accept",
        ] {
            assert_eq!(closed(&RULES.replace("RULE", open), "7000"), None, "{open}");
        }
        let other = RULES.replace("RULE", "udp dport 70000 accept");
        assert!(closed(&other, "7000").is_some());
        assert_eq!(
            closed(&RULES.replace("policy drop", "policy accept"), "7000"),
            None
        );
        assert_eq!(closed("", "7000"), None);
    }

    #[test]
    fn an_address_that_cannot_be_bound_stops_the_relay() {
        let judge = |bound, rules: Option<&str>| {
            let listen = vec![(SocketAddr::from(([192, 0, 2, 1], 7000)), bound)];
            let rules = rules.map(str::to_string);
            Reach { listen, rules }.judge(&plan(PortKind::Udp))
        };
        let taken = judge(Err(libc::EADDRINUSE), None);
        assert_eq!(taken[0].level, Level::Problem);
        assert!(
            taken[0]
                .change
                .as_ref()
                .is_some_and(|c| c.contains("ss -lunp"))
        );
        assert_eq!(taken[1].level, Level::Ok);
        let closed = judge(Ok(()), Some(RULES));
        assert_eq!(closed[0].level, Level::Ok);
        assert_eq!(
            closed[1].change.as_deref(),
            Some("nft insert rule inet filter input udp dport 7000 accept")
        );
    }
}
