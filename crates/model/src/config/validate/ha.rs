//! `[ha]`.

use crate::config::keys::{Ha, RawHa};
use crate::config::report::{Path, Report};
use crate::config::scope::Scope;

pub(super) fn ha(raw: &RawHa, report: &mut Report<'_>) -> Option<Ha> {
    let mut s = Scope::new(report, Path::ROOT.key("ha"), &raw.span);
    let read = raw.read(&mut s);
    if let (Some(listen), Some(peer), Some(at)) = (read.listen, read.peer, &raw.peer) {
        let problem = if listen == peer {
            Some("is the gateway's own end")
        } else if listen.is_ipv4() != peer.is_ipv4() {
            Some("is of another family than listen")
        } else {
            None
        };
        if let Some(problem) = problem {
            s.error(&at.span(), "peer", problem, "write the other gateway's listen", "");
        }
    }
    read.finish()
}
