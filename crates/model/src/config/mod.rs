//! The device configuration that all programs read: from TOML, validated whole, typed.
//!
//! `keys` declares every key once. By the declarations `schema` reads a document into its raw form, where every key
//! has its place, and writes it back; `validate` adds what concerns several keys at once, and makes a [`Config`] of
//! it. No step stops at the first mistake, and every mistake names its place and remedy.
//!
//! | module | duty | uses |
//! |---|---|---|
//! | `types` | what values mean | |
//! | `report` | findings with their places | |
//! | `value` | spellings of single values | `types` |
//! | `scope` | one table while it is validated | `report`, `value` |
//! | `schema` | what a declaration is, and what follows from it | `scope`, `value`, `types` |
//! | `keys` | the declarations | `schema`, `types` |
//! | `validate` | what concerns several keys | `keys` |
//! | `show`, `diff`, `reference`, `example` | `config show`, differences, the manual's tables, the example file | `keys` |

mod diff;
mod example;
mod keys;
mod reference;
mod report;
mod schema;
mod scope;
mod show;
mod types;
mod validate;
mod value;

#[cfg(test)]
mod tests;

pub use diff::Change;
pub use example::example;
pub use keys::{
    Acl, AclRule, Bandwidth, Config, Dataplane, Dnat, FlowLog, Group, Ha, Nat, Nat64, Neighbor, Port,
    PortMapping, Qos, QosCar, QosPolicy, Route, SECTIONS, Snat, StaticNat, SynCookies, Timeouts, Tunnel, Vrf,
};
pub use reference::{reference, with_references};
pub use report::{Diagnostic, Errors};
pub use schema::{KeyInfo, Section};
pub use show::Secrets;
pub use types::*;
pub use validate::{DEFAULT_VRF, NOT_ENFORCED};
pub use value::protocol_name;

use keys::RawConfig;
use report::{Path, Report};
use schema::RawTable;

/// A valid document.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// What it says.
    pub config: Config,
    /// Worth a look, no reason to refuse.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and validates a document; `file_name` only labels the findings.
///
/// # Errors
///
/// Every mistake in the document, in its order.
pub fn parse(text: &str, file_name: &str) -> Result<Checked, Errors> {
    let mut report = Report::new(file_name, text);
    let config = read(text, &mut report).and_then(|raw| validate::validate(&raw, &mut report));
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
