//! iperf3 between the client's and the service's namespaces, over the virtual address.

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mixline_testnet::netns;
use mixline_testnet::process::{POLL, wait_for};
use mixline_testnet::topology::Node;
use mixline_testnet::{Network, interrupted};
use serde_json::{Value, json};

/// iperf3's port.
const PORT: u16 = 5201;
/// At most how often a test is begun.
const ATTEMPTS: u32 = 3;

/// iperf3 failed before it had connected its streams, and says why.
#[derive(Debug, thiserror::Error)]
#[error("iperf3: {0}")]
struct NotBegun(String);

/// A server in the service's namespace. Dropping it kills it.
pub struct Server(Child);

impl Server {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// If it does not.
    pub fn start() -> Result<Self> {
        let child = netns::command(&Node::Service.namespace(), "iperf3")
            .arg("--server")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("running iperf3")?;
        let server = Self(child);
        wait_for("iperf3 to listen", Duration::from_secs(10), || {
            let output = netns::command(&Node::Service.namespace(), "ss")
                .args(["-Hltn", &format!("sport = :{PORT}")])
                .output()?;
            anyhow::Ok((!output.stdout.is_empty()).then_some(()))
        })?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client that runs. Dropping it kills it.
pub struct Client {
    child: Child,
    output: std::path::PathBuf,
    until: Instant,
}

impl Client {
    /// Starts one in the client's namespace, for `time`.
    ///
    /// # Errors
    /// If there is no iperf3.
    pub fn start(
        network: &Network,
        to: Ipv4Addr,
        time: Duration,
        options: &[&str],
    ) -> Result<Self> {
        let output = network.directory().join("iperf3.json");
        let child = netns::command(&Node::Client.namespace(), "iperf3")
            .args(["--json", "--interval", "0", "--client", &to.to_string()])
            .args(["--time", &time.as_secs().to_string()])
            .args(options)
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(Stdio::null())
            .spawn()
            .context("running iperf3")?;
        Ok(Self {
            child,
            output,
            until: Instant::now() + time + Duration::from_secs(30),
        })
    }

    /// Waits for its end and reads what it measured.
    ///
    /// # Errors
    /// If it fails, or takes far longer than it was to.
    pub fn finish(mut self) -> Result<Value> {
        while self.child.try_wait()?.is_none() {
            if interrupted() {
                bail!("interrupted");
            }
            if Instant::now() >= self.until {
                bail!("iperf3 does not end");
            }
            std::thread::sleep(POLL);
        }
        let text = std::fs::read_to_string(&self.output)?;
        let value: Value = serde_json::from_str(&text).context("reading what iperf3 says")?;
        match value["error"].as_str() {
            Some(error) if value["start"]["connected"] == json!([]) => {
                Err(NotBegun(error.into()).into())
            }
            Some(error) => bail!("iperf3: {error}"),
            None => Ok(value),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is measured with one test of iperf3, or with the next if that never began: the server ends a
/// test at once when datagrams of the one before are still under way to it.
///
/// # Errors
/// If the test fails, or three of them do not begin.
pub fn patiently<T>(mut measure: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..ATTEMPTS {
        match measure() {
            Err(error) if error.is::<NotBegun>() => {
                eprintln!("path: {error}: once more");
                std::thread::sleep(Duration::from_secs(1));
            }
            done => return done,
        }
    }
    measure()
}

/// Bytes a second that TCP delivered.
///
/// # Errors
/// If iperf3 does not say.
pub fn delivered(said: &Value) -> Result<f64> {
    let bits = said["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.context("iperf3 does not say what was received")? / 8.0)
}

/// Bytes a second that UDP sent, and the share of its datagrams that did not arrive.
///
/// # Errors
/// If iperf3 does not say.
pub fn loss(said: &Value) -> Result<(f64, f64)> {
    let end = &said["end"];
    let sent = match end["sum_sent"]["bits_per_second"].as_f64() {
        Some(bits) => Some(bits),
        None => end["sum"]["bits_per_second"].as_f64(),
    };
    let received = &end["sum_received"];
    let of = if received["packets"].as_f64().unwrap_or(0.0) > 0.0 {
        received
    } else {
        &end["sum"]
    };
    let (Some(bits), Some(lost), Some(packets)) =
        (sent, of["lost_packets"].as_f64(), of["packets"].as_f64())
    else {
        bail!("iperf3 does not say what was lost");
    };
    Ok((bits / 8.0, lost.max(0.0) / packets.max(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_test_that_never_began_is_begun_again() {
        let mut count = 0;
        let mut fail = |error: fn() -> anyhow::Error| {
            count = 0;
            let outcome = patiently(|| {
                count += 1;
                if count < 3 { Err(error()) } else { Ok(()) }
            });
            (outcome.is_ok(), count)
        };
        assert_eq!(fail(|| NotBegun("busy".into()).into()), (true, 3));
        assert_eq!(fail(|| anyhow::anyhow!("lost")), (false, 1));
    }

    #[test]
    fn figures_of_tcp_and_udp() {
        let tcp = json!({"end": {"sum_received": {"bits_per_second": 800.0}}});
        assert_eq!(delivered(&tcp).unwrap(), 100.0);
        let udp = json!({"end": {
            "sum_sent": {"bits_per_second": 1600.0, "packets": 0},
            "sum": {"bits_per_second": 1600.0, "packets": 50, "lost_packets": 5},
            "sum_received": {"packets": 0, "lost_packets": 0},
        }});
        assert_eq!(loss(&udp).unwrap(), (200.0, 0.1));
        assert!(delivered(&udp).is_err() && loss(&tcp).is_err());
    }
}
