//! From the raw form to [`Config`]: what concerns several keys, references between sections, repetitions. Single keys
//! are read by their declarations. Nothing stops at the first mistake; a section that is wrong yields no value but
//! its siblings are still validated.

mod acl;
mod dnat;
mod flow_log;
mod group;
mod ha;
mod nat;
mod nat64;
mod port;
mod port_mapping;
mod program;
mod qos;
mod route;
mod snat;
mod static_nat;
mod syn_cookies;
mod tunnel;
mod vrf;

use super::keys::{Config, RawConfig};
use super::report::{Path, Place, Report};
use super::scope::{Opt, Scope};
use super::types::TunnelIdx;
use super::value::one_of;
use crate::ids::{PortIdx, Role};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
pub use vrf::DEFAULT_VRF;

/// Sections that this version validates but does not act upon.
pub const NOT_ENFORCED: &[&str] = &["flow_log"];

/// `None`: the report says why.
pub(crate) fn validate(raw: &RawConfig, report: &mut Report<'_>) -> Option<Config> {
    let dataplane = program::dataplane(raw.dataplane.as_ref(), report);
    let timeouts = program::timeouts(raw.timeouts.as_ref(), report);
    let bandwidth = program::bandwidth(raw.bandwidth.as_ref(), report);
    let mut names = Names::collect(raw, report);
    let vrfs = vrf::vrfs(&raw.vrf, report);
    let ports = port::ports(&raw.port, &mut names, report);
    let neighbors = port::neighbors(&raw.neighbor, &names, report);
    let routes = route::routes(&raw.route, &names, report);
    let (groups, by_name) = group::groups(&raw.group, report);
    let acls = acl::acls(&raw.acl, (&names, &by_name), report);
    let qos = qos::qos(&raw.qos, bandwidth, (&names, &by_name), report);
    qos::committed_rates(&raw.qos, &qos, bandwidth, &ports, report);
    let (dnat, external) = dnat::dnat(&raw.dnat, &names, &by_name, report);
    let snat = snat::snat(&raw.snat, &names, (&by_name, &external), report);
    let static_nat = static_nat::static_nat(&raw.static_nat, &names, &snat, report);
    let nat64 = nat64::nat64(&raw.nat64, &external, report);
    let syn_cookies = syn_cookies::syn_cookies(&raw.syn_cookies, report);
    let nat = nat::nat(raw.nat.as_ref(), raw, report);
    let port_mapping = port_mapping::port_mapping(raw.port_mapping.as_ref(), raw, report);
    let tunnels = tunnel::tunnels(&raw.tunnel, &names, report);
    let own = ports.iter().flat_map(|p| {
        p.addresses.iter().map(move |a| ((p.vrf.clone(), a.addr()), format!("port {}", p.name)))
    });
    let own_inside = tunnels.iter().flat_map(|t| {
        t.addresses.iter().map(move |a| ((t.vrf.clone(), a.addr()), format!("tunnel {}", t.name)))
    });
    dnat::not_to_self(&raw.dnat, &own.chain(own_inside).collect(), report);
    let ha = raw.ha.as_ref().map(|h| ha::ha(h, report));
    let flow_log = raw.flow_log.as_ref().map(|f| flow_log::flow_log(f, report));
    warn_not_enforced(raw, report);
    if report.has_errors() {
        return None;
    }
    Some(Config {
        dataplane: dataplane?,
        timeouts: timeouts?,
        bandwidth: bandwidth?,
        vrfs,
        ports,
        neighbors,
        routes,
        groups,
        acls,
        qos,
        nat: nat?,
        snat,
        dnat,
        static_nat,
        nat64,
        port_mapping: port_mapping?,
        syn_cookies,
        tunnels,
        ha: match ha {
            Some(h) => Some(h?),
            None => None,
        },
        flow_log: match flow_log {
            Some(f) => Some(f?),
            None => None,
        },
    })
}

fn warn_not_enforced(raw: &RawConfig, report: &mut Report<'_>) {
    let first = |name: &str| match name {
        "flow_log" => raw.flow_log.as_ref().map(|f| f.span.clone()),
        _ => None,
    };
    for name in NOT_ENFORCED {
        if let Some(span) = first(name) {
            let remedy = "traffic passes as if it were not there";
            report.warn(&span, &Path::ROOT.key(name), "validated but not enforced by this version", remedy);
        }
    }
}

/// Where each key was first used; finds repetitions.
struct Seen<K>(HashMap<K, Place>);

impl<K: Eq + Hash> Seen<K> {
    fn new() -> Seen<K> {
        Seen(HashMap::new())
    }

    /// The place of the earlier use, if there was one.
    fn repeated(&mut self, key: K, place: Place) -> Option<Place> {
        match self.0.entry(key) {
            std::collections::hash_map::Entry::Occupied(e) => Some(e.get().clone()),
            std::collections::hash_map::Entry::Vacant(e) => {
                e.insert(place);
                None
            }
        }
    }
}

/// A port that others may refer to by name, wrong in other respects or not.
#[derive(Clone)]
struct Named {
    idx: PortIdx,
    role: Option<Role>,
    vrf: Option<String>,
}

