//! The XDP programs of the benchmarks, loaded into the kernel and driven from here.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData, PerCpuArray, XskMap};
use aya::programs::xdp::XdpMode;
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use mixline_testnet::netns::ip;
use nix::time::{ClockId, clock_gettime};

use super::abi::{
    self, DUE, FLOOD, FLOODED, FRAME, Frame, HONEST, INTERVAL, NEXT, Settings, State,
};

/// The programs as the build left them; empty when this machine could not build them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mixline-bench-xdp"));

/// Frames that the kernel makes before it lets them go.
const BATCH: u32 = 64;
/// Frames of one call.
const CALL: u32 = 64 * BATCH;

/// The same of a steady load: at most so many leave together that are due one by one. Letting single frames go costs the
/// generator so much that it falls behind before a relay does: at 300,000 a second where the kernel merges them.
pub const BURST: u32 = 8;
/// Frames of one call of a steady load, most of which are not due and are not sent. Between calls the generator stands
/// still, so that some frames are late after it.
const STEADY_CALL: u32 = 1 << 18;

/// The interface that nothing goes over.
const PARK: &str = "park";

/// The programs, loaded.
pub struct Generator {
    ebpf: Ebpf,
    frames: Array<MapData, Frame>,
    garbage: Array<MapData, Frame>,
    settings: Array<MapData, Settings>,
    state: Array<MapData, State>,
    counts: PerCpuArray<MapData, u64>,
}

/// Whether the programs were built; if not, the error says what to do.
///
/// # Errors
/// If they were not.
pub fn is_built() -> Result<()> {
    ensure!(
        !OBJECT.is_empty() && mixline_xdp::Program::is_built(),
        "built without the XDP programs: run `cargo xtask setup` and build again"
    );
    Ok(())
}

fn load(frames: u32, garbage: u32) -> Result<Ebpf> {
    is_built()?;
    EbpfLoader::new()
        .map_max_entries("FRAMES", frames.max(1))
        .map_max_entries("GARBAGE", garbage.max(1))
        .load(OBJECT)
        .context("the kernel refuses the XDP programs of the benchmarks: they need root")
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name).context("no such program")?;
    Ok(program.try_into()?)
}

fn map<T>(ebpf: &mut Ebpf, name: &str) -> Result<T>
where
    T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    Ok(ebpf.take_map(name).context("no such map")?.try_into()?)
}

/// Has an interface give all datagrams to a socket. Stops when what is returned is dropped.
///
/// # Errors
/// Of the kernel.
pub fn divert(interface: &str, socket: &impl AsRawFd) -> Result<Ebpf> {
    let mut ebpf = load(1, 1)?;
    let program = program(&mut ebpf, "divert")?;
    program.load()?;
    program.attach(interface, XdpMode::Driver)?;
    let mut sockets: XskMap<_> = map(&mut ebpf, "SOCKETS")?;
    sockets.set(0, socket.as_raw_fd(), 0)?;
    // The program keeps the map.
    Ok(ebpf)
}

/// What a run of the generator has sent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sent {
    /// Honest frames.
    pub honest: u64,
    /// Frames of a flood.
    pub flooded: u64,
}

impl Generator {
    /// Loads the programs for the namespace of this thread, with room for so many honest frames
    /// and frames of a flood.
    ///
    /// # Errors
    /// Of the kernel, above all without root's rights; or if the programs were not built.
    pub fn load(frames: u32, garbage: u32) -> Result<Self> {
        let mut ebpf = load(frames, garbage)?;
        // Loaded first: the programs refer to their maps by descriptors that must still be open.
        let generate = program(&mut ebpf, "generate")?;
        generate.load()?;
        // A program that is attached nowhere enters the kernel's dispatcher of XDP programs for
        // each call and leaves it afterwards, and both wait for all CPUs (bpf_prog_change_xdp,
        // kernel/bpf/dispatcher.c): 20 ms and more. So it is attached where nothing comes by.
        ip(&format!(
            "link add {PARK} type veth peer name {PARK}-peer\n"
        ))?;
        generate.attach(PARK, XdpMode::Driver)?;
        program(&mut ebpf, "count")?.load()?;
        Ok(Self {
            frames: map(&mut ebpf, "FRAMES")?,
            garbage: map(&mut ebpf, "GARBAGE")?,
            settings: map(&mut ebpf, "SETTINGS")?,
            state: map(&mut ebpf, "STATE")?,
            counts: map(&mut ebpf, "COUNTS")?,
            ebpf,
        })
    }

