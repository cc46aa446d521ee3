//! The control socket, both sides, and what others may send to it.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use mixline_client::Error;
use mixline_client::control::{MAX_MEMBERS, MAX_OF_A_USER, Request, Sockets, ask};
use mixline_client::testing::{ControlServer, Handler, MAX_REQUEST};
use mixline_protocol::identity::AnonymousId;
use mixline_testnet::skip;
use serde_json::{Value, json};

struct Echo;

#[derive(Debug, thiserror::Error)]
#[error("{0}.anon is taken")]
struct Taken(String);

impl Handler for Echo {
    type Error = Taken;

    async fn handle(&self, request: Request) -> Result<Value, Taken> {
        match request {
            Request::Publish { name } if name == "taken" => Err(Taken(name)),
            Request::Resolve { what } => Ok(json!({ "what": what })),
            Request::Status => Ok(json!({ "state": "up" })),
            Request::Ping { id } if id == "silent" => std::future::pending().await,
            Request::Probe { mappings, .. } if !mappings.is_empty() => std::future::pending().await,
            _ => Ok(Value::Null),
        }
    }
}

struct Fixture {
    _directory: tempfile::TempDir,
    path: PathBuf,
    runtime: tokio::runtime::Runtime,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl Fixture {
    fn new() -> Self {
        Self::of_group(None)
    }

    /// A socket for members of this group.
    fn of_group(group: Option<u32>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.block_on(async { ControlServer::bind_for(&path, group).unwrap() });
        let serving = Some(runtime.spawn(server.serve(Arc::new(Echo))));
        Self {
            _directory: directory,
            path,
            runtime,
            serving,
        }
    }
}

fn raw(path: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(bytes).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn requests_are_answered() {
    let fixture = Fixture::new();
    assert_eq!(ask(&fixture.path, &Request::Status).unwrap()["state"], "up");
    let resolve = Request::Resolve {
        what: "a.anon".into(),
    };
    assert_eq!(ask(&fixture.path, &resolve).unwrap()["what"], "a.anon");
    let error = ask(
        &fixture.path,
        &Request::Publish {
            name: "taken".into(),
        },
    )
    .unwrap_err();
    assert!(matches!(&error, Error::RequestFailed(text) if text == "taken.anon is taken"));
    assert_eq!(
        std::fs::metadata(&fixture.path)
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
}

#[test]
fn several_requests_over_one_connection() {
    let fixture = Fixture::new();
    let mut stream = UnixStream::connect(&fixture.path).unwrap();
    stream
        .write_all(b"{\"command\":\"status\"}\n{\"command\":\"down\"}\n")
        .unwrap();
    let mut lines = BufReader::new(stream).lines();
    assert_eq!(
        lines.next().unwrap().unwrap(),
        "{\"ok\":{\"state\":\"up\"}}"
    );
    assert_eq!(lines.next().unwrap().unwrap(), "{\"ok\":null}");
}

#[test]
fn what_is_no_request_is_told_and_does_no_harm() {
    let fixture = Fixture::new();
    for bytes in [
        b"\n".as_slice(),
        b"nonsense\n",
        b"{}\n",
        b"{\"command\":\"format\"}\n",
        b"{\"command\":\"publish\"}\n",
        b"{\"command\":\"resolve\",\"what\":\"a\",\"more\":1}\n",
        b"\xff\xfe\n",
    ] {
        let answer = raw(&fixture.path, bytes);
        assert!(answer.starts_with("{\"error\":\"not a request"), "{answer}");
    }
    let long = vec![b' '; usize::try_from(MAX_REQUEST).unwrap() + 1];
    assert!(raw(&fixture.path, &long).contains("at most"));
    ask(&fixture.path, &Request::Status).unwrap();
}

#[test]
fn a_connection_that_is_closed_in_between() {
    let fixture = Fixture::new();
    drop(UnixStream::connect(&fixture.path).unwrap());
    let mut stream = UnixStream::connect(&fixture.path).unwrap();
    stream.write_all(b"{\"comm").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("one line"), "{text}");
    ask(&fixture.path, &Request::Status).unwrap();
}

#[test]
fn nobody_there_is_said_clearly() {
    let error = ask(Path::new("/nonexistent/control.sock"), &Request::Status).unwrap_err();
    assert!(matches!(error, Error::NotRunning { .. }));
    assert!(error.to_string().contains("mixline-client up"), "{error}");
}

#[test]
fn a_left_socket_is_replaced_a_live_one_and_a_file_are_not() {
    let mut fixture = Fixture::new();
    let _guard = fixture.runtime.enter();
    assert!(matches!(
        ControlServer::bind(&fixture.path),
        Err(Error::Control { .. })
    ));
    let serving = fixture.serving.take().unwrap();
    serving.abort();
    fixture
        .runtime
        .block_on(async { serving.await.unwrap_err() });
    assert!(!fixture.path.exists());
    // As after a kill: the file is there, and nobody behind it.
    drop(std::os::unix::net::UnixListener::bind(&fixture.path).unwrap());
    assert!(fixture.path.exists());
    // What other tests start holds for a moment what this process has open.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match ControlServer::bind(&fixture.path) {
            Ok(server) => break drop(server),
            Err(error) => assert!(std::time::Instant::now() < until, "{error}"),
        }
    }
    std::fs::write(&fixture.path, "precious").unwrap();
    let error = ControlServer::bind(&fixture.path).unwrap_err().to_string();
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(std::fs::read(&fixture.path).unwrap(), b"precious");
}

