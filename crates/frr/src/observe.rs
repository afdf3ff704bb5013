//! What the daemons say of their neighbors and routes, and which of them say nothing.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::daemons::Daemons;
use crate::status::{Neighbor, RouteCount, bfd_states, bgp_neighbors, ospf_neighbors, route_counts};
use crate::tools::Places;
use crate::vty;

/// What was seen in one round of questions.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) neighbors: Vec<Neighbor>,
    pub(crate) routes: Vec<RouteCount>,
    /// One has not answered.
    pub(crate) silent: bool,
}

/// Asks those that run. One that does not answer is asked once, since everybody waits for it meanwhile.
pub(crate) fn observe(daemons: &mut Daemons, places: &Places) -> Seen {
    let mut seen = Seen::default();
    let mut silent = BTreeSet::new();
    let mut show = |daemon: &'static str, what: &str| {
        if !daemons.runs(daemon) || silent.contains(daemon) {
            return Value::Null;
        }
        let said = vty::show(&places.vty(daemon), &format!("show {what} json"));
        let is_silent = said.as_ref().is_err_and(sag_daemons::is_timeout);
        daemons.heard(daemon, !is_silent);
        if is_silent {
            silent.insert(daemon);
        }
        said.inspect_err(|error| tracing::debug!(daemon, %error, "no answer")).unwrap_or_default()
    };
    seen.neighbors.extend(bgp_neighbors(&show("bgpd", "bgp summary")));
    seen.neighbors.extend(ospf_neighbors(&show("ospfd", "ip ospf neighbor")));
    let states = bfd_states(&show("bfdd", "bfd peers"));
    for n in &mut seen.neighbors {
        n.bfd = states.get(&n.address).cloned().unwrap_or_default();
    }
    seen.routes.extend(route_counts(4, &show("zebra", "ip route summary")));
    seen.routes.extend(route_counts(6, &show("zebra", "ipv6 route summary")));
    seen.silent = !silent.is_empty();
    seen
}

/// The first of these that does not answer.
pub(crate) fn first_silent(
    daemons: &mut Daemons,
    places: &Places,
    names: &[&'static str],
) -> Option<&'static str> {
    names.iter().copied().find(|name| {
        let answers = vty::answers(&places.vty(name));
        daemons.heard(name, answers);
        !answers
    })
}
