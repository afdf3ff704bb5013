//! What a gateway serves its LANs with, by [dnsmasq](https://thekelleys.org.uk/dnsmasq/doc.html): addresses (DHCP server and
//! relay), names (DNS forwarder), and router advertisements.
//!
//! One daemon serves all LAN ports, beside any that the machine may have: it reads no file but those which are made whole
//! from [`Settings`], and it answers on the devices of LAN ports alone. A [`Service`] makes the files, has dnsmasq's own
//! checker read them, starts the daemon, has it read again what it can while it runs, and starts it again when it has ended.
//!
//! ```
//! use sag_dnsmasq::{Port, Range, Serves, Settings};
//!
//! let range = Range::new("192.0.2.1/26".parse()?, None, None, 60)?;
//! assert_eq!((range.first.to_string(), range.last.to_string()), ("192.0.2.1".into(), "192.0.2.62".into()));
//! let port = Port {
//!     name: "1".to_owned(),
//!     device: "lan-a".to_owned(),
//!     serves: Some(Serves::Range(range)),
//!     advertises: false,
//!     advertises_by: None,
//! };
//! assert!(!Settings { ports: vec![port], ..Settings::default() }.is_off());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod leases;
mod place;
mod render;
mod service;
mod settings;
mod status;

pub use leases::Lease;
pub use place::{PLACE, STATUS, place};
pub use service::{Places, Service};
pub use settings::{
    Dns, Forward, NOWHERE, Port, Range, Reservation, Serves, Settings, Upstream, VirtualRouter, is_mac,
    is_name,
};
pub use status::{Domain, PortStatus, Problem, Status};

use std::path::{Path, PathBuf};

/// The package that has the program, as Debian calls it.
pub const PACKAGE: &str = "dnsmasq-base";

/// Why a machine without the program serves nothing.
pub fn not_installed() -> String {
    format!("not installed: {PACKAGE}")
}

/// The program, if it is installed.
pub fn program() -> Option<PathBuf> {
    let usual = ["/usr/sbin/dnsmasq", "/usr/local/sbin/dnsmasq"];
    usual.iter().map(Path::new).find(|p| p.exists()).map(Path::to_owned)
}