/// A group that the machine need not know, and users in it and beside it.
const GROUP: u32 = 47_110;
const MEMBER: u32 = 47_111;
const OTHER_MEMBER: u32 = 47_112;
const STRANGER: u32 = 47_113;
/// What tells a copy of this test that it is to hold connections, and where.
const HOLD: &str = "MIXLINE_TEST_HOLD";
/// And what it is to ask on them, if anything.
const QUESTION: &str = "MIXLINE_TEST_QUESTION";

/// The client's program and this one where other users can run them, and a configuration.
struct Programs {
    _directory: tempfile::TempDir,
    client: PathBuf,
    this: PathBuf,
    config: PathBuf,
}

impl Programs {
    fn new(socket: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        open_to_all(directory.path());
        let copy = |from: &Path, name: &str| {
            let to = directory.path().join(name);
            // By another process: one that this one starts meanwhile would inherit the file as it is
            // written, and nobody could run it (ETXTBSY of execve(2)).
            let copied = Command::new("cp")
                .arg("--preserve=mode")
                .args([from, &to])
                .status();
            assert!(copied.unwrap().success());
            to
        };
        let client = copy(Path::new(env!("CARGO_BIN_EXE_mixline-client")), "client");
        let this = copy(&std::env::current_exe().unwrap(), "this");
        let config = directory.path().join("client.yaml");
        let text = format!(
            "control_socket: {}\ndirectory: {{url: \"http://192.0.2.1\", id: {}}}\n",
            socket.display(),
            AnonymousId([7; 32])
        );
        std::fs::write(&config, text).unwrap();
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o644)).unwrap();
        Self {
            _directory: directory,
            client,
            this,
            config,
        }
    }

    /// Asks as a user with this group as its only, or as a supplementary one.
    fn ask(&self, user: u32, groups: (u32, &[u32]), command: &str) -> Output {
        let supplementary: Vec<String> = groups.1.iter().map(ToString::to_string).collect();
        let mut setpriv = Command::new("setpriv");
        setpriv.args([format!("--reuid={user}"), format!("--regid={}", groups.0)]);
        if supplementary.is_empty() {
            setpriv.arg("--clear-groups");
        } else {
            setpriv.arg(format!("--groups={}", supplementary.join(",")));
        }
        setpriv.arg(&self.client).arg(command).arg("--config");
        setpriv.arg(&self.config).output().unwrap()
    }

    /// Takes so many connections as a member, and keeps them until the child is killed.
    fn hold(&self, user: u32, count: usize, socket: &Path) -> Child {
        self.hold_asking(user, count, "", socket).0
    }

    /// The same, with a question on each. Also gives what the child says: a line for each answer.
    fn hold_asking(
        &self,
        user: u32,
        count: usize,
        question: &str,
        socket: &Path,
    ) -> (Child, impl Iterator<Item = String> + Send + use<>) {
        let mut child = Command::new(&self.this)
            .args(["--exact", "holding_connections", "--nocapture"])
            .env(HOLD, format!("{count} {}", socket.display()))
            .env(QUESTION, question)
            .uid(user)
            .gid(GROUP)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let held = lines.find(|line| line.contains("held"));
        assert!(held.is_some(), "{user} holds nothing");
        (child, lines)
    }
}

