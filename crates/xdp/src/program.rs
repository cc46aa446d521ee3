//! The XDP program: loaded, told what is ours, attached, and read.

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::xdp::{XdpLinkId, XdpMode};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use mixline_relay_common::bucket::{Bucket, Limit};
use mixline_relay_common::maps::{
    Address, GENERATIONS, MODE_FILTER, MODE_REDIRECT, Settings, mapped,
};
use mixline_relay_common::tag_filter::Block;
use mixline_relay_common::verdict::{Verdict, counter};

use crate::card::Card;
use crate::error::{Error, LoadError, MapFault, Result};
use crate::program_log::ProgramLog;
use crate::tag_filter::TagFilter;

/// The program as the build left it; empty when this machine could not build it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mixline-relay-xdp"));

/// Initiations that one source may send: a client opens a link to a guard once in
/// two minutes, and tries again every five seconds.
const PER_SOURCE: Limit = Limit { rate: 4, burst: 64 };
/// Initiations of all sources. A worker answers some 4,000 a second; what is over
/// this would only fill the queue before it.
const TOTAL: Limit = Limit {
    rate: 20_000,
    burst: 20_000,
};

/// Initiations of a /24 or a /48, and of a /16 or a /32: a sixteenth and a quarter of those of all.
const PER_NETWORK: [Limit; 2] = [part(TOTAL, 16), part(TOTAL, 4)];
/// The same of path probes.
const PROBES_PER_NETWORK: [Limit; 2] = [part(PROBES_TOTAL, 16), part(PROBES_TOTAL, 4)];

const fn part(whole: Limit, of: u32) -> Limit {
    Limit {
        rate: whole.rate / of,
        burst: whole.burst / of,
    }
}

/// Path probes of one source: as many as a relay answers.
const PROBES_PER_SOURCE: Limit = Limit {
    rate: 50,
    burst: 100,
};
/// Path probes of all sources: some times as many as a relay answers, since it finds out only later
/// which of them are under a right MAC. Two milliseconds of its control plane.
const PROBES_TOTAL: Limit = Limit {
    rate: 2_000,
    burst: 2_000,
};

/// Answers to one handshake of ours. One is right, a cookie may come before it. Somebody who has seen the index
/// forges others, and would keep the right one out of a narrow bucket with a few; each costs the control
/// plane a look-up and one HMAC.
const PER_ANSWER: Limit = Limit {
    rate: 1_000,
    burst: 256,
};

/// What is to our port and cannot be read, of one source: fragments of somebody behind a narrow path,
/// 1.4 MB a second.
const UNREAD_PER_SOURCE: Limit = Limit {
    rate: 1_000,
    burst: 1_000,
};
/// The same of all sources: a tenth of the initiations that pass.
const UNREAD_TOTAL: Limit = Limit {
    rate: 2_000,
    burst: 2_000,
};

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodBucket(Bucket);
// SAFETY: `repr(C)` integers without padding; the size is asserted next to the type.
unsafe impl Pod for PodBucket {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodSettings(Settings);
// SAFETY: `repr(C)` integers without padding; the size is asserted next to the type.
unsafe impl Pod for PodSettings {}

/// What the program is told before it is attached.
#[derive(Debug, Clone)]
pub struct ProgramConfig {
    /// Our UDP port.
    pub port: u16,
    /// Our addresses.
    pub addresses: Vec<IpAddr>,
    /// Data goes to AF_XDP sockets if true; if not, to the kernel's UDP sockets once the program
    /// has let it through.
    pub redirect: bool,
    /// Frames to AF_XDP sockets get a time stamp, which [`Packet::take_stamp`](crate::Packet::take_stamp) takes.
    pub stamps: bool,
    /// Bytes of the replay filter, both generations; rounded down to a power of two.
    pub filter_bytes: usize,
    /// The secret of the replay filter.
    pub filter_key: [u64; 2],
}

/// How the program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// In the driver.
    Native,
    /// In the kernel's generic path, after an skb has been made: slower.
    Generic,
}

