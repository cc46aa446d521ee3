//! `cargo xtask demo`: a whole network on this machine, a page and a download through it.

use crate::report::{FramesReport, RelayReport, Report};
use crate::{privileges, run, setup};
use anyhow::{Context, Result, bail};
use mixline_protocol::records::Snapshot;
use mixline_relay_common::verdict::Verdict;
use mixline_testnet::configs::SERVICE_NAME;
use mixline_testnet::fetch::{Fetched, fetch, sha256_file};
use mixline_testnet::topology::{Node, RELAYS};
use mixline_testnet::web::{DOWNLOAD_BYTES, DOWNLOAD_NAME};
use mixline_testnet::{Network, Options, Port, Programs, process, programs};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What `cargo xtask demo` takes.
#[derive(clap::Args)]
pub struct Arguments {
    /// End after the page and the download; exit 0 only if both arrived intact.
    #[arg(long)]
    once: bool,
    /// Write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What the relays receive and send with. By default `xdp`, or `udp` where the XDP program cannot
    /// be built.
    #[arg(long, value_enum)]
    port: Option<Port>,
    /// How many directories there are, of different owners: 4, 7 or 10 agree on what the network is, and one of them is killed in the
    /// middle.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = directories)]
    directories: usize,
    /// Switch segmentation off on the wires, so that a capture shows single datagrams (slower).
    #[arg(long)]
    plain_wires: bool,
    /// Set-up and build are done (for the second half, under sudo).
    #[arg(long, hide = true)]
    built: bool,
}

/// A number of directories.
fn directories(text: &str) -> Result<usize, String> {
    let known = [1, 4, 7, 10].into_iter().find(|n| n.to_string() == text);
    known.ok_or_else(|| "a network has 1, 4, 7 or 10 directories".to_owned())
}

/// What the machine has to be set up for.
fn purpose(port: Option<Port>) -> setup::Purpose {
    match port {
        None => setup::Purpose::DemoXdp,
        Some(port) if port.needs_xdp() => setup::Purpose::All,
        Some(_) => setup::Purpose::Demo,
    }
}

/// What the relays have, once they are built.
fn port(asked_for: Option<Port>) -> Port {
    match asked_for {
        Some(port) => port,
        None if programs::xdp_program().is_some() => {
            println!(
                "   relays on AF_XDP; `--port udp` is faster here, where wires are veth pairs, which \
                 hand trains of datagrams over whole"
            );
            Port::Xdp
        }
        None => {
            println!("   relays on UDP sockets: the XDP program was not built, see 1.");
            Port::Udp
        }
    }
}

/// Runs the demo.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !arguments.built {
        println!("1. What this machine needs");
        if !setup::ensure(purpose(arguments.port))? {
            bail!("this machine lacks something: see above");
        }
        println!("2. The programs");
        run::build(false)?;
    }
    if let Some(code) = privileges::as_root(&["--built"])? {
        return Ok(code);
    }
    mixline_testnet::end_on_signals()?;
    println!("3. The network");
    let began = Instant::now();
    let up = |port| {
        let options = Options {
            ports: vec![port],
            offloads: !arguments.plain_wires,
            directories: arguments.directories,
            ..Options::default()
        };
        Network::up(Programs::release()?, options, |line| {
            println!("   {:5.1} s  {line}", began.elapsed().as_secs_f64());
        })
    };
    let chosen = port(arguments.port);
    let mut network = match up(chosen) {
        Err(error) if arguments.port.is_none() && chosen != Port::Udp => {
            let error = anyhow::Error::from(error);
            println!("   not on AF_XDP: {error:#}");
            println!("   relays on UDP sockets instead");
            up(Port::Udp)?
        }
        network => network?,
    };

    println!("4. A page and 100 MB through it");
    let page = fetch_page(&network)?;
    let download = fetch_download(&network)?;
    let report = report(&mut network, &page, &download)?;
    if let Some(file) = &arguments.json {
        report.save(file)?;
        privileges::give_to_user(file);
    }
    explain(&network, &report)?;
    if arguments.directories > 1 {
        println!("6. One of {} directories is killed", arguments.directories);
        without_one(&mut network, arguments.directories)?;
    }
    if !arguments.once {
        how_to_try(&network)?;
        stay(&mut network)?;
        println!("taking the network down");
    }
    network.down()?;
    privileges::give_to_user(&programs::testnet_directory());
    Ok(ExitCode::SUCCESS)
}

