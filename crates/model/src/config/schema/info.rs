//! The facts about one key.

use crate::config::value::alternatives;

/// What is shown in place of a secret.
pub(crate) const SECRET_MASK: &str = "********";

/// What is declared of one key.
#[derive(Debug, Clone, Copy)]
pub struct KeyInfo {
    /// The key in the file.
    pub name: &'static str,
    /// Its meaning, Markdown.
    pub text: &'static str,
    /// Type of the value in the words of the reference: `integer`, `word`, `CIDR`, ...
    pub kind: &'static str,
    /// Unit of a number; empty for none.
    pub unit: &'static str,
    /// Least and greatest number.
    pub range: Option<(i64, i64)>,
    /// The words that are allowed; empty where the value is not a word.
    pub words: &'static [&'static str],
    /// What is allowed, Markdown, in place of `range` and `words`; empty: they say it all.
    pub allowed: &'static str,
    /// The value of an absent key as TOML.
    pub default: Option<fn() -> Option<String>>,
    /// The key may be absent without a default.
    pub optional: bool,
    /// What an absent key means, Markdown, in place of `default`; empty: that says it all.
    pub absent: &'static str,
    /// Where the key comes from: operation of the cloud API, RFC and section.
    pub source: &'static str,
    /// The kinds of tunnel that have it; empty: all.
    pub kinds: &'static str,
    /// A changed value is used from the next start of the daemon on; all other keys change with a reload.
    pub at_start: bool,
    /// The value is never shown.
    pub secret: bool,
    /// Value in the example file, TOML; empty: the default.
    pub example: &'static str,
    /// An old name, which is accepted with a warning.
    pub formerly: Option<&'static str>,
    /// Error codes of the cloud API for a bad value and for a missing key; empty: the API has none.
    pub(crate) codes: (&'static str, &'static str),
    /// Remedies for a number out of range and for a missing key; empty: made of range or words.
    pub(crate) remedies: (&'static str, &'static str),
    /// A smaller value is accepted with a warning that names this RFC.
    pub(crate) advised: Option<(i64, &'static str)>,
}

/// A key of which nothing is declared yet.
pub(crate) const fn key() -> KeyInfo {
    KeyInfo {
        name: "",
        text: "",
        kind: "",
        unit: "",
        range: None,
        words: &[],
        allowed: "",
        default: None,
        optional: false,
        absent: "",
        source: "",
        kinds: "",
        at_start: false,
        secret: false,
        example: "",
        formerly: None,
        codes: ("", ""),
        remedies: ("", ""),
        advised: None,
    }
}

/// Declarations, in the form `key().range(1, 64).unit("s")`.
impl KeyInfo {
    /// Least and greatest number.
    pub(crate) const fn range(mut self, least: i64, greatest: i64) -> KeyInfo {
        self.range = Some((least, greatest));
        self
    }

    /// Type of the value in the words of the reference, where that of the codec is too general.
    pub(crate) const fn called(mut self, kind: &'static str) -> KeyInfo {
        self.kind = kind;
        self
    }

    /// Unit of the number.
    pub(crate) const fn unit(mut self, unit: &'static str) -> KeyInfo {
        self.unit = unit;
        self
    }

    /// What is allowed, where range or words do not say it.
    pub(crate) const fn allowed(mut self, allowed: &'static str) -> KeyInfo {
        self.allowed = allowed;
        self
    }

    /// What an absent key means, where a default value does not say it.
    pub(crate) const fn absent(mut self, meaning: &'static str) -> KeyInfo {
        self.absent = meaning;
        self
    }

    /// RFC and section, or operation and parameter of the cloud API.
    pub(crate) const fn source(mut self, source: &'static str) -> KeyInfo {
        self.source = source;
        self
    }

    /// The key goes with these kinds of tunnel only.
    pub(crate) const fn of_kind(mut self, kinds: &'static str) -> KeyInfo {
        self.kinds = kinds;
        self
    }

    /// A change waits for the next start of the daemon.
    pub(crate) const fn at_start(mut self) -> KeyInfo {
        self.at_start = true;
        self
    }

    /// The value is never shown.
    pub(crate) const fn secret(mut self) -> KeyInfo {
        self.secret = true;
        self
    }

    /// Value in the example file, TOML.
    pub(crate) const fn example(mut self, value: &'static str) -> KeyInfo {
        self.example = value;
        self
    }

    /// An old name that is accepted with a warning.
    pub(crate) const fn formerly(mut self, name: &'static str) -> KeyInfo {
        self.formerly = Some(name);
        self
    }

    /// Error code of the cloud API for a bad value.
    pub(crate) const fn refused_as(mut self, code: &'static str) -> KeyInfo {
        self.codes.0 = code;
        self
    }

    /// What to do where the key is missing, and the cloud API's error code for that.
    pub(crate) const fn missing(mut self, remedy: &'static str, code: &'static str) -> KeyInfo {
        self.remedies.1 = remedy;
        self.codes.1 = code;
        self
    }

    /// What to do where the number is out of range.
    pub(crate) const fn remedy(mut self, remedy: &'static str) -> KeyInfo {
        self.remedies.0 = remedy;
        self
    }

    /// Less than `least` is accepted with a warning that names `rfc`.
    pub(crate) const fn advised(mut self, least: i64, rfc: &'static str) -> KeyInfo {
        self.advised = Some((least, rfc));
        self
    }

    /// The meaning without the space that a doc comment begins with.
    pub fn meaning(&self) -> &'static str {
        self.text.trim()
    }

    /// The value of an absent key as TOML; `None` where it is required or simply absent.
    pub fn default_toml(&self) -> Option<String> {
        self.default.and_then(|render| render())
    }

    /// Error code of the cloud API for a bad value; empty: it has none.
    pub(crate) const fn code(&self) -> &'static str {
        self.codes.0
    }

    /// What to do where the key is missing.
    pub(crate) fn missing_remedy(&self) -> String {
        match (self.remedies.1, self.range) {
            ("", Some((least, greatest))) => format!("write a number from {least} to {greatest}"),
            ("", None) => format!("write {}", alternatives(self.words)),
            (remedy, _) => remedy.to_owned(),
        }
    }
}

/// A section of the file: `[name]`, or `[[name]]` if there may be many.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// Header in the file: `dataplane`, `acl.rule`, ...
    pub name: &'static str,
    /// Whether the section is a list of entries, `[[name]]`.
    pub list: bool,
    /// Its keys, in the order of the reference.
    pub keys: &'static [KeyInfo],
}

impl Section {
    /// The declaration of a key.
    pub fn key(&self, name: &str) -> Option<&'static KeyInfo> {
        self.keys.iter().find(|k| k.name == name)
    }
}
