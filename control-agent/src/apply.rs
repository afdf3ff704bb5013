//! Putting a configuration in force: compiled, handed to the gateway in one transaction, addresses
//! set, written to disk as the last good one. What fails leaves the one before in force.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sag_model::control::PublicKey;
use sag_southbound::Announcement;
use serde::{Deserialize, Serialize};

use crate::compile::{Base, Compiled, compile};
use crate::config::{Config, Dhcp};
use crate::crash;
use crate::desired::Desired;
use crate::dhcp::DhcpClients;
use crate::files;
use crate::health::Verdict;
use crate::overlay::{LocalEndpoint, Tunnel, peer_keys};
use crate::system::{Item, System, present};
use crate::vcpe::{Vcpe, VcpeError};

pub type Verdicts = BTreeMap<String, Verdict>;

#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The gateway does not answer: the same may succeed later.
    Unavailable(String),
    /// It cannot be put in force; what was before still is.
    Refused(String),
}

/// What boots the gateway when the cloud is out of reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastGood {
    pub revision: Option<i64>,
    pub desired: Desired,
}

/// What the gateway runs, and the process and epoch by which that is recognised.
#[derive(Debug, Clone)]
pub struct InForce {
    pub good: LastGood,
    pub compiled: Compiled,
    pid: u32,
    epoch: u32,
}

pub struct Applier {
    config: Arc<Config>,
    pub vcpe: Vcpe,
    pub system: Option<System>,
    dhcp: DhcpClients,
    /// The gateway's own sections, and the process that showed them.
    base: Option<(u32, Base)>,
    pub current: Option<InForce>,
    /// Addresses were changed since the main loop last reset this.
    pub moved: bool,
    /// This gateway's key, of the process that made it; no key: it has no tunnels.
    key: Option<(u32, Option<PublicKey>)>,
    /// The peers' keys that the gateway got last, by process and own key.
    last_pushed: Option<(u32, u64, Vec<Tunnel>)>,
}

/// The first of the problems: a configuration of the cloud may have one for each entry.
fn joined(problems: &[String]) -> String {
    const SAID: usize = 20;
    let said = problems.iter().take(SAID).map(String::as_str).collect::<Vec<_>>().join("; ");
    match problems.len().checked_sub(SAID) {
        Some(more @ 1..) => format!("{said}; and {more} more"),
        _ => said,
    }
}

impl Applier {
    pub fn new(config: Arc<Config>) -> Applier {
        let system = System::open(&config.state_dir)
            .map_err(|error| tracing::warn!(%error, "addresses of ports cannot be set"))
            .ok();
        let vcpe = Vcpe::new(&config.vcpe_socket);
        let dhcp = DhcpClients::new(config.dhcp_client, &config.state_dir);
        Applier {
            config,
            vcpe,
            system,
            dhcp,
            base: None,
            current: None,
            moved: false,
            key: None,
            last_pushed: None,
        }
    }

    fn last_good_file(&self) -> PathBuf {
        self.config.state_dir.join("last-good.json")
    }

    pub fn last_good(&self) -> Option<LastGood> {
        let file = self.last_good_file();
        let text = std::fs::read(&file).ok()?;
        serde_json::from_slice(&text)
            .map_err(|error| tracing::warn!(file = %file.display(), %error, "the last good configuration is unreadable"))
            .ok()
    }

    /// The gateway's own sections: of `base_config`, or of what it ran when it started.
    fn base(&mut self, pid: u32) -> Result<Base, Fault> {
        if let Some(file) = &self.config.base_config {
            let wrong = |e: String| Fault::Refused(format!("base_config {}: {e}", file.display()));
            let text = std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
            return Base::from_toml(&text).map_err(wrong);
        }
        if let Some((_, base)) = self.base.as_ref().filter(|(of, _)| *of == pid) {
            return Ok(base.clone());
        }
        let shown = self.vcpe.show().map_err(fault)?;
        let base = Base::from_toml(&shown.text).map_err(Fault::Refused)?;
        self.base = Some((pid, base.clone()));
        Ok(base)
    }

