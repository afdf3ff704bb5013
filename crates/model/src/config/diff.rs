//! The differences of two configurations, entry by entry: for people, and for deciding what a reload touches.

use super::keys::{Config, SECTIONS};
use super::schema::{SECRET_MASK, Section};
use super::show::Secrets;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use toml::{Table, Value};

/// One entry that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Header in the file: `dataplane`, `port`, `acl.rule`, ...
    pub section: String,
    /// Name or id, under its parent's (`acl-1/acr-3`); empty for sections that occur once.
    pub id: String,
    /// What became of it.
    pub kind: ChangeKind,
    /// The keys that differ; empty unless changed.
    pub fields: Vec<FieldChange>,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// Only in the new one.
    Added,
    /// Only in the old one.
    Removed,
    /// In both, with other values.
    Changed,
}

/// Values as the file writes them, secrets masked. The key `position` stands for an entry that moved
/// among its siblings where their order has a meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// The key.
    pub key: String,
    /// `None`: there was none.
    pub old: Option<String>,
    /// `None`: there is none any more.
    pub new: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.kind {
            ChangeKind::Added => '+',
            ChangeKind::Removed => '-',
            ChangeKind::Changed => '~',
        };
        write!(f, "{sign} {}", self.section)?;
        if !self.id.is_empty() {
            write!(f, " {}", self.id)?;
        }
        for (i, c) in self.fields.iter().enumerate() {
            let none = "(none)";
            let (old, new) = (c.old.as_deref().unwrap_or(none), c.new.as_deref().unwrap_or(none));
            write!(f, "{} {} {old} -> {new}", if i == 0 { ":" } else { "," }, c.key)?;
        }
        Ok(())
    }
}

impl Config {
    /// What would have to be done to this configuration to get `other`, in the order of the
    /// sections.
    pub fn diff(&self, other: &Config) -> Vec<Change> {
        if self == other {
            return Vec::new();
        }
        let (old, new) = (entries(self), entries(other));
        let mut out = Vec::new();
        for section in SECTIONS {
            compare(section, old.get(section.name), new.get(section.name), &mut out);
        }
        out
    }
}

/// Sections whose entries are tried in order, or numbered by it.
const ORDERED: &[&str] = &["port", "acl", "acl.rule", "qos.policy"];

struct Entry {
    id: String,
    fields: Table,
}

type Entries = HashMap<String, Vec<Entry>>;

fn entries(config: &Config) -> Entries {
    let mut out = Entries::new();
    // The raw form consists of strings, numbers, flags and lists of them: all TOML.
    let table = Table::try_from(config.to_raw(Secrets::Shown)).unwrap_or_default();
    collect("", "", table, &mut out);
    out
}

/// Takes the subsections out of a table and files them; returns the plain keys.
fn collect(section: &str, parent: &str, table: Table, out: &mut Entries) -> Table {
    let mut fields = Table::new();
    for (key, value) in table {
        let below = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
        match value {
            Value::Table(t) => {
                let fields = collect(&below, "", t, out);
                out.entry(below).or_default().push(Entry { id: String::new(), fields });
            }
            Value::Array(items) if items.iter().any(Value::is_table) => {
                for item in items {
                    if let Value::Table(t) = item {
                        let own = identity(&below, &t);
                        let id = if parent.is_empty() { own } else { format!("{parent}/{own}") };
                        let fields = collect(&below, &id, t, out);
                        out.entry(below.clone()).or_default().push(Entry { id, fields });
                    }
                }
            }
            plain => {
                fields.insert(key, plain);
            }
        }
    }
    fields
}

fn identity(section: &str, t: &Table) -> String {
    let get = |key: &str| match t.get(key) {
        Some(Value::String(s)) => s.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    match section {
        "port" | "tunnel" => get("name"),
        "neighbor" => format!("{} on {}", get("address"), get("port")),
        "route" => {
            let mut id = format!("{} metric {}", get("destination"), get("metric"));
            for (word, key) in [("via", "next_hop"), ("port", "port"), ("tunnel", "tunnel"), ("type", "type")]
            {
                if t.contains_key(key) {
                    id.push_str(&format!(" {word} {}", get(key)));
                }
            }
            id
        }
        _ => get("id"),
    }
}

fn compare(section: &Section, old: Option<&Vec<Entry>>, new: Option<&Vec<Entry>>, out: &mut Vec<Change>) {
    let none = Vec::new();
    let (old, new) = (old.unwrap_or(&none), new.unwrap_or(&none));
    let index = |entries: &[Entry]| -> HashMap<String, usize> {
        entries.iter().enumerate().map(|(i, e)| (e.id.clone(), i)).collect()
    };
    let (in_old, in_new) = (index(old), index(new));
    let change =
        |id: &str, kind, fields| Change { section: section.name.to_owned(), id: id.to_owned(), kind, fields };
    for e in old.iter().filter(|e| !in_new.contains_key(&e.id)) {
        out.push(change(&e.id, ChangeKind::Removed, Vec::new()));
    }
    let both: Vec<Option<usize>> = new.iter().map(|e| in_old.get(&e.id).copied()).collect();
    let moved = if ORDERED.contains(&section.name) { moved(&both) } else { vec![false; new.len()] };
    for (i, e) in new.iter().enumerate() {
        let Some((j, before)) = both.get(i).copied().flatten().and_then(|j| Some((j, old.get(j)?))) else {
            out.push(change(&e.id, ChangeKind::Added, Vec::new()));
            continue;
        };
        let mut fields = changed_fields(section, &before.fields, &e.fields);
        if moved.get(i).copied().unwrap_or(false) {
            let at = |n: usize| Some((n + 1).to_string());
            fields.push(FieldChange { key: "position".to_owned(), old: at(j), new: at(i) });
        }
        if !fields.is_empty() {
            out.push(change(&e.id, ChangeKind::Changed, fields));
        }
    }
}

fn changed_fields(section: &Section, old: &Table, new: &Table) -> Vec<FieldChange> {
    let keys = new.keys().chain(old.keys().filter(|k| !new.contains_key(*k)));
    keys.filter(|k| old.get(*k) != new.get(*k))
        .map(|key| {
            let show = |t: &Table| {
                t.get(key).map(|v| {
                    if section.key(key).is_some_and(|k| k.secret) {
                        SECRET_MASK.to_owned()
                    } else {
                        v.to_string()
                    }
                })
            };
            FieldChange { key: key.clone(), old: show(old), new: show(new) }
        })
        .collect()
}

/// Which of the entries of both have to move: all but a longest increasing run of old positions.
fn moved(both: &[Option<usize>]) -> Vec<bool> {
    // `tails[k]` is the index of the entry that ends the best run of length k + 1.
    let mut tails: Vec<(usize, usize)> = Vec::new();
    let mut previous: Vec<Option<usize>> = vec![None; both.len()];
    for (i, position) in both.iter().enumerate() {
        let Some(position) = *position else { continue };
        let length = tails.partition_point(|(p, _)| *p < position);
        if let (Some(link), Some((_, before))) =
            (previous.get_mut(i), length.checked_sub(1).and_then(|l| tails.get(l)))
        {
            *link = Some(*before);
        }
        match tails.get_mut(length) {
            Some(tail) => *tail = (position, i),
            None => tails.push((position, i)),
        }
    }
    let mut moved: Vec<bool> = both.iter().map(Option::is_some).collect();
    let mut next = tails.last().map(|(_, i)| *i);
    while let Some(i) = next {
        if let Some(m) = moved.get_mut(i) {
            *m = false;
        }
        next = previous.get(i).copied().flatten();
    }
    moved
}
