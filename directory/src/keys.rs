//! The state directory and the secrets in it.
//!
//! ```text
//! state_dir/             0700
//!   identity.key         0600  32 bytes: the Ed25519 seed that is the directory's ID
//!   online.key           0600  32 bytes, one of several directories: the Ed25519 seed that signs; its identity is elsewhere
//!   online.cert                the certificate of that key by the identity
//!   session.key          0600  32 bytes: the X25519 secret of its sessions
//!   directory.redb       0600  the records
//!   endpoint/            0700  what the endpoint remembers (guards)
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mixline_protocol::identity::{IdentityKey, X25519Secret};
use mixline_protocol::random::OsRandom;
use zeroize::Zeroizing;

use crate::{Error, Result};

const IDENTITY: &str = "identity.key";
const SESSION: &str = "session.key";
const ONLINE: &str = "online.key";

/// The directory's secrets.
pub struct Keys {
    /// Its ID: signs snapshots and leases, and is the endpoint's too.
    pub identity: IdentityKey,
    /// For sessions with it.
    pub session: X25519Secret,
}

/// Where the records are.
#[must_use]
pub fn database(state_dir: &Path) -> PathBuf {
    state_dir.join("directory.redb")
}

/// Where the endpoint remembers its guards.
#[must_use]
pub fn endpoint_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("endpoint")
}

/// Makes the state directory and the keys.
///
/// # Errors
/// [`Error::State`] if there are keys already, or they cannot be written.
pub fn create(state_dir: &Path) -> Result<Keys> {
    match DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir)
    {
        Ok(()) => {}
        Err(e) => return Err(state(state_dir, e)),
    }
    let mut rng = OsRandom::new();
    let keys = Keys {
        identity: IdentityKey::generate(&mut rng),
        session: X25519Secret::generate(&mut rng),
    };
    // The identity last: with it the state is complete.
    let identity = state_dir.join(IDENTITY);
    if identity.exists() {
        return Err(there(&identity));
    }
    let session = state_dir.join(SESSION);
    match write_new(&session, &keys.session.to_bytes()) {
        Err(Error::State { .. }) if session.exists() => {
            // Left by one that stopped half way.
            fs::remove_file(&session).map_err(|e| state(&session, e))?;
            write_new(&session, &keys.session.to_bytes())?;
        }
        other => other?,
    }
    write_new(&identity, &keys.identity.seed())?;
    Ok(keys)
}

/// Reads the keys.
///
/// # Errors
/// [`Error::State`] if they are missing, damaged, or not kept secret.
pub fn load(state_dir: &Path) -> Result<Keys> {
    fs::read_dir(state_dir).map_err(|e| {
        let hint = match e.kind() {
            ErrorKind::NotFound => "; `mixline-directory init` makes it",
            ErrorKind::PermissionDenied => "; run as the user that owns it",
            _ => "",
        };
        let reason = format!("cannot read the state directory: {e}{hint}");
        Error::State {
            path: state_dir.to_owned(),
            reason,
        }
    })?;
    Ok(Keys {
        identity: IdentityKey::from_seed(*read(&state_dir.join(IDENTITY))?),
        session: X25519Secret::from_bytes(*read(&state_dir.join(SESSION))?),
    })
}

/// Reads the secrets of one of several directories: its identity is elsewhere, and its online key stands for it.
///
/// # Errors
/// As [`load`].
pub fn load_of_several(state_dir: &Path) -> Result<Keys> {
    Ok(Keys {
        identity: load_online(state_dir)?,
        session: X25519Secret::from_bytes(*read(&state_dir.join(SESSION))?),
    })
}

/// Makes the identity of one of several directories, in a file of its own.
///
/// # Errors
/// [`Error::State`] if it cannot be written, or there is one.
pub fn create_identity(file: &Path) -> Result<IdentityKey> {
    let key = IdentityKey::generate(&mut OsRandom::new());
    write_new(file, &key.seed())?;
    Ok(key)
}

/// Reads what [`create_identity`] has written.
///
/// # Errors
/// [`Error::State`] if it is missing, damaged, or not kept secret.
pub fn load_identity(file: &Path) -> Result<IdentityKey> {
    Ok(IdentityKey::from_seed(*read(file)?))
}

