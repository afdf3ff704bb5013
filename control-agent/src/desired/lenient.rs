//! Reading a device document of which parts are not what the contract says: they cost themselves and nothing else.
//!
//! What cannot be read is taken for a word that nobody knows, which the compiler gives its safest meaning; where no word can
//! stand, for nothing. A list of rules that cannot be read is one rule of which nothing is known, so it refuses everything.

use sag_southbound::{Deviation, DeviceDocument, Effect, ReadError, read};
use serde_json::{Value, json};

/// Parts of one document that are replaced at the most; a document with more is none.
const MOST: usize = 200;

/// The document, and what of it could not be read.
///
/// # Errors
/// It is of a newer major version, or hardly anything of it can be read.
pub fn read_document(value: Value) -> Result<(DeviceDocument, Vec<Deviation>), ReadError> {
    let mut value = value;
    let mut deviations: Vec<Deviation> = Vec::new();
    loop {
        // Read from a copy only where it has to be read again.
        let error = match read::<DeviceDocument>(value.clone()) {
            Ok(document) => return Ok((document, deviations)),
            Err(error) => error,
        };
        let ReadError::Malformed(e) = &error else { return Err(error) };
        let (path, text) = (e.path().to_owned(), e.to_string());
        let again = deviations.iter().any(|d| d.object == path);
        if deviations.len() >= MOST || !replace(&mut value, &path, again) {
            return Err(error);
        }
        if !again {
            deviations.push(Deviation {
                section: path.split(['.', '[']).next().unwrap_or_default().to_owned(),
                object: path,
                effect: Some(Effect::LeftOut),
                reason: text,
            });
        }
    }
}

/// A rule of which nothing is known.
fn unknown_rule() -> Value {
    json!({"Type": "?"})
}

/// Replaces what stands at the path, or takes it away if it was replaced before; `false`: there is nothing at the path.
fn replace(document: &mut Value, path: &str, again: bool) -> bool {
    let safe = match path.strip_prefix("Acls") {
        Some("") => Some(json!([{"AclId": "unreadable", "Rules": [unknown_rule()]}])),
        Some(rest) if rest.ends_with("].Rules") => Some(json!([unknown_rule()])),
        Some(rest) if rest.contains("].Rules[") && rest.ends_with(']') => Some(unknown_rule()),
        Some(rest) if !rest.contains('.') => Some(json!({"AclId": "unreadable", "Rules": [unknown_rule()]})),
        _ => None,
    };
    let (mut at, mut rest) = (document, path);
    loop {
        if let Some(index) = rest.strip_prefix('[') {
            let Some((n, after)) = index.split_once(']') else { return false };
            let Ok(n) = n.parse::<usize>() else { return false };
            rest = after.strip_prefix('.').unwrap_or(after);
            if rows_of(at).is_none() {
                // One bare entry stands for a list of it.
                if at.is_object() && n == 0 && !rest.is_empty() {
                    continue;
                }
                let list = Value::Array(safe.into_iter().collect());
                return std::mem::replace(at, list.clone()) != list;
            }
            let Some(rows) = rows_of(at).filter(|rows| n < rows.len()) else { return false };
            if !rest.is_empty() {
                at = &mut rows[n];
                continue;
            }
            match (safe, again) {
                (Some(safe), _) if rows[n] != safe => rows[n] = safe,
                (None, false) => rows[n] = json!({}),
                (None, true) => drop(rows.remove(n)),
                (Some(_), _) => return false,
            }
            return true;
        }
        let Value::Object(map) = at else { return false };
        // Names of members may hold what separates them in a path.
        let ends = |key: &&String| {
            rest.strip_prefix(key.as_str()).is_some_and(|r| r.is_empty() || r.starts_with(['.', '[']))
        };
        let Some(key) = map.keys().filter(ends).max_by_key(|k| k.len()).cloned() else { return false };
        rest = &rest[key.len()..];
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if rest.is_empty() {
            return match (safe, again) {
                (Some(safe), _) => map.insert(key, safe.clone()) != Some(safe),
                // A word that is one already goes at once.
                (None, false) if map.get(&key) != Some(&json!("?")) => map.insert(key, json!("?")).is_some(),
                (None, _) => map.remove(&key).is_some(),
            };
        }
        let Some(next) = map.get_mut(&key) else { return false };
        at = next;
    }
}

