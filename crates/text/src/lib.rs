//! Text that somebody else chose, made fit to be printed: names of the cloud, messages of a gateway, parameters of a
//! request. Printed as it is, such text could end a line and forge the next one, move the cursor of a terminal, or turn
//! the direction of what follows.
//!
//! [`escape`] is for single texts. With the feature `log`, [`log`] starts the log of a program, which escapes every field
//! and message by itself.
//!
//! ```
//! assert_eq!(sag_text::escape("branch\n\u{1b}[2J\u{202e}"), r"branch\n\u{1b}[2J\u{202e}");
//! assert_eq!(sag_text::escape("Zürich 東京"), "Zürich 東京");
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

#[cfg(feature = "log")]
pub mod log;

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Whether a character acts on a line or a terminal instead of being shown: control characters of ASCII and Latin-1
/// (Unicode general category Cc), line and paragraph separators (U+2028, U+2029), and those that turn the direction of
/// text (Unicode Standard Annex 9, section 2) or are not seen at all.
pub fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The text on one line: active characters as `\n`, `\t`, `\u{1b}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_active) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    // Writing to a String does not fail.
    let _ = Escaping(&mut out).write_str(text);
    Cow::Owned(out)
}

/// The text with its lines and tabs as they are, and other active characters escaped: for documents on a terminal.
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    let acts = |c: char| is_active(c) && !matches!(c, '\n' | '\t');
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::with_capacity(text.len() + 16), |mut out, c| {
        if acts(c) {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        out
    }))
}

/// JSON text with active characters as `\u001b`: another spelling of the same value. Serializers escape only what
/// RFC 8259 demands, which is less than what acts on terminals.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    // Line ends and tabs of JSON itself stand between values.
    let acts = |c: char| is_active(c) && !matches!(c, '\n' | '\t' | '\r');
    if !json.contains(acts) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if acts(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                // As above.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Escapes whatever is written to the writer within.
pub struct Escaping<'a, W: ?Sized>(pub &'a mut W);

impl<W: fmt::Write + ?Sized> fmt::Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_active) {
            self.0.write_str(&rest[..at])?;
            let mut after = rest[at..].chars();
            if let Some(c) = after.next() {
                write!(self.0, "{}", c.escape_default())?;
            }
            rest = after.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acts_after_escaping() {
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            let text = format!("a{c}b");
            let shown = escape(&text);
            assert!(!shown.contains(is_active), "{c:?}");
            assert_eq!(shown == text, !is_active(c), "{c:?}");
            assert!(!escape_lines(&text).contains(|c| is_active(c) && !matches!(c, '\n' | '\t')));
        }
        for c in
            "\0\n\r\t\u{1b}\u{7f}\u{85}\u{9b}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}\u{200e}\u{feff}"
                .chars()
        {
            assert!(is_active(c), "{c:?}");
        }
        assert_eq!(escape("two\r\nlines"), r"two\r\nlines");
        assert_eq!(escape_lines("two\n\tlines\u{9b}"), "two\n\tlines\\u{9b}");
    }

    #[cfg(feature = "log")]
    #[test]
    fn json_keeps_its_value() {
        let text = "é\u{1b}\u{7f}\u{9b}\u{2028}\u{202e}\u{e0001}\"\\ \n";
        let json = serde_json::to_string(&[text]).unwrap();
        let shown = escape_json(&json);
        assert!(!shown.contains(is_active), "{shown}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&shown).unwrap(), [text]);
    }
}
