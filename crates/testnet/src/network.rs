//! Brings the network up, changes it, and takes it down.

use crate::Port;
use crate::cards::CardWire;
use crate::client_status::{ChosenPaths, Identity, virtual_addresses};
use crate::configs::{self, Directories, Files, SERVICE_NAME};
use crate::error::{Error, Result, StepContext as _, SystemContext as _};
use crate::fetch::fetch_bytes;
use crate::lock::Lock;
use crate::namespaces;
use crate::netns;
use crate::process::{self, Process, Program, wait_for};
use crate::programs::{Programs, testnet_directory};
use crate::ssh::Ssh;
use crate::state::State;
use crate::topology::{Node, RELAYS, directory_url};
use crate::web::Site;
use mixline_protocol::identity::{AnonymousId, NetworkId};
use mixline_protocol::records::{Roster, Snapshot};
use mixline_protocol::time::UnixTime;
use serde_json::Value;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// How long any one step of the start may take; it is seconds on an idle machine.
const STEP_TIMEOUT: Duration = Duration::from_secs(90);

/// How long rounds of several directories are, in seconds: as short as they can be.
const ROUND_SECONDS: u32 = 10;

/// What may differ between networks.
#[derive(Clone, Debug)]
pub struct Options {
    /// The relays' kinds of port; relays take them in turn.
    pub ports: Vec<Port>,
    /// Whether wires carry trains of datagrams as one packet (see [`namespaces::set_offloads`]).
    pub offloads: bool,
    /// Nodes whose wire is a pair of network cards; the others have a veth pair.
    pub cards: Vec<CardWire>,
    /// How long any one step of the start may take.
    pub patience: Duration,
    /// More lines for the configurations of nodes.
    pub more: Vec<(Node, String)>,
    /// More environment of all nodes' programs.
    pub environment: Vec<(String, String)>,
    /// How many directories there are, of different owners: 1, 4, 7 or 10, at one address.
    pub directories: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ports: vec![Port::Auto],
            offloads: true,
            cards: Vec::new(),
            patience: STEP_TIMEOUT,
            more: Vec::new(),
            environment: Vec::new(),
            directories: 1,
        }
    }
}

/// A running network. Dropping it takes it down.
pub struct Network {
    directory: PathBuf,
    programs: Programs,
    options: Options,
    state: State,
    running: HashMap<String, Process>,
    /// The directories but for the first one, by their numbers.
    directories: HashMap<usize, Process>,
    servers: Vec<Process>,
    site: Option<Site>,
    ssh: Option<Ssh>,
    _lock: Lock,
}

impl Network {
    /// Brings everything up and waits until the client could fetch the service's page. Needs root.
    /// `progress` gets a line for each step.
    pub fn up(
        programs: Programs,
        options: Options,
        mut progress: impl FnMut(&str),
    ) -> Result<Self> {
        let lock = Lock::take(|| progress("another network is up: waiting for its end"))?;
        let directory = testnet_directory();
        clean(&directory).step("removing what an earlier run left")?;
        for sub in ["configs", "nodes", "logs"] {
            let path = directory.join(sub);
            fs::create_dir_all(&path).file("making", &path)?;
        }
        let mut network = Self {
            directory,
            programs,
            options,
            state: State::new(),
            running: HashMap::new(),
            directories: HashMap::new(),
            servers: Vec::new(),
            site: None,
            ssh: None,
            _lock: lock,
        };
        network.bring_up(&mut progress)?;
        Ok(network)
    }

