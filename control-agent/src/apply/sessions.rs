//! What stands in for what: the link by which sessions follow to the other device of the instance, with whom it is and what
//! this device announces; and the links of this device.

use sag_southbound::{LinkBackup, SessionLink};

use super::{Applier, Verdicts};
use crate::compile::SessionPeers;
use crate::desired::Desired;
use crate::link_backup;
use crate::session_link::{LinkKey, Own, agreed, announced};

impl Applier {
    /// The other devices of the instance, as far as they can be recognised, with the keys that are agreed with them.
    pub(super) fn session_peers(&mut self, desired: &Desired) -> SessionPeers {
        if desired.ha.is_none() {
            return Vec::new();
        }
        if !matches!(self.link_key, Some(Ok(_))) {
            let key = LinkKey::load(&self.config.state_dir);
            if let Err(error) = &key
                && !matches!(&self.link_key, Some(Err(before)) if before == error)
            {
                tracing::error!(error, "sessions do not follow to another device");
            }
            self.link_key = Some(key);
        }
        let Some(key) = &self.link_key else { return Vec::new() };
        if desired.session_peers.is_empty() {
            return Vec::new();
        }
        let known = self.peers.load();
        let own = Own {
            gateway: &self.config.smart_ag_id,
            sn: &self.config.smart_ag_sn,
            trust: &self.config.trust,
            known: known.as_ref().map_err(String::as_str),
            now: self.now(),
        };
        desired.session_peers.iter().map(|p| agreed(p, &own, key)).collect()
    }

    /// What the other device has to know of this one's end.
    pub fn session_link(&self) -> Option<SessionLink> {
        let address = self.current.as_ref()?.compiled.session_end?;
        let own = (self.config.smart_ag_id.as_str(), self.config.smart_ag_sn.as_str());
        announced(address.into(), own, self.link_key.as_ref()?, &self.identity)
    }

    /// The links of this device that stand in for each other.
    pub fn link_backup(&mut self, health: &Verdicts) -> Vec<LinkBackup> {
        let (Some(current), Some(Ok(tables))) = (&self.current, self.system.as_mut().map(|s| s.tables()))
        else {
            return Vec::new();
        };
        link_backup::links(&current.compiled, &current.good.desired, health, tables)
    }
}
