//! `[[group]]`, and the keys that name groups.

use super::{Seen, list};
use crate::config::keys::{Group, RawGroup};
use crate::config::report::{Path, Report};
use crate::config::schema::{Key, Network, Ports};
use crate::config::scope::{Opt, Scope};
use crate::config::types::{
    GroupMembers, MAX_GROUP_NETWORKS, MAX_GROUP_PORTS, NetworkGroup, NetworkMatch, PortGroup, PortMatch,
};
use crate::config::value::{self, quote};
use std::collections::BTreeMap;
use std::sync::Arc;
use toml::Spanned;

/// Groups by name; `None`: wrong in itself, which is reported.
pub(super) struct Groups(BTreeMap<String, Option<GroupMembers>>);

pub(super) fn groups(raw: &[RawGroup], report: &mut Report<'_>) -> (Vec<Group>, Groups) {
    let mut ids = Seen::new();
    let (mut out, mut by_name) = (Vec::with_capacity(raw.len()), BTreeMap::new());
    for (i, g) in raw.iter().enumerate() {
        let mut s = Scope::new(report, Path::ROOT.item("group", i), &g.span);
        let id = Group::KEYS.id.read(&mut s, &g.id);
        if let Some(id) = &id {
            super::acl::unique_id(&mut s, &g.id, id, &mut ids);
        }
        let read = g.read(&mut s);
        let members = id.as_ref().and_then(|id| members(g, id, &mut s));
        if let Some(id) = &id {
            by_name.entry(id.clone()).or_insert_with(|| members.clone());
        }
        out.extend(id.zip(members).and_then(|(id, members)| read.finish(id, members)));
    }
    (out, Groups(by_name))
}

fn members(raw: &RawGroup, id: &str, s: &mut Scope<'_, '_>) -> Option<GroupMembers> {
    match (&raw.networks, &raw.ports) {
        (Some(networks), None) => {
            let networks = items(s, "networks", networks, MAX_GROUP_NETWORKS, value::network)?;
            let v6 = networks.first().is_some_and(|(n, _)| n.addr().is_ipv6());
            if let Some((net, at)) = networks.iter().find(|(n, _)| n.addr().is_ipv6() != v6) {
                let problem = format!("{net} is of another IP version than the first network");
                s.error(at, "networks", problem, "make a group of each IP version", "");
                return None;
            }
            let networks = networks.into_iter().map(|(n, _)| n.trunc()).collect();
            Some(GroupMembers::Networks(NetworkGroup::new(id.to_owned(), networks).into()))
        }
        (None, Some(ports)) => {
            let ports = items(s, "ports", ports, MAX_GROUP_PORTS, value::group_ports)?;
            let ports = ports.into_iter().map(|(r, _)| r).collect();
            Some(GroupMembers::Ports(PortGroup::new(id.to_owned(), ports).into()))
        }
        (Some(_), Some(ports)) => {
            s.error(&ports.span(), "ports", "is given beside networks", "make two groups", "");
            None
        }
        (None, None) if s.is_mistyped("networks") || s.is_mistyped("ports") => None,
        (None, None) => {
            let at = s.span.clone();
            s.error(&at, "networks", "is missing: the group is empty", "write networks or ports", "");
            None
        }
    }
}

/// The items of a list with their places; `None` if one is wrong, there is none, or there are too many.
fn items<T>(
    s: &mut Scope<'_, '_>,
    key: &str,
    raw: &Spanned<Vec<Spanned<String>>>,
    most: usize,
    parse: impl Fn(&str) -> Result<T, value::Fault>,
) -> Option<Vec<(T, std::ops::Range<usize>)>> {
    let list = raw.get_ref();
    if list.is_empty() {
        s.error(
            &raw.span(),
            key,
            "is an empty group, which would match nothing",
            "add a member, or remove it",
            "",
        );
        return None;
    }
    if list.len() > most {
        let problem = format!("has {} members, more than {most}", list.len());
        s.error(&raw.span(), key, problem, "divide the group", "");
        return None;
    }
    let read: Vec<_> =
        list.iter().map(|item| s.parse(key, item, "", |t| parse(t)).map(|v| (v, item.span()))).collect();
    read.into_iter().collect()
}

impl Groups {
    /// The networks that a key names: its own or those of a group.
    pub(super) fn networks(
        &self,
        s: &mut Scope<'_, '_>,
        key: &Key<Network>,
        raw: &Opt<String>,
    ) -> Option<NetworkMatch> {
        let Some(named) = raw.as_ref().filter(|v| v.get_ref().starts_with('@')) else {
            return key.read(s, raw).map(NetworkMatch::One);
        };
        match self.find(s, key.info.name, named, "networks", |m| matches!(m, GroupMembers::Networks(_)))? {
            GroupMembers::Networks(group) => Some(NetworkMatch::Group(group)),
            GroupMembers::Ports(_) => None,
        }
    }

    /// The ports that a key names: its own or those of a group.
    pub(super) fn ports(
        &self,
        s: &mut Scope<'_, '_>,
        key: &Key<Ports>,
        raw: &Opt<String>,
    ) -> Option<PortMatch> {
        let Some(named) = raw.as_ref().filter(|v| v.get_ref().starts_with('@')) else {
            return key.read(s, raw).map(PortMatch::Range);
        };
        match self.find(s, key.info.name, named, "ports", |m| matches!(m, GroupMembers::Ports(_)))? {
            GroupMembers::Ports(group) => Some(PortMatch::Group(group)),
            GroupMembers::Networks(_) => None,
        }
    }

    /// The group of ports that a key names.
    pub(super) fn port_group(
        &self,
        s: &mut Scope<'_, '_>,
        key: &str,
        named: &Spanned<String>,
    ) -> Option<Arc<PortGroup>> {
        match self.find(s, key, named, "ports", |m| matches!(m, GroupMembers::Ports(_)))? {
            GroupMembers::Ports(group) => Some(group),
            GroupMembers::Networks(_) => None,
        }
    }

    fn find(
        &self,
        s: &mut Scope<'_, '_>,
        key: &str,
        named: &Spanned<String>,
        what: &str,
        fits: impl Fn(&GroupMembers) -> bool,
    ) -> Option<GroupMembers> {
        let text = named.get_ref();
        let found = self.0.get(text.strip_prefix('@').unwrap_or(text));
        let problem = match found {
            Some(Some(members)) if fits(members) => return Some(members.clone()),
            // Reported where the group is.
            Some(None) => return None,
            Some(Some(_)) => format!("{}: is not a group of {what}", quote(text)),
            None => format!("{}: there is no group of this name", quote(text)),
        };
        let names: Vec<String> = self
            .0
            .iter()
            .filter(|(_, members)| members.as_ref().is_some_and(&fits))
            .map(|(id, _)| format!("@{id}"))
            .collect();
        let remedy = list(
            &format!("groups of {what} are"),
            names.iter(),
            &format!("add a [[group]] of that id with {what}"),
        );
        s.error(&named.span(), key, problem, remedy, "");
        None
    }
}
