//! Which meters a packet passes: five-tuple policies name a CAR, ingress and egress port
//! name the links.
//!
//! Position: after routing, DNAT and ACL, before SNAT, so policies see the branch's own addresses.
//! Each direction of a session is classified by itself, by the tuple of its own packets. A CAR and a
//! link have a meter for each direction: `up` is out of the branch, `down` into it. Traffic within the LAN
//! passes no CAR.
//!
//! The DSCP that counts for a flow is that of the packet which classifies it, the first of an epoch:
//! later packets of the flow stay in the class, whatever they are marked with.

use super::meter::{self, Policed};
use super::spec::QosSpec;
pub use crate::ids::MeterGroupNo;
use crate::policy::{RuleList, Tuple, Verdict};
use sag_acl::{Addr, Rule};
use sag_model::meter::{Meter, MeterGroup, REMARK};
use sag_model::{Dscp, Nanos, PortIdx, VrfNo};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering::Relaxed;

/// The compiled QoS of an epoch.
#[derive(Debug, Default)]
pub struct QosPolicy {
    pub(super) rules: Rules,
    /// By number of the VRF from which packets come: those of VRFs that policies name. Empty: none does.
    pub(super) vrf_rules: Vec<Option<Rules>>,
    /// The CARs of the groups; empty if no policy matches a DSCP.
    pub(super) car_of: HashMap<MeterGroupNo, u32>,
    pub(super) ports: usize,
    /// By CAR + 1 (0: none), ingress and egress port.
    pub(super) groups_by_path: Vec<Option<MeterGroupNo>>,
    /// Ids of the CARs, for `explain`.
    pub(super) cars: Vec<String>,
    pub(super) meters: &'static [Meter],
    pub(super) groups: &'static [MeterGroup],
}

/// The policies in the order in which they are tried; the verdict's slot is the CAR.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// For packets of a DSCP that no policy matches.
    others: Option<RuleList>,
    /// One list for each that one matches.
    marked: Vec<(u8, RuleList)>,
}

impl Rules {
    /// For packets from a VRF; `None`: from one that no policy names.
    pub(super) fn build(w: &QosSpec, vrf: Option<VrfNo>) -> Rules {
        type Only<'w> = (&'w BTreeMap<usize, Dscp>, &'w BTreeMap<usize, VrfNo>);
        fn of<A: Addr>(
            rules: &[(Rule<A>, Verdict)],
            (dscps, vrfs): Only<'_>,
            (dscp, vrf): (Option<Dscp>, Option<VrfNo>),
        ) -> Vec<(Rule<A>, Verdict)> {
            let fits = |i: usize| {
                dscps.get(&i).is_none_or(|d| Some(*d) == dscp) && vrfs.get(&i).is_none_or(|v| Some(*v) == vrf)
            };
            rules.iter().enumerate().filter(|(i, _)| fits(*i)).map(|(_, r)| r.clone()).collect()
        }
        let list = |dscp| {
            let (v4, v6) = ((&w.dscp4, &w.vrf4), (&w.dscp6, &w.vrf6));
            RuleList::build(&of(&w.v4, v4, (dscp, vrf)), &of(&w.v6, v6, (dscp, vrf)))
        };
        let matched: BTreeSet<Dscp> = w.dscp4.values().chain(w.dscp6.values()).copied().collect();
        Rules {
            others: (w.v4.len() > w.dscp4.len() || w.v6.len() > w.dscp6.len()).then(|| list(None)),
            marked: matched.into_iter().map(|d| (d.get(), list(Some(d)))).collect(),
        }
    }

    /// Those for packets from each VRF that policies name, by number.
    pub(super) fn of_vrfs(w: &QosSpec) -> Vec<Option<Rules>> {
        let mut out = Vec::new();
        let named: BTreeSet<VrfNo> = w.vrf4.values().chain(w.vrf6.values()).copied().collect();
        for vrf in named {
            out.resize_with(vrf.index(), || None);
            out.push(Some(Rules::build(w, Some(vrf))));
        }
        out
    }