/// Kills a directory, and says what the others do, and what it does when it is back.
fn without_one(network: &mut Network, directories: usize) -> Result<()> {
    // The first one keeps names and services, the last one dies.
    let killed = directories - 1;
    let began = network.snapshot()?;
    show(&began, directories);
    network.kill_directory(killed)?;
    println!("   d{directories} is killed");
    let without = wait_for_round(network, |snapshot| {
        snapshot.issued > began.issued && !has_signed(snapshot, killed)
    })?;
    show(&without, directories);
    if without.relays.len() < began.relays.len() {
        bail!("the others list fewer relays than before");
    }
    fetch_page(network)?;
    network.start_directory(killed)?;
    println!("   d{directories} is started again");
    let again = wait_for_round(network, |snapshot| has_signed(snapshot, killed))?;
    show(&again, directories);
    let own = network.snapshot_of(killed)?;
    if own.issued < without.issued {
        bail!("d{directories} has not caught up");
    }
    println!(
        "   d{directories} has what it had missed, and hands out round {}",
        own.issued.0
    );
    Ok(())
}

fn has_signed(snapshot: &Snapshot, number: usize) -> bool {
    let mut signatures = snapshot.signatures.iter();
    signatures.any(|(index, _)| usize::from(index) == number)
}

fn wait_for_round(network: &Network, is_it: impl Fn(&Snapshot) -> bool) -> Result<Snapshot> {
    let patience = Duration::from_secs(120);
    process::wait_for("such a round", patience, || {
        Ok(network.snapshot().ok().filter(&is_it))
    })
}

/// Who has signed a snapshot.
fn show(snapshot: &Snapshot, directories: usize) {
    let signers: Vec<_> = (0..directories)
        .filter(|number| has_signed(snapshot, *number))
        .map(|number| format!("d{}", number + 1))
        .collect();
    println!(
        "   round {}: {} relays, signed by {} of {directories}: {}",
        snapshot.issued.0,
        snapshot.relays.len(),
        signers.len(),
        signers.join(", ")
    );
}

fn fetch_page(network: &Network) -> Result<Fetched> {
    let to = network.directory().join("page.html");
    let url = format!("http://{SERVICE_NAME}.anon/");
    println!("   curl {url}");
    let fetched = fetch(&Node::Client.namespace(), &url, &to, &["--max-time", "60"])?;
    if sha256_file(&to)? != network.site()?.page_sha256 {
        bail!("the page did not arrive as it was sent: {}", to.display());
    }
    let text = fs::read_to_string(&to)?;
    let title = text
        .split("<p>")
        .nth(1)
        .and_then(|rest| rest.split("</p>").next());
    println!("   \"{}\"", title.unwrap_or_default());
    println!(
        "   {} bytes from {}, first byte after {:.0} ms, SHA-256 as sent",
        fetched.size_download,
        fetched.remote_ip,
        fetched.time_starttransfer * 1e3
    );
    Ok(fetched)
}

fn fetch_download(network: &Network) -> Result<Fetched> {
    let to = network.directory().join(DOWNLOAD_NAME);
    let url = format!("http://{SERVICE_NAME}.anon/{DOWNLOAD_NAME}");
    println!("   curl {url}");
    let fetched = fetch(&Node::Client.namespace(), &url, &to, &["--max-time", "600"])?;
    let intact = sha256_file(&to)? == network.site()?.download_sha256;
    let _ = fs::remove_file(&to);
    if !intact || fetched.size_download != DOWNLOAD_BYTES {
        bail!(
            "the download did not arrive as it was sent ({} bytes)",
            fetched.size_download
        );
    }
    println!(
        "   {:.0} MB in {:.2} s: {:.1} MB/s, SHA-256 as sent",
        fetched.size_download as f64 / 1e6,
        fetched.time_total,
        fetched.bytes_per_s() / 1e6
    );
    Ok(fetched)
}

