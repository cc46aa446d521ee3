//! `cargo xtask setup`: what the demo, the tests and the benchmarks run besides the project's own
//! programs, from Debian's packages.
//!
//! No service is started, neither now nor at the next boot, that did not run before: web and ssh
//! servers are only used inside namespaces, with configurations of their own.

use crate::{dependencies, packaging_tools, privileges, run, xdp_tools};
use anyhow::{Context, Result, bail};
use mixline_machines::archive::Archive;
use mixline_testnet::netns::system_path;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Something that must be there.
struct Need {
    /// The Debian package that has it.
    package: &'static str,
    /// The program on the path by which one sees that it is there.
    program: &'static str,
    /// What it is for.
    purpose: &'static str,
}

const NEEDS: &[Need] = &[
    need("build-essential", "cc", "compiles and links"),
    need(
        "iproute2",
        "ip",
        "makes the namespaces and the wires between them",
    ),
    need(
        "util-linux",
        "setpriv",
        "ends programs with the network that started them",
    ),
    need("ethtool", "ethtool", "switches offloads of wires"),
    need(
        "nginx-light",
        "nginx",
        "is the web server behind freespeech.anon",
    ),
    need("curl", "curl", "fetches through the network"),
    need("iputils-ping", "ping", "pings through it"),
    need("openssh-client", "ssh", "logs in through it"),
    need("openssh-server", "sshd", "is what ssh logs in to"),
    need("iperf3", "iperf3", "measures TCP and UDP through it"),
    need("bind9-dnsutils", "dig", "asks for .anon names in tests"),
    need("tcpdump", "tcpdump", "captures on every wire in tests"),
    need("g++", "c++", "compiles the library of the fuzz targets"),
];

/// What tests run beside that, and the demo does not.
const FOR_TESTS: &[Need] = &[
    need(
        "faketime",
        "faketime",
        "shows a program another wall clock in tests",
    ),
    need("nftables", "nft", "changes packet filters in tests"),
    need("prometheus", "promtool", "reads a relay's metrics in tests"),
    need("tmux", "tmux", "is the terminal of `top` in tests"),
    need(
        "dnsmasq-base",
        "dnsmasq",
        "is the name server of a host in tests",
    ),
    need("wireguard-go", "wireguard-go", "is a VPN in tests"),
    need("wireguard-tools", "wg-quick", "brings it up as people do"),
    need("procps", "sysctl", "sets a host's forwarding in tests"),
    need("e2fsprogs", "chattr", "makes a file immutable in tests"),
    need(
        "etcd-server",
        "etcd",
        "keeps the records of a directory with several front ends in tests",
    ),
];
/// What makes the project's own packages, besides what is in [`NEEDS`].
const PACKAGING: &[Need] = &[need("lintian", "lintian", "looks for faults in packages")];

/// Packages that bring a system service, and the service's name.
const SERVICES: &[(&str, &str)] = &[
    ("nginx-light", "nginx"),
    ("openssh-server", "ssh"),
    ("iperf3", "iperf3"),
    ("prometheus", "prometheus"),
    ("etcd-server", "etcd"),
    ("tor", "tor"),
];

/// What only benchmarks use, and what they do without.
const FOR_BENCHMARKS: &[Need] = &[need(
    "tor",
    "tor",
    "is what `bench path` compares with, on a private network",
)];

const fn need(package: &'static str, program: &'static str, purpose: &'static str) -> Need {
    Need {
        package,
        program,
        purpose,
    }
}

impl Need {
    fn is_there(&self) -> bool {
        std::env::split_paths(&system_path()).any(|path| path.join(self.program).is_file())
    }
}

/// What `cargo xtask setup` takes.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only say what is there and what is missing; exit 1 if something is.
    #[arg(long)]
    check: bool,
    /// Install also what only benchmarks use, and do without: tor.
    #[arg(long)]
    benchmarks: bool,
    /// Only install these packages (for the second half, under sudo).
    #[arg(long, hide = true, value_delimiter = ',')]
    install: Vec<String>,
    /// And these, where Debian has them.
    #[arg(long, hide = true, value_delimiter = ',')]
    optional: Vec<String>,
}

