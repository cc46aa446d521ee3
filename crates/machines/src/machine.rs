//! A virtual machine under QEMU.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::disk::Disk;
use crate::inside::Inside;
use crate::run::{is_there, program};
use crate::shell::{Answer, Shell};
use crate::tree::{SHELL_PORT, SHELL_READY};
use crate::{Error, Result};

/// What runs machines.
pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// How long a machine may take until its shell is there: without hardware support, half a minute on
/// an idle host.
const BOOT: Duration = Duration::from_secs(240);
/// How long one may take to switch itself off.
const OFF: Duration = Duration::from_secs(20);

/// A network card of the machine. Cards of one machine that are on the same cable reach each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// QEMU's name of the device, with its options.
    pub device: String,
    /// Its hardware address; who looks for the card in the machine knows it by this.
    pub mac: String,
    /// The number of the cable in it.
    pub cable: u32,
}

impl Card {
    /// A card like Intel's 82576 (`igb`).
    #[must_use]
    pub fn igb(cable: u32, end: u8) -> Self {
        Self::new("igb", cable, end)
    }

    /// A card like Intel's 82574 (`e1000e`), whose driver has no native XDP.
    #[must_use]
    pub fn e1000e(cable: u32, end: u8) -> Self {
        Self::new("e1000e", cable, end)
    }

    /// A virtual card (`virtio_net`) that may have zero-copy: its memory goes through an IOMMU's
    /// rules.
    #[must_use]
    pub fn virtio(cable: u32, end: u8) -> Self {
        Self::new(
            "virtio-net-pci,iommu_platform=on,disable-legacy=on",
            cable,
            end,
        )
    }

    fn new(device: &str, cable: u32, end: u8) -> Self {
        Self {
            device: device.into(),
            mac: format!("52:54:00:00:{cable:02x}:{end:02x}"),
            cable,
        }
    }
}

/// A cable that goes on in another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joint {
    /// The number of the cable in this machine.
    pub cable: u32,
    /// The socket between both.
    pub socket: PathBuf,
    /// Whether this machine makes the socket; the other one is to start later.
    pub first: bool,
}

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Its name, for messages.
    pub name: String,
    /// Processors.
    pub processors: usize,
    /// Memory in MiB.
    pub memory: usize,
    /// Its cards.
    pub cards: Vec<Card>,
    /// Those of its cables that go on in another machine.
    pub joints: Vec<Joint>,
    /// A directory of the host that it sees at `/host`, and cannot write to.
    pub shared: PathBuf,
    /// Where its sockets and its console are kept.
    pub directory: PathBuf,
}

/// A machine that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Machine {
    process: Child,
    inside: Inside,
}

impl Machine {
    /// Starts a machine and waits for its shell. The disk is never written to.
    ///
    /// # Errors
    /// [`Error::Missing`] without QEMU; [`Error::Ended`] or [`Error::Timeout`] if it does not come up.
    pub fn start(disk: &Disk, setup: &Setup) -> Result<Self> {
        fs::create_dir_all(&setup.directory).map_err(Error::file("making", &setup.directory))?;
        let console = setup.directory.join("console.log");
        let socket = setup.directory.join("shell.socket");
        for old in [&console, &socket] {
            let _ = fs::remove_file(old);
        }
        if !is_there(QEMU) {
            return Err(Error::Missing { program: QEMU });
        }
        let began = Instant::now();
        let mut command = qemu(disk, setup, &console, &socket);
        let process = command.spawn().map_err(|error| Error::Command {
            command: QEMU.into(),
            why: error.to_string(),
        })?;
        let mut guard = Guard(Some(process));
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(_) if guard.is_running() && began.elapsed() < BOOT => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(_) => {
                    return Err(Error::Ended {
                        machine: setup.name.clone(),
                        console: fs::read_to_string(setup.directory.join("qemu.log"))
                            .unwrap_or_default(),
                    });
                }
            }
        };
        let mut machine = Self {
            process: guard.keep()?,
            inside: Inside {
                name: setup.name.clone(),
                console,
                shell: Shell::new(stream),
            },
        };
        let inside = &mut machine.inside;
        let ready = inside.shell.wait_for(&format!("{SHELL_READY}\n"), BOOT);
        ready.map_err(|error| inside.failed("its start", &error, BOOT))?;
        machine.expect(
            "modprobe -a 9p 9pnet_virtio; mkdir -p /host && \
             mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144 host /host; udevadm settle",
            Duration::from_secs(60),
        )?;
        Ok(machine)
    }

    /// Runs a command in the machine's shell.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Ended`].
    pub fn run(&mut self, command: &str, timeout: Duration) -> Result<Answer> {
        self.inside.run(command, timeout)
    }

    /// Runs a command and gives each line that it writes to `show`, when it comes; gives its exit
    /// code.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_shown(
        &mut self,
        command: &str,
        timeout: Duration,
        show: impl FnMut(&str),
    ) -> Result<i32> {
        self.inside.run_shown(command, timeout, show)
    }

    /// Runs a command that has to succeed; gives its output.
    ///
    /// # Errors
    /// [`Error::Inside`] if it does not, else as [`run`](Self::run).
    pub fn expect(&mut self, command: &str, timeout: Duration) -> Result<String> {
        self.inside.expect(command, timeout)
    }

    /// The end of what the machine's kernel has said.
    #[must_use]
    pub fn console(&self) -> String {
        self.inside.console()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.inside.shell.run(
            "systemctl poweroff --force --force",
            Duration::from_millis(100),
        );
        end(&mut self.process, OFF);
    }
}

