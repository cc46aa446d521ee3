//! The program as a person or a service manager meets it.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use mixline_daemon::testing::{HeldFile, ServiceManager};
use mixline_protocol::identity::AnonymousId;
use mixline_testnet::{netns, skip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mixline-client");
/// Nobody answers there: RFC 5737, section 3, and no route in a fresh namespace.
const NOWHERE: &str = "http://192.0.2.1:8080";

struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new(more: &str) -> Self {
        let fixture = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let text = format!(
            "state_dir: {}\ninterface: mixcli0\ndirectory: {{url: \"{NOWHERE}\", id: {}}}\n\
             dns: {{mode: off}}\n{more}",
            fixture.state().display(),
            AnonymousId([7; 32])
        );
        std::fs::write(fixture.config(), text).unwrap();
        fixture
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("client.yaml")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).arg("--config").arg(self.config());
        command.env("MIXLINE_LOG", "warn");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn status(&self) -> Option<Value> {
        let output = self.run(&["status", "--json"]);
        output
            .status
            .success()
            .then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    fn wait_for(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.status()
                && holds(&status)
            {
                return status;
            }
            assert!(Instant::now() < until, "{what}: {:?}", self.status());
            sleep(Duration::from_millis(50));
        }
    }
}

/// The one line that a failure leaves.
fn failure(output: &Output) -> String {
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("mixline-client: "))
        .collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(!text.contains("panicked"), "{text}");
    lines[0].to_owned()
}

/// Runs a test in a network namespace of its own.
fn in_namespace(test: impl FnOnce() + Send) {
    if let Some(namespace) = skip::namespace_or_skip() {
        namespace.run(test).unwrap();
    }
}

fn has_interface() -> bool {
    netns::ip_output("-o link show")
        .unwrap()
        .contains("mixcli0")
}

fn terminate(child: &mut Child, signal: Signal) -> i32 {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
    child.wait().unwrap().code().expect("it exits by itself")
}

