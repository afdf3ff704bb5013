//! NAT: from the configuration and the current addresses of the ports to what the pipeline translates.

use sag_model::PortIdx;
use sag_model::config::{self, Config, DnatService, DnatType, NatBehavior, NatLog};
use sag_model::ids::Role;
use sag_pipeline::nat::{
    Behavior, EntryHits, Kind, Limits, NatSpec, PrivateSnat, Service, StaticDnat, WanSnat,
};
use sag_pipeline::snapshot::{AddrSet, Port};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Keeps the counters of NAT entries over the daemon's life.
#[derive(Debug, Default)]
pub struct NatCompiler {
    hits: HashMap<String, Arc<EntryHits>>,
}

impl NatCompiler {
    /// What is to be translated, while the ports and the gateway have these addresses.
    pub(crate) fn compile(&mut self, config: &Config, ports: &[Port], local: &AddrSet) -> NatSpec {
        self.forget_removed(config);
        let own = |idx: PortIdx| ports.get(idx.index()).and_then(|p| p.addrs4.first()).map(|a| a.0);
        let wans = || config.ports().filter(|(_, p)| p.role == Role::Wan);
        let snat_ports: Vec<_> = wans().filter(|(_, p)| p.snat).collect();
        let wan = snat_ports
            .into_iter()
            .map(|(port, p)| WanSnat {
                port,
                addr: own(port),
                mapping: behavior(p.snat_behavior.mapping),
                filtering: behavior(p.snat_behavior.filtering),
                hits: self.hits(&format!("port {}", p.name)),
            })
            .collect();
        let private = config
            .snat
            .iter()
            .map(|e| PrivateSnat {
                prefix: (e.cidr_block.network(), e.cidr_block.prefix_len()),
                addr: e.snat_ip,
                mapping: behavior(e.behavior.mapping),
                filtering: behavior(e.behavior.filtering),
                hits: self.hits(&e.id),
            })
            .collect();
        let dnat = config.dnat.iter().map(|d| self.dnat(d)).collect();
        NatSpec {
            wan,
            private,
            dnat,
            wan_addrs: wans().filter_map(|(idx, _)| own(idx)).collect(),
            hairpin: config.nat.hairpin,
            limits: limits(config),
            local: local
                .iter()
                .filter_map(|a| match a {
                    IpAddr::V4(a) => Some(*a),
                    IpAddr::V6(_) => None,
                })
                .collect(),
        }
    }

    /// The counters of entries that are gone go with them.
    fn forget_removed(&mut self, config: &Config) {
        let ports: HashSet<_> = config.ports.iter().map(|p| format!("port {}", p.name)).collect();
        let entries =
            config.snat.iter().map(|e| e.id.as_str()).chain(config.dnat.iter().map(|d| d.id.as_str()));
        let entries: HashSet<&str> = entries.collect();
        self.hits.retain(|id, _| entries.contains(id.as_str()) || ports.contains(id));
    }

    fn dnat(&mut self, d: &config::Dnat) -> StaticDnat {
        StaticDnat {
            kind: match d.kind {
                DnatType::Internet => Kind::Internet,
                DnatType::Intranet => Kind::Intranet,
            },
            external: d.external_ip.into_iter().collect(),
            inside: d.internal_ip,
            service: match d.service {
                DnatService::Any => Service::Any,
                DnatService::Port { protocol, external, internal } => Service::Port {
                    proto: protocol,
                    external: external.first..=external.last,
                    inside_first: internal.first,
                },
            },
            own_address: d.external_ip.is_some(),
            hits: self.hits(&d.id),
        }
    }

    fn hits(&mut self, id: &str) -> Arc<EntryHits> {
        let new = || Arc::new(EntryHits { id: id.to_owned(), ..EntryHits::default() });
        self.hits.entry(id.to_owned()).or_insert_with(new).clone()
    }

    /// Sessions that an entry has made since the daemon started.
    pub fn sessions_made(&self, id: &str) -> u64 {
        self.hits.get(id).map_or(0, |h| h.sessions.load(std::sync::atomic::Ordering::Relaxed))
    }
}

fn behavior(b: NatBehavior) -> Behavior {
    match b {
        NatBehavior::EndpointIndependent => Behavior::EndpointIndependent,
        NatBehavior::AddressDependent => Behavior::AddressDependent,
        NatBehavior::AddressAndPortDependent => Behavior::AddressAndPortDependent,
    }
}

fn limits(config: &Config) -> Limits {
    let n = &config.nat;
    Limits {
        range: n.port_range.first..=n.port_range.last,
        host_sessions: n.host_sessions,
        host_share: config.dataplane.host_share,
        warn_percent: n.warn_percent,
        port_block: n.port_block,
        log_sessions: n.log == NatLog::Sessions,
        log_blocks: n.log == NatLog::Blocks,
    }
}