/// Makes the state directory of one of several directories, and its session key, where they are not there.
///
/// # Errors
/// [`Error::State`] if they cannot be written.
pub fn prepare_online(state_dir: &Path) -> Result<()> {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir);
    made.map_err(|e| state(state_dir, e))?;
    let session = state_dir.join(SESSION);
    if session.exists() {
        return Ok(());
    }
    let key = X25519Secret::generate(&mut OsRandom::new());
    write_new(&session, &key.to_bytes())
}

/// Reads the key that signs from day to day.
///
/// # Errors
/// As [`load`].
pub fn load_online(state_dir: &Path) -> Result<IdentityKey> {
    Ok(IdentityKey::from_seed(*read(&state_dir.join(ONLINE))?))
}

/// Writes the key that signs from day to day, in place of the one before.
///
/// # Errors
/// [`Error::State`] if it cannot be written.
pub fn replace_online(state_dir: &Path, key: &IdentityKey) -> Result<()> {
    let path = state_dir.join(ONLINE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(state(&path, error)),
        _ => {}
    }
    write_new(&path, &key.seed())
}

fn read(path: &Path) -> Result<Zeroizing<[u8; 32]>> {
    let mut file = File::open(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => Error::State {
            path: path.to_owned(),
            reason: "there is no key; `mixline-directory init` makes one".into(),
        },
        _ => state(path, e),
    })?;
    let about = file.metadata().map_err(|e| state(path, e))?;
    if about.mode() & 0o077 != 0 {
        let reason = "others can read this key; chmod 600 it, or make a new one if they did";
        return Err(Error::State {
            path: path.to_owned(),
            reason: reason.into(),
        });
    }
    let damaged = || Error::State {
        path: path.to_owned(),
        reason: "damaged: a key is 32 bytes; restore it from a backup".into(),
    };
    if about.len() != 32 {
        return Err(damaged());
    }
    let mut key = Zeroizing::new([0; 32]);
    file.read_exact(key.as_mut()).map_err(|_| damaged())?;
    Ok(key)
}

/// Writes a file whole and durably, or not at all, and only where none is.
fn write_new(path: &Path, bytes: &[u8; 32]) -> Result<()> {
    let partial = path.with_extension(format!("new-{}", std::process::id()));
    let failed = |e| state(path, e);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // Unlike a rename, a link does not replace what is there.
        fs::hard_link(&partial, path)
    })();
    let removed = fs::remove_file(&partial);
    match written {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(there(path)),
        other => other.map_err(failed)?,
    }
    removed.map_err(failed)?;
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| state(parent, e))
}

fn there(path: &Path) -> Error {
    let reason = "there is a key already; it is the directory's ID, so it is not replaced";
    Error::State {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

fn state(path: &Path, error: std::io::Error) -> Error {
    Error::State {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_kept_secret() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("a/b");
        assert!(load(&state_dir).is_err_and(|e| e.to_string().contains("init")));
        let made = create(&state_dir).unwrap();
        assert!(create(&state_dir).is_err_and(|e| e.to_string().contains("already")));
        let loaded = load(&state_dir).unwrap();
        assert_eq!(made.identity.public(), loaded.identity.public());
        assert!(made.session == loaded.session);
        for name in [IDENTITY, SESSION] {
            assert_eq!(
                fs::metadata(state_dir.join(name)).unwrap().mode() & 0o777,
                0o600
            );
        }
        assert_eq!(fs::metadata(&state_dir).unwrap().mode() & 0o777, 0o700);
        assert_eq!(
            fs::read_dir(&state_dir).unwrap().count(),
            2,
            "nothing else is left there"
        );
    }

    #[test]
    fn an_init_that_stopped_half_way_is_repeated() {
        let dir = tempfile::tempdir().unwrap();
        write_new(&dir.path().join(SESSION), &[1; 32]).unwrap();
        let made = create(dir.path()).unwrap();
        assert!(load(dir.path()).unwrap().session == made.session);
    }

    #[test]
    fn keys_that_are_damaged_or_open_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path()).unwrap();
        let path = dir.path().join(IDENTITY);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load(dir.path()).is_err_and(|e| e.to_string().contains("others can read")));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"short").unwrap();
        assert!(load(dir.path()).is_err_and(|e| e.to_string().contains("damaged")));
    }
}
