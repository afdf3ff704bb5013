//! How the types of this crate are read from JSON.
//!
//! Writers of the documents have changed their habits: numbers come as text (`"10M"`), lists come inside an object
//! (`{"Wan": [..]}`), an absent value may be `null` or an empty text. Readers accept all of these, ignore members that
//! they do not know, and name the place of whatever they cannot read.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Why a JSON value is not what the contract says, and where in the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireError {
    path: String,
    problem: String,
}

impl WireError {
    /// A problem with a value; the place is added by those who know it.
    pub fn new(problem: impl Into<String>) -> WireError {
        WireError { path: String::new(), problem: problem.into() }
    }

    /// Where it is: `StaticRoutes[2].Vlan`; empty: the value itself.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The same problem, seen from the object or list that contains the place.
    #[must_use]
    pub fn within(mut self, place: impl fmt::Display) -> WireError {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        let place = place.to_string();
        // Names of members are the writer's, and of any length.
        let place = match place.char_indices().nth(60) {
            Some((end, _)) => format!("{}…", &place[..end]),
            None => place,
        };
        self.path = format!("{place}{dot}{}", self.path);
        self
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.problem),
            path => write!(f, "{path}: {}", self.problem),
        }
    }
}

impl std::error::Error for WireError {}

/// A value of the contract.
pub trait Wire: Sized {
    /// Reads the value; `null` stands for an absent one.
    ///
    /// # Errors
    /// The place and the reason, if the value is of another kind or is absent and must not be.
    fn from_json(value: Value) -> Result<Self, WireError>;

    /// Whether the value is empty, so that a writer may leave it out.
    fn is_absent(&self) -> bool {
        false
    }

    /// Whether there is no value, so that a writer must leave it out.
    fn is_none(&self) -> bool {
        false
    }
}

/// Takes a member out of an object and reads it.
///
/// # Errors
/// The member is not what the type says; the error names it.
pub fn member<T: Wire>(map: &mut Map<String, Value>, name: &str) -> Result<T, WireError> {
    T::from_json(map.remove(name).unwrap_or_default()).map_err(|e| e.within(name))
}

/// The members of an object.
///
/// # Errors
/// The value is not an object.
pub fn object(value: Value) -> Result<Map<String, Value>, WireError> {
    match value {
        Value::Object(map) => Ok(map),
        other => Err(unexpected("an object", &other)),
    }
}

/// Reads one value of a type that is not part of this crate, for `#[serde(deserialize_with = "wire_field")]`.
///
/// # Errors
/// The value is not what the type says.
pub fn wire_field<'de, D: Deserializer<'de>, T: Wire>(d: D) -> Result<T, D::Error> {
    T::from_json(Value::deserialize(d)?).map_err(serde::de::Error::custom)
}

pub(crate) fn absent<T: Wire>(value: &T) -> bool {
    value.is_absent()
}

pub(crate) fn none<T: Wire>(value: &T) -> bool {
    value.is_none()
}

fn unexpected(wanted: &str, found: &Value) -> WireError {
    if found.is_null() {
        return WireError::new("is missing");
    }
    let text: String = found.to_string().chars().take(60).collect();
    WireError::new(format!("{text} is not {wanted}"))
}

impl Wire for Value {
    fn from_json(value: Value) -> Result<Value, WireError> {
        Ok(value)
    }

    fn is_absent(&self) -> bool {
        self.is_null()
    }
}

