//! The control socket, both sides, and what others may send to it.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mixline_client::Error;
use mixline_client::control::{Request, ask};
use mixline_client::testing::{ControlServer, Handler, MAX_REQUEST};
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
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.block_on(async { ControlServer::bind(&path).unwrap() });
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
    drop(ControlServer::bind(&fixture.path).unwrap());
    std::fs::write(&fixture.path, "precious").unwrap();
    let error = ControlServer::bind(&fixture.path).unwrap_err().to_string();
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(std::fs::read(&fixture.path).unwrap(), b"precious");
}
