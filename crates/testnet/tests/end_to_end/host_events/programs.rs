//! Programs on a host, and in a container behind it, that use virtual addresses and names all the time.

use super::random::Random;
use super::{BEHIND, FORGED};
use crate::tools::{HOST, on_client, output};
use anyhow::Result;
use mixline_testnet::Network;
use mixline_testnet::netns::Namespace;
use mixline_testnet::topology::Node;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Between two questions of a program for a name, milliseconds: each starts some processes.
const ASKED_AGAIN: u64 = 200;

/// Programs that use virtual addresses and names without end.
pub struct Programs {
    ending: Arc<AtomicBool>,
    /// Those whom nothing but the filter keeps inside read it; whoever writes it has them wait.
    pub asking: Arc<RwLock<()>>,
    threads: Vec<JoinHandle<()>>,
    sent: Arc<AtomicU64>,
}

impl Programs {
    pub fn start(network: &Network, seed: u64) -> Result<Self> {
        let service = network.identity(Node::Service)?;
        let known = [IpAddr::V4(service.ipv4), IpAddr::V6(service.ipv6)];
        let ending = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let asking = Arc::new(RwLock::new(()));
        let mut threads = Vec::new();
        let mut run =
            |work: Box<dyn Fn() + Send>, pause: u64, inside: Option<&str>| -> Result<()> {
                let inside = inside.map(Namespace::named).transpose()?;
                let (ending, sent) = (Arc::clone(&ending), Arc::clone(&sent));
                threads.push(thread::spawn(move || {
                    if inside.is_some_and(|inside| inside.enter().is_err()) {
                        return;
                    }
                    while !ending.load(Ordering::Relaxed) {
                        work();
                        sent.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(pause));
                    }
                }));
                Ok(())
            };
        let host = Node::Client.namespace();
        let any = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let forged = [FORGED[0].parse()?, FORGED[1].parse()?];
        // A container sends to virtual addresses as well, and no host is to forward that.
        for (number, inside, from) in [
            (0, host.as_str(), any),
            (1, BEHIND, any),
            (2, BEHIND, forged),
        ] {
            let random = Mutex::new(Random(seed.wrapping_add(number)));
            let asking = (from == forged).then(|| Arc::clone(&asking));
            let send = move || {
                let _turn = asking.as_ref().map(|asking| asking.read());
                datagram(&random, from, known);
            };
            run(Box::new(send), 10, Some(inside))?;
        }
        for address in known {
            let to = SocketAddr::new(address, 80);
            let connect = move || drop(TcpStream::connect_timeout(&to, Duration::from_secs(1)));
            run(Box::new(connect), 50, Some(&host))?;
        }
        for name in [HOST.to_owned(), format!("www.{HOST}"), "nosuch.anon".into()] {
            let asking = Arc::clone(&asking);
            let ask = move || {
                let _turn = asking.read();
                let _ = output(on_client(3, "getent").args(["ahosts", &name]));
            };
            run(Box::new(ask), ASKED_AGAIN, None)?;
        }
        // A program that asks a server of its own, and a tool of an administrator's.
        for asked in [
            &["secret.anon"][..],
            &["-x", "10.66.77.88"],
            &["-x", "fd66:7788::1"],
        ] {
            let asking = Arc::clone(&asking);
            let direct = move || {
                let _turn = asking.read();
                let dig = ["+time=1", "+tries=1", "@172.30.0.1"];
                let _ = output(on_client(3, "dig").args(dig).args(asked));
            };
            run(Box::new(direct), ASKED_AGAIN, None)?;
        }
        Ok(Self {
            ending,
            asking,
            threads,
            sent,
        })
    }

    pub fn end(self) -> u64 {
        self.ending.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
        self.sent.load(Ordering::Relaxed)
    }
}

/// Sends a datagram to a virtual address: one that somebody has, or any.
fn datagram(random: &Mutex<Random>, from: [IpAddr; 2], known: [IpAddr; 2]) {
    let Ok(mut random) = random.lock() else {
        return;
    };
    let number = random.next();
    let bytes = number.to_be_bytes();
    let to = match number % 4 {
        0 => known[0],
        1 => known[1],
        2 => Ipv4Addr::new(10, bytes[1] | 0x80, bytes[2], bytes[3]).into(),
        _ => {
            let parts = [0xfd00, 0, 0, 0, 0, 0, 0, 0];
            let mut parts: [u16; 8] = parts;
            parts[0] |= u16::from(bytes[0]);
            parts[3] = u16::from_be_bytes([bytes[1], bytes[2]]);
            parts[7] = u16::from_be_bytes([bytes[3], bytes[4]]);
            Ipv6Addr::from(parts).into()
        }
    };
    let from = from[usize::from(to.is_ipv6())];
    if let Ok(socket) = UdpSocket::bind((from, 0)) {
        let _ = socket.send_to(b"through the client or not at all", (to, 9));
    }
}
