//! A kernel that a test plays: rings in plain memory, and wake-ups that are answered as told.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;

use nix::errno::Errno;

use crate::kernel::{Kernel, Ring};
use crate::memory::Memory;
use crate::packet::Packet;
use crate::socket::Socket;
use crate::socket_config::SocketConfig;

/// What the kernel does when it is woken to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Frames that it takes from the TX ring first.
    pub takes: usize,
    /// What it says then.
    pub says: Result<(), Errno>,
}

/// Where the frames are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Nobody's.
    pub free: usize,
    /// In the fill ring.
    pub fill: usize,
    /// In the receive ring.
    pub receive: usize,
    /// In the TX ring.
    pub transmit: usize,
    /// Taken from the TX ring, and not sent yet.
    pub driver: usize,
    /// In the completion ring.
    pub completion: usize,
    /// With the user of the socket.
    pub held: usize,
}

impl Census {
    /// All of them.
    #[must_use]
    pub fn sum(&self) -> usize {
        let Self {
            free,
            fill,
            receive,
            transmit,
            driver,
            completion,
            held,
        } = self;
        free + fill + receive + transmit + driver + completion + held
    }
}

/// Four rings, memory, and what the kernel answers.
///
/// As it is made, it is a kernel in copy mode: it wants to be woken to send, takes 32 frames then,
/// and says `EAGAIN` if there are more.
pub struct MemoryKernel {
    memory: Memory,
    fill: VecDeque<Packet>,
    received: VecDeque<Packet>,
    transmit: VecDeque<Packet>,
    driver: VecDeque<Packet>,
    completed: VecDeque<Packet>,
    /// Room in each ring.
    room: usize,
    /// How many frames of the fill ring the driver knows of.
    known: usize,
    /// Addresses of its frames, from the first one to behind the last one.
    addresses: Range<usize>,
    put_in: [u32; 2],
    /// Whether it wants to be woken for a ring: the fill ring, the TX ring.
    pub wants_wakeup: [bool; 2],
    /// How often it has been woken for them.
    pub woken: [usize; 2],
    /// Whether the interface is up.
    pub up: bool,
    /// What it says to the next wake-ups for the fill ring; nothing wrong after that.
    pub fill_answers: VecDeque<Errno>,
    /// What it does at the next wake-ups for the TX ring; as in copy mode after that. It
    /// says `EAGAIN` instead of nothing wrong if it has not taken all.
    pub answers: VecDeque<Answer>,
    /// What was sent, in order.
    pub sent: Vec<Vec<u8>>,
    /// Something that can be waited for, on which nothing ever happens.
    descriptor: UnixDatagram,
}

/// Bytes of a frame: frames are as long as they are aligned.
const FRAME: usize = 4096;
/// Frames that copy mode takes in one call.
const COPY_BATCH: usize = 32;

impl MemoryKernel {
    /// A kernel with `frames` frames, and half as much room in each ring.
    ///
    /// # Panics
    /// If the system has no memory.
    #[must_use]
    #[expect(clippy::expect_used, reason = "for tests only")]
    pub fn new(frames: u32) -> Self {
        let config = SocketConfig {
            frames,
            stamps: true,
            ..SocketConfig::default()
        };
        let mut this = Self {
            memory: Memory::map(&config, false).expect("memory for frames"),
            fill: VecDeque::new(),
            received: VecDeque::new(),
            transmit: VecDeque::new(),
            driver: VecDeque::new(),
            completed: VecDeque::new(),
            room: frames as usize / 2,
            known: 0,
            addresses: 0..0,
            put_in: [0; 2],
            wants_wakeup: [false, true],
            woken: [0; 2],
            up: true,
            fill_answers: VecDeque::new(),
            answers: VecDeque::new(),
            sent: Vec::new(),
            descriptor: UnixDatagram::unbound().expect("a socket"),
        };
        let first = this.frames().into_iter().min().unwrap_or_default();
        this.addresses = first..first + frames as usize * FRAME;
        this
    }

    /// A socket over it.
    ///
    /// # Panics
    /// Never: it answers nothing wrong yet.
    #[must_use]
    #[expect(clippy::expect_used, reason = "for tests only")]
    pub fn socket(self) -> Socket<Self> {
        Socket::over(self).expect("a kernel that is up")
    }

    /// A frame arrives. False if the driver has nothing to receive into.
    ///
    /// # Panics
    /// If it does not fit into a frame.
    pub fn arrive(&mut self, bytes: &[u8]) -> bool {
        self.arrive_at(bytes, None)
    }

    /// The same, with a time stamp in front of the frame.
    ///
    /// # Panics
    /// If it does not fit into a frame.
    pub fn arrive_at(&mut self, bytes: &[u8], time: Option<u64>) -> bool {
        if self.known == 0 || self.received.len() == self.room {
            return false;
        }
        let Some(mut packet) = self.fill.pop_front() else {
            return false;
        };
        self.known -= 1;
        assert!(packet.fill(bytes), "too long for a frame");
        if let Some(time) = time {
            assert!(packet.put_stamp(time), "no room for a stamp");
        }
        self.received.push_back(packet);
        true
    }

    /// The driver looks at the rings by itself: it knows all of the fill ring now, and takes up to
    /// `frames` of the TX ring.
    pub fn poll(&mut self, frames: usize) {
        self.known = self.fill.len();
        self.take_to_send(frames);
    }

