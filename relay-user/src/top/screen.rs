//! The terminal: draws when there is something new, and reads the keys.

use std::io;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::rates::Rates;
use super::signals;
use super::view::{self, State};
use crate::observe::{self, Report};

/// How soon an answer of the relay is drawn.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// An answer of the relay, or why there was none, and when.
type Reading = (Instant, io::Result<Report>);

/// Shows the relay until a key ends it. The terminal is as it was when this returns, or a signal ends the
/// process.
///
/// # Errors
/// Of the terminal.
pub fn run(state_dir: &Path, interval: Duration) -> io::Result<()> {
    let (sender, readings) = mpsc::sync_channel(1);
    let screen = Arc::new(Mutex::new(()));
    signals::put_back_first(&screen)?;
    let directory = state_dir.to_path_buf();
    // A thread of its own, so that keys work while the relay takes its time to answer. It ends with
    // the receiver.
    thread::Builder::new()
        .name("ask".into())
        .spawn(move || ask(&directory, interval, &sender))?;
    let mut terminal = ratatui::try_init()?;
    let result = show(&mut terminal, interval, &readings, &screen);
    let restored = ratatui::try_restore();
    result.and(restored)
}

fn ask(state_dir: &Path, interval: Duration, sender: &SyncSender<Reading>) {
    let mut next = Instant::now();
    loop {
        let report = observe::ask(state_dir);
        if sender.send((Instant::now(), report)).is_err() {
            return;
        }
        next = (next + interval).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn show(
    terminal: &mut DefaultTerminal,
    interval: Duration,
    readings: &Receiver<Reading>,
    screen: &Mutex<()>,
) -> io::Result<()> {
    let mut state = State {
        interval,
        ..State::default()
    };
    let mut last = None;
    let mut changed = true;
    loop {
        if let Ok(reading) = readings.try_recv() {
            take(&mut state, &mut last, reading);
            changed = true;
        }
        if changed {
            let _drawing = screen.lock().unwrap_or_else(PoisonError::into_inner);
            terminal.draw(|frame| view::draw(frame, &mut state))?;
            changed = false;
        }
        if event::poll(LOOK_EVERY)? {
            changed = true;
            if let Event::Key(key) = event::read()?
                && press(&mut state, key)
            {
                return Ok(());
            }
        }
    }
}

/// Takes a reading; rates are since the last one that was an answer.
fn take(state: &mut State, last: &mut Option<Instant>, (at, report): Reading) {
    match report {
        Ok(report) => {
            let before = state.report.as_ref().zip(*last);
            state.rates = before.and_then(|(before, then)| {
                Rates::between(before, &report, at.saturating_duration_since(then))
            });
            state.report = Some(report);
            state.silent = None;
            *last = Some(at);
        }
        Err(error) => {
            state.silent = Some(error.to_string());
            state.rates = None;
        }
    }
}

/// What a key does; true if it ends the program.
fn press(state: &mut State, key: KeyEvent) -> bool {
    if key.kind == KeyEventKind::Release {
        return false;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Char('?') => {
            state.help = !state.help;
            state.scroll = 0;
        }
        KeyCode::Down | KeyCode::Char('j') => state.scroll = state.scroll.saturating_add(1),
        KeyCode::Up | KeyCode::Char('k') => state.scroll = state.scroll.saturating_sub(1),
        _ => {}
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::sample::report;
    use super::*;

    #[test]
    fn keys_do_what_the_help_says() {
        let mut state = State::default();
        let key = |code| KeyEvent::new(code, KeyModifiers::NONE);
        assert!(!press(&mut state, key(KeyCode::Char('?'))));
        assert!(state.help);
        assert!(!press(&mut state, key(KeyCode::Char('?'))));
        assert!(!state.help);
        assert!(!press(&mut state, key(KeyCode::Down)) && state.scroll == 1);
        assert!(!press(&mut state, key(KeyCode::Up)) && state.scroll == 0);
        assert!(press(&mut state, key(KeyCode::Char('q'))));
        assert!(press(&mut state, key(KeyCode::Esc)));
        assert!(!press(&mut state, key(KeyCode::Char('c'))));
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(press(&mut state, interrupt));
    }

    #[test]
    fn a_relay_that_is_away_and_comes_back_is_shown_as_that() {
        let (mut state, mut last) = (State::default(), None);
        let now = Instant::now();
        take(&mut state, &mut last, (now, Ok(report())));
        assert!(state.rates.is_none() && state.report.is_some());
        let second = Duration::from_secs(1);
        take(&mut state, &mut last, (now + second, Ok(report())));
        assert!(state.rates.is_some());
        let gone = Err(io::ErrorKind::ConnectionRefused.into());
        take(&mut state, &mut last, (now + 2 * second, gone));
        assert!(state.silent.is_some() && state.rates.is_none());
        let mut later = report();
        later.per_worker[0].received += 300;
        take(&mut state, &mut last, (now + 4 * second, Ok(later)));
        assert!(state.silent.is_none());
        // Over the three seconds since the last answer.
        assert_eq!(state.rates.unwrap().workers[0].received, 100.0);
    }
}
