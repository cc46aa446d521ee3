//! What dpkg does with the packages: what is there afterwards, and what is not.

use super::checks::{Checks, SHORT, expect, said};
use anyhow::{Result, bail};
use mixline_machines::container::Container;
use mixline_testnet::Programs;
use std::time::Duration;

/// How long dpkg may take with all packages.
const DPKG: Duration = Duration::from_secs(120);

/// An ID of no directory.
const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// All files, but those of dpkg, of the running system, and of users, which stay.
const FILES: &str = "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp \
     -o -path /host -o -path /root -o -path '/var/lib/dpkg' -o -path '/var/log' -o -path '/var/tmp' \
     -o -path '/var/lib/systemd' -o -path '/var/cache/ldconfig' \\) -prune -o -print | sort \
     | grep -vE '^/etc/(passwd|group|shadow|gshadow)-?$|^/etc/\\.(pwd|.*)\\.lock$'";

/// Installs the packages.
pub fn arrive(checks: &mut Checks, container: &mut Container) {
    checks.check("the packages install on a Debian without network", || {
        // The tree leaves out documents; these are to be seen.
        said(
            container,
            &format!("rm -f /etc/dpkg/dpkg.cfg.d/99mmdebstrap; {FILES} > /root/before"),
        )?;
        container.expect("dpkg --install /host/old/*.deb", DPKG)?;
        expect(container, "dpkg --audit", "")
    });
}

/// Whether all is there that packages of this release have.
pub fn is_whole(checks: &mut Checks, container: &mut Container) {
    checks.check("all their files are there, whole", || {
        expect(
            container,
            "dpkg --verify mixline-relay mixline-directory mixline-client",
            "",
        )?;
        for name in Programs::NAMES {
            let short = name.trim_start_matches("mixline-");
            for file in [
                format!("/usr/bin/{name}"),
                format!("/usr/lib/systemd/system/{name}.service"),
                format!("/etc/mixline/{short}.yaml.example"),
                format!("/usr/share/man/man1/{name}.1.gz"),
                format!("/usr/share/bash-completion/completions/{name}"),
                format!("/usr/share/zsh/vendor-completions/_{name}"),
                format!("/usr/share/fish/vendor_completions.d/{name}.fish"),
                format!("/usr/share/doc/{name}/copyright"),
                format!("/usr/share/doc/{name}/changelog.Debian.gz"),
                format!("/usr/share/doc/{name}/third-party-licences.gz"),
            ] {
                said(
                    container,
                    &format!("test -s {file} || {{ echo {file}; false; }}"),
                )?;
            }
            said(container, &format!("{name} --version"))?;
        }
        // Pages of commands, too.
        said(
            container,
            "test -s /usr/share/man/man1/mixline-relay-doctor.1.gz \
             && test -s /usr/share/man/man1/mixline-client-publish.1.gz",
        )
        .map(drop)
    });
    checks.check(
        "relay and directory have users of their own, who cannot log in, and the client a group",
        || {
            for user in ["mixline-relay", "mixline-directory"] {
                expect(
                    container,
                    &format!("getent passwd {user} | cut -d: -f1,6,7"),
                    &format!("{user}:/var/lib/{user}:/usr/sbin/nologin"),
                )?;
            }
            expect(
                container,
                "getent group mixline | cut -d: -f1,4",
                "mixline:",
            )
        },
    );
}

/// Whether programs and units do as they should before there is a configuration.
pub fn is_quiet(checks: &mut Checks, container: &mut Container) {
    checks.check("the programs know each key of their examples", || {
        for (name, command, answer) in [
            ("relay", "status", "no relay answers"),
            ("directory", "id", "/etc/mixline/roster: No such file"),
            ("client", "status", "no client is running"),
        ] {
            let answer = format!(
                "sed -E -e 's/^#( *[a-z_]+:|  - )/\\1/' -e 's/(id|network): ID/\\1: {ID}/' \
                 /etc/mixline/{name}.yaml.example > /tmp/all.yaml; \
                 mixline-{name} {command} --config /tmp/all.yaml 2>&1 | tee /tmp/answer | grep -q '{answer}' \
                 || {{ cat /tmp/answer; false; }}"
            );
            said(container, &answer)?;
        }
        said(container, "rm /tmp/all.yaml").map(drop)
    });
    checks.check("nothing runs without a configuration, nor fails", || {
        for name in Programs::NAMES {
            expect(
                container,
                &format!("systemctl is-enabled {name}"),
                "enabled",
            )?;
            expect(
                container,
                &format!("systemctl start {name}; systemctl is-active {name}"),
                "inactive",
            )?;
            expect(
                container,
                &format!("systemctl show --value --property=ConditionResult {name}"),
                "no",
            )?;
        }
        expect(container, "ps -A -o comm= | grep ^mixline", "")
    });
}

/// Installs the next package of a program, which runs.
pub fn upgrade(container: &mut Container, name: &str) -> Result<()> {
    container.expect(&format!("dpkg --install /host/new/{name}_*.deb"), DPKG)?;
    expect(
        container,
        &format!("dpkg-query --show --showformat='${{Status}} ${{Version}}' {name}"),
        &format!("install ok installed {}", super::version(2)),
    )
}

/// Removes the packages, which run.
pub fn remove(checks: &mut Checks, container: &mut Container) {
    checks.check("removed, they are stopped, and configuration and state stay", || {
        container.expect("dpkg --remove mixline-relay mixline-directory mixline-client", DPKG)?;
        for name in Programs::NAMES {
            let short = name.trim_start_matches("mixline-");
            expect(container, &format!("systemctl is-active {name}"), "inactive")?;
            said(
                container,
                &format!("test ! -e /usr/bin/{name} && test -s /etc/mixline/{short}.yaml"),
            )?;
        }
        expect(container, "ps -A -o args= | grep '^/usr/bin/mixline' | grep -v other", "")?;
        said(
            container,
            "test -s /var/lib/mixline-relay/identity.key && test -s /var/lib/mixline-directory/identity.key \
             && test -s /var/lib/mixline/identity.key",
        )
        .map(drop)
    });
    checks.check("removed, the host's resolver is as it was", || {
        expect(container, "ip -o link show mixline0 2>/dev/null", "")?;
        expect(
            container,
            "readlink /etc/resolv.conf",
            "/run/systemd/resolve/stub-resolv.conf",
        )
    });
}

/// Purges the packages, which are removed.
pub fn purge(checks: &mut Checks, container: &mut Container) {
    checks.check("purged, nothing of them is left but the users", || {
        container.expect(
            "dpkg --purge mixline-relay mixline-directory mixline-client",
            DPKG,
        )?;
        let left = container.run(
            &format!("{FILES} > /tmp/after; diff /root/before /tmp/after | grep '^[<>]'"),
            SHORT,
        )?;
        if !left.output.trim().is_empty() {
            bail!("changed files:\n{}", left.output);
        }
        expect(container, "ls -d /run/mixline* 2>/dev/null", "")?;
        expect(
            container,
            "dpkg -l 'mixline*' 2>/dev/null | grep -v '^un' | grep -c ' mixline-'",
            "0",
        )?;
        expect(
            container,
            "systemctl list-unit-files mixline-relay.service mixline-directory.service \
             mixline-client.service mixline-client-lock.service --no-legend",
            "",
        )?;
        expect(
            container,
            "getent passwd mixline-relay >/dev/null && echo stays",
            "stays",
        )
    });
}
