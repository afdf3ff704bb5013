//! Whether the far ends of tunnels answer, and how much their paths carry: run by one worker.

use super::Tunnel;
use sag_model::Nanos;
use sag_model::config::OuterDf;
use sag_tunnel::liveness::{Liveness, Settings, State};
use sag_tunnel::plpmtud::{self, Plpmtud};
use std::sync::Arc;

/// Between questions to a peer that has never answered: it may not know them.
const BACKOFF: u64 = 30_000_000_000;
/// Questions that it gets before.
const UNANSWERED_PROBES: u64 = 10;
/// Between packets that confirm the path's MTU.
const CONFIRM: u64 = 2_000_000_000;

/// A question to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Whether the peer answers.
    Alive {
        /// Number of the question.
        sequence: u32,
        /// The monitor that asks; an answer quotes it.
        instance: u32,
    },
    /// Of this size outside.
    Size {
        /// Number of the question.
        sequence: u32,
        /// The monitor that asks; an answer quotes it.
        instance: u32,
        /// Bytes of the outer packet.
        outer: u16,
    },
}

/// One tunnel's questions and answers.
#[derive(Debug)]
pub struct Monitor {
    state: Arc<super::TunnelState>,
    settings: sag_model::config::Probing,
    live: Liveness,
    path: Plpmtud,
    /// The peer has answered, so silence means something.
    answers: bool,
    sizes: bool,
    instance: u32,
    backoff_until: u64,
}

impl Monitor {
    /// For a tunnel, from `now` on; `instance` tells its questions from those of earlier monitors.
    pub fn new(t: &Tunnel, now: Nanos, instance: u32) -> Monitor {
        let interval = u64::from(t.probing.interval) * 1_000_000;
        let settings = Settings { interval, fall: t.probing.loss.into(), ..Settings::default() };
        t.state.set_instance(instance);
        t.state.set_probes_sizes(false);
        Monitor {
            state: t.state.clone(),
            settings: t.probing.clone(),
            live: Liveness::new(settings, now.0),
            path: Plpmtud::new(path_settings(t), now.0),
            answers: false,
            sizes: false,
            instance,
            backoff_until: 0,
        }
    }

    /// Whether it is this tunnel's still.
    pub fn is_of(&self, t: &Tunnel) -> bool {
        Arc::ptr_eq(&self.state, &t.state) && self.settings == t.probing
    }

    /// Takes the answers in. True: the tunnel has gone down or come up.
    pub fn poll(&mut self, t: &Tunnel, now: Nanos) -> bool {
        let max = t.state.link_mtu();
        self.path.link(max, now.0);
        let (first, mut heard) = (!self.answers, false);
        t.state.take_answers(|size, sequence, rtt| {
            heard = true;
            if first {
                return;
            }
            if size {
                self.sizes = true;
                self.path.answered(sequence, now.0);
            } else if self.live.answered_after(sequence, rtt, now.0) && self.live.state() == State::Up {
                self.path.resume(now.0);
            }
        });
        if first && heard {
            // Probes that were sent before there was anybody to answer say nothing of the path.
            self.answers = true;
            self.live = self.live.restarted(now.0);
        }
        // A peer that has never answered may be one that does not know the question.
        if self.answers {
            self.live.poll(now.0);
        }
        if self.sizes {
            // What was believed before the peer answered is a hint now.
            let learned = t.state.learned().map(|(mtu, _)| mtu);
            if let Some(mtu) = t.state.take_hint().or(learned) {
                self.path.packet_too_big(mtu, now.0);
            }
            if learned.is_some() {
                t.state.forget_path();
            }
            t.state.set_probes_sizes(true);
            t.state.set_probed(self.path.mtu());
        }
        let state = self.live.state();
        t.state.publish(state, self.live.quality(), self.path.state());
        let was = t.state.is_up();
        // With new settings nothing is known yet: what was holds.
        let is = if state == State::Starting { was } else { state.usable() };
        if was != is {
            t.state.set_up(is);
        }
        was != is
    }

    /// The probe that is due, if there is one.
    pub fn next_question(&mut self, t: &Tunnel, now: Nanos) -> Option<Question> {
        let instance = self.instance;
        if !self.answers && self.live.probes >= UNANSWERED_PROBES {
            // The peer may have sent probes of its own since.
            if now.0 < self.backoff_until && !t.state.take_question_seen() {
                return None;
            }
            self.backoff_until = now.0 + BACKOFF;
        }
        if let Some(sequence) = self.live.send(now.0) {
            return Some(Question::Alive { sequence, instance });
        }
        // Only packets whose outer header forbids fragmentation measure the path.
        let probed = self.answers && t.probing.target.is_none() && t.df != OuterDf::Clear;
        if !probed || !self.live.state().usable() {
            return None;
        }
        let timeout = (2 * self.live.timeout()).max(100_000_000);
        let (sequence, outer) = self.path.send(now.0, timeout)?;
        Some(Question::Size { sequence, instance, outer })
    }
}

fn path_settings(t: &Tunnel) -> plpmtud::Settings {
    plpmtud::Settings {
        min: if t.remote.is_ipv6() { 1280 } else { 576 },
        max: t.state.link_mtu(),
        step: if t.is_esp() { 4 } else { 1 },
        confirm: CONFIRM,
    }
}
