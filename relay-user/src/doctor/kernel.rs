//! The kernel: its version, AF_XDP, the compiler for BPF, and whether it takes our program.

use std::fs;
use std::io;
use std::path::Path;

use mixline_xdp::Program;
use socket2::{Domain, Socket, Type};

use super::finding::Finding;
use super::plan::Plan;

/// BPF links of XDP programs, which the kernel detaches whatever way the relay dies, came with
/// Linux 5.9 (commit aa8d3a716b59).
const LINKS: (u32, u32) = (5, 9);
/// UDP GRO, which the UDP port needs, came with Linux 5.0 (commit e20cf8d3f1f7).
const GRO: (u32, u32) = (5, 0);
/// `AF_XDP` of `linux/socket.h`.
const AF_XDP: i32 = 44;

/// The build's XDP program, and the kernel's opinion of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnProgram {
    /// This relay was built without it.
    NotBuilt,
    /// The kernel's verifier took it.
    Loads,
    /// The verifier refused it, or we may not ask; with what the kernel said.
    Refused(String),
}

/// What was seen of the kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// As `uname -r` prints it.
    pub release: String,
    /// Whether an AF_XDP socket can be made; or the error's number.
    pub af_xdp: Result<(), i32>,
    /// `net.core.bpf_jit_enable`; none if there is no such file.
    pub jit: Option<u8>,
    /// Whether the kernel describes its types.
    pub btf: bool,
    /// The XDP program.
    pub program: OwnProgram,
}

impl Kernel {
    /// Looks at the machine. The program is loaded and let go again; it is not attached.
    #[must_use]
    pub fn read() -> Self {
        let text = |path: &str| {
            fs::read_to_string(path)
                .ok()
                .map(|text| text.trim().to_string())
        };
        let af_xdp = match Socket::new(Domain::from(AF_XDP), Type::RAW, None) {
            Ok(_) => Ok(()),
            Err(e) => Err(e.raw_os_error().unwrap_or_default()),
        };
        Self {
            release: text("/proc/sys/kernel/osrelease").unwrap_or_default(),
            af_xdp,
            jit: text("/proc/sys/net/core/bpf_jit_enable").and_then(|text| text.parse().ok()),
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            program: load(),
        }
    }

    /// Compares it with what the relay needs.
    #[must_use]
    pub fn judge(&self, plan: &Plan) -> Vec<Finding> {
        vec![
            self.judge_version(plan),
            self.judge_program(plan),
            self.judge_af_xdp(plan),
            self.judge_jit(plan),
            self.judge_btf(),
        ]
    }

    fn judge_version(&self, plan: &Plan) -> Finding {
        let release = &self.release;
        match version(release) {
            Some(have) if have < GRO => Finding::warning(
                "version",
                format!(
                    "Linux {release} has no GRO for UDP sockets, nor XDP as the relay needs it"
                ),
                format!("a kernel from {}.{} on", LINKS.0, LINKS.1),
            ),
            Some(have) if have < LINKS => plan.lacks(
                "version",
                format!(
                    "Linux {release} does not detach an XDP program of a relay that was killed"
                ),
                &format!("a kernel from {}.{} on, or `port: udp`", LINKS.0, LINKS.1),
            ),
            Some(_) => Finding::ok("version", format!("Linux {release}")),
            None => Finding::ok("version", format!("`{release}`, which says nothing to us")),
        }
    }

    fn judge_program(&self, plan: &Plan) -> Finding {
        match &self.program {
            OwnProgram::Loads => Finding::ok(
                "XDP program",
                "built in, and the kernel's verifier takes it",
            ),
            OwnProgram::NotBuilt => plan.lacks(
                "XDP program",
                "this relay was built without it",
                "`cargo xtask setup && cargo xtask build`, and install that; or `port: udp`",
            ),
            OwnProgram::Refused(why) => plan.lacks(
                "XDP program",
                why.as_str(),
                "run as root, or with the capabilities of the unit mixline-relay.service; or \
                 `port: udp`",
            ),
        }
    }

