//! SYN cookies: from the configuration and the current addresses of the ports to the services that are protected.

use sag_model::config::{Config, SynCookieMode};
use sag_model::flow::SynCookieControl;
use sag_model::ids::Role;
use sag_pipeline::snapshot::Port;
use sag_pipeline::syn_cookie::SynCookies;
use std::net::IpAddr;

/// The protected services, while the ports have these addresses. The number of a service is its place in the file.
pub(crate) fn compile(
    config: &Config,
    ports: &[Port],
    control: Option<&'static SynCookieControl>,
) -> SynCookies {
    let Some(control) = control else { return SynCookies::default() };
    let wans = || config.ports().filter(|(_, p)| p.role == Role::Wan);
    let addresses = || wans().filter_map(|(idx, _)| ports.get(idx.index())).flat_map(|p| &p.addrs4);
    let services = config.syn_cookies.iter().zip(0u8..).filter(|(s, _)| s.mode != SynCookieMode::Off);
    SynCookies::new(
        control,
        services.flat_map(|(s, no)| {
            let own: Vec<IpAddr> = match s.address {
                Some(addr) => vec![addr],
                None => addresses().map(|(a, _)| IpAddr::V4(*a)).collect(),
            };
            own.into_iter().map(move |addr| (addr, s.port, no))
        }),
    )
}
