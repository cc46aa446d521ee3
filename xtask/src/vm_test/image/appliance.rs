//! Two machines on a cable: the image's, and one at the far end, from where an operator looks at it.

use super::BOOT;
use crate::run::said;
use anyhow::{Context, Result, bail};
use mixline_machines::appliance::{Appliance, Setup};
use mixline_machines::disk::Disk;
use mixline_machines::machine::{self, Card, Joint, Machine};
use mixline_machines::shell::Answer;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a command that only looks may take. Two machines without hardware support share a host.
const SHORT: Duration = Duration::from_secs(240);
/// The cable between both.
const CABLE: u32 = 1;
/// The far end, which is also the way out; the directory; other relays; the image's machine.
const FAR: &str = "198.51.100.1";
const DIRECTORY: &str = "198.51.100.1:8080";
const OTHERS: [&str; 2] = ["192.0.2.2", "203.0.113.3"];
const APPLIANCE: &str = "198.51.100.20";
/// The relay of the image, and the name of a service.
const RELAY: &str = "appliance";
const SERVICE: &str = "appliance-test";
/// An ID of no directory.
const NOBODY: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// How the relay answers.
const STATUS: &str = "mixline-relay status --config /etc/mixline/relay.yaml";

/// Where a file system begins in the image, in bytes; the second partition's.
const ROOT: u64 = 513 << 20;

/// Fails if the image has what would make two machines the same, or let anybody in.
pub fn is_nobodys(image: &Path) -> Result<()> {
    let look = |command: &str| {
        said(
            Command::new("/sbin/debugfs")
                .args(["-R", command])
                .arg(format!("{}?offset={ROOT}", image.display())),
        )
    };
    if !look("cat /etc/machine-id")?.trim().is_empty() {
        bail!("a machine ID");
    }
    let keys = look("ls -p /etc/ssh")?;
    if !keys.contains("sshd_config") || keys.contains("ssh_host_") {
        bail!("keys of a host:\n{keys}");
    }
    let shadow = look("cat /etc/shadow")?;
    if !shadow.contains("root:") {
        bail!("no users:\n{shadow}");
    }
    for line in shadow.lines() {
        let password = line.split(':').nth(1).unwrap_or_default();
        if !(password.starts_with('*') || password.starts_with('!')) {
            bail!("a password: {line}");
        }
    }
    let configuration = look("ls -p /etc/mixline")?;
    if !configuration.contains("relay.yaml.example") || configuration.contains("/relay.yaml/") {
        bail!("a configuration, or no package:\n{configuration}");
    }
    Ok(())
}

/// The machines, and what is known of them.
pub struct Lab {
    far: Machine,
    socket: PathBuf,
    shared: PathBuf,
    /// The line of the directory's network.
    network: String,
    image: Option<Appliance>,
}

impl Lab {
    /// Starts the far end: a directory, two relays, and addresses by DHCP.
    pub fn far_end(disk: &Disk, directory: &Path, shared: &Path) -> Result<Self> {
        let socket = directory.join("cable.socket");
        let _ = fs::remove_file(&socket);
        let card = Card::virtio(CABLE, 1);
        let far = Machine::start(
            disk,
            &machine::Setup {
                name: "far".into(),
                processors: 1,
                memory: 1024,
                cards: vec![card.clone()],
                joints: vec![Joint {
                    cable: CABLE,
                    socket: socket.clone(),
                    first: true,
                }],
                shared: shared.to_owned(),
                directory: directory.join("far"),
            },
        )?;
        let mut lab = Self {
            far,
            socket,
            shared: shared.to_owned(),
            network: String::new(),
            image: None,
        };
        let network = lab.addresses(&card.mac).and_then(|()| lab.network());
        network.with_context(|| lab.tell())?;
        Ok(lab)
    }

    fn addresses(&mut self, mac: &str) -> Result<()> {
        let network = format!(
            "[Match]\nMACAddress={mac}\n[Network]\nAddress={FAR}/24\nAddress={}/32\nAddress={}/32\nDHCPServer=yes\n\
             [DHCPServer]\nServerAddress={FAR}/24\nPoolOffset=10\nPoolSize=5\nEmitDNS=no\n\
             [DHCPServerStaticLease]\nMACAddress={}\nAddress={APPLIANCE}\n",
            OTHERS[0],
            OTHERS[1],
            Card::igb(CABLE, 2).mac
        );
        self.far(&format!(
            "printf '%s' '{network}' > /etc/systemd/network/10-far.network && networkctl reload"
        ))?;
        self.until(&format!("ip -4 -o addr | grep -q '{FAR}/24'"), 60)
    }