/// What a machine is set up for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The demo on UDP sockets.
    Demo,
    /// The demo on XDP, where its tools are to be had.
    DemoXdp,
    /// All of it: tests, benchmarks, the XDP program.
    All,
    /// All, and what makes packages.
    Packages,
    /// All, what makes packages, and what checks a change.
    Ci,
}

impl Purpose {
    /// What must be there.
    fn needs(self) -> impl Iterator<Item = &'static Need> {
        let more = match self {
            Self::Demo | Self::DemoXdp => [&[][..], &[]],
            Self::All => [FOR_TESTS, &[]],
            Self::Packages => [PACKAGING, &[]],
            Self::Ci => [FOR_TESTS, PACKAGING],
        };
        NEEDS.iter().chain(more.into_iter().flatten())
    }
}

/// Runs `cargo xtask setup`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let done = if !arguments.install.is_empty() || !arguments.optional.is_empty() {
        install(&arguments.install, &arguments.optional)?;
        true
    } else if arguments.check {
        check()
    } else {
        if arguments.benchmarks {
            ensure_for_benchmarks()?;
        }
        ensure(Purpose::Ci)?
    };
    Ok(if done {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Says what is there and what is not; whether all is there.
fn check() -> bool {
    for need in Purpose::Ci.needs() {
        let state = if need.is_there() {
            "there  "
        } else {
            "MISSING"
        };
        println!("{state}  {:16} {}", need.package, need.purpose);
    }
    for need in FOR_BENCHMARKS {
        let state = if need.is_there() {
            "there  "
        } else {
            "not yet"
        };
        println!(
            "{state}  {:16} {}; optional: cargo xtask setup --benchmarks",
            need.package, need.purpose
        );
    }
    xdp_tools::report();
    let mut there =
        tun_is_there() && Purpose::Ci.needs().all(Need::is_there) && xdp_tools::all_there();
    for (tool, purpose) in [
        (dependencies::CARGO_DENY, "checks dependencies in CI"),
        (packaging_tools::CARGO_DEB, "makes packages"),
    ] {
        let found = tool.find().is_some();
        there &= found;
        println!(
            "{}  {:16} {purpose}",
            if found { "there  " } else { "MISSING" },
            tool.name
        );
    }
    if !there {
        println!("to install what is missing: cargo xtask setup");
    }
    there
}

/// Installs what is missing; whether all is there in the end.
pub fn ensure(purpose: Purpose) -> Result<bool> {
    let could_build_xdp = xdp_tools::all_there();
    let missing: Vec<&Need> = purpose.needs().filter(|need| !need.is_there()).collect();
    let optional = match purpose {
        Purpose::Demo => Vec::new(),
        Purpose::DemoXdp | Purpose::All | Purpose::Packages | Purpose::Ci => {
            xdp_tools::missing_packages()
        }
    };
    if missing.is_empty() && optional.is_empty() {
        println!("all packages are there");
    } else {
        println!("to be installed by apt-get:");
        for need in &missing {
            println!("  {:24} {}", need.package, need.purpose);
        }
        for package in &optional {
            println!("  {package:24} is for building the XDP program");
        }
        let packages: Vec<String> = missing.iter().map(|need| need.package.to_owned()).collect();
        let optional: Vec<String> = optional.into_iter().map(str::to_owned).collect();
        install_as_root(&packages, &optional)?;
        for need in &missing {
            if !need.is_there() {
                bail!(
                    "{} was installed, but there is no {}",
                    need.package,
                    need.program
                );
            }
        }
    }
    match purpose {
        Purpose::Demo => {}
        Purpose::DemoXdp => {
            if let Err(error) = xdp_tools::install_linker() {
                println!("no XDP program: {error:#}; relays work on UDP sockets");
            }
        }
        Purpose::All | Purpose::Packages | Purpose::Ci => xdp_tools::install_linker()?,
    }
    if purpose == Purpose::Ci {
        dependencies::install_cargo_deny()?;
    }
    if matches!(purpose, Purpose::Packages | Purpose::Ci) {
        packaging_tools::install_cargo_deb()?;
    }
    if !could_build_xdp && xdp_tools::all_there() {
        xdp_tools::build_anew()?;
    }
    Ok(tun_is_there())
}

/// Installs what only benchmarks use, where Debian has it.
fn ensure_for_benchmarks() -> Result<()> {
    let missing = FOR_BENCHMARKS.iter().filter(|need| !need.is_there());
    let missing: Vec<String> = missing.map(|need| need.package.to_owned()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("to be installed by apt-get: {}", missing.join(", "));
    install_as_root(&[], &missing)
}

/// Installs packages, and of the optional ones those that Debian has; asks sudo if need be.
fn install_as_root(packages: &[String], optional: &[String]) -> Result<()> {
    if privileges::is_root() {
        return install(packages, optional);
    }
    println!("that needs root: asking sudo");
    let lists = [
        format!("--install={}", packages.join(",")),
        format!("--optional={}", optional.join(",")),
    ];
    let lists = lists.into_iter().filter(|list| !list.ends_with('='));
    if privileges::run_sudo(std::iter::once("setup".to_owned()).chain(lists))? != 0 {
        bail!("installing packages failed");
    }
    Ok(())
}

fn tun_is_there() -> bool {
    let there = Path::new("/dev/net/tun").exists();
    if !there {
        println!("MISSING  /dev/net/tun: load the kernel's module by `modprobe tun`");
    }
    there
}

/// Installs packages; of the optional ones those that Debian has.
fn install(packages: &[String], optional: &[String]) -> Result<()> {
    let tool = |name: &str| {
        let mut command = Command::new(name);
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null());
        command
    };
    if tool("apt-get")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        bail!(
            "no apt-get here: install with this system's own means what these packages of Debian \
             have: {}",
            packages.join(" ")
        );
    }
    let _quiet = NoServiceStarts::begin()?;
    run::finish(tool("apt-get").args(["update", "--quiet=2"]))?;
    let mut to_be_had = Vec::new();
    for package in optional {
        let output = tool("apt-cache")
            .env("LC_ALL", "C")
            .args(["policy", package])
            .output()?;
        let policy = String::from_utf8_lossy(&output.stdout);
        if policy.contains("Candidate:") && !policy.contains("Candidate: (none)") {
            to_be_had.push(package);
        } else {
            println!("  {package} is not to be had here");
        }
    }
    let get = |wanted: &[&String]| {
        if wanted.is_empty() {
            return Ok(());
        }
        run::finish(
            tool("apt-get")
                .args(["install", "--yes", "--quiet=2", "-oDpkg::Use-Pty=0"])
                .arg("--no-install-recommends")
                .args(wanted),
        )
    };
    get(&packages.iter().collect::<Vec<_>>())?;
    if let Err(error) = get(&to_be_had) {
        println!("  no tools for the XDP program: {error:#}");
    }
    for (package, service) in SERVICES {
        let installed = packages.iter().chain(to_be_had.iter().copied());
        if installed.into_iter().any(|name| name.as_str() == *package) {
            keep_from_booting(service);
        }
    }
    Ok(())
}

/// What virtual machines need of the host, and the first version of it that will do.
const MACHINES: &[Need] = &[
    need("mmdebstrap", "mmdebstrap", "makes a tree of Debian"),
    need("e2fsprogs", "mkfs.ext4", "makes a disk from it"),
    need("xz-utils", "xz", "unpacks modules of kernels"),
    need("zstd", "zstd", "unpacks modules of kernels"),
];

/// What containers need of the host.
const CONTAINERS: &[Need] = &[
    need("mmdebstrap", "mmdebstrap", "makes a tree of Debian"),
    need(
        "systemd-container",
        "systemd-nspawn",
        "starts it as a container",
    ),
];

/// What disk images need of the host, beside a tree of Debian.
const IMAGES: &[Need] = &[
    need("mmdebstrap", "mmdebstrap", "makes a tree of Debian"),
    need("e2fsprogs", "mkfs.ext4", "makes the image's root"),
    need("fdisk", "sfdisk", "makes the image's partitions"),
    need("dosfstools", "mkfs.vfat", "makes its EFI partition"),
    need("mtools", "mcopy", "fills that"),
];

/// UEFI for virtual machines, which is no program.
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";

/// Installs what disk images need and this machine lacks. To be called as root.
pub fn ensure_images(archive: &Archive) -> Result<()> {
    install_missing(archive, IMAGES)
}

/// Installs UEFI for virtual machines. To be called as root.
pub fn ensure_firmware(archive: &Archive) -> Result<()> {
    if Path::new(FIRMWARE).is_file() {
        return Ok(());
    }
    println!("to be installed by apt-get: ovmf");
    Ok(archive.install_on_host(&["ovmf"], false)?)
}

/// Installs what virtual machines need and this one lacks. To be called as root.
///
/// QEMU has a card like `igb` from 8.0 on: on Debian 12 it comes from backports, by the lists of
/// `archive`, so that the host's sources stay as they are.
pub fn ensure_machines(archive: &Archive) -> Result<()> {
    let qemu = has_igb();
    if qemu && MACHINES.iter().all(Need::is_there) {
        return Ok(());
    }
    let _quiet = NoServiceStarts::begin()?;
    install_missing(archive, MACHINES)?;
    if !qemu {
        println!("to be installed by apt-get: qemu-system-x86");
        archive.install_on_host(&["qemu-system-x86"], archive.suite() == "bookworm")?;
    }
    Ok(())
}

/// Whether there is a QEMU with a card like `igb`.
fn has_igb() -> bool {
    Command::new("qemu-system-x86_64")
        .args(["-device", "help"])
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("\"igb\""))
}

