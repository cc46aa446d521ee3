//! One datagram at a time, there and back: through a relay, or from an echo.
//!
//! The kernel's generator makes many frames and cannot time one. So these leave and come back by a
//! neighbour's UDP socket, for an echo just as for a relay: what the socket takes is in both.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mixline_protocol::size::DATAGRAM;

use super::addresses::{PORT, address};
use super::feed::Feed;
use super::kernel::Generator;

/// What has not come back after this long is lost.
const PATIENCE: Duration = Duration::from_millis(500);
/// Of so many, one may be lost.
const LOST: usize = 100;

/// Sends `count` datagrams from the first neighbour to itself, each once the one before is back;
/// gives how long each took, in nanoseconds, in no order.
///
/// Each is sealed before its time begins. The relay has its path and its link in its tables.
///
/// # Errors
/// If more than one of a hundred is lost, or what is measured has ended.
pub fn there_and_back(
    feed: &mut Feed,
    generator: &mut Generator,
    count: usize,
) -> Result<Vec<f64>> {
    let to = SocketAddr::from((address(feed.node().number), PORT));
    let own = match feed.neighbours() {
        Some(neighbours) => {
            neighbours.renew()?;
            neighbours.socket(0)?
        }
        None => UdpSocket::bind((feed.neighbour(0), PORT))?,
    };
    let before = own.read_timeout()?;
    own.set_read_timeout(Some(PATIENCE))?;
    generator.let_through(true)?;
    let took = trips(feed, &own, to, count);
    generator.let_through(false)?;
    own.set_read_timeout(before)?;
    took
}

fn trips(feed: &mut Feed, own: &UdpSocket, to: SocketAddr, count: usize) -> Result<Vec<f64>> {
    let mut took = Vec::with_capacity(count);
    let mut datagram = [0x5a; DATAGRAM];
    let mut back = [0; DATAGRAM + 1];
    for _ in 0..count {
        if let Some(neighbours) = feed.neighbours() {
            neighbours.fill(&mut datagram, 0, 0)?;
        }
        // Nothing that came late or by itself shall be taken for this one.
        forget(own)?;
        let left = Instant::now();
        own.send_to(&datagram, to)?;
        match own.recv_from(&mut back) {
            Ok((DATAGRAM, from)) if from == to => took.push(left.elapsed().as_nanos() as f64),
            Ok(_) => {}
            Err(error) if waited(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let lost = count - took.len();
    ensure!(
        lost * LOST <= count,
        "{lost} of {count} datagrams did not come back"
    );
    Ok(took)
}

/// Takes what has arrived.
fn forget(socket: &UdpSocket) -> Result<()> {
    socket.set_nonblocking(true)?;
    let mut buffer = [0; 1];
    let last = loop {
        if let Err(error) = socket.recv_from(&mut buffer) {
            break error;
        }
    };
    socket.set_nonblocking(false)?;
    ensure!(waited(&last), last);
    Ok(())
}

fn waited(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
