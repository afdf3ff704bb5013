//! Access control, quality of service, translation.

use toml::{Table, Value};

use super::{Compiler, optional, table};
use crate::desired::{Policy, Qos, Tuple};

impl Compiler<'_> {
    pub(super) fn acls(&mut self) {
        let desired = self.desired;
        for acl in &desired.acls {
            let mut rules = Vec::new();
            let at = self.out.get("acl").and_then(Value::as_array).map_or(0, Vec::len);
            for r in &acl.rules {
                let origin = format!("rule {} of ACL {}", r.id, acl.id);
                if r.dpi {
                    self.problems
                        .push(format!("{origin}: applications (DPI) are not supported by this version"));
                    continue;
                }
                let mut t = table! {
                    "id": &r.id, "direction": &r.direction, "type": &r.kind, "policy": &r.policy,
                    "priority": r.priority,
                };
                self.tuple(&mut t, &r.tuple);
                self.origins.push((format!("acl[{at}].rule[{}]", rules.len()), origin));
                rules.push(Value::Table(t));
            }
            let mut t = table! { "id": &acl.id };
            t.insert("rule".into(), Value::Array(rules));
            self.push("acl", t, format!("ACL {}", acl.id));
        }
    }

    fn tuple(&mut self, t: &mut Table, from: &Tuple) {
        t.extend(table! {
            "ip_protocol": &from.protocol, "source_cidr": &from.source, "dest_cidr": &from.dest,
            "source_port_range": &from.source_ports, "dest_port_range": &from.dest_ports,
        });
    }

    pub(super) fn qos(&mut self) {
        let desired = self.desired;
        for qos in &desired.qos {
            let at = self.out.get("qos").and_then(Value::as_array).map_or(0, Vec::len);
            let mut cars = Vec::new();
            for c in &qos.cars {
                let percent = c.limit_type == "Percent";
                let t = table! {
                    "id": &c.id, "priority": c.priority, "limit_type": &c.limit_type,
                    "min_bandwidth_abs": c.min_abs.filter(|_| !percent),
                    "max_bandwidth_abs": c.max_abs.filter(|_| !percent),
                    "min_bandwidth_percent": c.min_percent.filter(|_| percent),
                    "max_bandwidth_percent": c.max_percent.filter(|_| percent),
                    "percent_source_type": c.source.as_deref().filter(|_| percent).unwrap_or(""),
                };
                self.origins.push((
                    format!("qos[{at}].car[{}]", cars.len()),
                    format!("CAR {} of QoS {}", c.id, qos.id),
                ));
                cars.push(Value::Table(t));
            }
            let policies = self.policies(qos, at);
            let mut t = table! { "id": &qos.id };
            t.insert("car".into(), Value::Array(cars));
            t.insert("policy".into(), Value::Array(policies));
            self.push("qos", t, format!("QoS {}", qos.id));
        }
    }

    fn policies(&mut self, qos: &Qos, at: usize) -> Vec<Value> {
        let mut out = Vec::new();
        for p in &qos.policies {
            let origin = format!("policy {} of QoS {}", p.id, qos.id);
            if p.dpi {
                self.problems.push(format!("{origin}: applications (DPI) are not supported by this version"));
                continue;
            }
            // A class is made before its limit, or the other way round.
            if !qos.cars.iter().any(|c| c.priority == p.priority) {
                self.notices
                    .push(format!("{origin}: no CAR has priority {}, so it limits nothing", p.priority));
                continue;
            }
            let Policy { id, priority, start, end, .. } = p;
            let mut t = table! {
                "id": id, "priority": *priority,
                "start_time": start.as_deref().unwrap_or(""), "end_time": end.as_deref().unwrap_or(""),
            };
            self.tuple(&mut t, &p.tuple);
            self.origins.push((format!("qos[{at}].policy[{}]", out.len()), origin));
            out.push(Value::Table(t));
        }
        out
    }

    pub(super) fn nat(&mut self) {
        let desired = self.desired;
        for s in &desired.snat {
            let t = table! { "id": &s.id, "cidr_block": &s.cidr, "snat_ip": &s.ip };
            self.push("snat", t, format!("SNAT entry {}", s.id));
        }
        for d in &desired.dnat {
            let any = d.protocol == "any";
            let port = |p: &String| if any { "any".to_owned() } else { p.clone() };
            let t = table! {
                "id": &d.id, "type": &d.kind, "ip_protocol": &d.protocol,
                "external_ip": &d.external_ip, "external_port": &port(&d.external_port),
                "internal_ip": &d.internal_ip, "internal_port": &port(&d.internal_port),
            };
            self.push("dnat", t, format!("DNAT entry {}", d.id));
        }
    }
}
