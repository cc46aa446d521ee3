//! Frames are conserved, whatever the kernel answers, and in whatever order.

use proptest::prelude::*;

use super::*;
use crate::testing::frame_of;

/// Frames of the socket: few, so that rings run full and dry.
const FRAMES: u32 = 128;

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// The caller receives.
    Receive,
    /// The caller frees up to so many of what it received.
    Free(usize),
    /// The caller queues up to so many free frames for sending.
    Take(usize),
    /// The caller sends on up to so many of what it received.
    Forward(usize),
    /// The caller sends what it has queued.
    Send,
    /// The caller asks whether the kernel is still busy.
    Retry,
    /// So many frames arrive.
    Arrive(usize),
    /// The driver looks by itself, and takes up to so many frames.
    Poll(usize),
    /// The driver forgets the fill ring.
    Forget,
    /// So many frames have been sent.
    Complete(usize),
    /// Whether the kernel wants to be woken.
    Flags([bool; 2]),
    /// What it says when it is woken to receive.
    AnswerFill(Errno),
    /// What it does and says when it is woken to send.
    Answer(Answer),
    /// The interface goes down, or up.
    Up(bool),
}

fn errno() -> impl Strategy<Value = Errno> {
    prop_oneof![
        6 => Just(Errno::EAGAIN),
        6 => Just(Errno::EBUSY),
        6 => Just(Errno::ENOBUFS),
        6 => Just(Errno::EINTR),
        6 => Just(Errno::ENETDOWN),
        1 => Just(Errno::ENXIO),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let says = prop_oneof![Just(Ok(())), errno().prop_map(Err)];
    (0_usize..40, says).prop_map(|(takes, says)| Answer { takes, says })
}

fn step() -> impl Strategy<Value = Step> {
    let some = 1_usize..80;
    prop_oneof![
        3 => Just(Step::Receive),
        2 => some.clone().prop_map(Step::Free),
        2 => some.clone().prop_map(Step::Take),
        2 => some.clone().prop_map(Step::Forward),
        4 => Just(Step::Send),
        2 => Just(Step::Retry),
        3 => some.clone().prop_map(Step::Arrive),
        1 => some.clone().prop_map(Step::Poll),
        1 => Just(Step::Forget),
        3 => some.prop_map(Step::Complete),
        1 => any::<[bool; 2]>().prop_map(Step::Flags),
        2 => errno().prop_map(Step::AnswerFill),
        3 => answer().prop_map(Step::Answer),
        1 => any::<bool>().prop_map(Step::Up),
    ]
}

/// Whoever uses the socket, and what it knows.
struct World {
    socket: TestSocket,
    /// Received, and not dealt with.
    received: Vec<Packet>,
    /// To be sent.
    queue: VecDeque<Packet>,
    /// Numbers of frames, in the order in which they arrived and were queued.
    arrived: u32,
    seen: u32,
    queued: u32,
    /// Whether an error that is no back pressure may come: the kernel was told to say one.
    fatal: bool,
    /// Whether one has come. The interface is gone then.
    gone: bool,
}

/// Frames that arrive are numbered from here, those that are sent from zero.
const ARRIVED: u32 = 1 << 31;

impl World {
    fn new() -> Self {
        Self {
            socket: socket(FRAMES),
            received: Vec::new(),
            queue: VecDeque::new(),
            arrived: ARRIVED,
            seen: ARRIVED,
            queued: 0,
            fatal: false,
            gone: false,
        }
    }

    fn kernel(&mut self) -> &mut MemoryKernel {
        self.socket.kernel_mut()
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Receive => self.receive(),
            Step::Free(most) => {
                for packet in self.received.drain(..most.min(self.received.len())) {
                    self.socket.free(packet);
                }
            }
            Step::Take(most) => {
                for _ in 0..most {
                    let Some(packet) = self.socket.take() else {
                        break;
                    };
                    self.queue(packet);
                }
            }
            Step::Forward(most) => {
                let most = most.min(self.received.len());
                let packets: Vec<_> = self.received.drain(..most).collect();
                packets.into_iter().for_each(|packet| self.queue(packet));
            }
            Step::Send => self.send(),
            Step::Retry => {
                let result = self.socket.retry().map(drop);
                self.judge(&result);
            }
            Step::Arrive(frames) => {
                for _ in 0..frames {
                    let number = self.arrived.to_be_bytes();
                    if self.kernel().arrive(&number) {
                        self.arrived += 1;
                    }
                }
            }
            Step::Poll(frames) => self.kernel().poll(frames),
            Step::Forget => self.kernel().forget_fill_ring(),
            Step::Complete(frames) => self.kernel().complete(frames),
            Step::Flags(wants) => self.kernel().set_wants_wakeup(wants),
            Step::AnswerFill(errno) => {
                self.fatal |= errno == Errno::ENXIO;
                self.kernel().fill_answers.push_back(errno);
            }
            Step::Answer(answer) => {
                self.fatal |= answer.says == Err(Errno::ENXIO);
                self.kernel().answers.push_back(answer);
            }
            Step::Up(up) => self.kernel().up = up,
        }
    }

    fn queue(&mut self, mut packet: Packet) {
        assert!(packet.fill(&self.queued.to_be_bytes()));
        self.queued += 1;
        self.queue.push_back(packet);
    }

    fn receive(&mut self) {
        let before = self.received.len();
        let result = self.socket.receive(&mut self.received).map(drop);
        self.judge(&result);
        for packet in &self.received[before..] {
            assert_eq!(**packet, self.seen.to_be_bytes(), "received out of order");
            self.seen += 1;
        }
    }

    fn send(&mut self) {
        let result = self.socket.send(&mut self.queue).map(drop);
        self.judge(&result);
    }

    fn judge(&mut self, result: &std::io::Result<()>) {
        assert!(result.is_ok() || self.fatal, "{result:?}");
        self.gone |= result.is_err();
    }

    /// Each frame is in one place, and the socket knows how many are where.
    fn check(&mut self) {
        let held = self.received.len() + self.queue.len();
        let ours = self.received.iter().chain(&self.queue);
        let mut frames: Vec<usize> = ours.map(|packet| frame_of(packet)).collect();
        frames.extend(self.kernel().frames());
        assert_eq!(frames.len(), FRAMES as usize, "a frame is lost or doubled");
        frames.sort_unstable();
        frames.dedup();
        assert_eq!(frames.len(), FRAMES as usize, "a frame is in two places");
        let census = self.kernel().census();
        assert_eq!(census.sum(), FRAMES as usize, "{census:?}");
        assert_eq!((census.held, self.socket.held()), (held, held));
        assert_eq!(
            self.socket.in_flight(),
            census.transmit + census.driver + census.completion
        );
        assert!(self.socket.is_conserved(), "{census:?}");
    }

    /// The kernel says nothing wrong any more: all that was accepted is sent, in order, and there
    /// are frames to receive into.
    fn recovers(&mut self) {
        let kernel = self.kernel();
        kernel.up = true;
        kernel.answers.clear();
        kernel.fill_answers.clear();
        self.fatal = false;
        let received: Vec<_> = self.received.drain(..).collect();
        received
            .into_iter()
            .for_each(|packet| self.socket.free(packet));
        for _ in 0..8 {
            self.send();
            let busy = self.socket.retry().unwrap();
            let kernel = self.kernel();
            if !kernel.wants_wakeup[1] {
                kernel.poll(usize::MAX);
            }
            kernel.complete(usize::MAX);
            self.receive();
            let received: Vec<_> = self.received.drain(..).collect();
            received
                .into_iter()
                .for_each(|packet| self.socket.free(packet));
            self.check();
            if self.queue.is_empty() && self.socket.in_flight() == 0 && !busy {
                break;
            }
        }
        let census = self.kernel().census();
        assert_eq!(
            (self.queue.len(), self.socket.in_flight()),
            (0, 0),
            "{census:?}"
        );
        assert_eq!(sent(&mut self.socket), (0..self.queued).collect::<Vec<_>>());
        assert_eq!(census.fill, FRAMES as usize / 2, "{census:?}");
        assert_eq!(census.free, FRAMES as usize / 2, "{census:?}");
        let number = self.arrived.to_be_bytes();
        assert!(
            self.kernel().arrive(&number),
            "the driver has not heard of the fill ring"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn frames_are_conserved_in_any_order_of_answers(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        world.check();
        for step in &steps {
            world.take(step);
            world.check();
        }
        if !world.gone {
            world.recovers();
        }
    }
}
