//! The C side's layouts against the Rust views of the same memory. A disagreement with `include/gw_abi.h` does not compile,
//! or fails the tests below.

use crate::mapped::{NatLine, PortSlot, SharedBlock};
use crate::skel::types;
use sag_model::flow::{
    Bucket, ControlBlock, FlowRecord4, FlowRecord6, NextHopRecord, RevalidationQueue, SynCookieControl,
};
use sag_model::meter::{Meter, MeterGroup};
use sag_model::tunnel::{TUNNEL_HEADER, TunnelRecord};
use sag_model::{DropReason, PortIdx};
use std::mem::offset_of;

macro_rules! same_offsets {
    ($c:ty, $rust:ty: $($cf:ident = $rf:ident),* $(,)?) => {
        const _: () = {
            assert!(size_of::<$c>() == size_of::<$rust>());
            $(assert!(offset_of!($c, $cf) == offset_of!($rust, $rf));)*
        };
    };
}

same_offsets!(types::gw_flow4, FlowRecord4:
    key_addrs = key_addrs, key_l4 = key_l4, new_saddr = new_addrs, new_sport = new_ports,
    nexthop = action, epoch = epoch, last_seen = last_seen, packets = packets, bytes = bytes);
same_offsets!(types::gw_flow6, FlowRecord6:
    saddr = src, daddr = dst, key_l4 = key_l4, nexthop = action, epoch = epoch,
    last_seen = last_seen, packets = packets, bytes = bytes, new_saddr = new_src,
    new_daddr = new_dst, new_sport = new_ports);
same_offsets!(types::gw_bucket, Bucket: word = word);
same_offsets!(types::gw_nexthop, NextHopRecord: dmac = dmac_vlan, smac = smac_mtu, ifindex = dev);
same_offsets!(types::gw_control, ControlBlock:
    abi_version = abi_version, epoch = epoch, seed = seed, index4 = index4, index6 = index6,
    fail_action = fail_action, fast_path = fast_path,
    guard_interval = guard_interval, guard_burst = guard_burst, revalidation_credit = revalidation_credit,
    epoch_since = epoch_since, nexthops_from = nexthops_from, tunnels = tunnels);
same_offsets!(types::gw_meter, Meter:
    tat = tat, committed_tat = committed_tat, cost = cost, committed_cost = committed_cost, burst = burst,
    committed_burst = committed_burst, id = id);
same_offsets!(types::gw_meter_group, MeterGroup:
    car = car, links = links, overhead = overhead, remark = remark, slack = slack, borrow_limit = borrow_limit,
    passed_bytes = passed_bytes, car_dropped_bytes = car_dropped_bytes,
    link_dropped_bytes = link_dropped_bytes);
same_offsets!(types::gw_tunnel, TunnelRecord: header = word);
same_offsets!(types::gw_port, PortSlot: flags = head, mac = mac);
same_offsets!(types::gw_nat_line, NatLine:);
same_offsets!(types::gw_shared, SharedBlock: control = control, ports = ports, nexthops = nexthops,
    revalidations = revalidations, syn = syn);
same_offsets!(types::gw_syn_control, SynCookieControl: secret = secret, active = active, slot = slot,
    services = services, mss4 = mss4, mss6 = mss6);
same_offsets!(types::gw_revalidation_queue, RevalidationQueue: sent = sent, taken = taken, since = since);

