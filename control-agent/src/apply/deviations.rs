//! Objects of the cloud that are not in force as they are: what there is to say of them, and saying it to the gateway,
//! whose operator sees it in `sagctl status`.

use sag_model::{Role, control};
use sag_southbound::{Deviation, Effect};

use super::Applier;
use crate::report;
use crate::vcpe::VcpeError;

impl Applier {
    /// Objects that are not in force as they are.
    pub fn deviations(&self) -> Vec<Deviation> {
        let Some(current) = &self.current else { return Vec::new() };
        let mut out = current.compiled.deviations.clone();
        let roles = |port: &String| current.compiled.ports.iter().find(|(name, ..)| name == port);
        out.extend(self.addressless.iter().map(|(port, why)| {
            Deviation {
                section: match roles(port).map(|(_, _, role)| *role) {
                    Some(Role::Wan) => "Wan",
                    Some(Role::Express) => "Ecc",
                    _ => "Lan",
                }
                .to_owned(),
                object: format!("port {port}"),
                effect: Some(Effect::Partial),
                reason: why.clone(),
            }
        }));
        out.extend(self.unreached.iter().cloned());
        out.extend(self.routing.deviations());
        out.extend(self.lan.deviations());
        out.extend_from_slice(self.ipv6.deviations());
        out
    }

    /// Has the gateway show what is not in force as it is. Another document, or process, has lost what it was told.
    pub(super) fn show_deviations(&mut self, mark: (u32, u32)) {
        let Some(current) = &self.current else { return };
        let all = report::bounded(self.deviations()).into_iter().map(|d| control::Deviation {
            section: d.section,
            object: d.object,
            effect: d.effect.map(|e| e.as_str().to_owned()).unwrap_or_default(),
            reason: d.reason,
        });
        let ccn = current.good.desired.ccn.as_ref().map(|c| c.id.as_str()).unwrap_or_default();
        let room = control::MAX_DEVIATIONS.saturating_sub(all.len());
        let members = current.compiled.refused.iter().chain(self.unkeyed.values()).take(room);
        let members = members.map(|why| control::Deviation {
            section: "Ccn".to_owned(),
            object: format!("network {ccn}"),
            effect: Effect::Partial.as_str().to_owned(),
            reason: why.clone(),
        });
        let now = Some((mark, all.chain(members).collect()));
        if self.shown == now {
            return;
        }
        let deviations = now.iter().flat_map(|(_, all): &(_, Vec<control::Deviation>)| all.clone()).collect();
        match self.vcpe.set_deviations(deviations) {
            Ok(_) => self.shown = now,
            Err(VcpeError::Refused(error)) => {
                // A gateway of an older version does not know the message.
                tracing::debug!(%error, "the gateway does not show what is not in force");
                self.shown = now;
            }
            Err(error) => tracing::debug!(%error, "not told yet what is not in force"),
        }
    }
}
