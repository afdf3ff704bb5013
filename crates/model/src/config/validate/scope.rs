//! Judging the keys of one table: each helper reports what is wrong and yields `None` then.

use crate::config::read::Opt;
use crate::config::report::{Path, Place, Report, Span};
use crate::config::value::{self, Fault, quote};
use std::fmt::Display;
use std::ops::RangeInclusive;
use toml::Spanned;

/// One table under judgement.
pub(super) struct Scope<'a, 't> {
    pub report: &'a mut Report<'t>,
    pub path: Path<'a>,
    pub span: Span,
}

impl<'a, 't> Scope<'a, 't> {
    pub(super) fn new(report: &'a mut Report<'t>, path: Path<'a>, span: &Span) -> Scope<'a, 't> {
        Scope { report, path, span: span.clone() }
    }

    pub(super) fn error(
        &mut self,
        at: &Span,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
        code: &str,
    ) {
        self.report.error(at, &self.path.key(key), problem, remedy, code);
    }

    pub(super) fn warn(
        &mut self,
        at: &Span,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.report.warn(at, &self.path.key(key), problem, remedy);
    }

    /// An error about a key that is not there: the place is the table's.
    pub(super) fn missing(&mut self, key: &str, remedy: &str, code: &str) {
        if self.is_mistyped(key) {
            return;
        }
        let at = self.span.clone();
        self.error(&at, key, "is missing", remedy, code);
    }

    /// Whether the key is there with a value of another type, which is reported already.
    pub(super) fn is_mistyped(&self, key: &str) -> bool {
        self.report.is_mistyped(&self.path.key(key))
    }

    pub(super) fn place(&self, at: &Span, key: &str) -> Place {
        self.report.place(at, &self.path.key(key))
    }

    pub(super) fn need<'v, T>(
        &mut self,
        key: &str,
        v: &'v Opt<T>,
        remedy: &str,
        code: &str,
    ) -> Option<&'v Spanned<T>> {
        if v.is_none() {
            self.missing(key, remedy, code);
        }
        v.as_ref()
    }

    /// A present value through a parser.
    pub(super) fn parse<T, R>(
        &mut self,
        key: &str,
        v: &Spanned<T>,
        code: &str,
        parse: impl FnOnce(&T) -> Result<R, Fault>,
    ) -> Option<R> {
        match parse(v.get_ref()) {
            Ok(r) => Some(r),
            Err(f) => {
                self.error(&v.span(), key, f.problem, f.remedy, code);
                None
            }
        }
    }

    /// An optional value through a parser: `Some(None)` when absent.
    pub(super) fn maybe<T, R>(
        &mut self,
        key: &str,
        v: &Opt<T>,
        code: &str,
        parse: impl FnOnce(&T) -> Result<R, Fault>,
    ) -> Option<Option<R>> {
        match v {
            None => Some(None),
            Some(v) => self.parse(key, v, code, parse).map(Some),
        }
    }

    pub(super) fn number<N: TryFrom<i64>>(
        &mut self,
        key: &str,
        v: &Opt<i64>,
        range: RangeInclusive<i64>,
        default: N,
        code: &str,
    ) -> Option<N> {
        Some(self.number_opt(key, v, range, code)?.unwrap_or(default))
    }

    /// `Some(None)` when absent.
    pub(super) fn number_opt<N: TryFrom<i64>>(
        &mut self,
        key: &str,
        v: &Opt<i64>,
        range: RangeInclusive<i64>,
        code: &str,
    ) -> Option<Option<N>> {
        self.maybe(key, v, code, |n| {
            let (low, high) = (range.start(), range.end());
            let converted = N::try_from(*n).ok().filter(|_| range.contains(n));
            converted.ok_or_else(|| {
                let shown = match *n {
                    i64::MAX | i64::MIN => "the number".to_owned(),
                    n => n.to_string(),
                };
                Fault {
                    problem: format!("{shown} is out of range"),
                    remedy: format!("write a number from {low} to {high}"),
                }
            })
        })
    }

    pub(super) fn word<W: Copy>(
        &mut self,
        key: &str,
        v: &Opt<String>,
        words: &[(&str, W)],
        default: Option<W>,
        code: &str,
    ) -> Option<W> {
        let Some(v) = v else {
            if default.is_none() {
                self.missing(key, &format!("write {}", alternatives(words)), code);
            }
            return default;
        };
        self.parse(key, v, code, |s| one_of(s, words))
    }

    /// Identifiers appear in logs, metrics and paths: a plain alphabet keeps them readable there.
    pub(super) fn identifier(&mut self, key: &str, v: &Spanned<String>) -> Option<String> {
        const MAX: usize = 64;
        self.parse(key, v, "", |s| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
            if s.is_empty() || s.len() > MAX || !s.chars().all(plain) || s.starts_with('.') {
                return value::fault(
                    format!("{}: cannot be a name", quote(s)),
                    format!("use 1 to {MAX} letters, digits or \"-_.:\", not starting with \".\""),
                );
            }
            Ok(s.clone())
        })
    }

    /// The `id` of an entry; entries without one are numbered.
    pub(super) fn id(&mut self, v: &Opt<String>, prefix: &str, index: usize) -> Option<String> {
        match v {
            Some(v) => self.identifier("id", v),
            None => Some(format!("{prefix}-{}", index + 1)),
        }
    }

    /// Where `id` stands, or its table if it is only implied.
    pub(super) fn id_span(&self, v: &Opt<String>) -> Span {
        v.as_ref().map_or_else(|| self.span.clone(), |v| v.span())
    }

    /// Free text for people.
    pub(super) fn label(
        &mut self,
        key: &str,
        v: &Opt<String>,
        max: usize,
        code: &str,
    ) -> Option<Option<String>> {
        self.maybe(key, v, code, |s| {
            if s.is_empty() || s.chars().count() > max || s.chars().any(char::is_control) {
                return value::fault(
                    format!("{}: is not fit to be shown", quote(s)),
                    format!("use 1 to {max} characters on one line, or leave the key out"),
                );
            }
            Ok(s.clone())
        })
    }

    /// A network; host bits are cut off with a warning.
    pub(super) fn network(&mut self, key: &str, v: &Spanned<String>, code: &str) -> Option<ipnet::IpNet> {
        let net = self.parse(key, v, code, |s| value::network(s))?;
        let cut = net.trunc();
        if cut != net {
            let problem = format!("{}: has bits set below the prefix", quote(v.get_ref()));
            self.warn(&v.span(), key, problem, format!("it is read as \"{cut}\""));
        }
        Some(cut)
    }

    pub(super) fn repeated(&mut self, at: &Span, key: &str, what: impl Display, first: &Place, code: &str) {
        let problem = format!("{what}: was already given by {first}");
        self.error(at, key, problem, "remove or change one of the two", code);
    }
}

fn alternatives<W>(words: &[(&str, W)]) -> String {
    let quoted: Vec<_> = words.iter().map(|(w, _)| format!("\"{w}\"")).collect();
    match quoted.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => quoted.concat(),
    }
}

pub(super) fn one_of<W: Copy>(text: &str, words: &[(&str, W)]) -> Result<W, Fault> {
    if let Some((_, w)) = words.iter().find(|(w, _)| *w == text) {
        return Ok(*w);
    }
    // The API distinguishes case; whoever mixes it up is told the spelling.
    let remedy = match words.iter().find(|(w, _)| w.eq_ignore_ascii_case(text)) {
        Some((w, _)) => format!("case counts: write \"{w}\""),
        None => format!("write {}", alternatives(words)),
    };
    value::fault(format!("{}: is not a known word", quote(text)), remedy)
}
