//! What QEMU starts: a disk that is filled from the tree without being mounted, and a first file
//! system that finds it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::archive::Archive;
use crate::kernel::Kernel;
use crate::run::{begin, finish, inside, program, read, said, write};
use crate::tree::Tree;
use crate::{Error, Result};

/// Raised when the recipe changes.
const RECIPE: u32 = 3;

/// Modules on the disk, beside those that they need.
const MODULES: &[&str] = &[
    "igb",
    "igc",
    "e1000e",
    "virtio_net",
    "virtio_blk",
    "virtio_console",
    "virtio_rng",
    "ext4",
    "vfat",
    "9p",
    "9pnet_virtio",
    "veth",
    "tun",
    "dummy",
    "bridge",
    "bonding",
    "8021q",
    "af_packet",
    "xsk_diag",
    "sch_ingress",
    "cls_bpf",
    "nf_tables",
    "nft_compat",
    "loop",
];

/// Modules of the first file system: what the disk needs.
const FIRST: &[&str] = &["virtio_blk", "ext4"];

/// The size of the disk; what is not used takes no room.
const SIZE: u64 = 2 << 30;

/// What the first process does until the disk is there.
const INIT: &str = "#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
while read -r f; do $b insmod /m/$f; done < /m/order
i=0; while [ ! -b /dev/vda ] && [ $i -lt 100 ]; do $b sleep 0.1; i=$((i+1)); done
$b mount -t ext4 -o rw,noatime /dev/vda /new || exec $b sh
$b umount /proc; $b umount /sys; $b mount --move /dev /new/dev
exec $b switch_root /new /sbin/init
";

/// A disk with its kernel: `root.ext4`, `initrd.img`, `vmlinuz`.
#[derive(Debug, Clone)]
pub struct Disk {
    /// The directory.
    pub path: PathBuf,
}

impl Disk {
    /// The disk of a tree and a kernel in `cache`, made if it is not there. That takes some 20
    /// seconds.
    ///
    /// # Errors
    /// If a program of the host fails.
    pub fn get(archive: &Archive, tree: &Tree, kernel: &Kernel, cache: &Path) -> Result<Self> {
        let path = cache.join(format!("disk-{}", tree.suite));
        let recipe = format!(
            "{RECIPE} {} {} {}",
            kernel.release,
            MODULES.join(" "),
            read(&tree.path.join("etc/mixline-recipe"))?
        );
        if read(&path.join("recipe")).is_ok_and(|text| text == recipe) {
            return Ok(Self { path });
        }
        let begun = begin(&path)?;
        let modules = tree.path.join("lib/modules");
        let _ = fs::remove_dir_all(&modules);
        let released = modules.join(&kernel.release);
        fs::create_dir_all(&modules).map_err(Error::file("making", &modules))?;
        said(
            program("cp")
                .args(["-a", "--reflink=auto"])
                .arg(kernel.path.join("modules"))
                .arg(&released),
        )?;
        for left in ["vmlinuz", "build", "source"] {
            let _ = fs::remove_file(released.join(left));
        }
        depmod(tree, kernel)?;
        let wanted = files_of(tree, kernel, MODULES);
        keep_only(&released.join("kernel"), &tree.path, &wanted)?;
        depmod(tree, kernel)?;
        first_file_system(archive, tree, kernel, &begun)?;
        fs::copy(kernel.path.join("vmlinuz"), begun.join("vmlinuz"))
            .map_err(Error::file("copying", kernel.path.join("vmlinuz")))?;
        let root = begun.join("root.ext4");
        fs::File::create(&root)
            .and_then(|file| file.set_len(SIZE))
            .map_err(Error::file("making", &root))?;
        said(
            program("mkfs.ext4")
                .args(["-q", "-F", "-L", "root", "-E", "root_owner=0:0"])
                .args(["-O", "^has_journal", "-d"])
                .arg(&tree.path)
                .arg(&root),
        )?;
        let _ = fs::remove_dir_all(&modules);
        write(&begun.join("recipe"), recipe)?;
        finish(&begun, &path)?;
        Ok(Self { path })
    }
}

fn depmod(tree: &Tree, kernel: &Kernel) -> Result<()> {
    said(inside(&tree.path, "depmod").arg(&kernel.release)).map(drop)
}

