//! Keys of ESP tunnels: from the file, from control calls, by agreement; and the numbers that must
//! go on over a restart.

mod agreed;

use sag_model::config::{self, Config, Encap, EspCipher};
use sag_pipeline::tunnel::{EspSaTable, EspSas, TunnelNo};
use sag_tunnel::esp::{
    Cipher, Inbound, InstallError as SaInstallError, KeyError, Outbound, SaSet, Suite, Switchover,
};
use sag_tunnel::keys::{self, AgreeError, Announcement, KeyRing, Lifetime};
use sag_xsk::sys;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Sequence numbers that are set aside at a time: a daemon that is killed loses no more than these.
const AHEAD: u64 = 1 << 24;
/// How long a gateway whose file has new keys waits for its peer to send by them, in nanoseconds.
const FILE_WAIT: u64 = 10_000_000_000;

/// One direction's key material, from wherever.
pub struct Keymat<'a> {
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
    #[error("this gateway has no key pair yet: ask for its public key first")]
    NoRing,
}

#[derive(Debug)]
struct Entry {
    no: TunnelNo,
    local: std::net::IpAddr,
    was: Encap,
    /// `None`: the keys have not been agreed yet.
    set: Option<SaSet>,
    /// The pair in use by agreement: own and peer's epoch.
    agreed: Option<(u64, u64)>,
    /// The last that was heard of the peer, and the link's name.
    peer: Option<(Announcement, String)>,
    /// Fingerprint of the newest keys.
    keys: u64,
    /// Numbers below it are set aside on disk, by outbound SPI.
    reserved: (u32, u64),
    /// Outbound association of which the log says that it is over the limit of bytes.
    over: u32,
}

/// What is kept of an association on disk.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
struct Kept {
    spi_out: u32,
    /// The first number that was never sent.
    next: u64,
    spi_in: u32,
    /// The highest number received.
    top: u64,
    /// Of both keys: with others the numbers mean nothing.
    keys: u64,
}

/// All keys, and the book that workers read.
#[derive(Debug, Default)]
pub struct EspKeeper {
    pub book: Arc<EspSaTable>,
    by_name: BTreeMap<String, Entry>,
    ring: Option<KeyRing>,
    lifetime: Lifetime,
    file: Option<PathBuf>,
    kept: HashMap<String, Kept>,
    written: u64,
}

/// How a pair comes into a set.
type Install = fn(&mut SaSet, Arc<Inbound>, Arc<Outbound>, Switchover, u64) -> Result<(), SaInstallError>;

/// An association's facts for people.
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

