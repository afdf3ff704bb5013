//! The maps of a loaded gateway, and byte-level access with errors that name the map.

use crate::error::MapError;
use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};
use std::os::fd::{AsFd, BorrowedFd};

macro_rules! maps {
    ($($field:ident = $skel:ident $name:literal),* $(,)?) => {
        /// Own handles of every map; the names are those of the pins.
        #[derive(Debug)]
        pub(crate) struct Maps { $(pub(crate) $field: MapHandle,)* }

        impl Maps {
            pub(crate) fn from_skel(maps: &crate::skel::GwMaps<'_>) -> libbpf_rs::Result<Maps> {
                Ok(Maps { $($field: MapHandle::try_from(&maps.$skel)?,)* })
            }

            pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, BorrowedFd<'_>)> {
                [$(($name, self.$field.as_fd()),)*].into_iter()
            }
        }

        /// The maps of a program that is not loaded yet, with their names.
        pub(crate) fn open_maps<'a, 'obj>(
            maps: &'a mut crate::skel::OpenGwMaps<'obj>,
        ) -> impl Iterator<Item = (&'static str, &'a mut libbpf_rs::OpenMapMut<'obj>)> {
            [$(($name, &mut maps.$skel),)*].into_iter()
        }
    };
}

maps! {
    // The map of the program's global variables, which is one: `gw_shared`.
    shared = bss "gw_shared",
    vlans = gw_vlans "gw_vlans",
    macs = gw_other_macs "gw_other_macs",
    local4 = gw_local4 "gw_local4",
    local6 = gw_local6 "gw_local6",
    nat_ports = gw_nat_ports "gw_nat_ports",
    ip_ids = gw_ip_ids "gw_ip_ids",
    xsks = gw_xsks "gw_xsks",
    devs = gw_devs "gw_devs",
    flows4 = gw_flows4 "gw_flows4",
    flows6 = gw_flows6 "gw_flows6",
    index4 = gw_index4 "gw_index4",
    index6 = gw_index6 "gw_index6",
    meters = gw_meters "gw_meters",
    meter_groups = gw_meter_sets "gw_meter_sets",
    passed = gw_passed "gw_passed",
    tunnels = gw_tunnels "gw_tunnels",
    tunnel_ends = gw_tunnel_ends "gw_tunnel_ends",
    tunnel_stats = gw_tunnel_stats "gw_tunnel_stats",
    syn_services = gw_syn_services "gw_syn_services",
    syn_stats = gw_syn_stats "gw_syn_stats",
    sequences4 = gw_sequences4 "gw_sequences4",
    sequences6 = gw_sequences6 "gw_sequences6",
    stats = gw_stats "gw_stats",
    reasons = gw_reasons "gw_reasons",
}

fn failed<'a>(
    map: &'static str,
    verb: &'static str,
    what: impl std::fmt::Display + 'a,
) -> impl FnOnce(libbpf_rs::Error) -> MapError + 'a {
    move |source| MapError::Map { map, what: format!("{verb} {what}"), source }
}

pub(crate) fn put(
    m: &MapHandle,
    map: &'static str,
    what: impl std::fmt::Display,
    key: &[u8],
    value: &[u8],
) -> Result<(), MapError> {
    m.update(key, value, MapFlags::ANY).map_err(failed(map, "cannot set", what))
}

/// Removes an entry; one that is not there is removed already.
pub(crate) fn take(
    m: &MapHandle,
    map: &'static str,
    what: impl std::fmt::Display,
    key: &[u8],
) -> Result<(), MapError> {
    match m.delete(key) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        r => r.map_err(failed(map, "cannot remove", what)),
    }
}

/// Makes the entries of a hash map exactly `want`, without a moment in which a key of both the old
/// and the new set is missing: the kernel links the new entry of a key in front of the old one. What is
/// right already is only looked at. True if a key was not there.
pub(crate) fn replace(m: &MapHandle, map: &'static str, want: &[(Vec<u8>, u32)]) -> Result<bool, MapError> {
    let mut new = false;
    for (key, value) in want {
        let value = value.to_ne_bytes();
        let there = m.lookup(key, MapFlags::ANY).map_err(failed(map, "cannot look up", "an address"))?;
        if there.as_deref() == Some(value.as_slice()) {
            continue;
        }
        new |= there.is_none();
        put(m, map, "an address", key, &value)?;
    }
    let surplus: Vec<Vec<u8>> = m.keys().filter(|k| !want.iter().any(|(w, _)| w == k)).collect();
    for key in &surplus {
        take(m, map, "an address", key)?;
    }
    Ok(new)
}
