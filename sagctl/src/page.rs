//! The page that answers are written on: its width, colours, and running text that fits it.

/// The size and the capabilities of the output.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Width in characters.
    pub width: usize,
    pub color: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Paint {
    #[default]
    Plain,
    Good,
    Bad,
    Dim,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Paint::Plain => "",
            Paint::Good => "\x1b[32m",
            Paint::Bad => "\x1b[31m",
            Paint::Dim => "\x1b[2m",
        }
    }
}

/// Text in a colour, if the page has colours.
pub fn paint(text: &str, paint: Paint, page: &Page) -> String {
    if page.color && paint != Paint::Plain {
        format!("{}{text}\x1b[0m", paint.code())
    } else {
        text.to_owned()
    }
}

/// Replaces characters that could end the line, move the cursor, or change colours or the direction of text. Answers have
/// none by the time they come here; what the operator names may.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if sag_text::is_active(c) { '?' } else { c }).collect()
}

/// Breaks running text at spaces; lines after the first are indented by the width of `lead`.
pub fn hang(lead: &str, text: &str, page: &Page) -> String {
    let lead = plain(lead);
    let indent = lead.chars().count();
    let mut out = lead;
    let mut column = indent;
    for word in plain(text).split_whitespace() {
        let length = word.chars().count();
        if column > indent && column + 1 + length > page.width {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else if column > indent {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(width: usize) -> Page {
        Page { width, color: false }
    }

    #[test]
    fn text_hangs_below_its_lead() {
        assert_eq!(hang("> ", "one two three four", &page(9)), "> one two\n  three\n  four\n");
        assert_eq!(hang("", "longerthanthepage  x", &page(9)), "longerthanthepage\nx\n");
        assert_eq!(hang("lead: ", "", &page(9)), "lead:\n");
    }
}
