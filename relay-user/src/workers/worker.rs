//! A worker: one thread, one port, one pipeline.
//!
//! It works as long as anything is there and sleeps otherwise; it never waits for a batch
//! to fill. What comes from other threads is looked at before each batch: a session that
//! the control plane has installed is there before the first datagram under it.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use mio::{Events, Poll, Token, Waker};
use mixline_relay_engine::messages::Command;
use mixline_relay_engine::outcome::Outcome;
use mixline_relay_engine::pipeline::{Behaviour, Pipeline};
use mixline_relay_engine::queues::WorkerQueues;

use super::statistics::{Stay, WorkerStatistics};
use super::wake::EventWaker;
use crate::port::{Dropped, FIRST_PORT_TOKEN, Port};

/// The token of what wakes the worker.
const WAKER: Token = Token(0);
const _: () = assert!(WAKER.0 < FIRST_PORT_TOKEN);
/// How often a worker asks its port, and how many datagrams it takes, before it looks at the clock and at what is
/// held.
const POLLS: usize = 32;
const TAKEN: usize = POLLS * mixline_relay_engine::batch::BATCH;
/// How long a worker sleeps when nothing is held.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How long a worker goes on working off what arrives, once it is to stop.
const DRAIN: Duration = Duration::from_millis(500);

/// A worker that has not been started.
pub struct Worker<B> {
    /// Its pipeline.
    pub pipeline: Pipeline<B>,
    /// Its port.
    pub port: Box<dyn Port>,
    /// Its queues.
    pub queues: WorkerQueues,
    /// Where it shows what it does.
    pub statistics: Arc<WorkerStatistics>,
    /// The core it stays on, if on one.
    pub core: Option<CoreId>,
}

impl<B: Behaviour> Worker<B> {
    /// Starts the worker's thread. It ends after [`Command::Stop`], or when the control
    /// plane is gone; with an error if it cannot go on.
    ///
    /// # Errors
    /// If the system has no epoll instance, eventfd or thread to give.
    pub fn start(mut self, number: usize) -> io::Result<JoinHandle<io::Result<()>>> {
        let poll = Poll::new()?;
        self.port.register(poll.registry())?;
        self.queues
            .waker
            .set(EventWaker(Waker::new(poll.registry(), WAKER)?));
        thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                if let Some(core) = self.core
                    && !core_affinity::set_for_current(core)
                {
                    tracing::warn!(worker = number, core = core.id, "cannot stay on its core");
                }
                self.run(poll)
            })
    }

    fn run(mut self, mut poll: Poll) -> io::Result<()> {
        self.statistics.runs_here();
        let mut events = Events::with_capacity(16);
        let mut stay = Stay::default();
        let mut dropped = Dropped::default();
        let mut stop = false;
        while !stop {
            let mut worked = self.read_queues(Instant::now(), &mut stop);
            worked |= self.poll_port(&mut stay, &mut stop);
            self.pipeline.tick(Instant::now());
            worked |= self.process_again();
            self.count_dropped(&mut dropped);
            self.statistics.show(&self.pipeline);
            if !worked && !stop {
                self.sleep(&mut poll, &mut events)?;
            }
        }
        self.drain(&mut stay);
        self.count_dropped(&mut dropped);
        self.statistics.show(&self.pipeline);
        Ok(())
    }

    /// Takes what other threads have sent; true if there was anything.
    fn read_queues(&mut self, now: Instant, stop: &mut bool) -> bool {
        let mut worked = read_commands(&self.queues, &mut self.pipeline, stop);
        while let Ok(opened) = self.queues.opened.try_recv() {
            self.pipeline.take_opened(opened, now);
            worked = true;
        }
        // One batch at a time, so that a flood that came to the wrong worker does not
        // keep this one from its port.
        for _ in 0..mixline_relay_engine::batch::BATCH {
            let Some(handover) = self.queues.handovers.pop() else {
                break;
            };
            self.pipeline.take_over(handover);
            worked = true;
        }
        worked | self.process_again()
    }

    /// Sends datagrams that have come back into the pipeline.
    fn process_again(&mut self) -> bool {
        let Self {
            pipeline,
            port,
            statistics,
            ..
        } = self;
        let mut worked = false;
        while again(pipeline, port.as_mut(), statistics, Instant::now()) {
            worked = true;
        }
        worked
    }

    /// Takes batches from the port; true if there were any.
    fn poll_port(&mut self, stay: &mut Stay, stop: &mut bool) -> bool {
        let Self {
            pipeline,
            port,
            queues,
            statistics,
            ..
        } = self;
        let mut taken = 0;
        for poll in 0..POLLS {
            let result = port.poll(&mut |batch| {
                read_commands(queues, pipeline, stop);
                let now = Instant::now();
                pipeline.process(batch, now);
                stay.add(batch, now);
                statistics.received(batch);
            });
            // The one reading of the clock for a batch says when it was sent, and what time it is
            // for what has come back.
            let mut now = Instant::now();
            stay.end(statistics, now);
            match result {
                Ok(0) => return poll > 0,
                Ok(count) => taken += count,
                Err(error) => {
                    tracing::warn!(%error, "cannot receive");
                    return poll > 0;
                }
            }
            while again(pipeline, port.as_mut(), statistics, now) {
                now = Instant::now();
            }
            if taken >= TAKEN {
                break;
            }
        }
        true
    }

    fn sleep(&mut self, poll: &mut Poll, events: &mut Events) -> io::Result<()> {
        self.queues.waker.set_asleep();
        let until = self.pipeline.wake_at();
        let longest = until.map_or(LONGEST_SLEEP, |at| {
            at.saturating_duration_since(Instant::now())
                .min(LONGEST_SLEEP)
        });
        let longest = if self.queues.is_empty() {
            longest
        } else {
            Duration::ZERO
        };
        let result = poll.poll(events, Some(longest));
        self.queues.waker.set_awake();
        match result {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in events.iter() {
            if event.token().0 >= FIRST_PORT_TOKEN {
                self.port.ready(event);
            }
        }
        Ok(())
    }

    /// Sends all that is under way: what waits in the port, in queues, for its delay.
    fn drain(&mut self, stay: &mut Stay) {
        let end = Instant::now() + DRAIN;
        let mut stop = false;
        loop {
            let worked =
                self.read_queues(Instant::now(), &mut stop) | self.poll_port(stay, &mut stop);
            if !worked || Instant::now() >= end {
                break;
            }
        }
        self.pipeline.flush();
        self.process_again();
    }

    fn count_dropped(&mut self, before: &mut Dropped) {
        let now = self.port.dropped();
        if now != *before {
            self.pipeline
                .count(Outcome::WrongLength, now.wrong_length - before.wrong_length);
            self.pipeline
                .count(Outcome::SendFailed, now.unsent - before.unsent);
            *before = now;
        }
    }
}