/// A process that is ended unless it is kept.
struct Guard(Option<Child>);

impl Guard {
    fn is_running(&mut self) -> bool {
        self.0
            .as_mut()
            .is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    fn keep(&mut self) -> Result<Child> {
        self.0.take().ok_or_else(|| Error::Ended {
            machine: String::new(),
            console: String::new(),
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(process) = &mut self.0 {
            end(process, Duration::ZERO);
        }
    }
}

/// Waits for a process for a while, then ends it.
pub(crate) fn end(process: &mut Child, patience: Duration) {
    let until = Instant::now() + patience;
    while Instant::now() < until {
        if !matches!(process.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = process.kill();
    let _ = process.wait();
}

/// Whether the host's KVM really runs a machine; that there is a device says nothing.
#[must_use]
pub fn kvm_works() -> bool {
    // An empty machine, for a moment: QEMU ends by itself when KVM fails.
    let Ok(mut process) = program(QEMU)
        .args([
            "-accel", "kvm", "-cpu", "host", "-machine", "q35", "-m", "64",
        ])
        .args([
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "none",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
    else {
        return false;
    };
    std::thread::sleep(Duration::from_secs(2));
    let runs = matches!(process.try_wait(), Ok(None));
    end(&mut process, Duration::ZERO);
    runs
}

/// QEMU, with the processor that works here, and nothing but memory.
pub(crate) fn bare(name: &str, processors: usize, memory: usize) -> Command {
    let mut command = program(QEMU);
    let (accelerator, processor) = if kvm_works() {
        ("kvm", "host")
    } else {
        ("tcg,thread=multi,tb-size=256", "max")
    };
    command
        .args(["-name", name, "-machine", "q35"])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-accel", accelerator, "-cpu", processor])
        .args(["-smp", &processors.to_string()])
        .args(["-m", &memory.to_string()])
        .args(["-object", "rng-random,id=rng0,filename=/dev/urandom"])
        .args(["-device", "virtio-rng-pci,rng=rng0"]);
    command
}

/// Gives a machine a serial console that a file keeps.
pub(crate) fn keep_console(command: &mut Command, console: &Path) {
    command
        .arg("-chardev")
        .arg(format!("file,id=console,path={}", console.display()))
        .args(["-serial", "chardev:console"]);
}

/// Plugs cards into a machine, and their cables into others.
pub(crate) fn plug(command: &mut Command, cards: &[Card], joints: &[Joint]) {
    for (number, card) in cards.iter().enumerate() {
        // Each behind a port of its own: a card like igb takes more functions than one slot has.
        command
            .args([
                "-device",
                &format!("pcie-root-port,id=port{number},slot={number}"),
            ])
            .args([
                "-netdev",
                &format!("hubport,id=net{number},hubid={}", card.cable),
            ])
            .args([
                "-device",
                &format!(
                    "{},bus=port{number},netdev=net{number},mac={}",
                    card.device, card.mac
                ),
            ]);
    }
    for (number, joint) in joints.iter().enumerate() {
        let server = if joint.first { "on" } else { "off" };
        command
            .arg("-netdev")
            .arg(format!(
                "stream,id=joint{number},server={server},addr.type=unix,addr.path={}",
                joint.socket.display()
            ))
            .args([
                "-netdev",
                &format!(
                    "hubport,id=end{number},hubid={},netdev=joint{number}",
                    joint.cable
                ),
            ]);
    }
}

/// Lets QEMU say what is wrong to a file.
pub(crate) fn keep_log(command: &mut Command, directory: &Path) {
    match fs::File::create(directory.join("qemu.log")) {
        Ok(log) => command.stdout(Stdio::null()).stderr(log),
        Err(_) => command.stdout(Stdio::null()).stderr(Stdio::null()),
    };
}

fn qemu(disk: &Disk, setup: &Setup, console: &Path, socket: &Path) -> Command {
    let mut command = bare(&setup.name, setup.processors, setup.memory);
    command
        .arg("-no-reboot")
        .arg("-kernel")
        .arg(disk.path.join("vmlinuz"))
        .arg("-initrd")
        .arg(disk.path.join("initrd.img"))
        .args([
            "-append",
            "console=ttyS0,115200 quiet loglevel=4 mitigations=off net.ifnames=0 \
             systemd.show_status=false random.trust_cpu=on tsc=reliable",
        ])
        .arg("-drive")
        .arg(format!(
            "file={}/root.ext4,format=raw,if=virtio,snapshot=on,cache=unsafe",
            disk.path.display()
        ));
    keep_console(&mut command, console);
    command
        .args(["-device", "virtio-serial-pci"])
        .arg("-chardev")
        .arg(format!(
            "socket,id=shell,path={},server=on,wait=off",
            socket.display()
        ))
        .args([
            "-device",
            &format!("virtserialport,chardev=shell,name={SHELL_PORT}"),
        ])
        .arg("-virtfs")
        .arg(format!(
            "local,path={},mount_tag=host,security_model=none,readonly=on",
            setup.shared.display()
        ));
    plug(&mut command, &setup.cards, &setup.joints);
    keep_log(&mut command, &setup.directory);
    command
}
