//! `[flow_log]`.

use crate::config::keys::{FlowLog, RawFlowLog};
use crate::config::report::{Path, Report};
use crate::config::scope::Scope;

pub(super) fn flow_log(raw: &RawFlowLog, report: &mut Report<'_>) -> Option<FlowLog> {
    let mut s = Scope::new(report, Path::ROOT.key("flow_log"), &raw.span);
    let read = raw.read(&mut s);
    // The API has an error code of its own for the port.
    if let (Some(server), Some(at)) = (read.netflow_server, &raw.netflow_server)
        && server.port() == 0
    {
        let remedy = "write a port from 1 to 65535";
        s.error(&at.span(), "netflow_server", "has port 0", remedy, "IllegalParam.NetflowServerPort");
    }
    read.finish()
}
