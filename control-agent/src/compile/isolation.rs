//! What cannot be put in force as it is, and what is done instead, so that one object harms no other
//! (docs/agent.md).
//!
//! An object that the gateway's rules refuse is left out. One that refuses traffic is never left out alone: what it names
//! wrongly it then names as widely as possible, and where that is not enough, its list refuses everything.

use std::collections::BTreeMap;

use sag_southbound::{Deviation, Effect};

use crate::desired::{Desired, Rule};
use crate::overlay::Excluded;

/// What entries of the gateway's document are made of, by its place in the desired state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Object {
    Bandwidth,
    Port(String),
    Route(usize),
    Acl(usize),
    /// Of an ACL.
    Rule(usize, usize),
    Qos(usize),
    /// Of a QoS.
    Car(usize, usize),
    /// Of a QoS.
    Policy(usize, usize),
    Snat(usize),
    Dnat(usize),
    /// Of the gateway's own file.
    Neighbor(usize),
    /// The tunnel to the device of this serial number.
    Device(String),
    /// The route to a block of a gateway.
    Block(String, String),
}

impl Object {
    /// The member of the device document that has it, and its name for people.
    pub(super) fn name(&self, of: &Desired) -> (&'static str, String) {
        let acl = |a: usize| of.acls.get(a).map_or("", |x| &x.id);
        let qos = |q: usize| of.qos.get(q);
        match self {
            Object::Bandwidth => ("Gateway", "bandwidth of the instance".to_owned()),
            Object::Port(name) => {
                let line = of.eccs.contains_key(name.split('.').next().unwrap_or_default());
                (if line { "Ecc" } else { "Ports" }, format!("port {name}"))
            }
            Object::Route(n) => {
                let (to, by) = of.routes.get(*n).map_or(("", ""), |r| (&r.destination, &r.port));
                ("StaticRoutes", format!("static route {to} by port {by}"))
            }
            Object::Acl(a) => ("Acls", format!("ACL {}", acl(*a))),
            Object::Rule(a, r) => {
                let rule = of.acls.get(*a).and_then(|acl| acl.rules.get(*r)).map_or("", |x| &x.id);
                ("Acls", format!("rule {rule} of ACL {}", acl(*a)))
            }
            Object::Qos(q) => ("Qos", format!("QoS {}", qos(*q).map_or("", |x| &x.id))),
            Object::Car(q, c) => {
                let (car, of) = qos(*q).map_or(("", ""), |x| (x.cars.get(*c).map_or("", |c| &c.id), &x.id));
                ("Qos", format!("CAR {car} of QoS {of}"))
            }
            Object::Policy(q, p) => {
                let policy = |x: &crate::desired::Qos| x.policies.get(*p).map(|p| p.id.clone());
                let (policy, of) = qos(*q).map_or_else(Default::default, |x| (policy(x), x.id.clone()));
                ("Qos", format!("policy {} of QoS {of}", policy.unwrap_or_default()))
            }
            Object::Snat(n) => {
                ("SnatEntries", format!("SNAT entry {}", of.snat.get(*n).map_or("", |s| &s.id)))
            }
            Object::Dnat(n) => {
                ("DnatEntries", format!("DNAT entry {}", of.dnat.get(*n).map_or("", |d| &d.id)))
            }
            Object::Neighbor(n) => ("", format!("neighbor {} of the gateway's own file", n + 1)),
            Object::Device(sn) => ("Ccn", format!("device {sn}")),
            Object::Block(gateway, block) => ("Ccn", format!("block {block} of gateway {gateway}")),
        }
    }

    /// With what became of it.
    pub(super) fn deviation(&self, of: &Desired, effect: Effect, reason: impl Into<String>) -> Deviation {
        let (section, object) = self.name(of);
        deviation(section, object, effect, reason)
    }
}

pub(super) fn deviation(
    section: &str,
    object: impl Into<String>,
    effect: Effect,
    reason: impl Into<String>,
) -> Deviation {
    Deviation {
        section: section.to_owned(),
        object: object.into(),
        effect: Some(effect),
        reason: reason.into(),
    }
}

/// The only rules that may be left out: without them less is let through.
pub(super) fn accepts(rule: &Rule) -> bool {
    rule.policy == "accept"
}

/// What of a rule that refuses can be widened.
const WIDENED: [&str; 9] = [
    "id",
    "direction",
    "type",
    "policy",
    "ip_protocol",
    "source_cidr",
    "dest_cidr",
    "source_port_range",
    "dest_port_range",
];
const PRIORITY: &str = "priority";
/// The key of a CAR without what it guarantees.
pub(super) const FLOOR: &str = "min_bandwidth";

