//! What changes while the programs run: names, configurations, signals, terminals. Nothing that
//! goes on is cut off for it, and nothing leaves the hosts.

use crate::leaks::{connections_end, quietly};
use crate::tools::{HOST, eventually, length, on, on_client, output, succeed};
use crate::{Kind, Tests};
use anyhow::{Context, Result, ensure};
use mixline_daemon::testing::Terminal;
use mixline_testnet::fetch::sha256_file;
use mixline_testnet::topology::{DIRECTORY_PORT, Node, RELAYS, directory_url};
use mixline_testnet::web::DOWNLOAD_NAME;
use mixline_testnet::{Network, namespaces, netns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

pub fn tests(tests: &mut Tests) {
    tests.on(
        Kind::Honest,
        "reload::a_download_goes_on_whatever_changes",
        download,
    );
    tests.on(
        Kind::Honest,
        "reload::names_are_asked_for_as_the_configuration_says_now",
        names,
    );
    tests.on(
        Kind::Honest,
        "reload::the_directory_moves_and_everybody_follows",
        |network| quietly(network, directory),
    );
    tests.on(
        Kind::Honest,
        "reload::a_terminal_that_goes_away_ends_no_client",
        terminal,
    );
    tests.on(
        Kind::Honest,
        "reload::hangups_from_start_to_end_end_no_client",
        |network| quietly(network, hangups),
    );
}

/// A command for a node's client that has to succeed: what it prints.
fn tell(network: &Network, node: Node, command: &str, argument: Option<&str>) -> Result<String> {
    let mut command = network.client_command(node, command);
    succeed(command.args(argument))
}

fn hang_up(network: &mut Network, node: Node) -> Result<()> {
    let process = network.process(node).context("it does not run")?;
    kill(Pid::from_raw(process.pid().try_into()?), Signal::SIGHUP)?;
    Ok(())
}

/// Adds lines to a node's configuration, in the place of those added before.
fn configure(network: &Network, node: Node, more: &str) -> Result<()> {
    let text = network.configuration(node)?;
    Ok(fs::write(network.files(node).config, text + more)?)
}

/// Changes what is written in a node's configuration.
fn change(network: &Network, node: Node, from: &str, to: &str) -> Result<()> {
    let file = network.files(node).config;
    let text = fs::read_to_string(&file)?;
    ensure!(text.contains(from), "{text}");
    Ok(fs::write(&file, text.replace(from, to))?)
}

/// Which interface it is, and how long its packets are: `3: mixline0: <...> mtu 1500 ...`.
fn interface(node: Node) -> Result<(String, String)> {
    let shown = succeed(on(node, 5, "ip").args(["-o", "link", "show", "mixline0"]))?;
    let mut words = shown.split_whitespace();
    let index = words.next().context("no index")?.to_owned();
    let mtu = words.skip_while(|word| *word != "mtu").nth(1);
    Ok((index, mtu.context("no MTU")?.to_owned()))
}

fn start_download(network: &Network, rate: &str) -> Result<(std::path::PathBuf, Child)> {
    let to = network.directory().join("download");
    let _ = fs::remove_file(&to);
    let curl = netns::command(&Node::Client.namespace(), "curl")
        .args(["--silent", "--show-error", "--fail", "--limit-rate", rate])
        .args(["--max-time", "240", "--output"])
        .arg(&to)
        .arg(format!("http://{HOST}/{DOWNLOAD_NAME}"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("running curl")?;
    eventually("the first megabyte", 60, || Ok(length(&to) > 1_000_000))?;
    Ok((to, curl))
}

/// Waits until the service's page is there by name; says how the client is if it does not come.
fn page_comes(network: &Network, what: &str, seconds: u64) -> Result<()> {
    let mut last = String::new();
    let there = eventually(&format!("the page, {what}"), seconds, || {
        let url = format!("http://{HOST}/");
        let got = output(on_client(10, "curl").args(["-sS", "-o", "/dev/null", "-m", "5", &url]))?;
        last = String::from_utf8_lossy(&got.stderr).into_owned();
        Ok(got.status.success())
    });
    there.with_context(|| match network.client_status(Node::Client) {
        Ok(status) => format!("{last}{status:#}"),
        Err(error) => format!("{last}{error}"),
    })
}

fn download(network: &mut Network) -> Result<()> {
    let before = [Node::Client, Node::Service].map(interface);
    let pids = |network: &mut Network| -> Vec<Option<u32>> {
        Node::all()
            .map(|node| network.process(node).map(|process| process.pid()))
            .collect()
    };
    let running = pids(network);
    quietly(network, |network| {
        let (to, mut curl) = start_download(network, "3M")?;
        let mut goes_on = |what: &str| -> Result<()> {
            let so_far = length(&to);
            ensure!(curl.try_wait()?.is_none(), "over before: {what}");
            eventually(&format!("more of the download after: {what}"), 20, || {
                Ok(length(&to) > so_far + 300_000)
            })?;
            eprintln!("  {:.0} MB after: {what}", length(&to) as f64 / 1e6);
            Ok(())
        };

        tell(network, Node::Client, "publish", Some("visitor"))?;
        let found = network
            .client_command(Node::Service, "resolve")
            .arg("visitor.anon")
            .output()?;
        ensure!(found.status.success(), "{found:?}");
        succeed(on(Node::Service, 20, "ping").args(["-c1", "-W10", "visitor.anon"]))?;
        goes_on("the client published its first name")?;
        tell(network, Node::Client, "unpublish", Some("visitor"))?;
        ensure!(network.client_status(Node::Client)?["accepting"] == false);
        goes_on("it withdrew its last name")?;

        let more = "mtu: 1400\naccept: always\npolicies: [{port: 80, policy: per-packet}]\n\
                    guards: 2\nhead_length: 2\n";
        configure(network, Node::Client, more)?;
        hang_up(network, Node::Client)?;
        eventually("the client's new MTU", 10, || {
            Ok(interface(Node::Client)?.1 == "1400")
        })?;
        ensure!(network.client_status(Node::Client)?["accepting"] == true);
        eventually("heads of two relays", 20, || {
            let chosen = network.chosen_paths(Node::Client)?;
            Ok(!chosen.paths.is_empty() && chosen.paths.iter().all(|path| path.head.len() == 2))
        })?;
        goes_on("the client was hung up on")?;
        configure(network, Node::Client, "")?;
        change(network, Node::Client, "mixline0", "other0")?;
        let said = tell(network, Node::Client, "reload", None)?;
        let expected = "changed: mtu, accept, policies, guards, head_length\n\
                        counts after a restart: interface\n";
        ensure!(said == expected, "{said}");
        goes_on("the client's configuration was read again")?;
        configure(network, Node::Client, "mtuu: 1\n")?;
        let refused = network.client_command(Node::Client, "reload").output()?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(
            !refused.status.success() && said.contains("`mtuu`"),
            "{said}"
        );
        configure(network, Node::Client, "")?;
        goes_on("the client's configuration was wrong")?;

        // The same at the other end, which is the one that is found.
        tell(network, Node::Service, "unpublish", Some("freespeech"))?;
        goes_on("the service withdrew its name")?;
        configure(network, Node::Service, "mtu: 1400\naccept: always\n")?;
        let said = tell(network, Node::Service, "reload", None)?;
        // The name comes back, as the file says.
        ensure!(said == "changed: mtu, accept, publish\n", "{said}");
        goes_on("the service's configuration was read again")?;
        configure(network, Node::Service, "")?;
        hang_up(network, Node::Service)?;
        eventually("the service's former MTU", 10, || {
            Ok(interface(Node::Service)?.1 == "1500")
        })?;
        goes_on("the service was hung up on")?;

        for node in (1..=RELAYS).map(Node::Relay).chain([Node::Directory]) {
            hang_up(network, node)?;
        }
        goes_on("all relays and the directory were hung up on")?;

        let output = curl.wait_with_output()?;
        ensure!(output.status.success(), "{output:?}");
        ensure!(
            sha256_file(&to)? == network.site()?.download_sha256,
            "something else arrived"
        );
        fs::remove_file(to)?;
        Ok(())
    })?;
    for (node, before) in [Node::Client, Node::Service].into_iter().zip(before) {
        ensure!(interface(node)? == before?, "{node} has another interface");
    }
    ensure!(pids(network) == running, "some program is another one");
    // Somebody without a session finds the service, whose name is back.
    network.stop(Node::Client)?;
    network.start(Node::Client)?;
    network.wait_for_client(Node::Client)?;
    page_comes(network, "for a stranger", 60)
}

fn names(network: &mut Network) -> Result<()> {
    let file = namespaces::resolv_conf(&Node::Client.namespace());
    let status = |network: &Network| -> Result<serde_json::Value> {
        Ok(network.client_status(Node::Client)?["dns"].clone())
    };
    quietly(network, |network| {
        let as_it_was = status(network)?;
        for (more, upstream) in [
            (
                "dns: {mode: resolv-conf, upstream: [192.0.2.7]}\n",
                vec!["192.0.2.7"],
            ),
            ("dns: {mode: resolv-conf, forward: false}\n", vec![]),
        ] {
            configure_dns(network, more)?;
            tell(network, Node::Client, "reload", None)?;
            eventually(more, 10, || {
                Ok(status(network)?["upstream"] == serde_json::json!(upstream))
            })?;
            page_comes(network, "after a reload", 20)?;
        }
        // Nobody asks here any more, and the file is as it was; then again.
        configure_dns(network, "dns: {mode: \"off\"}\n")?;
        let said = tell(network, Node::Client, "reload", None)?;
        ensure!(said == "changed: dns.mode, dns.forward\n", "{said}");
        eventually("the file as it was", 10, || {
            Ok(!fs::read_to_string(&file)?.contains("mixline"))
        })?;
        ensure!(status(network)?["mode"] == "off");
        // Whoever is asked around the client hears of no name and no virtual address all the same.
        for asked in [
            &["secret.anon"][..],
            &["AAAA", HOST],
            &["-x", "10.66.77.88"],
            &["-x", "fd66:7788::1"],
        ] {
            let dig = ["+time=1", "+tries=1", "@172.30.0.1"];
            let answer = output(on_client(5, "dig").args(dig).args(asked))?;
            ensure!(!answer.status.success(), "{asked:?}: {answer:?}");
        }
        configure(network, Node::Client, "")?;
        tell(network, Node::Client, "reload", None)?;
        eventually("the file to name the client", 10, || {
            Ok(fs::read_to_string(&file)?.contains("#mixline-client: "))
        })?;
        page_comes(network, "after a reload", 20)?;
        let now = status(network)?;
        ensure!(now == as_it_was, "{now}, and was {as_it_was}");
        Ok(())
    })
}

/// The client's configuration with another line for `dns`.
fn configure_dns(network: &Network, line: &str) -> Result<()> {
    configure(network, Node::Client, "")?;
    change(network, Node::Client, "dns: {mode: resolv-conf}\n", line)
}

fn directory(network: &mut Network) -> Result<()> {
    let (was, is) = (
        directory_url(0),
        format!("http://[{}]:{DIRECTORY_PORT}", Node::Directory.ipv6()),
    );
    let there_alone = format!("[{}]:{DIRECTORY_PORT}", Node::Directory.ipv6());
    let (to, mut curl) = start_download(network, "8M")?;
    let relays = (1..=RELAYS).map(Node::Relay);
    for node in relays.chain([Node::Service, Node::Client]) {
        change(network, node, &was, &is)?;
        hang_up(network, node)?;
    }
    let everywhere = format!("[::]:{DIRECTORY_PORT}");
    change(network, Node::Directory, &everywhere, &there_alone)?;
    hang_up(network, Node::Directory)?;
    eventually("the directory to be there alone", 20, || {
        let mut curl = netns::command(&Node::Client.namespace(), "curl");
        curl.args(["--silent", "--max-time", "2", &was]);
        Ok(!curl.output()?.status.success())
    })?;
    for node in [Node::Service, Node::Client] {
        eventually(&format!("{node} to follow"), 20, || {
            let snapshot = &network.client_status(node)?["snapshot"];
            Ok(snapshot["url"] == is && snapshot["last_error"].is_null())
        })?;
    }
    for number in 1..=RELAYS {
        eventually(&format!("relay {number} to follow"), 40, || {
            let directory = &network.relay_status(number)?["directory"];
            Ok(directory["url"] == is && directory["last_error"].is_null())
        })?;
    }
    ensure!(curl.wait()?.success());
    ensure!(sha256_file(&to)? == network.site()?.download_sha256);
    for node in Node::all() {
        configure(network, node, "")?;
        hang_up(network, node)?;
    }
    eventually("the client to be back", 30, || {
        let snapshot = &network.client_status(Node::Client)?["snapshot"];
        Ok(snapshot["url"] == was && snapshot["last_error"].is_null())
    })?;
    network.wait_for_relays(RELAYS)?;
    Ok(())
}

/// As a person does it: `mixline-client up &` in a shell, with `nohup` too, and the terminal is closed.
fn terminal(network: &mut Network) -> Result<()> {
    connections_end(Node::Client)?;
    network.stop(Node::Client)?;
    for nohup in ["", "nohup "] {
        quietly(network, |network| hung_up(network, nohup))
            .with_context(|| format!("{nohup}mixline-client up &"))?;
    }
    network.start(Node::Client)?;
    network.wait_for_client(Node::Client)?;
    Ok(())
}

/// `before` is what the command line begins with.
fn hung_up(network: &mut Network, before: &str) -> Result<()> {
    let patience = Duration::from_secs(90);
    let config = network.files(Node::Client).config;
    let shell = {
        let mut shell = netns::command(&Node::Client.namespace(), "bash");
        shell.args(["--norc", "-i"]).env("MIXLINE_LOG", "debug");
        shell
    };
    let mut terminal = Terminal::open()?;
    let mut shell = terminal.command(&shell)?.spawn()?;
    let client = network.programs().client.display().to_string();
    // What the client says is left to `nohup`, which writes it into a file where it is.
    let logs = network.directory().join("logs");
    let (logs, config) = (logs.display(), config.display());
    terminal.type_in(&format!(
        "cd {logs}; {before}{client} up --config {config} &\n"
    ))?;
    if before.is_empty() {
        ensure!(terminal.hears("\nready", patience), "{}", terminal.said());
    } else {
        let up = network.wait_for_client(Node::Client);
        up.with_context(|| terminal.said())?;
    }
    let pid = network.client_status(Node::Client)?["pid"].clone();
    configure(network, Node::Client, "accept: always\n")?;
    terminal.close();
    shell.wait()?;
    // It was hung up on, and reads its configuration again; what it logs goes nowhere, or into the file.
    eventually("the client to read its configuration again", 60, || {
        Ok(network.client_status(Node::Client)?["accepting"] == true)
    })?;
    configure(network, Node::Client, "")?;
    ensure!(tell(network, Node::Client, "reload", None)?.contains("accept"));
    page_comes(network, "at the end", 30)?;
    ensure!(network.client_status(Node::Client)?["pid"] == pid);
    connections_end(Node::Client)?;
    tell(network, Node::Client, "down", None)?;
    Ok(())
}

fn hangups(network: &mut Network) -> Result<()> {
    connections_end(Node::Client)?;
    network.stop(Node::Client)?;
    network.start(Node::Client)?;
    let process = network.process(Node::Client).context("it does not run")?;
    let pid = Pid::from_raw(process.pid().try_into()?);
    let program = network.programs().client.clone();
    // Before that it is `ip`, and the dynamic linker's.
    let status = format!("/proc/{pid}/status");
    eventually("the program itself", 10, || {
        let is = fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
        // SIGHUP is the first of 64 bits in hexadecimal digits.
        let has_hangup = |line: &str| {
            let last = line.chars().last().and_then(|digit| digit.to_digit(16));
            (line.starts_with("SigBlk:") || line.starts_with("SigCgt:"))
                && last.is_some_and(|digit| digit % 2 == 1)
        };
        Ok(is && fs::read_to_string(&status)?.lines().any(has_hangup))
    })?;
    let storm = std::thread::spawn(move || {
        while kill(pid, Signal::SIGHUP).is_ok() {
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    network.wait_for_client(Node::Client)?;
    page_comes(network, "at the end", 30)?;
    // To its clean end.
    connections_end(Node::Client)?;
    network.stop(Node::Client)?;
    ensure!(storm.join().is_ok());
    network.start(Node::Client)?;
    network.wait_for_client(Node::Client)?;
    Ok(())
}
