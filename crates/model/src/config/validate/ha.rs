//! `[ha]`.

use crate::config::keys::{Ha, RawHa};
use crate::config::report::{Path, Report};
use crate::config::scope::Scope;

/// Bytes of the key of the link.
const KEY_BYTES: usize = 32;
const KEY_REMEDY: &str = "write the path of the key's file, which `openssl rand -hex 32` makes";

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
    match (&raw.key_file, &raw.key) {
        (None, None) => s.missing("key_file", KEY_REMEDY, ""),
        (Some(_), Some(at)) => {
            let remedy = "write either the key or the path of its file";
            s.error(&at.span(), "key", "is there beside key_file", remedy, "");
        }
        _ => {}
    }
    if let (Some(Some(key)), Some(at)) = (&read.key, &raw.key)
        && key.expose().len() != KEY_BYTES
    {
        let problem = format!("has {} hex digits", 2 * key.expose().len());
        s.error(&at.span(), "key", &problem, "write 64, as `openssl rand -hex 32` makes them", "");
    }
    read.finish()
}
