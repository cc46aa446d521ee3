//! A container under systemd-nspawn: the same tree as a machine's, systemd as its first process, in a
//! second.
//!
//! It writes to a layer in memory above the tree, and is known to nothing on the host: its mounts and
//! nspawn's files are in a namespace of theirs. Its one wire, `host0`, leads to a bridge in a network
//! namespace where nobody else is. When it is dropped, or the program that started it ends in whatever
//! way, it is killed with all that runs in it, and its control groups are removed.
//!
//! It may boot again, in order or as after a power cut: what it wrote and what is outside stay.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::inside::{Inside, end_of};
use crate::run::{lasting, program};
use crate::shell::{Answer, Shell};
use crate::tree::Tree;
use crate::{Error, Result};

/// How long a container may take until its services run: on an idle host, two seconds.
const BOOT: Duration = Duration::from_secs(60);
/// How long it may take to end.
const END: Duration = Duration::from_secs(10);
/// Capabilities beyond those that nspawn leaves to a container with a network of its own: XDP, and limits
/// of units above the host's.
const CAPABILITIES: &str = "CAP_BPF,CAP_PERFMON,CAP_IPC_LOCK,CAP_SYS_RESOURCE";

/// Starts nspawn in a namespace of processes, so that all ends with its first one, as often as it is
/// asked to by a file, and ends it when its own input closes. Arguments: control groups, one a line, the first of them that of
/// the unified hierarchy; tree; what nspawn is given.
const KEEPER: &str = r#"
groups=$1; tree=$2; shift 2
first=$(printf '%s\n' "$groups" | head -n 1)
setpriv --pdeathsig KILL sh -c '
    first=$1; tree=$2; shift 2
    echo $$ > "$first/cgroup.procs" || exit
    exec unshare --mount --pid --net --mount-proc --fork --kill-child=KILL sh -c '\''
        tree=$1; shift
        mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/machine/upper /run/machine/work /run/machine/root &&
        mount -t overlay -o "lowerdir=$tree,upperdir=/run/machine/upper,workdir=/run/machine/work" \
            overlay /run/machine/root || exit
        ip link set lo up && ip link add outside type bridge mcast_snooping 0 && ip link set outside up || exit
        while :; do
            rm -f /run/machine/again
            systemd-nspawn --directory=/run/machine/root --network-bridge=outside "$@"
            [ -e /run/machine/again ] || exit
        done
    '\'' sh "$tree" "$@"
' sh "$first" "$tree" "$@" </dev/null &
read -r end
kill -9 $! 2>/dev/null
wait
printf '%s\n' "$groups" | while read -r group; do
    [ -d "$group" ] || continue
    [ ! -e "$group/cgroup.kill" ] || echo 1 > "$group/cgroup.kill"
    for try in $(seq 100); do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
        [ -d "$group" ] || break
        sleep 0.1
    done
done
"#;

/// What a container is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Its name, also that of its host: letters, digits and `-`.
    pub name: String,
    /// A directory of the host that it sees at `/host`, and cannot write to.
    pub shared: PathBuf,
    /// Where its console is kept.
    pub directory: PathBuf,
}

/// How a container ends that boots again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its services are stopped in order.
    PowerOff,
    /// All its processes are killed at once. What they wrote is kept all the same: a disk may lose the
    /// last seconds.
    PowerCut,
}

/// A container that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Container {
    inside: Inside,
    leader: u32,
    /// The host's end of the shell's process.
    entered: Child,
    // Last: it ends all of the above.
    keeper: Keeper,
}

impl Container {
    /// Starts a container and waits until its services run. To be called as root.
    ///
    /// # Errors
    /// [`Error::Missing`] without systemd-nspawn; [`Error::Ended`] or [`Error::Timeout`] if it does
    /// not come up.
    pub fn start(tree: &Tree, setup: &Setup) -> Result<Self> {
        let nspawn = Path::new("/usr/bin/systemd-nspawn");
        if !nspawn.exists() {
            return Err(Error::Missing {
                program: "systemd-nspawn",
            });
        }
        fs::create_dir_all(&setup.directory).map_err(Error::file("making", &setup.directory))?;
        let console = setup.directory.join("console.log");
        let keeper = Keeper::start(tree, setup, &console)?;
        let (leader, entered, shell) = keeper.booted(None, &setup.name, &console)?;
        let mut container = Self {
            inside: Inside {
                name: setup.name.clone(),
                console,
                shell,
            },
            leader,
            entered,
            keeper,
        };
        // A unit that cannot work in a container is no reason not to use it.
        let state = container.run(
            "until systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'; do sleep 0.1; done",
            BOOT,
        )?;
        if state.code == 0 {
            Ok(container)
        } else {
            Err(container.inside.ended())
        }
    }

