//! Writes the inputs that each target accepts to `corpus/TARGET`, to begin a long run with:
//! `cargo run --example corpus`.

use std::{fs, io};

fn main() -> io::Result<()> {
    for name in mixline_fuzz::names() {
        let directory = format!("{}/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        fs::create_dir_all(&directory)?;
        for (number, seed) in mixline_fuzz::seeds(name).iter().enumerate() {
            fs::write(format!("{directory}/seed-{number}"), seed)?;
        }
    }
    Ok(())
}
