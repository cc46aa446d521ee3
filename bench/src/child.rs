//! What runs at the other end of a wire: this program once more, in a namespace of its own. An echo
//! is its own task; for a relay it replaces itself by `mixline-relay`.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use mixline_testnet::netns::ip;
use mixline_xdp::{Packet, Socket, SocketConfig};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::generator::node::{ARGUMENT, DEVICE, THERE, Task, WIRED};
use crate::generator::{address, divert, merge, neighbour};

/// Does the task, if this process was started for one.
#[must_use]
pub fn run_if_child() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    let task = arguments.next().unwrap_or_default();
    Some(match run(&task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    })
}

fn run(task: &str) -> Result<()> {
    let task: Task = serde_json::from_str(task).context("not a task")?;
    // The parent may be killed.
    set_pdeathsig(Signal::SIGKILL)?;
    // The parent stays on another core, and what it starts would stay there too.
    let mut cores = CpuSet::new();
    cores.set(task.core)?;
    sched_setaffinity(Pid::from_raw(0), &cores)?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    // The queues of interfaces are to be seen in the namespace's own /sys.
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)?;
    say(THERE)?;
    ensure!(
        std::io::stdin().read(&mut [0])? == 1,
        "nobody laid the wire"
    );
    let own = address(task.node);
    let gateway = neighbour(task.node, 0);
    ip(&format!(
        "link set lo up\naddr add {own}/24 dev {DEVICE}\nlink set {DEVICE} up\n\
         route add default via {gateway}\n"
    ))?;
    // Without a program on it, a veth takes redirected frames only if it merges; and merging is
    // what a relay on UDP is to have.
    merge(DEVICE)?;
    say(WIRED)?;
    match task.relay {
        // In place of this process: namespaces, core, log and the signal at the parent's end stay.
        Some(relay) => {
            let mut command = Command::new(&relay.program);
            let error = command.arg("--config").arg(&relay.config).exec();
            Err(error).with_context(|| format!("running {}", relay.program.display()))
        }
        None => echo(),
    }
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout();
    out.write_all(line.as_bytes())?;
    Ok(out.flush()?)
}

/// Sends each frame back to where it came from.
fn echo() -> Result<()> {
    let mut socket = Socket::bind(DEVICE, 0, SocketConfig::default())?;
    let _diverted = divert(DEVICE, &socket)?;
    let mut received: Vec<Packet> = Vec::new();
    let mut leaving: VecDeque<Packet> = VecDeque::new();
    loop {
        if socket.receive(&mut received)? == 0 && leaving.is_empty() {
            socket.wait(1000)?;
            continue;
        }
        for mut packet in received.drain(..) {
            turn_around(&mut packet);
            leaving.push_back(packet);
        }
        socket.send(&mut leaving)?;
    }
}

/// Swaps the addresses of Ethernet, IPv4 and UDP. No checksum changes by that.
fn turn_around(frame: &mut [u8]) {
    for (one, other, length) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
        if let Some(both) = frame.get_mut(one..other + length) {
            let (one, other) = both.split_at_mut(length);
            one.swap_with_slice(other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_turns_around() {
        let mut frame: Vec<u8> = (0..60).collect();
        turn_around(&mut frame);
        assert_eq!(frame[..12], [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]);
        assert_eq!(
            frame[26..38],
            [30, 31, 32, 33, 26, 27, 28, 29, 36, 37, 34, 35]
        );
        assert!(frame[38..].iter().copied().eq(38..60));
        turn_around(&mut []);
    }
}
