//! The form of a `resolv.conf` of ours: what stood there before is kept inside it, as comments behind a
//! marker. So it is one file, which tells by itself that it has to be put back, wherever it is mounted
//! and whoever stopped how.

use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The first line of a file of ours, up to the state directory.
const MARKER: &[u8] = b"#mixline-client: ";
/// Before a line of the earlier file that ended in a newline.
const LINE: &[u8] = b"#mixline-was:";
/// Before an earlier last line without a newline.
const LAST_LINE: &[u8] = b"#mixline-was-last:";
/// There was no file.
const ABSENT: &[u8] = b"#mixline-was-absent";

/// A file of ours, read back.
#[derive(Debug, PartialEq, Eq)]
pub struct Ours {
    /// The state directory of the client that wrote it.
    pub state_dir: PathBuf,
    /// The earlier file's bytes, `None` if there was none.
    pub before: Option<Vec<u8>>,
}

impl Ours {
    /// The file while the client is up, with `resolver` for its only server.
    pub fn written(before: Option<&[u8]>, state_dir: &Path, resolver: Ipv4Addr) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MARKER);
        out.extend_from_slice(state_dir.as_os_str().as_encoded_bytes());
        out.extend_from_slice(
        b"\n# Written while mixline-client is up. What stood here before is kept below and put\n\
          # back by `mixline-client down`, and by the next start after an unclean stop.\n",
    );
        match before {
            None => {
                out.extend_from_slice(ABSENT);
                out.push(b'\n');
            }
            Some(before) => {
                for line in before.split_inclusive(|byte| *byte == b'\n') {
                    out.extend_from_slice(if line.ends_with(b"\n") {
                        LINE
                    } else {
                        LAST_LINE
                    });
                    out.extend_from_slice(line);
                }
                if out.last() != Some(&b'\n') {
                    out.push(b'\n');
                }
                let kept = before.split(|byte| *byte == b'\n').filter(|line| {
                    line.starts_with(b"search")
                        || line.starts_with(b"domain")
                        || line.starts_with(b"options")
                });
                for line in kept {
                    out.extend_from_slice(line);
                    out.push(b'\n');
                }
            }
        }
        out.extend_from_slice(format!("nameserver {resolver}\n").as_bytes());
        out
    }

    /// What a client wrote; none if that is somebody else's file.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let state_dir = lines.next()?.strip_prefix(MARKER)?.strip_suffix(b"\n")?;
        let mut before = Vec::new();
        let mut absent = false;
        for line in lines {
            if let Some(line) = line.strip_prefix(LINE) {
                before.extend_from_slice(line);
            } else if let Some(line) = line.strip_prefix(LAST_LINE) {
                before.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
            } else if line.starts_with(ABSENT) {
                absent = true;
            }
        }
        Some(Self {
            state_dir: std::ffi::OsStr::from_bytes(state_dir).into(),
            before: (!absent).then_some(before),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stood_there_is_read_back() {
        let state = Path::new("/var/lib/mixline");
        let files: [Option<&[u8]>; 5] = [
            None,
            Some(b""),
            Some(b"nameserver 192.0.2.1"),
            Some(b"a\r\nb\xff\n"),
            Some(b"#mixline-was:x\n"),
        ];
        for before in files {
            let written = Ours::written(before, state, Ipv4Addr::new(10, 0, 0, 53));
            let read = Ours::parse(&written).unwrap();
            assert_eq!(read.state_dir, state);
            assert_eq!(read.before.as_deref(), before);
        }
        assert_eq!(Ours::parse(b"nameserver 192.0.2.1\n"), None);
    }
}
