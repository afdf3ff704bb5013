//! Brings an answer that was stored as a value into the documented form.
//!
//! Older versions stored plain objects and bare lists. The catalogue decides which fields go out, as
//! which JSON type, and which lists are wrapped (`{"Acls":{"Acl":[...]}}`).

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;

use super::Node;

/// An answer in its documented form, to be written without being built first.
pub struct Shaped<'a> {
    node: &'a Node,
    value: &'a Value,
}

impl<'a> Shaped<'a> {
    pub fn new(node: &'a Node, value: &'a Value) -> Shaped<'a> {
        Shaped { node, value }
    }

    /// The field of an object; a bare list stands for the object that wraps it.
    fn field(&self, name: &str) -> Option<&'a Value> {
        match self.value {
            Value::Object(map) => map.get(name),
            list @ Value::Array(_) => wrapper(self.node).filter(|w| *w == name).map(|_| list),
            _ => None,
        }
    }
}

impl Serialize for Shaped<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.node {
            Node::Text => to.serialize_str(&text(self.value)),
            Node::Int => to.serialize_i64(int(self.value)),
            Node::Bool => to.serialize_bool(boolean(self.value)),
            Node::List(item) => {
                let items = match self.value {
                    Value::Array(items) => items.as_slice(),
                    Value::Null => &[],
                    one => std::slice::from_ref(one),
                };
                to.collect_seq(items.iter().map(|v| Shaped::new(item, v)))
            }
            Node::Object(fields) => {
                let mut out = to.serialize_map(None)?;
                for f in fields.iter() {
                    match self.field(f.name) {
                        Some(Value::Null) | None if !f.always && !is_list(&f.node) => {}
                        v => out.serialize_entry(f.name, &Shaped::new(&f.node, v.unwrap_or(&Value::Null)))?,
                    }
                }
                out.end()
            }
        }
    }
}

/// The form of an answer as a value.
pub fn shape(node: &Node, value: &Value) -> Value {
    // Writing into a value does not fail.
    serde_json::to_value(Shaped::new(node, value)).unwrap_or_default()
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

fn text(v: &Value) -> Cow<'_, str> {
    match v {
        Value::String(s) => Cow::Borrowed(s),
        Value::Null => Cow::Borrowed(""),
        Value::Array(a) => Cow::Owned(a.iter().map(text).collect::<Vec<_>>().join(",")),
        other => Cow::Owned(other.to_string()),
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
