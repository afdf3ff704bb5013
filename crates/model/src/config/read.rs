//! From TOML to the raw structs: which keys exist, and of which TOML type each value is.
//!
//! Serde's derive stops at the first mistake and forgets the key path. This reader walks the parsed
//! document instead, so that unknown keys and wrong types are all reported, each with its place.

use super::report::{Path, Report, Span};
use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A scalar of the file with its place; `None` when the key is absent.
pub(crate) type Opt<T> = Option<Spanned<T>>;

/// A value whose meaning is text but that reads naturally as a number or date too
/// (`ip_protocol = 47`, `external_port = 8080`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Text(pub String);

/// One field of a raw struct.
pub(crate) trait Field: Default {
    fn read(value: Spanned<DeValue<'_>>, path: &Path<'_>, report: &mut Report<'_>) -> Self;
}

/// A raw struct: one table of the file.
pub(crate) trait RawTable: Default {
    const KEYS: &'static [&'static str];
    fn read_table(table: DeTable<'_>, span: Span, path: &Path<'_>, report: &mut Report<'_>) -> Self;
}

/// A value that is not a table.
pub(crate) trait Scalar: Sized {
    fn from_value(
        value: &DeValue<'_>,
        path: &Path<'_>,
        report: &mut Report<'_>,
    ) -> Result<Self, &'static str>;
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
}

impl Scalar for bool {
    fn from_value(v: &DeValue<'_>, _: &Path<'_>, _: &mut Report<'_>) -> Result<Self, &'static str> {
        v.as_bool().ok_or("true or false")
    }
}

impl Scalar for String {
    fn from_value(v: &DeValue<'_>, _: &Path<'_>, _: &mut Report<'_>) -> Result<Self, &'static str> {
        v.as_str().map(str::to_owned).ok_or("a string in quotes")
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
}

impl<T: Scalar> Scalar for Vec<Spanned<T>> {
    fn from_value(v: &DeValue<'_>, path: &Path<'_>, report: &mut Report<'_>) -> Result<Self, &'static str> {
        let array = v.as_array().ok_or("a list in [ ]")?;
        let mut out = Vec::with_capacity(array.len());
        for (i, item) in array.iter().enumerate() {
            let path = &path.at(i);
            match T::from_value(item.get_ref(), path, report) {
                Ok(t) => out.push(Spanned::new(item.span(), t)),
                Err(wanted) => wrong_type(item.get_ref(), &item.span(), wanted, path, report),
            }
        }
        Ok(out)
    }
}

fn wrong_type(v: &DeValue<'_>, at: &Span, wanted: &str, path: &Path<'_>, report: &mut Report<'_>) {
    let got = v.type_str();
    let article = if got.starts_with(['a', 'i']) { "an" } else { "a" };
    report.wrong_type(at, path, format!("is {article} {got}"), format!("write {wanted}"));
}

impl<T: Scalar> Field for Opt<T> {
    fn read(value: Spanned<DeValue<'_>>, path: &Path<'_>, report: &mut Report<'_>) -> Self {
        let span = value.span();
        match T::from_value(value.get_ref(), path, report) {
            Ok(t) => Some(Spanned::new(span, t)),
            Err(wanted) => {
                wrong_type(value.get_ref(), &span, wanted, path, report);
                None
            }
        }
    }
}

impl<T: RawTable> Field for Option<T> {
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
}

impl<T: RawTable> Field for Vec<T> {
    fn read(value: Spanned<DeValue<'_>>, path: &Path<'_>, report: &mut Report<'_>) -> Self {
        let span = value.span();
        let wanted = |path: &Path<'_>| format!("each entry under a header of its own, [[{}]]", path.bare());
        let items = match value.into_inner() {
            DeValue::Array(items) => items,
            other => {
                wrong_type(&other, &span, &wanted(path), path, report);
                return Vec::new();
            }
        };
        let mut out = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            let span = item.span();
            let path = path.at(i);
            match item.into_inner() {
                DeValue::Table(t) => out.push(T::read_table(t, span, &path, report)),
                other => wrong_type(&other, &span, &wanted(&path), &path, report),
            }
        }
        out
    }
}

/// Reports what is left of a table after every known key was taken out.
pub(crate) fn reject_unknown(
    left: DeTable<'_>,
    known: &[&'static str],
    path: &Path<'_>,
    report: &mut Report<'_>,
) {
    for (key, _) in left {
        let name: &str = key.get_ref();
        let remedy = match nearest(name, known) {
            Some(k) => format!("did you mean \"{k}\"?"),
            None => {
                let mut names: Vec<_> = known.to_vec();
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

fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    // Long keys are no typing errors, and the distance costs the product of the lengths.
    if name.len() > 40 {
        return None;
    }
    let best = known.iter().map(|k| (distance(name, k), *k)).min()?;
    (best.0 <= 2 && best.0 < name.len()).then_some(best.1)
}

/// Levenshtein distance over characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, cb) in row.iter_mut().skip(1).zip(&b) {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = *cell;
            left = substitute.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// Declares a raw struct whose fields are the keys of one table of the file.
macro_rules! raw_table {
    ($(#[$meta:meta])* $name:ident { $( $key:ident: $ty:ty, )* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
        pub(crate) struct $name {
            /// Place of the table, for complaints about missing keys.
            #[serde(skip)]
            pub span: $crate::config::report::Span,
            $( #[serde(skip_serializing_if = "Absent::absent")] pub $key: $ty, )*
        }

        impl $crate::config::read::RawTable for $name {
            const KEYS: &'static [&'static str] = &[$( $crate::config::read::key_name(stringify!($key)) ),*];

            fn read_table(
                mut table: toml::de::DeTable<'_>,
                span: $crate::config::report::Span,
                path: &$crate::config::report::Path<'_>,
                report: &mut $crate::config::report::Report<'_>,
            ) -> Self {
                let mut out = Self { span, ..Self::default() };
                $(
                    let key = $crate::config::read::key_name(stringify!($key));
                    if let Some(value) = table.remove(key) {
                        out.$key = $crate::config::read::Field::read(value, &path.key(key), report);
                    }
                )*
                $crate::config::read::reject_unknown(table, Self::KEYS, path, report);
                out
            }
        }
    };
}
pub(crate) use raw_table;

/// Whether a field is left out when a raw struct is written.
pub(crate) trait Absent {
    fn absent(&self) -> bool;
}

impl<T> Absent for Option<T> {
    fn absent(&self) -> bool {
        self.is_none()
    }
}

impl<T> Absent for Vec<T> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}
