//! From TOML to the keys of a section: which keys exist, and of which TOML type each value is.
//!
//! Serde's derive stops at the first mistake and forgets the key path. This reader walks the parsed
//! document instead, so that unknown keys and wrong types are all reported, each with its place.

use super::info::KeyInfo;
use crate::config::report::{Path, Report, Span};
use crate::config::scope::Opt;
use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value whose meaning is text but that reads naturally as a number or date too
/// (`ip_protocol = 47`, `external_port = 8080`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Text(pub String);

/// One table of the file, its keys not judged yet.
pub(crate) trait RawTable: Sized {
    /// The declarations of its keys.
    const KEYS: &'static [KeyInfo];
    /// The sections below it.
    const TABLES: &'static [&'static str];

    /// The keys that are there, each with the place of its value.
    fn present(&self) -> Vec<(&'static KeyInfo, Span)> {
        Vec::new()
    }

    fn read_table(table: DeTable<'_>, span: Span, path: &Path<'_>, report: &mut Report<'_>) -> Self;
}

/// A value that is not a table.
pub(crate) trait Scalar: Sized {
    fn from_value(
        value: &DeValue<'_>,
        path: &Path<'_>,
        report: &mut Report<'_>,
    ) -> Result<Self, &'static str>;

    /// The value as TOML.
    fn to_toml(&self) -> String;
}

/// A raw integer beyond 64 bits is outside every range of this file: the extreme values say so.
fn clamp(text: &str, radix: u32) -> i64 {
    match i128::from_str_radix(text, radix) {
        Ok(n) => i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX }),
        Err(_) if text.starts_with('-') => i64::MIN,
        Err(_) => i64::MAX,
    }
}