    /// Puts a configuration in force; true if anything had to be done.
    pub fn apply(&mut self, good: LastGood, health: &Verdicts) -> Result<bool, Fault> {
        let status = self.vcpe.status().map_err(fault)?;
        let base = self.base(status.pid)?;
        let endpoint = self.endpoint(&good.desired, status.pid)?;
        let compiled = compile(&good.desired, &base, &self.config.ports, health, endpoint.as_ref())
            .map_err(|problems| Fault::Refused(joined(&problems)))?;
        crash::point("compiled");
        let mark = (status.pid, status.config_epoch);
        let epoch = self.runs(&compiled, mark)?;
        let mut changed = epoch.is_none();
        let epoch = match epoch {
            Some(epoch) => epoch,
            None => {
                crash::point("before-apply");
                let name = match good.revision {
                    Some(r) => format!("cloud revision {r}"),
                    None => "cloud".to_owned(),
                };
                let applied = self.vcpe.apply(&compiled.text, &name).map_err(fault)?;
                crash::point("after-apply");
                applied.epoch
            }
        };
        match self.addresses(&compiled) {
            Ok(edited) => changed |= edited,
            Err(why) => {
                self.roll_back();
                return Err(Fault::Refused(why));
            }
        }
        crash::point("after-addresses");
        self.exchange_keys(&compiled, status.pid)?;
        let known = self.current.as_ref().map(|c| &c.good);
        if known != Some(&good) {
            self.save(&good, &compiled);
        }
        self.current = Some(InForce { good, compiled, pid: status.pid, epoch });
        Ok(changed)
    }

    /// The epoch at which the gateway runs this very document already. Its epoch grows by itself too,
    /// with time windows and addresses, and a restarted one may have begun with our file.
    fn runs(&self, compiled: &Compiled, mark: (u32, u32)) -> Result<Option<u32>, Fault> {
        if let Some(c) = self.current.as_ref().filter(|c| (c.pid, c.epoch) == mark) {
            return Ok((c.compiled.text == compiled.text).then_some(c.epoch));
        }
        let shown = self.vcpe.show().map_err(fault)?;
        Ok((shown.text == compiled.shown).then_some(shown.epoch))
    }

    /// This end of tunnels, if the gateway is in a network and can make tunnels.
    fn endpoint(&mut self, desired: &Desired, pid: u32) -> Result<Option<LocalEndpoint>, Fault> {
        if desired.ccn.is_none() {
            return Ok(None);
        }
        let Some(system) = &mut self.system else { return Ok(None) };
        // A gateway that cannot agree on keys refuses; the question is not repeated.
        if !matches!(&self.key, Some((of, None)) if *of == pid) {
            let key = match self.vcpe.public_key(&self.config.smart_ag_sn) {
                Ok(key) => Some(key),
                Err(VcpeError::Refused(_)) => None,
                Err(unavailable) => return Err(fault(unavailable)),
            };
            self.key = Some((pid, key));
        }
        if !matches!(&self.key, Some((_, Some(_)))) {
            return Ok(None);
        }
        let items = present(system.tables().map_err(|e| Fault::Refused(e.to_string()))?);
        let address = |i: Item| match i {
            Item::Address { device, address } => Some((device, address.addr())),
            Item::Default { .. } => None,
        };
        let addresses = items.into_iter().filter_map(address).collect();
        let (pop, fec) = (self.config.point_of_presence, self.config.optimization);
        Ok(Some(LocalEndpoint { addresses, pop, fec }))
    }

