//! Keys of ESP tunnels: from the configuration, from control calls, by agreement; and the sequence numbers, which must
//! not start again after a restart.

mod agreement;
mod saved_numbers;
#[cfg(test)]
mod tests;

use sag_compile::{EspPlan, same_but_keys};
use sag_model::config::{self, Config, Encap, EspCipher};
use sag_pipeline::tunnel::{EspSaTable, EspSas, TunnelNo};
use sag_tunnel::esp::{
    Cipher, Inbound, InstallError as SaInstallError, KeyError, Outbound, SaSet, Suite, Switchover,
};
use sag_tunnel::keys::{self, AgreeError, Announcement, KeyRing, Lifetime};
use sag_xsk::sys;
use saved_numbers::{SEQUENCE_RESERVE, SavedNumbers};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// How long a gateway with new keys in its configuration waits for its peer to send by them, in nanoseconds.
const CONFIG_WAIT: u64 = 10_000_000_000;

/// The key material of one direction.
pub struct KeyMaterial<'a> {
    pub spi: u32,
    pub bytes: &'a [u8],
}

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("no ESP tunnel is called {0:?}")]
    NoTunnel(String),
    #[error("SPI {0:#x} is below 256, which is reserved (RFC 4303 2.1)")]
    ReservedSpi(u32),
    #[error("SPI {spi:#x} is in use by tunnel {other:?}")]
    SpiTaken { spi: u32, other: String },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Refused(#[from] SaInstallError),
    #[error(transparent)]
    Agree(#[from] AgreeError),
    #[error("this gateway has no key pair yet: request its public key first")]
    NoRing,
}

#[derive(Debug)]
struct Entry {
    no: TunnelNo,
    local: std::net::IpAddr,
    encap: Encap,
    /// `None`: there are no keys yet, neither of the configuration nor by agreement.
    set: Option<SaSet>,
    /// The pair in use by agreement: own and peer's epoch.
    agreed: Option<(u64, u64)>,
    /// The last public key of the peer, and the name of the link.
    peer: Option<(Announcement, String)>,
    /// Fingerprint of the newest keys.
    keys: u64,
    /// The outbound SPI, and the number up to which its sequence numbers are reserved on disk.
    reserved: (u32, u64),
    /// SPI of the outbound association that the log reports to be over the limit of bytes.
    reported_over_limit: u32,
}

/// All keys, and the associations that workers use.
#[derive(Debug, Default)]
pub struct EspKeys {
    /// What workers see.
    pub associations: Arc<EspSaTable>,
    by_name: BTreeMap<String, Entry>,
    ring: Option<KeyRing>,
    lifetime: Lifetime,
    saved: SavedNumbers,
}

/// How a pair comes into a set.
type Install = fn(&mut SaSet, Arc<Inbound>, Arc<Outbound>, Switchover, u64) -> Result<(), SaInstallError>;

/// Facts about the associations of a tunnel, for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub cipher: &'static str,
    pub spi_in: Vec<u32>,
    pub spi_out: u32,
    /// Seconds in use.
    pub age_in: u64,
    pub age_out: u64,
    pub sequence: u64,
    pub bytes: u64,
    pub waits: bool,
}

impl EspKeys {
    /// Goes on with the sequence numbers that an earlier daemon has saved in `dir`.
    pub fn load_saved_numbers(&mut self, dir: &Path) {
        self.saved.load(dir);
    }

    /// Takes the tunnels of a configuration, with their numbers. Keys that are the same stay in use with their sequence
    /// numbers.
    pub fn configure(&mut self, plan: &EspPlan) {
        self.set_lifetime(plan.lifetime);
        let now = sys::now();
        let mut old = std::mem::take(&mut self.by_name);
        for (no, t) in &plan.tunnels {
            let no = *no;
            let Encap::Esp { cipher, manual, esn, replay_window, .. } = &t.encap else { continue };
            let kind = SaKind { cipher: *cipher, esn: *esn, replay_window: *replay_window };
            let entry = match old.remove(&t.name) {
                Some(e) if e.encap == t.encap && e.local == t.local => Entry { no, ..e },
                // Only the keys differ: they are installed as by a control call.
                Some(e) if e.local == t.local && same_but_keys(&e.encap, &t.encap) && e.set.is_some() => {
                    let before = e.encap.clone();
                    let mut e = Entry { no, encap: t.encap.clone(), ..e };
                    if let Err(error) = self.replace_manual_keys(&t.name, &before, &mut e, now) {
                        tracing::error!(tunnel = t.name, %error, "the tunnel keeps the keys it has");
                    }
                    e
                }
                _ => {
                    let keys = manual.as_ref().map_or(0, fingerprint_of);
                    let set = manual.as_ref().and_then(|k| {
                        let made = self.manual(&t.name, kind, k, now);
                        made.inspect_err(|error| tracing::error!(tunnel = t.name, %error, "no keys")).ok()
                    });
                    Entry {
                        no,
                        local: t.local,
                        encap: t.encap.clone(),
                        set,
                        agreed: None,
                        peer: None,
                        keys,
                        reserved: (0, 0),
                        reported_over_limit: 0,
                    }
                }
            };
            self.by_name.insert(t.name.clone(), entry);
        }
        self.reserve_numbers();
        self.publish();
    }

