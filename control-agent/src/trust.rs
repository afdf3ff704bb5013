//! Whom this gateway trusts: by which identity another device is recognised (docs/tunnels-keys.md).

use std::collections::BTreeMap;

use sag_southbound::Identity;

use crate::peers::Known;

/// Whom the operator of this gateway trusts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trust {
    /// Fingerprints of devices by serial number.
    pub listed: BTreeMap<String, String>,
    /// No other devices than these.
    pub only_listed: bool,
}

impl Trust {
    /// Whether the device of that serial number, made of plain characters, is the one that it was before: of the identity
    /// that is listed, or else of the one that is `known`.
    ///
    /// # Errors
    /// Why it is not recognised.
    pub fn recognise(&self, sn: &str, known: Option<&Known>, its: Option<Identity>) -> Result<(), String> {
        let listed = self.listed.get(sn).map(String::as_str);
        let wanted = listed.or(known.map(|k| k.fingerprint.as_str()).filter(|f| !f.is_empty()));
        let fingerprint = its.map(Identity::fingerprint);
        match (wanted, &fingerprint) {
            (None, _) if self.only_listed => {
                let its = fingerprint.map(|f| format!(" (its fingerprint is {f})")).unwrap_or_default();
                Err(format!("it is not listed in [peers] of agent.toml{its}"))
            }
            (Some(wanted), Some(its)) if wanted != its => {
                let remedy = match listed {
                    Some(_) => "[peers] of agent.toml names another one".to_owned(),
                    None => format!(
                        "it had {wanted} before; if the device was replaced, compare fingerprints and call `sag-agent \
                         peers accept {sn} {its}`"
                    ),
                };
                Err(format!("its identity is {its}, and {remedy}"))
            }
            (Some(_), None) => Err("its announcement is not signed, and the device has an identity".into()),
            _ => Ok(()),
        }
    }
}
