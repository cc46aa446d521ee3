//! The two small programs of the round-trip measurement. They run inside namespaces, so each is
//! this very executable with a hidden subcommand.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Subcommand;

use super::round_trips::{Counts, histogram};

/// The longest probe, bytes.
const LONGEST: usize = 2048;
/// Probes that have not come back so long after the last one left are lost.
const LINGER: Duration = Duration::from_millis(700);

/// What runs inside a namespace.
#[derive(Debug, Subcommand)]
pub enum Tool {
    /// Send every datagram back.
    #[command(hide = true)]
    Echo {
        /// Where.
        address: SocketAddr,
    },
    /// Send probes to an echo at a fixed pace; print what they took as JSON.
    #[command(hide = true)]
    RoundTrips {
        /// The echo.
        address: SocketAddr,
        /// How many.
        #[arg(long)]
        count: u64,
        /// Microseconds from one to the next.
        #[arg(long)]
        every: u64,
        /// Bytes of each, 8 to 2048.
        #[arg(long)]
        length: usize,
    },
}

impl Tool {
    /// Runs it; an echo runs until it is killed.
    ///
    /// # Errors
    /// If a socket does not do what it should.
    pub fn run(&self) -> Result<()> {
        match self {
            Self::Echo { address } => echo(*address),
            Self::RoundTrips {
                address,
                count,
                every,
                length,
            } => {
                let every = Duration::from_micros(*every);
                let counts = round_trips(*address, *count, every, *length)?;
                println!("{}", serde_json::to_string(&counts)?);
                Ok(())
            }
        }
    }
}

fn echo(address: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(address).with_context(|| format!("no socket at {address}"))?;
    let mut buffer = [0; LONGEST];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        // What cannot be sent is lost, as on any network.
        let _ = socket.send_to(&buffer[..length], from);
    }
}

/// Probes leave when they are due, whether the ones before have come back or not, and count from
/// when they were due: a stall is seen by all probes that fall into it, not by one.
fn round_trips(address: SocketAddr, count: u64, every: Duration, length: usize) -> Result<Counts> {
    ensure!((8..=LONGEST).contains(&length), "a probe of {length} bytes");
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0; 16], 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let receiving = socket.try_clone()?;
    let began = Instant::now();
    let sent_all = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiver =
            scope.spawn(|| receive(&receiving, began, every, (count, length), &sent_all));
        let mut probe = vec![0; length];
        for number in 0..count {
            let due = began + every * u32::try_from(number).unwrap_or(u32::MAX);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            probe[..8].copy_from_slice(&number.to_be_bytes());
            // An error is that of an earlier probe, by ICMP; that one counts as lost.
            let _ = socket.send(&probe);
        }
        thread::sleep(LINGER);
        sent_all.store(true, Ordering::Relaxed);
        receiver
            .join()
            .map_err(|_| anyhow::anyhow!("the receiver has panicked"))?
    })
}

fn receive(
    socket: &UdpSocket,
    began: Instant,
    every: Duration,
    (count, length): (u64, usize),
    sent_all: &AtomicBool,
) -> Result<Counts> {
    let mut took = histogram()?;
    let mut back = vec![false; usize::try_from(count)?];
    let mut buffer = [0; LONGEST];
    while !sent_all.load(Ordering::Relaxed) {
        match socket.recv(&mut buffer) {
            Ok(received) if received == length => {}
            Ok(_) => continue,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionRefused
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        let now = Instant::now();
        let mut number = [0; 8];
        number.copy_from_slice(&buffer[..8]);
        let number = u64::from_be_bytes(number);
        // Each once: the network may double what it carries.
        let Some(seen @ false) = usize::try_from(number).ok().and_then(|at| back.get_mut(at))
        else {
            continue;
        };
        *seen = true;
        let due = began + every * u32::try_from(number)?;
        took.saturating_record(now.saturating_duration_since(due).as_micros() as u64);
    }
    Ok(Counts::of(&took, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_come_back_from_an_echo() {
        let free = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        thread::spawn(move || echo(free));
        thread::sleep(Duration::from_millis(100));
        let counts = round_trips(free, 50, Duration::from_millis(1), 160).unwrap();
        assert_eq!(counts.sent, 50);
        assert!(counts.came_back() >= 45, "{counts:?}");
    }
}
