//! What the tests share: a host with a wire, and what gets over that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use mixline_client::host::desired::{Place, Wanted, desired};
use mixline_client::host::kernel::Kernel;
use mixline_client::host::plan::{Action, plan};
use mixline_client::host::reconcile::{Reconciler, Report};
use mixline_protocol::address::VirtualNetwork;
use mixline_testnet::netns::{self, Namespace};
use mixline_testnet::skip;

/// Its virtual addresses.
pub const LEASE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const OWN: Ipv6Addr = Ipv6Addr::new(0xfd77, 1, 2, 3, 4, 5, 6, 7);

/// The host's address on the wire.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// How long a datagram may take that nobody sees.
pub const WAIT: Duration = Duration::from_millis(300);

pub fn wanted() -> Wanted {
    Wanted {
        ipv6: Some(OWN),
        lease: Some(LEASE),
        resolver: Some(Place::Loopback),
        ..Wanted::closed("mixline0", VirtualNetwork::default())
    }
}

pub fn ip(arguments: &str) -> String {
    netns::ip_output(arguments).unwrap()
}

/// A host with a wire to a router, which is its way out.
pub struct Wire {
    pub host: Namespace,
    pub router: Namespace,
}

impl Wire {
    pub fn new() -> Option<Self> {
        let (host, router) = (skip::namespace_or_skip()?, skip::namespace_or_skip()?);
        let other_end = || {
            let thread = nix::unistd::gettid();
            host.run(|| {
                ip(&format!(
                    "link add eth0 type veth peer name host netns {thread}"
                ))
            })
            .unwrap();
            for line in [
                "link set lo up",
                "link set host up",
                "address add 192.0.2.1/24 dev host",
                "address add 2001:db8::1/64 dev host nodad",
            ] {
                ip(line);
            }
        };
        router.run(other_end).unwrap();
        let this_end = || {
            for line in [
                "link set lo up",
                "link set eth0 up",
                "address add 192.0.2.2/24 dev eth0",
                "address add 2001:db8::2/64 dev eth0 nodad",
                "route add default via 192.0.2.1",
                "-6 route add default via 2001:db8::1",
            ] {
                ip(line);
            }
        };
        host.run(this_end).unwrap();
        Some(Self { host, router })
    }

    pub fn on_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.host.run(work).unwrap()
    }

    pub fn on_router<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.router.run(work).unwrap()
    }

    /// Whether a datagram that the host sends to an address arrives at the router, which takes all.
    pub fn gets_out(&self, to: IpAddr) -> bool {
        let listening = self.on_router(|| {
            let _ = netns::ip_output(&format!("route replace local {} dev lo", host_route(to)));
            let any: IpAddr = match to {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            listen((any, 5000))
        });
        self.on_host(|| {
            let any: SocketAddr = match to {
                IpAddr::V4(_) => "0.0.0.0:0".parse().unwrap(),
                IpAddr::V6(_) => "[::]:0".parse().unwrap(),
            };
            let _ = bind(any).send_to(b"out", (to, 5000));
        });
        listening.recv(&mut [0; 8]).is_ok()
    }

    /// Whether a datagram that the router sends over the wire to an address of the host arrives.
    pub fn gets_in(&self, to: IpAddr) -> bool {
        let listening = self.on_host(|| listen((to, 5001)));
        self.on_router(|| {
            // An IPv6 host answers its neighbours for the addresses of that wire alone.
            let hop = if to.is_ipv4() { "" } else { "via 2001:db8::2" };
            let route = format!("route replace {} {hop} dev host", host_route(to));
            let _ = netns::ip_output(&route);
            let any: SocketAddr = match to {
                IpAddr::V4(_) => "192.0.2.1:0".parse().unwrap(),
                IpAddr::V6(_) => "[2001:db8::1]:0".parse().unwrap(),
            };
            let socket = bind(any);
            let _ = socket.send_to(b"in", (to, 5001));
        });
        listening.recv(&mut [0; 8]).is_ok()
    }
}

/// Whether it is so at one of several tries: the first packets wait for neighbours.
pub fn soon(is_so: impl Fn() -> bool) -> bool {
    (0..20).any(|_| is_so())
}

/// Binds a socket. One of the same port that was closed just now may live on for a moment, in what
/// another test of this process is about to start.
pub fn bind(address: impl std::net::ToSocketAddrs + Copy) -> UdpSocket {
    let mut tries = (0..20).map(|_| {
        UdpSocket::bind(address).inspect_err(|_| std::thread::sleep(Duration::from_millis(50)))
    });
    tries.find_map(Result::ok).unwrap()
}

/// Binds a socket that waits for a datagram as long as one may take.
pub fn listen(address: impl std::net::ToSocketAddrs + Copy) -> UdpSocket {
    let socket = bind(address);
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket
}

fn host_route(to: IpAddr) -> String {
    match to {
        IpAddr::V4(to) => format!("{to}/32"),
        IpAddr::V6(to) => format!("{to}/128"),
    }
}

pub fn settle(wanted: &Wanted) -> Report {
    Reconciler::open().unwrap().settle(wanted)
}

/// What the client would still do.
pub fn left_to_do(wanted: &Wanted) -> Vec<Action> {
    let observed = Kernel::open().unwrap().observe(wanted).unwrap();
    plan(&desired(wanted, &observed), &wanted.network, &observed)
}
