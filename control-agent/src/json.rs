//! Reading answers of the API: lists in any of their wrappings, numbers written as text and the
//! other way round, empty text where there is nothing.

use serde_json::Value;

/// A list that may be `{container: {item: [..]}}`, `{container: {item: {..}}}`, `{container: [..]}`
/// or one bare object or word.
pub fn list(v: &Value, container: &str, item: &str) -> Vec<Value> {
    match &v[container] {
        Value::Array(rows) => rows.clone(),
        Value::Object(map) => match map.get(item) {
            Some(Value::Array(rows)) => rows.clone(),
            Some(Value::Null) => Vec::new(),
            Some(one) => vec![one.clone()],
            // An object that is neither empty nor a wrapping is the only entry itself.
            None if map.is_empty() => Vec::new(),
            None => vec![v[container].clone()],
        },
        Value::String(s) => s.split(',').map(str::trim).filter(|s| !s.is_empty()).map(Value::from).collect(),
        _ => Vec::new(),
    }
}

pub fn text(v: &Value, field: &str) -> Option<String> {
    match &v[field] {
        Value::String(s) if !s.trim().is_empty() => Some(s.trim().to_owned()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

/// A whole number, also as `"10"`, `"10M"`, `"10 M"` or `10.0`.
pub fn int(v: &Value, field: &str) -> Option<i64> {
    match &v[field] {
        Value::Number(n) => n.as_i64().or_else(|| n.as_f64().filter(|f| f.fract() == 0.0).map(|f| f as i64)),
        Value::String(s) => s.trim().trim_end_matches(['M', 'm']).trim_end().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn every_wrapping_of_a_list() {
        let row = json!({"PortName": "1"});
        for answer in [
            json!({"Wans": {"Wan": [row]}}),
            json!({"Wans": {"Wan": row}}),
            json!({"Wans": [row]}),
            json!({"Wans": row}),
        ] {
            assert_eq!(list(&answer, "Wans", "Wan"), vec![row.clone()], "{answer}");
        }
        for empty in [json!({}), json!({"Wans": null}), json!({"Wans": {}}), json!({"Wans": ""}), json!([])] {
            assert!(list(&empty, "Wans", "Wan").is_empty(), "{empty}");
        }
        assert_eq!(list(&json!({"AclIds": "acl-1, acl-2"}), "AclIds", "AclId"), ["acl-1", "acl-2"]);
    }

    #[test]
    fn numbers_and_texts_in_disguise() {
        let v = json!({"a": "10M", "b": "50 M", "c": 7, "d": "", "e": 3.0, "f": "x", "g": true});
        assert_eq!(
            ["a", "b", "c", "d", "e", "f"].map(|k| int(&v, k)),
            [Some(10), Some(50), Some(7), None, Some(3), None]
        );
        assert_eq!(
            ["c", "d", "g", "z"].map(|k| text(&v, k)),
            [Some("7".into()), None, Some("true".into()), None]
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-zM0-9 ]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("(A|B)", inner, 0..3)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_is_too_strange(v in any_json()) {
            let _ = (list(&v, "A", "B"), text(&v, "A"), int(&v, "B"));
        }
    }
}
