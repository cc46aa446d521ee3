//! What the service offers: a page, a large file and pages of virtual hosts, on a static web server
//! (nginx) with a configuration of its own.

use crate::error::{Error, Result, SystemContext as _};
use crate::fetch::sha256_file;
use crate::process::{Process, Program};
use crate::topology::Node;
use ring::rand::{SecureRandom, SystemRandom};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A sentence of the page, to look for in captures.
pub const PAGE_SENTENCE: &str = "Whoever reads this does not know where it comes from.";
/// Bytes of the large file: 100 MB.
pub const DOWNLOAD_BYTES: u64 = 100_000_000;
/// Names with a page of their own below the service's name; at every other name, and at its
/// addresses, is the page.
pub const VIRTUAL_HOSTS: [&str; 2] = ["www.freespeech.anon", "blog.freespeech.anon"];
/// The large file's name.
pub const DOWNLOAD_NAME: &str = "download.bin";

/// The files that are served, with their SHA-256.
#[derive(Clone, Debug)]
pub struct Site {
    /// Where they are.
    pub directory: PathBuf,
    /// SHA-256 of the page, hexadecimal.
    pub page_sha256: String,
    /// SHA-256 of the large file, hexadecimal.
    pub download_sha256: String,
}

impl Site {
    /// A sentence of the page of a virtual host, which no other page has.
    #[must_use]
    pub fn sentence_of(virtual_host: &str) -> String {
        format!("Only {virtual_host} has this page.")
    }

    /// Writes the files anew; the large one is random, so that nothing can compress it.
    pub fn create(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).file("making", directory)?;
        let page = directory.join("index.html");
        fs::write(
            &page,
            format!(
                "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
                 <title>freespeech.anon</title>\n<h1>freespeech.anon</h1>\n\
                 <p>{PAGE_SENTENCE}</p>\n\
                 <p><a href=\"/{DOWNLOAD_NAME}\">100 MB to download</a></p>\n</html>\n"
            ),
        )
        .file("writing", &page)?;
        for host in VIRTUAL_HOSTS {
            let root = directory.join(host);
            fs::create_dir_all(&root).file("making", &root)?;
            let page = root.join("index.html");
            fs::write(&page, format!("<p>{}</p>\n", Self::sentence_of(host)))
                .file("writing", &page)?;
        }
        let download = directory.join(DOWNLOAD_NAME);
        write_random(&download, DOWNLOAD_BYTES)?;
        Ok(Self {
            directory: directory.to_path_buf(),
            page_sha256: sha256_file(&page)?,
            download_sha256: sha256_file(&download)?,
        })
    }

    /// Starts the web server in the service's namespace, on the given addresses only: a service
    /// that also listens on its real address gives itself away.
    pub fn serve(&self, directory: &Path, addresses: &[IpAddr]) -> Result<Process> {
        self.serve_in(&Node::Service.namespace(), directory, addresses)
    }

    /// The same in another namespace. `directory` has `configs` and `logs` in it.
    pub fn serve_in(
        &self,
        namespace: &str,
        directory: &Path,
        addresses: &[IpAddr],
    ) -> Result<Process> {
        let work = directory.join("nginx");
        fs::create_dir_all(&work).file("making", &work)?;
        let config = directory.join("configs/nginx.conf");
        fs::write(&config, self.nginx_config(&work, addresses)).file("writing", &config)?;
        Program {
            namespace: namespace.to_owned(),
            executable: "nginx".into(),
            arguments: vec![
                "-e".into(),
                "stderr".into(),
                "-p".into(),
                work.into(),
                "-c".into(),
                config.into(),
            ],
            environment: Vec::new(),
            log: directory.join("logs/nginx.log"),
        }
        .start()
    }

    fn nginx_config(&self, work: &Path, addresses: &[IpAddr]) -> String {
        let listen: String = addresses
            .iter()
            .map(|address| match address {
                IpAddr::V4(address) => format!("    listen {address}:80;\n"),
                IpAddr::V6(address) => format!("    listen [{address}]:80;\n"),
            })
            .collect();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|what| format!("  {what}_temp_path \"{}/{what}\";\n", work.display()))
            .collect();
        let server = |name: &str, root: &Path| {
            format!(
                "  server {{\n{listen}{name}    root \"{root}\";\n\
                 \x20   default_type application/octet-stream;\n\
                 \x20   types {{ text/html html; }}\n  }}\n",
                root = root.display(),
            )
        };
        // The first one is asked by whatever name no other has.
        let mut servers = server("", &self.directory);
        for host in VIRTUAL_HOSTS {
            let name = format!("    server_name {host};\n");
            servers += &server(&name, &self.directory.join(host));
        }
        // Who sleeps for 45 s may find TCP in a pause of a minute; nginx would give up after 60 s.
        format!(
            "daemon off;\nmaster_process off;\npid \"{work}/nginx.pid\";\nerror_log stderr;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n  access_log \"{work}/access.log\";\n  sendfile on;\n  \
             send_timeout 1h;\n{temporary}{servers}}}\n",
            work = work.display(),
        )
    }
}

/// Fills a file with random bytes.
fn write_random(path: &Path, bytes: u64) -> Result<()> {
    let random = SystemRandom::new();
    let mut file = BufWriter::new(File::create(path).file("making", path)?);
    let mut block = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).map_or(block.len(), |left| left.min(block.len()));
        let part = &mut block[..now];
        random.fill(part).map_err(|_| Error::NoRandomNumbers)?;
        file.write_all(part).file("writing", path)?;
        left -= now as u64;
    }
    file.flush().file("writing", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_server_has_no_name_and_the_others_have_theirs() {
        let site = Site {
            directory: "/site".into(),
            page_sha256: String::new(),
            download_sha256: String::new(),
        };
        let config = site.nginx_config(Path::new("/work"), &["192.0.2.1".parse().unwrap()]);
        let servers: Vec<&str> = config.split("server {").skip(1).collect();
        assert_eq!(servers.len(), 1 + VIRTUAL_HOSTS.len(), "{config}");
        assert!(!servers[0].contains("server_name"), "{config}");
        for (server, host) in servers[1..].iter().zip(VIRTUAL_HOSTS) {
            assert!(server.contains(&format!("server_name {host};")), "{server}");
            assert!(
                server.contains(&format!("root \"/site/{host}\";")),
                "{server}"
            );
            assert!(server.contains("listen 192.0.2.1:80;"), "{server}");
        }
    }

    #[test]
    fn random_files_have_their_length_and_differ() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("1"), directory.path().join("2"));
        write_random(&one, 3_000_000).unwrap();
        write_random(&two, 3_000_000).unwrap();
        assert_eq!(fs::metadata(&one).unwrap().len(), 3_000_000);
        assert_ne!(sha256_file(&one).unwrap(), sha256_file(&two).unwrap());
    }
}