    fn judge_af_xdp(&self, plan: &Plan) -> Finding {
        let check = "AF_XDP sockets";
        match self.af_xdp {
            Ok(()) => Finding::ok(check, "can be made"),
            Err(number) if !plan.redirects() => Finding::ok(
                check,
                format!(
                    "cannot be made ({}); not needed with this port",
                    said(number)
                ),
            ),
            Err(nix::libc::EPERM | nix::libc::EACCES) => plan.lacks(
                check,
                "not permitted",
                "run as root, or with CAP_NET_RAW; or `port: xdp-filter`",
            ),
            Err(number) => plan.lacks(
                check,
                format!("cannot be made: {}", said(number)),
                "a kernel with CONFIG_XDP_SOCKETS=y; or `port: xdp-filter`",
            ),
        }
    }

    fn judge_jit(&self, plan: &Plan) -> Finding {
        let check = "BPF JIT";
        match self.jit {
            Some(0) => {
                let found = "off: the XDP program is interpreted, several times slower";
                match plan.need() {
                    super::plan::Need::No => Finding::ok(check, "off; not needed"),
                    _ => Finding::warning(check, found, "sysctl -w net.core.bpf_jit_enable=1"),
                }
            }
            Some(_) => Finding::ok(check, "on"),
            None => Finding::ok(check, "this kernel does not say"),
        }
    }

    fn judge_btf(&self) -> Finding {
        let found = if self.btf {
            "the kernel describes its types"
        } else {
            "not there (CONFIG_DEBUG_INFO_BTF): the relay does not need it, tools like bpftool do"
        };
        Finding::ok("BTF", found)
    }
}

/// What an error's number means.
fn said(number: i32) -> String {
    io::Error::from_raw_os_error(number).to_string()
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Makes the kernel verify the program.
fn load() -> OwnProgram {
    if !Program::is_built() {
        return OwnProgram::NotBuilt;
    }
    match Program::verify() {
        Ok(()) => OwnProgram::Loads,
        Err(error) => OwnProgram::Refused(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PortKind;
    use crate::doctor::finding::Level;
    use crate::doctor::plan::tests::plan;

    fn good() -> Kernel {
        Kernel {
            release: "6.18.44-fc".into(),
            af_xdp: Ok(()),
            jit: Some(1),
            btf: true,
            program: OwnProgram::Loads,
        }
    }

    fn levels(kernel: &Kernel, port: PortKind) -> Vec<Level> {
        kernel.judge(&plan(port)).iter().map(|f| f.level).collect()
    }

    #[test]
    fn a_good_kernel() {
        assert_eq!(levels(&good(), PortKind::Xdp), [Level::Ok; 5]);
    }

    #[test]
    fn versions() {
        assert_eq!(version("5.9.0-rc1"), Some((5, 9)));
        assert_eq!(version("6.1"), Some((6, 1)));
        assert_eq!(version("linux"), None);
        let of = |release: &str, port| {
            let kernel = Kernel {
                release: release.into(),
                ..good()
            };
            levels(&kernel, port)[0]
        };
        assert_eq!(of("5.8.18", PortKind::Xdp), Level::Problem);
        assert_eq!(of("5.8.18", PortKind::Udp), Level::Ok);
        assert_eq!(of("5.10.0", PortKind::Xdp), Level::Ok);
        assert_eq!(of("4.19.0", PortKind::Udp), Level::Warning);
    }

    #[test]
    fn what_xdp_lacks() {
        let without = Kernel {
            program: OwnProgram::NotBuilt,
            af_xdp: Err(nix::libc::EAFNOSUPPORT),
            jit: Some(0),
            btf: false,
            ..good()
        };
        use Level::{Ok, Problem, Warning};
        assert_eq!(
            levels(&without, PortKind::Xdp),
            [Ok, Problem, Problem, Warning, Ok]
        );
        assert_eq!(
            levels(&without, PortKind::Auto),
            [Ok, Warning, Warning, Warning, Ok]
        );
        assert_eq!(
            levels(&without, PortKind::XdpFilter),
            [Ok, Problem, Ok, Warning, Ok]
        );
        assert_eq!(levels(&without, PortKind::Udp), [Ok; 5]);
    }

    #[test]
    fn a_missing_permission_is_told_from_a_missing_feature() {
        let change = |number| {
            let kernel = Kernel {
                af_xdp: Err(number),
                ..good()
            };
            kernel.judge(&plan(PortKind::Xdp))[2]
                .change
                .clone()
                .unwrap_or_default()
        };
        assert!(change(nix::libc::EPERM).contains("CAP_NET_RAW"));
        assert!(change(nix::libc::EAFNOSUPPORT).contains("CONFIG_XDP_SOCKETS"));
    }
}
