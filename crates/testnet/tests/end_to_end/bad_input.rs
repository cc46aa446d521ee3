//! Wrong configurations, wrong directories, a wrong clock, too few rights: each gives one clear line
//! and a non-zero exit, or a retry that `status` shows.

use crate::Tests;
use crate::tools::eventually;
use anyhow::{Context, Result, ensure};
use mixline_protocol::identity::{AnonymousId, Digest, IdentityKey, X25519Secret};
use mixline_protocol::random::OsRandom;
use mixline_protocol::records::{
    DirectoryEntry, LogHead, Parameters, ServiceDescriptor, SharedRandom, Signatures, Snapshot,
};
use mixline_protocol::time::UnixTime;
use mixline_testnet::lock::Lock;
use mixline_testnet::netns::{self, Namespace};
use mixline_testnet::process::{Process, Program};
use mixline_testnet::{Programs, namespaces};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// A namespace with nothing in it but a loopback interface: whatever a program does here, it does
/// not do to the host.
const NAMESPACE: &str = "mixline-test";

pub fn tests(tests: &mut Tests) {
    tests.alone("wrong_configuration_key", wrong_key);
    tests.alone("unreachable_directory", |programs| {
        both(programs, &Directory::nobody(), &["unreachable"])
    });
    tests.alone("snapshot_with_a_bad_signature", |programs| {
        both(
            programs,
            &Directory::fake(Fault::Signature)?,
            &["signature"],
        )
    });
    tests.alone("snapshot_of_another_directory", |programs| {
        both(programs, &Directory::fake(Fault::OtherKey)?, &["signature"])
    });
    tests.alone("expired_snapshot", |programs| {
        both(programs, &Directory::fake(Fault::Expired)?, &["expired"])
    });
    tests.alone("clock_wrong_by_an_hour", |programs| {
        both(
            programs,
            &Directory::fake(Fault::Ahead(3600))?,
            &["clock", "behind", "60 minutes"],
        )?;
        both(
            programs,
            &Directory::fake(Fault::Ahead(-3600))?,
            &["clock", "ahead", "60 minutes"],
        )
    });
    tests.alone("no_permission_for_tun", no_tun);
    tests.alone("port_in_use", port_in_use);
}

/// What is wrong with a directory.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// A byte of its snapshot's signature was changed.
    Signature,
    /// It is not the one of the configuration.
    OtherKey,
    /// Its snapshot's life is over.
    Expired,
    /// Its clock is ahead of the local one by so many seconds.
    Ahead(i64),
}

/// A directory's address and ID, for a configuration.
struct Directory {
    url: String,
    id: AnonymousId,
}

/// A room of its own for one program.
struct Room {
    directory: TempDir,
    _namespace: Lonely,
}

/// The namespace; removed with what is in it when dropped.
struct Lonely {
    _lock: Lock,
}

impl Lonely {
    fn enter() -> Result<Self> {
        let lock = Lock::take(|| eprintln!("  waiting for another network"))?;
        namespaces::remove_one(NAMESPACE)?;
        namespaces::create_lonely(NAMESPACE)?;
        Ok(Self { _lock: lock })
    }
}

impl Drop for Lonely {
    fn drop(&mut self) {
        let _ = namespaces::remove_one(NAMESPACE);
    }
}

