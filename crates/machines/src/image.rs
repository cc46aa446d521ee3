//! A disk image that boots on bare metal by UEFI: Debian, a package, and what is needed to boot.
//!
//! GPT with an EFI partition, where systemd-boot and the kernels lie, and a root of ext4, which grows
//! to the end of the disk at the first boot. It is made without a loop device, and without a mount but
//! in namespaces that end with it. What would make two machines the same is not in it: no
//! machine ID, no keys of a host, no password.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::archive::Archive;
use crate::kernel;
use crate::run::{begin, finish, is_there, program, read, remove, said, unshared, write};
use crate::{Error, Result};

/// The suite of images: Debian's stable one, whose glibc is not older than that of the host that
/// compiles.
pub const SUITE: &str = "trixie";
/// Raised when the recipe changes.
const RECIPE: u32 = 2;
/// Trees older than this are made anew, with the updates that came since.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// What is in it beside Debian's smallest variant and the package. The kernel comes from backports, as
/// zero-copy on `igb` needs 6.14.
const PACKAGES: &[&str] = &[
    "systemd-sysv",
    "systemd-boot",
    "systemd-repart",
    "systemd-resolved",
    "systemd-timesyncd",
    "dbus",
    "udev",
    "kmod",
    "netbase",
    "e2fsprogs",
    "initramfs-tools",
    "zstd",
    "iproute2",
    "ethtool",
    "procps",
    "ca-certificates",
    "openssh-server",
    "nano",
    "less",
];

/// Units that are there and not enabled by their packages.
const ENABLED: &[&str] = &[
    "systemd-networkd.service",
    "systemd-networkd-wait-online.service",
    "mixline-first-boot.service",
];

/// Documents and translations, which nobody reads here. Licences stay.
const LEFT_OUT: &[&str] = &[
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-include=/usr/share/doc/mixline*",
    "path-include=/usr/share/man/man1",
    "path-include=/usr/share/man/man1/mixline*",
];

/// Bytes of a sector.
const SECTOR: u64 = 512;
const MIB: u64 = (1 << 20) / SECTOR;
/// Where the EFI partition begins and how long it is, in sectors: room for some nine kernels.
const EFI: (u64, u64) = (MIB, 512 * MIB);
/// The same of the root.
const ROOT: (u64, u64) = (513 * MIB, 1534 * MIB);
/// The whole, with the table's second copy at the end.
const ALL: u64 = 2048 * MIB;