impl std::fmt::Display for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// A loaded program. Dropping it detaches it; the kernel does the same when the process
/// dies, since the attachment is a BPF link that the process holds.
pub struct Program {
    /// The card that it is for.
    card: Card,
    ebpf: Ebpf,
    sockets: XskMap<MapData>,
    filter: TagFilter,
    sessions: Sessions,
    array: Array<MapData, PodSettings>,
    settings: Settings,
    log: Option<ProgramLog>,
    /// Its attachment, while it has one.
    link: Option<XdpLinkId>,
    /// Queues with a socket: all below this number.
    queues: u32,
}

impl Program {
    /// Whether this relay was built with the program.
    #[must_use]
    pub fn is_built() -> bool {
        !OBJECT.is_empty()
    }

    /// Makes the kernel verify the program, with the smallest maps, and lets it go again. The
    /// program must have been [built](Self::is_built).
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn verify() -> std::result::Result<(), LoadError> {
        loaded(1, false).map(drop)
    }

    /// Loads the program for a card, and tells it what is ours. It is not attached yet.
    ///
    /// # Errors
    /// [`Error::NotBuilt`], [`Error::Load`] or [`Error::Map`].
    pub fn load(card: Card, config: &ProgramConfig) -> Result<Self> {
        if !Self::is_built() {
            return Err(Error::NotBuilt);
        }
        let blocks = (config.filter_bytes / size_of::<Block>() / GENERATIONS as usize).max(1);
        let blocks = u32::try_from(1usize << blocks.ilog2()).unwrap_or(1 << 31);
        let mask = blocks - 1;
        let mut ebpf = match loaded(blocks, config.stamps) {
            Ok(ebpf) => ebpf,
            Err(why) => return Err(Error::Load { card, why }),
        };
        let settings = Settings {
            key: config.filter_key,
            mask,
            mode: if config.redirect {
                MODE_REDIRECT
            } else {
                MODE_FILTER
            },
            port: u32::from(config.port),
            merged: 0,
            per_source: PER_SOURCE,
            total: TOTAL,
            probes_per_source: PROBES_PER_SOURCE,
            probes_total: PROBES_TOTAL,
            per_answer: PER_ANSWER,
            unread_per_source: UNREAD_PER_SOURCE,
            unread_total: UNREAD_TOTAL,
            per_network: PER_NETWORK,
            probes_per_network: PROBES_PER_NETWORK,
        };
        let mut array: Array<_, PodSettings> = map(&mut ebpf, &card, "SETTINGS")?;
        array
            .set(0, PodSettings(settings), 0)
            .map_err(refused(&card, "SETTINGS"))?;
        let mut addresses: HashMap<_, Address, u8> = map(&mut ebpf, &card, "ADDRESSES")?;
        for address in &config.addresses {
            addresses
                .insert(key_of(*address), 1, 0)
                .map_err(refused(&card, "ADDRESSES"))?;
        }
        let sessions = Sessions {
            card: card.clone(),
            maps: Arc::new(Mutex::new(SessionMaps {
                known: map(&mut ebpf, &card, "SESSIONS")?,
                asked: map(&mut ebpf, &card, "ASKED")?,
            })),
        };
        let sockets = map(&mut ebpf, &card, "SOCKETS")?;
        let Some(Map::Array(replay)) = ebpf.map("REPLAY") else {
            return Err(fault(&card, "REPLAY", MapFault::Absent));
        };
        let filter = TagFilter::map(replay.fd(), config.filter_key, mask, Instant::now())
            .map_err(|error| fault(&card, "REPLAY", MapFault::Mapping(error)))?;
        let log = ProgramLog::of(&mut ebpf);
        Ok(Self {
            card,
            log,
            ebpf,
            sockets,
            filter,
            sessions,
            array,
            settings,
            link: None,
            queues: 0,
        })
    }

