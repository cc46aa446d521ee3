//! Fetching by curl inside a namespace, as a user would, with curl's own measurements.

use crate::error::{Error, Result, SystemContext as _};
use crate::netns;
use crate::signals::interrupted;
use ring::digest;
use serde::Deserialize;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// What curl measured. Times are in seconds from the start of the request, name resolution included.
#[derive(Clone, Debug, Deserialize)]
pub struct Fetched {
    /// HTTP status.
    pub response_code: u32,
    /// Bytes of the body.
    pub size_download: u64,
    /// Until the first byte of the answer.
    pub time_starttransfer: f64,
    /// Until the last.
    pub time_total: f64,
    /// The server's address.
    pub remote_ip: String,
}

impl Fetched {
    /// Bytes per second, from the request to the last byte.
    pub fn bytes_per_s(&self) -> f64 {
        self.size_download as f64 / self.time_total.max(f64::EPSILON)
    }
}

/// Fetches a URL into a file, with further options for curl.
pub fn fetch(namespace: &str, url: &str, to: &Path, options: &[&str]) -> Result<Fetched> {
    let mut child = netns::command(namespace, "curl")
        .args([
            "--silent",
            "--show-error",
            "--fail",
            "--write-out",
            "%{json}",
            "--output",
        ])
        .arg(to)
        .args(options)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .program("running curl")?;
    // A few hundred bytes come from curl, which fit its pipes, so it may end before they are read.
    while child.try_wait().program("waiting for curl")?.is_none() {
        if interrupted() {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::Interrupted {
                doing: format!("fetching {url}"),
            });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().program("waiting for curl")?;
    if !output.status.success() {
        return Err(Error::failed(url, &output));
    }
    serde_json::from_slice(&output.stdout).map_err(|source| Error::Json {
        doing: format!("reading what curl says of {url}"),
        source,
    })
}

/// Fetches a small document.
pub fn fetch_bytes(namespace: &str, url: &str) -> Result<Vec<u8>> {
    let output = netns::command(namespace, "curl")
        .args([
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "10",
            url,
        ])
        .stdin(Stdio::null())
        .output()
        .program("running curl")?;
    if !output.status.success() {
        return Err(Error::failed(url, &output));
    }
    Ok(output.stdout)
}

/// SHA-256 of a file, hexadecimal.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).file("opening", path)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut block = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut block).file("reading", path)?;
        if read == 0 {
            break;
        }
        context.update(&block[..read]);
    }
    Ok(context
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_abc() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        // FIPS 180-4's example.
        assert_eq!(
            sha256_file(file.path()).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_rate_is_bytes_over_the_whole_time() {
        let fetched: Fetched = serde_json::from_str(
            r#"{"response_code":200,"size_download":1000,"time_starttransfer":0.1,
                "time_total":0.5,"remote_ip":"10.1.2.3","more":"ignored"}"#,
        )
        .unwrap();
        assert!((fetched.bytes_per_s() - 2000.0).abs() < 1e-9);
    }
}
