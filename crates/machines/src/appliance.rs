//! A virtual machine that boots a disk image by its own firmware (UEFI), as bare metal does: no kernel,
//! no shell and no file of the host. What it says is on its serial console.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use crate::machine::{Card, Joint, QEMU, bare, end, keep_console, keep_log, plug};
use crate::run::is_there;
use crate::{Error, Result};

/// UEFI for machines of QEMU's, and what a machine keeps of its settings: Debian's `ovmf`.
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const SETTINGS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

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
    /// Its disks, which are written to: the one that it boots first.
    pub disks: Vec<PathBuf>,
    /// Where its settings and its console are kept.
    pub directory: PathBuf,
}

/// A machine that runs. Dropping it is as drawing its plug.
#[derive(Debug)]
pub struct Appliance {
    name: String,
    console: PathBuf,
    process: Child,
}

impl Appliance {
    /// Switches it on.
    ///
    /// # Errors
    /// [`Error::Missing`] without QEMU or its firmware.
    pub fn start(setup: &Setup) -> Result<Self> {
        fs::create_dir_all(&setup.directory).map_err(Error::file("making", &setup.directory))?;
        let console = setup.directory.join("console.log");
        let _ = fs::remove_file(&console);
        if !is_there(QEMU) {
            return Err(Error::Missing { program: QEMU });
        }
        if !Path::new(FIRMWARE).is_file() {
            return Err(Error::Missing { program: "ovmf" });
        }
        let settings = setup.directory.join("settings.fd");
        fs::copy(SETTINGS, &settings).map_err(Error::file("copying", SETTINGS))?;
        let mut command = bare(&setup.name, setup.processors, setup.memory);
        command
            .arg("-drive")
            .arg(format!(
                "if=pflash,format=raw,unit=0,readonly=on,file={FIRMWARE}"
            ))
            .arg("-drive")
            .arg(format!(
                "if=pflash,format=raw,unit=1,file={}",
                settings.display()
            ));
        for disk in &setup.disks {
            command.arg("-drive").arg(format!(
                "file={},format=raw,if=virtio,cache=unsafe",
                disk.display()
            ));
        }
        keep_console(&mut command, &console);
        plug(&mut command, &setup.cards, &setup.joints);
        keep_log(&mut command, &setup.directory);
        let process = command.spawn().map_err(|error| Error::Command {
            command: QEMU.into(),
            why: error.to_string(),
        })?;
        Ok(Self {
            name: setup.name.clone(),
            console,
            process,
        })
    }

    /// All that its console has shown.
    #[must_use]
    pub fn console(&self) -> String {
        let text = fs::read(&self.console).unwrap_or_default();
        String::from_utf8_lossy(&text).replace('\r', "")
    }

    /// Waits until its console has shown a text, after the first `seen` bytes of
    /// [`console`](Self::console).
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Ended`] if the machine is off.
    pub fn wait_for(&mut self, text: &str, seen: usize, timeout: Duration) -> Result<()> {
        let until = Instant::now() + timeout;
        loop {
            let runs = matches!(self.process.try_wait(), Ok(None));
            let console = self.console();
            if console.get(seen..).is_some_and(|new| new.contains(text)) {
                return Ok(());
            }
            let lines: Vec<&str> = console.lines().collect();
            let last = lines[lines.len().saturating_sub(30)..].join("\n");
            if !runs {
                return Err(Error::Ended {
                    machine: self.name.clone(),
                    console: last,
                });
            }
            if Instant::now() > until {
                return Err(Error::Timeout {
                    machine: self.name.clone(),
                    what: format!("`{text}` on its console"),
                    seconds: timeout.as_secs(),
                    console: last,
                });
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        end(&mut self.process, Duration::ZERO);
    }
}
