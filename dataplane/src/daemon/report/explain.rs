//! `explain`: sends a constructed packet through the code that forwards.

use crate::daemon::view::View;
use sag_model::config::DEFAULT_VRF;
use sag_model::control::{self, Error, ErrorCode, ExplainQuery};
use sag_model::{DropReason, PortIdx, VlanId, VrfNo};
use sag_packet::checksum;
use sag_packet::proto::*;
use sag_pipeline::snapshot::{Port, Route, Snapshot};
use sag_pipeline::stages::Disposition;
use sag_pipeline::worker::Explained;
use std::net::IpAddr;

pub fn explain(d: &View<'_>, q: &ExplainQuery) -> Result<control::Explain, Error> {
    let bad = |m: String, r: &str| Error::new(ErrorCode::BadRequest, m, r);
    let port = ingress(d, q)?;
    let Some(frame) = build(q, port.mac.0, port.vlan) else {
        return Err(bad(
            "source and destination are of different IP versions, or the length is too short".into(),
            "give two addresses of one version and a length that holds the headers",
        ));
    };
    let (steps, end) = d.flows.explainer.explain(&d.publisher.snapshot, port.dev, &frame);
    let (verdict, reason) = outcome(&end);
    let count = steps.0.len();
    let stages = steps
        .0
        .into_iter()
        .enumerate()
        .map(|(i, (stage, detail))| control::StageTrace {
            stage: stage.name().to_owned(),
            // The last step is that of the stage that stopped the packet.
            result: match (&end, i + 1 == count) {
                (Explained::Stopped(_), true) => verdict.to_owned(),
                _ => "pass".to_owned(),
            },
            detail,
        })
        .collect();
    let vrf_name = |vrf| d.compiler.vrfs.name(vrf).map(str::to_owned);
    let to_vrf = match &end {
        Explained::Forward(way) => vrf_name(way.zone.vrf()),
        Explained::Stopped(_) => None,
    };
    let (out_port, rewritten) = match end {
        Explained::Forward(way) => {
            let nh = d.publisher.snapshot.nexthop(way.nexthop);
            let to = way.dnat.map(|d| d.to);
            let rewritten = control::Rewritten {
                src: Some(way.snat.map(|s| s.addr.into()).or(way.npt.src.map(Into::into)).unwrap_or(q.src)),
                dst: Some(to.map(|t| t.addr.into()).or(way.npt.dst.map(Into::into)).unwrap_or(q.dst)),
                // The port is assigned when the session is created: the source port stays if it is free then.
                sport: Some(way.snat.and_then(|s| s.port).unwrap_or(q.sport)),
                dport: Some(to.filter(|_| q.dport != 0).map_or(q.dport, |t| t.port)),
                ttl: Some(q.ttl.unwrap_or(64).saturating_sub(1)),
                dscp: d.publisher.snapshot.qos.remark(way.meters),
                src_mac: nh.map(|n| n.smac),
                dst_mac: nh.map(|n| n.dmac),
                vlan: nh.and_then(|n| VlanId::new(n.vlan)),
            };
            (d.publisher.snapshot.port(way.port).map(|p| p.name.clone()), Some(rewritten))
        }
        Explained::Stopped(_) => (None, None),
    };
    let (verdict, vrf) = (verdict.to_owned(), vrf_name(port.vrf));
    Ok(control::Explain { verdict, reason, vrf, to_vrf, stages, out_port, rewritten })
}

/// The port on which the packet arrives: that of the query, or of its VRF the one by which the source is reached, else the
/// first.
fn ingress<'d>(d: &View<'d>, q: &ExplainQuery) -> Result<&'d Port, Error> {
    let bad = |m: String, r: &str| Error::new(ErrorCode::BadRequest, m, r);
    let snapshot: &'d Snapshot = &d.publisher.snapshot;
    let is_ours = |idx: PortIdx| d.running.config.port(idx).is_some_and(|p| p.zone().is_some());
    let vrf = q.vrf.as_deref().map(|name| vrf_number(d, name)).transpose()?;
    let Some(name) = &q.port else {
        let vrf = vrf.ok_or_else(|| {
            bad("neither port nor vrf is given".into(), "say on which port the packet arrives")
        })?;
        let of_vrf = |idx: PortIdx| is_ours(idx) && snapshot.port(idx).is_some_and(|p| p.vrf == vrf);
        let towards = match snapshot.route_in(vrf, q.src) {
            Some(Route::Via(members)) => {
                members.iter().filter(|m| m.tunnel.is_none()).map(|m| m.port).find(|p| of_vrf(*p))
            }
            _ => None,
        };
        let any = || d.running.config.ports().map(|(idx, _)| idx).find(|idx| of_vrf(*idx));
        let port = towards.or_else(any).and_then(|idx| snapshot.port(idx));
        return port.ok_or_else(|| bad("the VRF has no port".into(), "name a port with --port"));
    };
    let Some(idx) = d.running.config.port_by_name(name) else {
        let names: Vec<_> = d.running.config.ports.iter().map(|p| p.name.as_str()).collect();
        let remedy = format!("the ports are: {}", names.join(", "));
        return Err(Error::new(ErrorCode::NotFound, format!("no port has the name {name:?}"), remedy));
    };
    let Some(port) = snapshot.port(idx).filter(|_| is_ours(idx)) else {
        return Err(bad(format!("port {name:?} is left to the kernel"), "name a lan, wan or express port"));
    };
    match vrf {
        Some(vrf) if vrf != port.vrf => {
            Err(bad(format!("port {name:?} is not in that VRF"), "leave out one of the two"))
        }
        _ => Ok(port),
    }
}

