//! Unmodified applications: curl, ping, ssh, iperf3.

use crate::tools::{HOST, on, on_client, succeed};
use crate::{Kind, Tests};
use anyhow::{Context, Result, ensure};
use mixline_testnet::Network;
use mixline_testnet::fetch::{fetch, sha256_file};
use mixline_testnet::netns;
use mixline_testnet::topology::Node;
use mixline_testnet::web::{DOWNLOAD_BYTES, DOWNLOAD_NAME};
use ring::digest;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::process::Stdio;

pub fn tests(tests: &mut Tests) {
    tests.on(Kind::Honest, "page_over_ipv4", |network| {
        page(network, "-4")
    });
    tests.on(Kind::Honest, "page_over_ipv6", |network| {
        page(network, "-6")
    });
    tests.on(Kind::Honest, "page_by_id", page_by_id);
    tests.on(Kind::Honest, "download_of_100_mb", download);
    tests.on(Kind::Honest, "ping_over_ipv4", |_| ping("-4", 56, 5));
    tests.on(Kind::Honest, "ping_over_ipv6", |_| ping("-6", 56, 5));
    tests.on(Kind::Honest, "ping_of_8000_bytes_over_ipv4", |_| {
        ping("-4", 8000, 3)
    });
    tests.on(Kind::Honest, "ping_of_8000_bytes_over_ipv6", |_| {
        ping("-6", 8000, 3)
    });
    tests.on(Kind::Honest, "ssh", ssh);
    tests.on(Kind::Honest, "iperf3_tcp_upwards", |network| {
        iperf3(network, &[])
    });
    tests.on(Kind::Honest, "iperf3_tcp_downwards", |network| {
        iperf3(network, &["-R"])
    });
    tests.on(Kind::Honest, "iperf3_udp_upwards", |network| {
        iperf3(network, &["-u", "-b", "8M"])
    });
    tests.on(Kind::Honest, "iperf3_udp_downwards", |network| {
        iperf3(network, &["-u", "-b", "8M", "-R"])
    });
    tests.on(Kind::Honest, "fifty_parallel_connections", parallel);
}

/// The page arrives as it was sent, from the service's virtual address; the web server sees the
/// client's virtual address, not where it really is.
fn page(network: &mut Network, family: &str) -> Result<()> {
    let to = network.directory().join("page.html");
    let url = format!("http://{HOST}/");
    let fetched = fetch(
        &Node::Client.namespace(),
        &url,
        &to,
        &[family, "--max-time", "60"],
    )?;
    ensure!(
        sha256_file(&to)? == network.site()?.page_sha256,
        "another page arrived"
    );
    let service = network.identity(Node::Service)?;
    let client = network.identity(Node::Client)?;
    let (server, user) = match family {
        "-4" => (service.ipv4.to_string(), client.ipv4.to_string()),
        _ => (service.ipv6.to_string(), client.ipv6.to_string()),
    };
    ensure!(
        fetched.remote_ip == server,
        "it came from {}",
        fetched.remote_ip
    );
    let log = fs::read_to_string(network.directory().join("nginx/access.log"))?;
    let last = log
        .lines()
        .last()
        .context("nothing in the web server's log")?;
    ensure!(
        last.starts_with(&format!("{user} ")),
        "{user} is not the source in: {last}"
    );
    Ok(())
}

fn page_by_id(network: &mut Network) -> Result<()> {
    let to = network.directory().join("page.html");
    let url = format!("http://{}.anon/", network.identity(Node::Service)?.id);
    fetch(&Node::Client.namespace(), &url, &to, &["--max-time", "60"])?;
    ensure!(
        sha256_file(&to)? == network.site()?.page_sha256,
        "another page arrived"
    );
    Ok(())
}

fn download(network: &mut Network) -> Result<()> {
    let to = network.directory().join("download");
    let url = format!("http://{HOST}/{DOWNLOAD_NAME}");
    let fetched = fetch(&Node::Client.namespace(), &url, &to, &["--max-time", "300"])?;
    ensure!(
        fetched.size_download == DOWNLOAD_BYTES,
        "{} bytes",
        fetched.size_download
    );
    ensure!(
        sha256_file(&to)? == network.site()?.download_sha256,
        "something else arrived"
    );
    eprintln!("  {:.1} MB/s", fetched.bytes_per_s() / 1e6);
    fs::remove_file(to)?;
    Ok(())
}