/// Makes the tree bootable. Arguments: the tree, a directory for what belongs on the EFI partition,
/// the kernel's command line, units to enable. The tree's `/efi` is a mount meanwhile, as it will be
/// when kernels are upgraded.
const SET_UP: &str = r#"
set -eu
tree=$1; efi=$2; line=$3; shift 3
mount -t proc proc "$tree/proc"
mount -t tmpfs -o mode=755 tmpfs "$tree/efi"
export DEBIAN_FRONTEND=noninteractive
chroot "$tree" dpkg --install /package.deb
rm "$tree/package.deb"
chroot "$tree" systemctl --quiet enable "$@"
printf '%s\n' "$line" > "$tree/etc/kernel/cmdline"
for kernel in "$tree"/boot/vmlinuz-*; do
    release=${kernel##*/vmlinuz-}
    chroot "$tree" kernel-install add "$release" "/boot/vmlinuz-$release"
done
loader=$(ls "$tree"/usr/lib/systemd/boot/efi/systemd-bootx64.efi* | head -n 1)
mkdir -p "$tree/efi/EFI/BOOT" "$tree/efi/EFI/systemd"
cp "$loader" "$tree/efi/EFI/BOOT/BOOTX64.EFI"
cp "$loader" "$tree/efi/EFI/systemd/systemd-bootx64.efi"
cp -r "$tree/efi/." "$efi"
umount "$tree/efi" "$tree/proc"
rm -f "$tree"/etc/ssh/ssh_host_* "$tree"/var/lib/systemd/random-seed "$tree"/var/lib/dbus/machine-id
rm -rf "$tree"/var/lib/apt/lists/* "$tree"/var/cache/apt/*.bin "$tree"/var/log/*.log "$tree"/var/log/apt
: > "$tree/etc/machine-id"
"#;

/// Puts a file system with the EFI partition's files into the image. Arguments: image, first sector,
/// sectors, directory.
const FILL_EFI: &str = r#"
set -eu
mkfs.vfat -F 32 -n MIXLINE-EFI --offset="$2" "$1" $(($3 / 2)) 2>&1
export MTOOLS_SKIP_CHECK=1
cd "$4"
mcopy -i "$1@@$(($2 * 512))" -s -- * ::/ 2>&1
"#;

/// Puts a file system with the tree into the image. Arguments: as above.
const FILL_ROOT: &str = r#"
set -eu
mkfs.ext4 -q -F -L mixline-root -E "offset=$(($2 * 512)),root_owner=0:0" -d "$4" "$1" $(($3 / 2))k
"#;

/// Makes an image with a package; files that belong into it are in `files`, those of the EFI partition
/// in its directory `efi`. To be called as root. It takes some ten seconds, and two minutes more if
/// the tree is not in `cache`.
///
/// # Errors
/// If a program of the host is missing or fails.
pub fn make(
    archive: &Archive,
    package: &Path,
    files: &Path,
    cache: &Path,
    to: &Path,
) -> Result<()> {
    let tree = tree(archive, cache)?;
    let work = begin(&cache.join("image"))?;
    let made = build(&tree, package, files, &work);
    let image = work.join("disk.img");
    let put = made.and_then(|()| {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(Error::file("making", parent))?;
        }
        said(
            program("cp")
                .args(["--sparse=always", "--reflink=auto"])
                .arg(image)
                .arg(to),
        )
    });
    remove(&work)?;
    put.map(drop)
}

/// The tree without the package.
fn tree(archive: &Archive, cache: &Path) -> Result<PathBuf> {
    let path = cache.join(format!("image-{SUITE}"));
    let kernel = archive.newest(kernel::PACKAGE, kernel::SUITE)?;
    let recipe = format!(
        "{RECIPE} {kernel} {} {}",
        PACKAGES.join(" "),
        LEFT_OUT.join(" ")
    );
    let stamp = cache.join(format!("image-{SUITE}.recipe"));
    let young = fs::metadata(&stamp)
        .and_then(|metadata| metadata.modified())
        .ok()
        .and_then(|at| SystemTime::now().duration_since(at).ok())
        .is_some_and(|age| age < LIFE);
    if young && path.is_dir() && read(&stamp).is_ok_and(|text| text == recipe) {
        return Ok(path);
    }
    if !is_there("mmdebstrap") {
        return Err(Error::Missing {
            program: "mmdebstrap",
        });
    }
    let _ = fs::remove_file(&stamp);
    let begun = begin(&path)?;
    // By its suite, from which apt then takes the packages that this one needs as well.
    let include = format!(
        "--include={},{}/{}",
        PACKAGES.join(","),
        kernel::PACKAGE,
        kernel::SUITE
    );
    said(
        unshared("mmdebstrap")
            .args(["--quiet", "--variant=minbase"])
            .arg(include)
            .arg("--aptopt=Acquire::Languages \"none\"")
            .arg("--aptopt=APT::Install-Recommends \"false\"")
            .args(LEFT_OUT.iter().map(|what| format!("--dpkgopt={what}")))
            .arg(SUITE)
            .arg(&begun)
            .args(archive.sources(SUITE))
            .args(archive.sources(kernel::SUITE).first()),
    )?;
    finish(&begun, &path)?;
    write(&stamp, recipe)?;
    Ok(path)
}

/// Makes `disk.img` in a directory.
fn build(tree: &Path, package: &Path, files: &Path, work: &Path) -> Result<()> {
    let root = work.join("root");
    said(
        program("cp")
            .args(["-a", "--reflink=auto"])
            .arg(tree)
            .arg(&root),
    )?;
    said(
        program("cp")
            .args(["-r", "--no-preserve=ownership", "--preserve=mode"])
            .arg(files.join("."))
            .arg(&root),
    )?;
    let efi = work.join("efi");
    fs::rename(root.join("efi"), &efi).map_err(Error::file("renaming", &efi))?;
    fs::create_dir(root.join("efi")).map_err(Error::file("making", root.join("efi")))?;
    fs::copy(package, root.join("package.deb")).map_err(Error::file("copying", package))?;
    let (efi_id, root_id) = (unique()?, unique()?);
    write(
        &root.join("etc/fstab"),
        format!(
            "PARTUUID={root_id} / ext4 defaults,noatime,x-systemd.growfs 0 1\n\
             PARTUUID={efi_id} /efi vfat umask=0077,nosuid,nodev,noexec 0 0\n"
        ),
    )?;
    let line = format!("root=PARTUUID={root_id} rw console=tty0 console=ttyS0,115200");
    said(
        unshared("sh")
            .args(["-c", SET_UP, "sh"])
            .arg(&root)
            .arg(&efi)
            .arg(line)
            .args(ENABLED),
    )?;
    let image = work.join("disk.img");
    fs::File::create(&image)
        .and_then(|file| file.set_len(ALL * SECTOR))
        .map_err(Error::file("making", &image))?;
    // Types of partitions: the UEFI specification, and the UAPI group's for the root of this processor.
    let table = work.join("table");
    write(
        &table,
        format!(
            "label: gpt\nfirst-lba: 2048\n\
             start={}, size={}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=mixline-efi, uuid={efi_id}\n\
             start={}, size={}, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=mixline-root, uuid={root_id}\n",
            EFI.0, EFI.1, ROOT.0, ROOT.1
        ),
    )?;
    said(
        program("sh")
            .args(["-c", "sfdisk --quiet \"$1\" < \"$2\"", "sh"])
            .arg(&image)
            .arg(&table),
    )?;
    for (script, (from, sectors), directory) in [(FILL_EFI, EFI, &efi), (FILL_ROOT, ROOT, &root)] {
        said(
            program("sh")
                .args(["-c", script, "sh"])
                .arg(&image)
                .args([from.to_string(), sectors.to_string()])
                .arg(directory),
        )?;
    }
    Ok(())
}

/// A UUID that nobody has.
fn unique() -> Result<String> {
    Ok(read(Path::new("/proc/sys/kernel/random/uuid"))?
        .trim()
        .to_owned())
}