    /// Ends the container and boots it again, until its first services run; those that wait for a network
    /// may still do so. Nothing of what ran before is left, and `host0` is down and without an address.
    ///
    /// # Errors
    /// [`Error::Ended`] or [`Error::Timeout`] if it does not come up.
    pub fn boot_again(&mut self, end: End) -> Result<()> {
        let again = self.starter()?.join("root/run/machine/again");
        fs::write(&again, "").map_err(Error::file("writing", again))?;
        match end {
            End::PowerOff => self
                .expect("systemctl poweroff --no-block", BOOT)
                .map(drop)?,
            End::PowerCut => {
                let first = Pid::from_raw(self.leader.cast_signed());
                kill(first, Signal::SIGKILL).map_err(|error| {
                    Error::file("killing", format!("/proc/{}", self.leader))(error.into())
                })?;
            }
        }
        // The end of all stops the shell for a moment, nsenter stops with it, and nobody would let it go on
        // and reap the shell: it goes before.
        let _ = self.run("exit", END);
        let _ = self.entered.kill();
        let _ = self.entered.wait();
        let (name, console) = (self.inside.name.clone(), self.inside.console.clone());
        let (leader, entered, shell) = self.keeper.booted(Some(self.leader), &name, &console)?;
        (self.leader, self.entered, self.inside.shell) = (leader, entered, shell);
        self.expect(
            "until systemctl is-active --quiet basic.target; do sleep 0.05; done",
            BOOT,
        )
        .map(drop)
    }

    /// The network namespace outside, at the other end of `host0`, where the bridge `outside` has it. It
    /// stays the same when the container boots again.
    ///
    /// # Errors
    /// [`Error::Ended`] if the container has ended for good.
    pub fn outside(&self) -> Result<PathBuf> {
        Ok(self.starter()?.join("ns/net"))
    }

    /// What the kernel says about the process that starts nspawn, and outlives it.
    fn starter(&self) -> Result<PathBuf> {
        let process = self.keeper.first_of(1).ok_or_else(|| self.inside.ended())?;
        Ok(PathBuf::from(format!("/proc/{process}")))
    }

    /// A process in the container, by its number on the host; none if it has ended.
    #[must_use]
    pub fn outer(&self, process: u32) -> Option<u32> {
        let depth = numbers("self")?.len() + 2;
        processes(&self.keeper.group).into_iter().find(|outer| {
            numbers(&outer.to_string())
                .is_some_and(|all| all.len() == depth && all.last() == Some(&process))
        })
    }

    /// The container's own network namespace, until it boots again.
    #[must_use]
    pub fn network(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.leader))
    }

    /// Runs a command in the container's shell, as root.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Ended`].
    pub fn run(&mut self, command: &str, timeout: Duration) -> Result<Answer> {
        self.inside.run(command, timeout)
    }

    /// Runs a command that has to succeed; gives its output.
    ///
    /// # Errors
    /// [`Error::Inside`] if it does not, else as [`run`](Self::run).
    pub fn expect(&mut self, command: &str, timeout: Duration) -> Result<String> {
        self.inside.expect(command, timeout)
    }

    /// Its first process, by its number on the host, and its control group's directory: what is
    /// gone when it is.
    #[must_use]
    pub fn traces(&self) -> (u32, PathBuf) {
        (self.leader, self.keeper.group.clone())
    }

    /// The end of what the container's console has shown.
    #[must_use]
    pub fn console(&self) -> String {
        self.inside.console()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.keeper.end();
        let _ = self.entered.kill();
        let _ = self.entered.wait();
    }
}

/// The process on the host that ends the container.
#[derive(Debug)]
struct Keeper {
    process: Child,
    /// Closing it ends the container.
    input: Option<ChildStdin>,
    /// The container's control group in the unified hierarchy.
    group: PathBuf,
    began: Instant,
}

impl Keeper {
    fn start(tree: &Tree, setup: &Setup, console: &Path) -> Result<Self> {
        let groups = control_groups(&format!("{}-{}", setup.name, std::process::id()))?;
        fs::create_dir(&groups[0]).map_err(Error::file("making", &groups[0]))?;
        let log = fs::File::create(console).map_err(Error::file("making", console))?;
        let too = log.try_clone().map_err(Error::file("making", console))?;
        let mut bind = std::ffi::OsString::from("--bind-ro=");
        bind.push(&setup.shared);
        bind.push(":/host");
        let lines: Vec<_> = groups.iter().map(|path| path.to_string_lossy()).collect();
        let mut process = lasting("sh")
            .args(["-c", KEEPER, "sh", &lines.join("\n")])
            .arg(&tree.path)
            .args(["--quiet", "--boot"])
            .args(["--register=no", "--keep-unit", "--link-journal=no"])
            .args(["--resolv-conf=off", "--timezone=off"])
            .arg(format!("--machine={}", setup.name))
            .arg(format!("--capability={CAPABILITIES}"))
            .arg("--system-call-filter=bpf perf_event_open")
            .arg(bind)
            .arg("systemd.show_status=false")
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(too)
            .process_group(0)
            .spawn()
            .map_err(Error::file("running", "sh"))?;
        Ok(Self {
            input: process.stdin.take(),
            process,
            group: groups[0].clone(),
            began: Instant::now(),
        })
    }

