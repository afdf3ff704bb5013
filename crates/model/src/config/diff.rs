//! The differences of two configurations, entry by entry: for people, and for deciding what a reload touches.

use super::keys::{Config, SECTIONS};
use super::schema::{SECRET_MASK, Section};
use super::show::Secrets;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use toml::{Table, Value};

/// One key or entry that differs. Values are as the file writes them, secrets masked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// As in `acl[acl-1].rule[acr-1].policy`; of an entry that was added or removed, as in `acl[acl-1].rule[acr-1]`. The
    /// key `position` stands for an entry that moved among its siblings where their order has a meaning.
    pub path: String,
    /// `null`: added.
    pub old: Option<String>,
    /// `null`: removed.
    pub new: Option<String>,
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
    path: String,
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

/// Takes the subsections out of a table and files them under their section; returns the plain keys.
fn collect(section: &str, path: &str, table: Table, out: &mut Entries) -> Table {
    let mut fields = Table::new();
    for (key, value) in table {
        let (below, at) = (dotted(section, &key), dotted(path, &key));
        match value {
            Value::Table(t) => {
                let fields = collect(&below, &at, t, out);
                out.entry(below).or_default().push(Entry { path: at, fields });
            }
            Value::Array(items) if items.iter().any(Value::is_table) => {
                for item in items {
                    if let Value::Table(t) = item {
                        let path = format!("{at}[{}]", identity(&below, &t));
                        let fields = collect(&below, &path, t, out);
                        out.entry(below.clone()).or_default().push(Entry { path, fields });
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

fn dotted(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

fn identity(section: &str, t: &Table) -> String {
    let get = |key: &str| match t.get(key) {
        Some(Value::String(s)) => s.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    match section {
        "vrf" | "port" | "tunnel" => get("name"),
        "neighbor" => format!("{} on {}", get("address"), get("port")),
        "route" => {
            let mut id = format!("{} metric {}", get("destination"), get("metric"));
            let words = [
                ("vrf", "vrf"),
                ("via", "next_hop"),
                ("port", "port"),
                ("tunnel", "tunnel"),
                ("type", "type"),
            ];
            for (word, key) in words {
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
        entries.iter().enumerate().map(|(i, e)| (e.path.clone(), i)).collect()
    };
    let (in_old, in_new) = (index(old), index(new));
    for e in old.iter().filter(|e| !in_new.contains_key(&e.path)) {
        out.push(Change { path: e.path.clone(), old: Some(shown_entry(section, &e.fields)), new: None });
    }
    let both: Vec<Option<usize>> = new.iter().map(|e| in_old.get(&e.path).copied()).collect();
    let moved = if ORDERED.contains(&section.name) { moved(&both) } else { vec![false; new.len()] };
    for (i, e) in new.iter().enumerate() {
        let Some((j, before)) = both.get(i).copied().flatten().and_then(|j| Some((j, old.get(j)?))) else {
            out.push(Change { path: e.path.clone(), old: None, new: Some(shown_entry(section, &e.fields)) });
            continue;
        };
        changed_fields(section, before, e, out);
        if moved.get(i).copied().unwrap_or(false) {
            let at = |n: usize| Some((n + 1).to_string());
            out.push(Change { path: dotted(&e.path, "position"), old: at(j), new: at(i) });
        }
    }
}

fn changed_fields(section: &Section, old: &Entry, new: &Entry, out: &mut Vec<Change>) {
    let keys = new.fields.keys().chain(old.fields.keys().filter(|k| !new.fields.contains_key(*k)));
    for key in keys.filter(|k| old.fields.get(*k) != new.fields.get(*k)) {
        let show = |e: &Entry| e.fields.get(key).map(|v| shown(section, key, v).to_string());
        out.push(Change { path: dotted(&new.path, key), old: show(old), new: show(new) });
    }
}

/// The value, or what stands for a secret.
fn shown(section: &Section, key: &str, value: &Value) -> Value {
    match section.key(key).is_some_and(|k| k.secret) {
        true => Value::from(SECRET_MASK),
        false => value.clone(),
    }
}

fn shown_entry(section: &Section, fields: &Table) -> String {
    let shown = fields.iter().map(|(key, value)| (key.clone(), shown(section, key, value)));
    Value::Table(shown.collect()).to_string()
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
