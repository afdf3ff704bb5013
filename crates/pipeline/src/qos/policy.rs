//! Which meters a packet passes: five-tuple policies name a CAR, the way from port to port names the
//! links.
//!
//! Position: after routing, DNAT and ACL, before SNAT, so policies see the branch's own addresses.
//! Each direction of a session is classified by itself, by the tuple of its own packets. A CAR and a
//! link have a meter for each way: `up` is out of the branch, `down` into it. Traffic within the LAN
//! passes no CAR.

use super::meter::{self, Policed};
use crate::policy::{RuleList, Tuple};
use sag_model::meter::{Meter, MeterSet};
use sag_model::{Nanos, PortIdx};

/// Number of a set of meters; 0: nothing is metered.
pub type SetNo = u16;

/// The compiled QoS of an epoch.
#[derive(Debug, Default)]
pub struct QosPolicy {
    /// Policies in the order in which they are tried; the verdict's slot is the CAR.
    pub(super) rules: Option<RuleList>,
    pub(super) ports: usize,
    /// By CAR + 1 (0: none), ingress and egress port.
    pub(super) sets_by_way: Vec<SetNo>,
    /// Ids of the CARs, for `explain`.
    pub(super) cars: Vec<String>,
    pub(super) meters: &'static [Meter],
    pub(super) sets: &'static [MeterSet],
}

/// What the QoS stage says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Classified {
    pub car: Option<u32>,
    pub set: SetNo,
}

impl QosPolicy {
    /// The CAR and the meters of a packet from port to port.
    #[inline]
    pub fn classify(&self, from: PortIdx, to: PortIdx, tuple: impl FnOnce() -> Tuple) -> Classified {
        if self.sets_by_way.is_empty() {
            return Classified::default();
        }
        let car = self.rules.as_ref().and_then(|r| r.lookup(&tuple())).map(|v| v.slot);
        let row = car.map_or(0, |c| c as usize + 1);
        let at = (row * self.ports + from.index()) * self.ports + to.index();
        let in_range = from.index() < self.ports && to.index() < self.ports;
        let set = self.sets_by_way.get(at).copied().filter(|_| in_range).unwrap_or(0);
        Classified { car: car.filter(|_| self.set_has_car(set)), set }
    }

    fn set_has_car(&self, set: SetNo) -> bool {
        let car = |s: &MeterSet| s.car.load(std::sync::atomic::Ordering::Relaxed) != 0;
        set != 0 && self.sets.get(usize::from(set)).is_some_and(car)
    }

    /// Meters a packet of so many IP bytes and counts what came of it.
    #[inline]
    pub fn police(&self, set: SetNo, ip_len: u16, now: Nanos) -> Policed {
        let Some(s) = self.sets.get(usize::from(set)).filter(|_| set != 0) else { return Policed::Pass };
        let len = u64::from(ip_len);
        let policed = meter::police(s, self.meters, len, now.0, 0);
        meter::count(s, len, policed);
        policed
    }

    /// Id of a CAR by number.
    pub fn car(&self, no: u32) -> Option<&str> {
        self.cars.get(no as usize).map(String::as_str)
    }
}
