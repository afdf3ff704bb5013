//! Keys of ESP tunnels: from the configuration, from control calls, by agreement; and the sequence numbers, which must
//! not start again after a restart.

mod agreement;
mod ledger_file;
mod numbers;
#[cfg(test)]
mod tests;
mod words;

use numbers::Numbers;
use sag_compile::{EspPlan, same_but_keys};
use sag_model::config::{self, Encap, EspCipher};
use sag_pipeline::tunnel::{EspSaTable, EspSas, TunnelNo};
use sag_tunnel::esp::{
    Cipher, Inbound, InstallError as SaInstallError, KeyError, Outbound, SaId, SaSet, Suite, Switchover,
    Withheld,
};
use sag_tunnel::keys::{self, AgreeError, Announcement, KeyRing, Lifetime};
use sag_xsk::sys;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

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
    #[error("tunnel {0:?} sends nothing under this key: {1}")]
    Withheld(String, Withheld),
    #[error("the key is in use already: two senders under one key, or one that begins anew, repeat nonces")]
    KeyInUse,
    #[error(
        "the keys of this public key of {0:?} were in use before and were replaced: their numbers would begin anew"
    )]
    Superseded(String),
    #[error("tunnel {0:?} has the same peer and link: both would have the same keys")]
    SameLink(String),
    #[error("{0} pairs of keys were agreed by one key of this gateway")]
    TooManyKeys(usize),
    #[error("nothing is against the keys of tunnel {0:?}")]
    NothingWithheld(String),
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
    /// Why nothing is sent, nor received, under its static keys.
    withheld: Option<Withheld>,
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
    /// Fingerprints of the keys that were derived by the gateway's present key: each is installed once.
    derived: HashSet<u64>,
    lifetime: Lifetime,
    numbers: Numbers,
}

/// Whose keys a pair has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Somebody's who may give them again after a restart.
    Static,
    /// Derived, and forgotten with the process.
    Agreed,
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
    /// Why nothing is sent, with a remedy.
    pub withheld: Option<String>,
}

impl EspKeys {
    /// Goes on with the numbers that an earlier daemon has written to `dir`, and to the file `words` in shared memory.
    pub fn load_numbers(&mut self, dir: &Path, words: Option<&Path>) {
        self.numbers = Numbers::load(dir, words);
    }