    /// Attaches to the card: in the driver if it can, in the generic path if not.
    ///
    /// # Errors
    /// [`Error::Attach`] with both reasons if neither goes.
    pub fn attach(&mut self) -> Result<Attached> {
        let native = match self.attach_as(XdpMode::Driver)? {
            Ok(()) => return Ok(Attached::Native),
            Err(error) => error,
        };
        // The generic path sees datagrams merged.
        self.settings.merged = 1;
        self.array
            .set(0, PodSettings(self.settings), 0)
            .map_err(refused(&self.card, "SETTINGS"))?;
        match self.attach_as(XdpMode::Skb)? {
            Ok(()) => Ok(Attached::Generic),
            Err(generic) => Err(Error::Attach {
                card: self.card.clone(),
                native,
                generic,
            }),
        }
    }

    /// Attaches to the card in the driver, which alone serves sockets with zero-copy.
    ///
    /// # Errors
    /// [`Error::NotNative`] if the driver refuses.
    pub fn attach_native(&mut self) -> Result<Attached> {
        match self.attach_as(XdpMode::Driver)? {
            Ok(()) => Ok(Attached::Native),
            Err(why) => Err(Error::NotNative {
                card: self.card.clone(),
                why,
            }),
        }
    }

    /// Attaches in a mode; what the kernel says if it refuses.
    fn attach_as(&mut self, mode: XdpMode) -> Result<std::result::Result<(), Box<ProgramError>>> {
        let program = xdp(&mut self.ebpf).map_err(|why| Error::Load {
            card: self.card.clone(),
            why,
        })?;
        Ok(match program.attach(&self.card.interface, mode) {
            Ok(link) => {
                self.link = Some(link);
                Ok(())
            }
            Err(error) => Err(Box::new(error)),
        })
    }

    /// Sends a queue's data to an AF_XDP socket.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn add_socket(&mut self, queue: u32, socket: &impl AsRawFd) -> Result<()> {
        self.sockets
            .set(queue, socket.as_raw_fd(), 0)
            .map_err(refused(&self.card, "SOCKETS"))?;
        self.queues = self.queues.max(queue + 1);
        Ok(())
    }

    /// The set of indices whose datagrams are let through.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.sessions.clone()
    }

    /// The filter of tags seen before.
    #[must_use]
    pub fn tag_filter(&self) -> TagFilter {
        self.filter.clone()
    }

    /// Writes what the program has logged to this process's log. To be called now and then.
    pub fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Detaches the program: from now on, the kernel gets all frames. Nothing if it is detached.
    ///
    /// # Errors
    /// [`Error::Load`] if the kernel refuses.
    pub fn detach(&mut self) -> Result<()> {
        let Some(link) = self.link.take() else {
            return Ok(());
        };
        let failed = |why| Error::Load {
            card: self.card.clone(),
            why,
        };
        let program = xdp(&mut self.ebpf).map_err(failed)?;
        program
            .detach(link)
            .map_err(|error| failed(LoadError::Program(Box::new(error))))
    }

    /// What the program has counted, over all CPUs.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn counts(&self) -> Result<Counts> {
        let map = self
            .ebpf
            .map("VERDICTS")
            .ok_or_else(|| fault(&self.card, "VERDICTS", MapFault::Absent))?;
        let counters: PerCpuArray<_, u64> =
            map.try_into().map_err(refused(&self.card, "VERDICTS"))?;
        let read = |counter: u32| -> Result<u64> {
            let values = counters
                .get(&counter, 0)
                .map_err(refused(&self.card, "VERDICTS"))?;
            Ok(values.iter().sum())
        };
        let mut verdicts = [0; Verdict::COUNT];
        for (verdict, count) in Verdict::ALL.into_iter().zip(&mut verdicts) {
            *count = read(verdict as u32)?;
        }
        let redirected = (0..self.queues)
            .map(|queue| read(counter::redirected(queue)))
            .collect::<Result<Vec<u64>>>()?;
        verdicts[Verdict::Redirected as usize] = redirected.iter().sum();
        Ok(Counts {
            verdicts,
            redirected,
            large: read(counter::LARGE)?,
            cut: read(counter::CUT)?,
            to_us: read(counter::TO_US)?,
        })
    }
}

