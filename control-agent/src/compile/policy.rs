//! Access control, quality of service, translation.

use sag_southbound::Effect;
use toml::{Table, Value};

use super::isolation::{FLOOR, Object, accepts};
use super::{Compiler, optional, table};
use crate::desired::{Acl, Policy, Qos, Rule, Tuple};

impl Compiler<'_> {
    pub(super) fn acls(&mut self) {
        let desired = self.desired;
        for (a, acl) in desired.acls.iter().enumerate() {
            let object = Object::Acl(a);
            let at = self.out.get("acl").and_then(Value::as_array).map_or(0, Vec::len);
            let rules = match self.excluded.reason(&object).cloned() {
                Some(why) => {
                    let why =
                        format!("it refuses everything, because what it would refuse is not known: {why}");
                    self.deviate(&object, Effect::Stricter, why);
                    refuses_everything(a)
                }
                None => self.rules(a, acl, at),
            };
            let id = match self.excluded.without(&object, "id").cloned() {
                Some(why) => {
                    self.deviate(&object, Effect::Partial, format!("it has another identifier here: {why}"));
                    format!("acl-at-{a}")
                }
                None => acl.id.clone(),
            };
            let mut t = table! { "id": &id };
            t.insert("rule".into(), Value::Array(rules));
            self.push("acl", t, object);
        }
    }

    fn rules(&mut self, a: usize, acl: &Acl, at: usize) -> Vec<Value> {
        let mut out = Vec::new();
        for (n, r) in acl.rules.iter().enumerate() {
            let object = Object::Rule(a, n);
            if self.is_left_out(&object) {
                continue;
            }
            if r.dpi && accepts(r) {
                self.deviate(
                    &object,
                    Effect::LeftOut,
                    "applications (DPI) are not supported by this version",
                );
                continue;
            }
            let mut wider = self.excluded.against(&object);
            if r.dpi {
                wider.push(
                    "applications (DPI) are not supported by this version, so it refuses every application"
                        .into(),
                );
            }
            if !wider.is_empty() {
                self.deviate(&object, Effect::Stricter, wider.join("; "));
            }
            for form in self.forms(a, n, r) {
                self.origins.push((format!("acl[{at}].rule[{}]", out.len()), object.clone()));
                out.push(Value::Table(form));
            }
        }
        out
    }

    /// The rule as the gateway has it. What of a rule that refuses is not understood stands for everything that it could
    /// mean.
    fn forms(&self, a: usize, n: usize, r: &Rule) -> Vec<Table> {
        let object = Object::Rule(a, n);
        let wide = |key: &str| self.excluded.without(&object, key).is_some();
        let either = |key: &str, given: &String, all: [&str; 2]| -> Vec<String> {
            if wide(key) { all.map(str::to_owned).to_vec() } else { vec![given.clone()] }
        };
        let policy = if wide("policy") { "drop" } else { &r.policy };
        let families = match (wide("source_cidr"), wide("dest_cidr")) {
            (false, false) => vec![(r.tuple.source.clone(), r.tuple.dest.clone())],
            (true, false) => vec![(any_like(&r.tuple.dest), r.tuple.dest.clone())],
            (false, true) => vec![(r.tuple.source.clone(), any_like(&r.tuple.source))],
            (true, true) => ANY.map(|any| (any.to_owned(), any.to_owned())).to_vec(),
        };
        let protocol = if wide("ip_protocol") { "all" } else { &r.tuple.protocol };
        let mut out = Vec::new();
        for direction in either("direction", &r.direction, ["in", "out"]) {
            for kind in either("type", &r.kind, ["LAN", "WAN"]) {
                for (source, dest) in &families {
                    let id = match out.len() {
                        0 if !wide("id") => r.id.clone(),
                        form => format!("acr-at-{a}.{n}.{form}"),
                    };
                    let mut t = table! {
                        "id": &id, "direction": &direction, "type": &kind, "policy": policy,
                        "priority": r.priority.filter(|_| !wide("priority")),
                        "ip_protocol": protocol, "source_cidr": source, "dest_cidr": dest,
                    };
                    for (key, ports) in [
                        ("source_port_range", &r.tuple.source_ports),
                        ("dest_port_range", &r.tuple.dest_ports),
                    ] {
                        if !wide(key) {
                            t.insert(key.into(), Value::String(ports.clone()));
                        }
                    }
                    out.push(t);
                }
            }
        }
        out
    }

    fn tuple(&mut self, t: &mut Table, from: &Tuple) {
        t.extend(table! {
            "ip_protocol": &from.protocol, "source_cidr": &from.source, "dest_cidr": &from.dest,
            "source_port_range": &from.source_ports, "dest_port_range": &from.dest_ports,
        });
    }

    pub(super) fn qos(&mut self) {
        let desired = self.desired;
        for (q, qos) in desired.qos.iter().enumerate() {
            let object = Object::Qos(q);
            if self.is_left_out(&object) {
                continue;
            }
            let at = self.out.get("qos").and_then(Value::as_array).map_or(0, Vec::len);
            let (cars, known) = self.cars(q, qos, at);
            let policies = self.policies(q, qos, at, &known);
            let id = match self.excluded.without(&object, "id").cloned() {
                Some(why) => {
                    self.deviate(&object, Effect::Partial, format!("it has another identifier here: {why}"));
                    format!("qos-at-{q}")
                }
                None => qos.id.clone(),
            };
            let mut t = table! { "id": &id };
            t.insert("car".into(), Value::Array(cars));
            t.insert("policy".into(), Value::Array(policies));
            self.push("qos", t, object);
        }
    }

    /// The CARs, and their priorities.
    fn cars(&mut self, q: usize, qos: &Qos, at: usize) -> (Vec<Value>, Vec<i64>) {
        let (mut out, mut priorities) = (Vec::new(), Vec::new());
        for (n, c) in qos.cars.iter().enumerate() {
            let object = Object::Car(q, n);
            if self.is_left_out(&object) {
                continue;
            }
            let percent = c.limit_type == "Percent";
            let (mut min_abs, mut min_percent) = (c.min_abs, c.min_percent);
            if let Some(why) = self.excluded.without(&object, FLOOR).cloned() {
                let why = format!("its peak rate is in force, its committed rate is not: {why}");
                self.deviate(&object, Effect::Partial, why);
                // The least that the keys take.
                (min_abs, min_percent) = (Some(0), Some(1));
            }
            let t = table! {
                "id": &c.id, "priority": c.priority, "limit_type": &c.limit_type,
                "min_bandwidth_abs": min_abs.filter(|_| !percent),
                "max_bandwidth_abs": c.max_abs.filter(|_| !percent),
                "min_bandwidth_percent": min_percent.filter(|_| percent),
                "max_bandwidth_percent": c.max_percent.filter(|_| percent),
                "percent_source_type": c.source.as_deref().filter(|_| percent).unwrap_or(""),
            };
            self.origins.push((format!("qos[{at}].car[{}]", out.len()), object));
            out.push(Value::Table(t));
            priorities.push(c.priority);
        }
        (out, priorities)
    }

    fn policies(&mut self, q: usize, qos: &Qos, at: usize, priorities: &[i64]) -> Vec<Value> {
        let mut out = Vec::new();
        for (n, p) in qos.policies.iter().enumerate() {
            let object = Object::Policy(q, n);
            if self.is_left_out(&object) {
                continue;
            }
            if p.dpi {
                self.deviate(
                    &object,
                    Effect::LeftOut,
                    "applications (DPI) are not supported by this version",
                );
                continue;
            }
            // A class is made before its limit, or the other way round.
            if !priorities.contains(&p.priority) {
                let name = object.name(self.desired).1;
                self.notices
                    .push(format!("{name}: no CAR has priority {}, so it limits nothing", p.priority));
                continue;
            }
            let Policy { id, priority, start, end, .. } = p;
            let mut t = table! {
                "id": id, "priority": *priority,
                "start_time": start.as_deref().unwrap_or(""), "end_time": end.as_deref().unwrap_or(""),
            };
            self.tuple(&mut t, &p.tuple);
            self.origins.push((format!("qos[{at}].policy[{}]", out.len()), object));
            out.push(Value::Table(t));
        }
        out
    }

    pub(super) fn nat(&mut self) {
        let desired = self.desired;
        for (n, s) in desired.snat.iter().enumerate() {
            if !self.is_left_out(&Object::Snat(n)) {
                let t = table! { "id": &s.id, "cidr_block": &s.cidr, "snat_ip": &s.ip };
                self.push("snat", t, Object::Snat(n));
            }
        }
        for (n, d) in desired.dnat.iter().enumerate() {
            if self.is_left_out(&Object::Dnat(n)) {
                continue;
            }
            let any = d.protocol == "any";
            let port = |p: &String| if any { "any".to_owned() } else { p.clone() };
            let t = table! {
                "id": &d.id, "type": &d.kind, "ip_protocol": &d.protocol,
                "external_ip": &d.external_ip, "external_port": &port(&d.external_port),
                "internal_ip": &d.internal_ip, "internal_port": &port(&d.internal_port),
            };
            self.push("dnat", t, Object::Dnat(n));
        }
    }
}

/// Every address of each family.
const ANY: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// Every address of the family of this block.
fn any_like(block: &str) -> String {
    ANY[usize::from(block.contains(':'))].to_owned()
}

/// Rules that let nothing through.
fn refuses_everything(a: usize) -> Vec<Value> {
    let mut out = Vec::new();
    for direction in ["in", "out"] {
        for kind in ["LAN", "WAN"] {
            for any in ANY {
                let t = table! {
                    "id": &format!("acr-at-{a}.closed.{}", out.len()), "direction": direction, "type": kind,
                    "policy": "drop", "ip_protocol": "all", "source_cidr": any, "dest_cidr": any,
                };
                out.push(Value::Table(t));
            }
        }
    }
    out
}
