use super::Page;
use crate::page::{Paint, hang, paint, plain};
use sag_model::control::{Explain, Rewritten, StageTrace};
use std::net::IpAddr;

pub fn explain(e: &Explain, page: &Page) -> String {
    let good = matches!(e.verdict.as_str(), "forward" | "to-kernel");
    let mut verdict = plain(&e.verdict);
    if let Some(port) = &e.out_port {
        verdict.push_str(&format!(" by port {}", plain(port)));
    }
    let crosses = e.out_port.is_some() && e.vrf != e.to_vrf;
    if let (Some(_), _) | (_, true) = (&e.vrf, crosses) {
        verdict.push_str(&format!(", from {}", vrf(&e.vrf)));
    }
    if crosses {
        verdict.push_str(&format!(" to {}", vrf(&e.to_vrf)));
    }
    if let Some(reason) = &e.reason {
        verdict.push_str(&format!(": {}", plain(reason)));
    }
    let mut out = paint(&verdict, if good { Paint::Good } else { Paint::Bad }, page);
    out.push('\n');
    let width =
        |text: fn(&StageTrace) -> &str| e.stages.iter().map(|s| text(s).chars().count()).max().unwrap_or(0);
    let (stage, result) = (width(|s| &s.stage), width(|s| &s.result));
    for s in &e.stages {
        let line = hang(&format!("  {:stage$}  {:result$}  ", s.stage, s.result), &s.detail, page);
        out.push_str(&paint(&line, if s.result == "drop" { Paint::Bad } else { Paint::Plain }, page));
    }
    if let Some(r) = &e.rewritten {
        out.push_str(&hang("leaves as ", &rewritten(r), page));
    }
    out
}

fn vrf(name: &Option<String>) -> String {
    name.as_ref().map_or("the default VRF".to_owned(), |name| format!("VRF {}", plain(name)))
}

fn rewritten(r: &Rewritten) -> String {
    let side = |address: Option<IpAddr>, port: Option<u16>| match (address, port) {
        (Some(IpAddr::V6(a)), Some(p)) => format!("[{a}]:{p}"),
        (Some(a), Some(p)) => format!("{a}:{p}"),
        (Some(a), None) => a.to_string(),
        (None, Some(p)) => format!("port {p}"),
        (None, None) => "?".into(),
    };
    let mut out = format!("{} > {}", side(r.src, r.sport), side(r.dst, r.dport));
    if let Some(ttl) = r.ttl {
        out.push_str(&format!(", TTL {ttl}"));
    }
    if let Some(dscp) = r.dscp {
        out.push_str(&format!(", DSCP {dscp}"));
    }
    if let Some(vlan) = r.vlan {
        out.push_str(&format!(", VLAN {}", vlan.get()));
    }
    if let (Some(src), Some(dst)) = (r.src_mac, r.dst_mac) {
        out.push_str(&format!(", {src} > {dst}"));
    }
    out
}