impl EspKeeper {
    /// Goes on with the numbers that `dir` tells.
    pub fn begin(&mut self, dir: &Path) {
        let file = dir.join("esp-sequence.json");
        match std::fs::read(&file) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(kept) => self.kept = kept,
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "not readable: sequence numbers of ESP begin anew, and peers may take them for replays")
                }
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(file = %file.display(), %error, "cannot read it"),
        }
        self.file = Some(file);
    }

    /// The tunnels of a configuration, with their numbers.
    pub fn configure<'c>(&mut self, tunnels: impl Iterator<Item = (TunnelNo, &'c config::Tunnel)>) {
        let now = sys::now();
        let mut old = std::mem::take(&mut self.by_name);
        for (no, t) in tunnels {
            let Encap::Esp { manual, .. } = &t.encap else { continue };
            let entry = match old.remove(&t.name) {
                Some(e) if e.was == t.encap && e.local == t.local => Entry { no, ..e },
                // Only the keys are others: as by a control call.
                Some(e) if e.local == t.local && same_but_keys(&e.was, &t.encap) && e.set.is_some() => {
                    let was = e.was.clone();
                    let mut e = Entry { no, was: t.encap.clone(), ..e };
                    if let Err(error) = self.follow(&t.name, &was, &mut e, now) {
                        tracing::error!(tunnel = t.name, %error, "the tunnel keeps the keys it has");
                    }
                    e
                }
                _ => {
                    let keys = manual.as_ref().map_or(0, of_file);
                    let set = manual.as_ref().and_then(|k| {
                        let made = self.manual(&t.name, &t.encap, k, now);
                        made.inspect_err(|error| tracing::error!(tunnel = t.name, %error, "no keys")).ok()
                    });
                    Entry {
                        no,
                        local: t.local,
                        was: t.encap.clone(),
                        set,
                        agreed: None,
                        peer: None,
                        keys,
                        reserved: (0, 0),
                        over: 0,
                    }
                }
            };
            self.by_name.insert(t.name.clone(), entry);
        }
        self.reserve();
        self.publish();
    }

    /// Takes the keys of the file while packets are under way. A direction whose keys are the same goes on
    /// with its numbers.
    fn follow(&self, name: &str, was: &Encap, e: &mut Entry, now: u64) -> Result<(), KeyError> {
        let Encap::Esp { manual: Some(k), .. } = &e.was else { return Ok(()) };
        let new = self.manual(name, &e.was, k, now)?;
        let (Some(mut i), Some(set)) = (new.inbound().next_back().cloned(), &mut e.set) else {
            return Ok(());
        };
        let mut o = new.outbound().clone();
        if let Encap::Esp { manual: Some(old), .. } = was
            && e.keys == of_file(old)
        {
            let newest =
                set.inbound().next_back().filter(|_| (old.spi_in, &old.key_in) == (k.spi_in, &k.key_in));
            i = newest.cloned().unwrap_or(i);
            if (old.spi_out, &old.key_out) == (k.spi_out, &k.key_out) {
                o = set.newest_outbound().clone();
            }
        }
        if let Err(refused) = set.install(i.clone(), o.clone(), Switchover::PeerOr(now + FILE_WAIT), now) {
            tracing::warn!(
                tunnel = name, why = %refused,
                "the tunnel takes the keys of the file at once: packets on their way by the old ones may be lost"
            );
            *set = SaSet::new(i, o, now);
        }
        e.keys = of_file(k);
        Ok(())
    }

    fn manual(&self, name: &str, encap: &Encap, k: &config::ManualKeys, now: u64) -> Result<SaSet, KeyError> {
        let Encap::Esp { cipher, esn, replay_window, .. } = encap else { unreachable!("an ESP tunnel's") };
        let kept = self.kept.get(name).filter(|x| x.keys == of_file(k));
        let first = kept.filter(|x| x.spi_out == k.spi_out).map_or(1, |x| x.next);
        let top = kept.filter(|x| x.spi_in == k.spi_in).map_or(0, |x| x.top);
        let (i, o) = pair(
            *cipher,
            &Keymat { spi: k.spi_in, bytes: k.key_in.expose() },
            &Keymat { spi: k.spi_out, bytes: k.key_out.expose() },
            (*esn, *replay_window),
            (first, top),
        )?;
        Ok(SaSet::new(i, o, now))
    }

    /// Installs a pair while packets are under way.
    pub fn install(
        &mut self,
        name: &str,
        inbound: &Keymat<'_>,
        outbound: &Keymat<'_>,
        switch: Switchover,
    ) -> Result<(), InstallError> {
        self.install_by(SaSet::install, name, inbound, outbound, switch)
    }

    fn install_by(
        &mut self,
        install: Install,
        name: &str,
        inbound: &Keymat<'_>,
        outbound: &Keymat<'_>,
        switch: Switchover,
    ) -> Result<(), InstallError> {
        self.check_spi(name, inbound.spi)?;
        if let Some(low) = [inbound.spi, outbound.spi].into_iter().find(|s| *s < 256) {
            return Err(InstallError::ReservedSpi(low));
        }
        let e = self.by_name.get_mut(name).ok_or_else(|| InstallError::NoTunnel(name.to_owned()))?;
        let Encap::Esp { cipher, esn, replay_window, manual, .. } = &e.was else {
            return Err(InstallError::NoTunnel(name.to_owned()));
        };
        let esn = manual.is_none() || *esn;
        let (i, o) = pair(*cipher, inbound, outbound, (esn, *replay_window), (1, 0))?;
        let now = sys::now();
        match &mut e.set {
            Some(set) => install(set, i, o, switch, now)?,
            none => *none = Some(SaSet::new(i, o, now)),
        }
        e.keys = both(inbound.bytes, outbound.bytes);
        self.reserve();
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

    /// Moves on what is due, now and then.
    pub fn poll(&mut self) {
        let now = sys::now();
        let mut changed = false;
        let limit = self.lifetime.bytes;
        for (name, e) in &mut self.by_name {
            if let Some(set) = &mut e.set {
                let (spi, bytes) = (set.outbound().spi(), set.outbound().bytes());
                if e.agreed.is_some() && bytes > limit && e.over != spi {
                    e.over = spi;
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
        let low = self
            .by_name
            .values()
            .any(|e| e.set.as_ref().is_some_and(|s| s.outbound().next_sequence() + AHEAD / 2 > e.reserved.1));
        if changed
            && self.present().1
            && let Some(ring) = &mut self.ring
        {
            ring.forget_previous();
        }
        if changed || low || now.saturating_sub(self.written) > 10_000_000_000 {
            self.reserve();
        }
        if changed {
            self.publish();
        }
    }

    /// What the workers see from now on.
    fn publish(&self) {
        let mut sas = EspSas::default();
        for e in self.by_name.values() {
            let Some(set) = &e.set else { continue };
            sas.send_by(e.no, set.outbound().clone());
            set.inbound().for_each(|sa| sas.receive_by(e.no, sa.clone()));
        }
        self.book.store(sas);
    }

    /// Writes down how far numbers may go before it is written anew.
    fn reserve(&mut self) {
        let Some(file) = &self.file else { return };
        self.written = sys::now();
        let mut kept = HashMap::new();
        for (name, e) in &mut self.by_name {
            let Some(set) = &e.set else { continue };
            let (out, Some(inbound)) = (set.outbound(), set.inbound().next_back()) else { continue };
            let limit = if out.extended() { u64::MAX } else { u64::from(u32::MAX) };
            let next = out.next_sequence().saturating_add(AHEAD).min(limit);
            e.reserved = (out.spi(), next);
            let (spi_in, top) = (inbound.spi(), inbound.window().top());
            kept.insert(name.clone(), Kept { spi_out: out.spi(), next, spi_in, top, keys: e.keys });
        }
        if kept == self.kept {
            return;
        }
        let written = serde_json::to_vec(&kept).map_err(std::io::Error::from).and_then(|text| {
            if let Some(dir) = file.parent() {
                std::fs::create_dir_all(dir)?;
            }
            let new = file.with_extension("new");
            std::fs::write(&new, text)?;
            std::fs::rename(&new, file)
        });
        match written {
            Ok(()) => self.kept = kept,
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "cannot write it: after a restart peers may take ESP packets for replays")
            }
        }
    }

    /// Opens a packet by the association of this number.
    #[cfg(test)]
    pub fn opens(&self, packet: &mut [u8], spi: u32) -> bool {
        let mut all = self.by_name.values().filter_map(|e| e.set.as_ref()).flat_map(|s| s.inbound());
        all.find(|sa| sa.spi() == spi).is_some_and(|sa| sa.open(packet).is_ok())
    }

    /// What is known of a tunnel's associations.
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

/// Whether a configuration has keys in it.
pub fn has_keys(config: &Config) -> bool {
    config.tunnels.iter().any(|t| matches!(t.encap, Encap::Esp { .. }))
}

fn unix() -> std::time::Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn both(inbound: &[u8], outbound: &[u8]) -> u64 {
    keys::fingerprint(inbound) ^ keys::fingerprint(outbound).rotate_left(1)
}

fn of_file(k: &config::ManualKeys) -> u64 {
    both(k.key_in.expose(), k.key_out.expose())
}

/// Whether two are one but for manual keys.
pub(super) fn same_but_keys(a: &Encap, b: &Encap) -> bool {
    let keyless = |e: &Encap| match e {
        Encap::Esp { cipher, esn, replay_window, udp_port, manual: Some(_) } => {
            Some((*cipher, *esn, *replay_window, *udp_port))
        }
        _ => None,
    };
    keyless(a).is_some() && keyless(a) == keyless(b)
}

type Made = (Arc<Inbound>, Arc<Outbound>);

/// `first`: sequence number to begin with; `top`: the highest received.
fn pair(
    cipher: EspCipher,
    inbound: &Keymat<'_>,
    outbound: &Keymat<'_>,
    (esn, window): (bool, u32),
    (first, top): (u64, u64),
) -> Result<Made, KeyError> {
    let suite = |k: &Keymat<'_>| {
        let of = match cipher {
            EspCipher::ChaCha20Poly1305 => Cipher::ChaCha20Poly1305,
            EspCipher::AesGcm if k.bytes.len() == Cipher::Aes128Gcm.keymat_len() => Cipher::Aes128Gcm,
            EspCipher::AesGcm => Cipher::Aes256Gcm,
        };
        Suite::new(of, k.bytes)
    };
    let i = Inbound::new(inbound.spi, suite(inbound)?, esn, window, top);
    let o = Outbound::new(outbound.spi, suite(outbound)?, esn, first, unix().as_nanos() as u64);
    Ok((Arc::new(i), Arc::new(o)))
}
