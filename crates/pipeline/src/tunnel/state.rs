//! What is known of a tunnel at a moment: written by workers and the control thread, read by both.

use super::peer_mac::{PeerAddress, PeerMac};
use super::source::Source;
use sag_model::{MacAddr, Nanos};
use sag_tunnel::liveness::{self, Quality};
use sag_tunnel::{plpmtud, probe};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64};

/// Smallest path MTU that an ICMP error alone can make (RFC 8200 5). Less is a matter of probes, which cannot be forged, or
/// of the configuration.
const LEAST: u16 = 1280;

/// What a tunnel's monitor says; times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// Whether the peer answers.
    pub state: liveness::State,
    /// Round trip.
    pub rtt: Option<u64>,
    /// Mean deviation of the round trip.
    pub jitter: u64,
    /// Lost questions of a thousand.
    pub loss_permille: u32,
    /// What probing for the path's MTU has come to.
    pub path: plpmtud::State,
}

/// Lives as long as the tunnel, over all configurations.
#[derive(Debug)]
pub struct TunnelState {
    up: AtomicBool,
    /// MTU of the port by which outer packets leave; by the control thread.
    link_mtu: AtomicU16,
    /// Path MTU learned on the way, 0: none, and when.
    learned: AtomicU16,
    learned_at: AtomicU64,
    /// What an ICMP error says of the path, for probing; 0: nothing.
    hint: AtomicU16,
    /// The peer answers probes of the path's size.
    probes_sizes: AtomicBool,
    /// ICMP errors about outer packets that were not believed.
    refused_errors: AtomicU64,
    /// Ethernet address of the peer inside.
    peer: PeerAddress,
    /// Sequence number of GRE.
    pub sequence: AtomicU32,
    ident: AtomicU32,
    /// What probing says the path carries, 0: nothing.
    probed: AtomicU16,
    /// The peer's address and port as seen from here, where NAT lies between; nothing yet: as configured.
    source: Source,
    /// Order of the newest inbound association by which the peer has sent.
    sender: AtomicU64,
    /// The monitor's name for itself.
    instance: AtomicU32,
    question_seen: AtomicBool,
    /// Answers on their way to the monitor: sequence number and round trip in microseconds plus one.
    answers: [AtomicU64; ANSWERS],
    /// Those to questions about size.
    sizes: [AtomicU64; ANSWERS],
    /// What the monitor says: round trip, jitter, loss, states.
    quality: [AtomicU64; 4],
}

/// Answers that may wait for the monitor.
const ANSWERS: usize = 16;

impl Default for TunnelState {
    fn default() -> TunnelState {
        TunnelState {
            up: AtomicBool::new(true),
            link_mtu: AtomicU16::new(1500),
            learned: AtomicU16::new(0),
            learned_at: AtomicU64::new(0),
            hint: AtomicU16::new(0),
            probes_sizes: AtomicBool::new(false),
            refused_errors: AtomicU64::new(0),
            peer: PeerAddress::default(),
            sequence: AtomicU32::new(0),
            ident: AtomicU32::new(0),
            probed: AtomicU16::new(0),
            source: Source::default(),
            sender: AtomicU64::new(0),
            instance: AtomicU32::new(0),
            question_seen: AtomicBool::new(false),
            answers: Default::default(),
            sizes: Default::default(),
            quality: Default::default(),
        }
    }
}

impl TunnelState {
    /// Whether packets are sent through it.
    #[inline]
    pub fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// Takes it out of the routes, or back into them.
    pub fn set_up(&self, up: bool) {
        self.up.store(up, Relaxed);
    }

    /// IP bytes that the port of its outer packets carries.
    #[inline]
    pub fn link_mtu(&self) -> u16 {
        self.link_mtu.load(Relaxed)
    }

    /// Sets the value of [`TunnelState::link_mtu`].
    pub fn set_link_mtu(&self, mtu: u16) {
        self.link_mtu.store(mtu, Relaxed);
    }

