//! The devices that this one has had tunnels to: the identity by which each is recognised again, and the newest key.
//!
//! `peers.json` in `state_dir` holds them. The agent and its command line both write it, one at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sag_southbound::{Endpoint, Identity, is_fingerprint};
use serde::{Deserialize, Serialize};

use crate::files;

const FILE: &str = "peers.json";
/// Devices in all.
const MOST: usize = 4096;
/// Devices of one instance: two at a time, and those that were replaced.
const MOST_OF_GATEWAY: usize = 8;
const DAY: i64 = 86_400;
/// Seconds after which a device that has not been a member may make room for another one of its instance.
const FORGOTTEN: i64 = 30 * DAY;

/// What is known of a device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    /// The instance that it belongs to.
    pub gateway: String,
    /// Fingerprint of its identity; empty: it has never signed.
    pub fingerprint: String,
    /// The newest epoch, and the key of that epoch.
    pub epoch: u64,
    pub public_key: String,
    /// The last address.
    pub address: String,
    /// When it was last a member: seconds since 1970, to the day.
    pub seen: i64,
}

/// Every device that is known, by its serial number.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Peers(pub BTreeMap<String, Known>);

impl Peers {
    /// Whether there is room for a device that is not known yet.
    ///
    /// # Errors
    /// Why there is none.
    pub fn has_room(&self, gateway: &str, now: i64) -> Result<(), String> {
        let of_gateway: Vec<&Known> = self.0.values().filter(|k| k.gateway == gateway).collect();
        let old = of_gateway.iter().any(|k| k.is_forgotten(now));
        if of_gateway.len() >= MOST_OF_GATEWAY && !old {
            return Err(format!(
                "{MOST_OF_GATEWAY} devices of its gateway are known already; sag-agent peers forget removes those \
                 that are no more"
            ));
        }
        if self.0.len() >= MOST && !old {
            return Err(format!(
                "{MOST} devices are known already; sag-agent peers forget removes those that are no more"
            ));
        }
        Ok(())
    }

    /// Remembers a device whose announcement was accepted.
    pub fn remember(&mut self, sn: &str, gateway: &str, endpoint: &Endpoint, now: i64) {
        let Some(known) = self.entry(sn, gateway, now) else { return };
        if let Some(identity) = endpoint.identity {
            known.fingerprint = identity.fingerprint();
        }
        known.epoch = endpoint.epoch;
        known.public_key = hex::encode(endpoint.public_key);
        known.address = endpoint.address.to_string();
    }

    /// Remembers the identity of a device to which there are no tunnels: of another one of this instance.
    pub fn remember_identity(&mut self, sn: &str, gateway: &str, identity: Identity, now: i64) {
        if let Some(known) = self.entry(sn, gateway, now) {
            known.fingerprint = identity.fingerprint();
        }
    }

    /// The place of a device, which may take that of one which is forgotten; none: there is no room.
    fn entry(&mut self, sn: &str, gateway: &str, now: i64) -> Option<&mut Known> {
        if !self.0.contains_key(sn) {
            let full = self.0.values().filter(|k| k.gateway == gateway).count() >= MOST_OF_GATEWAY;
            if full || self.0.len() >= MOST {
                let old = self.0.iter().filter(|(_, k)| k.gateway == gateway && k.is_forgotten(now));
                let oldest = old.min_by_key(|(_, k)| k.seen).map(|(sn, _)| sn.clone())?;
                self.0.remove(&oldest);
            }
        }
        let known = self.0.entry(sn.to_owned()).or_default();
        gateway.clone_into(&mut known.gateway);
        known.seen = now.max(known.seen) / DAY * DAY;
        Some(known)
    }
}

impl Known {
    fn is_forgotten(&self, now: i64) -> bool {
        now.saturating_sub(self.seen) > FORGOTTEN
    }
}

/// The file with the devices.
#[derive(Debug)]
pub struct PeersFile {
    path: PathBuf,
}

