//! What the figures were measured on.

use std::fs;
use std::thread;
use std::time::SystemTime;

use serde::Serialize;

/// The machine and the build.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// The processor, as it calls itself.
    pub processor: String,
    /// How many there are for this program.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Instructions for cryptography that the processor has.
    pub instructions: Vec<&'static str>,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Processes that ran or waited to run, on average over the minute before.
    pub load: Option<f64>,
    /// When, in UTC.
    pub at: String,
    /// Whether the program was built for some processor's instructions and not for all.
    pub native: bool,
}

/// Describes this machine, as far as `/proc` says.
#[must_use]
pub fn describe() -> Machine {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let flags = field("flags").unwrap_or_default();
    let instructions = [
        "aes",
        "pclmulqdq",
        "vaes",
        "vpclmulqdq",
        "avx2",
        "avx512f",
        "sha_ni",
    ];
    Machine {
        processor: field("model name").unwrap_or_else(|| "unknown".into()),
        cores: thread::available_parallelism().map_or(1, usize::from),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or_else(|_| "unknown".into(), |text| text.trim().to_owned()),
        instructions: instructions
            .into_iter()
            .filter(|name| flags.split_whitespace().any(|flag| flag == *name))
            .collect(),
        memory_bytes: bytes_in("/proc/meminfo", "MemTotal:").unwrap_or(0),
        load: load(),
        at: httpdate::fmt_http_date(SystemTime::now()),
        native: is_native(),
    }
}

fn load() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Whether the program was built for one kind of processor and not for all.
#[must_use]
pub fn is_native() -> bool {
    cfg!(target_feature = "avx2")
}

/// Keeps this thread on the last core, away from where interrupts usually are.
pub fn stay_on_one_core() {
    let core = core_affinity::get_core_ids().and_then(|cores| cores.last().copied());
    if !core.is_some_and(core_affinity::set_for_current) {
        eprintln!("cannot stay on one core: figures will be less steady");
    }
}

/// Resident memory of this process, in bytes; 0 if `/proc` does not say.
#[must_use]
pub fn resident() -> u64 {
    bytes_in("/proc/self/status", "VmRSS:").unwrap_or(0)
}

/// Memory that can be had without swapping, in bytes, if `/proc` says.
#[must_use]
pub fn available() -> Option<u64> {
    bytes_in("/proc/meminfo", "MemAvailable:")
}

/// A line such as `VmRSS:  1234 kB` of a file in `/proc`.
fn bytes_in(file: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