/// Numbers and truth values are accepted as text; blanks around it are not part of it.
impl Wire for String {
    fn from_json(value: Value) -> Result<String, WireError> {
        match value {
            Value::Null => Ok(String::new()),
            Value::String(s) if s.trim().len() == s.len() => Ok(s),
            Value::String(s) => Ok(s.trim().to_owned()),
            Value::Number(n) => Ok(n.to_string()),
            Value::Bool(b) => Ok(b.to_string()),
            other => Err(unexpected("a text", &other)),
        }
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

macro_rules! whole_number {
    ($kind:ty, $as_number:ident) => {
        /// A whole number, also as `"10"`, `"10M"`, `"10 M"` or `10.0`.
        impl Wire for $kind {
            fn from_json(value: Value) -> Result<$kind, WireError> {
                let whole = |f: &f64| f.fract() == 0.0 && f.abs() < 9e15;
                let number = match &value {
                    Value::Number(n) => n.$as_number().or_else(|| {
                        let number = n.as_f64().filter(whole)? as i64;
                        <$kind>::try_from(number).ok()
                    }),
                    Value::String(s) => s.trim().trim_end_matches(['M', 'm']).trim_end().parse().ok(),
                    _ => None,
                };
                number.ok_or_else(|| unexpected("a whole number", &value))
            }
        }
    };
}

whole_number!(i64, as_i64);
whole_number!(u64, as_u64);

impl Wire for f64 {
    fn from_json(value: Value) -> Result<f64, WireError> {
        let number = match &value {
            Value::Number(n) => n.as_f64(),
            Value::String(s) => s.trim().parse().ok().filter(|n: &f64| n.is_finite()),
            _ => None,
        };
        number.ok_or_else(|| unexpected("a number", &value))
    }
}

impl Wire for bool {
    fn from_json(value: Value) -> Result<bool, WireError> {
        match &value {
            Value::Null => Ok(false),
            Value::Bool(b) => Ok(*b),
            Value::String(s) if s.eq_ignore_ascii_case("true") => Ok(true),
            Value::String(s) if s.eq_ignore_ascii_case("false") || s.is_empty() => Ok(false),
            _ => Err(unexpected("true or false", &value)),
        }
    }
}

/// `null` and an empty text are none.
impl<T: Wire> Wire for Option<T> {
    fn from_json(value: Value) -> Result<Option<T>, WireError> {
        match &value {
            Value::Null => Ok(None),
            Value::String(s) if s.trim().is_empty() => Ok(None),
            _ => T::from_json(value).map(Some),
        }
    }

    fn is_absent(&self) -> bool {
        Option::is_none(self)
    }

    fn is_none(&self) -> bool {
        Option::is_none(self)
    }
}

/// A list; also `{"Item": [..]}`, `{"Item": {..}}`, one bare entry, or words separated by commas.
impl<T: Wire> Wire for Vec<T> {
    fn from_json(value: Value) -> Result<Vec<T>, WireError> {
        let rows = match value {
            Value::Null => Vec::new(),
            Value::Array(rows) => rows,
            Value::Object(map) if map.is_empty() => Vec::new(),
            // Taken out, not copied: the largest part of a document is in such lists.
            Value::Object(map) if sole(&map).is_some_and(Value::is_array) => map
                .into_iter()
                .next()
                .and_then(|(_, v)| if let Value::Array(rows) = v { Some(rows) } else { None })
                .unwrap_or_default(),
            Value::Object(map) => match sole(&map) {
                Some(Value::Null) => Vec::new(),
                Some(row @ Value::Object(_)) => vec![row.clone()],
                Some(word) if T::from_json(Value::Object(map.clone())).is_err() => vec![word.clone()],
                _ => vec![Value::Object(map)],
            },
            Value::String(s) => {
                s.split(',').map(str::trim).filter(|s| !s.is_empty()).map(Value::from).collect()
            }
            other => return Err(unexpected("a list", &other)),
        };
        let read = |(n, row)| T::from_json(row).map_err(|e| e.within(format_args!("[{n}]")));
        rows.into_iter().enumerate().map(read).collect()
    }
}

/// The value of the only member.
fn sole(map: &Map<String, Value>) -> Option<&Value> {
    if map.len() == 1 { map.values().next() } else { None }
}

impl<T: Wire> Wire for BTreeMap<String, T> {
    fn from_json(value: Value) -> Result<BTreeMap<String, T>, WireError> {
        if value.is_null() {
            return Ok(BTreeMap::new());
        }
        let read = |(name, value): (String, Value)| match T::from_json(value) {
            Ok(value) => Ok((name, value)),
            Err(e) => Err(e.within(name)),
        };
        object(value)?.into_iter().map(read).collect()
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

/// A text that is never shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes the text in clear.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text in clear.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Wire for Secret {
    fn from_json(value: Value) -> Result<Secret, WireError> {
        // Blanks belong to a password.
        match value {
            Value::String(s) => Ok(Secret(s)),
            other => String::from_json(other).map(Secret),
        }
    }

    fn is_absent(&self) -> bool {
        self.0.is_empty()
    }
}

/// Declares objects of the contract: each field with its type and its name on the wire. Empty values are left out.
macro_rules! wire_object {
    ($($struct:tt)*) => { $crate::wire::wire_struct! { "crate::wire::absent" $($struct)* } };
}

/// The same for objects whose texts are written even if they are empty, because answers of the API show them.
macro_rules! wire_report {
    ($($struct:tt)*) => { $crate::wire::wire_struct! { "crate::wire::none" $($struct)* } };
}

macro_rules! wire_struct {
    ($skip:literal $($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$doc:meta])* $field:ident: $kind:ty = $wire:literal,)*
    })*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
        pub struct $name { $(
            $(#[$doc])*
            #[doc = concat!("\n\nOn the wire: `", $wire, "`.")]
            #[serde(rename = $wire, skip_serializing_if = $skip)]
            pub $field: $kind,
        )* }