impl Room {
    fn new() -> Result<Self> {
        let namespace = Lonely::enter()?;
        let directory = tempfile::tempdir()?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            directory,
            _namespace: namespace,
        })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn log(&self) -> PathBuf {
        self.path().join("log")
    }

    /// Writes a configuration for a relay.
    fn relay(&self, directory: &Directory, more: &str) -> Result<PathBuf> {
        self.config(&format!(
            "name: relay\nstate_dir: {}\nlisten: [\"127.0.0.1:7000\"]\n\
             advertise: [\"127.0.0.1:7000\"]\ndirectory: {{url: \"{}\", id: {}}}\nworkers: 1\n\
             metrics: \"127.0.0.1:9300\"\nport: udp\n{more}",
            self.path().join("state").display(),
            directory.url,
            directory.id
        ))
    }

    /// Writes a configuration for a client.
    fn client(&self, directory: &Directory, more: &str) -> Result<PathBuf> {
        self.config(&format!(
            "state_dir: {}\ninterface: mixline0\ndirectory: {{url: \"{}\", id: {}}}\n\
             dns: {{mode: resolv-conf}}\n{more}",
            self.path().join("state").display(),
            directory.url,
            directory.id
        ))
    }

    /// Writes a configuration for a directory.
    fn directory(&self, more: &str) -> Result<PathBuf> {
        let state = self.path().join("state");
        self.config(&format!(
            "state_dir: {}\nlisten: \"127.0.0.1:8080\"\n{more}",
            state.display()
        ))
    }

    fn config(&self, text: &str) -> Result<PathBuf> {
        let path = self.path().join("config.yaml");
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Starts a program in the namespace.
    fn start(&self, executable: &Path, arguments: &[&str], config: &Path) -> Result<Process> {
        let mut all: Vec<_> = arguments.iter().map(Into::into).collect();
        all.extend(["--config".into(), config.into()]);
        let program = Program {
            namespace: NAMESPACE.into(),
            executable: executable.into(),
            arguments: all,
            environment: Vec::new(),
            log: self.log(),
        };
        Ok(program.start()?)
    }

    /// The program must end by itself, not well, and its last line must say why.
    fn expect_end(&self, mut process: Process, words: &[&str]) -> Result<()> {
        let status = process.wait(Duration::from_secs(60))?;
        ensure!(!status.success(), "it says that all is well");
        self.expect_last_line(words)
    }

    fn expect_last_line(&self, words: &[&str]) -> Result<()> {
        let log = fs::read_to_string(self.log())?;
        ensure!(!log.contains("panicked"), "a panic is no message: {log}");
        let last = log
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .context("it says nothing")?;
        for word in words {
            ensure!(last.contains(word), "no {word:?} in its last line: {last}");
        }
        Ok(())
    }

    /// The program must end by itself and say why, or go on trying and show why in its status.
    fn expect_end_or_status(
        &self,
        mut process: Process,
        executable: &Path,
        config: &Path,
        words: &[&str],
    ) -> Result<()> {
        let mut shown = String::new();
        let ended = eventually("an end, or a reason in its status", 60, || {
            if process.ended().is_some() {
                return Ok(true);
            }
            let output = netns::command(NAMESPACE, executable)
                .args(["status", "--config"])
                .arg(config)
                .output()?;
            shown = String::from_utf8_lossy(&output.stdout).into_owned();
            Ok(words.iter().all(|word| shown.contains(word)))
        });
        ended.with_context(|| format!("its status: {shown}"))?;
        match process.ended() {
            Some(status) => {
                ensure!(!status.success(), "it says that all is well");
                self.expect_last_line(words)
            }
            None => {
                let log = fs::read_to_string(self.log())?;
                ensure!(!log.contains("panicked"), "a panic is no message: {log}");
                ensure!(
                    log.lines()
                        .any(|line| words.iter().all(|word| line.contains(word))),
                    "no line of its log says it: {log}"
                );
                process
                    .stop()
                    .map(drop)
                    .context("while it waits for better times")
            }
        }
    }
}

impl Directory {
    /// Nobody listens there.
    fn nobody() -> Self {
        Self {
            url: "http://127.0.0.1:1".into(),
            id: key().anonymous_id(),
        }
    }

    /// Something that serves one snapshot with a fault. It goes on until the tests end.
    fn fake(fault: Fault) -> Result<FakeDirectory> {
        let key = key();
        let id = match fault {
            Fault::OtherKey => self::key().anonymous_id(),
            _ => key.anonymous_id(),
        };
        let local = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let date = match fault {
            Fault::Ahead(seconds) => local.saturating_add_signed(seconds),
            _ => local,
        };
        let (issued, valid_until) = match fault {
            Fault::Expired => (date - 1200, date - 600),
            _ => (date, date + 600),
        };
        let mut snapshot = snapshot(&key, UnixTime(issued), UnixTime(valid_until))?;
        if matches!(fault, Fault::Signature) {
            *snapshot.last_mut().context("an empty snapshot")? ^= 1;
        }
        Ok(FakeDirectory {
            id,
            snapshot,
            date: http_date(date)?,
        })
    }
}

/// A directory that is not one; it needs the namespace of the program that asks it.
struct FakeDirectory {
    id: AnonymousId,
    snapshot: Vec<u8>,
    date: String,
}

/// Something that a configuration can point to.
trait Somewhere {
    /// Makes it reachable in the namespace.
    fn open(&self) -> Result<Directory>;
}

impl Somewhere for Directory {
    fn open(&self) -> Result<Directory> {
        Ok(Directory {
            url: self.url.clone(),
            id: self.id,
        })
    }
}

impl Somewhere for FakeDirectory {
    /// Listens in the namespace.
    fn open(&self) -> Result<Directory> {
        let listener = Namespace::named(NAMESPACE)?.run(|| TcpListener::bind("127.0.0.1:0"))??;
        let address: SocketAddr = listener.local_addr()?;
        let answer = [
            format!(
                "HTTP/1.1 200 OK\r\nDate: {}\r\nContent-Type: application/octet-stream\r\n\
                 Content-Length: {}\r\nETag: \"1\"\r\nConnection: close\r\n\r\n",
                self.date,
                self.snapshot.len()
            )
            .into_bytes(),
            self.snapshot.clone(),
        ]
        .concat();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer_one(stream, &answer);
            }
        });
        Ok(Directory {
            url: format!("http://{address}"),
            id: self.id,
        })
    }
}

fn answer_one(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    for line in BufReader::new(stream.try_clone()?).lines() {
        if line?.is_empty() {
            break;
        }
    }
    stream.write_all(answer)
}

fn key() -> IdentityKey {
    IdentityKey::generate(&mut OsRandom::new())
}

