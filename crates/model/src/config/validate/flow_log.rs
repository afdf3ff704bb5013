//! `[flow_log]`.

use super::scope::Scope;
use crate::config::raw::RawFlowLog;
use crate::config::report::{Path, Report};
use crate::config::types::{FlowLog, NetflowVersion};
use crate::config::value::{fault, quote};
use std::net::{IpAddr, SocketAddr};

/// Port of a collector that is given by address alone.
const NETFLOW_PORT: u16 = 9995;

pub(super) fn flow_log(raw: &RawFlowLog, report: &mut Report<'_>) -> Option<FlowLog> {
    let mut s = Scope::new(report, Path::ROOT.key("flow_log"), &raw.span);
    let active_aging =
        s.number("active_aging", &raw.active_aging, 60..=6_000, 300, "IllegalParam.ActiveAging");
    let inactive_aging =
        s.number("inactive_aging", &raw.inactive_aging, 10..=600, 15, "IllegalParam.InactiveAging");
    let server = s.need(
        "netflow_server",
        &raw.netflow_server,
        "write the collector's address and port, as in \"192.0.2.10:9995\"",
        "MissingParam.NetflowServerIp",
    );
    let netflow_server = server.and_then(|v| {
        let server = s.parse("netflow_server", v, "IllegalParam.NetflowServerIp", |t| collector(t))?;
        if server.port() == 0 {
            s.error(
                &v.span(),
                "netflow_server",
                "has port 0",
                "write a port from 1 to 65535",
                "IllegalParam.NetflowServerPort",
            );
            return None;
        }
        Some(server)
    });
    let netflow_version = s.word(
        "netflow_version",
        &raw.netflow_version,
        NetflowVersion::WORDS,
        Some(NetflowVersion::V9),
        "IllegalParam.NetflowVersion",
    );
    Some(FlowLog {
        active_aging: active_aging?,
        inactive_aging: inactive_aging?,
        netflow_server: netflow_server?,
        netflow_version: netflow_version?,
    })
}

fn collector(text: &str) -> Result<SocketAddr, crate::config::value::Fault> {
    let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, NETFLOW_PORT)));
    match parsed {
        Ok(server) if server.ip().is_unspecified() || server.ip().is_multicast() => {
            fault(format!("{}: is not the address of one host", quote(text)), "write the collector's address")
        }
        Ok(server) => Ok(server),
        Err(_) => fault(
            format!("{}: is not an address and port", quote(text)),
            "write it as in \"192.0.2.10:9995\" or \"[2001:db8::10]:9995\"",
        ),
    }
}
