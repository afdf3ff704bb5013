//! Brings a handler's answer into the documented form.
//!
//! Handlers return plain objects and bare lists. The catalogue decides which fields go out, as
//! which JSON type, and which lists are wrapped (`{"Acls":{"Acl":[...]}}`).

use serde_json::{Map, Value};

use super::Node;

pub fn shape(node: &Node, value: Value) -> Value {
    match node {
        Node::Text => Value::String(text(value)),
        Node::Int => Value::from(int(&value)),
        Node::Bool => Value::Bool(boolean(&value)),
        Node::List(item) => {
            let items = match value {
                Value::Array(items) => items,
                Value::Null => Vec::new(),
                one => vec![one],
            };
            Value::Array(items.into_iter().map(|v| shape(item, v)).collect())
        }
        Node::Object(fields) => {
            let mut source = match value {
                Value::Object(map) => map,
                other => match wrapper(node) {
                    Some(name) if other.is_array() => Map::from_iter([(name.to_owned(), other)]),
                    _ => Map::new(),
                },
            };
            let mut out = Map::new();
            for f in fields.iter() {
                match source.remove(f.name) {
                    Some(Value::Null) | None if !f.always && !is_list(&f.node) => {}
                    v => {
                        let v = v.unwrap_or(Value::Null);
                        out.insert(f.name.to_owned(), shape(&f.node, v));
                    }
                }
            }
            Value::Object(out)
        }
    }
}

/// The name inside a list wrapper: an object whose only field is a list.
fn wrapper(node: &Node) -> Option<&'static str> {
    match node {
        Node::Object([f]) if matches!(f.node, Node::List(_)) => Some(f.name),
        _ => None,
    }
}

/// A bare list of objects is always present; a wrapped or scalar list may be left out.
fn is_list(node: &Node) -> bool {
    matches!(node, Node::List(Node::Object(_)))
}

fn text(v: Value) -> String {
    match v {
        Value::String(s) => s,
        Value::Null => String::new(),
        Value::Array(a) => a.into_iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn int(v: &Value) -> i64 {
    match v {
        Value::Number(n) => n.as_i64().unwrap_or(n.as_f64().unwrap_or(0.0) as i64),
        Value::String(s) => s.trim().parse().unwrap_or(0),
        Value::Bool(b) => i64::from(*b),
        _ => 0,
    }
}

fn boolean(v: &Value) -> bool {
    match v {
        Value::Bool(b) => *b,
        Value::String(s) => s.eq_ignore_ascii_case("true"),
        Value::Number(n) => n.as_i64() != Some(0),
        _ => false,
    }
}