/// Names that other sections refer to, and the addresses of the gateway.
struct Names {
    ports: HashMap<String, Named>,
    tunnels: HashMap<String, TunnelIdx>,
    vrfs: HashSet<String>,
    /// Devices of the ports.
    devices: HashSet<String>,
    /// By VRF. Filled while the ports are validated.
    addresses: Seen<(Option<String>, std::net::IpAddr)>,
}

impl Names {
    fn collect(raw: &RawConfig, report: &mut Report<'_>) -> Names {
        let mut ports = HashMap::new();
        let mut tunnels = HashMap::new();
        let mut seen = Seen::new();
        let mut unique = |name: &Opt<String>, path: &Path<'_>, report: &mut Report<'_>| {
            let name = name.as_ref()?;
            let path = path.key("name");
            if let Some(first) = seen.repeated(name.get_ref().clone(), report.place(&name.span(), &path)) {
                let problem = format!("{}: is taken by {first}", super::value::quote(name.get_ref()));
                report.error(&name.span(), &path, problem, "give each port and tunnel a name of its own", "");
                return None;
            }
            Some(name.get_ref().clone())
        };
        for (i, p) in raw.port.iter().enumerate() {
            let named = Named {
                idx: PortIdx(u8::try_from(i).unwrap_or(u8::MAX)),
                role: p.role.as_ref().and_then(|r| one_of(r.get_ref(), Role::WORDS).ok()),
                vrf: p.vrf.as_ref().map(|v| v.get_ref().clone()),
            };
            if let Some(name) = unique(&p.name, &Path::ROOT.item("port", i), report) {
                ports.insert(name, named);
            }
        }
        for (i, t) in raw.tunnel.iter().enumerate() {
            let idx = TunnelIdx(u16::try_from(i).unwrap_or(u16::MAX));
            if let Some(name) = unique(&t.name, &Path::ROOT.item("tunnel", i), report) {
                tunnels.insert(name, idx);
            }
        }
        let vrfs = raw.vrf.iter().filter_map(|v| Some(v.name.as_ref()?.get_ref().clone())).collect();
        let devices = raw.port.iter().filter_map(|p| Some(p.device.as_ref()?.get_ref().clone())).collect();
        Names { ports, tunnels, vrfs, devices, addresses: Seen::new() }
    }

    /// The forwarding port that a key refers to.
    fn port(&self, scope: &mut Scope<'_, '_>, key: &str, value: &Opt<String>) -> Option<PortIdx> {
        let value = value.as_ref()?;
        let name = super::value::quote(value.get_ref());
        match self.ports.get(value.get_ref()) {
            Some(Named { role: Some(Role::Mgmt), .. }) => {
                let problem = format!("{name}: is a port of role \"mgmt\", which the kernel keeps");
                let remedy = "name a lan, wan or express port, or configure this in the kernel";
                scope.error(&value.span(), key, problem, remedy, "Sag.PortRoleInvalid");
                None
            }
            Some(named) => Some(named.idx),
            None => {
                let remedy = list("ports are", self.ports.keys(), "add a [[port]] of that name");
                let problem = format!("{name}: there is no port of this name");
                scope.error(&value.span(), key, problem, remedy, "Sag.PortNotExist");
                None
            }
        }
    }

    /// Whether the VRF that an entry names exists; a name that is none has been reported. It is a value of its key.
    fn check_vrf(&self, scope: &mut Scope<'_, '_>, value: &Opt<String>) -> Option<()> {
        let Some(value) = value else { return Some(()) };
        if self.vrfs.contains(value.get_ref()) {
            return Some(());
        }
        let problem = format!("{}: there is no VRF of this name", super::value::quote(value.get_ref()));
        let remedy = list("VRFs are", self.vrfs.iter(), "add a [[vrf]] of that name");
        scope.error(&value.span(), "vrf", problem, remedy, "");
        None
    }

    /// The same of a rule, which names the default VRF too.
    fn check_rule_vrf(&self, scope: &mut Scope<'_, '_>, value: &Opt<String>) -> Option<()> {
        match value {
            Some(name) if name.get_ref() == DEFAULT_VRF => Some(()),
            _ => self.check_vrf(scope, value),
        }
    }

    /// The VRF of a port.
    fn vrf_of(&self, port: PortIdx) -> Option<String> {
        self.ports.values().find(|named| named.idx == port).and_then(|named| named.vrf.clone())
    }

    /// The role of a port, as far as the file says one.
    fn role(&self, name: &str) -> Option<Role> {
        self.ports.get(name)?.role
    }

    fn tunnel(&self, scope: &mut Scope<'_, '_>, key: &str, value: &Opt<String>) -> Option<TunnelIdx> {
        let value = value.as_ref()?;
        let found = self.tunnels.get(value.get_ref()).copied();
        if found.is_none() {
            let problem =
                format!("{}: there is no tunnel of this name", super::value::quote(value.get_ref()));
            let remedy = list("tunnels are", self.tunnels.keys(), "add a [[tunnel]] of that name");
            scope.error(&value.span(), key, problem, remedy, "");
        }
        found
    }
}

fn list<'n>(head: &str, names: impl Iterator<Item = &'n String>, none: &str) -> String {
    let mut names: Vec<_> = names.map(|n| super::value::quote(n)).collect();
    names.sort_unstable();
    if names.is_empty() { none.to_owned() } else { format!("{head} {}", names.join(", ")) }
}
