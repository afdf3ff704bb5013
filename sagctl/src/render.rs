//! Answers as people read them. Text in, text out: no terminal and no clock in here.

mod acl;
mod config;
mod explain;
mod ha;
mod lan;
mod nat;
mod ports;
mod qos;
mod routes;
mod routing;
mod sessions;
mod status;
mod tunnels;

#[cfg(test)]
mod tests;

pub use acl::{acl, log as acl_log};
pub use config::{applied as config_applied, diff as config_diff, show as config_show};
pub use explain::explain;
pub use ha::ha;
pub use lan::{dhcp, dns};
pub use nat::{bindings as nat_bindings, count as nat_binding_count, mappings as nat_mappings, nat};
pub use ports::{drops, ports};
pub use qos::qos;
pub use routes::routes;
pub use routing::routing;
pub use sessions::{count as session_count, flushed, sessions, top};
pub use status::status;
pub use tunnels::{confirmed, rekeyed, tunnels};

use crate::page::{Page, Paint, hang, paint};

/// An earlier answer, from which rates are computed.
#[derive(Debug)]
pub struct Before<'a, T> {
    pub then: &'a T,
    pub seconds: f64,
}

impl<T> Before<'_, T> {
    /// Increase of a counter per second; 0 if it was reset in between.
    fn rate(&self, then: u64, now: u64) -> f64 {
        if self.seconds > 0.0 { now.saturating_sub(then) as f64 / self.seconds } else { 0.0 }
    }
}

fn warnings(lines: &[String], page: &Page) -> String {
    lines.iter().map(|w| paint(&hang("warning: ", w, page), Paint::Bad, page)).collect()
}