// Where the words of the atomic views keep their parts.
const _: () = {
    assert!(offset_of!(types::gw_flow4, new_daddr) == offset_of!(types::gw_flow4, new_saddr) + 4);
    assert!(offset_of!(types::gw_flow4, new_dport) == offset_of!(types::gw_flow4, new_sport) + 2);
    assert!(offset_of!(types::gw_flow4, l3_delta) == offset_of!(types::gw_flow4, new_sport) + 4);
    assert!(offset_of!(types::gw_flow4, l4_delta) == offset_of!(types::gw_flow4, new_sport) + 6);
    assert!(offset_of!(types::gw_flow6, new_dport) == offset_of!(types::gw_flow6, new_sport) + 2);
    assert!(offset_of!(types::gw_flow6, l4_delta) == offset_of!(types::gw_flow6, new_sport) + 4);
    assert!(offset_of!(types::gw_flow4, meter) == offset_of!(types::gw_flow4, nexthop) + 2);
    assert!(offset_of!(types::gw_flow4, action) == offset_of!(types::gw_flow4, nexthop) + 4);
    assert!(offset_of!(types::gw_flow4, flags) == offset_of!(types::gw_flow4, nexthop) + 5);
    assert!(offset_of!(types::gw_flow4, tunnel) == offset_of!(types::gw_flow4, nexthop) + 6);
    assert!(offset_of!(types::gw_flow4, nh_gen) == offset_of!(types::gw_flow4, nexthop) + 7);
    assert!(offset_of!(types::gw_flow6, nh_gen) == offset_of!(types::gw_flow6, nexthop) + 7);
    assert!(offset_of!(types::gw_nexthop, vlan) == 6 && offset_of!(types::gw_nexthop, mtu) == 14);
    assert!(offset_of!(types::gw_nexthop, dev) == 20 && offset_of!(types::gw_nexthop, port) == 21);
    assert!(offset_of!(types::gw_nexthop, flags) == 23);
    assert!(offset_of!(types::gw_port, zone) == 1 && offset_of!(types::gw_port, port) == 2);
    assert!(offset_of!(types::gw_port, dev) == 3 && offset_of!(types::gw_port, ifindex) == 4);
    assert!(offset_of!(types::gw_tunnel, mac) == TUNNEL_HEADER);
    assert!(offset_of!(types::gw_tunnel, len) == 88 && offset_of!(types::gw_tunnel, mtu) == 90);
    assert!(offset_of!(types::gw_tunnel, flags) == 92 && offset_of!(types::gw_tunnel, sum) == 94);
    assert!(offset_of!(types::gw_tunnel, ingress) == 96 && offset_of!(types::gw_tunnel, vrf) == 104);
    assert!(size_of::<types::gw_end>() == 40 && offset_of!(types::gw_end, id) == 32);
    assert!(offset_of!(types::gw_end, port) == 36 && offset_of!(types::gw_end, proto) == 38);
    assert!(size_of::<types::gw_vlan_key>() == 8);
    assert!(size_of::<types::gw_syn_service>() == 20 && offset_of!(types::gw_syn_service, port) == 16);
    assert!(size_of::<types::gw_stats>() == 64 * (1 + PortIdx::MAX));
    assert!(size_of::<types::gw_reasons>() == 8 * (DropReason::COUNT + 16 + 8));
    assert!(DropReason::COUNT == 128 && PortIdx::MAX == 64);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{
        ABI_VERSION, MAX_DEVS, MAX_NEXTHOPS, NAT_SLOT_WORDS, NAT_SLOTS, PORT_SLOTS, PuntMeta, PuntReason,
        QUEUES_PER_DEV,
    };
    use std::collections::BTreeMap;

    const HEADER: &str = include_str!("../include/gw_abi.h");

    /// The constants of one enum of the header: `NAME = 3,` or `NAME = 1 << 2,`.
    fn c_enum(name: &str) -> BTreeMap<String, u64> {
        let body = HEADER.split_once(&format!("enum {name} {{")).unwrap().1.split_once("};").unwrap().0;
        body.lines()
            .filter_map(|l| l.split("/*").next().unwrap().trim().strip_suffix(','))
            .filter_map(|l| l.split_once('='))
            .map(|(k, v)| {
                let v = v.trim();
                let n = match v.split_once("<<") {
                    Some((a, b)) => a.trim().parse::<u64>().unwrap() << b.trim().parse::<u32>().unwrap(),
                    None => v
                        .strip_prefix("0x")
                        .map_or_else(|| v.parse(), |h| u64::from_str_radix(h, 16))
                        .unwrap(),
                };
                (k.trim().to_owned(), n)
            })
            .collect()
    }

    fn c_define(name: &str) -> u64 {
        let line = HEADER.lines().find(|l| l.starts_with(&format!("#define {name} "))).unwrap();
        line.split_whitespace().nth(2).unwrap().parse().unwrap()
    }

    #[test]
    fn drop_reasons_agree() {
        let c = c_enum("gw_drop");
        let rust: BTreeMap<String, u64> = DropReason::ALL
            .iter()
            .map(|r| (format!("GW_DROP_{}", r.name().to_uppercase().replace('-', "_")), *r as u64))
            .collect();
        assert_eq!(c, rust);
    }

    #[test]
    fn punt_reasons_agree() {
        let mut c = c_enum("gw_punt");
        assert_eq!(c.remove("GW_PUNT_SET"), Some(u64::from(PuntMeta::SET)));
        let rust: BTreeMap<String, u64> = PuntReason::ALL
            .iter()
            .map(|r| (format!("GW_PUNT_{}", r.name().to_uppercase().replace('-', "_")), *r as u64))
            .collect();
        assert_eq!(c, rust);
    }

    #[test]
    fn flags_actions_and_zones_agree() {
        use sag_model::Zone;
        use sag_model::flow::*;
        let f = c_enum("gw_flow_flags");
        for (name, v) in [
            ("GW_FLOW_SNAT", FLOW_SNAT),
            ("GW_FLOW_DNAT", FLOW_DNAT),
            ("GW_FLOW_METER", FLOW_METER),
            ("GW_FLOW_PUNT_ALL", FLOW_PUNT_ALL),
        ] {
            assert_eq!(f[name], u64::from(v), "{name}");
        }
        let a = c_enum("gw_action");
        for (name, v) in [
            ("GW_ACT_PUNT", FlowAct::Punt),
            ("GW_ACT_FORWARD", FlowAct::Forward),
            ("GW_ACT_DROP", FlowAct::Drop),
        ] {
            assert_eq!(a[name], v as u64, "{name}");
        }
        let z = c_enum("gw_zone");
        for (name, v) in
            [("GW_ZONE_LAN", Zone::Lan), ("GW_ZONE_WAN", Zone::Wan), ("GW_ZONE_OVERLAY", Zone::Overlay)]
        {
            assert_eq!(z[name], v as u64, "{name}");
        }
        use sag_model::tunnel::*;
        let t = c_enum("gw_tunnel_flags");
        for (name, v) in [
            ("GW_TUNNEL_ON", TUNNEL_ON),
            ("GW_TUNNEL_V6", TUNNEL_V6),
            ("GW_TUNNEL_DF_COPY", TUNNEL_DF_COPY),
            ("GW_TUNNEL_DF_CLEAR", TUNNEL_DF_CLEAR),
            ("GW_TUNNEL_DSCP", TUNNEL_DSCP),
            ("GW_TUNNEL_UNIFORM", TUNNEL_UNIFORM),
            ("GW_TUNNEL_WORKER", TUNNEL_WORKER),
        ] {
            assert_eq!(t[name], u64::from(v), "{name}");
        }
        let k = c_enum("gw_tunnel_kind");
        for (name, v) in [
            ("GW_TUNNEL_VXLAN", TUNNEL_VXLAN),
            ("GW_TUNNEL_GRE", TUNNEL_GRE),
            ("GW_TUNNEL_IPIP", TUNNEL_IPIP),
        ] {
            assert_eq!(k[name], u64::from(v), "{name}");
        }
        let l = c_enum("gw_local_flags");
        assert_eq!(l["GW_LOCAL_TUNNEL"], u64::from(crate::local::LOCAL_TUNNEL));
        assert_eq!(l["GW_LOCAL_ON"], u64::from(crate::local::LOCAL_ON));
        assert_eq!(l["GW_LOCAL_ANY"], u64::from(crate::local::LOCAL_ANY));
        assert_eq!(l["GW_LOCAL_SILENT"], u64::from(crate::local::LOCAL_SILENT));
        assert_eq!(c_enum("gw_nexthop_flags")["GW_NH_VALID"], u64::from(NH_VALID));
        use sag_model::flow::{FAST_PATH_NAT64, FAST_PATH_ON, FAST_PATH_SUMS};
        let f = c_enum("gw_fast_path");
        assert_eq!(f["GW_FAST_PATH_ON"], u64::from(FAST_PATH_ON));
        assert_eq!(f["GW_FAST_PATH_SUMS"], u64::from(FAST_PATH_SUMS));
        assert_eq!(f["GW_FAST_PATH_NAT64"], u64::from(FAST_PATH_NAT64));
    }

    #[test]
    fn limits_agree() {
        use sag_model::meter::*;
        use sag_model::{VrfNo, VrfZone, Zone};
        assert_eq!(c_define("GW_ABI_VERSION"), u64::from(ABI_VERSION));
        assert_eq!(c_define("GW_MAX_PORTS"), PortIdx::MAX as u64);
        assert_eq!(c_define("GW_MAX_DROPS"), DropReason::COUNT as u64);
        assert_eq!(c_define("GW_QUEUES_PER_DEV"), u64::from(QUEUES_PER_DEV));
        assert_eq!(c_define("GW_MAX_DEVS"), u64::from(MAX_DEVS));
        assert_eq!(c_define("GW_MAX_NEXTHOPS"), MAX_NEXTHOPS as u64);
        assert_eq!(c_define("GW_PORT_SLOTS"), PORT_SLOTS as u64);
        assert_eq!(c_define("GW_NAT_SLOTS"), NAT_SLOTS as u64);
        assert_eq!(c_define("GW_IP_IDS"), sag_model::flow::IP_ID_COUNTERS as u64);
        assert_eq!(c_define("GW_NAT_LINES") * 8, NAT_SLOT_WORDS as u64);
        assert_eq!(c_define("GW_MAX_VRF") + 1, VrfNo::COUNT as u64);
        let vrf = VrfZone::new(Zone::Wan, VrfNo::new(63).unwrap());
        assert_eq!(u64::from(vrf.byte()), Zone::Wan as u64 | 63 << c_define("GW_VRF_SHIFT"));
        assert_eq!(c_define("GW_LOCAL_VRF_SHIFT"), u64::from(crate::local::VRF_SHIFT));
        assert_eq!(c_define("GW_TUNNELS"), sag_model::tunnel::TUNNELS as u64);
        assert_eq!(c_define("GW_TUNNEL_HEADER"), TUNNEL_HEADER as u64);
        assert_eq!(c_define("GW_METERS"), METERS as u64);
        assert_eq!(c_define("GW_METER_GROUPS"), METER_GROUPS as u64);
        assert_eq!(c_define("GW_GROUP_LINKS"), GROUP_LINKS as u64);
        assert_eq!(c_define("GW_REMARK"), u64::from(REMARK));
        assert_eq!(c_define("GW_UNIT_SHIFT"), u64::from(UNIT_SHIFT));
        assert_eq!(c_define("GW_COST_SHIFT"), u64::from(COST_SHIFT));
        assert_eq!(MAX_DEBT, 16_000_000_000 << UNIT_SHIFT);
        assert!(HEADER.contains("#define GW_MAX_DEBT (16000000000ULL << GW_UNIT_SHIFT)"));
        assert_eq!(c_define("GW_SYN_SERVICES"), sag_model::flow::SYN_SERVICES as u64);
        assert_eq!(c_define("GW_TICK_SHIFT"), u64::from(sag_model::time::TICK_SHIFT));
    }
}