    /// Takes the keys of the configuration while packets are in transit. A direction whose keys are the same goes on
    /// with its numbers.
    fn replace_manual_keys(
        &self,
        name: &str,
        before: &Encap,
        e: &mut Entry,
        now: u64,
    ) -> Result<(), KeyError> {
        let Encap::Esp { cipher, manual: Some(k), esn, replay_window, .. } = &e.encap else { return Ok(()) };
        let kind = SaKind { cipher: *cipher, esn: *esn, replay_window: *replay_window };
        let new = self.manual(name, kind, k, now)?;
        let (Some(mut i), Some(set)) = (new.inbound().next_back().cloned(), &mut e.set) else {
            return Ok(());
        };
        let mut o = new.outbound().clone();
        if let Encap::Esp { manual: Some(old), .. } = before
            && e.keys == fingerprint_of(old)
        {
            let newest =
                set.inbound().next_back().filter(|_| (old.spi_in, &old.key_in) == (k.spi_in, &k.key_in));
            i = newest.cloned().unwrap_or(i);
            if (old.spi_out, &old.key_out) == (k.spi_out, &k.key_out) {
                o = set.newest_outbound().clone();
            }
        }
        if let Err(refused) = set.install(i.clone(), o.clone(), Switchover::PeerOr(now + CONFIG_WAIT), now) {
            tracing::warn!(
                tunnel = name, why = %refused,
                "the tunnel takes the keys of the configuration at once: packets in transit by the old ones may be lost"
            );
            *set = SaSet::new(i, o, now);
        }
        e.keys = fingerprint_of(k);
        Ok(())
    }

    fn manual(&self, name: &str, kind: SaKind, k: &config::ManualKeys, now: u64) -> Result<SaSet, KeyError> {
        let (first, top) = self.saved.resume(name, fingerprint_of(k), k.spi_in, k.spi_out);
        let (i, o) = pair(
            kind,
            &KeyMaterial { spi: k.spi_in, bytes: k.key_in.expose() },
            &KeyMaterial { spi: k.spi_out, bytes: k.key_out.expose() },
            (first, top),
        )?;
        Ok(SaSet::new(i, o, now))
    }

    /// Installs a pair of associations while packets are in transit.
    pub fn install(
        &mut self,
        name: &str,
        inbound: &KeyMaterial<'_>,
        outbound: &KeyMaterial<'_>,
        switch: Switchover,
    ) -> Result<(), InstallError> {
        self.install_by(SaSet::install, name, inbound, outbound, switch)
    }

    fn install_by(
        &mut self,
        install: Install,
        name: &str,
        inbound: &KeyMaterial<'_>,
        outbound: &KeyMaterial<'_>,
        switch: Switchover,
    ) -> Result<(), InstallError> {
        self.check_spi(name, inbound.spi)?;
        if let Some(low) = [inbound.spi, outbound.spi].into_iter().find(|s| *s < 256) {
            return Err(InstallError::ReservedSpi(low));
        }
        let e = self.by_name.get_mut(name).ok_or_else(|| InstallError::NoTunnel(name.to_owned()))?;
        let Encap::Esp { cipher, esn, replay_window, manual, .. } = &e.encap else {
            return Err(InstallError::NoTunnel(name.to_owned()));
        };
        let kind = SaKind { cipher: *cipher, esn: manual.is_none() || *esn, replay_window: *replay_window };
        let (i, o) = pair(kind, inbound, outbound, (1, 0))?;
        let now = sys::now();
        match &mut e.set {
            Some(set) => install(set, i, o, switch, now)?,
            none => *none = Some(SaSet::new(i, o, now)),
        }
        e.keys = fingerprint(inbound.bytes, outbound.bytes);
        self.reserve_numbers();
        self.publish();
        Ok(())
    }

    fn check_spi(&self, name: &str, spi: u32) -> Result<(), InstallError> {
        let local = self.by_name.get(name).map(|e| e.local);
        let taken = self.by_name.iter().find(|(other, e)| {
            *other != name
                && Some(e.local) == local
                && e.set.as_ref().is_some_and(|s| s.inbound().any(|sa| sa.spi() == spi))
        });
        match taken {
            Some((other, _)) => Err(InstallError::SpiTaken { spi, other: other.clone() }),
            None => Ok(()),
        }
    }

