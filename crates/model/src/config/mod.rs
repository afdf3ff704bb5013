//! The device configuration that all programs share: read from TOML, judged whole, typed.
//!
//! `read` and `raw` know the keys and TOML types, `validate` the rules, `types` what remains when a
//! document is right. `show` writes it back and `diff` tells two of them apart. No step stops at
//! the first mistake, and every mistake names its place and remedy.

mod diff;
mod raw;
mod read;
mod report;
mod show;
mod types;
mod validate;
mod value;

#[cfg(test)]
mod tests;

pub use diff::{Change, ChangeKind, FieldChange};
pub use raw::SECTIONS;
pub use report::{Diagnostic, Errors};
pub use show::Secrets;
pub use types::*;
pub use validate::NOT_ENFORCED;
pub use value::{Timestamp, protocol_name};

use raw::RawConfig;
use read::RawTable;
use report::{Path, Report};

/// A right document.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    pub config: Config,
    /// Worth a look, no reason to refuse.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and judges a document; `file_name` only labels the findings.
pub fn parse(text: &str, file_name: &str) -> Result<Checked, Errors> {
    let mut report = Report::new(file_name, text);
    let config = read(text, &mut report).and_then(|raw| raw.validate(&mut report));
    let (errors, warnings) = report.into_parts();
    match config {
        Some(config) if errors.is_empty() => Ok(Checked { config, warnings }),
        _ => Err(Errors(errors)),
    }
}

/// `None` where the text is not TOML: then nothing that follows would make sense.
fn read(text: &str, report: &mut Report<'_>) -> Option<RawConfig> {
    let (table, errors) = toml::de::DeTable::parse_recoverable(text);
    for e in &errors {
        let at = e.span().unwrap_or(0..0);
        let remedy = match e.message() {
            "duplicate key" => "give each key once; entries of a list have double brackets, [[like.this]]",
            _ => "the text is not TOML (https://toml.io)",
        };
        report.error(&at, &Path::ROOT, e.message(), remedy, "");
    }
    if !errors.is_empty() {
        return None;
    }
    let span = table.span();
    Some(RawConfig::read_table(table.into_inner(), span, &Path::ROOT, report))
}