    fn bring_up(&mut self, progress: &mut dyn FnMut(&str)) -> Result<()> {
        namespaces::create(&self.options.cards)?;
        if !self.options.offloads {
            namespaces::set_offloads(false)?;
        }
        self.save()?;
        progress(&format!(
            "{} namespaces joined by {}",
            2 + RELAYS + 1,
            crate::topology::ROUTER
        ));

        self.init_directories()?;
        self.start(Node::Directory)?;
        for number in 1..self.options.directories {
            self.start_directory(number)?;
        }
        self.wait_until("the directory's snapshot", Node::Directory, |network| {
            Ok(network.snapshot().ok())
        })?;
        progress(&match self.options.directories {
            1 => format!("directory at {}", directory_url(0)),
            count => format!(
                "{count} directories from {} on, and a snapshot that they have signed",
                directory_url(0)
            ),
        });

        for number in 1..=RELAYS {
            self.start(Node::Relay(number))?;
        }
        self.wait_for_relays(RELAYS)?;
        progress(&format!("{RELAYS} relays registered"));
        self.wait_until("the directory's own paths", Node::Directory, |network| {
            Ok(network
                .snapshot()
                .ok()
                .filter(|snapshot| snapshot.services().any(|of| !of.tails.is_empty())))
        })?;
        progress("directory reachable through the relays");

        self.start(Node::Service)?;
        let virtual_addresses = self.wait_for_client(Node::Service)?;
        progress(&format!("service is up at {}", join(&virtual_addresses)));
        let site = Site::create(&self.directory.join("site"))?;
        self.servers
            .push(site.serve(&self.directory, &virtual_addresses)?);
        self.site = Some(site);
        let host = format!("{SERVICE_NAME}.anon");
        let ssh = Ssh::create(&self.directory, &host, &virtual_addresses)?;
        self.servers
            .push(ssh.serve(self.directory.join("logs/sshd.log"))?);
        self.ssh = Some(ssh);
        self.record(Node::Service)?;

        self.start(Node::Client)?;
        let own_addresses = self.wait_for_client(Node::Client)?;
        self.wait_until("the service's name", Node::Client, |network| {
            Ok(network.resolves(SERVICE_NAME)?.then_some(()))
        })?;
        progress(&format!("client is up at {}", join(&own_addresses)));
        Ok(())
    }

    /// The service's pages.
    pub fn site(&self) -> Result<&Site> {
        self.site
            .as_ref()
            .ok_or(Error::NotYet("page of the service"))
    }

    /// The service's ssh server.
    pub fn ssh(&self) -> Result<&Ssh> {
        self.ssh
            .as_ref()
            .ok_or(Error::NotYet("ssh server of the service"))
    }

    /// Where configurations, logs and `state.json` are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The programs that run.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The directory's anonymous ID.
    pub fn directory_id(&self) -> Result<&str> {
        self.state
            .directory_id
            .as_deref()
            .ok_or(Error::NotYet("key of the directory"))
    }

    /// Options that count from a node's next start: ports, and more lines of configurations.
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// The files of a node.
    pub fn files(&self, node: Node) -> Files {
        Files::of(&self.directory, node)
    }

    /// The configuration of a node, without more lines.
    pub fn configuration(&self, node: Node) -> Result<String> {
        let files = self.files(node);
        Ok(match node {
            Node::Directory => configs::directory(&files, 0, self.roster().as_deref()),
            Node::Relay(number) => {
                configs::relay(&files, number, &self.directories()?, self.port(number)?)
            }
            Node::Service => configs::client(&files, &self.directories()?, Some(SERVICE_NAME)),
            Node::Client => configs::client(&files, &self.directories()?, None),
        })
    }

    /// Whether the program of every node runs.
    pub fn is_whole(&mut self) -> bool {
        Node::all().all(|node| {
            self.process(node)
                .is_some_and(|process| process.ended().is_none())
        })
    }

    /// The process that makes a node what it is, if it runs.
    pub fn process(&mut self, node: Node) -> Option<&mut Process> {
        self.running.get_mut(&node.name())
    }

    /// Starts a node's program with its configuration.
    pub fn start(&mut self, node: Node) -> Result<()> {
        let executable = match node {
            Node::Directory => self.programs.directory.clone(),
            Node::Relay(_) => self.programs.relay.clone(),
            Node::Service | Node::Client => self.programs.client.clone(),
        };
        let environment = self.options.environment.clone();
        self.start_as(node, executable, environment)
    }