    /// A directory, and as many relays as a network needs beside the image's.
    fn network(&mut self) -> Result<()> {
        let yaml = format!(
            "state_dir: /run/directory\nlisten: \"{DIRECTORY}\"\nallow_private_addresses: true\n\
             check_source: false\n"
        );
        let id = self.far(&format!(
            "printf '%s' '{yaml}' > /run/directory.yaml && install -d -m 700 /run/directory && \
             /host/release/mixline-directory init --config /run/directory.yaml && \
             systemd-run --quiet --unit=directory /host/release/mixline-directory --config /run/directory.yaml"
        ))?;
        let id = id
            .split_whitespace()
            .find(|word| word.len() == 52)
            .with_context(|| format!("`init` printed `{id}`"))?
            .to_owned();
        for (number, address) in (1..).zip(OTHERS) {
            let yaml = format!(
                "name: other{number}\nstate_dir: /run/other{number}\nlisten: [\"{address}:7000\"]\nworkers: 1\n\
                 port: udp\ndirectory: {{url: \"http://{DIRECTORY}\", id: {id}}}\n"
            );
            self.far(&format!(
                "printf '%s' '{yaml}' > /run/other{number}.yaml && systemd-run --quiet --unit=other{number} \
                 /host/release/mixline-relay --config /run/other{number}.yaml"
            ))?;
        }
        self.network = format!("mixline:{id}@http://{DIRECTORY}");
        self.relays_are(2)
    }

    fn relays_are(&mut self, count: usize) -> Result<()> {
        self.until(
            &format!(
                "curl -sf http://{DIRECTORY}/metrics | grep -qx 'mixline_directory_relays {count}'"
            ),
            180,
        )
    }

    /// Switches the image's machine on, with a volume of user data that names another network.
    pub fn switch_on(&mut self, image: &Path, directory: &Path) -> Result<()> {
        let key = self.shared.join("key");
        for old in [key.clone(), key.with_extension("pub")] {
            let _ = fs::remove_file(old);
        }
        said(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f"])
                .arg(&key),
        )?;
        let public = fs::read_to_string(key.with_extension("pub"))?;
        self.far("install -m 600 /host/key /root/key")?;
        let user_data = directory.join("user-data");
        fs::write(
            &user_data,
            format!(
                "#cloud-config\nssh_authorized_keys:\n  - {}\nmixline_relay:\n  \
                 network: mixline:{NOBODY}@http://{DIRECTORY}\n  name: {RELAY}\n",
                public.trim()
            ),
        )?;
        let volume = directory.join("cidata.img");
        let _ = fs::remove_file(&volume);
        said(
            Command::new("/sbin/mkfs.vfat")
                .args(["-n", "CIDATA", "-C"])
                .arg(&volume)
                .arg("4096"),
        )?;
        said(
            Command::new("mcopy")
                .arg("-i")
                .arg(&volume)
                .arg(&user_data)
                .arg("::/user-data"),
        )?;
        self.image = Some(Appliance::start(&Setup {
            name: "image".into(),
            processors: 2,
            memory: 1024,
            cards: vec![Card::igb(CABLE, 2)],
            joints: vec![Joint {
                cable: CABLE,
                socket: self.socket.clone(),
                first: false,
            }],
            disks: vec![image.to_owned(), volume],
            directory: directory.join("image"),
        })?);
        Ok(())
    }

    /// What a command at the far end wrote; it has to succeed.
    fn far(&mut self, command: &str) -> Result<String> {
        Ok(self.far.expect(command, SHORT)?)
    }

