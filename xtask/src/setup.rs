//! `cargo xtask setup`: what the demo, the tests and the benchmarks run besides the project's own
//! programs, from Debian's packages.
//!
//! No service is started, neither now nor at the next boot, that did not run before: web and ssh
//! servers are only used inside namespaces, with configurations of their own.

use crate::{privileges, run};
use anyhow::{Context, Result, bail};
use mixline_testnet::namespaces::system_path;
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
];

/// Packages that bring a system service, and the service's name.
const SERVICES: &[(&str, &str)] = &[
    ("nginx-light", "nginx"),
    ("openssh-server", "ssh"),
    ("iperf3", "iperf3"),
];

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

/// Installs what is missing, or only reports; success when all is there in the end.
pub fn run(check: bool) -> Result<ExitCode> {
    Ok(if ensure(check)? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Installs what is missing, or only reports; whether all is there in the end.
pub fn ensure(check: bool) -> Result<bool> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !need.is_there()).collect();
    if check {
        for need in NEEDS {
            let state = if need.is_there() {
                "there  "
            } else {
                "MISSING"
            };
            println!("{state}  {:16} {}", need.package, need.purpose);
        }
    }
    let tun = Path::new("/dev/net/tun").exists();
    if !tun {
        println!("MISSING  /dev/net/tun: load the kernel's module by `modprobe tun`");
    }
    if missing.is_empty() {
        println!("nothing to install");
        return Ok(tun);
    }
    if check {
        println!("to install what is missing: cargo xtask setup");
        return Ok(false);
    }
    if !privileges::is_root() {
        println!("installing packages needs root: asking sudo");
        return Ok(privileges::run_sudo(["setup"])? == 0);
    }
    install(&missing)?;
    Ok(tun)
}

fn install(missing: &[&Need]) -> Result<()> {
    let apt = || {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null());
        command
    };
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    if Command::new("apt-get")
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
    println!("installing by apt-get:");
    for need in missing {
        println!("  {:16} {}", need.package, need.purpose);
    }
    let _quiet = NoServiceStarts::begin()?;
    run::finish(apt().args(["update", "--quiet=2"]))?;
    run::finish(
        apt()
            .args([
                "install",
                "--yes",
                "--quiet=2",
                "-oDpkg::Use-Pty=0",
                "--no-install-recommends",
            ])
            .args(&packages),
    )?;
    for (package, service) in SERVICES {
        if packages.contains(package) {
            keep_from_booting(service);
        }
    }
    for need in missing {
        if !need.is_there() {
            bail!(
                "{} was installed, but what it should bring is not there",
                need.package
            );
        }
    }
    println!("all is there");
    Ok(())
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
