//! Keys by agreement (`docs/tunnels-keys.md`).

use super::{Entry, EspKeys, InstallError, KeyMaterial, Source};
use sag_model::config::{Encap, EspCipher};
use sag_tunnel::esp::{Cipher, SaSet};
use sag_tunnel::keys::{self, Announcement, KeyRing, Lifetime, SaPair};
use sag_xsk::sys;

/// Pairs of keys that are derived by one key of the gateway at the most. With a new one the count begins anew.
pub(super) const MAX_DERIVED: usize = 4096;

impl EspKeys {
    /// Sets how long a key that peers agree by is in use.
    pub(super) fn set_lifetime(&mut self, lifetime: Lifetime) {
        self.lifetime = lifetime;
        if let Some(ring) = &mut self.ring {
            ring.set_lifetime(lifetime);
        }
    }

    /// The gateway's public key. A new one is made if there is none, if it is too old or of another gateway name, and if `renew`
    /// is set.
    pub fn announce(&mut self, gateway: &str, renew: bool) -> Result<Announcement, InstallError> {
        self.announce_with(gateway, renew, None)
    }

    /// The same; a new key gets the given epoch instead of the next one.
    pub fn announce_with(
        &mut self,
        gateway: &str,
        renew: bool,
        epoch: Option<u64>,
    ) -> Result<Announcement, InstallError> {
        let now = sys::now();
        let (most, all_current) = self.current_key_use();
        match &mut self.ring {
            Some(ring) if ring.announcement().gateway == gateway => {
                if !(renew || ring.rotation_due(most, all_current, now)) {
                    return Ok(ring.announcement().clone());
                }
                let new = match epoch {
                    Some(epoch) => ring.rotate_to(epoch, now)?.clone(),
                    None => ring.rotate(now)?.clone(),
                };
                self.derived.clear();
                self.numbers.note_epoch(new.epoch);
                tracing::info!(epoch = new.epoch, bytes = most, "a new key for the tunnels with agreed keys");
                self.renegotiate();
                Ok(new)
            }
            ring => {
                // A peer, or the controller, may refuse an epoch that is not later than the last one it knows.
                let epoch = match epoch {
                    Some(epoch) => {
                        self.numbers.note_epoch(epoch);
                        epoch
                    }
                    None => self.numbers.next_epoch(),
                };
                let new = KeyRing::new(gateway, epoch, self.lifetime, now)?;
                self.derived.clear();
                Ok(ring.insert(new).announcement().clone())
            }
        }
    }

    /// Installs the associations of a new key of ours before the peers know it, because they send by them at once.
    fn renegotiate(&mut self) {
        let peers = self.by_name.iter().filter_map(|(name, e)| Some((name.clone(), e.peer.clone()?)));
        for (tunnel, (peer, link)) in peers.collect::<Vec<_>>() {
            if let Err(error) = self.accept_peer_key(&tunnel, &peer, &link) {
                tracing::warn!(tunnel, peer = peer.gateway, %error, "no keys agreed");
            }
        }
    }

    /// The most bytes that were sent by an association of the current key, and whether all tunnels send by such.
    pub(super) fn current_key_use(&self) -> (u64, bool) {
        let epoch = self.ring.as_ref().map(|r| r.announcement().epoch);
        let (mut most, mut all_current) = (0, true);
        for e in self.by_name.values() {
            let (Some((own, _)), Some(set)) = (e.agreed, &e.set) else { continue };
            let is_current = Some(own) == epoch && !set.is_waiting();
            all_current &= is_current;
            if is_current {
                most = most.max(set.outbound().bytes());
            }
        }
        (most, all_current)
    }

    /// Takes a peer's public key for one tunnel. False: this pair is installed already.
    pub fn accept_peer_key(
        &mut self,
        tunnel: &str,
        peer: &Announcement,
        link: &str,
    ) -> Result<bool, InstallError> {
        let e = self.by_name.get(tunnel).ok_or_else(|| InstallError::NoTunnel(tunnel.to_owned()))?;
        let Encap::Esp { cipher, .. } = e.encap else {
            return Err(InstallError::NoTunnel(tunnel.to_owned()));
        };
        let ring = self.ring.as_ref().ok_or(InstallError::NoRing)?;
        let pair: SaPair = ring.agree(peer, agreed_cipher(cipher), link)?;
        let new = (pair.own_epoch, pair.peer_epoch);
        // Not by epochs alone: a peer whose clock stands still has the same one after each start.
        let same = e.peer.as_ref().is_some_and(|(p, l)| (p, l.as_str()) == (peer, link));
        if same && e.agreed == Some(new) {
            return Ok(false);
        }
        let derived = keys::fingerprint(pair.outbound.keymat());
        if self.derived.contains(&derived) {
            let of = |e: &Entry| e.peer.as_ref().is_some_and(|(p, l)| (p, l.as_str()) == (peer, link));
            if let Some((other, _)) = self.by_name.iter().find(|(name, e)| *name != tunnel && of(e)) {
                return Err(InstallError::SameLink(other.clone()));
            }
            let announcement = ring.announcement().clone();
            if e.set.is_some() {
                // What the peer has replaced since.
                return Err(InstallError::Superseded(peer.gateway.clone()));
            }
            // The tunnel has lost its associations by a reload, and the peer has not: by a new key both begin anew.
            self.announce(&announcement.gateway, true)?;
            return match self.ring.as_ref().map(|r| r.announcement().epoch) {
                Some(epoch) if epoch != announcement.epoch => self.accept_peer_key(tunnel, peer, link),
                _ => Err(InstallError::Superseded(peer.gateway.clone())),
            };
        }
        if self.derived.len() >= MAX_DERIVED {
            return Err(InstallError::TooManyKeys(MAX_DERIVED));
        }
        // The peer has sent by the pair before, so it has the key of ours that was part of it.
        let used = |s: &SaSet| s.inbound().next_back().is_some_and(|sa| sa.used());
        let proven = e.agreed.filter(|_| e.set.as_ref().is_some_and(used)).map(|(own, _)| own);
        let heard = e.set.as_ref().is_some_and(|s| s.inbound().any(|sa| sa.used()));
        let switch = keys::switchover(&pair, proven, e.agreed.map(|(_, peer)| peer), heard, sys::now());
        let key = |d: &keys::DerivedSa| (d.spi, d.keymat().to_vec());
        let ((si, ki), (so, ko)) = (key(&pair.inbound), key(&pair.outbound));
        let (ki, ko) = (zeroize::Zeroizing::new(ki), zeroize::Zeroizing::new(ko));
        let (i, o) = (KeyMaterial { spi: si, bytes: &ki }, KeyMaterial { spi: so, bytes: &ko });
        self.install_by((SaSet::supersede, Source::Agreed), tunnel, &i, &o, switch)?;
        self.derived.insert(derived);
        if let Some(e) = self.by_name.get_mut(tunnel) {
            e.agreed = Some(new);
            e.peer = Some((peer.clone(), link.to_owned()));
        }
        Ok(true)
    }
}

const fn agreed_cipher(c: EspCipher) -> Cipher {
    match c {
        EspCipher::AesGcm => Cipher::Aes256Gcm,
        EspCipher::ChaCha20Poly1305 => Cipher::ChaCha20Poly1305,
    }
}