/// Every ping is answered. More than the MTU crosses in fragments.
fn ping(family: &str, bytes: u32, count: u32) -> Result<()> {
    let count = count.to_string();
    let out = succeed(on_client(60, "ping").args([
        family,
        "-c",
        &count,
        "-i",
        "0.2",
        "-W",
        "10",
        "-s",
        &bytes.to_string(),
        HOST,
    ]))?;
    ensure!(out.contains(&format!("{count} received")), "{out}");
    Ok(())
}

/// A command on the other side, and some megabytes through its standard input.
fn ssh(network: &mut Network) -> Result<()> {
    let config = network.ssh()?.client_config();
    let input = network.directory().join("ssh-input");
    let content = part_of_download(network, 0, 10_000_000)?;
    fs::write(&input, &content)?;
    let out = succeed(
        on_client(120, "ssh")
            .arg("-F")
            .arg(config)
            .args([HOST, "sha256sum; echo $SSH_CONNECTION"])
            .stdin(File::open(&input)?),
    )?;
    ensure!(
        out.contains(&sha256_file(&input)?),
        "something else arrived: {out}"
    );
    let client = network.identity(Node::Client)?;
    let (ipv4, ipv6) = (client.ipv4.to_string(), client.ipv6.to_string());
    ensure!(
        out.contains(&ipv4) || out.contains(&ipv6),
        "the connection came from {out}"
    );
    Ok(())
}

/// A few seconds of iperf3; `-R` is from the service to the client.
fn iperf3(network: &mut Network, options: &[&str]) -> Result<()> {
    let address = network.identity(Node::Service)?.ipv4.to_string();
    let mut server = netns::command(&Node::Service.namespace(), "iperf3")
        .args(["--server", "--one-off", "--bind", &address])
        .stdout(Stdio::null())
        .spawn()?;
    mixline_testnet::process::wait_for(
        "iperf3 to listen",
        std::time::Duration::from_secs(20),
        || {
            let listening = succeed(on(Node::Service, 10, "ss").args(["-Hltn", "sport = :5201"]))?;
            anyhow::Ok((!listening.is_empty()).then_some(()))
        },
    )?;
    let outcome = succeed(
        on_client(90, "iperf3")
            .args([
                "--client",
                &address,
                "--json",
                "--time",
                "3",
                "--connect-timeout",
                "20000",
            ])
            .args(options),
    );
    let _ = server.kill();
    let _ = server.wait();
    let json: Value = serde_json::from_str(&outcome?)?;
    let end = &json["end"];
    if options.contains(&"-u") {
        let sum = &end["sum"];
        let packets = sum["packets"].as_u64().unwrap_or(0);
        let lost = sum["lost_percent"].as_f64().unwrap_or(100.0);
        ensure!(packets > 100, "hardly anything was sent: {sum}");
        ensure!(lost < 10.0, "lost {lost} % of an easy load: {sum}");
    } else {
        let bytes = end["sum_received"]["bytes"].as_u64().unwrap_or(0);
        ensure!(bytes > 1_000_000, "hardly anything arrived: {end}");
        eprintln!(
            "  {:.1} MB/s",
            end["sum_received"]["bits_per_second"]
                .as_f64()
                .unwrap_or(0.0)
                / 8e6
        );
    }
    Ok(())
}

/// Fifty connections at the same time, each with another part of the large file.
fn parallel(network: &mut Network) -> Result<()> {
    const CONNECTIONS: u64 = 50;
    const PART: u64 = 1_000_000;
    let directory = tempfile::tempdir()?;
    let url = format!("http://{HOST}/{DOWNLOAD_NAME}");
    let mut running = Vec::new();
    for number in 0..CONNECTIONS {
        let from = number * PART;
        let to = directory.path().join(number.to_string());
        let child = on_client(180, "curl")
            .args(["--silent", "--show-error", "--fail", "--range"])
            .arg(format!("{from}-{}", from + PART - 1))
            .arg("--output")
            .arg(&to)
            .arg(&url)
            .stderr(Stdio::piped())
            .spawn()?;
        running.push((from, to, child));
    }
    for (from, to, child) in running {
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "the part at {from}: {} {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let sent = digest::digest(&digest::SHA256, &part_of_download(network, from, PART)?);
        let arrived = digest::digest(&digest::SHA256, &fs::read(&to)?);
        ensure!(
            sent.as_ref() == arrived.as_ref(),
            "the part at {from} is not as it was sent"
        );
    }
    Ok(())
}

/// Bytes of the large file, as the web server has it.
pub fn part_of_download(network: &Network, from: u64, length: u64) -> Result<Vec<u8>> {
    let mut file = File::open(network.site()?.directory.join(DOWNLOAD_NAME))?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}
