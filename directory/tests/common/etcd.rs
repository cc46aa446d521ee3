//! An etcd of several members on loopback, for one test.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mixline_directory::testing::EtcdConfig;
use tempfile::TempDir;

/// Debian's package of it is `etcd-server`.
const PROGRAM: &str = "etcd";
/// How long a member may take until it serves, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Members of one etcd; they are killed, and their data removed, when it is dropped.
pub struct Etcd {
    dir: TempDir,
    members: Vec<Member>,
    cluster: String,
    quota: u64,
}

struct Member {
    client: u16,
    peer: u16,
    /// `None` when it is down.
    running: Option<Child>,
}

impl Etcd {
    /// So many members, of which each has gibibytes of room.
    pub fn start(members: usize) -> Self {
        Self::with_quota(members, 0)
    }

    /// So many members with room for so many bytes; 0 is etcd's default.
    pub fn with_quota(members: usize, quota: u64) -> Self {
        // All at once, so that no port is chosen twice.
        let free: Vec<_> = (0..2 * members)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let port = |at: usize| free[at].local_addr().unwrap().port();
        let members: Vec<_> = (0..members)
            .map(|n| Member {
                client: port(2 * n),
                peer: port(2 * n + 1),
                running: None,
            })
            .collect();
        let peers = members.iter().enumerate();
        let peers: Vec<_> = peers
            .map(|(n, member)| format!("m{n}=http://127.0.0.1:{}", member.peer))
            .collect();
        let mut etcd = Self {
            dir: tempfile::tempdir().unwrap(),
            members,
            cluster: peers.join(","),
            quota,
        };
        drop(free);
        for n in 0..etcd.members.len() {
            etcd.begin(n);
        }
        for n in 0..etcd.members.len() {
            etcd.wait(n);
        }
        etcd
    }

    /// Starts a member again that was killed, and waits until it serves.
    pub fn restart(&mut self, n: usize) {
        self.begin(n);
        self.wait(n);
    }

    /// Starts members again that were killed, and waits until they serve.
    pub fn restart_all(&mut self) {
        let down: Vec<_> = (0..self.members.len())
            .filter(|n| self.members[*n].running.is_none())
            .collect();
        for n in &down {
            self.begin(*n);
        }
        for n in down {
            self.wait(n);
        }
    }

    /// Ends a member as a power cut would.
    pub fn kill(&mut self, n: usize) {
        let mut child = self.members[n].running.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The process of a member.
    pub fn process(&self, n: usize) -> u32 {
        self.members[n].running.as_ref().unwrap().id()
    }

    /// A member's client URL.
    pub fn url(&self, n: usize) -> String {
        format!("http://127.0.0.1:{}", self.members[n].client)
    }

    /// All members, this one first.
    pub fn config(&self, first: usize) -> EtcdConfig {
        let all = self.members.len();
        EtcdConfig {
            endpoints: (0..all).map(|n| self.url((first + n) % all)).collect(),
            prefix: "mixline/".into(),
        }
    }

    fn data(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("m{n}"))
    }

    fn begin(&mut self, n: usize) {
        let Member { client, peer, .. } = self.members[n];
        let [client, peer] = [client, peer].map(|port| format!("http://127.0.0.1:{port}"));
        let child = Command::new(PROGRAM)
            .arg(format!("--name=m{n}"))
            .arg("--data-dir")
            .arg(self.data(n))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster={}", self.cluster))
            .arg(format!("--quota-backend-bytes={}", self.quota))
            .args(["--logger=zap", "--log-level=error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let missing = "etcd cannot be started; `cargo xtask setup` installs it (etcd-server)";
        self.members[n].running = Some(child.expect(missing));
    }

    fn wait(&mut self, n: usize) {
        let began = Instant::now();
        loop {
            if ask(&self.url(n), "v3/kv/range", r#"{"key":"AA=="}"#).is_some() {
                return;
            }
            let ended = self.members[n].running.as_mut().unwrap().try_wait();
            assert!(
                matches!(ended, Ok(None)) && began.elapsed() < PATIENCE,
                "member {n} does not serve: {ended:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(mut child) = member.running.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// What a member's gateway answers, if it is an answer.
pub fn ask(url: &str, path: &str, json: &str) -> Option<String> {
    use mixline_http_client::{Request, Server};
    let server = Server::new(url).unwrap();
    let request = Request::post_json(path, json.to_owned());
    let asking = async {
        let answer = server.ask(request).await.ok()?;
        let good = answer.status().is_success();
        let body = answer.body(1 << 20).await.ok()?;
        good.then(|| String::from_utf8_lossy(&body).into_owned())
    };
    // The test may run on a runtime of its own.
    let asked = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(asking)
    };
    std::thread::scope(|scope| scope.spawn(asked).join().unwrap())
}
