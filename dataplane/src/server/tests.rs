//! The server over real sockets, with a handler that remembers what it was asked.

mod socket;
mod wire;

use super::Handler;
use sag_model::control::*;
use sag_model::{DropReason, Role};

/// Answers with small fixed data and writes down the arguments.
#[derive(Debug, Default)]
struct Fake {
    asked: Vec<String>,
    /// Sessions that `sessions` lists.
    listed: usize,
    /// Text of the running configuration.
    running: String,
}

impl Fake {
    fn note(&mut self, what: impl std::fmt::Debug) {
        self.asked.push(format!("{what:?}"));
    }
}

fn a_session(n: usize) -> Session {
    Session {
        family: 4,
        proto: IpProto::UDP,
        src: std::net::Ipv4Addr::from(0xc000_0200 + n as u32).into(),
        sport: 5000,
        dst: "198.51.100.1".parse().unwrap(),
        dport: 53,
        nat_src: None,
        nat_sport: None,
        nat_dst: None,
        nat_dport: None,
        state: "assured".into(),
        age_s: 1,
        idle_s: 0,
        packets: 1,
        bytes: 60,
        reply_packets: 1,
        reply_bytes: 120,
        in_port: "0".into(),
        out_port: "1".into(),
        rule: None,
        vrf: None,
        to_vrf: None,
    }
}

impl Handler for Fake {
    fn status(&mut self) -> Result<Status, Error> {
        self.note("status");
        Ok(Status { version: "1.2.3".into(), pid: 7, ..Status::default() })
    }
    fn ports(&mut self) -> Result<Ports, Error> {
        self.note("ports");
        Ok(Ports { ports: vec![Port::new("0", "eth1", Role::Lan)] })
    }
    fn drops(&mut self) -> Result<Drops, Error> {
        self.note("drops");
        Ok(Drops { drops: vec![DropRow::new("0", DropReason::AclDenied, 9)] })
    }
    fn acl(&mut self, query: &AclQuery) -> Result<AclReport, Error> {
        self.note(query);
        match query.acl.as_deref() {
            Some("acl-9") => Err(Error::new(ErrorCode::NotFound, "no ACL acl-9", "see sagctl acl")),
            _ => Ok(AclReport { default: "accept".into(), ..AclReport::default() }),
        }
    }
    fn routes(&mut self, query: &RouteQuery) -> Result<Routes, Error> {
        self.note(query);
        Ok(Routes::default())
    }
    fn sessions(&mut self, query: &SessionQuery) -> Result<Sessions, Error> {
        self.note(query);
        let sessions = (0..self.listed).map(a_session).collect();
        Ok(Sessions { sessions, total: self.listed as u64 })
    }
    fn sessions_flush(&mut self, filter: &SessionFilter) -> Result<Flushed, Error> {
        self.note(filter);
        Ok(Flushed { flushed: 2 })
    }
    fn top(&mut self, query: &TopQuery) -> Result<Top, Error> {
        self.note(query);
        let mut top = TopCollector::new(query);
        top.offer(&a_session(1).facts());
        Ok(top.finish())
    }
    fn nat(&mut self) -> Result<Nat, Error> {
        self.note("nat");
        Ok(Nat::default())
    }
    fn nat_bindings(&mut self, query: &NatBindingQuery) -> Result<NatBindings, Error> {
        self.note(query);
        Ok(NatBindings::default())
    }
    fn ha(&mut self, query: &HaQuery) -> Result<Ha, Error> {
        self.note(query);
        Ok(Ha::default())
    }
    fn nat_mappings(&mut self) -> Result<NatMappings, Error> {
        Ok(NatMappings::default())
    }
    fn qos(&mut self) -> Result<Qos, Error> {
        Ok(Qos::default())
    }
    fn tunnels(&mut self) -> Result<Tunnels, Error> {
        Ok(Tunnels::default())
    }

    fn explain(&mut self, query: &ExplainQuery) -> Result<Explain, Error> {
        self.note(query);
        Ok(Explain { verdict: "drop".into(), reason: Some("acl-denied".into()), ..Explain::default() })
    }
    fn config_show(&mut self) -> Result<ConfigShow, Error> {
        self.note("config-show");
        Ok(ConfigShow { text: self.running.clone(), ..ConfigShow::default() })
    }
    fn config_diff(&mut self, text: &str, name: &str) -> Result<ConfigDiff, Error> {
        self.note(("config-diff", text.len(), name));
        let change = Change { path: "bandwidth.ccn".into(), old: Some("1".into()), new: Some("2".into()) };
        Ok(ConfigDiff { changes: vec![change], warnings: vec!["[[qos]] is not enforced".into()] })
    }
    fn config_apply(&mut self, text: &str, name: &str) -> Result<ConfigApplied, Error> {
        self.note(("config-apply", text.len(), name));
        if text.contains("bad") {
            return Err(Error::invalid_config(format!("{name}:1: unknown key bad")));
        }
        self.running = text.to_owned();
        Ok(ConfigApplied { epoch: 2, changed: true, warnings: Vec::new() })
    }
    fn config_deviations(&mut self, deviations: ConfigDeviations) -> Result<DeviationsKept, Error> {
        self.note("config-deviations");
        Ok(DeviationsKept { kept: u32::try_from(deviations.bounded().len()).unwrap() })
    }
    fn reload(&mut self) -> Result<ConfigApplied, Error> {
        self.note("reload");
        Ok(ConfigApplied::default())
    }
}
