use super::{Page, warnings};
use crate::page::{Paint, paint, plain};
use sag_model::control::{ConfigApplied, ConfigDiff, ConfigShow};

/// The document and nothing else, so that it can be written to a file and applied again.
pub fn show(c: &ConfigShow) -> String {
    match c.text.ends_with('\n') {
        true => c.text.clone(),
        false => format!("{}\n", c.text),
    }
}

pub fn applied(c: &ConfigApplied, name: &str, page: &Page) -> String {
    let mut out = match c.changed {
        true => format!("{} applied, epoch {}\n", plain(name), c.epoch),
        false => format!("{} says what is running already, epoch {}\n", plain(name), c.epoch),
    };
    out.push_str(&warnings(&c.warnings, page));
    out
}

pub fn diff(d: &ConfigDiff, page: &Page) -> String {
    let mut out = String::new();
    for c in &d.changes {
        let path = plain(&c.path);
        let (old, new) = (c.old.as_deref().map(plain), c.new.as_deref().map(plain));
        let (line, color) = match (old, new) {
            (Some(old), Some(new)) => (format!("~ {path} = {old} -> {new}"), Paint::Plain),
            (None, Some(new)) => (format!("+ {path} = {new}"), Paint::Good),
            (Some(old), None) => (format!("- {path} = {old}"), Paint::Bad),
            (None, None) => (format!("~ {path}"), Paint::Plain),
        };
        out.push_str(&paint(&line, color, page));
        out.push('\n');
    }
    if d.changes.is_empty() {
        out.push_str("no change\n");
    }
    out.push_str(&warnings(&d.warnings, page));
    out
}
