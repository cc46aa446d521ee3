//! A small Debian in a directory: systemd as the first process, the programs that the tests' networks
//! are made of, and a root shell on a serial port for whoever drives the machine.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::archive::Archive;
use crate::run::{begin, finish, inside, is_there, read, said, unshared, write};
use crate::{Error, Result};

/// Raised when the recipe changes, so that trees that were made before are not used any more.
const RECIPE: u32 = 2;

/// What is in it beside Debian's smallest variant.
const PACKAGES: &[&str] = &[
    "systemd-sysv",
    "systemd-resolved",
    "dbus",
    "udev",
    "kmod",
    "netbase",
    "procps",
    "iproute2",
    "iputils-ping",
    "ethtool",
    "tcpdump",
    "nginx-light",
    "curl",
    "openssh-client",
    "openssh-server",
    "iperf3",
    "bind9-dnsutils",
    "dnsmasq-base",
    "isc-dhcp-client",
    "network-manager",
    "ca-certificates",
];

/// Services that came with the packages and are not to start by themselves, and what costs a virtual
/// machine seconds for nothing.
const UNUSED: &[&str] = &[
    "nginx.service",
    "ssh.service",
    "iperf3.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-networkd-wait-online.service",
    "NetworkManager.service",
    "NetworkManager-wait-online.service",
    "NetworkManager-dispatcher.service",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
];

/// The name of the serial port with the root shell.
pub(crate) const SHELL_PORT: &str = "shell";
/// What the shell says when it is there.
pub(crate) const SHELL_READY: &str = "MIXLINE-SHELL-READY";

/// A tree that is whole.
#[derive(Debug, Clone)]
pub struct Tree {
    /// Its root directory.
    pub path: PathBuf,
    /// Its suite.
    pub suite: String,
}

impl Tree {
    /// The tree of a suite in `cache`, made if it is not there. That takes a minute.
    ///
    /// # Errors
    /// If `mmdebstrap` is missing or fails.
    pub fn get(archive: &Archive, suite: &str, cache: &Path) -> Result<Self> {
        let path = cache.join(format!("tree-{suite}"));
        let tree = Self {
            path: path.clone(),
            suite: suite.into(),
        };
        if read(&path.join("etc/mixline-recipe")).is_ok_and(|text| text == tree.recipe()) {
            return Ok(tree);
        }
        if !is_there("mmdebstrap") {
            return Err(Error::Missing {
                program: "mmdebstrap",
            });
        }
        let begun = begin(&path)?;
        said(
            unshared("mmdebstrap")
                .args(["--quiet", "--variant=minbase"])
                .arg(format!("--include={}", PACKAGES.join(",")))
                .arg("--aptopt=Acquire::Languages \"none\"")
                .args(
                    ["man", "doc", "locale"]
                        .map(|what| format!("--dpkgopt=path-exclude=/usr/share/{what}/*")),
                )
                .arg(suite)
                .arg(&begun)
                .args(archive.sources(suite)),
        )?;
        tree.configure(&begun)?;
        finish(&begun, &path)?;
        Ok(tree)
    }

    fn recipe(&self) -> String {
        format!("{RECIPE} {} {}\n", self.suite, PACKAGES.join(" "))
    }

    fn configure(&self, at: &Path) -> Result<()> {
        write(&at.join("etc/hostname"), "machine\n")?;
        write(
            &at.join("etc/hosts"),
            "127.0.0.1 localhost machine\n::1 localhost\n",
        )?;
        // Made at the first boot: no two machines are the same.
        write(&at.join("etc/machine-id"), "")?;
        write(
            &at.join("etc/fstab"),
            "/dev/vda / ext4 defaults,noatime 0 1\n",
        )?;
        said(inside(at, "passwd").args(["-q", "-d", "root"]))?;
        let unit = "mixline-test-shell.service";
        let device = format!("dev-virtio\\x2dports-{SHELL_PORT}.device");
        write(
            &at.join("etc/systemd/system").join(unit),
            format!(
                "[Unit]\n\
                 Description=Root shell on a serial port, for tests\n\
                 BindsTo={device}\n\
                 After={device} multi-user.target\n\
                 [Service]\n\
                 Environment=HOME=/root TERM=dumb\n\
                 WorkingDirectory=/root\n\
                 ExecStart=/bin/sh -c 'exec 0<>/dev/virtio-ports/{SHELL_PORT} 1>&0 2>&1; \
                 echo {SHELL_READY}; exec /bin/bash --norc --noprofile'\n\
                 StandardInput=null\n\
                 KillMode=process\n\
                 [Install]\n\
                 WantedBy={device}\n"
            ),
        )?;
        said(inside(at, "systemctl").args([
            "--quiet",
            "enable",
            unit,
            "systemd-networkd",
            "systemd-resolved",
        ]))?;
        for unused in UNUSED {
            // Not every suite has all of them.
            let _ = said(inside(at, "systemctl").args(["--quiet", "mask", unused]));
        }
        let resolv = at.join("etc/resolv.conf");
        let _ = fs::remove_file(&resolv);
        symlink("/run/systemd/resolve/stub-resolv.conf", &resolv)
            .map_err(Error::file("linking", resolv))?;
        write(&at.join("etc/mixline-recipe"), self.recipe())
    }
}
