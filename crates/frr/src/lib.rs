//! BGP and OSPF by [FRR](https://frrouting.org): the daemons run in a place of their own, beside those that the machine
//! may have, with a configuration that is made whole from [`Settings`].
//!
//! A [`service`] owns them. It alone needs privileges: FRR's daemons begin as root, and zebra keeps `CAP_SYS_ADMIN`. It takes
//! typed settings on a socket ([`Client`]), makes `frr.conf`, has FRR's own checker read it, has FRR's own reload apply
//! what differs, starts daemons that have ended, and answers with a [`Status`]. It takes no line of configuration, no
//! file and no program from anybody. It owns keepalived the same way, which gives a virtual address to one of two devices, and pppd, which
//! dials lines to the Internet.
//!
//! ```
//! use sag_frr::{Bgp, Neighbor, Settings, Side};
//!
//! let bgp = Bgp {
//!     router_id: "192.0.2.1".parse()?,
//!     local_as: 65001,
//!     hold_time: 9,
//!     keepalive: 3,
//!     max_prefixes: 10_000,
//!     neighbors: vec![Neighbor {
//!         port: "3".to_owned(),
//!         address: "198.51.100.129".parse()?,
//!         remote_as: 65002,
//!         key: None,
//!         side: Side::Outside,
//!         hops: 1,
//!     }],
//!     branch: vec!["10.1.0.0/24".parse()?],
//!     beyond: Vec::new(),
//! };
//! let settings = Settings { bgp: Some(bgp), ..Settings::default() };
//! assert!(!settings.is_off());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod client;
mod daemons;
mod keepalived;
mod observe;
mod pppoe;
mod render;
pub mod service;
mod settings;
mod status;
mod takeover;
mod tools;
mod vty;

pub use client::{CONTROL, Client, ClientError, PLACE, place};
pub use settings::{
    Authentication, Bgp, DEVICE4, DEVICE6, Interface, Key, Neighbor, Ospf, PppoeDevices, PppoeLine, Settings,
    Side, Vrrp,
};
pub use status::{
    Daemon, Installed, Neighbor as NeighborState, PppoeState, Problem, RouteCount, Status, VrrpState,
};
pub use takeover::Sessions;

use std::path::Path;

/// What of the settings cannot be put in force, as far as they show it themselves: known before the service has seen them.
pub fn unusable(settings: &Settings) -> Vec<Problem> {
    render::checked(settings).1
}

/// What is installed of FRR on this machine, and which packages are missing. Of PPPoE the service knows.
pub fn installed() -> Installed {
    tools::installed(Path::new(tools::FRR_DIR))
}

/// Whether pppd is installed. Whether it can be used is known to the service, which asks the kernel.
pub fn has_pppd() -> bool {
    pppoe::is_installed()
}
