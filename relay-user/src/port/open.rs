//! Which port a relay has, and how it is opened.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use mixline_protocol::random::OsRandom;
use mixline_relay_common::maps::MAX_QUEUES;
use mixline_relay_common::verdict::Verdict;
use mixline_xdp::{Attached, Granted, Program, ProgramConfig, Sessions, Socket, SocketConfig};
use nix::net::if_::if_nametoindex;
use rand_core::Rng as _;

use super::Port;
use super::af_xdp::{AfXdpPort, Ring, Sending};
use super::interface::{interface, receive_queues};
use super::replay_marking::Marking;
use super::udp::{ControlSockets, UdpPort, open_udp};
use crate::config::{Config, PortKind, XdpSend};

/// Bytes of the kernel's replay filter, both generations: 2.8 million tags each.
const FILTER_BYTES: usize = 16 << 20;

/// The ports of all workers, and what belongs to them.
pub struct Ports {
    /// One for each worker.
    pub ports: Vec<Box<dyn Port>>,
    /// What the control plane sends from.
    pub sockets: ControlSockets,
    /// The XDP program, where there is one.
    pub guard: Option<Guard>,
    /// What kind of port this is.
    pub kind: &'static str,
    /// Why this one, and what the kernel granted.
    pub why: String,
}

/// The XDP program before the port. It is detached when this is dropped, and by the kernel
/// when the process ends in any other way.
pub struct Guard(Mutex<Program>);

impl Guard {
    /// The set of indices that the program lets through.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .sessions()
    }

    /// Verdicts of the program and how often each was given.
    #[must_use]
    pub fn verdicts(&self) -> Vec<(&'static str, u64)> {
        let program = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match program.verdicts() {
            Ok(counts) => Verdict::ALL.iter().map(|v| v.name()).zip(counts).collect(),
            Err(error) => {
                tracing::warn!(%error, "cannot read the verdicts of the XDP program");
                Vec::new()
            }
        }
    }

    /// Renews the replay filter when its time has come, and logs what the program has to say. To
    /// be called now and then.
    pub fn tend(&self, now: Instant) {
        let mut program = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        program.flush_log();
        let filter = program.tag_filter();
        drop(program);
        filter.rotate(now);
    }
}

/// Why a port was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An address to listen on.
    #[error("{0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// XDP was asked for, and is not to be had.
    #[error("port: {kind}: {why}; `port: udp` works without XDP")]
    Xdp {
        /// The port that was asked for.
        kind: &'static str,
        /// What is missing.
        why: String,
    },
}

/// Opens the port that the configuration asks for. `auto` takes AF_XDP where the driver grants
/// zero-copy, and UDP elsewhere: docs/performance.md says what was measured.
///
/// # Errors
/// [`OpenError`].
pub fn open(config: &Config, workers: usize) -> Result<Ports, OpenError> {
    let (udp, sockets) =
        open_udp(&config.listen, workers).map_err(|(a, e)| OpenError::Listen(a, e))?;
    let plan = match config.port {
        PortKind::Udp => Err("as configured".to_string()),
        PortKind::Xdp => Ok(("xdp", true)),
        PortKind::XdpFilter => Ok(("xdp-filter", false)),
        PortKind::Auto => may_zero_copy(config, &sockets).map(|()| ("xdp", true)),
    };
    let (kind, redirect) = match plan {
        Ok(plan) => plan,
        Err(why) => return Ok(plain(udp, sockets, why)),
    };
    match open_xdp(config, &sockets, redirect) {
        Ok(xdp) => xdp
            .ports(config, kind, udp, sockets)
            .map_err(|why| OpenError::Xdp { kind, why }),
        Err(why) if config.port == PortKind::Auto => Ok(plain(udp, sockets, why)),
        Err(why) => Err(OpenError::Xdp { kind, why }),
    }
}

/// Plain UDP.
fn plain(udp: Vec<UdpPort>, sockets: ControlSockets, why: String) -> Ports {
    Ports {
        ports: udp.into_iter().map(boxed).collect(),
        sockets,
        guard: None,
        kind: "udp",
        why,
    }
}

fn boxed(port: impl Port + 'static) -> Box<dyn Port> {
    Box::new(port)
}