    /// Writes the exact numbers: the daemon ends, and no worker runs any more.
    pub fn finish(&mut self) {
        self.numbers.finish();
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
                    let made = manual.as_ref().and_then(|k| {
                        let made = self.manual(&t.name, kind, k, now);
                        made.inspect_err(|error| tracing::error!(tunnel = t.name, %error, "no keys")).ok()
                    });
                    let (set, withheld) = made.map_or((None, None), |(set, withheld)| (Some(set), withheld));
                    Entry {
                        no,
                        local: t.local,
                        encap: t.encap.clone(),
                        set,
                        agreed: None,
                        peer: None,
                        keys,
                        withheld,
                        reported_over_limit: 0,
                    }
                }
            };
            self.by_name.insert(t.name.clone(), entry);
        }
        self.numbers.started();
        self.numbers.commit();
        self.publish();
    }

    /// Takes the keys of the configuration while packets are in transit. A direction whose keys are the same goes on
    /// with its numbers.
    fn replace_manual_keys(
        &mut self,
        name: &str,
        before: &Encap,
        e: &mut Entry,
        now: u64,
    ) -> Result<(), KeyError> {
        let Encap::Esp { cipher, manual: Some(k), esn, replay_window, .. } = &e.encap else { return Ok(()) };
        let kind = SaKind { cipher: *cipher, esn: *esn, replay_window: *replay_window };
        // A direction that stays as it is takes no new numbers.
        let (mut same_in, mut same_out) = (None, None);
        if let Encap::Esp { manual: Some(old), .. } = before
            && e.keys == fingerprint_of(old)
            && let Some(set) = &e.set
        {
            let newest = set.inbound().next_back();
            same_in = newest.filter(|_| (old.spi_in, &old.key_in) == (k.spi_in, &k.key_in)).cloned();
            let sends = (old.spi_out, &old.key_out) == (k.spi_out, &k.key_out);
            same_out = sends.then(|| set.newest_outbound().clone());
        }
        let (receives, sends) = materials(k);
        let i = match same_in {
            Some(i) => i,
            None => self.inbound(Source::Static, kind, &receives)?,
        };
        let (o, withheld) = match same_out {
            Some(o) => (o, e.withheld),
            None => self.outbound(Source::Static, name, kind, &sends)?,
        };
        let before = std::mem::replace(&mut e.withheld, withheld);
        e.keys = fingerprint_of(k);
        let Some(set) = &mut e.set else { return Ok(()) };
        if before.is_some() {
            // Nothing is sent by the old ones, so there is nothing to wait for.
            *set = SaSet::new(i, o, now);
            return Ok(());
        }
        if let Err(refused) = set.install(i.clone(), o.clone(), Switchover::PeerOr(now + CONFIG_WAIT), now) {
            tracing::warn!(
                tunnel = name, why = %refused,
                "the tunnel takes the keys of the configuration at once: packets in transit by the old ones may be lost"
            );
            *set = SaSet::new(i, o, now);
        }
        Ok(())
    }

    /// The associations of the configuration's keys, and why nothing may be sent by them.
    fn manual(
        &mut self,
        name: &str,
        kind: SaKind,
        k: &config::ManualKeys,
        now: u64,
    ) -> Result<(SaSet, Option<Withheld>), KeyError> {
        let (receives, sends) = materials(k);
        self.numbers.adopt(
            name,
            fingerprint_of(k),
            (SaId::of(receives.bytes, receives.spi), receives.spi),
            (SaId::of(sends.bytes, sends.spi), sends.spi),
        );
        let i = self.inbound(Source::Static, kind, &receives)?;
        let (o, withheld) = self.outbound(Source::Static, name, kind, &sends)?;
        Ok((SaSet::new(i, o, now), withheld))
    }

    /// An inbound association, which goes on where the last one of its key and SPI was.
    fn inbound(
        &mut self,
        source: Source,
        kind: SaKind,
        k: &KeyMaterial<'_>,
    ) -> Result<Arc<Inbound>, KeyError> {
        let suite = suite(kind, k)?;
        if source == Source::Agreed {
            return Ok(Arc::new(Inbound::new(k.spi, suite, kind.esn, kind.replay_window, 0)));
        }
        let id = SaId::of(k.bytes, k.spi);
        let top = self.numbers.received(id);
        let mut sa = Inbound::new(k.spi, suite, kind.esn, kind.replay_window, top);
        if let Some(mirror) = self.numbers.mirror(id, top) {
            sa = sa.mirrored(mirror);
        }
        let sa = Arc::new(sa);
        self.numbers.track_receiving(sa.clone(), id);
        Ok(sa)
    }

    /// An outbound association with numbers that its key has not had. One that is withheld gets none.
    fn outbound(
        &mut self,
        source: Source,
        tunnel: &str,
        kind: SaKind,
        k: &KeyMaterial<'_>,
    ) -> Result<(Arc<Outbound>, Option<Withheld>), KeyError> {
        let suite = suite(kind, k)?;
        if source == Source::Agreed {
            // The key is new, and so is every number under it.
            let iv = keys::random().unwrap_or(1);
            return Ok((Arc::new(Outbound::new(k.spi, suite, kind.esn, 1, iv)), None));
        }
        match self.numbers.send(SaId::of(k.bytes, k.spi), kind.esn) {
            Ok(lease) => {
                let sa = Arc::new(Outbound::unreserved(k.spi, suite, kind.esn, lease.first, lease.iv));
                self.numbers.track_sending(sa.clone(), lease);
                Ok((sa, None))
            }
            Err(why) => {
                let record = self.numbers.trouble().unwrap_or_default();
                tracing::error!(event = "esp-withheld", tunnel, %why, record, "the tunnel sends nothing under its key");
                Ok((Arc::new(Outbound::unreserved(k.spi, suite, kind.esn, 1, 0)), Some(why)))
            }
        }
    }

    /// An operator answers for the keys of a tunnel whose numbers are lost.
    pub fn confirm(&mut self, name: &str) -> Result<(), InstallError> {
        let e = self.by_name.get(name).ok_or_else(|| InstallError::NoTunnel(name.to_owned()))?;
        let Encap::Esp { cipher, manual: Some(k), esn, replay_window, .. } = e.encap.clone() else {
            return Err(InstallError::NothingWithheld(name.to_owned()));
        };
        match e.withheld {
            None => return Err(InstallError::NothingWithheld(name.to_owned())),
            Some(Withheld::Lost) => {}
            Some(why) => return Err(InstallError::Withheld(name.to_owned(), why)),
        }
        self.numbers.confirm(SaId::of(k.key_out.expose(), k.spi_out).key);
        let (set, withheld) = self.manual(name, SaKind { cipher, esn, replay_window }, &k, sys::now())?;
        if let Some(e) = self.by_name.get_mut(name) {
            (e.set, e.withheld) = (Some(set), withheld);
        }
        self.numbers.commit();
        self.publish();
        Ok(())
    }

    /// Installs a pair of associations while packets are in transit.
    pub fn install(
        &mut self,
        name: &str,
        inbound: &KeyMaterial<'_>,
        outbound: &KeyMaterial<'_>,
        switch: Switchover,
    ) -> Result<(), InstallError> {
        self.install_by((SaSet::install, Source::Static), name, inbound, outbound, switch)
    }

    fn install_by(
        &mut self,
        (install, source): (Install, Source),
        name: &str,
        inbound: &KeyMaterial<'_>,
        outbound: &KeyMaterial<'_>,
        switch: Switchover,
    ) -> Result<(), InstallError> {
        self.check_spi(name, inbound.spi)?;
        if let Some(low) = [inbound.spi, outbound.spi].into_iter().find(|s| *s < 256) {
            return Err(InstallError::ReservedSpi(low));
        }
        let e = self.by_name.get(name).ok_or_else(|| InstallError::NoTunnel(name.to_owned()))?;
        let Encap::Esp { cipher, esn, replay_window, manual, .. } = &e.encap else {
            return Err(InstallError::NoTunnel(name.to_owned()));
        };
        let kind = SaKind { cipher: *cipher, esn: manual.is_none() || *esn, replay_window: *replay_window };
        let keys = [inbound, outbound].map(|k| SaId::of(k.bytes, k.spi).key);
        if source == Source::Static
            && (keys[0] == keys[1] || keys.into_iter().any(|key| self.numbers.in_use(key)))
        {
            return Err(InstallError::KeyInUse);
        }
        // Both keys are looked at before either is given numbers.
        suite(kind, inbound)?;
        let (o, withheld) = self.outbound(source, name, kind, outbound)?;
        if let Some(why) = withheld {
            return Err(InstallError::Withheld(name.to_owned(), why));
        }
        let i = self.inbound(source, kind, inbound)?;
        let now = sys::now();
        if let Some(e) = self.by_name.get_mut(name) {
            match &mut e.set {
                // There is nothing to wait for where nothing is sent.
                Some(set) if e.withheld.is_some() => *set = SaSet::new(i, o, now),
                Some(set) => install(set, i, o, switch, now)?,
                none => *none = Some(SaSet::new(i, o, now)),
            }
            e.keys = fingerprint(inbound.bytes, outbound.bytes);
            e.withheld = None;
        }
        self.numbers.commit();
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
        if changed
            && self.current_key_use().1
            && let Some(ring) = &mut self.ring
        {
            ring.forget_previous();
        }
        if changed {
            self.publish();
        }
        self.numbers.poll(now);
    }

    /// Lets the workers see the associations as they are now.
    fn publish(&self) {
        let mut sas = EspSas::default();
        for e in self.by_name.values() {
            let Some(set) = &e.set else { continue };
            sas.send_by(e.no, set.outbound().clone());
            if e.withheld.is_some() {
                // What was received before is not known either.
                continue;
            }
            set.inbound().for_each(|sa| sas.receive_by(e.no, sa.clone()));
        }
        self.associations.store(sas);
    }

    /// Opens a packet by the association of this number.
    #[cfg(test)]
    pub fn opens(&self, packet: &mut [u8], spi: u32) -> bool {
        let mut all = self.by_name.values().filter_map(|e| e.set.as_ref()).flat_map(|s| s.inbound());
        all.find(|sa| sa.spi() == spi).is_some_and(|sa| sa.open(packet).is_ok())
    }

    /// Facts about a tunnel's associations.
    pub fn facts(&self, name: &str) -> Option<Facts> {
        let e = self.by_name.get(name)?;
        let set = e.set.as_ref()?;
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
            withheld: self.why_withheld(name, e, set.outbound()),
        })
    }

    /// Why a tunnel sends nothing, and what to do.
    fn why_withheld(&self, name: &str, e: &Entry, sa: &Outbound) -> Option<String> {
        let text = match e.withheld {
            Some(Withheld::Lost) => {
                let record = self.numbers.trouble().map_or(String::new(), |t| format!(" ({t})"));
                format!(
                    "{}{record}: give both ends new keys (sagctl tunnels rekey {name}, then the file), or, if \
                     nothing was ever sent under this one, sagctl tunnels confirm {name}",
                    Withheld::Lost
                )
            }
            Some(why) => {
                format!("{why}: give both ends new keys (sagctl tunnels rekey {name}, then the file)")
            }
            None if sa.next_sequence() < sa.reserved() => return None,
            None => match self.numbers.failure() {
                Some(error) => format!("{error}: make it writable; sending goes on by itself"),
                None => return None,
            },
        };
        Some(text)
    }
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

/// The material of a configuration's keys: for what is received, and for what is sent.
fn materials(k: &config::ManualKeys) -> (KeyMaterial<'_>, KeyMaterial<'_>) {
    (
        KeyMaterial { spi: k.spi_in, bytes: k.key_in.expose() },
        KeyMaterial { spi: k.spi_out, bytes: k.key_out.expose() },
    )
}

fn suite(kind: SaKind, k: &KeyMaterial<'_>) -> Result<Suite, KeyError> {
    let of = match kind.cipher {
        EspCipher::ChaCha20Poly1305 => Cipher::ChaCha20Poly1305,
        EspCipher::AesGcm if k.bytes.len() == Cipher::Aes128Gcm.keymat_len() => Cipher::Aes128Gcm,
        EspCipher::AesGcm => Cipher::Aes256Gcm,
    };
    Suite::new(of, k.bytes)
}