fn report(network: &mut Network, page: &Fetched, download: &Fetched) -> Result<Report> {
    let mut relays = Vec::new();
    for number in 1..=RELAYS {
        let node = Node::Relay(number);
        let process = network
            .process(node)
            .with_context(|| format!("{node} does not run"))?;
        let usage = process
            .usage()
            .with_context(|| format!("looking at {node}"))?;
        relays.push(RelayReport {
            xdp: frames(&network.relay_status(number)?),
            name: node.name(),
            rss_bytes: usage.rss_bytes,
            cpu_s: usage.cpu_s,
        });
    }
    let service = network.identity(Node::Service)?;
    let client = network.identity(Node::Client)?;
    Ok(Report {
        download_bytes_per_s: download.bytes_per_s(),
        first_byte_ms: page.time_starttransfer * 1e3,
        relays,
        client_ipv4: client.ipv4.to_string(),
        service_ipv4: service.ipv4.to_string(),
        service_ipv6: service.ipv6.to_string(),
        service_id: service.id,
    })
}

/// What a relay's XDP program did with frames; none without one.
fn frames(status: &serde_json::Value) -> Option<FramesReport> {
    let verdicts = status["xdp"].as_object().filter(|of| !of.is_empty())?;
    let sum = |wanted: &dyn Fn(&Verdict) -> bool| {
        Verdict::ALL
            .iter()
            .filter(|verdict| wanted(verdict))
            .filter_map(|verdict| verdicts.get(verdict.name())?.as_u64())
            .sum()
    };
    let redirects = |verdict: &Verdict| matches!(verdict, Verdict::Redirected);
    Some(FramesReport {
        passed: sum(&|verdict| !verdict.drops() && !redirects(verdict)),
        redirected: sum(&redirects),
        dropped: sum(&|verdict| verdict.drops()),
    })
}

fn explain(network: &Network, report: &Report) -> Result<()> {
    println!("5. What happened");
    println!(
        "   service  {SERVICE_NAME}.anon = {}.anon",
        report.service_id
    );
    println!(
        "            {} and {}",
        report.service_ipv4, report.service_ipv6
    );
    println!("   client   {}", report.client_ipv4);
    let chosen = network.chosen_paths(Node::Client)?;
    println!(
        "   guards that the client chose  {}",
        chosen.guards.join(", ")
    );
    println!("   paths: three relays that the client chose > three that the service chose");
    for path in &chosen.paths {
        println!(
            "     {} > {} > ... (the rest is the service's secret)   {} cells",
            path.head.join(" > "),
            path.tail,
            path.cells
        );
    }
    let port = &network.relay_status(1)?["port"];
    let text = |name: &str| port[name].as_str().unwrap_or("unknown").to_owned();
    println!("   relays, port {}: {}", text("kind"), text("why"));
    for relay in &report.relays {
        let frames = relay.xdp.as_ref().map_or_else(String::new, |xdp| {
            format!(
                "; XDP program: {:6} frames passed, {:6} redirected, {} dropped",
                xdp.passed, xdp.redirected, xdp.dropped
            )
        });
        println!(
            "     {:8} {:5.1} MB of memory, {:5.2} s of CPU{frames}",
            relay.name,
            relay.rss_bytes as f64 / 1e6,
            relay.cpu_s
        );
    }
    println!(
        "   time to first byte {:.0} ms, download {:.1} MB/s",
        report.first_byte_ms,
        report.download_bytes_per_s / 1e6
    );
    Ok(())
}

fn how_to_try(network: &Network) -> Result<()> {
    let prefix = format!("ip netns exec {}", Node::Client.namespace());
    let sudo = if std::env::var_os("SUDO_UID").is_some() {
        "sudo "
    } else {
        ""
    };
    println!("\nTry it from another terminal:");
    println!("   {sudo}{prefix} curl http://{SERVICE_NAME}.anon/");
    println!("   {sudo}{prefix} ping {SERVICE_NAME}.anon");
    println!(
        "   {sudo}{prefix} ssh -F {} {SERVICE_NAME}.anon",
        network.ssh()?.client_config().display()
    );
    println!(
        "   {sudo}{prefix} {} status --config {}",
        network.programs().client.display(),
        network.files(Node::Client).config.display()
    );
    println!(
        "Namespaces, addresses, processes and logs: {}",
        network.directory().join("state.json").display()
    );
    println!("Ctrl-C ends it.");
    Ok(())
}

/// Waits for Ctrl-C; says so when a program ends by itself.
fn stay(network: &mut Network) -> Result<()> {
    let mut gone = Vec::new();
    while !mixline_testnet::interrupted() {
        for node in Node::all()
            .filter(|node| !gone.contains(node))
            .collect::<Vec<_>>()
        {
            if let Some(process) = network.process(node)
                && let Err(error) = process.check_running()
            {
                eprintln!("{node}: {error}");
                gone.push(node);
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
