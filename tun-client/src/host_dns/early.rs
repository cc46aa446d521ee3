//! What systemd-resolved knows of the client's link when it starts.
//!
//! It is told by D-Bus, which a booting machine has only some time after systemd-resolved: until then
//! it would ask others for names of ours. It keeps what it was told of a link in a file, and reads that
//! when it first sees the link (systemd, `link_load_user`). The form of that file is its own affair; one
//! that it does not understand tells it nothing, and D-Bus does so later.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::resolved::Routing;

/// Where systemd-resolved has its files.
pub const DIRECTORY: &str = "/run/systemd/resolve";
/// The directory of those about links, each by the link's index, and who may look into it.
const LINKS: &str = "netif";
const LINKS_MODE: u32 = 0o700;

/// Writes it down, unless something is written there: then systemd-resolved was told since the machine
/// started. To be called before the link is there, or before systemd-resolved is.
///
/// The directory may be systemd-resolved's own, which has fewer rights: no link in it is followed, and
/// nothing that is there is changed.
///
/// # Errors
/// What the file system says.
pub fn write_down(routing: &Routing, directory: &Path) -> io::Result<()> {
    let links = directory.join(LINKS);
    // Without systemd-resolved they are this program's; with its first start all of them become its own
    // (systemd.exec(5), `RuntimeDirectory=`).
    if !directory.exists() {
        DirBuilder::new().recursive(true).create(directory)?;
        fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    }
    let made = match DirBuilder::new().mode(LINKS_MODE).create(&links) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        made => made.is_ok(),
    };
    let links = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits())
        .open(&links)?;
    if made {
        let owner = fs::metadata(directory)?;
        fchown(&links, Some(owner.uid()), Some(owner.gid()))?;
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let name = routing.link.to_string();
    let mut file = match openat(
        &links,
        name.as_str(),
        flags,
        Mode::from_bits_truncate(0o644),
    ) {
        Ok(file) => File::from(file),
        Err(Errno::EEXIST) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    // Whatever the mask of this process is.
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(text(routing).as_bytes())
}

fn text(routing: &Routing) -> String {
    let routes = routing.domains().iter().map(|domain| format!("~{domain}"));
    let routes: Vec<String> = routes.collect();
    format!(
        "# This is private data. Do not parse.\n\
         LLMNR=no\n\
         MDNS=no\n\
         DNSSEC=no\n\
         DEFAULT_ROUTE=no\n\
         SERVERS={}\n\
         DOMAINS={}\n",
        routing.resolver,
        routes.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::unix::fs::symlink;

    use mixline_protocol::address::VirtualNetwork;

    use super::*;

    #[test]
    fn what_is_written_is_left_alone_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let resolve = directory.path().join("systemd/resolve");
        let resolver = Ipv4Addr::new(10, 0, 0, 53);
        let routing = Routing::new(28159, resolver, &VirtualNetwork::default(), &[]);
        write_down(&routing, &resolve).unwrap();
        let file = resolve.join("netif/28159");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("\nSERVERS=10.0.0.53\n"), "{text}");
        assert!(text.contains("\nDOMAINS=~anon ~d.f.ip6.arpa "), "{text}");
        assert!(text.contains(" ~10.in-addr.arpa\n"), "{text}");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&resolve.join("netif")), 0o700);
        assert_eq!([mode(&resolve), mode(&file)], [0o755, 0o644]);
        fs::write(&file, "its own").unwrap();
        write_down(&routing, &resolve).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "its own");
        assert_eq!(fs::read_dir(resolve.join("netif")).unwrap().count(), 1);
    }

    #[test]
    fn no_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (resolve, other) = (
            directory.path().join("resolve"),
            directory.path().join("other"),
        );
        fs::create_dir(&resolve).unwrap();
        fs::create_dir(&other).unwrap();
        let resolver = Ipv4Addr::new(10, 0, 0, 53);
        let routing = Routing::new(28159, resolver, &VirtualNetwork::default(), &[]);
        symlink(&other, resolve.join("netif")).unwrap();
        assert!(write_down(&routing, &resolve).is_err());
        fs::remove_file(resolve.join("netif")).unwrap();
        fs::create_dir(resolve.join("netif")).unwrap();
        symlink(other.join("planted"), resolve.join("netif/28159")).unwrap();
        write_down(&routing, &resolve).unwrap();
        assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
    }
}