    /// Counts what comes back over an interface of this namespace.
    ///
    /// In the generic path: a program in the driver of a veth takes the other end's segmentation
    /// offload away (veth_xdp_set), which network cards have.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn count_on(&mut self, interface: &str) -> Result<()> {
        program(&mut self.ebpf, "count")?
            .attach(interface, XdpMode::Skb)
            .with_context(|| format!("counting on {interface}"))?;
        Ok(())
    }

    /// Whether what comes back goes on to the sockets of this namespace, uncounted, until
    /// [`Self::run`] is called.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn let_through(&mut self, yes: bool) -> Result<()> {
        let mut settings = Settings::default();
        settings[abi::LET_THROUGH] = yes.into();
        Ok(self.settings.set(0, settings, 0)?)
    }

    /// Sets an honest frame.
    ///
    /// # Errors
    /// If there is no room for so many.
    pub fn set(&mut self, at: u32, frame: &Frame) -> Result<()> {
        Ok(self.frames.set(at, frame, 0)?)
    }

    /// Sets a frame of the flood.
    ///
    /// # Errors
    /// If there is no room for so many.
    pub fn set_flood(&mut self, at: u32, frame: &Frame) -> Result<()> {
        Ok(self.garbage.set(at, frame, 0)?)
    }

    /// How many datagrams came back from a relay, to each of its neighbours.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn returned(&self, relay: u8) -> Result<Vec<u64>> {
        let first = u32::from(relay) % abi::RELAYS * abi::NEIGHBOURS;
        (first..first + abi::NEIGHBOURS)
            .map(|at| Ok(self.counts.get(&at, 0)?.iter().sum()))
            .collect()
    }

    /// Sends honest frames from number `first` on, evenly and in [small bursts](BURST), until all are sent or the time
    /// is over: how many, and in what time.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn run_steadily(
        &mut self,
        settings: Settings,
        first: u64,
        longest: Duration,
    ) -> Result<(u64, Duration)> {
        let mut state = State::default();
        let began = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        state[NEXT] = first;
        state[DUE] = u64::try_from(began.as_nanos())?;
        self.settings.set(0, settings, 0)?;
        self.state.set(0, state, 0)?;
        let until = Instant::now() + longest;
        loop {
            self.call(BURST, STEADY_CALL)?;
            let now = self.state.get(&0, 0)?;
            if now[NEXT] >= settings[HONEST] || Instant::now() >= until {
                // When the next one would be due.
                let took = Duration::from_nanos(now[DUE].saturating_sub(state[DUE]));
                return Ok((now[NEXT] - first, took));
            }
        }
    }

    /// Has the kernel make so many frames, in batches.
    fn call(&mut self, batch: u32, frames: u32) -> Result<()> {
        let template = [0; FRAME];
        let options = TestRunOptions {
            data_in: Some(&template),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(batch),
            ..TestRunOptions::new()
        };
        program(&mut self.ebpf, "generate")?.test_run(options)?;
        Ok(())
    }

    /// Sends until all honest frames are sent or the time is over; `observe` is called in between,
    /// some hundred times a second, with what was sent so far.
    ///
    /// # Errors
    /// Of the kernel, or of `observe`.
    pub fn run(
        &mut self,
        settings: Settings,
        longest: Duration,
        mut observe: impl FnMut(&Self, Sent) -> Result<()>,
    ) -> Result<Sent> {
        self.settings.set(0, settings, 0)?;
        self.state.set(0, State::default(), 0)?;
        let until = Instant::now() + longest;
        loop {
            self.call(BATCH, CALL)?;
            let state = self.state.get(&0, 0)?;
            let sent = Sent {
                honest: state[NEXT],
                flooded: state[FLOODED],
            };
            observe(self, sent)?;
            if sent.honest >= settings[HONEST] || Instant::now() >= until {
                return Ok(sent);
            }
        }
    }
}

/// What tells the generator to send over a device of this index.
#[must_use]
pub fn settings(device: u32, interval: Duration, honest: u32, flood: u32) -> Settings {
    let mut settings = Settings::default();
    settings[abi::DEVICE] = device.into();
    settings[INTERVAL] = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
    settings[HONEST] = honest.into();
    settings[FLOOD] = flood.into();
    settings
}
