//! QoS: from the CARs, policies and bandwidths of the configuration to what is metered. Time windows of policies change that
//! without a new configuration.

use crate::acl::{FamilyRules, compile_tuple};
use crate::problem::Problem;
use crate::vrfs::VrfNumbers;
use sag_model::Zone;
use sag_model::config::{BURST_MS, CarLimit, Config, Mbps, QosPolicy as Rule, Timestamp};
use sag_pipeline::policy::Verdict;
use sag_pipeline::qos::{Car, MeteredPort, QosSpec, Rate};
use sag_pipeline::snapshot::Port;

/// Knows which QoS policies match at the moment.
#[derive(Debug, Default)]
pub struct QosCompiler {
    /// How far XDP's clock may be behind, in nanoseconds.
    pub slack: u32,
    /// Which policies matched at the last compilation.
    active: Vec<bool>,
}

impl QosCompiler {
    /// What is to be metered at a time.
    pub(crate) fn compile(
        &mut self,
        config: &Config,
        (ports, vrfs): (&[Port], &VrfNumbers),
        wall: Timestamp,
        problems: &mut Vec<Problem>,
    ) -> QosSpec {
        self.active = active(config, wall);
        self.wanted(config, (ports, vrfs), problems)
    }

    /// Which policies match, in the order of the file.
    pub fn active(&self) -> &[bool] {
        &self.active
    }

    /// Whether a time window has begun or ended since the last compilation.
    pub fn is_due(&self, config: &Config, wall: Timestamp) -> bool {
        self.active != active(config, wall)
    }

    fn wanted(
        &self,
        config: &Config,
        (ports, vrfs): (&[Port], &VrfNumbers),
        problems: &mut Vec<Problem>,
    ) -> QosSpec {
        let rate = |m: Option<Mbps>| m.map(|m| Rate::mbps(m.0.into()));
        let metered = config.ports().map(|(_, p)| MeteredPort {
            name: p.name.clone(),
            zone: p.zone(),
            rate: rate(p.bandwidth),
        });
        // Tunnels through a port count for it and for the overlay.
        let mut metered: Vec<_> = metered.collect();
        if !config.tunnels.is_empty() {
            let overlay = |m: &MeteredPort| m.zone.map(|_| Zone::Overlay);
            let inside: Vec<_> =
                metered.iter().map(|m| MeteredPort { zone: overlay(m), ..m.clone() }).collect();
            metered.extend(inside);
        }
        let mut wanted = QosSpec {
            overlay: rate(config.bandwidth.ccn),
            internet_up: rate(config.bandwidth.internet_up),
            ports: metered,
            link_burst_ms: BURST_MS.into(),
            overhead: config.bandwidth.overhead.into(),
            slack: self.slack,
            largest: ports.iter().map(|p| p.mtu.into()).max().unwrap_or(1500),
            ..QosSpec::default()
        };
        let mut policies = Vec::new();
        let mut active = self.active.iter();
        for q in &config.qos {
            let first = wanted.cars.len();
            for c in &q.cars {
                let (floor, ceiling) = c.limit.hundredths(&config.bandwidth);
                wanted.cars.push(Car {
                    id: c.id.clone(),
                    priority: c.priority,
                    committed: (floor > 0).then(|| Rate(floor * 10_000)),
                    peak: ceiling.map(|n| Rate(n * 10_000)),
                    burst_ms: c.burst_ms.into(),
                    remark: c.remark_dscp,
                });
            }
            for p in &q.policies {
                let car = q.cars.iter().position(|c| c.priority == p.priority);
                if let (Some(true), Some(car)) = (active.next(), car) {
                    policies.push((p, (first + car) as u32));
                }
            }
        }
        // Stable: equal priorities stay in the order of the file.
        policies.sort_by_key(|(p, _)| p.priority);
        for (p, slot) in policies {
            let verdict = Verdict { accept: true, slot };
            let vrf = p.vrf.as_deref().map(|name| vrfs.number(Some(name)));
            match compile_tuple(&p.tuple) {
                Some(FamilyRules::V4(parts)) => {
                    for r in parts {
                        wanted.dscp4.extend(p.dscp.map(|d| (wanted.v4.len(), d)));
                        wanted.vrf4.extend(vrf.map(|v| (wanted.v4.len(), v)));
                        wanted.v4.push((r, verdict.clone()));
                    }
                }
                Some(FamilyRules::V6(parts)) => {
                    for r in parts {
                        wanted.dscp6.extend(p.dscp.map(|d| (wanted.v6.len(), d)));
                        wanted.vrf6.extend(vrf.map(|v| (wanted.v6.len(), v)));
                        wanted.v6.push((r, verdict.clone()));
                    }
                }
                None => problems.push(Problem::MixedFamilies { rule: format!("QoS policy {}", p.id) }),
            }
        }
        wanted
    }
}

/// Which policies match at a time, in the order of the file.
fn active(config: &Config, wall: Timestamp) -> Vec<bool> {
    let within = |p: &Rule| p.start.is_none_or(|s| s <= wall) && p.end.is_none_or(|e| wall < e);
    config.qos.iter().flat_map(|q| &q.policies).map(within).collect()
}

/// The limit of a CAR, as reports show it.
pub fn limit_text(limit: &CarLimit) -> String {
    match limit {
        CarLimit::Absolute { .. } => "Absolute".to_owned(),
        CarLimit::Percent { min, max, of } => format!("{min}..{max} % of {of}"),
    }
}