/// What the gateway's rules have refused so far.
#[derive(Default)]
pub(super) struct Exclusions {
    /// Of other members of the network.
    pub(super) members: Excluded,
    objects: BTreeMap<Object, String>,
    /// Objects that are put in force without what these keys say.
    keys: BTreeMap<(Object, String), String>,
}

impl Exclusions {
    /// Why the object is left out. An ACL is never left out: it refuses everything.
    pub(super) fn reason(&self, object: &Object) -> Option<&String> {
        self.objects.get(object)
    }

    /// Why what this key of the object says is left out, or widened.
    pub(super) fn without(&self, object: &Object, key: &str) -> Option<&String> {
        self.keys.get(&(object.clone(), key.to_owned()))
    }

    /// All that is said against keys of the object.
    pub(super) fn against(&self, object: &Object) -> Vec<String> {
        let of = self.keys.iter().filter(|((o, _), _)| o == object);
        of.map(|(_, why)| why.clone()).collect()
    }

    fn add_key(&mut self, object: &Object, key: &str, why: &str) -> bool {
        self.keys.insert((object.clone(), key.to_owned()), why.to_owned()).is_none()
    }

    fn add(&mut self, object: Object, why: &str) -> bool {
        self.objects.insert(object, why.to_owned()).is_none()
    }

    /// Takes a complaint about a key of an object; `false`: nothing more can be left out because of it.
    pub(super) fn learn(&mut self, object: &Object, key: &str, why: &str, of: &Desired) -> bool {
        match object {
            Object::Rule(a, r) => {
                let rule = of.acls.get(*a).and_then(|acl| acl.rules.get(*r));
                if rule.is_some_and(accepts) {
                    return self.add(object.clone(), why);
                }
                let widened = (WIDENED.contains(&key) || key == PRIORITY) && self.add_key(object, key, why);
                widened || self.add(Object::Acl(*a), why)
            }
            Object::Acl(_) | Object::Qos(_) => {
                (key == "id" && self.add_key(object, key, why)) || self.add(object.clone(), why)
            }
            Object::Car(..) if key.starts_with(FLOOR) && why.contains("QosFloorsExceedLink") => {
                self.add_key(object, FLOOR, why) || self.add(object.clone(), why)
            }
            Object::Port(_) if !matches!(key, "" | "name" | "device" | "vlan" | "role") => {
                let key = key.split('[').next().unwrap_or_default();
                self.add_key(object, key, why) || self.add(object.clone(), why)
            }
            Object::Bandwidth => self.add_key(object, key, why),
            Object::Device(sn) => self.members.devices.insert(sn.clone(), why.to_owned()).is_none(),
            Object::Block(gateway, block) => {
                let block = (gateway.clone(), block.clone());
                self.members.blocks.insert(block, why.to_owned()).is_none()
            }
            _ => self.add(object.clone(), why),
        }
    }

    /// Leaves out everything but ports and bandwidth, and has every ACL refuse everything: what is wrong does not end.
    pub(super) fn give_up(&mut self, of: &Desired, neighbors: usize) {
        let why = "too much of the configuration is refused by the gateway's rules";
        let objects = (0..of.acls.len())
            .map(Object::Acl)
            .chain((0..of.qos.len()).map(Object::Qos))
            .chain((0..of.snat.len()).map(Object::Snat))
            .chain((0..of.dnat.len()).map(Object::Dnat))
            .chain((0..of.routes.len()).map(Object::Route))
            .chain((0..neighbors).map(Object::Neighbor));
        for object in objects {
            self.objects.entry(object).or_insert_with(|| why.to_owned());
        }
        for device in of.ccn.iter().flat_map(|c| &c.members).flat_map(|m| &m.devices) {
            self.members.devices.entry(device.sn.clone()).or_insert_with(|| why.to_owned());
        }
    }
}

/// The longest key path that the path begins with, and what stands there.
pub(super) fn longest_prefix<'a, T>(all: &'a [(String, T)], path: &str) -> Option<&'a (String, T)> {
    let of =
        |o: &&(String, T)| path == o.0 || path.strip_prefix(&o.0).is_some_and(|rest| rest.starts_with('.'));
    all.iter().filter(of).max_by_key(|(prefix, _)| prefix.len())
}
