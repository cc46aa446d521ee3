//! Relay processes and their files.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use mixline_relay::observe::Report;
use mixline_testnet::netns;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::directory::Directory;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_mixline-relay");
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A relay's configuration and state, and the relay while it runs.
pub struct Relay {
    pub address: SocketAddr,
    pub config: PathBuf,
    pub state: PathBuf,
    /// The network namespace that it runs in; none for that of the test.
    namespace: Option<String>,
    child: Option<Child>,
}

/// A UDP port of 127.0.0.1 that nobody has at the moment.
pub fn free_address() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Waits until something is there.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Relay {
    /// A relay in a directory of its own; `more` is added to its configuration.
    pub fn new(parent: &Path, name: &str, directory: &Directory, more: &str) -> Self {
        Self::at(free_address(), None, parent, name, directory, more)
    }

    /// A relay at an address, in a network namespace.
    pub fn at(
        address: SocketAddr,
        namespace: Option<&str>,
        parent: &Path,
        name: &str,
        directory: &Directory,
        more: &str,
    ) -> Self {
        let state = parent.join(name);
        let config = parent.join(format!("{name}.yaml"));
        let yaml = format!(
            "name: {name}\nstate_dir: {}\nlisten: [\"{address}\"]\n\
             directory: {{url: \"{}\", id: {}}}\nworkers: 1\nport: udp\n{more}",
            state.display(),
            directory.url(),
            directory.id
        );
        let mut yaml = yaml;
        for (key, default) in [("workers:", "workers: 1\n"), ("port:", "port: udp\n")] {
            if more.contains(key) {
                yaml = yaml.replacen(default, "", 1);
            }
        }
        fs::write(&config, yaml).unwrap();
        Self {
            address,
            config,
            state,
            namespace: namespace.map(str::to_string),
            child: None,
        }
    }

    /// A relay whose configuration is there.
    pub fn of(config: &Path, state: &Path, address: &str) -> Self {
        Self {
            address: address.parse().unwrap(),
            config: config.to_owned(),
            state: state.to_owned(),
            namespace: None,
            child: None,
        }
    }

    pub fn start(&mut self) {
        self.start_with(|_| {});
    }

    /// Starts with what `change` makes of the command.
    pub fn start_with(&mut self, change: impl FnOnce(&mut Command)) {
        self.spawn_with(change);
        wait_for("an answer to status", || self.try_report());
    }

    /// The same, and does not wait for anything.
    pub fn spawn_with(&mut self, change: impl FnOnce(&mut Command)) {
        let mut command = self.command();
        command
            .arg("--config")
            .arg(&self.config)
            .env("MIXLINE_LOG", "debug")
            .stderr(Stdio::null());
        change(&mut command);
        self.child = Some(command.spawn().unwrap());
    }

    /// The program, in the relay's namespace.
    pub fn command(&self) -> Command {
        match &self.namespace {
            None => Command::new(PROGRAM),
            Some(namespace) => netns::command(namespace, PROGRAM),
        }
    }

    /// Starts and waits until the directory has it.
    pub fn start_and_register(&mut self) {
        self.start();
        wait_for("registration", || {
            self.report()
                .directory
                .registered_s_ago
                .filter(|_| self.report().directory.listed)
        });
    }

    pub fn try_report(&self) -> Option<Report> {
        mixline_relay::observe::ask(&self.state).ok()
    }

    pub fn report(&self) -> Report {
        self.try_report().expect("the relay answers")
    }

    /// Waits until so many datagrams have had this outcome: workers show what they count
    /// after they have sent.
    pub fn expect(&self, outcome: &str, count: u64) {
        wait_for(&format!("{outcome} {count}"), || {
            (self.report().verdicts[outcome] == count).then_some(())
        });
    }

    /// The running process.
    pub fn process(&self) -> Pid {
        let child = self.child.as_ref().expect("it runs");
        Pid::from_raw(child.id().try_into().unwrap())
    }

    pub fn signal(&mut self, signal: Signal) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        wait_for("the relay's end", || child.try_wait().unwrap())
    }

    /// Waits for the end of a relay that ends by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        wait_for("the relay's end", || child.try_wait().unwrap())
    }

    /// Stops in order.
    pub fn stop(&mut self) {
        let status = self.signal(Signal::SIGTERM);
        assert!(status.success(), "{status}");
    }

    /// Runs `mixline-relay status`.
    pub fn status(&self, json: bool) -> Output {
        let mut command = Command::new(PROGRAM);
        command.args(["status", "--config"]).arg(&self.config);
        if json {
            command.arg("--json");
        }
        command.output().unwrap()
    }

    /// Changes what is written in the configuration.
    pub fn change(&self, from: &str, to: &str) {
        let yaml = fs::read_to_string(&self.config).unwrap();
        assert!(yaml.contains(from), "{yaml}");
        fs::write(&self.config, yaml.replace(from, to)).unwrap();
    }

    /// Runs `mixline-relay reload`: what it prints, and its error.
    pub fn reload(&self) -> (String, String) {
        let output = Command::new(PROGRAM)
            .args(["reload", "--config"])
            .arg(&self.config)
            .output()
            .unwrap();
        let [said, error] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert_eq!(output.status.success(), error.is_empty(), "{error}");
        (said, error)
    }

    /// Runs the relay, which must end by itself with an error: its one line.
    pub fn refused(&self) -> String {
        refused(&["--config", self.config.to_str().unwrap()])
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs the program, which must end by itself with an error: its one line.
pub fn refused(arguments: &[&str]) -> String {
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .env("MIXLINE_LOG", "warn")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = wait_for("the program's end", || child.try_wait().unwrap());
    assert!(!status.success());
    let mut text = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}
