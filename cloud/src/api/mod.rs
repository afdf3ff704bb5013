//! The API catalogue: what each operation takes, answers and refuses with.
//!
//! `build.rs` generates the tables from `catalogue/smartag-2018-03-13.json`, which has the operations of the vendor, and
//! from `catalogue/extensions.json`, which has those of this cloud.

pub mod params;
pub mod request;
pub mod response;
pub mod shape;
pub mod validate;
pub mod xml;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::error::ErrorSpec;

pub const PRODUCT_VERSION: &str = "2018-03-13";

#[derive(Debug)]
pub struct OpSpec {
    pub name: &'static str,
    pub params: &'static [ParamSpec],
    pub errors: &'static [ErrorSpec],
    pub response: Node,
}

#[derive(Debug)]
pub struct ParamSpec {
    pub name: &'static str,
    pub kind: Kind,
    /// Sent as `Name.1`, `Name.2`, ...
    pub list: bool,
    pub required: bool,
    /// Required when another parameter has one of these values.
    pub required_when: Option<(&'static str, &'static [&'static str])>,
    pub range: Option<(i64, i64)>,
    /// One value outside of `range` that is allowed too.
    pub also: Option<i64>,
    pub length: Option<(i64, i64)>,
    pub choices: &'static [&'static str],
    pub default: Option<&'static str>,
    pub pattern: Pattern,
    pub max_items: Option<u64>,
    pub no_url: bool,
    /// Any case of letters is one of `choices`, and the answer has it as it was sent.
    pub as_sent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Int,
    Bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    Any,
    Alphanumeric,
    Cidr,
    EnterpriseCode,
    Ipv4,
    Label,
    Month,
    Name,
    Password,
    /// A port, or `any`.
    Port,
    PortRange,
    Text,
    Time,
    Word,
}

/// The documented form of an answer.
#[derive(Debug)]
pub enum Node {
    Text,
    Int,
    Bool,
    List(&'static Node),
    Object(&'static [Field]),
}

#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    /// The printed example always shows the key.
    pub always: bool,
    pub node: Node,
}

include!(concat!(env!("OUT_DIR"), "/operations.rs"));

impl Op {
    pub fn spec(self) -> &'static OpSpec {
        &SPECS[self as usize]
    }

    pub fn name(self) -> &'static str {
        self.spec().name
    }

    pub fn by_name(name: &str) -> Option<Op> {
        static NAMES: LazyLock<HashMap<&str, Op>> =
            LazyLock::new(|| Op::ALL.iter().map(|op| (op.name(), *op)).collect());
        NAMES.get(name).copied()
    }

    /// Whether the operation only reads.
    pub fn reads(self) -> bool {
        ["Describe", "Discribe", "List", "Get", "View"].iter().any(|p| self.name().starts_with(p))
    }

    /// The documented error of this operation, if the catalogue lists the code here.
    pub fn error(self, code: &str) -> Option<&'static ErrorSpec> {
        self.spec().errors.iter().find(|e| e.code == code)
    }
}

/// The first documentation of a code in the whole catalogue.
pub fn any_error(code: &str) -> Option<&'static ErrorSpec> {
    SPECS.iter().flat_map(|s| s.errors).find(|e| e.code == code)
}
