//! What routes are decided by, apart from the kernel's own routes.

use super::{Sources, TunnelDevices};
use crate::kernel_vrfs::kernel_tables;
use crate::ports::PortBinding;
use ipnet::IpNet;
use sag_model::VrfNo;
use sag_model::config::{self, RouteTarget, TunnelIdx};
use sag_pipeline::tunnel::TunnelNo;
use std::collections::BTreeMap;

/// As long as these are the same, a change of the kernel's routes to a prefix changes nothing but that prefix.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Inputs {
    ports: Vec<config::Port>,
    routes: Vec<config::Route>,
    tunnels: Vec<TunnelInput>,
    vrfs: Vec<(String, VrfNo)>,
    bindings: Vec<PortBinding>,
    /// The kernel's tables that are those of VRFs.
    kernel_tables: BTreeMap<u32, String>,
    /// The kernel's devices of tunnels, with whether they are up.
    devices: BTreeMap<u32, (TunnelNo, bool)>,
}

/// What routes depend on of a tunnel.
#[derive(Debug, PartialEq, Eq)]
struct TunnelInput {
    no: Option<TunnelNo>,
    vrf: Option<String>,
    addresses: Vec<IpNet>,
    penalty: u32,
    down: bool,
}

impl Inputs {
    pub fn of(from: Sources<'_>) -> Inputs {
        let Sources { config, tables, bindings, tunnels, vrfs, .. } = from;
        let tunnel = |(i, t): (usize, &config::Tunnel)| {
            let no = tunnels.number(config, TunnelIdx(i as u16));
            TunnelInput {
                no,
                vrf: t.vrf.clone(),
                addresses: t.addresses.clone(),
                penalty: no.map_or(0, |no| tunnels.metric_penalty(no)),
                down: no.is_some_and(|no| tunnels.is_down(no)),
            }
        };
        let devices = TunnelDevices::of(config, tables, tunnels).by_ifindex;
        let is_up = |ifindex| tables.link(ifindex).is_some_and(|l| l.up);
        Inputs {
            ports: config.ports.clone(),
            routes: config.routes.clone(),
            tunnels: config.tunnels.iter().enumerate().map(tunnel).collect(),
            vrfs: config.vrfs.iter().map(|v| (v.name.clone(), vrfs.number(Some(&v.name)))).collect(),
            bindings: bindings.to_vec(),
            kernel_tables: kernel_tables(config, tables),
            devices: devices.into_iter().map(|(ifindex, no)| (ifindex, (no, is_up(ifindex)))).collect(),
        }
    }

    /// Whether a change of this prefix may change routes of the file to other ones, or is one of them: those whose next hop
    /// is looked for among the routes.
    pub fn is_searched(&self, prefix: &IpNet) -> bool {
        self.routes.iter().any(|r| match r.target {
            RouteTarget::Via { next_hop, port: None } => {
                r.destination.trunc() == *prefix || prefix.prefix_len() > 0 && prefix.contains(&next_hop)
            }
            _ => false,
        })
    }
}
