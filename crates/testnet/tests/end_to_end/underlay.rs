//! The network beneath: namespaces, wires, routes, and their removal; and that what the other tests
//! use works without Mixline.

use crate::Tests;
use crate::tools::{on_client, succeed};
use anyhow::{Result, ensure};
use mixline_testnet::fetch::{fetch, sha256_file};
use mixline_testnet::lock::Lock;
use mixline_testnet::namespaces;
use mixline_testnet::netns;
use mixline_testnet::process::{Process, Program, wait_for};
use mixline_testnet::ssh::Ssh;
use mixline_testnet::topology::{Node, ROUTER};
use mixline_testnet::web::Site;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

pub fn tests(tests: &mut Tests) {
    tests.bare(
        "underlay_nodes_reach_each_other_and_go_without_a_trace",
        reach_and_go,
    );
    tests.bare(
        "underlay_programs_end_with_who_started_them",
        end_with_parent,
    );
    tests.bare("underlay_carries_web_and_ssh", web_and_ssh);
}

/// A program ends with the thread that started it, as with a process that is killed.
fn end_with_parent() -> Result<()> {
    let _wires = Wires::up()?;
    let log = tempfile::NamedTempFile::new()?;
    let program = Program {
        namespace: Node::Client.namespace(),
        executable: "sleep".into(),
        arguments: vec!["600".into()],
        environment: Vec::new(),
        log: log.path().to_path_buf(),
    };
    let mut sleep = std::thread::spawn(move || {
        let sleep = program.start()?;
        runs(&sleep, "sleep")?;
        Ok::<_, anyhow::Error>(sleep)
    })
    .join()
    .map_err(|_| anyhow::anyhow!("the thread panicked"))??;
    let status = sleep.wait(Duration::from_secs(10))?;
    ensure!(!status.success(), "sleep ended well");
    Ok(())
}

/// Waits until it runs itself, and no longer `ip` or `setpriv`, which lead to it.
fn runs(process: &Process, name: &str) -> Result<()> {
    wait_for(&format!("{name} to run"), Duration::from_secs(10), || {
        let is = fs::read_to_string(format!("/proc/{}/comm", process.pid()))?;
        Ok((is.trim() == name).then_some(()))
    })
}

/// The namespaces; removed when dropped.
struct Wires {
    _lock: Lock,
}

impl Wires {
    fn up() -> Result<Self> {
        let lock = Lock::take(|| eprintln!("  waiting for another network"))?;
        namespaces::remove()?;
        namespaces::create(&[])?;
        Ok(Self { _lock: lock })
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        let _ = namespaces::remove();
    }
}

fn reach_and_go() -> Result<()> {
    let _wires = Wires::up()?;
    let there = Node::Relay(8);
    for address in [there.ipv4().to_string(), there.ipv6().to_string()] {
        succeed(on_client(30, "ping").args(["-c", "1", "-W", "20", &address]))?;
    }
    ensure!(
        namespaces::create(&[]).is_err(),
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
    runs(&sleep, "sleep")?;
    namespaces::remove()?;
    let status = sleep.wait(Duration::from_secs(10))?;
    ensure!(!status.success(), "sleep was not killed");
    for name in Node::all().map(Node::namespace).chain([ROUTER.into()]) {
        ensure!(!netns::exists(&name), "{name} is still there");
        ensure!(
            !namespaces::resolv_conf(&name).exists(),
            "{name} has files in /etc"
        );
    }
    Ok(())
}

fn web_and_ssh() -> Result<()> {
    let _wires = Wires::up()?;
    let directory = tempfile::tempdir()?;
    for sub in ["logs", "configs"] {
        fs::create_dir(directory.path().join(sub))?;
    }
    let addresses = [
        IpAddr::V4(Node::Service.ipv4()),
        IpAddr::V6(Node::Service.ipv6()),
    ];
    let site = Site::create(&directory.path().join("site"))?;
    let mut web = site.serve(directory.path(), &addresses)?;
    let ssh = Ssh::create(directory.path(), "service", &addresses)?;
    let mut sshd = ssh.serve(directory.path().join("logs/sshd.log"))?;
    let page = directory.path().join("page.html");
    for url in [
        format!("http://{}/", Node::Service.ipv4()),
        format!("http://[{}]/", Node::Service.ipv6()),
    ] {
        wait_for("the web server", Duration::from_secs(30), || {
            web.check_running()?;
            anyhow::Ok(
                fetch(
                    &Node::Client.namespace(),
                    &url,
                    &page,
                    &["--max-time", "10"],
                )
                .ok(),
            )
        })?;
        ensure!(
            sha256_file(&page)? == site.page_sha256,
            "another page from {url}"
        );
    }
    for address in addresses {
        let out = wait_for("the ssh server", Duration::from_secs(30), || {
            sshd.check_running()?;
            let mut command = on_client(20, "ssh");
            command
                .arg("-F")
                .arg(ssh.client_config())
                .args([&address.to_string(), "echo here"]);
            anyhow::Ok(succeed(&mut command).ok())
        })?;
        ensure!(out.trim() == "here", "{out}");
    }
    Ok(())
}
