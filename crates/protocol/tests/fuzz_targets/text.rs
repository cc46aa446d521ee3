//! Names as applications and people write them.

use mixline_protocol::identity::{AnonymousId, ShortId};
use mixline_protocol::name::{AnonName, Label};

use super::Target;

/// Any text, as each kind of name.
pub const NAMES: Target = Target {
    name: "names",
    seeds: || {
        let id = AnonymousId([9; 32]);
        [
            "freespeech.anon".to_owned(),
            "FreeSpeech.ANON.".to_owned(),
            "a-b".to_owned(),
            id.host(),
            id.to_string(),
            ShortId([7; 8]).to_string(),
        ]
        .map(String::into_bytes)
        .into()
    },
    run: names,
};

fn names(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    let mut accepted = false;
    if let Ok(name) = text.parse::<AnonName>() {
        assert_eq!(name.to_string().parse(), Ok(name));
        assert_eq!(
            name.to_string(),
            text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase()
        );
        accepted = true;
    }
    if let Ok(label) = Label::new(text) {
        assert_eq!(label.as_str(), text.to_ascii_lowercase());
        assert_eq!(label.host().parse(), Ok(AnonName::Label(label)));
        accepted = true;
    }
    if let Ok(id) = text.parse::<AnonymousId>() {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
        accepted = true;
    }
    if let Ok(id) = text.parse::<ShortId>() {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
        accepted = true;
    }
    accepted
}
