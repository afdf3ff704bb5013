//! `configs/vcpe.example.toml`: every key with its meaning.
//!
//! `example_values.toml` beside this file has the entries of lists, whose values belong together. Everything else
//! follows from the declarations: comments, the sections that occur once, and keys that the entries do not have.

use super::keys::SECTIONS;
use super::reference::{advice, allowed, default};
use super::schema::{KeyInfo, Section};
use std::collections::HashSet;

const VALUES: &str = include_str!("example_values.toml");

/// Lines are at most so long; a longer comment stands above its key.
const WIDTH: usize = 120;
/// Comments begin in this column.
const COMMENT: usize = 32;

/// The text of the example file.
pub fn example() -> String {
    let mut out = String::new();
    let mut seen = HashSet::new();
    let given = given();
    let mut entry: Option<Entry<'_>> = None;
    for line in VALUES.lines() {
        if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            if let Some(e) = &mut entry {
                e.add(key, value, &mut seen, &mut out);
            }
            continue;
        }
        // Keys of an entry end with the next header or blank line.
        if let Some(e) = entry.take() {
            e.finish(&given, &mut seen, &mut out);
        }
        out.push_str(line);
        out.push('\n');
        let header = line.trim_matches(['[', ']']);
        entry = SECTIONS.iter().filter(|_| line.starts_with('[')).find(|s| s.name == header).map(Entry::new);
    }
    if let Some(e) = entry {
        e.finish(&given, &mut seen, &mut out);
    }
    out
}

/// The section and key of every value in [`VALUES`].
fn given() -> HashSet<(&'static str, &'static str)> {
    let mut out = HashSet::new();
    let mut section = "";
    for line in VALUES.lines().filter(|l| !l.starts_with('#')) {
        match line.split_once(" = ") {
            Some((key, _)) => {
                out.insert((section, key));
            }
            None => section = line.trim_matches(['[', ']']),
        }
    }
    out
}

/// A section or an entry of a list, while it is written.
struct Entry<'s> {
    section: &'s Section,
    /// Its value of `kind`.
    kind: String,
}

impl<'s> Entry<'s> {
    fn new(section: &'s Section) -> Entry<'s> {
        Entry { section, kind: String::new() }
    }

    fn add(&mut self, key: &str, value: &str, seen: &mut HashSet<(&'s str, String)>, out: &mut String) {
        if key == "kind" {
            self.kind = value.trim_matches('"').to_owned();
        }
        let first = seen.insert((self.section.name, key.to_owned()));
        let info = self.section.key(key).filter(|_| first);
        out.push_str(&line(key, value, info));
    }

    /// Adds the keys that no entry has yet and that go with this one.
    fn finish(self, given: &HashSet<(&str, &str)>, seen: &mut HashSet<(&'s str, String)>, out: &mut String) {
        for k in self.section.keys {
            let value = if k.example.is_empty() { k.default_toml() } else { Some(k.example.to_owned()) };
            let fits = k.kinds.is_empty() || k.kinds == self.kind;
            if let Some(value) = value.filter(|_| fits && !given.contains(&(self.section.name, k.name)))
                && seen.insert((self.section.name, k.name.to_owned()))
            {
                out.push_str(&line(k.name, &value, Some(k)));
            }
        }
    }
}

/// A key with its comment, behind it or above it.
fn line(key: &str, value: &str, info: Option<&KeyInfo>) -> String {
    let assignment = format!("{key} = {value}");
    let Some(info) = info else {
        return format!("{assignment}\n");
    };
    let comment = comment(info);
    let pad = COMMENT.saturating_sub(assignment.len()).max(1);
    if assignment.len() + pad + 2 + comment.chars().count() <= WIDTH {
        return format!("{assignment}{}# {comment}\n", " ".repeat(pad));
    }
    let mut out = String::new();
    let mut row = String::from("#");
    for word in comment.split(' ') {
        if row.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&row);
            out.push('\n');
            row = String::from("#");
        }
        row.push(' ');
        row.push_str(word);
    }
    format!("{out}{row}\n{assignment}\n")
}

/// Meaning, and in parentheses unit, range and default, as plain text.
fn comment(k: &KeyInfo) -> String {
    let allowed = allowed(k);
    let mut facts: Vec<String> = match (k.unit, allowed.as_str()) {
        ("", "") => Vec::new(),
        ("", allowed) => vec![allowed.to_owned()],
        (unit, "") => vec![unit.to_owned()],
        (unit, allowed) => vec![format!("{allowed} {unit}{}", advice(k))],
    };
    match default(k).as_str() {
        "" | "none" => facts.push("optional".to_owned()),
        "required" => {}
        required if required.starts_with("required") => facts.push(required.to_owned()),
        default => facts.push(format!("default: {default}")),
    }
    let meaning = k.meaning().trim_end_matches('.');
    let text =
        if facts.is_empty() { meaning.to_owned() } else { format!("{meaning} ({})", facts.join("; ")) };
    plain(&text)
}

/// Markdown without the signs of code, and links by their text.
fn plain(markdown: &str) -> String {
    let mut out = String::new();
    let mut rest = markdown;
    while let Some((before, after)) = rest.split_once('[') {
        out.push_str(before);
        match after.split_once("](").and_then(|(text, link)| Some((text, link.split_once(')')?.1))) {
            Some((text, behind)) if !text.contains(['[', ']']) => {
                out.push_str(text);
                rest = behind;
            }
            _ => {
                out.push('[');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out.replace('`', "").replace("  ", " ")
}