fn vrf_number(d: &View<'_>, name: &str) -> Result<VrfNo, Error> {
    if name != DEFAULT_VRF && !d.running.config.vrfs.iter().any(|v| v.name == name) {
        let names: Vec<_> = d.running.config.vrfs.iter().map(|v| v.name.as_str()).collect();
        let remedy = format!("the VRFs are: {}", [&[DEFAULT_VRF], &*names].concat().join(", "));
        return Err(Error::new(ErrorCode::NotFound, format!("no VRF has the name {name:?}"), remedy));
    }
    Ok(d.compiler.vrfs.number(Some(name)))
}

/// The packet of a query, with right checksums and lengths.
fn build(q: &ExplainQuery, mac: [u8; 6], vlan: u16) -> Option<Vec<u8>> {
    let proto = q.proto.0;
    let mut l4 = match proto {
        TCP => {
            let mut h = vec![0u8; 20];
            h[12] = 0x50;
            h[13] = q.tcp_flags.unwrap_or(TCP_ACK);
            h
        }
        UDP | ICMP | ICMPV6 => vec![0u8; 8],
        _ => Vec::new(),
    };
    let header = if q.src.is_ipv4() { IPV4_LEN } else { IPV6_LEN };
    if let Some(total) = q.length {
        let want = usize::from(total).checked_sub(header).filter(|n| *n >= l4.len())?;
        l4.resize(want, 0);
    }
    match proto {
        TCP | UDP => {
            l4[0..2].copy_from_slice(&q.sport.to_be_bytes());
            l4[2..4].copy_from_slice(&q.dport.to_be_bytes());
            if proto == UDP {
                let len = l4.len() as u16;
                l4[4..6].copy_from_slice(&len.to_be_bytes());
            }
        }
        ICMP | ICMPV6 => {
            l4[0] = q.icmp_type.unwrap_or(if proto == ICMP { 8 } else { 128 });
            l4[1] = q.icmp_code.unwrap_or(0);
            l4[4..6].copy_from_slice(&q.sport.to_be_bytes());
        }
        _ => {}
    }
    let (ttl, tos) = (q.ttl.unwrap_or(64), q.dscp.map_or(0, |d| d.get() << 2));
    let mut ip = Vec::with_capacity(header + l4.len());
    match (q.src, q.dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            ip.extend_from_slice(&[0x45, tos]);
            ip.extend_from_slice(&((header + l4.len()) as u16).to_be_bytes());
            ip.extend_from_slice(&[0, 0, 0x40, 0, ttl, proto, 0, 0]);
            ip.extend_from_slice(&s.octets());
            ip.extend_from_slice(&d.octets());
            let check = checksum::finish(checksum::sum(&ip));
            ip[10..12].copy_from_slice(&check.to_ne_bytes());
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            ip.extend_from_slice(&[0x60 | tos >> 4, tos << 4, 0, 0]);
            ip.extend_from_slice(&(l4.len() as u16).to_be_bytes());
            ip.extend_from_slice(&[proto, ttl]);
            ip.extend_from_slice(&s.octets());
            ip.extend_from_slice(&d.octets());
        }
        _ => return None,
    }
    ip.extend_from_slice(&l4);
    let mut frame = Vec::with_capacity(18 + ip.len());
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 0xFE]);
    if vlan != 0 {
        frame.extend_from_slice(&ETHERTYPE_VLAN.to_be_bytes());
        frame.extend_from_slice(&vlan.to_be_bytes());
    }
    let ethertype = if q.src.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(&ip);
    Some(frame)
}

/// The verdict, and the reason if there is one.
fn outcome(e: &Explained) -> (&'static str, Option<String>) {
    match e {
        Explained::Forward(_) => ("forward", None),
        Explained::Stopped(Disposition::Kernel) => {
            ("to-kernel", Some("addressed to the gateway or its links".to_owned()))
        }
        Explained::Stopped(Disposition::Drop { reason, .. }) => ("drop", Some(reason.name().to_owned())),
        Explained::Stopped(Disposition::SessionInvalid) => {
            ("drop", Some(DropReason::IcmpUnmatched.name().to_owned()))
        }
        Explained::Stopped(Disposition::Unresolved { to, .. }) => {
            ("held", Some(format!("{to} is not resolved yet")))
        }
    }
}