    /// Bytes of an outer packet that the path carries, as far as is known.
    #[inline]
    pub fn path_mtu(&self) -> u16 {
        let link = match self.probed.load(Relaxed) {
            0 => self.link_mtu(),
            n => n.min(self.link_mtu()),
        };
        match self.learned.load(Relaxed) {
            0 => link,
            n => n.min(link),
        }
    }

    /// What was learned of the path, and when.
    pub fn learned(&self) -> Option<(u16, Nanos)> {
        match self.learned.load(Relaxed) {
            0 => None,
            n => Some((n, Nanos(self.learned_at.load(Relaxed)))),
        }
    }

    /// A router says what the path carries. True: that is news.
    pub fn learn(&self, mtu: u16, now: Nanos) -> bool {
        let mtu = mtu.max(LEAST);
        if mtu >= self.path_mtu() {
            return false;
        }
        self.learned.store(mtu, Relaxed);
        self.learned_at.store(now.0, Relaxed);
        true
    }

    /// The path is probed again (RFC 1191 6.3, RFC 8201 4).
    pub fn forget_path(&self) {
        self.learned.store(0, Relaxed);
    }

    /// The peer's Ethernet address inside, if it is known.
    #[inline]
    pub fn peer_mac(&self) -> Option<MacAddr> {
        self.peer.get()
    }

    /// A frame that may be the peer's came from this address.
    #[inline]
    pub fn see_peer(&self, mac: MacAddr, now: Nanos) -> PeerMac {
        self.peer.see(mac, now)
    }

    /// Whether the peer's address is to be asked for now, because another one claims to be the peer.
    pub fn may_ask_peer(&self, now: Nanos) -> bool {
        self.peer.may_ask(now)
    }

    /// The peer answers probes of the path's size, or does not.
    pub fn set_probes_sizes(&self, does: bool) {
        self.probes_sizes.store(does, Relaxed);
    }

    /// Whether the path's MTU is found by probes, so that ICMP errors are no more than hints.
    #[inline]
    pub fn probes_sizes(&self) -> bool {
        self.probes_sizes.load(Relaxed)
    }

    /// An ICMP error says that the path carries so much.
    pub fn set_hint(&self, mtu: u16) {
        self.hint.store(mtu, Relaxed);
    }

    /// The hint since the last call.
    pub(super) fn take_hint(&self) -> Option<u16> {
        match self.hint.load(Relaxed) {
            0 => None,
            _ => Some(self.hint.swap(0, Relaxed)).filter(|n| *n != 0),
        }
    }

    /// An ICMP error about an outer packet quotes none that was sent.
    pub fn refuse_error(&self) {
        self.refused_errors.fetch_add(1, Relaxed);
    }

    /// ICMP errors that were not believed.
    pub fn refused_errors(&self) -> u64 {
        self.refused_errors.load(Relaxed)
    }

    /// Probing says that the path carries so much.
    pub fn set_probed(&self, mtu: u16) {
        self.probed.store(mtu, Relaxed);
    }

    /// What probing has found.
    pub fn probed(&self) -> Option<u16> {
        Some(self.probed.load(Relaxed)).filter(|n| *n != 0)
    }

    /// Whether the peer has sent by no newer association than the one of this order
    /// ([`sag_tunnel::esp::Inbound::order`]), by which an authentic packet has come.
    #[inline]
    pub fn is_newest_sender(&self, order: u64) -> bool {
        let known = self.sender.load(Relaxed);
        order == known || (order > known && self.sender.fetch_max(order, Relaxed) <= order)
    }

    /// An authentic packet came from here. `is_newest`: whether there has been no newer one by now.
    #[inline]
    pub fn see_source(&self, from: SocketAddr, is_newest: impl FnOnce() -> bool) {
        self.source.store(from, is_newest);
    }