    /// Starts another program as a node, with the node's configuration and keys.
    pub fn start_as(
        &mut self,
        node: Node,
        executable: PathBuf,
        environment: Vec<(String, String)>,
    ) -> Result<()> {
        if self.running.contains_key(&node.name()) {
            return Err(Error::AlreadyRunning(node));
        }
        let files = self.files(node);
        let text = self.configuration(node)?;
        let more = self.options.more.iter().filter(|(of, _)| *of == node);
        let text = more.fold(text, |text, (_, more)| text + more);
        fs::write(&files.config, text).file("writing", &files.config)?;
        let mut arguments = match node {
            Node::Service | Node::Client => vec!["up".into()],
            Node::Directory | Node::Relay(_) => Vec::new(),
        };
        arguments.extend(["--config".into(), files.config.into_os_string()]);
        let process = Program {
            namespace: node.namespace(),
            executable,
            arguments,
            environment,
            log: files.log,
        }
        .start()?;
        self.running.insert(node.name(), process);
        self.record(node)
    }

    /// Stops a node's program by SIGTERM; fails unless it ends well.
    pub fn stop(&mut self, node: Node) -> Result<()> {
        let process = self.running.remove(&node.name());
        let process = process.ok_or(Error::NotRunning(node))?;
        let status = process.stop().step(format!("stopping {node}"))?;
        self.record(node)?;
        if !status.success() {
            return Err(Error::EndedBadly { node, status });
        }
        Ok(())
    }

    /// Kills a node's program, as a power cut would.
    pub fn kill(&mut self, node: Node) -> Result<()> {
        let process = self.running.remove(&node.name());
        process.ok_or(Error::NotRunning(node))?.kill()?;
        self.record(node)
    }

    /// Waits until the snapshot lists this many relays.
    pub fn wait_for_relays(&mut self, count: usize) -> Result<()> {
        self.wait_until(
            &format!("{count} relays in the snapshot"),
            Node::Directory,
            |network| {
                for number in 1..=RELAYS {
                    if let Some(process) = network.process(Node::Relay(number)) {
                        process.check_running()?;
                    }
                }
                Ok(network
                    .snapshot()
                    .ok()
                    .filter(|snapshot| snapshot.relays.len() >= count)
                    .map(drop))
            },
        )
    }

    /// Waits until a client (or service) says that it is up; gives its virtual addresses, IPv4
    /// first.
    pub fn wait_for_client(&mut self, node: Node) -> Result<Vec<IpAddr>> {
        let addresses = self.wait_until(&format!("{node} to be up"), node, |network| {
            let Ok(status) = network.client_status(node) else {
                return Ok(None);
            };
            Ok(virtual_addresses(&status))
        })?;
        if let Some(entry) = self.state.of(node) {
            entry.virtual_addresses = addresses.iter().map(ToString::to_string).collect();
        }
        self.save()?;
        Ok(addresses)
    }

    /// What `mixline-client status --json` says.
    pub fn client_status(&self, node: Node) -> Result<Value> {
        status(self.client_command(node, "status").arg("--json"), node)
    }

    /// Who a client (or service) is inside Mixline.
    pub fn identity(&self, node: Node) -> Result<Identity> {
        let status = self.client_status(node)?;
        serde_json::from_value(status).map_err(|source| Error::Json {
            doing: "reading ID and addresses in the client's status".into(),
            source,
        })
    }

    /// The relays that a client chose.
    pub fn chosen_paths(&self, node: Node) -> Result<ChosenPaths> {
        ChosenPaths::of(&self.client_status(node)?)
    }

    /// A relay's kind of port, as it was asked for.
    pub fn port(&self, number: usize) -> Result<Port> {
        let ports = self.options.ports.iter().copied().cycle();
        let port = ports.take(number).last();
        port.ok_or(Error::NoPort)
    }

    /// What `mixline-relay status --json` says.
    pub fn relay_status(&self, number: usize) -> Result<Value> {
        let node = Node::Relay(number);
        let mut command = netns::command(&node.namespace(), &self.programs.relay);
        command
            .args(["status", "--json", "--config"])
            .arg(self.files(node).config);
        status(&mut command, node)
    }

    /// A subcommand of `mixline-client` for a node's running client.
    pub fn client_command(&self, node: Node, subcommand: &str) -> Command {
        let mut command = netns::command(&node.namespace(), &self.programs.client);
        command
            .arg(subcommand)
            .arg("--config")
            .arg(self.files(node).config);
        command
    }

