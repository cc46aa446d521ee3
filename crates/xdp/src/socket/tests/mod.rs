//! The ring tasks on rings in plain memory, with a kernel that answers as told.

mod answers;
mod conservation;

use std::collections::VecDeque;

use nix::errno::Errno;

use crate::packet::Packet;
use crate::socket::Socket;
use crate::testing::{Answer, MemoryKernel};

type TestSocket = Socket<MemoryKernel>;

fn socket(frames: u32) -> TestSocket {
    MemoryKernel::new(frames).socket()
}

/// Free frames with a number each, ready to be sent.
fn numbered(socket: &mut TestSocket, numbers: std::ops::Range<u32>) -> VecDeque<Packet> {
    numbers
        .map(|number| {
            let mut packet = socket.take().unwrap();
            assert!(packet.fill(&number.to_be_bytes()));
            packet
        })
        .collect()
}

/// The numbers of the frames that were sent, in order.
fn sent(socket: &mut TestSocket) -> Vec<u32> {
    let sent = &socket.kernel_mut().sent;
    sent.iter()
        .map(|bytes| u32::from_be_bytes(*bytes.first_chunk().unwrap()))
        .collect()
}

fn refuses(errno: Errno) -> Answer {
    Answer {
        takes: 0,
        says: Err(errno),
    }
}
