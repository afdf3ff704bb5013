//! A key with its type: reading and writing by its declaration.

use super::codec::Codec;
use super::info::KeyInfo;
use super::read::Scalar;
use crate::config::scope::{Opt, Scope};
use toml::Spanned;

impl KeyInfo {
    /// Fills in what [`table!`](super::table) knows.
    pub(crate) const fn of<C: Codec>(
        mut self,
        name: &'static str,
        text: &'static str,
        default: Option<fn() -> Option<String>>,
    ) -> KeyInfo {
        self.name = name;
        self.text = text;
        if self.kind.is_empty() {
            self.kind = C::KIND;
        }
        self.words = C::WORDS;
        self.default = default;
        self.optional = C::OPTIONAL;
        self
    }
}

/// A key with the type of its value.
pub(crate) struct Key<C: Codec> {
    pub info: KeyInfo,
    /// Value of an absent key.
    pub default: Option<fn() -> C::Value>,
}

impl<C: Codec> Key<C> {
    /// The value, or the default; `None` if it is wrong or missing, which is reported then.
    pub(crate) fn read(&self, s: &mut Scope<'_, '_>, raw: &Opt<C::Raw>) -> Option<C::Value> {
        match raw {
            Some(raw) => self.read_present(s, raw),
            None => self.default.map(|d| d()).or_else(C::absent).or_else(|| {
                s.missing(self.info.name, &self.info.missing_remedy(), self.info.codes.1);
                None
            }),
        }
    }

    /// The value of a key that has to be there, whatever its default.
    pub(crate) fn need<'r>(
        &self,
        s: &mut Scope<'_, '_>,
        raw: &'r Opt<C::Raw>,
    ) -> Option<&'r Spanned<C::Raw>> {
        if raw.is_none() {
            s.missing(self.info.name, &self.info.missing_remedy(), self.info.codes.1);
        }
        raw.as_ref()
    }

    /// The value of a key that is there.
    pub(crate) fn read_present(&self, s: &mut Scope<'_, '_>, raw: &Spanned<C::Raw>) -> Option<C::Value> {
        let (name, info) = (self.info.name, &self.info);
        let value = s.parse(name, raw, info.codes.0, |r| C::parse(r, info))?;
        if let Some(remark) = C::remark(raw.get_ref(), &value, info) {
            s.warn(&raw.span(), name, remark.problem, remark.remedy);
        }
        Some(value)
    }

    /// As the file writes it; `None`: the key is left out.
    pub(crate) fn write(&self, value: &C::Value) -> Opt<C::Raw> {
        C::write(value).map(|raw| Spanned::new(0..0, raw))
    }
}

/// A value as TOML, for the reference.
pub(crate) fn rendered<C: Codec>(value: &C::Value) -> Option<String> {
    C::write(value).map(|raw| raw.to_toml())
}