    /// Whether nspawn still runs, or may not have come that far.
    fn is_running(&self) -> bool {
        // The shell waits for its input in any case; what it started is its child.
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        children.is_ok_and(|children| !children.trim().is_empty())
            || self.began.elapsed() < Duration::from_secs(1)
    }

    /// The first process of the namespace that has so many others around it, by its number on the host.
    fn first_of(&self, depth: usize) -> Option<u32> {
        let depth = numbers("self")?.len() + depth;
        processes(&self.group)
            .into_iter()
            .find(|process| match numbers(&process.to_string()) {
                Some(numbers) => numbers.len() == depth && numbers.last() == Some(&1),
                None => false,
            })
    }

    /// The container's first process, by its number on the host.
    fn leader(&self) -> Option<u32> {
        // One namespace for nspawn, and in it one for the container.
        self.first_of(2).filter(|process| {
            fs::read_to_string(format!("/proc/{process}/comm"))
                .is_ok_and(|name| name.trim() == "systemd")
        })
    }

    /// Waits for a first process that is not the one before; gives it, and a shell beside it.
    fn booted(
        &self,
        before: Option<u32>,
        name: &str,
        console: &Path,
    ) -> Result<(u32, Child, Shell)> {
        let until = Instant::now() + BOOT;
        let leader = loop {
            if let Some(leader) = self.leader().filter(|leader| Some(*leader) != before) {
                break leader;
            }
            if Instant::now() > until || !self.is_running() {
                return Err(Error::Ended {
                    machine: format!("{name} (it did not start)"),
                    console: end_of(console),
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let (ours, theirs) = UnixStream::pair().map_err(Error::file("making", "a socket"))?;
        let entered = enter(leader, theirs).map_err(Error::file("entering", "the container"))?;
        Ok((leader, entered, Shell::new(ours)))
    }

    fn end(&mut self) {
        drop(self.input.take());
        let until = Instant::now() + END;
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() > until {
                let _ = self.process.kill();
                let _ = self.process.wait();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end();
    }
}

/// The numbers of a process, that of the outermost namespace first (proc(5)).
fn numbers(process: &str) -> Option<Vec<u32>> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace()
        .map(|number| number.parse().ok())
        .collect()
}

/// The processes in a control group and those below it.
fn processes(group: &Path) -> Vec<u32> {
    let mut found: Vec<u32> = fs::read_to_string(group.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(processes(&entry.path()));
        }
    }
    found
}

/// The directories of a new control group below this process's own: in the unified hierarchy, and in
/// that which systemd has beside it on older hosts, where nspawn makes the same one.
fn control_groups(name: &str) -> Result<Vec<PathBuf>> {
    let read = |path: &str| fs::read_to_string(path).map_err(Error::file("reading", path));
    let mounts = read("/proc/self/mountinfo")?;
    let own = read("/proc/self/cgroup")?;
    let unified = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap_or("/");
    let point = |kind: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut right = right.split(' ');
            let is = right.next() == Some(kind) && right.any(|field| field.contains(option));
            is.then(|| PathBuf::from(left.split(' ').nth(4).unwrap_or_default()))
        })
    };
    let place = |root: PathBuf| root.join(unified.trim_start_matches('/')).join(name);
    let first = point("cgroup2", "")
        .map(place)
        .ok_or_else(|| Error::Command {
            command: "finding a place for the container".into(),
            why: "this host has no unified hierarchy of control groups (`mount -t cgroup2`)".into(),
        })?;
    let mut groups = vec![first];
    groups.extend(point("cgroup", "name=systemd").map(place));
    Ok(groups)
}

/// A root shell in the namespaces of a process, at the other end of a socket.
fn enter(leader: u32, socket: UnixStream) -> io::Result<Child> {
    let end = || {
        socket
            .try_clone()
            .map(|end| Stdio::from(OwnedFd::from(end)))
    };
    program("nsenter")
        .args(["--target", &leader.to_string()])
        .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"])
        .args(["--root", "--wd", "env", "-i"])
        .args([
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "TERM=dumb",
            "LC_ALL=C.UTF-8",
            "DEBIAN_FRONTEND=noninteractive",
            "bash",
            "--norc",
            "--noprofile",
        ])
        .stdin(end()?)
        .stdout(end()?)
        .stderr(end()?)
        .process_group(0)
        .spawn()
}
