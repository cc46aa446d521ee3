//! What the figures were measured on.

use std::fs;
use std::thread;

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
        native: cfg!(target_feature = "avx2"),
    }
}

/// Keeps this thread on the last core, away from where interrupts usually are.
pub fn stay_on_one_core() {
    let core = core_affinity::get_core_ids().and_then(|cores| cores.last().copied());
    if !core.is_some_and(core_affinity::set_for_current) {
        eprintln!("cannot stay on one core: figures will be less steady");
    }
}

/// Lets a thread that inherited the above run anywhere, as thread `number` of several.
pub fn go_to_core(number: usize) {
    if let Some(cores) = core_affinity::get_core_ids()
        && let Some(core) = cores.get(number % cores.len().max(1))
    {
        core_affinity::set_for_current(*core);
    }
}

/// Resident memory of this process, in bytes; 0 if `/proc` does not say.
#[must_use]
pub fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|text| text.trim().strip_suffix("kB"))
        .and_then(|text| text.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}