    /// Waits until a command at the far end succeeds.
    fn until(&mut self, command: &str, seconds: u64) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(seconds);
        loop {
            let answer = self.far.run(command, SHORT)?;
            if answer.code == 0 {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("not within {seconds} s: `{command}`\n{}", answer.output);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// A command in the image's machine, as an operator gives it: by ssh from the far end.
    pub fn run(&mut self, command: &str) -> Result<Answer> {
        Ok(self.far.run(&ssh(command), SHORT)?)
    }

    /// What a command in the image's machine wrote; it has to succeed.
    pub fn said(&mut self, command: &str) -> Result<String> {
        let answer = self.run(command)?;
        if answer.code != 0 {
            bail!("`{command}`: exit {}\n{}", answer.code, answer.output);
        }
        Ok(answer.output)
    }

    /// Fails unless a command in the image's machine gives this.
    pub fn expect(&mut self, command: &str, wanted: &str) -> Result<()> {
        let answer = self.run(command)?;
        let given = answer.output.trim();
        if given != wanted {
            bail!("`{command}` gave `{given}`, not `{wanted}`");
        }
        Ok(())
    }

    /// Waits until a command in the image's machine succeeds.
    pub fn until_there(&mut self, command: &str, seconds: u64) -> Result<()> {
        self.until(&ssh(command), seconds)
    }

    /// Brings a file of `/host` to the image's machine.
    pub fn send(&mut self, file: &Path, to: &str) -> Result<()> {
        let inside = file.strip_prefix(&self.shared)?;
        let script = format!("cat > {to}");
        let command = ssh(&script).replace("</dev/null", "");
        self.far(&format!("cat /host/{} | {command}", inside.display()))?;
        Ok(())
    }

    fn image(&mut self) -> Result<&mut Appliance> {
        self.image.as_mut().context("the machine is not on")
    }

    /// Waits for a login prompt on the console, after so many bytes of it.
    pub fn login_prompt(&mut self, seen: usize) -> Result<()> {
        Ok(self.image()?.wait_for(" login: ", seen, BOOT)?)
    }

    /// Waits until the console says what is wrong with the user data.
    pub fn wrong_network(&mut self) -> Result<()> {
        let image = self.image()?;
        image.wait_for("No relay yet: ", 0, Duration::from_secs(300))?;
        image.wait_for(
            "change: the `id` that `mixline-directory id` prints",
            0,
            Duration::from_secs(10),
        )?;
        Ok(())
    }

    /// An operator comes in by the key of the user data, and is root.
    pub fn ssh_by_key(&mut self) -> Result<()> {
        self.until_there("true", 180)?;
        self.expect("id -un", "root")?;
        self.expect("passwd --status root | cut -d' ' -f2", "L")?;
        let password = self.far.run(
            &format!(
                "ssh -o BatchMode=yes -o PubkeyAuthentication=no -o StrictHostKeyChecking=accept-new \
                 root@{APPLIANCE} true"
            ),
            SHORT,
        )?;
        if password.code == 0 || !password.output.contains("(publickey)") {
            bail!("without a key: exit {}\n{}", password.code, password.output);
        }
        Ok(())
    }

    /// What is wrong makes no relay.
    pub fn no_relay(&mut self) -> Result<()> {
        self.said("test ! -e /etc/mixline/relay.yaml")?;
        self.expect("systemctl is-active mixline-relay", "inactive")?;
        self.said("journalctl --no-pager --unit=mixline-first-boot | grep -q 'No relay yet'")?;
        Ok(())
    }

    /// Leaves the right file where an operator does after writing the image, with the address that the
    /// machine has by DHCP, and boots again.
    pub fn correct_and_reboot(&mut self) -> Result<()> {
        let yaml = format!(
            "network: {}\nname: {RELAY}\nstatic: {{addresses: [{APPLIANCE}/24], gateways: [{FAR}]}}\n",
            self.network
        );
        self.said(&format!(
            "printf \"{yaml}\" > /efi/mixline-relay.yaml && sync"
        ))?;
        let seen = self.image()?.console().len();
        self.run("systemctl reboot")?;
        self.login_prompt(seen)?;
        self.until_there("true", 300)
    }

    /// Waits until the relay and the directory say so.
    pub fn registered(&mut self) -> Result<()> {
        self.until_there(&format!("{STATUS} | grep '^registered .*ago'"), 300)?;
        self.relays_are(3)?;
        self.far(&format!("curl -sf http://{DIRECTORY}/ | grep -q '{RELAY}'"))?;
        Ok(())
    }

    /// It is done, and is not done again.
    pub fn first_boot_is_over(&mut self) -> Result<()> {
        self.expect(
            "systemctl show --value --property=Result mixline-first-boot",
            "success",
        )?;
        self.said("systemctl restart mixline-first-boot")?;
        self.expect(
            "systemctl show --value --property=ConditionResult mixline-first-boot",
            "no",
        )?;
        self.expect(
            "stat --format='%U %a' /var/lib/mixline-relay /var/lib/mixline-relay/identity.key",
            "mixline-relay 700\nmixline-relay 600",
        )?;
        self.expect("systemctl is-system-running --wait", "running")
    }

    /// The card has its address from the file, and no other.
    pub fn has_static_address(&mut self) -> Result<()> {
        let addresses = self.said("ip -4 -o address show dev enp1s0")?;
        let is = addresses.lines().count() == 1
            && addresses.contains(&format!(" {APPLIANCE}/24 "))
            && !addresses.contains("dynamic");
        if !is {
            bail!("{addresses}");
        }
        self.expect(
            "ip -4 route show default | cut -d' ' -f1-3",
            &format!("default via {FAR}"),
        )
    }

    /// The file system is as large as the disk, but for the EFI partition and what is the file system's.
    pub fn has_grown(&mut self) -> Result<()> {
        let size = self.said("findmnt --bytes --noheadings --output=SIZE /")?;
        let size: u64 = size.trim().parse().context("a size")?;
        if size < super::DISK * 8 / 10 {
            bail!("{size} bytes");
        }
        Ok(())
    }

    /// What a card like Intel's I350 is used for.
    pub fn zero_copy(&mut self) -> Result<()> {
        self.until_there(
            &format!(
                "{STATUS} | tee /tmp/status | grep -q '^ *proven: ' && grep -q '^port  *xdp: ' /tmp/status"
            ),
            120,
        )
    }

    /// A client with three relays needs all of them.
    pub fn relays(&mut self) -> Result<()> {
        let id = self
            .network
            .trim_start_matches("mixline:")
            .split('@')
            .next()
            .unwrap_or_default();
        let yaml = format!(
            "state_dir: /run/client\ndns: {{mode: off}}\ndirectory: {{url: \"http://{DIRECTORY}\", id: {id}}}\n"
        );
        self.far(&format!(
            "printf '%s' '{yaml}' > /run/client.yaml && systemd-run --quiet --unit=client \
             /host/release/mixline-client up --config /run/client.yaml"
        ))?;
        for (command, seconds) in [("publish", 600), ("resolve", 300)] {
            let command = format!(
                "/host/release/mixline-client --config /run/client.yaml {command} {SERVICE}"
            );
            self.until(&command, seconds)?;
        }
        let forwarded = self.said(&format!(
            "{STATUS} --json | grep -E '\"(forwarded|delivered)\": [1-9]'"
        ))?;
        println!(
            "          {}",
            forwarded.split_whitespace().collect::<Vec<_>>().join(" ")
        );
        Ok(())
    }

    /// The hook of Debian's for new kernels writes what the boot loader reads.
    pub fn kernel_entry(&mut self) -> Result<()> {
        self.said(
            "kernel=$(uname -r); entry=/efi/loader/entries/mixline-$kernel.conf; cp $entry /tmp/entry; \
             rm -r $entry /efi/mixline/$kernel && \
             /etc/kernel/postinst.d/zz-systemd-boot $kernel /boot/vmlinuz-$kernel && \
             cmp $entry /tmp/entry && cmp /boot/vmlinuz-$kernel /efi/mixline/$kernel/linux && \
             cmp /boot/initrd.img-$kernel /efi/mixline/$kernel/initrd.img-$kernel",
        )
        .map(drop)
    }

    /// Waits until the relay has registered anew.
    pub fn registered_anew(&mut self) -> Result<()> {
        self.until_there(&format!("{STATUS} | grep '^registered .*ago'"), 180)
    }

    /// What both machines said last.
    pub fn tell(&mut self) -> String {
        let Some(console) = self.image.as_ref().map(Appliance::console) else {
            return self.tell_far();
        };
        let journal = self
            .run("journalctl --no-pager --output=short-monotonic --unit='mixline*' --lines=40")
            .map(|answer| answer.output)
            .unwrap_or_default();
        let lines: Vec<&str> = console.lines().collect();
        let last = lines[lines.len().saturating_sub(40)..].join("\n");
        format!(
            "the image's units:\n{journal}\nits console:\n{last}\n{}",
            self.tell_far()
        )
    }

    fn tell_far(&mut self) -> String {
        let look = "ip -brief address; journalctl --no-pager --output=cat --lines=40";
        let far = self.far.run(look, SHORT).map(|answer| answer.output);
        format!("the far end:\n{}", far.unwrap_or_default())
    }
}

/// A command at the far end that runs another in the image's machine.
fn ssh(command: &str) -> String {
    let quoted = command.replace('\'', r"'\''");
    format!(
        "ssh -i /root/key -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o ConnectTimeout=20 \
         -o LogLevel=ERROR root@{APPLIANCE} '{quoted}' </dev/null"
    )
}
