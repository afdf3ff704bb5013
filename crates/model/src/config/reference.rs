//! The tables of `docs/configuration.md`, made of the declarations.

use super::keys::SECTIONS;
use super::schema::{KeyInfo, Section};

/// Begin of a generated table in the manual, less the section's name.
const BEGIN: &str = "<!-- keys of ";
/// End of a generated table.
const END: &str = "<!-- end of keys -->";

/// The table of a section, Markdown; `None`: there is no such section.
pub fn reference(section: &str) -> Option<String> {
    SECTIONS.iter().find(|s| s.name == section).map(table)
}

/// The manual with every table between `<!-- keys of SECTION -->` and `<!-- end of keys -->` generated again.
///
/// # Errors
///
/// A marker without its end, or of a section that does not exist; a section that has no table.
pub fn with_references(manual: &str) -> Result<String, String> {
    let mut out = String::with_capacity(manual.len());
    let mut left: Vec<&str> = SECTIONS.iter().map(|s| s.name).collect();
    let mut rest = manual;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (section, after) = after.split_once(" -->").ok_or("a marker that does not end")?;
        let table = reference(section).ok_or_else(|| format!("there is no section {section}"))?;
        let (_, after) = after.split_once(END).ok_or_else(|| format!("no end of the table of {section}"))?;
        out.push_str(before);
        out.push_str(&format!("{BEGIN}{section} -->\n\n{table}\n{END}"));
        left.retain(|s| *s != section);
        rest = after;
    }
    out.push_str(rest);
    if left.is_empty() { Ok(out) } else { Err(format!("no table of {}", left.join(", "))) }
}

fn table(section: &Section) -> String {
    let kinds = section.keys.iter().any(|k| !k.kinds.is_empty());
    let mut out = match kinds {
        true => {
            "| key | type | range | default | kinds | meaning | source |\n|---|---|---|---|---|---|---|\n"
        }
        false => "| key | type | range | default | meaning | source |\n|---|---|---|---|---|---|\n",
    }
    .to_owned();
    for k in section.keys {
        let of = if k.kinds.is_empty() { "all" } else { k.kinds };
        let kinds = if kinds { format!("{of} | ") } else { String::new() };
        let line = format!(
            "| `{}` | {} | {} | {} | {kinds}{} | {} |",
            k.name,
            kind(k),
            range(k),
            default(k),
            meaning(k),
            k.source
        );
        out.push_str(&line.replace("|  |", "| |"));
        out.push('\n');
    }
    out
}

/// Type and unit.
fn kind(k: &KeyInfo) -> String {
    if k.unit.is_empty() { k.kind.to_owned() } else { format!("{}, {}", k.kind, k.unit) }
}

/// What is allowed, and below what there is a warning.
fn range(k: &KeyInfo) -> String {
    allowed(k) + &advice(k)
}

/// What is allowed.
pub(super) fn allowed(k: &KeyInfo) -> String {
    match (k.allowed, k.range) {
        ("", Some((least, greatest))) => format!("{least}..{greatest}"),
        ("", None) => k.words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "),
        (allowed, _) => allowed.to_owned(),
    }
}

/// Below what there is a warning.
pub(super) fn advice(k: &KeyInfo) -> String {
    k.advised.map(|(least, _)| format!(", below {least} with a warning")).unwrap_or_default()
}

/// What an absent key means.
pub(super) fn default(k: &KeyInfo) -> String {
    match k.default_toml() {
        _ if !k.absent.is_empty() => k.absent.to_owned(),
        // Words and paths are shown without the quotes of the file.
        Some(value) if k.range.is_none() => format!("`{}`", value.trim_matches('"')),
        Some(value) => value,
        None if k.optional => String::new(),
        None => "required".to_owned(),
    }
}

fn meaning(k: &KeyInfo) -> String {
    let mut out = k.meaning().trim_end_matches('.').to_owned();
    if k.at_start {
        out.push_str(". Changes with the next start");
    }
    if let Some(old) = k.formerly {
        out.push_str(&format!(". Formerly `{old}`, which is accepted with a warning"));
    }
    out
}
