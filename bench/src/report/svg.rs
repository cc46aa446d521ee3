//! Writes SVG and HTML: elements, attributes, text, all of it escaped.

use std::fmt::{self, Write};

/// Markup that grows.
#[derive(Debug, Default)]
pub struct Markup(String);

impl Markup {
    /// What has been written.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }

    /// An element with nothing in it, as SVG's shapes are.
    pub fn shape(&mut self, name: &str, attributes: &[(&str, &dyn fmt::Display)]) {
        self.open(name, attributes);
        self.close(name);
    }

    /// An element with text in it.
    pub fn text(&mut self, name: &str, attributes: &[(&str, &dyn fmt::Display)], text: &str) {
        self.open(name, attributes);
        escape(&mut self.0, text);
        self.close(name);
    }

    /// An element with what `inside` writes in it.
    pub fn element(
        &mut self,
        name: &str,
        attributes: &[(&str, &dyn fmt::Display)],
        inside: impl FnOnce(&mut Self),
    ) {
        self.open(name, attributes);
        inside(self);
        self.close(name);
        self.0.push('\n');
    }

    /// What is markup already.
    pub fn raw(&mut self, markup: &str) {
        self.0.push_str(markup);
    }

    fn open(&mut self, name: &str, attributes: &[(&str, &dyn fmt::Display)]) {
        let _ = write!(self.0, "<{name}");
        for (key, value) in attributes {
            let _ = write!(self.0, " {key}=\"");
            escape(&mut self.0, &value.to_string());
            self.0.push('"');
        }
        self.0.push('>');
    }

    fn close(&mut self, name: &str) {
        let _ = write!(self.0, "</{name}>");
    }
}

fn escape(to: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => to.push_str("&amp;"),
            '<' => to.push_str("&lt;"),
            '>' => to.push_str("&gt;"),
            '"' => to.push_str("&quot;"),
            '\'' => to.push_str("&#39;"),
            // Not allowed in XML at all, escaped or not.
            character if character.is_control() && !character.is_whitespace() => {
                to.push('\u{fffd}')
            }
            character => to.push(character),
        }
    }
}

/// A coordinate: a tenth of a unit is finer than anybody sees.
#[must_use]
pub fn coordinate(value: f64) -> String {
    format!("{value:.1}")
}

/// A drawing of this size, in which `inside` draws. It grows with the page up to that size.
pub fn drawing(
    markup: &mut Markup,
    label: &str,
    (width, height): (f64, f64),
    inside: impl FnOnce(&mut Markup),
) {
    let view = format!("0 0 {width} {height}");
    markup.element(
        "svg",
        &[
            ("xmlns", &"http://www.w3.org/2000/svg"),
            ("viewBox", &view),
            ("width", &width),
            ("height", &height),
            ("role", &"img"),
            ("aria-label", &label),
        ],
        inside,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_attributes_are_escaped() {
        let mut markup = Markup::default();
        markup.text("b", &[("title", &"a \"<\" b")], "1 < 2 & 'so' \u{1}");
        assert_eq!(
            markup.into_string(),
            "<b title=\"a &quot;&lt;&quot; b\">1 &lt; 2 &amp; &#39;so&#39; \u{fffd}</b>"
        );
    }
}
