//! A text as a QR code in a terminal: two modules a character, by Unicode's half blocks.

use qrcode::types::QrError;
use qrcode::{Color, EcLevel, QrCode};

/// Light modules around the code, on each side (ISO/IEC 18004, section 9.1).
const QUIET: usize = 4;
/// White on black: light modules are drawn, and dark ones are not.
const COLOURS: (&str, &str) = ("\x1b[97;40m", "\x1b[0m");

/// The QR code of a text, in lines that end in a newline each. With `colours` it looks the same on each
/// terminal; without, it is right where light characters stand on a dark ground.
///
/// # Errors
/// A text of more than some 2900 bytes fits no code.
pub fn render(text: &str, colours: bool) -> Result<String, QrError> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M)?;
    let width = code.width();
    let modules = code.to_colors();
    let is_light = |x: usize, y: usize| {
        let inside = x.checked_sub(QUIET).zip(y.checked_sub(QUIET));
        let inside = inside.filter(|(x, y)| *x < width && *y < width);
        inside.is_none_or(|(x, y)| modules.get(y * width + x) != Some(&Color::Dark))
    };
    let side = width + 2 * QUIET;
    let (begin, end) = if colours { COLOURS } else { ("", "") };
    let mut out = String::new();
    for y in (0..side).step_by(2) {
        out += begin;
        out.extend((0..side).map(
            |x| match (is_light(x, y), y + 1 < side && is_light(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            },
        ));
        out += end;
        out.push('\n');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a camera reads.
    fn read(drawn: &str) -> String {
        let rows: Vec<Vec<char>> = drawn
            .lines()
            .map(|line| {
                let line = line.trim_start_matches(COLOURS.0);
                line.trim_end_matches(COLOURS.1).chars().collect()
            })
            .collect();
        const SCALE: usize = 4;
        let (width, height) = (rows[0].len() * SCALE, rows.len() * 2 * SCALE);
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| {
            let (x, y) = (x / SCALE, y / SCALE);
            let light = match rows[y / 2][x] {
                '█' => true,
                '▀' => y % 2 == 0,
                '▄' => y % 2 == 1,
                _ => false,
            };
            if light { 255 } else { 0 }
        });
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1);
        grids[0].decode().unwrap().1
    }

    #[test]
    fn what_is_drawn_is_read() {
        let id = "a".repeat(52);
        for text in [
            format!("mixline:{id}@http://198.51.100.7:8080"),
            format!("mixline:{id}@http://[2001:db8:1234:5678:9abc:def0:1234:5678]:65535/path"),
        ] {
            for colours in [false, true] {
                assert_eq!(read(&render(&text, colours).unwrap()), text);
            }
        }
        assert!(render(&"x".repeat(4000), false).is_err());
    }
}