/// What the program has counted since it was loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// How often each verdict was given.
    pub verdicts: Verdicts,
    /// Frames redirected to the socket of each queue.
    pub redirected: Vec<u64>,
    /// Frames of others that hold a whole IP packet of full size.
    pub large: u64,
    /// Frames of others to our addresses that end before their IP packet does.
    pub cut: u64,
    /// Frames of others with an IP packet to one of our addresses, and without a VLAN tag.
    pub to_us: u64,
}

/// How often each verdict was given, by its number.
pub type Verdicts = [u64; Verdict::COUNT];

/// The indices of live sessions and of handshakes in flight. The control plane adds one
/// before the first datagram can bear it, and takes it away when the session ends.
#[derive(Clone)]
pub struct Sessions {
    card: Card,
    maps: Arc<Mutex<SessionMaps>>,
}

struct SessionMaps {
    /// All indices.
    known: HashMap<MapData, u32, u8>,
    /// Those of our own handshakes that have no answer yet.
    asked: HashMap<MapData, u32, PodBucket>,
}

impl Sessions {
    /// Lets data with this index through.
    ///
    /// # Errors
    /// [`Error::Map`], also when there are too many.
    pub fn add(&self, index: u32) -> Result<()> {
        let mut maps = self.maps();
        maps.known
            .insert(index, 1, 0)
            .map_err(refused(&self.card, "SESSIONS"))
    }

    /// Lets answers to our handshake of this index through too.
    ///
    /// # Errors
    /// [`Error::Map`], also when there are too many.
    pub fn ask(&self, index: u32) -> Result<()> {
        let mut maps = self.maps();
        maps.asked
            .insert(index, PodBucket(Bucket::default()), 0)
            .map_err(refused(&self.card, "ASKED"))
    }

    /// The handshake of this index is over: no answers to it any more.
    pub fn answered(&self, index: u32) {
        if let Err(e) = self.maps().asked.remove(&index) {
            tracing::trace!(index, "no handshake in the map: {e}");
        }
    }

    /// No longer lets them through. An index that is not there is no error.
    pub fn remove(&self, index: u32) {
        self.answered(index);
        if let Err(e) = self.maps().known.remove(&index) {
            tracing::trace!(index, "session not in the map: {e}");
        }
    }

    fn maps(&self) -> MutexGuard<'_, SessionMaps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address as a key of the maps.
fn key_of(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Loads the program, with this many blocks in a generation of the replay filter, and with or without time stamps.
fn loaded(blocks: u32, stamps: bool) -> std::result::Result<Ebpf, LoadError> {
    let mut ebpf = EbpfLoader::new()
        .map_max_entries("REPLAY", GENERATIONS * blocks)
        .override_global("STAMPS", &u32::from(stamps), true)
        .load(OBJECT)
        .map_err(|error| LoadError::Object(Box::new(error)))?;
    // Before maps are taken out: the program refers to them by descriptors that must be open.
    xdp(&mut ebpf)?
        .load()
        .map_err(|error| LoadError::Program(Box::new(error)))?;
    Ok(ebpf)
}

fn xdp(ebpf: &mut Ebpf) -> std::result::Result<&mut Xdp, LoadError> {
    let program = ebpf.program_mut("mixline").ok_or(LoadError::Absent)?;
    program
        .try_into()
        .map_err(|error| LoadError::Program(Box::new(error)))
}

/// Takes a map out of the loaded object.
fn map<T>(ebpf: &mut Ebpf, card: &Card, name: &'static str) -> Result<T>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = ebpf
        .take_map(name)
        .ok_or_else(|| fault(card, name, MapFault::Absent))?;
    map.try_into().map_err(refused(card, name))
}

/// What to make of an error of a map.
fn refused(card: &Card, map: &'static str) -> impl Fn(MapError) -> Error {
    move |error| fault(card, map, MapFault::Refused(Box::new(error)))
}

fn fault(card: &Card, map: &'static str, why: MapFault) -> Error {
    Error::Map {
        card: card.clone(),
        map,
        why,
    }
}