    /// Gives the gateway its peers' public keys, when they or its own have changed.
    fn exchange_keys(&mut self, compiled: &Compiled, pid: u32) -> Result<(), Fault> {
        let Some((_, Some(own))) = &self.key else { return Ok(()) };
        let now = Some((pid, own.epoch, compiled.tunnels.clone()));
        if compiled.tunnels.is_empty() || self.last_pushed == now {
            return Ok(());
        }
        self.vcpe.set_peers(peer_keys(&compiled.tunnels)).map_err(fault)?;
        tracing::info!(tunnels = compiled.tunnels.len(), "keys of the network");
        self.last_pushed = now;
        Ok(())
    }

    /// What the other members of the network have to know of this device.
    pub fn announcement(&self) -> Option<Announcement> {
        let local = self.current.as_ref()?.compiled.local?;
        let (_, key) = self.key.as_ref()?;
        let key = key.as_ref()?;
        Some(Announcement {
            address: local.to_string(),
            epoch: Some(key.epoch),
            public_key: key.public_key.clone(),
            pop: Some(self.config.point_of_presence),
        })
    }

    fn addresses(&mut self, compiled: &Compiled) -> Result<bool, String> {
        let Some(system) = &mut self.system else {
            return match compiled.addresses.first() {
                None => Ok(false),
                Some(a) => Err(format!("port {}: no netlink, its address cannot be set", a.port)),
            };
        };
        let edited = system.reconcile(&compiled.addresses).map_err(|e| e.to_string())?;
        if self.config.dhcp_client != Dhcp::Off {
            let there = present(system.tables().map_err(|e| e.to_string())?);
            // An address from elsewhere, or the client's own.
            let bare = |d: &&String| {
                !there.iter().any(|i| matches!(i, Item::Address { device, .. } if device == *d))
            };
            let devices: Vec<String> =
                compiled.dhcp.iter().filter(|d| self.dhcp.serves(d) || bare(d)).cloned().collect();
            self.dhcp.set(&devices);
        }
        self.moved |= edited;
        Ok(edited)
    }

    /// Back to the configuration before, as far as that goes.
    fn roll_back(&mut self) {
        let Some(old) = self.current.clone() else { return };
        match self.vcpe.apply(&old.compiled.text, "the last good configuration") {
            Ok(applied) => {
                self.current = Some(InForce { epoch: applied.epoch, ..old.clone() });
                if let Err(error) = self.addresses(&old.compiled) {
                    tracing::error!(error, "addresses of the last good configuration");
                }
            }
            Err(error) => tracing::error!(%error, "cannot go back to the last good configuration"),
        }
    }

    fn save(&self, good: &LastGood, compiled: &Compiled) {
        let text = serde_json::to_vec(good).unwrap_or_default();
        report_write(&self.last_good_file(), &text, || crash::point("during-save"));
        if let Some(file) = &self.config.vcpe_config {
            report_write(file, compiled.text.as_bytes(), || {});
        }
        crash::point("after-save");
    }

    /// Compares the gateway and the ports with the last good configuration, and applies it again where they differ.
    pub fn reconcile(&mut self, health: &Verdicts) -> Result<(), Fault> {
        let Some(current) = &self.current else { return Ok(()) };
        let good = current.good.clone();
        if self.apply(good, health)? {
            tracing::warn!(
                "the gateway did not run the last good configuration, or a health check changed; put right"
            );
        }
        Ok(())
    }
}

fn report_write(path: &Path, bytes: &[u8], between: impl FnOnce()) {
    if let Err(error) = files::replace_with(path, bytes, between) {
        tracing::error!(path = %path.display(), %error, "cannot write down the last good configuration");
    }
}

fn fault(e: VcpeError) -> Fault {
    use sag_model::control::ErrorCode;
    match e {
        VcpeError::Refused(e) if e.code == ErrorCode::Busy => Fault::Unavailable(e.message),
        VcpeError::Refused(e) => Fault::Refused(VcpeError::Refused(e).to_string()),
        unavailable => Fault::Unavailable(unavailable.to_string()),
    }
}

#[cfg(test)]
mod tests;
