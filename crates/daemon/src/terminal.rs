//! Words for a person at a terminal, which may have gone: then nobody is to be told, and that is no
//! reason to end.

use std::io::Write;

/// Says a line on standard error.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Prints a text on standard output. The reader may have had enough.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