    /// Where the peer's packets come from.
    #[inline]
    pub fn source(&self) -> Option<SocketAddr> {
        self.source.load()
    }

    pub(super) fn set_instance(&self, instance: u32) {
        self.instance.store(instance, Relaxed);
    }

    /// The peer has sent a probe: it knows the protocol.
    pub fn saw_question(&self) {
        self.question_seen.store(true, Relaxed);
    }

    /// Whether the peer has sent a probe since the last call.
    pub(super) fn take_question_seen(&self) -> bool {
        self.question_seen.swap(false, Relaxed)
    }

    /// An answer has come through the tunnel.
    pub fn answered(&self, p: &probe::Probe, now: Nanos) {
        if p.instance != self.instance.load(Relaxed) {
            return;
        }
        let rtt = now.0.saturating_sub(p.cookie) / 1000;
        let list = if p.kind == probe::Kind::SizeReply { &self.sizes } else { &self.answers };
        let word = u64::from(p.sequence) << 32 | (rtt + 1).min(u64::from(u32::MAX));
        list[p.sequence as usize % ANSWERS].store(word, Relaxed);
    }

    /// An answer to an echo request, which says nothing of its time.
    pub fn echoed(&self, sequence: u16) {
        self.answers[usize::from(sequence) % ANSWERS]
            .store(u64::from(sequence) << 32 | u64::from(u32::MAX), Relaxed);
    }

    /// Hands the answers over: whether it is about size, sequence number, round trip in nanoseconds.
    pub(super) fn take_answers(&self, mut take: impl FnMut(bool, u32, Option<u64>)) {
        for (size, list) in [(false, &self.answers), (true, &self.sizes)] {
            for slot in list {
                if slot.load(Relaxed) == 0 {
                    continue;
                }
                let word = slot.swap(0, Relaxed);
                let rtt = (word as u32 != u32::MAX).then(|| (u64::from(word as u32) - 1) * 1000);
                take(size, (word >> 32) as u32, rtt);
            }
        }
    }

    pub(super) fn publish(&self, state: liveness::State, q: Quality, path: plpmtud::State) {
        let words =
            [q.rtt.map_or(0, |r| r + 1), q.jitter, q.loss_permille.into(), state as u64 | (path as u64) << 8];
        for (slot, word) in self.quality.iter().zip(words) {
            slot.store(word, Relaxed);
        }
    }

    /// What the monitor has found; `None`: there is none, or it has not run yet.
    pub fn watched(&self) -> Watched {
        let [rtt, jitter, loss, states] = [0, 1, 2, 3].map(|i: usize| self.quality[i].load(Relaxed));
        Watched {
            rtt: rtt.checked_sub(1),
            jitter,
            loss_permille: loss as u32,
            state: match states & 0xFF {
                1 => liveness::State::Up,
                2 => liveness::State::Down,
                _ => liveness::State::Starting,
            },
            path: match states >> 8 {
                1 => plpmtud::State::Search,
                2 => plpmtud::State::SearchComplete,
                3 => plpmtud::State::Error,
                _ => plpmtud::State::Base,
            },
        }
    }

    /// The next identification of an outer packet that may be split (RFC 6864 4.3).
    pub fn next_id(&self) -> u16 {
        self.ident.fetch_add(1, Relaxed) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_learned_downwards_and_forgotten() {
        let s = TunnelState::default();
        assert_eq!((s.path_mtu(), s.learned()), (1500, None));
        assert!(!s.learn(1600, Nanos(1)), "the link carries less");
        assert!(s.learn(1400, Nanos(2)) && !s.learn(1450, Nanos(3)));
        assert_eq!(s.learned(), Some((1400, Nanos(2))));
        assert!(s.learn(68, Nanos(4)), "nobody talks us down to nothing");
        assert_eq!(s.path_mtu(), 1280);
        s.forget_path();
        assert_eq!(s.path_mtu(), 1500);
    }
}
