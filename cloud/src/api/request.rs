//! The requests as types, generated from the catalogue: `build.rs` makes a struct for each operation.

use super::Op;
use crate::api::params::Params;
pub use crate::api::params::separated;

/// The parameters of one operation. Read after [`validate`](super::validate::validate), which has filled defaults
/// in and refused what is missing or no number.
pub trait Request: Sized {
    const OP: Op;

    fn read(params: &Params) -> Self;
}

impl Params {
    fn text(&self, name: &str) -> String {
        self.opt_text(name).unwrap_or_default()
    }

    fn opt_text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// A text that may be empty.
    fn opt_cleared(&self, name: &str) -> Option<String> {
        self.has(name).then(|| self.text(name))
    }

    fn int(&self, name: &str) -> i64 {
        self.opt_int(name).unwrap_or_default()
    }

    fn opt_int(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }

    fn flag(&self, name: &str) -> bool {
        self.opt_flag(name).unwrap_or_default()
    }

    fn opt_flag(&self, name: &str) -> Option<bool> {
        super::validate::parse_bool(self.get(name)?)
    }

    /// A repeat list, or the same separated by commas in one value.
    pub fn texts(&self, name: &str) -> Vec<String> {
        let rows = self.list(name);
        let rows = if rows.is_empty() { self.get(name).into_iter().collect() } else { rows };
        rows.into_iter().flat_map(separated).collect()
    }
}

include!(concat!(env!("OUT_DIR"), "/requests.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_what_was_sent() {
        let mut params = Params::default();
        let text = "AclId=acl-1&Priority=7&DpiSignatureIds.2=b&DpiSignatureIds.1=a&Direction=in&Name=&SourceCidr=10.0.0.0/8";
        params.parse_into(text).expect("parses");
        let got = AddACLRule::read(&params);
        assert_eq!((got.acl_id.as_str(), got.priority, got.direction.as_str()), ("acl-1", 7, "in"));
        assert_eq!((got.name, got.description, got.dpi_group_ids.len()), (None, None, 0));
        assert_eq!(got.dpi_signature_ids, ["a", "b"]);
        assert_eq!(AddACLRule::OP, Op::AddACLRule);
        let order = CreateSmartAccessGateway::read(&params);
        assert!(!order.auto_pay && order.already_have_sag.is_none());
    }
}