impl Scalar for i64 {
    fn from_value(v: &DeValue<'_>, _: &Path<'_>, _: &mut Report<'_>) -> Result<Self, &'static str> {
        v.as_integer().map(|i| clamp(i.as_str(), i.radix())).ok_or("an integer")
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl Scalar for bool {
    fn from_value(v: &DeValue<'_>, _: &Path<'_>, _: &mut Report<'_>) -> Result<Self, &'static str> {
        v.as_bool().ok_or("true or false")
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl Scalar for String {
    fn from_value(v: &DeValue<'_>, _: &Path<'_>, _: &mut Report<'_>) -> Result<Self, &'static str> {
        v.as_str().map(str::to_owned).ok_or("a string in quotes")
    }

    fn to_toml(&self) -> String {
        toml::Value::from(self.as_str()).to_string()
    }
}

impl Scalar for Text {
    fn from_value(v: &DeValue<'_>, _: &Path<'_>, _: &mut Report<'_>) -> Result<Self, &'static str> {
        match v {
            DeValue::String(s) => Ok(Text(s.clone().into_owned())),
            DeValue::Integer(i) => Ok(Text(clamp(i.as_str(), i.radix()).to_string())),
            DeValue::Datetime(d) => Ok(Text(d.to_string())),
            _ => Err("a string in quotes or a number"),
        }
    }

    fn to_toml(&self) -> String {
        self.0.to_toml()
    }
}

impl<T: Scalar> Scalar for Vec<Spanned<T>> {
    fn from_value(v: &DeValue<'_>, path: &Path<'_>, report: &mut Report<'_>) -> Result<Self, &'static str> {
        let array = v.as_array().ok_or("a list in [ ]")?;
        let mut out = Vec::with_capacity(array.len());
        for (i, item) in array.iter().enumerate() {
            let path = &path.at(i);
            match T::from_value(item.get_ref(), path, report) {
                Ok(t) => out.push(Spanned::new(item.span(), t)),
                Err(expected) => wrong_type(item.get_ref(), &item.span(), expected, path, report),
            }
        }
        Ok(out)
    }

    fn to_toml(&self) -> String {
        let items: Vec<_> = self.iter().map(|item| item.get_ref().to_toml()).collect();
        format!("[{}]", items.join(", "))
    }
}

fn wrong_type(v: &DeValue<'_>, at: &Span, expected: &str, path: &Path<'_>, report: &mut Report<'_>) {
    let got = v.type_str();
    let article = if got.starts_with(['a', 'i']) { "an" } else { "a" };
    report.wrong_type(at, path, format!("is {article} {got}"), format!("write {expected}"));
}

/// Takes a key out of its table, by its present or its old name.
pub(crate) fn take<T: Scalar>(
    table: &mut DeTable<'_>,
    key: &KeyInfo,
    path: &Path<'_>,
    report: &mut Report<'_>,
) -> Opt<T> {
    let (present, former) =
        (table.remove(key.name), key.formerly.and_then(|old| Some((old, table.remove_entry(old)?))));
    if let Some((old, (at, _))) = &former {
        let (at, path, new) = (at.span(), path.key(old), key.name);
        match present {
            Some(_) => {
                let problem = format!("is the old name of {new}, which is there too");
                report.error(&at, &path, problem, "remove it", "");
            }
            None => {
                let remedy = format!("write {new}; the old name will not be read for ever");
                report.warn(&at, &path, format!("is the old name of {new}"), remedy);
            }
        }
    }
    let value = present.or_else(|| former.map(|(_, (_, value))| value))?;
    let (span, path) = (value.span(), path.key(key.name));
    match T::from_value(value.get_ref(), &path, report) {
        Ok(t) => Some(Spanned::new(span, t)),
        Err(expected) => {
            wrong_type(value.get_ref(), &span, expected, &path, report);
            None
        }
    }
}

/// One section below a table, `[section]`, or a list of them, `[[section]]`.
pub(crate) trait Tables: Default {
    fn read(value: Spanned<DeValue<'_>>, path: &Path<'_>, report: &mut Report<'_>) -> Self;

    /// Whether there is none.
    fn is_absent(&self) -> bool;
}

/// Takes the sections of a name out of their table.
pub(crate) fn take_table<T: Tables>(
    table: &mut DeTable<'_>,
    name: &str,
    path: &Path<'_>,
    report: &mut Report<'_>,
) -> T {
    table.remove(name).map(|value| T::read(value, &path.key(name), report)).unwrap_or_default()
}

impl<T: RawTable> Tables for Option<T> {
    fn read(value: Spanned<DeValue<'_>>, path: &Path<'_>, report: &mut Report<'_>) -> Self {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(t) => Some(T::read_table(t, span, path, report)),
            other => {
                wrong_type(&other, &span, &format!("it as a section: [{path}]"), path, report);
                None
            }
        }
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T: RawTable> Tables for Vec<T> {
    fn read(value: Spanned<DeValue<'_>>, path: &Path<'_>, report: &mut Report<'_>) -> Self {
        let span = value.span();
        let expected = |path: &Path<'_>| format!("each entry under a header of its own, [[{}]]", path.bare());
        let items = match value.into_inner() {
            DeValue::Array(items) => items,
            other => {
                wrong_type(&other, &span, &expected(path), path, report);
                return Vec::new();
            }
        };
        let mut out = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            let span = item.span();
            let path = path.at(i);
            match item.into_inner() {
                DeValue::Table(t) => out.push(T::read_table(t, span, &path, report)),
                other => wrong_type(&other, &span, &expected(&path), &path, report),
            }
        }
        out
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

/// Reports what is left of a table after every known key was taken out.
pub(crate) fn reject_unknown<T: RawTable>(left: DeTable<'_>, path: &Path<'_>, report: &mut Report<'_>) {
    let known = || T::KEYS.iter().map(|k| k.name).chain(T::TABLES.iter().copied());
    for (key, _) in left {
        let name: &str = key.get_ref();
        let remedy = match nearest(name, known()) {
            Some(k) => format!("did you mean \"{k}\"?"),
            None => {
                let mut names: Vec<_> = known().collect();
                names.sort_unstable();
                format!("keys here are {}", names.join(", "))
            }
        };
        report.error(&key.span(), &path.key(name), "is not a known key", remedy, "");
    }
}

/// Rust writes a field called `type` as `r#type`.
pub(crate) const fn key_name(field: &'static str) -> &'static str {
    if let [b'r', b'#', name @ ..] = field.as_bytes()
        && let Ok(name) = std::str::from_utf8(name)
    {
        return name;
    }
    field
}

/// The known key that is at most two typing errors away.
fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    // Long keys are no typing errors, and the distance costs the product of the lengths.
    if name.len() > 40 {
        return None;
    }
    let best = known.map(|k| (strsim::levenshtein(name, k), k)).min()?;
    (best.0 <= 2 && best.0 < name.len()).then_some(best.1)
}
