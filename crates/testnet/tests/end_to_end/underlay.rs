//! The network beneath: namespaces, wires, routes, and their removal.

use crate::Tests;
use anyhow::{Result, ensure};
use mixline_testnet::lock::Lock;
use mixline_testnet::namespaces;
use mixline_testnet::process::{Program, start_time};
use mixline_testnet::topology::{Node, ROUTER};

pub fn tests(tests: &mut Tests) {
    tests.bare(
        "underlay_nodes_reach_each_other_and_go_without_a_trace",
        reach_and_go,
    );
}

fn reach_and_go() -> Result<()> {
    let _lock = Lock::take(|| eprintln!("  waiting for another network"))?;
    namespaces::remove()?;
    namespaces::create()?;
    let there = Node::Relay(8);
    for address in [there.ipv4().to_string(), there.ipv6().to_string()] {
        let output = namespaces::command(&Node::Client.namespace(), "ping")
            .args(["-c", "1", "-W", "5", &address])
            .output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    ensure!(
        namespaces::create().is_err(),
        "the same namespaces cannot be made twice"
    );

    // A process of a run that was killed, with nobody left to end it.
    let log = tempfile::NamedTempFile::new()?;
    let mut sleep = Program {
        namespace: there.namespace(),
        executable: "sleep".into(),
        arguments: vec!["600".into()],
        environment: Vec::new(),
        log: log.path().to_path_buf(),
    }
    .start()?;
    ensure!(start_time(sleep.pid()).is_some(), "sleep does not run");
    mixline_testnet::process::wait_for("sleep to run", std::time::Duration::from_secs(10), || {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", sleep.pid()))?;
        Ok((name.trim() == "sleep").then_some(())) // and no longer ip or setpriv
    })?;
    namespaces::remove()?;
    let status = sleep.wait(std::time::Duration::from_secs(10))?;
    ensure!(!status.success(), "sleep was not killed");
    for name in Node::all().map(Node::namespace).chain([ROUTER.into()]) {
        ensure!(!namespaces::exists(&name), "{name} is still there");
        ensure!(
            !namespaces::resolv_conf(&name).exists(),
            "{name} has files in /etc"
        );
    }
    Ok(())
}