/// A snapshot without relays.
fn snapshot(key: &IdentityKey, issued: UnixTime, valid_until: UnixTime) -> Result<Vec<u8>> {
    let id = key.anonymous_id();
    let service = ServiceDescriptor {
        id,
        version: issued.0 * 1000,
        issued,
        expires: valid_until,
        session: X25519Secret::generate(&mut OsRandom::new()).public(),
        effort: mixline_protocol::effort::EffortTerms::default(),
        lease: None,
        tails: Vec::new(),
        clients: None,
        signature: [0; 64],
    }
    .sign(key)?;
    let snapshot = Snapshot {
        network: id.into(),
        roster: 0,
        issued,
        valid_until,
        previous: (UnixTime(0), Digest::default()),
        log: LogHead::default(),
        random: SharedRandom::default(),
        parameters: Parameters::default(),
        directories: vec![DirectoryEntry {
            service: Some(service),
            ..DirectoryEntry::default()
        }],
        relays: Vec::new(),
        signatures: Signatures::default(),
    };
    Ok(snapshot.sign(key)?.encode())
}

/// A relay and a client with the same directory.
fn both(programs: &Programs, directory: &impl Somewhere, words: &[&str]) -> Result<()> {
    let room = Room::new()?;
    let config = room.relay(&directory.open()?, "")?;
    let process = room.start(&programs.relay, &[], &config)?;
    room.expect_end_or_status(process, &programs.relay, &config, words)
        .context("the relay")?;
    drop(room);

    let room = Room::new()?;
    let config = room.client(&directory.open()?, "")?;
    let process = room.start(&programs.client, &["up"], &config)?;
    room.expect_end_or_status(process, &programs.client, &config, words)
        .context("the client")
}

/// A key that does not exist is named, with its line.
fn wrong_key(programs: &Programs) -> Result<()> {
    const WRONG: &str = "nonsense_key: 1\n";
    for (what, executable, arguments) in [
        ("the relay", &programs.relay, &[] as &[&str]),
        ("the client", &programs.client, &["up"]),
        ("the directory", &programs.directory, &[]),
    ] {
        let room = Room::new()?;
        let config = match what {
            "the relay" => room.relay(&Directory::nobody(), WRONG)?,
            "the client" => room.client(&Directory::nobody(), WRONG)?,
            _ => room.directory(WRONG)?,
        };
        let process = room.start(executable, arguments, &config)?;
        room.expect_end(process, &["nonsense_key", "line"])
            .context(what)?;
        let lines = fs::read_to_string(room.log())?.trim().lines().count();
        ensure!(lines == 1, "{what} takes {lines} lines to say it");
    }
    Ok(())
}

/// A client without the right to make an interface says which right that is.
fn no_tun(programs: &Programs) -> Result<()> {
    let room = Room::new()?;
    // Somewhere that everybody may read, unlike perhaps the working copy.
    let executable = room.path().join("mixline-client");
    fs::copy(&programs.client, &executable)?;
    let state = room.path().join("state");
    fs::create_dir(&state)?;
    std::os::unix::fs::chown(&state, Some(65534), Some(65534))?;
    let config = room.client(&Directory::fake(Fault::Ahead(0))?.open()?, "")?;
    let process = Program {
        namespace: NAMESPACE.into(),
        executable: "setpriv".into(),
        arguments: [
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
            "--",
        ]
        .into_iter()
        .map(Into::into)
        .chain([
            executable.clone().into(),
            "up".into(),
            "--config".into(),
            config.into(),
        ])
        .collect(),
        environment: Vec::new(),
        log: room.log(),
    }
    .start()?;
    room.expect_end(process, &["permission", "CAP_NET_ADMIN", "/dev/net/tun"])
}

/// A port that somebody else has is named.
fn port_in_use(programs: &Programs) -> Result<()> {
    let room = Room::new()?;
    let taken = Namespace::named(NAMESPACE)?.run(|| -> Result<_> {
        Ok((
            UdpSocket::bind("127.0.0.1:7000")?,
            TcpListener::bind("127.0.0.1:8080")?,
        ))
    })??;

    let config = room.relay(&Directory::nobody(), "")?;
    let process = room.start(&programs.relay, &[], &config)?;
    room.expect_end(process, &["127.0.0.1:7000", "in use"])
        .context("the relay")?;

    fs::remove_dir_all(room.path().join("state")).ok();
    let config = room.directory("")?;
    let init = netns::command(NAMESPACE, &programs.directory)
        .args(["init", "--config"])
        .arg(&config)
        .output()?;
    ensure!(
        init.status.success(),
        "init: {}",
        String::from_utf8_lossy(&init.stderr)
    );
    let process = room.start(&programs.directory, &[], &config)?;
    room.expect_end(process, &["127.0.0.1:8080", "in use"])
        .context("the directory")?;
    drop(taken);
    Ok(())
}

/// A time as HTTP writes it (RFC 9110, section 5.6.7).
fn http_date(unix: u64) -> Result<String> {
    let output = Command::new("date")
        .env("LC_ALL", "C")
        .args([
            "-u",
            "-d",
            &format!("@{unix}"),
            "+%a, %d %b %Y %H:%M:%S GMT",
        ])
        .output()?;
    ensure!(
        output.status.success(),
        "date: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
