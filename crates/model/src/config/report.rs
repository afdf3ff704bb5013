//! What is wrong with a configuration, where, and what to do about it.

use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

pub(crate) type Span = Range<usize>;

/// One finding. `Display` gives one line: place, key, problem, remedy and, where the cloud API has
/// a name for the same mistake, that error code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Name of the document.
    pub file: String,
    /// Counted from 1.
    pub line: u32,
    /// Counted from 1, in characters.
    pub column: u32,
    /// Key path as in `acl[0].rule[3].dest_cidr`; empty for mistakes of the TOML syntax.
    pub path: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
    /// The cloud API's error code for the same mistake.
    pub code: Option<String>,
}

impl Diagnostic {
    pub(crate) fn code(&mut self, code: &str) {
        if !code.is_empty() {
            self.code = Some(code.to_owned());
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.problem)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        if let Some(code) = &self.code {
            write!(f, " [{code}]")?;
        }
        Ok(())
    }
}

/// Why a document was refused: every mistake found, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors(pub Vec<Diagnostic>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, d) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{d}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Key path under construction; rendered only when there is something to report.
#[derive(Clone, Copy)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    name: &'a str,
    index: Option<usize>,
}

impl<'a> Path<'a> {
    pub(crate) const ROOT: Path<'static> = Path { parent: None, name: "", index: None };

    pub(crate) fn key(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), name, index: None }
    }

    /// Element `index` of the list that this path names.
    pub(crate) fn at(&self, index: usize) -> Path<'a> {
        Path { index: Some(index), ..*self }
    }

    /// The path without indexes, as a TOML header names it.
    pub(crate) fn bare(&self) -> String {
        match self.parent.filter(|p| !p.name.is_empty()) {
            Some(parent) => format!("{}.{}", parent.bare(), self.name),
            None => self.name.to_owned(),
        }
    }

    pub(crate) fn item(&'a self, name: &'a str, index: usize) -> Path<'a> {
        Path { parent: Some(self), name, index: Some(index) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent.filter(|p| !p.name.is_empty()) {
            write!(f, "{parent}.")?;
        }
        f.write_str(self.name)?;
        match self.index {
            Some(i) => write!(f, "[{i}]"),
            None => Ok(()),
        }
    }
}

/// Where something was first said, for messages about repetitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub line: u32,
    pub path: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (line {})", self.path, self.line)
    }
}

/// Collects findings and knows the lines of the document.
pub(crate) struct Report<'t> {
    file: &'t str,
    text: &'t str,
    line_starts: Vec<usize>,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    /// Keys that are there with a value of another type: not to be called missing as well.
    mistyped: HashSet<String>,
}

impl<'t> Report<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Report<'t> {
        let mut line_starts = vec![0];
        line_starts.extend(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1));
        Report { file, text, line_starts, errors: Vec::new(), warnings: Vec::new(), mistyped: HashSet::new() }
    }

    /// Line and column, both from 1.
    fn position(&self, offset: usize) -> (u32, u32) {
        let offset = offset.min(self.text.len());
        let line = self.line_starts.partition_point(|s| *s <= offset).saturating_sub(1);
        let start = self.line_starts.get(line).copied().unwrap_or(0);
        // A span may point into a character only after damage; such a column counts bytes.
        let column = self.text.get(start..offset).map_or(offset - start, |s| s.chars().count());
        let number = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
        (number(line), number(column))
    }

    fn diagnostic(&self, at: &Span, path: &Path<'_>, problem: String, remedy: String) -> Diagnostic {
        let (line, column) = self.position(at.start);
        Diagnostic {
            file: self.file.to_owned(),
            line,
            column,
            path: path.to_string(),
            problem,
            remedy,
            code: None,
        }
    }

    pub(crate) fn error(
        &mut self,
        at: &Span,
        path: &Path<'_>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
        code: &str,
    ) {
        let mut d = self.diagnostic(at, path, problem.into(), remedy.into());
        d.code(code);
        self.errors.push(d);
    }

    pub(crate) fn warn(
        &mut self,
        at: &Span,
        path: &Path<'_>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let d = self.diagnostic(at, path, problem.into(), remedy.into());
        self.warnings.push(d);
    }

    pub(crate) fn wrong_type(&mut self, at: &Span, path: &Path<'_>, problem: String, remedy: String) {
        self.mistyped.insert(path.to_string());
        self.error(at, path, problem, remedy, "");
    }

    pub(crate) fn is_mistyped(&self, path: &Path<'_>) -> bool {
        !self.mistyped.is_empty() && self.mistyped.contains(&path.to_string())
    }

    pub(crate) fn place(&self, at: &Span, path: &Path<'_>) -> Place {
        Place { line: self.position(at.start).0, path: path.to_string() }
    }

    pub(crate) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Errors and warnings, each in the order of the file.
    pub(crate) fn into_parts(mut self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        self.errors.sort_by_key(|d| (d.line, d.column));
        self.warnings.sort_by_key(|d| (d.line, d.column));
        (self.errors, self.warnings)
    }
}
