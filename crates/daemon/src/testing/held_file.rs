//! A file that is not whole yet: who reads it waits.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// Between two looks for a reader.
const LOOK: Duration = Duration::from_millis(5);

/// A file that is held back from its first reader.
#[derive(Debug)]
pub struct HeldFile {
    path: PathBuf,
    aside: PathBuf,
}

impl HeldFile {
    /// Holds a file back that is there.
    ///
    /// # Errors
    /// Those of `rename(2)` and `mkfifo(3)`.
    pub fn hold(path: &Path) -> io::Result<Self> {
        let aside = path.with_extension("held");
        fs::rename(path, &aside)?;
        mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        Ok(Self {
            path: path.to_owned(),
            aside,
        })
    }

    /// Waits until somebody reads, who then waits, too. The rest of the file comes with
    /// [`HeldReader::go_on`].
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`].
    pub fn wait_for_reader(self, patience: Duration) -> io::Result<HeldReader> {
        let end = Instant::now() + patience;
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(OFlag::O_NONBLOCK.bits());
        loop {
            match options.open(&self.path) {
                Ok(pipe) => return Ok(HeldReader { file: self, pipe }),
                // Nobody reads yet: ENXIO.
                Err(_) if Instant::now() < end => std::thread::sleep(LOOK),
                Err(error) => return Err(io::Error::new(io::ErrorKind::TimedOut, error)),
            }
        }
    }
}

/// One who reads and waits.
#[derive(Debug)]
pub struct HeldReader {
    file: HeldFile,
    pipe: File,
}

impl HeldReader {
    /// Gives the reader the file, as it is for everybody else from now on.
    ///
    /// # Errors
    /// Those of reading the file, and of writing to the reader.
    pub fn go_on(mut self) -> io::Result<()> {
        let text = fs::read(&self.file.aside)?;
        fs::rename(&self.file.aside, &self.file.path)?;
        self.pipe.write_all(&text)
    }
}
