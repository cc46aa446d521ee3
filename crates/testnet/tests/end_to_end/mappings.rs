//! How long a router remembers who was asked: `doctor` measures it, with a translator of addresses and
//! with a firewall alone.

use crate::desk::{Found, nft};
use crate::leaks::quietly;
use crate::tools::succeed;
use crate::{Kind, Tests};
use anyhow::{Result, ensure};
use mixline_testnet::topology::{Node, ROUTER};
use mixline_testnet::{Network, netns};
use std::fs;
use std::process::Stdio;

/// A router that translates the IPv4 of both hosts. To the client it lets in of IPv6 what was asked for; it
/// forgets that after 5 seconds, and the client's IPv4 after 15.
const FORGETFUL: &str = "\
table ip forgetful {
  ct timeout short {
    protocol udp
    l3proto ip
    policy = { unreplied : 15, replied : 15 }
  }
  chain pre {
    type filter hook prerouting priority -200
    iifname \"client\" meta l4proto udp ct timeout set \"short\"
  }
  chain post {
    type nat hook postrouting priority 100
    ip saddr { 172.30.0.0/24, 172.31.0.0/24 } meta l4proto udp masquerade to :20000-40000 random
  }
}
table ip6 forgetful {
  ct timeout short {
    protocol udp
    l3proto ip6
    policy = { unreplied : 5, replied : 5 }
  }
  chain pre {
    type filter hook prerouting priority -200
    iifname \"client\" meta l4proto udp ct timeout set \"short\"
  }
  chain forward {
    type filter hook forward priority 0
    oifname \"client\" meta l4proto udp ct state new drop
  }
}
";

pub fn tests(tests: &mut Tests) {
    tests.on(
        Kind::Honest,
        "desk::how_long_a_router_remembers_is_measured",
        remembered,
    );
}

fn remembered(network: &mut Network) -> Result<()> {
    let file = network.directory().join("forgetful.nft");
    fs::write(&file, FORGETFUL)?;
    succeed(netns::command(ROUTER, "nft").arg("-f").arg(&file))?;
    let outcome = quietly(network, |network| {
        // Both at once: each waits for what does not come.
        let beside = network
            .client_command(Node::Service, "doctor")
            .arg("--json")
            .stdout(Stdio::piped())
            .spawn()?;
        let found = Found::of(network)?;
        let beside = Found::read(&beside.wait_with_output()?)?;
        let translator = "a mapping lives for 10 s at least, and is gone after 20 s of silence";
        let change = "on the router, a longer life of UDP mappings";
        found.expect("warning", &["NAT: IPv4: ", translator, change])?;
        let firewall =
            "none, but an answer does not come in after 10 s of silence: a firewall forgets";
        let change = "in the firewall, a longer life of UDP flows";
        found.expect("warning", &["NAT: IPv6: ", firewall, change])?;
        // Where nobody forgets, nothing is wrong.
        beside.expect("ok", &["NAT: IPv4: ", "a mapping lives for 20 s at least"])?;
        ensure!(!beside.has("ok", &["gone after"]), "a mapping that is gone");
        beside.expect(
            "ok",
            &["NAT: IPv6: none, an answer still comes in after 10 s"],
        )
    });
    for family in ["ip", "ip6"] {
        nft(&format!("delete table {family} forgetful"))?;
    }
    outcome
}