/// Sends a batch of datagrams that have come back; false if there were none.
fn again<B: Behaviour>(
    pipeline: &mut Pipeline<B>,
    port: &mut dyn Port,
    statistics: &WorkerStatistics,
    now: Instant,
) -> bool {
    pipeline.process_again(now, |batch| {
        port.send(batch);
        let sent = Instant::now();
        statistics.sent(batch);
        // Each was held for a time of its own.
        for slot in batch
            .slots
            .iter()
            .filter(|slot| slot.destination().is_some())
        {
            let since = slot.since.unwrap_or(now);
            statistics
                .inside
                .record(sent.saturating_duration_since(since), 1);
        }
    })
}

/// Does what the control plane says; true if it said anything.
fn read_commands<B: Behaviour>(
    queues: &WorkerQueues,
    pipeline: &mut Pipeline<B>,
    stop: &mut bool,
) -> bool {
    let mut worked = false;
    loop {
        match queues.commands.try_recv() {
            Ok(Command::Stop) => *stop = true,
            Ok(command) => pipeline.apply(command),
            Err(crossbeam::channel::TryRecvError::Empty) => return worked,
            Err(crossbeam::channel::TryRecvError::Disconnected) => {
                *stop = true;
                return worked;
            }
        }
        worked = true;
    }
}

#[cfg(test)]
mod tests {
    use mixline_protocol::identity::ShortId;
    use mixline_protocol::random::OsRandom;
    use mixline_protocol::replay::ReplayFilter;
    use mixline_protocol::size::DATAGRAM;
    use mixline_relay_engine::pipeline::{Common, Honest, Setup};
    use mixline_relay_engine::wake::NeverSleeps;

    use super::*;
    use crate::port::MemoryPort;

    #[test]
    fn a_worker_takes_what_its_port_has_and_ends_when_it_is_told_to() {
        let mut rng = OsRandom::new();
        let replay = ReplayFilter::new(1 << 16, [1; 16], Instant::now()).unwrap();
        let own = ShortId([1; 8]);
        let mut assembly = Common::assemble(own, Arc::new(replay), 1, false, Arc::new(NeverSleeps));
        let setup = Setup {
            worker: 0,
            paths: 8,
            mean_delay: None,
            behaviour: Honest,
        };
        let mut port = MemoryPort::default();
        let source = ([192, 0, 2, 1], 7000).into();
        // More than a batch, and of no type that there is.
        port.input.extend(vec![([0; DATAGRAM], source); 100]);
        let statistics = Arc::new(WorkerStatistics::default());
        let worker = Worker {
            pipeline: Pipeline::new(Arc::clone(&assembly.common), setup, &mut rng),
            port: Box::new(port),
            queues: assembly.workers.remove(0),
            statistics: Arc::clone(&statistics),
            core: None,
        };
        let thread = worker.start(0).unwrap();
        let handle = &assembly.common.workers[0];
        handle.commands.send(Command::Stop).unwrap();
        handle.waker.wake();
        thread.join().unwrap().unwrap();
        assert_eq!(statistics.counters().of(Outcome::Malformed), 100);
        assert_eq!(statistics.traffic(), (100, 0));
        // What does not leave has no time inside.
        assert_eq!(statistics.inside.counts().count(), 0);
    }
}
