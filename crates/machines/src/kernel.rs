//! A kernel of Debian's, unpacked and not installed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::archive::Archive;
use crate::run::{begin, finish, program, read, said, write};
use crate::{Error, Result};

/// Where kernels come from in which `igb` has zero-copy (from 6.14 on).
pub const SUITE: &str = "trixie-backports";
/// The oldest that will do.
const OLDEST: (u32, u32) = (6, 14);
/// The package that depends on the newest one with all drivers.
pub(crate) const PACKAGE: &str = "linux-image-amd64";

/// A kernel and its modules in a directory.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The directory: `vmlinuz`, and `modules` with the modules of all drivers.
    pub path: PathBuf,
    /// Its release, such as `7.3.4+deb13-amd64`.
    pub release: String,
}

impl Kernel {
    /// The newest kernel of [`SUITE`], fetched if it is not in `cache`.
    ///
    /// # Errors
    /// [`Error::OldKernel`]; if it cannot be fetched or unpacked.
    pub fn get(archive: &Archive, cache: &Path) -> Result<Self> {
        let version = archive.newest(PACKAGE, SUITE)?;
        let path = cache.join(format!("kernel-{}", version.replace(['~', '+', ':'], "-")));
        if let Ok(release) = read(&path.join("release")) {
            return Ok(Self { path, release });
        }
        if number(&version) < OLDEST {
            return Err(Error::OldKernel {
                suite: SUITE.into(),
                version,
            });
        }
        let begun = begin(&path)?;
        let packages = packages(archive, &version)?;
        let debs = begun.join("debs");
        archive.download(&packages, &debs)?;
        let unpacked = begun.join("unpacked");
        for deb in entries(&debs)? {
            said(program("dpkg-deb").arg("-x").arg(&deb).arg(&unpacked))?;
        }
        fs::remove_dir_all(&debs).map_err(Error::file("removing", &debs))?;
        // Until 6.x `lib/modules`, later `usr/lib/modules`.
        let modules = ["lib/modules", "usr/lib/modules"]
            .map(|place| unpacked.join(place))
            .into_iter()
            .find(|place| place.is_dir())
            .ok_or_else(|| absent("modules"))?;
        let modules = entries(&modules)?
            .into_iter()
            .next()
            .ok_or_else(|| absent("modules"))?;
        let release = modules
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let image = [
            unpacked.join(format!("boot/vmlinuz-{release}")),
            modules.join("vmlinuz"),
        ]
        .into_iter()
        .find(|file| file.is_file())
        .ok_or_else(|| absent("vmlinuz"))?;
        fs::copy(&image, begun.join("vmlinuz")).map_err(Error::file("copying", image))?;
        let kept = begun.join("modules");
        fs::rename(&modules, &kept).map_err(Error::file("renaming", modules))?;
        fs::remove_dir_all(&unpacked).map_err(Error::file("removing", unpacked))?;
        write(&begun.join("release"), &release)?;
        finish(&begun, &path)?;
        Ok(Self { path, release })
    }
}

impl Kernel {
    /// Whether a module is a part of the kernel itself.
    pub(crate) fn has_built_in(&self, module: &str) -> Result<bool> {
        let list = read(&self.path.join("modules/modules.builtin"))?;
        let file = format!("/{module}.ko");
        Ok(list.lines().any(|line| line.ends_with(&file)))
    }
}

/// The packages that the newest kernel consists of: one until 6.x, several later.
fn packages(archive: &Archive, version: &str) -> Result<Vec<String>> {
    let shown = said(
        archive
            .apt("apt-cache")
            .args(["show", &format!("{PACKAGE}={version}")]),
    )?;
    let shown = String::from_utf8_lossy(&shown).into_owned();
    let release = shown
        .lines()
        .find(|line| line.starts_with("Depends:"))
        .and_then(|line| {
            line.split([' ', ',', '('])
                .find_map(|word| word.strip_prefix("linux-image-"))
        })
        .ok_or_else(|| absent("release"))?
        .to_owned();
    let parts = ["image", "base", "binary", "modules"];
    Ok(parts
        .into_iter()
        .map(|part| format!("linux-{part}-{release}={version}"))
        .filter(|name| said(archive.apt("apt-cache").args(["show", name])).is_ok())
        .collect())
}

fn absent(what: &str) -> Error {
    Error::NoPackage {
        package: format!("{PACKAGE} with {what} where it is expected"),
        suite: SUITE.into(),
    }
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(directory).map_err(Error::file("listing", directory))?;
    Ok(listed.flatten().map(|entry| entry.path()).collect())
}

/// The first two numbers of a version.
fn number(version: &str) -> (u32, u32) {
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok());
    (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(number("7.3.4-1~bpo13+1"), (7, 3));
        assert!(number("6.12.3-1") < OLDEST);
        assert!(number("6.14-1") >= OLDEST);
        assert_eq!(number(""), (0, 0));
    }
}
