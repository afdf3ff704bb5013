//! Validating the keys of one table: each helper reports what is wrong and yields `None` then.

use super::report::{Path, Place, Report, Span};
use super::value::{self, Fault};
use std::fmt::Display;
use toml::Spanned;

/// A value of the file with its place; `None` when the key is absent.
pub(crate) type Opt<T> = Option<Spanned<T>>;

/// One table that is validated.
pub(crate) struct Scope<'a, 't> {
    pub report: &'a mut Report<'t>,
    pub path: Path<'a>,
    pub span: Span,
}

impl<'a, 't> Scope<'a, 't> {
    pub(crate) fn new(report: &'a mut Report<'t>, path: Path<'a>, span: &Span) -> Scope<'a, 't> {
        Scope { report, path, span: span.clone() }
    }

    pub(crate) fn error(
        &mut self,
        at: &Span,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
        code: &str,
    ) {
        self.report.error(at, &self.path.key(key), problem, remedy, code);
    }

    pub(crate) fn warn(
        &mut self,
        at: &Span,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.report.warn(at, &self.path.key(key), problem, remedy);
    }

    /// An error about a key that is not there: the place is the table's.
    pub(crate) fn missing(&mut self, key: &str, remedy: &str, code: &str) {
        if self.is_mistyped(key) {
            return;
        }
        let at = self.span.clone();
        self.error(&at, key, "is missing", remedy, code);
    }

    /// Whether the key is there with a value of another type, which is reported already.
    pub(crate) fn is_mistyped(&self, key: &str) -> bool {
        self.report.is_mistyped(&self.path.key(key))
    }

    pub(crate) fn place(&self, at: &Span, key: &str) -> Place {
        self.report.place(at, &self.path.key(key))
    }

    /// A present value through a parser.
    pub(crate) fn parse<T, R>(
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

    /// The `id` of an entry; entries without one are numbered.
    pub(crate) fn id(&mut self, v: &Opt<String>, prefix: &str, index: usize) -> Option<String> {
        match v {
            Some(v) => self.parse("id", v, "", |s| value::identifier(s)),
            None => Some(format!("{prefix}-{}", index + 1)),
        }
    }

    /// Where `id` stands, or its table if it is only implied.
    pub(crate) fn id_span(&self, v: &Opt<String>) -> Span {
        v.as_ref().map_or_else(|| self.span.clone(), |v| v.span())
    }

    pub(crate) fn repeated(&mut self, at: &Span, key: &str, what: impl Display, first: &Place, code: &str) {
        let problem = format!("{what}: was already given by {first}");
        self.error(at, key, problem, "remove or change one of the two", code);
    }
}
