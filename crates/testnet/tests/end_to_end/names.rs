//! Names: those that there are, those that there are not, and who may claim one.

use crate::leaks::quietly;
use crate::tools::{HOST, on_client, output, succeed};
use crate::{Kind, Tests};
use anyhow::{Result, ensure};
use mixline_testnet::Network;
use mixline_testnet::configs::SERVICE_NAME;
use mixline_testnet::topology::Node;

pub fn tests(tests: &mut Tests) {
    tests.on(
        Kind::Honest,
        "name_has_both_addresses_and_they_have_the_name",
        |network| quietly(network, addresses),
    );
    tests.on(Kind::Honest, "name_that_does_not_exist", |network| {
        quietly(network, unknown)
    });
    tests.on(Kind::Honest, "second_claim_of_a_name", |network| {
        quietly(network, second_claim)
    });
}

fn addresses(network: &mut Network) -> Result<()> {
    let service = network.identity(Node::Service)?;
    let (ipv4, ipv6) = (service.ipv4.to_string(), service.ipv6.to_string());
    for (kind, address) in [("A", &ipv4), ("AAAA", &ipv6)] {
        for transport in ["+notcp", "+tcp"] {
            let out = dig(&["+short", transport, kind, HOST])?;
            ensure!(out.trim() == address, "{kind} by {transport}: {out}");
        }
        let out = dig(&["+short", "-x", address])?;
        ensure!(out.trim() == format!("{HOST}."), "PTR of {address}: {out}");
    }
    Ok(())
}

fn unknown(_: &mut Network) -> Result<()> {
    let out = dig(&["no-such-name.anon"])?;
    ensure!(out.contains("status: NXDOMAIN"), "{out}");
    let curl = output(on_client(60, "curl").args(["-sS", "http://no-such-name.anon/"]))?;
    // curl(1): 6, could not resolve host.
    ensure!(curl.status.code() == Some(6), "{curl:?}");
    Ok(())
}

/// A second owner is refused, in words, and nothing changes.
fn second_claim(network: &mut Network) -> Result<()> {
    let claim = output(
        network
            .client_command(Node::Client, "publish")
            .arg(SERVICE_NAME),
    )?;
    ensure!(
        !claim.status.success(),
        "the name was given twice: {claim:?}"
    );
    let said = String::from_utf8_lossy(&claim.stderr);
    ensure!(
        said.contains(SERVICE_NAME) && said.trim().lines().count() == 1,
        "{said}"
    );
    let out = dig(&["+short", "A", HOST])?;
    ensure!(
        out.trim() == network.identity(Node::Service)?.ipv4.to_string(),
        "{out}"
    );
    Ok(())
}

fn dig(arguments: &[&str]) -> Result<String> {
    succeed(
        on_client(60, "dig")
            .args(["+tries=1", "+time=30"])
            .args(arguments),
    )
}