#[test]
fn a_wrong_log_filter_is_an_error_of_every_command() {
    let fixture = Fixture::new("");
    for command in ["up", "status", "id"] {
        let output = fixture
            .command(&[command])
            .env("MIXLINE_LOG", "loud")
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(error.contains("MIXLINE_LOG is `loud`"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_wrong_configuration_is_one_line() {
    let fixture = Fixture::new("interfaec: mixline1\n");
    for command in [&["up"][..], &["status"], &["up", "--detach"]] {
        let line = failure(&fixture.run(command));
        assert!(
            line.contains("interfaec") && line.contains("line 5"),
            "{line}"
        );
        assert!(line.contains("client.yaml"), "{line}");
    }
    std::fs::remove_file(fixture.config()).unwrap();
    assert!(failure(&fixture.run(&["up"])).contains("client.yaml"));
}

#[test]
fn commands_without_a_client_say_so() {
    let fixture = Fixture::new("");
    for command in [
        &["status"][..],
        &["down"],
        &["publish", "a"],
        &["unpublish", "a"],
        &["resolve", "a.anon"],
    ] {
        let line = failure(&fixture.run(command));
        assert!(line.contains("no client is running"), "{line}");
        assert!(line.contains("mixline-client up"), "{line}");
    }
}

#[test]
fn the_id_stays_the_same() {
    let fixture = Fixture::new("");
    let id = |fixture: &Fixture| String::from_utf8(fixture.run(&["id"]).stdout).unwrap();
    let first = id(&fixture);
    first.trim().parse::<AnonymousId>().unwrap();
    assert_eq!(id(&fixture), first);
    assert_ne!(id(&Fixture::new("")), first);
}

#[test]
fn help_and_version() {
    let help = Command::new(PROGRAM)
        .args(["up", "--help"])
        .output()
        .unwrap();
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success() && text.contains("--detach") && text.contains("--config"));
    assert!(
        Command::new(PROGRAM)
            .arg("--version")
            .output()
            .unwrap()
            .status
            .success()
    );
    assert_eq!(
        Command::new(PROGRAM)
            .arg("fly")
            .output()
            .unwrap()
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn without_permission_the_interface_is_refused_in_one_line() {
    if !skip::is_root_or_skip() {
        return;
    }
    let fixture = Fixture::new("");
    // Nobody has to be able to reach program, configuration and state.
    let home = fixture.directory.path();
    let program = home.join("mixline-client");
    std::fs::copy(PROGRAM, &program).unwrap();
    for path in [home, &program, &fixture.config()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::create_dir(fixture.state()).unwrap();
    let nobody = nix::unistd::Uid::from_raw(65534);
    nix::unistd::chown(&fixture.state(), Some(nobody), None).unwrap();
    let output = Command::new(program)
        .args(["up", "--config"])
        .arg(fixture.config())
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let line = failure(&output);
    assert!(
        line.contains("no permission") && line.contains("CAP_NET_ADMIN"),
        "{line}"
    );
}

#[test]
fn an_unreachable_directory_is_retried_in_sight() {
    in_namespace(|| {
        let fixture = Fixture::new("");
        let mut child = fixture
            .command(&["up"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let status = fixture.wait_for("a problem", |status| {
            status["problems"]
                .as_array()
                .is_some_and(|problems| !problems.is_empty())
        });
        assert_eq!(status["state"], "starting");
        assert!(
            status["problems"][0].as_str().unwrap().contains(NOWHERE),
            "{status}"
        );
        assert!(has_interface());
        let shown = String::from_utf8(fixture.run(&["status"]).stdout).unwrap();
        assert!(
            shown.contains("unreachable") && shown.contains("fetching the snapshot"),
            "{shown}"
        );

        // The identity is one client's at a time.
        let line = failure(&fixture.run(&["up"]));
        assert!(line.contains(&format!("process {}", child.id())), "{line}");
        let line = failure(&fixture.run(&["up", "--detach"]));
        assert!(line.contains(&format!("process {}", child.id())), "{line}");
        // And another one cannot have its interface.
        let other = Fixture::new("");
        assert!(failure(&other.run(&["up"])).contains("mixcli0 exists already"));

        assert!(fixture.run(&["down"]).status.success());
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert!(!has_interface());
        let mut told = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut told)
            .unwrap();
        assert!(
            told.contains("fetching the snapshot from http://192.0.2.1"),
            "{told}"
        );
        assert!(told.contains("unreachable"), "{told}");
        assert!(!fixture.state().join("control.sock").exists());
    });
}

#[test]
fn the_service_manager_hears_what_delays_it_and_that_it_stops() {
    in_namespace(|| {
        let fixture = Fixture::new("");
        let manager = ServiceManager::listen(&fixture.directory.path().join("notify")).unwrap();
        let mut command = fixture.command(&["up"]);
        manager.supervise(&mut command, Some(Duration::from_millis(300)));
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let hears = |line: &str| {
            let patience = Duration::from_secs(20);
            assert!(
                manager.wait_for(line, patience).unwrap().is_some(),
                "{line}"
            );
        };
        hears("STATUS=fetching the snapshot from http://192.0.2.1");
        hears("WATCHDOG=1");
        // The network delays it: a start that takes long is not one that hangs.
        hears("EXTEND_TIMEOUT_USEC=");
        hears("STATUS=still fetching");
        kill(
            Pid::from_raw(child.id().try_into().unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
        hears("STOPPING=1");
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn hangups_while_it_reads_its_configuration_end_nothing() {
    in_namespace(|| {
        let fixture = Fixture::new("");
        let held = HeldFile::hold(&fixture.config()).unwrap();
        let mut child = fixture
            .command(&["up"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It has done nothing yet but to look for its configuration.
        let reader = held.wait_for_reader(Duration::from_secs(20)).unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        for _ in 0..3 {
            kill(pid, Signal::SIGHUP).unwrap();
            sleep(Duration::from_millis(20));
        }
        reader.go_on().unwrap();
        fixture.wait_for("an answer", |_| true);
        assert_eq!(terminate(&mut child, Signal::SIGTERM), 0);
    });
}

#[test]
fn a_hangup_reads_the_configuration_again_and_ends_nothing() {
    in_namespace(|| {
        let fixture = Fixture::new("");
        let log = fixture.directory.path().join("log");
        let mut child = fixture
            .command(&["up"])
            .env("MIXLINE_LOG", "info")
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        fixture.wait_for("an answer", |_| true);
        let yaml = std::fs::read_to_string(fixture.config()).unwrap();
        let logs = |text: &str| {
            let until = Instant::now() + Duration::from_secs(20);
            while !std::fs::read_to_string(&log).unwrap().contains(text) {
                assert!(Instant::now() < until, "{text}");
                sleep(Duration::from_millis(20));
            }
        };
        let wrong = failure(&Fixture::new("").run(&["reload"]));
        assert!(wrong.contains("no client is running"), "{wrong}");
        let more = "mtu: 1400\ncontrol_socket: /tmp/elsewhere.sock\n";
        std::fs::write(fixture.config(), format!("{yaml}{more}")).unwrap();
        kill(pid, Signal::SIGHUP).unwrap();
        logs("the configuration was read again; changed: mtu");
        logs("the configuration was read again; counts after a restart: control_socket");
        std::fs::write(fixture.config(), format!("{yaml}accept: always\n")).unwrap();
        let done = fixture.run(&["reload"]);
        let said = String::from_utf8_lossy(&done.stdout);
        assert_eq!(said, "changed: mtu, accept\n");
        std::fs::write(fixture.config(), format!("{yaml}mtu: 14\n")).unwrap();
        kill(pid, Signal::SIGHUP).unwrap();
        logs("the configuration stays as it was");
        assert!(has_interface());
        assert_eq!(terminate(&mut child, Signal::SIGTERM), 0);
        assert!(!has_interface());
    });
}

#[test]
fn signals_end_it_cleanly() {
    in_namespace(|| {
        let fixture = Fixture::new("");
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let mut child = fixture
                .command(&["up"])
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            fixture.wait_for("an answer", |_| true);
            assert_eq!(terminate(&mut child, signal), 0, "{signal}");
            assert!(!has_interface());
        }
        // A kill leaves a lock and a socket that stop nobody.
        let mut child = fixture
            .command(&["up"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        fixture.wait_for("an answer", |_| true);
        child.kill().unwrap();
        child.wait().unwrap();
        let mut child = fixture
            .command(&["up"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        fixture.wait_for("an answer", |_| true);
        assert_eq!(terminate(&mut child, Signal::SIGTERM), 0);
    });
}

#[test]
fn detached_it_fails_with_its_last_line_and_leaves_nothing() {
    in_namespace(|| {
        let fixture = Fixture::new("");
        let output = fixture.run(&["up", "--detach", "--wait", "2"]);
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        let last = text.lines().last().unwrap();
        assert!(last.contains("not ready after 2 s"), "{text}");
        assert!(last.contains("fetching the snapshot"), "{text}");
        assert!(!has_interface());
        assert!(fixture.status().is_none());
        // The program's own words are in its log.
        let log = std::fs::read_to_string(fixture.state().join("client.log")).unwrap();
        assert!(log.contains("unreachable"), "{log}");

        std::fs::write(fixture.state().join("identity.key"), [1; 5]).unwrap();
        let output = fixture.run(&["up", "--detach"]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && text.contains("identity.key"),
            "{text}"
        );
    });
}

#[test]
fn what_the_control_socket_refuses_is_shown() {
    in_namespace(|| {
        let fixture = Fixture::new("accept: never\n");
        let mut child = fixture
            .command(&["up"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        fixture.wait_for("an answer", |_| true);
        assert!(failure(&fixture.run(&["publish", "a"])).contains("accept: never"));
        assert!(failure(&fixture.run(&["publish", "a.b"])).contains("no name"));
        assert!(failure(&fixture.run(&["unpublish", "a"])).contains("a.anon is not published"));
        let line = failure(&fixture.run(&["resolve", "a.anon"]));
        assert!(line.contains("a.anon: no guard is reached"), "{line}");
        let json = fixture.run(&["resolve", "--json", "a.anon"]);
        assert!(!json.status.success());
        let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(json["problems"][0]["step"], "guard");
        assert!(failure(&fixture.run(&["resolve", "x y"])).contains("no name"));
        let own = String::from_utf8(fixture.run(&["id"]).stdout).unwrap();
        let found = fixture.run(&["resolve", &format!("{}.anon", own.trim())]);
        assert!(String::from_utf8(found.stdout).unwrap().contains("fd"));
        assert_eq!(terminate(&mut child, Signal::SIGTERM), 0);
    });
}

#[test]
fn a_bad_directory_url_is_one_line() {
    in_namespace(|| {
        let fixture = Fixture::new("");
        let text = std::fs::read_to_string(fixture.config()).unwrap();
        std::fs::write(fixture.config(), text.replace(NOWHERE, "http://:99999/x")).unwrap();
        let line = failure(&fixture.run(&["up"]));
        assert!(line.contains("http://:99999/x"), "{line}");
        assert!(!has_interface());
    });
}

#[test]
fn state_is_not_for_others() {
    let fixture = Fixture::new("");
    assert!(fixture.run(&["id"]).status.success());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&fixture.state()), 0o700);
    assert_eq!(mode(&fixture.state().join("identity.key")), 0o600);
}

/// The line that names the network of an ID, somewhere.
fn network(id: u8, url: &str) -> String {
    format!("mixline:{}@{url}", AnonymousId([id; 32]))
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_network_is_joined_by_one_line_and_handed_on_by_it() {
    let fixture = Fixture::new("# ours\n");
    let other = network(9, "http://192.0.2.9:8080");
    // Without a terminal nobody is asked.
    let line = failure(&fixture.run(&["join", "--no-check", &other]));
    assert!(
        line.contains("another network") && line.contains("--force"),
        "{line}"
    );
    assert_eq!(
        said(&fixture.run(&["link"])).trim(),
        network(7, NOWHERE),
        "nothing was written"
    );
    let text = said(&fixture.run(&["join", "--no-check", "--force", &other]));
    assert!(text.contains("was not asked"), "{text}");
    assert!(
        text.contains(&format!(
            "next: sudo mixline-client up --detach --config {}",
            fixture.config().display()
        )),
        "{text}"
    );
    let config = std::fs::read_to_string(fixture.config()).unwrap();
    assert!(config.contains("# ours") && config.contains("interface: mixcli0"));
    assert_eq!(said(&fixture.run(&["link"])), format!("{other}\n"));
    let drawn = said(&fixture.run(&["link", "--qr"]));
    assert!(
        drawn.starts_with(&other) && drawn.contains("\u{2588}"),
        "{drawn}"
    );
    // The same one elsewhere is no other.
    let moved = network(9, "http://192.0.2.10:8080");
    said(&fixture.run(&["join", "--no-check", &moved]));
    assert_eq!(said(&fixture.run(&["link"])).trim(), moved);

    std::fs::remove_file(fixture.config()).unwrap();
    said(&fixture.run(&["join", "--no-check", &other]));
    assert_eq!(said(&fixture.run(&["link"])).trim(), other);
}

#[test]
fn a_network_is_joined_only_if_its_directory_answers_and_is_the_one() {
    let fixture = Fixture::new("");
    std::fs::remove_file(fixture.config()).unwrap();
    for wrong in ["mixline:abc@http://192.0.2.1", "http://192.0.2.1:8080"] {
        let output = fixture.run(&["join", wrong]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("mixline:ID@http://HOST:PORT"), "{error}");
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let line = failure(&fixture.run(&["join", &network(7, &url)]));
    assert!(
        line.contains("unreachable") && line.contains("nothing was written"),
        "{line}"
    );
    assert!(!fixture.config().exists());
}

#[test]
fn a_doctor_without_a_client_names_what_stands_in_its_way() {
    in_namespace(|| {
        let fixture = Fixture::new("");
        let output = fixture.run(&["doctor", "--json"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let all: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(all["client"], "not-running");
        assert_eq!(all["works"], false);
        let told = String::from_utf8(fixture.run(&["doctor"]).stdout).unwrap();
        for expected in [
            "PROBLEM  directory",
            "is unreachable",
            "curl -sS http://192.0.2.1:8080/healthz",
            "the kernel takes the packet filter",
            "a client would not work like this",
        ] {
            assert!(told.contains(expected), "{expected}: {told}");
        }
        std::fs::write(fixture.config(), "directory: x\n").unwrap();
        let told = String::from_utf8(fixture.run(&["doctor"]).stdout).unwrap();
        assert!(told.contains("PROBLEM  configuration"), "{told}");
        assert!(told.contains("mixline-client join"), "{told}");
    });
}

#[test]
fn a_ping_without_a_client_is_one_line() {
    let fixture = Fixture::new("");
    let line = failure(&fixture.run(&["ping", "a.anon", "-c", "1"]));
    assert!(line.contains("no client is running"), "{line}");
}
