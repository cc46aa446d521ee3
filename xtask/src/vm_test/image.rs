//! The disk image, booted by UEFI: a relay that nobody has touched but by its first boot's file and by
//! ssh, on a cable to a machine with a directory, other relays and a client.

use crate::image::{self, PROGRAM};
use crate::pkg_test::checks::Checks;
use crate::{package, privileges, setup};
use anyhow::{Result, bail};
use appliance::Lab;
use mixline_machines::archive::Archive;
use mixline_machines::disk::Disk;
use mixline_testnet::Programs;
use mixline_testnet::programs::target_directory;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod appliance;
mod systemd;

/// What this test is called.
pub const NAME: &str = "image";
/// The package in the image, and the one that it is upgraded to: of the same program.
const REVISIONS: [(&str, &str); 2] = [("old", "1"), ("new", "2")];
/// How long a machine may take from power to a login prompt: without hardware support, two minutes on
/// an idle host.
const BOOT: Duration = Duration::from_secs(900);
/// The size of the disk that the image is written to, in bytes.
const DISK: u64 = 6 << 30;

/// Makes the packages, as the user who asked.
pub fn prepare() -> Result<()> {
    for (name, revision) in REVISIONS {
        let version = format!("{}-{revision}", env!("CARGO_PKG_VERSION"));
        let directory = shared().join(name);
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        package::make_one(PROGRAM, &version, &directory)?;
    }
    Ok(())
}

/// Where files of this test are.
fn directory() -> PathBuf {
    target_directory().join("machines/appliance")
}

/// What the machine at the far end sees at `/host`.
fn shared() -> PathBuf {
    directory().join("host")
}

/// The package of a revision.
fn package_of(name: &str) -> Result<PathBuf> {
    let found = fs::read_dir(shared().join(name))?.flatten().next();
    match found {
        Some(entry) => Ok(entry.path()),
        None => bail!("no package in {}", shared().join(name).display()),
    }
}

/// As root: makes the image and boots it; whether all is as it should be.
pub fn test(archive: &Archive, disk: &Disk, cache: &Path) -> Result<bool> {
    let mut checks = Checks::begin();
    let directory = directory();
    let outcome = run(&mut checks, archive, disk, cache, &directory);
    // Disks of gigabytes, which tell nothing afterwards.
    for large in ["disk.img", "cidata.img"] {
        let _ = fs::remove_file(directory.join(large));
    }
    privileges::give_to_user(&directory);
    outcome?;
    println!("{} passed, {} failed", checks.passed, checks.failed);
    Ok(checks.failed == 0)
}

fn run(
    checks: &mut Checks,
    archive: &Archive,
    disk: &Disk,
    cache: &Path,
    directory: &Path,
) -> Result<()> {
    setup::ensure_firmware(archive)?;
    checks.say("an image");
    let image = directory.join("disk.img");
    image::make(archive, &package_of("old")?, cache, &image)?;
    checks.check("nothing in the image is anybody's", || {
        appliance::is_nobodys(&image)
    });
    if checks.failed > 0 {
        return Ok(());
    }
    // A disk is longer than the image.
    fs::File::options()
        .write(true)
        .open(&image)?
        .set_len(DISK)?;
    share()?;
    let mut lab = Lab::far_end(disk, directory, &shared())?;
    checks.say("the far end runs: a directory, two relays, and addresses by DHCP");
    lab.switch_on(&image, directory)?;
    for (name, check) in BOOT_CHECKS {
        if checks.failed == 0 {
            checks.check(name, || check(&mut lab));
        }
    }
    if checks.failed == 0 {
        systemd::run(checks, &mut lab, &package_of("new")?);
    }
    if checks.failed > 0 {
        eprintln!("{}", lab.tell());
    }
    Ok(())
}

/// A check and what it is called.
type Check = (&'static str, fn(&mut Lab) -> Result<()>);

/// What is looked at from power to a relay that others use; each needs those before.
const BOOT_CHECKS: &[Check] = &[
    ("it boots by UEFI to a login prompt", |lab| {
        lab.login_prompt(0)
    }),
    (
        "user data on a volume `cidata` is read; that its network is not there is said on the console",
        Lab::wrong_network,
    ),
    (
        "its key is let in by ssh, and nobody by a password",
        Lab::ssh_by_key,
    ),
    ("no relay was made", Lab::no_relay),
    (
        "corrected on the EFI partition, it boots again",
        Lab::correct_and_reboot,
    ),
    ("the relay is registered at the directory", Lab::registered),
    ("the first boot is over", Lab::first_boot_is_over),
    (
        "the address of its card is the one that was left",
        Lab::has_static_address,
    ),
    ("its root has grown to the disk", Lab::has_grown),
    (
        "`port: auto` is AF_XDP with zero-copy, and proven",
        Lab::zero_copy,
    ),
    ("a client's datagrams go through it", Lab::relays),
    (
        "a kernel that is installed has its entry for the boot loader",
        Lab::kernel_entry,
    ),
];

/// Lays what the far end needs into a directory that it sees.
fn share() -> Result<()> {
    let release = shared().join("release");
    fs::create_dir_all(&release)?;
    let programs = Programs::release()?;
    for program in [&programs.directory, &programs.relay, &programs.client] {
        if let Some(name) = program.file_name() {
            fs::copy(program, release.join(name))?;
        }
    }
    Ok(())
}