fn open_to_all(directory: &Path) {
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Not a test by itself: another one starts it as another user.
#[test]
fn holding_connections() {
    let Ok(what) = std::env::var(HOLD) else {
        return;
    };
    let (count, path) = what.split_once(' ').unwrap();
    let question = std::env::var(QUESTION).unwrap();
    let connect = || {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(question.as_bytes()).unwrap();
        stream
    };
    let held: Vec<UnixStream> = (0..count.parse().unwrap()).map(|_| connect()).collect();
    println!("\nheld {}", held.len());
    for stream in &held {
        let mut answers = BufReader::new(stream.try_clone().unwrap()).lines();
        std::thread::spawn(move || {
            while let Some(Ok(answer)) = answers.next() {
                // Nobody may listen.
                let _ = writeln!(std::io::stdout(), "answer {answer}");
            }
        });
    }
    std::thread::sleep(std::time::Duration::from_secs(60));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn members_of_the_group_ask_for_status_and_names_and_for_nothing_else() {
    if !skip::is_root_or_skip() {
        return;
    }
    let fixture = Fixture::of_group(Some(GROUP));
    open_to_all(fixture._directory.path());
    let metadata = std::fs::metadata(&fixture.path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    let programs = Programs::new(&fixture.path);
    for groups in [(GROUP, &[][..]), (MEMBER, &[GROUP])] {
        let status = programs.ask(MEMBER, groups, "status");
        assert!(status.status.success(), "{}", text(&status.stderr));
        assert!(text(&status.stdout).contains("state       up"));
        let down = programs.ask(MEMBER, groups, "down");
        let error = text(&down.stderr);
        assert!(!down.status.success());
        assert!(
            error.contains("down is for root") && error.contains("group mixline"),
            "{error}"
        );
    }
    let stranger = programs.ask(STRANGER, (STRANGER, &[]), "status");
    let error = text(&stranger.stderr);
    assert!(!stranger.status.success());
    assert!(error.contains("member of the group mixline"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    ask(&fixture.path, &Request::Down).unwrap();
}

#[test]
fn without_the_group_the_socket_is_the_owners_alone() {
    if !skip::is_root_or_skip() {
        return;
    }
    let fixture = Fixture::new();
    open_to_all(fixture._directory.path());
    let programs = Programs::new(&fixture.path);
    let refused = programs.ask(MEMBER, (GROUP, &[]), "status");
    assert!(text(&refused.stderr).contains("permission denied"));
    // Who opens the socket by hand opens it to nobody else.
    std::fs::set_permissions(&fixture.path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let ended = programs.ask(MEMBER, (GROUP, &[]), "status");
    assert!(!ended.status.success());
}

#[test]
fn members_who_take_all_connections_keep_none_from_others_and_from_root() {
    if !skip::is_root_or_skip() {
        return;
    }
    let fixture = Fixture::of_group(Some(GROUP));
    open_to_all(fixture._directory.path());
    let programs = Programs::new(&fixture.path);
    let mut holders = vec![programs.hold(MEMBER, MAX_OF_A_USER + 3, &fixture.path)];
    let refused = programs.ask(MEMBER, (GROUP, &[]), "status");
    let error = text(&refused.stderr);
    assert!(error.contains(&format!("user {MEMBER} has")), "{error}");
    let other = programs.ask(OTHER_MEMBER, (GROUP, &[]), "status");
    assert!(other.status.success(), "{}", text(&other.stderr));
    for user in (OTHER_MEMBER + 100..).take(MAX_MEMBERS / MAX_OF_A_USER) {
        holders.push(programs.hold(user, MAX_OF_A_USER, &fixture.path));
    }
    let other = programs.ask(OTHER_MEMBER, (GROUP, &[]), "status");
    let error = text(&other.stderr);
    assert!(error.contains("of the group's members"), "{error}");
    ask(&fixture.path, &Request::Status).unwrap();
    for mut holder in holders {
        holder.kill().unwrap();
        holder.wait().unwrap();
    }
    // What ended counts no longer, as soon as the client sees that it did.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while !programs
        .ask(MEMBER, (GROUP, &[]), "status")
        .status
        .success()
    {
        assert!(std::time::Instant::now() < until);
    }
}

#[test]
fn members_who_ask_all_the_time_keep_neither_ping_nor_doctor_from_root() {
    if !skip::is_root_or_skip() {
        return;
    }
    let id = AnonymousId([7; 32]).to_string();
    let probe = Request::Probe {
        mappings: Vec::new(),
        all_without_nat: false,
    };
    // What lasts, how many of it members have at once, and what is answered at once.
    let cases = [
        ("{\"command\":\"probe\",\"mappings\":[1]}\n", 2, probe),
        (
            "{\"command\":\"ping\",\"id\":\"silent\"}\n",
            4,
            Request::Ping { id },
        ),
    ];
    for (lasting, served, short) in cases {
        // What is asked goes on when who asked has gone, so each has a client of its own.
        let fixture = Fixture::of_group(Some(GROUP));
        open_to_all(fixture._directory.path());
        let programs = Programs::new(&fixture.path);
        // As many of them as there are connections for. Those that are not served are told so.
        let (told, tells) = std::sync::mpsc::channel();
        let members = (MEMBER..).take(MAX_MEMBERS / MAX_OF_A_USER);
        let mut holders = Vec::new();
        for user in members {
            let (child, lines) = programs.hold_asking(user, MAX_OF_A_USER, lasting, &fixture.path);
            holders.push(child);
            let told = told.clone();
            std::thread::spawn(move || lines.for_each(|line| told.send(line).unwrap_or_default()));
        }
        for _ in served..MAX_MEMBERS {
            let answer = tells.recv_timeout(std::time::Duration::from_secs(20));
            let answer = answer.unwrap();
            assert!(answer.contains("try again when one has ended"), "{answer}");
        }
        // Root's are answered, while the others are under way.
        assert_eq!(ask(&fixture.path, &short).unwrap(), Value::Null);
        // Of root's own, there are not as many as one likes either.
        let held: Vec<UnixStream> = (0..8)
            .map(|_| {
                let mut stream = UnixStream::connect(&fixture.path).unwrap();
                stream.write_all(lasting.as_bytes()).unwrap();
                stream
            })
            .collect();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let refused = loop {
            match ask(&fixture.path, &short) {
                Ok(_) => assert!(std::time::Instant::now() < until),
                Err(error) => break error.to_string(),
            }
        };
        assert!(refused.contains("root has as many"), "{refused}");
        drop(held);
        for holder in &mut holders {
            holder.kill().unwrap();
            holder.wait().unwrap();
        }
    }
}

#[test]
fn the_client_is_found_at_one_of_several_places() {
    let fixture = Fixture::new();
    let nowhere = PathBuf::from("/nonexistent/control.sock");
    let places = Sockets(vec![nowhere.clone(), fixture.path.clone()]);
    assert_eq!(places.ask(&Request::Status).unwrap()["state"], "up");
    let error = Sockets(vec![nowhere]).ask(&Request::Status).unwrap_err();
    assert!(matches!(error, Error::NotRunning { .. }));
}