impl PeersFile {
    pub fn new(state_dir: &Path) -> PeersFile {
        PeersFile { path: state_dir.join(FILE) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file has; nothing if there is none.
    ///
    /// # Errors
    /// The file cannot be read. Beginning anew would trust whoever comes first.
    pub fn load(&self) -> Result<Peers, String> {
        let place = self.path.display();
        match std::fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| {
                format!("{place}: {e}; restore the file, or remove it to trust every device anew at its next announcement")
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Peers::default()),
            Err(e) => Err(format!("{place}: {e}")),
        }
    }

    /// Changes the file while nobody else does.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn change(&self, change: impl FnOnce(&mut Peers)) -> Result<(), String> {
        let lock = self.path.with_extension("lock");
        let wrong = |e: io::Error| format!("{}: {e}", self.path.display());
        let held = File::create(&lock).map_err(wrong)?;
        rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).map_err(|e| wrong(e.into()))?;
        let before = self.load()?;
        let mut after = before.clone();
        change(&mut after);
        if after != before {
            let text = serde_json::to_vec_pretty(&after).unwrap_or_default();
            files::replace(&self.path, &text).map_err(wrong)?;
        }
        self.give_to_agent(&lock).and_then(|()| self.give_to_agent(&self.path)).map_err(wrong)
    }

    /// What root writes must stay the agent's, which owns the folder.
    fn give_to_agent(&self, file: &Path) -> io::Result<()> {
        let Some(folder) = self.path.parent() else { return Ok(()) };
        let (Ok(folder), Ok(own)) = (folder.metadata(), file.metadata()) else { return Ok(()) };
        if (folder.uid(), folder.gid()) == (own.uid(), own.gid()) || !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        std::os::unix::fs::chown(file, Some(folder.uid()), Some(folder.gid()))
    }

    /// Says by which identity a device is recognised from now on: it was replaced, or its operator has read the
    /// fingerprint out.
    ///
    /// # Errors
    /// The text is no fingerprint, or the file cannot be written.
    pub fn accept(&self, sn: &str, fingerprint: &str) -> Result<()> {
        let fingerprint = fingerprint.trim().to_ascii_lowercase();
        ensure!(
            is_fingerprint(&fingerprint),
            "{fingerprint:?} is no fingerprint; `sag-agent status` on the device prints it: eight groups of four \
             hexadecimal digits"
        );
        let mut full = false;
        let change = |all: &mut Peers| {
            full = !all.0.contains_key(sn) && all.0.len() >= MOST;
            if !full {
                let known = all.0.entry(sn.to_owned()).or_default();
                // Epochs of another identity count anew.
                *known = Known {
                    fingerprint,
                    gateway: std::mem::take(&mut known.gateway),
                    seen: known.seen,
                    ..Known::default()
                };
            }
        };
        self.change(change).map_err(anyhow::Error::msg)?;
        ensure!(
            !full,
            "{MOST} devices are known already; `sag-agent peers forget` removes those that are no more"
        );
        Ok(())
    }

    /// Forgets a device: the next identity that announces itself by its serial number is trusted.
    ///
    /// # Errors
    /// The device is not known, or the file cannot be written.
    pub fn forget(&self, sn: &str) -> Result<()> {
        let mut found = false;
        self.change(|all| found = all.0.remove(sn).is_some())
            .map_err(anyhow::Error::msg)
            .context("not forgotten")?;
        if !found {
            bail!("no device {sn} is known; `sag-agent status` lists them");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn endpoint(epoch: u64) -> Endpoint {
        Endpoint {
            address: "203.0.113.7".parse().expect("an address"),
            epoch,
            public_key: [9; 32],
            identity: None,
            lines: Vec::new(),
        }
    }

    #[test]
    fn a_gateway_cannot_make_the_list_grow_or_have_others_forgotten() {
        let mut all = Peers::default();
        all.remember("mine", "sag-1", &endpoint(1), NOW);
        let mut day = NOW;
        for n in 0..500 {
            day += DAY / 2;
            if all.has_room("sag-x", day).is_ok() {
                all.remember(&format!("x{n}"), "sag-x", &endpoint(1), day);
            }
            // Whoever does not look whether there is room does not get any either.
            all.remember(&format!("y{n}"), "sag-x", &endpoint(1), day);
        }
        assert_eq!(all.0.len(), 1 + MOST_OF_GATEWAY);
        assert!(all.0.contains_key("mine"));
        let many = (0..MOST)
            .map(|n| (format!("s{n}"), Known { gateway: format!("g{n}"), seen: NOW, ..Known::default() }));
        let full = Peers(many.collect());
        assert!(full.has_room("sag-new", NOW).is_err_and(|e| e.contains("peers forget")));
    }

    #[test]
    fn the_file_is_changed_by_one_at_a_time_and_never_begun_anew() {
        let dir = tempfile::tempdir().expect("dir");
        let file = PeersFile::new(dir.path());
        let fingerprint = "605c-ca0f-75a0-b699-340b-8476-33de-2ad2";
        assert_eq!(file.load(), Ok(Peers::default()));
        file.change(|all| all.remember("sn1", "sag-1", &endpoint(700), NOW)).expect("written");
        assert_eq!(file.load().expect("read").0["sn1"].epoch, 700);
        assert!(file.accept("sn1", "605c").is_err());
        file.accept("sn1", &fingerprint.to_ascii_uppercase()).expect("accepted");
        let known = file.load().expect("read").0["sn1"].clone();
        assert_eq!(
            (known.fingerprint.as_str(), known.epoch, known.gateway.as_str()),
            (fingerprint, 0, "sag-1")
        );
        file.forget("sn1").expect("forgotten");
        assert!(file.forget("sn1").is_err());
        std::fs::write(dir.path().join(FILE), b"{half").expect("written");
        assert!(file.load().is_err_and(|e| e.contains("peers.json")));
        assert!(file.change(|all| all.0.clear()).is_err());
        assert_eq!(std::fs::read(dir.path().join(FILE)).expect("read"), b"{half");
    }
}