/// The files of modules and of those that they need, in the order of loading, as paths in the tree.
/// A module that this kernel has built in has none.
fn files_of(tree: &Tree, kernel: &Kernel, modules: &[&str]) -> Vec<String> {
    let mut files = Vec::new();
    for module in modules {
        // Modules that this kernel does not have are left out.
        let Ok(shown) = said(inside(&tree.path, "modprobe").args([
            "-S",
            &kernel.release,
            "--show-depends",
            module,
        ])) else {
            continue;
        };
        for line in String::from_utf8_lossy(&shown).lines() {
            if let Some(file) = line.strip_prefix("insmod ") {
                let file = file.split_whitespace().next().unwrap_or_default();
                let file = file.to_owned();
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
    }
    files
}

/// Removes the other files below a directory of the tree.
fn keep_only(directory: &Path, tree: &Path, wanted: &[String]) -> Result<()> {
    // `/lib` may be a link to `/usr/lib`: compared from `lib/modules` on.
    let from_modules = |path: &str| {
        path.split_once("lib/modules/")
            .map_or_else(|| path.to_owned(), |(_, rest)| rest.to_owned())
    };
    let wanted: HashSet<String> = wanted.iter().map(|path| from_modules(path)).collect();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).map_err(Error::file("listing", &directory))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let inside = path.strip_prefix(tree).unwrap_or(&path);
            if !wanted.contains(&from_modules(&inside.to_string_lossy())) {
                fs::remove_file(&path).map_err(Error::file("removing", &path))?;
            }
        }
    }
    Ok(())
}

/// A first file system of busybox and the disk's modules.
fn first_file_system(archive: &Archive, tree: &Tree, kernel: &Kernel, to: &Path) -> Result<()> {
    let root = to.join("first");
    for directory in ["bin", "proc", "sys", "dev", "new", "m"] {
        let path = root.join(directory);
        fs::create_dir_all(&path).map_err(Error::file("making", path))?;
    }
    let debs = to.join("debs");
    archive.download(&[format!("busybox-static/{}", tree.suite)], &debs)?;
    let unpack = "set -e; for deb in \"$1\"/busybox-static_*.deb; do dpkg-deb --fsys-tarfile \"$deb\" \
                  | tar --extract --to-stdout ./bin/busybox > \"$2\" || dpkg-deb --fsys-tarfile \"$deb\" \
                  | tar --extract --to-stdout ./usr/bin/busybox > \"$2\"; done; chmod 755 \"$2\"";
    let busybox = root.join("bin/busybox");
    said(
        program("sh")
            .args(["-c", unpack, "sh"])
            .arg(&debs)
            .arg(&busybox),
    )?;
    fs::remove_dir_all(&debs).map_err(Error::file("removing", &debs))?;
    let mut order = String::new();
    for file in files_of(tree, kernel, FIRST) {
        let name = Path::new(&file)
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let plain = name
            .trim_end_matches(".xz")
            .trim_end_matches(".zst")
            .to_owned();
        let from = tree.path.join(file.trim_start_matches('/'));
        let unpack = match name.rsplit('.').next() {
            Some("xz") => "xz",
            Some("zst") => "zstd",
            _ => "cat",
        };
        let script =
            "case $1 in cat) cat \"$2\";; *) $1 --decompress --stdout \"$2\";; esac > \"$3\"";
        said(
            program("sh")
                .args(["-c", script, "sh", unpack])
                .arg(from)
                .arg(root.join("m").join(&plain)),
        )?;
        order.push_str(&plain);
        order.push('\n');
    }
    for module in FIRST {
        let built_in = kernel.has_built_in(module)?;
        if !built_in && !order.lines().any(|file| file == format!("{module}.ko")) {
            return Err(Error::NoPackage {
                package: format!("module {module}"),
                suite: kernel.release.clone(),
            });
        }
    }
    write(&root.join("m/order"), order)?;
    write(&root.join("init"), INIT)?;
    said(program("chmod").arg("755").arg(root.join("init")))?;
    let pack = "cd \"$1\" && find . | ./bin/busybox cpio -o -H newc 2>/dev/null | gzip -1 > \"$2\"";
    said(
        program("sh")
            .args(["-c", pack, "sh"])
            .arg(&root)
            .arg(to.join("initrd.img")),
    )?;
    fs::remove_dir_all(&root).map_err(Error::file("removing", root))
}