/// Whether zero-copy is granted on the first queue: what `auto` wants AF_XDP for.
fn may_zero_copy(config: &Config, sockets: &ControlSockets) -> Result<(), String> {
    if !Program::is_built() {
        return Err(mixline_xdp::Error::NotBuilt.to_string());
    }
    let (interface, _) = interface(config, sockets)?;
    let small = SocketConfig {
        frames: 64,
        zero_copy: true,
    };
    let socket = Socket::bind(&interface, 0, small).map_err(|e| e.to_string())?;
    match socket.granted() {
        Granted::ZeroCopy => Ok(()),
        Granted::Copy => Err(format!(
            "the driver of {interface} grants no zero-copy, without which UDP with GRO and GSO is faster"
        )),
    }
}

/// The program attached, and the sockets of the queues if it redirects.
struct Xdp {
    program: Program,
    attached: Attached,
    interface: String,
    sockets: Vec<Socket>,
}

fn open_xdp(config: &Config, control: &ControlSockets, redirect: bool) -> Result<Xdp, String> {
    let text = |e: mixline_xdp::Error| e.to_string();
    let (interface, addresses) = interface(config, control)?;
    let mut ports = control.addresses().map(|address| address.port());
    let port = ports.next().unwrap_or_default();
    if ports.any(|other| other != port) {
        return Err("all addresses of `listen` must have one port".into());
    }
    let mut rng = OsRandom::new();
    let mut program = Program::load(&ProgramConfig {
        port,
        addresses,
        redirect,
        filter_bytes: FILTER_BYTES,
        filter_key: [rng.next_u64(), rng.next_u64()],
    })
    .map_err(text)?;
    let mut sockets = Vec::new();
    if redirect {
        let queues = receive_queues(&interface);
        if queues > MAX_QUEUES {
            return Err(format!(
                "{interface} has {queues} queues, of which {MAX_QUEUES} can be used: \
                 `ethtool -L {interface} combined {MAX_QUEUES}`"
            ));
        }
        for queue in 0..queues {
            let socket = Socket::bind(&interface, queue, SocketConfig::default()).map_err(text)?;
            program.add_socket(queue, &socket).map_err(text)?;
            sockets.push(socket);
        }
    }
    let attached = program.attach(&interface).map_err(text)?;
    Ok(Xdp {
        program,
        attached,
        interface,
        sockets,
    })
}

impl Xdp {
    /// Gives each worker its queues.
    fn ports(
        self,
        config: &Config,
        kind: &'static str,
        udp: Vec<UdpPort>,
        sockets: ControlSockets,
    ) -> Result<Ports, String> {
        let Self {
            program,
            attached,
            interface,
            sockets: queues,
        } = self;
        let filter = program.tag_filter();
        let granted = queues.first().map(Socket::granted);
        let ring = match (config.xdp_send, granted) {
            (_, None) | (XdpSend::Gso, _) | (XdpSend::Auto, Some(Granted::Copy)) => false,
            (XdpSend::Ring, _) | (XdpSend::Auto, Some(Granted::ZeroCopy)) => true,
        };
        let why = match granted {
            None => format!("{attached} XDP on {interface} guards the UDP port"),
            Some(granted) => format!(
                "{attached} XDP on {interface}, {} queues, {granted}, sending {}",
                queues.len(),
                if ring {
                    "through the TX ring"
                } else {
                    "through UDP with GSO"
                }
            ),
        };
        let workers = udp.len();
        let mut of_worker: Vec<Vec<Socket>> = (0..workers).map(|_| Vec::new()).collect();
        for (number, socket) in queues.into_iter().enumerate() {
            of_worker[number % workers].push(socket);
        }
        let index = if_nametoindex(interface.as_str()).map_err(|e| e.to_string())?;
        let port = sockets
            .addresses()
            .next()
            .map_or(0, |address| address.port());
        let mut ports = Vec::with_capacity(workers);
        for (udp, queues) in udp.into_iter().zip(of_worker) {
            if queues.is_empty() {
                ports.push(boxed(Marking::new(udp, filter.clone())));
                continue;
            }
            let sending = if ring {
                Sending::Ring(Box::new(Ring::new(index, port).map_err(|e| e.to_string())?))
            } else {
                Sending::Gso
            };
            ports.push(boxed(Marking::new(
                AfXdpPort::new(queues, udp, sending),
                filter.clone(),
            )));
        }
        Ok(Ports {
            ports,
            sockets,
            guard: Some(Guard(Mutex::new(program))),
            kind,
            why,
        })
    }
}