/// The entries of a list, which may stand in an object of its own.
fn rows_of(value: &mut Value) -> Option<&mut Vec<Value>> {
    match value {
        Value::Array(rows) => Some(rows),
        Value::Object(map) if map.len() == 1 => map.values_mut().next()?.as_array_mut(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_cannot_be_read_costs_itself() {
        let (document, deviations) = read_document(json!({
            "Revision": 7, "Snat": {"x": 1}, "Wan": {"0.1": {"IPType": [], "IP": "192.0.2.1"}},
            "StaticRoutes": {"StaticRoute": [{"PortName": "0", "Vlan": "ten"}, 7, {"PortName": "1"}]},
            "Acls": [{"AclId": "acl-1", "Rules": [{"AcrId": "acr-1", "Priority": "high"}, false]}],
        }))
        .expect("read");
        assert_eq!((document.revision, document.static_routes.len()), (7, 3));
        assert_eq!(
            (document.static_routes[0].vlan, document.static_routes[2].port_name.as_str()),
            (None, "1")
        );
        assert!(document.wan_snat.as_ref().is_some_and(sag_southbound::Switch::is_unknown));
        assert!(document.wan["0.1"].ip_type.as_ref().is_some_and(sag_southbound::AddressMode::is_unknown));
        let rules = &document.acls[0].rules;
        assert_eq!((rules[0].id.as_str(), rules[0].priority, rules[1].kind.as_str()), ("acr-1", None, "?"));
        let said: Vec<_> = deviations.iter().map(|d| (d.section.as_str(), d.object.as_str())).collect();
        for place in [
            ("StaticRoutes", "StaticRoutes[0].Vlan"),
            ("StaticRoutes", "StaticRoutes[1]"),
            ("Acls", "Acls[0].Rules[0].Priority"),
            ("Acls", "Acls[0].Rules[1]"),
            ("Wan", "Wan.0.1.IPType"),
            ("Snat", "Snat"),
        ] {
            assert!(said.contains(&place), "{place:?} in {said:?}");
        }
        assert!(read_document(json!({"ProtocolVersion": "9.0"})).is_err(), "another major version");
    }

    #[test]
    fn what_looks_like_a_replacement_costs_itself_too() {
        let (document, deviations) = read_document(json!({
            "Revision": 1, "StaticRoutes": [{"PortName": "0", "Vlan": "?"}, {}], "Acls": [{"AclId": "a", "Rules": [{"Type": "?", "Priority": "?"}]}],
        }))
        .expect("read");
        assert_eq!((document.static_routes[0].vlan, document.acls[0].rules[0].priority), (None, None));
        assert_eq!(deviations.len(), 2, "{deviations:?}");
    }

    #[test]
    fn rules_that_cannot_be_read_are_not_lost() {
        let with = |rules: Value| json!([{"AclId": "a", "Rules": rules}]);
        for acls in [json!(7), json!("x"), json!([7]), with(json!(7)), with(json!("x")), with(json!([7]))] {
            let (document, _) = read_document(json!({"Revision": 7, "Acls": acls.clone()})).expect("read");
            assert_eq!((document.acls.len(), document.acls[0].rules.len()), (1, 1), "{acls}");
        }
    }

    #[test]
    fn a_document_of_which_hardly_anything_can_be_read() {
        let routes = |n: usize| json!({"Revision": 7, "StaticRoutes": vec![json!(7); n]});
        assert_eq!(read_document(routes(MOST)).expect("read").1.len(), MOST);
        assert!(read_document(routes(MOST + 1)).is_err());
    }

    proptest! {
        /// One member of another kind, wherever it is: the others are read.
        #[test]
        fn one_wrong_member(section in 0..6usize, kind in 0..4usize) {
            let wrong = [json!(7), json!("x"), json!([[7]]), json!({"a": {"b": [1]}})][kind].clone();
            let mut document = json!({"Revision": 7, "Ports": [{"PortName": "0", "Role": "WAN"}],
                "Wan": {"0": {"IP": "192.0.2.1"}}, "StaticRoutes": [{"PortName": "0"}], "Snat": "ENABLE",
                "SnatEntries": [{"InstanceId": "s"}], "Acls": [{"AclId": "a", "Rules": []}]});
            let name = ["Ports", "Wan", "StaticRoutes", "Snat", "SnatEntries", "Acls"][section];
            document[name] = wrong;
            let (read, _) = read_document(document).expect("read");
            prop_assert_eq!(read.revision, 7);
            prop_assert!(name == "Wan" || read.wan.len() == 1);
            prop_assert!(name == "SnatEntries" || read.snat_entries.len() == 1);
            prop_assert!(!read.acls.is_empty());
        }
    }
}