    /// The first directory's current snapshot, verified.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.snapshot_of(0)
    }

    /// A directory's current snapshot, verified.
    pub fn snapshot_of(&self, number: usize) -> Result<Snapshot> {
        let bytes = fetch_bytes(
            &Node::Directory.namespace(),
            &format!("{}/v2/snapshot", directory_url(number)),
        )?;
        let wrong = |what| move |source| Error::Protocol { what, source };
        let id: NetworkId = self
            .directory_id()?
            .parse()
            .map_err(wrong("the network's ID"))?;
        let roster = match self.roster() {
            None => Roster::alone(AnonymousId(id.0)),
            Some(path) => {
                let bytes = fs::read(&path).file("reading", &path)?;
                let chain = Roster::decode_chain(&bytes, id).map_err(wrong("the roster"))?;
                chain.into_iter().last().ok_or(Error::NotYet("roster"))?
            }
        };
        let now = UnixTime::from(SystemTime::now());
        Snapshot::decode_and_verify(&bytes, &roster, now).map_err(wrong("the directory's snapshot"))
    }

    /// Starts a directory, from 1, that is not the first one.
    pub fn start_directory(&mut self, number: usize) -> Result<()> {
        let files = Files::of_directory(&self.directory, number);
        let process = Program {
            namespace: Node::Directory.namespace(),
            executable: self.programs.directory.clone(),
            arguments: vec!["--config".into(), files.config.into_os_string()],
            environment: self.options.environment.clone(),
            log: files.log,
        }
        .start()?;
        self.directories.insert(number, process);
        self.record(Node::Directory)
    }

    /// Kills a directory, from 1, that is not the first one, as a power cut would.
    pub fn kill_directory(&mut self, number: usize) -> Result<()> {
        let process = self.directories.remove(&number);
        process.ok_or(Error::NotRunning(Node::Directory))?.kill()?;
        self.record(Node::Directory)
    }

    /// Takes everything down.
    pub fn down(mut self) -> Result<()> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<()> {
        // Clients first, so that they can say goodbye to relays that still run.
        let mut clients = Vec::new();
        let mut others = Vec::new();
        for (name, process) in self.running.drain() {
            let client = name == Node::Client.name() || name == Node::Service.name();
            if client {
                clients.push(process)
            } else {
                others.push(process)
            }
        }
        others.extend(self.directories.drain().map(|(_, process)| process));
        clients.append(&mut self.servers);
        process::stop_all(clients);
        process::stop_all(others);
        namespaces::remove()?;
        let _ = fs::remove_file(self.state_file());
        Ok(())
    }

    /// How nodes find the directories.
    fn directories(&self) -> Result<Directories> {
        Ok(Directories {
            network: self.directory_id()?.to_owned(),
            count: self.options.directories,
        })
    }

    /// The roster, if there are several directories.
    fn roster(&self) -> Option<PathBuf> {
        (self.options.directories > 1).then(|| self.directory.join("roster"))
    }

    fn init_directories(&mut self) -> Result<()> {
        let roster = self.roster();
        for number in 0..self.options.directories {
            let files = Files::of_directory(&self.directory, number);
            let text = configs::directory(&files, number, roster.as_deref());
            fs::write(&files.config, text).file("writing", &files.config)?;
        }
        let id = match roster {
            None => {
                let config = Files::of_directory(&self.directory, 0).config;
                self.directory_command(&["init".as_ref(), "--config".as_ref(), config.as_ref()])?
            }
            Some(roster) => self.found(&roster)?,
        };
        self.state.directory_id = Some(id);
        self.save()
    }

    /// Makes the network of several directories: identities, roster, online keys. Gives its ID.
    fn found(&self, roster: &Path) -> Result<String> {
        let count = self.options.directories;
        let identity = |number: usize| self.directory.join(format!("identity{}", number + 1));
        let round = ROUND_SECONDS.to_string();
        let mut new: Vec<OsString> = ["roster", "new", "--round-seconds", &round]
            .map(OsString::from)
            .into();
        new.push(roster.into());
        for number in 0..count {
            let id = self.directory_command(&["identity".as_ref(), identity(number).as_ref()])?;
            let member = format!("d{}={id}@{}", number + 1, directory_url(number));
            new.extend(["--member".into(), member.into()]);
        }
        let new: Vec<&OsStr> = new.iter().map(OsString::as_os_str).collect();
        let network = self.directory_command(&new)?;
        for number in 0..count {
            let identity = identity(number);
            let own = ["--identity".as_ref(), identity.as_os_str()];
            let sign = ["roster".as_ref(), "sign".as_ref(), roster.as_os_str()];
            self.directory_run(&[&sign[..], &own].concat())?;
            let config = Files::of_directory(&self.directory, number).config;
            let key = [
                "online-key".as_ref(),
                "--config".as_ref(),
                config.as_os_str(),
            ];
            self.directory_run(&[&key[..], &own].concat())?;
        }
        Ok(network)
    }

    /// The ID that a subcommand of `mixline-directory` prints.
    fn directory_command(&self, arguments: &[&OsStr]) -> Result<String> {
        let text = self.directory_run(arguments)?;
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
        let id = words.find(|word| word.parse::<AnonymousId>().is_ok());
        id.map(str::to_owned).ok_or_else(|| Error::NotFound {
            what: "ID",
            text: format!("what mixline-directory {arguments:?} prints: {text}"),
        })
    }

    fn directory_run(&self, arguments: &[&OsStr]) -> Result<String> {
        let output = netns::command(&Node::Directory.namespace(), &self.programs.directory)
            .args(arguments)
            .output()
            .program(format!("running mixline-directory {arguments:?}"))?;
        if !output.status.success() {
            return Err(Error::failed(
                format!("mixline-directory {arguments:?}"),
                &output,
            ));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn resolves(&self, name: &str) -> Result<bool> {
        let output = self
            .client_command(Node::Client, "resolve")
            .arg(format!("{name}.anon"))
            .output()
            .program("running mixline-client resolve")?;
        Ok(output.status.success())
    }

    /// [`wait_for`], watching that the node's program lives and pointing to its log.
    fn wait_until<T>(
        &mut self,
        what: &str,
        node: Node,
        mut look: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let log = self.files(node).log;
        wait_for(what, self.options.patience, || {
            if let Some(process) = self.process(node) {
                process.check_running()?;
            }
            look(self)
        })
        .step(format!("see {}", log.display()))
    }

    fn record(&mut self, node: Node) -> Result<()> {
        let files = self.files(node);
        let mut processes: Vec<&Process> = self.running.get(&node.name()).into_iter().collect();
        match node {
            Node::Service => processes.extend(&self.servers),
            Node::Directory => processes.extend(self.directories.values()),
            Node::Relay(_) | Node::Client => {}
        }
        self.state.record(node, &files, &processes);
        self.save()
    }

    fn save(&self) -> Result<()> {
        self.state.save(&self.state_file())
    }

    fn state_file(&self) -> PathBuf {
        self.directory.join("state.json")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = self.take_down() {
            eprintln!("taking the network down: {}", error.chain());
        }
    }
}

/// What a node's program says of itself, in JSON.
fn status(command: &mut Command, node: Node) -> Result<Value> {
    let doing = || format!("asking {node} for its status");
    let output = command.output().program(doing())?;
    if !output.status.success() {
        return Err(Error::failed(doing(), &output));
    }
    serde_json::from_slice(&output.stdout).map_err(|source| Error::Json {
        doing: format!("reading the status of {node}"),
        source,
    })
}

/// Removes what a killed run left: processes, namespaces, files. Only for the process that holds the lock.
fn clean(directory: &Path) -> Result<()> {
    end_processes(directory);
    namespaces::remove()?;
    remove_files(directory)
}

fn end_processes(directory: &Path) {
    if let Some(state) = State::load(&directory.join("state.json")) {
        state.kill_all();
    }
}

fn remove_files(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).file("removing", directory)?;
    }
    Ok(())
}

/// Removes whatever there is of a network that was [apart](crate::apart) and that nobody runs any more: the
/// namespaces have gone with its last process.
pub fn clean_up_apart(directory: &Path) -> Result<()> {
    end_processes(directory);
    remove_files(directory)
}

/// Removes whatever there is of a network that nobody runs any more.
pub fn clean_up() -> Result<()> {
    let _lock = Lock::take(|| eprintln!("a network is up: waiting for its end"))?;
    clean(&testnet_directory())
}

fn join(addresses: &[IpAddr]) -> String {
    addresses
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" and ")
}