    /// Whether the driver wants to be woken from now on. It looks at the rings by itself once more,
    /// and goes on to for as long as there is something to send.
    pub fn set_wants_wakeup(&mut self, [fill, transmit]: [bool; 2]) {
        self.poll(usize::MAX);
        self.wants_wakeup = [fill, transmit && self.transmit.is_empty()];
    }

    /// The driver goes to sleep, and has forgotten to look at the fill ring for the last time: what
    /// is in there, it does not know of.
    pub fn forget_fill_ring(&mut self) {
        self.known = 0;
        self.wants_wakeup[0] = true;
    }

    /// The card has sent up to `frames` of what the driver took.
    pub fn complete(&mut self, frames: usize) {
        for packet in self.driver.drain(..frames.min(self.driver.len())) {
            self.sent.push(packet.to_vec());
            self.completed.push_back(packet);
        }
    }

    /// Counts the frames.
    #[must_use]
    pub fn census(&self) -> Census {
        Census {
            free: self.memory.free(),
            fill: self.fill.len(),
            receive: self.received.len(),
            transmit: self.transmit.len(),
            driver: self.driver.len(),
            completion: self.completed.len(),
            held: self.memory.held(),
        }
    }

    /// Which frames are free or in the rings, by their addresses.
    pub fn frames(&mut self) -> Vec<usize> {
        let mut free = Vec::new();
        while let Some(packet) = self.memory.take() {
            free.push(packet);
        }
        let rings = [
            &self.fill,
            &self.received,
            &self.transmit,
            &self.driver,
            &self.completed,
        ];
        let rings = rings.into_iter().flatten();
        let frames = rings.chain(&free).map(|packet| frame_of(packet)).collect();
        // The last one taken is the first one that is taken again.
        for packet in free.into_iter().rev() {
            self.memory.give_back(packet);
        }
        frames
    }

    /// A frame of another socket would be lost there, and this one would send what is not its own.
    fn assert_own(&self, packet: &Packet) {
        let own = self.addresses.contains(&frame_of(packet));
        assert!(own, "a frame of another socket's memory");
    }

    /// Takes frames from the TX ring, as far as the completion ring has room for them, which
    /// the kernel sees to first.
    fn take_to_send(&mut self, frames: usize) {
        let room = self.room - self.driver.len() - self.completed.len();
        let frames = frames.min(self.transmit.len()).min(room);
        self.driver.extend(self.transmit.drain(..frames));
    }
}

/// The address of the frame that holds some bytes.
#[must_use]
pub fn frame_of(bytes: &[u8]) -> usize {
    bytes.as_ptr().addr() & !(FRAME - 1)
}

impl Kernel for MemoryKernel {
    fn free(&self) -> usize {
        self.memory.free()
    }

    fn held(&self) -> usize {
        self.memory.held()
    }

    fn take(&mut self) -> Option<Packet> {
        self.memory.take()
    }

    fn give_back(&mut self, packet: Packet) {
        self.assert_own(&packet);
        self.memory.give_back(packet);
    }

    fn submit_free(&mut self, frames: usize) -> usize {
        let frames = frames.min(self.memory.free());
        if self.fill.len() + frames > self.room {
            return 0;
        }
        for _ in 0..frames {
            self.fill.extend(self.memory.take());
        }
        self.memory.submitted(frames);
        self.put_in[0] = self.put_in[0].wrapping_add(frames as u32);
        if !self.wants_wakeup[0] {
            self.known = self.fill.len();
        }
        frames
    }

    fn pop_received(&mut self, packets: &mut Vec<Packet>, most: usize) -> usize {
        let frames = most.min(self.received.len());
        packets.extend(self.received.drain(..frames));
        self.memory.received(frames);
        frames
    }

    fn submit(&mut self, packets: &mut VecDeque<Packet>, most: usize) -> usize {
        let frames = most.min(packets.len());
        if self.transmit.len() + frames > self.room {
            return 0;
        }
        for packet in packets.drain(..frames) {
            self.assert_own(&packet);
            self.transmit.push_back(packet);
        }
        self.memory.submitted(frames);
        self.put_in[1] = self.put_in[1].wrapping_add(frames as u32);
        frames
    }

    fn pop_completed(&mut self, most: usize) -> usize {
        let frames = most.min(self.completed.len());
        self.memory.received(frames);
        for packet in self.completed.drain(..frames) {
            self.memory.give_back(packet);
        }
        frames
    }

    fn needs_wakeup(&self, ring: Ring) -> bool {
        self.wants_wakeup[ring as usize]
    }

    fn put_in(&self, ring: Ring) -> u32 {
        self.put_in[ring as usize]
    }

    fn wake(&mut self, ring: Ring) -> Result<(), Errno> {
        self.woken[ring as usize] += 1;
        if !self.up {
            return Err(Errno::ENETDOWN);
        }
        match ring {
            Ring::Fill => match self.fill_answers.pop_front() {
                Some(error) => Err(error),
                None => {
                    self.known = self.fill.len();
                    Ok(())
                }
            },
            Ring::Transmit => {
                let copy_mode = Answer {
                    takes: COPY_BATCH,
                    says: Ok(()),
                };
                let Answer { takes, says } = self.answers.pop_front().unwrap_or(copy_mode);
                self.take_to_send(takes);
                // It does not say that it has taken all while it has not.
                if says.is_ok() && !self.transmit.is_empty() {
                    return Err(Errno::EAGAIN);
                }
                says
            }
        }
    }
}

impl AsRawFd for MemoryKernel {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}