    /// Which CAR each group has, for flows that stay in their class.
    pub(super) fn cars(w: &QosSpec, groups_by_path: &[Option<MeterGroupNo>]) -> HashMap<MeterGroupNo, u32> {
        let paths = w.ports.len() * w.ports.len();
        if paths == 0 || w.dscp4.is_empty() && w.dscp6.is_empty() {
            return HashMap::new();
        }
        let rows = groups_by_path.chunks(paths).skip(1).zip(0..);
        rows.flat_map(|(row, car)| row.iter().flatten().map(move |group| (*group, car))).collect()
    }

    fn car(&self, tuple: &Tuple, dscp: u8) -> Option<u32> {
        let marked = self.marked.iter().find(|(d, _)| *d == dscp).map(|(_, list)| list);
        marked.or(self.others.as_ref())?.lookup(tuple).map(|v| v.slot)
    }
}

/// What is known of a packet's class besides its tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// DSCP, 0 to 63.
    pub dscp: u8,
    /// The VRF from which it comes.
    pub vrf: VrfNo,
    /// The group of its flow, if that was classified in this epoch.
    pub known: Option<Option<MeterGroupNo>>,
}

/// What the QoS stage says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Classified {
    /// Index of the CAR in the configuration.
    pub car: Option<u32>,
    /// The meters that the packet passes; `None`: none.
    pub group: Option<MeterGroupNo>,
}

impl QosPolicy {
    /// The CAR and the meters of a packet from port to port.
    #[inline]
    pub fn classify(
        &self,
        from: PortIdx,
        to: PortIdx,
        mark: Mark,
        tuple: impl FnOnce() -> Tuple,
    ) -> Classified {
        if self.groups_by_path.is_empty() {
            return Classified::default();
        }
        let car = match mark.known.filter(|_| !self.car_of.is_empty()) {
            Some(group) => group.and_then(|group| self.car_of.get(&group).copied()),
            None => {
                let of_vrf = self.vrf_rules.get(mark.vrf.index()).and_then(Option::as_ref);
                of_vrf.unwrap_or(&self.rules).car(&tuple(), mark.dscp)
            }
        };
        let row = car.map_or(0, |c| c as usize + 1);
        let at = (row * self.ports + from.index()) * self.ports + to.index();
        let in_range = from.index() < self.ports && to.index() < self.ports;
        let group = self.groups_by_path.get(at).copied().filter(|_| in_range).flatten();
        Classified { car: car.filter(|_| group.is_some_and(|g| self.group_has_car(g))), group }
    }

    fn group_has_car(&self, group: MeterGroupNo) -> bool {
        let car = |s: &MeterGroup| s.car.load(Relaxed) != 0;
        self.groups.get(group.index()).is_some_and(car)
    }

    /// Meters a packet of so many IP bytes and counts what came of it.
    #[inline]
    pub fn police(&self, group: Option<MeterGroupNo>, ip_len: u16, now: Nanos) -> Policed {
        let Some(s) = group.and_then(|group| self.groups.get(group.index())) else { return Policed::Pass };
        let len = u64::from(ip_len);
        let policed = meter::police(s, self.meters, len, now.0, 0);
        meter::count(s, len, policed);
        policed
    }

    /// What the packets that a group lets pass are marked with.
    #[inline]
    pub fn remark(&self, group: Option<MeterGroupNo>) -> Option<Dscp> {
        let mark = self.groups.get(group?.index())?.remark.load(Relaxed);
        if mark & REMARK != 0 { Dscp::new(mark & !REMARK) } else { None }
    }

    /// Id of a CAR by number.
    pub fn car(&self, no: u32) -> Option<&str> {
        self.cars.get(no as usize).map(String::as_str)
    }
}