    /// Switches to new keys where that is due, and reserves sequence numbers. To be called regularly.
    pub fn poll(&mut self) {
        let now = sys::now();
        let mut changed = false;
        let limit = self.lifetime.bytes;
        for (name, e) in &mut self.by_name {
            if let Some(set) = &mut e.set {
                let (spi, bytes) = (set.outbound().spi(), set.outbound().bytes());
                if e.agreed.is_some() && bytes > limit && e.reported_over_limit != spi {
                    e.reported_over_limit = spi;
                    tracing::warn!(
                        tunnel = name,
                        bytes,
                        limit,
                        waits = set.is_waiting(),
                        "more bytes by one key than rekey_bytes: the controller carries new keys too slowly"
                    );
                }
                let before = set.outbound().spi();
                changed |= set.poll(now);
                let after = set.outbound().spi();
                if before != after {
                    tracing::info!(
                        tunnel = name,
                        spi_out = format_args!("{after:#x}"),
                        "the tunnel sends by its new keys"
                    );
                }
            }
        }
        let low = self.by_name.values().any(|e| {
            e.set.as_ref().is_some_and(|s| s.outbound().next_sequence() + SEQUENCE_RESERVE / 2 > e.reserved.1)
        });
        if changed
            && self.current_key_use().1
            && let Some(ring) = &mut self.ring
        {
            ring.forget_previous();
        }
        if changed || low || self.saved.is_old(now) {
            self.reserve_numbers();
        }
        if changed {
            self.publish();
        }
    }

    /// Lets the workers see the associations as they are now.
    fn publish(&self) {
        let mut sas = EspSas::default();
        for e in self.by_name.values() {
            let Some(set) = &e.set else { continue };
            sas.send_by(e.no, set.outbound().clone());
            set.inbound().for_each(|sa| sas.receive_by(e.no, sa.clone()));
        }
        self.associations.store(sas);
    }

    /// Reserves sequence numbers on disk before they are used.
    fn reserve_numbers(&mut self) {
        let current = self.by_name.iter_mut().filter_map(|(name, e)| {
            let set = e.set.as_ref()?;
            let (saved, reserved) = saved_numbers::of(set, e.keys)?;
            e.reserved = reserved;
            Some((name.clone(), saved))
        });
        let current = current.collect();
        self.saved.write(current, sys::now());
    }

    /// Opens a packet by the association of this number.
    #[cfg(test)]
    pub fn opens(&self, packet: &mut [u8], spi: u32) -> bool {
        let mut all = self.by_name.values().filter_map(|e| e.set.as_ref()).flat_map(|s| s.inbound());
        all.find(|sa| sa.spi() == spi).is_some_and(|sa| sa.open(packet).is_ok())
    }

    /// Facts about a tunnel's associations.
    pub fn facts(&self, name: &str) -> Option<Facts> {
        let set = self.by_name.get(name)?.set.as_ref()?;
        let (age_in, age_out) = set.ages(sys::now());
        Some(Facts {
            cipher: set.outbound().cipher().name(),
            spi_in: set.inbound().map(|sa| sa.spi()).collect(),
            spi_out: set.outbound().spi(),
            age_in: age_in / 1_000_000_000,
            age_out: age_out / 1_000_000_000,
            sequence: set.outbound().next_sequence(),
            bytes: set.outbound().bytes(),
            waits: set.is_waiting(),
        })
    }
}

/// Whether a configuration has tunnels with keys.
pub fn has_keys(config: &Config) -> bool {
    config.tunnels.iter().any(|t| matches!(t.encap, Encap::Esp { .. }))
}

fn unix() -> std::time::Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn fingerprint(inbound: &[u8], outbound: &[u8]) -> u64 {
    keys::fingerprint(inbound) ^ keys::fingerprint(outbound).rotate_left(1)
}

fn fingerprint_of(k: &config::ManualKeys) -> u64 {
    fingerprint(k.key_in.expose(), k.key_out.expose())
}

/// What the associations of a tunnel have in common, whatever their keys.
#[derive(Debug, Clone, Copy)]
struct SaKind {
    cipher: EspCipher,
    /// Extended sequence numbers.
    esn: bool,
    /// In sequence numbers.
    replay_window: u32,
}

type Associations = (Arc<Inbound>, Arc<Outbound>);

/// `first`: sequence number to begin with; `top`: the highest received.
fn pair(
    kind: SaKind,
    inbound: &KeyMaterial<'_>,
    outbound: &KeyMaterial<'_>,
    (first, top): (u64, u64),
) -> Result<Associations, KeyError> {
    let suite = |k: &KeyMaterial<'_>| {
        let of = match kind.cipher {
            EspCipher::ChaCha20Poly1305 => Cipher::ChaCha20Poly1305,
            EspCipher::AesGcm if k.bytes.len() == Cipher::Aes128Gcm.keymat_len() => Cipher::Aes128Gcm,
            EspCipher::AesGcm => Cipher::Aes256Gcm,
        };
        Suite::new(of, k.bytes)
    };
    let i = Inbound::new(inbound.spi, suite(inbound)?, kind.esn, kind.replay_window, top);
    let o = Outbound::new(outbound.spi, suite(outbound)?, kind.esn, first, unix().as_nanos() as u64);
    Ok((Arc::new(i), Arc::new(o)))
}
