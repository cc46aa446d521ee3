//! `mixline-relay top` in a real terminal: tmux's.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::metrics::is_there_or_skip;
use crate::process::{PROGRAM, refused, wait_for};
use crate::setting::Setting;

/// Numbers the terminals of this process.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// A server of tmux for one test. It ends when this is dropped.
struct Terminal(String);

impl Terminal {
    /// A terminal of 100 columns and 40 rows in which a command runs.
    fn start(command: &[&str]) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let terminal = Self(format!("mixline-test-{}-{number}", std::process::id()));
        let size = ["-x", "100", "-y", "40"];
        let mut arguments = vec!["-f", "/dev/null", "-u", "new-session", "-d"];
        arguments.extend(size);
        arguments.extend(command);
        let output = terminal.tmux(&arguments);
        assert!(output.status.success(), "{output:?}");
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        Command::new("tmux")
            .args(["-L", &self.0])
            .args(arguments)
            .env_remove("TMUX")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap()
    }

    /// What is on the screen.
    fn screen(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn press(&self, key: &str) {
        assert!(self.tmux(&["send-keys", key]).status.success());
    }

    /// Whether the command still runs.
    fn runs(&self) -> bool {
        self.tmux(&["has-session"]).status.success()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// The words of the line that begins with some word, after a line with another.
fn row(screen: &str, below: &str, first: &str) -> Option<Vec<String>> {
    let (_, rest) = screen.split_once(below)?;
    let lines = rest.lines().skip(1).take_while(|line| !line.is_empty());
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    lines
        .map(words)
        .find(|words: &Vec<String>| words.first().is_some_and(|word| word == first))
}

#[test]
fn top_shows_a_relay_at_work_and_one_that_goes() {
    if !is_there_or_skip("tmux") {
        return;
    }
    let mut setting = Setting::new("workers: 2\n").registered();
    let traffic = setting.traffic();
    let relay = &mut setting.relay;
    let config = relay.config.to_str().unwrap();
    let terminal = Terminal::start(&[PROGRAM, "top", "--config", config, "--interval", "0.5"]);
    let mut sent = 0;
    // Rates by worker and outcome, and times inside, while cells go through.
    let screen = wait_for("rates on the screen", || {
        for _ in 0..10 {
            traffic.goes_round(sent);
            sent += 1;
        }
        let screen = terminal.screen();
        let rate = |words: Vec<String>, at: usize| words[at].parse::<u64>().unwrap_or(0);
        let busy = ["0", "1"].iter().any(|worker| {
            row(&screen, "WORKER", worker)
                .is_some_and(|words| rate(words.clone(), 1) > 10 && words[5].parse::<f64>().is_ok())
        });
        let delivered = row(&screen, "OUTCOME", "delivered");
        // The control plane counts its clients now and then.
        let known = screen.contains(", 1 client; ");
        (busy
            && known
            && delivered.is_some_and(|words| rate(words.clone(), 1) > 10 && rate(words, 2) > 10))
        .then_some(screen)
    });
    for wanted in [
        "relay ",
        "q: quit, ?: help",
        "port       udp: ",
        "directory  listed; registered ",
        "links      0 relays, 1 client; ",
        "paths      2 of at most ",
        "inside     now: p50 ",
        "p99.9",
    ] {
        assert!(screen.contains(wanted), "{wanted}\n{screen}");
    }

    terminal.press("?");
    wait_for("help", || {
        terminal.screen().contains("Esc, Ctrl-C").then_some(())
    });
    terminal.press("?");
    relay.stop();
    wait_for("the relay's end on the screen", || {
        let screen = terminal.screen();
        (screen.contains("THE RELAY DOES NOT ANSWER") && screen.contains("OUTCOME")).then_some(())
    });
    assert!(terminal.runs());
    terminal.press("q");
    wait_for("the end of top", || (!terminal.runs()).then_some(()));
}

/// Whether the program's full screen is there, in place of what was on the terminal before.
fn is_full_screen(terminal: &Terminal) -> bool {
    let output = terminal.tmux(&["display-message", "-p", "#{alternate_on}"]);
    String::from_utf8_lossy(&output.stdout).trim() == "1"
}

/// The process of `top` that a shell has started which is the command of a terminal.
fn top_of(terminal: &Terminal) -> Option<Pid> {
    let output = terminal.tmux(&["display-message", "-p", "#{pane_pid}"]);
    let shell = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let children = format!("/proc/{shell}/task/{shell}/children");
    let children = std::fs::read_to_string(children).ok()?;
    children.trim().parse().ok().map(Pid::from_raw)
}

#[test]
fn a_signal_ends_top_and_the_terminal_is_as_it_was() {
    if !is_there_or_skip("tmux") {
        return;
    }
    let mut setting = Setting::new("");
    let relay = &mut setting.relay;
    relay.start();
    let config = relay.config.to_str().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let script = format!(
            "modes() {{ echo modes $(stty -g | cksum); }}; \
             modes; '{PROGRAM}' top --config '{config}'; echo ended by $?; modes; cat"
        );
        let terminal = Terminal::start(&["sh", "-c", &script]);
        wait_for("the screen", || {
            (is_full_screen(&terminal) && terminal.screen().contains("q: quit")).then_some(())
        });
        kill(top_of(&terminal).unwrap(), signal).unwrap();
        let ended = format!("ended by {}", 128 + signal as i32);
        wait_for("the end of top", || {
            terminal.screen().contains(&ended).then_some(())
        });
        assert!(!is_full_screen(&terminal), "{signal}");
        // Modes are those from before, echo and lines among them.
        let modes: Vec<String> = wait_for("the modes", || {
            let screen = terminal.screen();
            let lines = screen.lines().filter(|line| line.starts_with("modes "));
            Some(lines.map(str::to_owned).collect()).filter(|lines: &Vec<_>| lines.len() == 2)
        });
        assert_eq!(modes[0], modes[1], "{signal}");
        terminal.press("typed");
        wait_for("an echo", || {
            terminal.screen().contains("typed").then_some(())
        });
    }
    // The terminal itself goes, as when a connection breaks: nothing is left behind.
    let terminal = Terminal::start(&[
        "sh",
        "-c",
        &format!("'{PROGRAM}' top --config '{config}'; true"),
    ]);
    let top = wait_for("top", || {
        top_of(&terminal).filter(|_| is_full_screen(&terminal))
    });
    drop(terminal);
    wait_for("the end of top", || {
        // Or nobody has asked yet how it ended.
        let stat = std::fs::read_to_string(format!("/proc/{top}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z "))
            .then_some(())
    });
    relay.stop();
}

#[test]
fn without_a_terminal_or_a_relay_top_says_so() {
    let setting = Setting::new("");
    let relay = &setting.relay;
    let config = relay.config.to_str().unwrap();
    let said = without_a_terminal(relay.config.as_path());
    assert!(said.contains("`top` needs a terminal"), "{said}");
    assert!(refused(&["status", "--config", config]).contains("no relay answers"));
    if !is_there_or_skip("tmux") {
        return;
    }
    // `script` gives it a terminal, which is gone after its one line: the line is in its output.
    let output = Command::new("script")
        .args([
            "-qec",
            &format!("{PROGRAM} top --config {config}"),
            "/dev/null",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success());
    assert!(
        said.contains("mixline-relay: no relay answers on state directory"),
        "{said}"
    );
    assert_eq!(said.trim().lines().count(), 1, "{said}");
}

fn without_a_terminal(config: &Path) -> String {
    let output = Command::new(PROGRAM)
        .args(["top", "--config"])
        .arg(config)
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}
