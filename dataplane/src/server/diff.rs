//! What differs between two configuration documents, key by key, whatever their layout.

use sag_model::control::Change;
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

/// Keys that name an element of an array of tables, the first that all elements have.
const NAMING_KEYS: &[&str] = &["id", "name", "destination"];

/// Lists the changes that lead from `old` to `new`, in the order of the keys.
pub(super) fn changes(old: &str, new: &str) -> Result<Vec<Change>, toml::de::Error> {
    let (old, new): (Table, Table) = (toml::from_str(old)?, toml::from_str(new)?);
    let mut out = Vec::new();
    tables("", &old, &new, &mut out);
    Ok(out)
}

fn tables(path: &str, old: &Table, new: &Table, out: &mut Vec<Change>) {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (old.get(key), new.get(key)) {
            (Some(Value::Table(a)), Some(Value::Table(b))) => tables(&path, a, b, out),
            (a, b) => match (elements(a), elements(b)) {
                (Some(a), Some(b)) => arrays(&path, &a, &b, out),
                _ => leaf(path, a, b, out),
            },
        }
    }
}

/// The elements of an array of tables; an absent one has none.
fn elements(value: Option<&Value>) -> Option<Vec<&Table>> {
    match value {
        None => Some(Vec::new()),
        Some(Value::Array(items)) if !items.is_empty() => items.iter().map(Value::as_table).collect(),
        Some(_) => None,
    }
}

fn arrays(path: &str, old: &[&Table], new: &[&Table], out: &mut Vec<Change>) {
    let naming = NAMING_KEYS.iter().find(|k| is_naming(k, old) && is_naming(k, new));
    let (old, new) = (named(old, naming), named(new, naming));
    let find = |list: &[(String, &Table)]| -> BTreeMap<String, usize> {
        list.iter().enumerate().map(|(n, (name, _))| (name.clone(), n)).collect()
    };
    let (in_old, in_new) = (find(&old), find(&new));
    for (name, a) in &old {
        let path = format!("{path}[{name}]");
        match in_new.get(name) {
            Some(n) => tables(&path, a, new[*n].1, out),
            None => out.push(Change { path, old: Some(inline(a)), new: None }),
        }
    }
    for (name, b) in &new {
        if !in_old.contains_key(name) {
            out.push(Change { path: format!("{path}[{name}]"), old: None, new: Some(inline(b)) });
        }
    }
    let common = |list: &[(String, &Table)], other: &BTreeMap<String, usize>| -> Vec<String> {
        list.iter().map(|(name, _)| name.clone()).filter(|name| other.contains_key(name)).collect()
    };
    let (a, b) = (common(&old, &in_new), common(&new, &in_old));
    if a != b {
        // Order decides between rules of one priority.
        let path = format!("{path} (order)");
        out.push(Change { path, old: Some(a.join(", ")), new: Some(b.join(", ")) });
    }
}

/// Whether every element has the key and no two the same value.
fn is_naming(key: &str, list: &[&Table]) -> bool {
    let values: BTreeSet<&str> = list.iter().filter_map(|t| t.get(key)?.as_str()).collect();
    values.len() == list.len()
}

fn named<'a>(list: &[&'a Table], key: Option<&&str>) -> Vec<(String, &'a Table)> {
    let name = |n: usize, t: &Table| {
        let named = key.and_then(|k| t.get(*k)).and_then(Value::as_str);
        named.map_or_else(|| n.to_string(), str::to_owned)
    };
    list.iter().enumerate().map(|(n, t)| (name(n, t), *t)).collect()
}

fn leaf(path: String, old: Option<&Value>, new: Option<&Value>, out: &mut Vec<Change>) {
    if old != new {
        out.push(Change { path, old: old.map(Value::to_string), new: new.map(Value::to_string) });
    }
}

fn inline(table: &Table) -> String {
    Value::Table(table.clone()).to_string()
}