        impl $crate::wire::Wire for $name {
            fn from_json(value: serde_json::Value) -> Result<Self, $crate::wire::WireError> {
                let mut map = $crate::wire::object(value)?;
                Ok(Self { $($field: $crate::wire::member(&mut map, $wire)?,)* })
            }
        }

        $crate::wire::deserialize_by_wire!($name);
    )* };
}

/// `Deserialize` by way of [`Wire`].
macro_rules! deserialize_by_wire {
    ($name:ty) => {
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let value = <serde_json::Value as serde::Deserialize>::deserialize(d)?;
                <$name as $crate::wire::Wire>::from_json(value).map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use {deserialize_by_wire, wire_object, wire_report, wire_struct};

deserialize_by_wire!(Secret);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    wire_object! {
        /// A row.
        pub struct Row {
            /// A name.
            port: String = "PortName",
            /// A number.
            vlan: Option<i64> = "Vlan",
        }
        /// A list of rows.
        pub struct Table {
            /// The rows.
            rows: Vec<Row> = "Rows",
            /// Words.
            words: Vec<String> = "Words",
        }
    }

    fn table(value: Value) -> Result<Table, String> {
        Table::from_json(value).map_err(|e| e.to_string())
    }

    #[test]
    fn every_wrapping_of_a_list() {
        let row = json!({"PortName": "1"});
        for rows in [json!({"Row": [row]}), json!({"Row": row}), json!([row]), row.clone()] {
            let read = table(json!({"Rows": rows})).expect("a list");
            assert_eq!(read.rows, [Row { port: "1".into(), vlan: None }], "{rows}");
        }
        for empty in [json!({}), json!({"Rows": null}), json!({"Rows": {}}), json!({"Rows": {"Row": null}})] {
            assert!(table(empty).expect("empty").rows.is_empty());
        }
        for words in [json!("a, b"), json!({"Word": ["a", "b"]}), json!(["a", "b"])] {
            assert_eq!(table(json!({"Words": words})).expect("words").words, ["a", "b"]);
        }
        assert_eq!(table(json!({"Words": {"Word": "a"}})).expect("a word").words, ["a"]);
    }

    #[test]
    fn numbers_and_texts_in_disguise() {
        let int = |v: Value| Option::<i64>::from_json(v).ok().flatten();
        let values = [json!("10M"), json!("50 M"), json!(7), json!(""), json!(3.0), json!(null)];
        assert_eq!(values.map(int), [Some(10), Some(50), Some(7), None, Some(3), None]);
        let text = |v: Value| String::from_json(v).expect("a text");
        assert_eq!([json!(7), json!(""), json!(true), json!(" x ")].map(text), ["7", "", "true", "x"]);
    }

    #[test]
    fn a_refusal_names_the_place() {
        let e = table(json!({"Rows": [{"PortName": "0"}, {"Vlan": "ten"}]})).expect_err("no number");
        assert_eq!(e, "Rows[1].Vlan: \"ten\" is not a whole number");
        assert_eq!(table(json!({"Rows": [7]})).expect_err("no row"), "Rows[0]: 7 is not an object");
        let long =
            BTreeMap::<String, i64>::from_json(json!({"x".repeat(10_000): true})).expect_err("no number");
        assert!(long.to_string().len() < 120, "{long}");
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
                prop::collection::btree_map("(Rows|Words|Vlan)", inner, 0..3)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Whatever comes is read or refused, and what was read is written and read again as the same.
        #[test]
        fn nothing_is_too_strange(v in any_json()) {
            if let Ok(read) = Table::from_json(v) {
                let written = serde_json::to_value(&read).expect("written");
                prop_assert_eq!(Table::from_json(written).expect("read again"), read);
            }
        }
    }
}
