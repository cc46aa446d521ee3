//! How the port that was chosen is opened.

use std::sync::Arc;

use mixline_protocol::random::OsRandom;
use mixline_relay_common::maps::MAX_QUEUES;
use mixline_xdp::{
    Attached, Card, Granted, Neighbours, Program, ProgramConfig, Socket, SocketConfig,
};
use nix::net::if_::if_nametoindex;
use rand_core::Rng as _;

use super::af_xdp::{AfXdpPort, RingSender, Sending};
use super::choose::{Choice, choose, sends_through_ring};
use super::contract::Port;
use super::error::{InterfaceError, OpenError, XdpError};
use super::interface::{interface, receive_queues};
use super::replay_marking::ReplayMarking;
use super::shared::Shared;
use super::udp::{ControlSockets, UdpPort, open_udp};
use super::watch::Watch;
use super::xdp_filter::XdpFilter;
use crate::config::{Config, InsideFrom};

/// Bytes of the kernel's replay filter, both generations: 2.8 million tags each.
const FILTER_BYTES: usize = 16 << 20;

/// The ports of all workers, and what belongs to them.
pub struct Ports {
    /// One for each worker.
    pub ports: Vec<Box<dyn Port>>,
    /// What the control plane sends from.
    pub sockets: ControlSockets,
    /// The XDP program in front of them, where there is one, and who watches over it.
    pub filter: Option<(Arc<XdpFilter>, Watch)>,
    /// What kind of port this is.
    pub kind: &'static str,
    /// Why this one, and what the kernel granted.
    pub why: String,
}

/// Opens the port that the configuration asks for.
///
/// # Errors
/// [`OpenError`].
pub fn open(config: &Config, workers: usize) -> Result<Ports, OpenError> {
    let (udp, sockets) = open_udp(&config.listen, workers, stamps(config))
        .map_err(|(a, e)| OpenError::Listen(a, e))?;
    let (kind, redirect, or_udp) = match choose(config, &sockets) {
        Choice::Udp { why } => return Ok(plain(udp, sockets, why)),
        Choice::Xdp {
            kind,
            redirect,
            or_udp,
        } => (kind, redirect, or_udp),
    };
    match open_xdp(config, &sockets, redirect) {
        Ok(xdp) => xdp
            .ports(config, kind, udp, sockets)
            .map_err(|why| OpenError::Xdp { kind, why }),
        Err(why) if or_udp => Ok(plain(udp, sockets, why.to_string())),
        Err(why) => Err(OpenError::Xdp { kind, why }),
    }
}

/// Whether the kernel is to say when it received each datagram.
fn stamps(config: &Config) -> bool {
    config.time_inside == InsideFrom::Kernel
}

/// Plain UDP.
fn plain(udp: Vec<UdpPort>, sockets: ControlSockets, why: String) -> Ports {
    Ports {
        ports: udp.into_iter().map(boxed).collect(),
        sockets,
        filter: None,
        kind: "udp",
        why,
    }
}

fn boxed(port: impl Port + 'static) -> Box<dyn Port> {
    Box::new(port)
}

/// The program attached, and the sockets of the queues if it redirects.
struct Xdp {
    program: Program,
    attached: Attached,
    card: Card,
    sockets: Vec<Socket>,
}

fn open_xdp(config: &Config, control: &ControlSockets, redirect: bool) -> Result<Xdp, XdpError> {
    let (interface, addresses) = interface(config, control).map_err(XdpError::Interface)?;
    let mut ports = control.addresses().map(|address| address.port());
    let port = ports.next().unwrap_or_default();
    if ports.any(|other| other != port) {
        return Err(XdpError::Ports);
    }
    let mut rng = OsRandom::new();
    let card = Card::of(&interface);
    if redirect && let Some(on) = card.stacked() {
        return Err(XdpError::Stacked { card, on });
    }
    let settings = ProgramConfig {
        port,
        addresses,
        redirect,
        stamps: redirect && stamps(config),
        filter_bytes: FILTER_BYTES,
        filter_key: [rng.next_u64(), rng.next_u64()],
    };
    let mut program = Program::load(card.clone(), &settings).map_err(XdpError::Xdp)?;
    let mut sockets = Vec::new();
    if redirect {
        let queues = receive_queues(&interface);
        if queues > MAX_QUEUES {
            return Err(XdpError::Queues { card, queues });
        }
        let frames = SocketConfig {
            size: config.xdp_frame_bytes.into(),
            stamps: stamps(config),
            ..SocketConfig::default()
        };
        for queue in 0..queues {
            let socket = Socket::bind(&interface, queue, frames).map_err(XdpError::Xdp)?;
            program.add_socket(queue, &socket).map_err(XdpError::Xdp)?;
            sockets.push(socket);
        }
    }
    // With zero-copy, only the driver puts frames into a socket's rings and takes them out.
    let zero_copy = sockets
        .iter()
        .any(|socket: &Socket| socket.granted() == Granted::ZeroCopy);
    let attached = if zero_copy {
        program.attach_native()
    } else {
        program.attach()
    };
    let attached = attached.map_err(XdpError::Xdp)?;
    Ok(Xdp {
        program,
        attached,
        card,
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
    ) -> Result<Ports, XdpError> {
        let Self {
            program,
            attached,
            card,
            sockets: queues,
        } = self;
        let interface = card.interface.as_str();
        let filter = program.tag_filter();
        let granted = queues.first().map(Socket::granted);
        let ring = sends_through_ring(config.xdp_send, granted);
        let why = match granted {
            None => format!("{attached} XDP on {interface} filters in front of the UDP port"),
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
        let shared = Arc::new(Shared::new(queues.len()));
        let mut of_worker: Vec<Vec<(usize, Socket)>> = (0..workers).map(|_| Vec::new()).collect();
        for (number, socket) in queues.into_iter().enumerate() {
            of_worker[number % workers].push((number, socket));
        }
        let index = if_nametoindex(interface).map_err(|errno| {
            let card = card.clone();
            XdpError::Interface(InterfaceError::Gone { card, errno })
        })?;
        let port = sockets
            .addresses()
            .next()
            .map_or(0, |address| address.port());
        let mut ports = Vec::with_capacity(workers);
        for (udp, queues) in udp.into_iter().zip(of_worker) {
            if queues.is_empty() {
                ports.push(boxed(ReplayMarking::new(udp, filter.clone())));
                continue;
            }
            let sending = if ring {
                let next_hops = Neighbours::new().map_err(|source| XdpError::NextHops {
                    card: card.clone(),
                    source,
                })?;
                Sending::Ring(Box::new(RingSender::new(next_hops, index, port)))
            } else {
                Sending::Gso
            };
            ports.push(boxed(ReplayMarking::new(
                AfXdpPort::new(queues, udp, sending, Arc::clone(&shared), stamps(config)),
                filter.clone(),
            )));
        }
        let filter = Arc::new(XdpFilter::new(program));
        let watch = Watch::new(card, index, Arc::clone(&filter), shared);
        Ok(Ports {
            ports,
            sockets,
            filter: Some((filter, watch)),
            kind,
            why,
        })
    }
}
