//! Gives [`Proving`] sockets and clocks.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use mixline_protocol::identity::RelayId;
use mixline_protocol::link::Timestamp;
use mixline_protocol::random::OsRandom;
use mixline_protocol::size::{DATAGRAM, Datagram};
use mixline_udp::{BatchSocket, BindOptions};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, watch};

use super::{Census, Change, Described, Proving, State};

/// Without anything to do, it is looked after this.
const IDLE: Duration = Duration::from_secs(10);
/// Datagrams that are read one after the other before something else has its turn.
const READ_AT_ONCE: usize = 64;

/// Tries relays, over one socket for each address family that the host has.
pub struct Prover {
    proving: Mutex<Proving<OsRandom>>,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    /// Something may have to be done before it was said to be due.
    woken: Notify,
}

impl Prover {
    /// Opens the sockets, in the runtime that this is called in. `from`: the addresses that are tried from; the
    /// unspecified ones leave that to the kernel.
    ///
    /// # Errors
    /// Why neither can be had.
    pub fn bind(from: (Ipv4Addr, Ipv6Addr)) -> io::Result<Self> {
        let (v4, v6) = (bind(from.0.into()), bind(from.1.into()));
        if let Err(error) = &v6 {
            tracing::info!("relays are not tried over IPv6: {error}");
        }
        let (v4, v6) = match (v4, v6) {
            (Err(error), Err(_)) => return Err(error),
            (v4, v6) => (v4.ok(), v6.ok()),
        };
        Ok(Self {
            proving: Mutex::new(Proving::new(OsRandom::new(), Instant::now())),
            v4,
            v6,
            woken: Notify::new(),
        })
    }

    /// [`Proving::wanted`].
    pub fn wanted(&self, relay: RelayId, as_it_is: Described<'_>, source: Option<IpAddr>) -> State {
        let now = Instant::now();
        let state = self.lock().wanted(relay, as_it_is, source, now);
        self.woken.notify_one();
        state
    }

    /// [`Proving::restore`].
    pub fn restore(&self, relay: RelayId, as_it_is: Described<'_>, source: Option<IpAddr>) -> bool {
        let now = Instant::now();
        self.lock().restore(relay, as_it_is, source, now)
    }

    /// [`Proving::forget`].
    pub fn forget(&self, relay: &RelayId) {
        self.lock().forget(relay);
    }

    /// [`Proving::state`].
    #[must_use]
    pub fn state(&self, relay: &RelayId, as_it_is: Described<'_>) -> State {
        self.lock().state(relay, as_it_is, Instant::now())
    }

    /// [`Proving::census`].
    #[must_use]
    pub fn census(&self) -> Census {
        self.lock().census(Instant::now())
    }

    /// Tries relays until told to stop, and says whose state has changed.
    pub async fn run(&self, mut changed: impl FnMut(Change), mut stop: watch::Receiver<bool>) {
        loop {
            let now = Instant::now();
            let datagrams = self.lock().poll(now, wall());
            self.send(&datagrams);
            loop {
                let change = self.lock().next_change();
                let Some(change) = change else { break };
                changed(change);
            }
            let next = self.lock().next_poll(now).unwrap_or(now + IDLE);
            tokio::select! {
                () = tokio::time::sleep_until(next.min(now + IDLE).into()) => {}
                () = self.woken.notified() => {}
                () = self.receive(self.v4.as_ref()) => {}
                () = self.receive(self.v6.as_ref()) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Waits for datagrams and takes some.
    async fn receive(&self, socket: Option<&UdpSocket>) {
        let Some(socket) = socket else {
            return std::future::pending().await;
        };
        if let Err(error) = socket.readable().await {
            tracing::debug!(%error, "waiting for answers of relays");
        }
        // One byte more, so that what is too long shows.
        let mut buffer = [0; DATAGRAM + 1];
        for _ in 0..READ_AT_ONCE {
            let (length, source) = match socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => continue,
            };
            let Ok(datagram) = <&Datagram>::try_from(&buffer[..length]) else {
                continue;
            };
            let now = Instant::now();
            let answers = self.lock().received(datagram, source, now, wall());
            self.send(&answers);
        }
    }

    fn send(&self, datagrams: &[(SocketAddr, Box<Datagram>)]) {
        for (to, datagram) in datagrams {
            let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
            let has_way = socket
                .as_ref()
                .is_some_and(|socket| !is_without_way(socket.try_send_to(&datagram[..], *to)));
            if !has_way {
                self.lock().has_no_way(*to, Instant::now());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Proving<OsRandom>> {
        self.proving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Such as all nodes have: what does not fit into the path is not cut up.
fn bind(from: IpAddr) -> io::Result<UdpSocket> {
    let options = BindOptions {
        gro: false,
        gso: false,
        ..BindOptions::default()
    };
    let socket = BatchSocket::bind(SocketAddr::new(from, 0), &options)?;
    let twin = StdSocket::from(socket.as_fd().try_clone_to_owned()?);
    twin.set_nonblocking(true)?;
    UdpSocket::from_std(twin)
}

/// Whether this host has no way to there. Other errors may pass (a firewall, a full queue): the datagram is lost then,
/// and another one is sent.
fn is_without_way(sent: io::Result<usize>) -> bool {
    sent.is_err_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable
        )
    })
}

fn wall() -> Timestamp {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_that_say_so_mean_that_there_is_no_way() {
        // ENETUNREACH and EADDRNOTAVAIL: no route, IPv6 that is turned off.
        for (errno, no_way) in [
            (101, true),
            (99, true),
            (1, false),
            (11, false),
            (90, false),
        ] {
            let sent = Err(io::Error::from_raw_os_error(errno));
            assert_eq!(is_without_way(sent), no_way, "{errno}");
        }
        assert!(!is_without_way(Ok(DATAGRAM)));
    }
}