/// Installs what containers need and this machine lacks. To be called as root.
pub fn ensure_containers(archive: &Archive) -> Result<()> {
    let _quiet = NoServiceStarts::begin()?;
    install_missing(archive, CONTAINERS)
}

fn install_missing(archive: &Archive, needs: &[Need]) -> Result<()> {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|need| !need.is_there())
        .map(|need| need.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("to be installed by apt-get: {}", missing.join(", "));
    Ok(archive.install_on_host(&missing, false)?)
}

/// Keeps a service that came with a package from starting at the next boot. It is not running now.
fn keep_from_booting(service: &str) {
    let unit = format!("{service}.service");
    let (program, arguments): (_, &[&str]) = if Path::new("/run/systemd/system").exists() {
        ("systemctl", &["--quiet", "disable", &unit])
    } else if Path::new("/etc/init.d").join(service).exists() {
        ("update-rc.d", &[service, "disable"])
    } else {
        return;
    };
    let done = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if done {
        println!("  {service} is not started at boot (enable it yourself if you want it)");
    }
}

/// While it lives, packages do not start services (Debian policy, 9.3.3.2: `policy-rc.d`).
struct NoServiceStarts {
    made: bool,
}

impl NoServiceStarts {
    const PATH: &'static str = "/usr/sbin/policy-rc.d";

    fn begin() -> Result<Self> {
        let made = !Path::new(Self::PATH).exists();
        if made {
            fs::write(Self::PATH, "#!/bin/sh\nexit 101\n")
                .and_then(|()| fs::set_permissions(Self::PATH, fs::Permissions::from_mode(0o755)))
                .with_context(|| format!("writing {}", Self::PATH))?;
        }
        Ok(Self { made })
    }
}

impl Drop for NoServiceStarts {
    fn drop(&mut self) {
        if self.made {
            let _ = fs::remove_file(Self::PATH);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_seen_and_what_is_not_is_not() {
        assert!(need("coreutils", "ls", "").is_there());
        assert!(!need("nothing", "no-such-program-anywhere", "").is_there());
    }
}
