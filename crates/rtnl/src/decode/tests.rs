use super::*;
use crate::apply::Tracker;
use crate::route::{NexthopTarget, RouteKind, Table};
use crate::tables::Tables;
use crate::types::NeighborState;
use crate::wire::messages;
use proptest::prelude::*;

fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::from((value.len() as u16 + 4).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn message(kind: u16, flags: u16, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = Vec::from((body.len() as u32 + 16).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&body);
    out
}

fn only(datagram: &[u8]) -> Result<Option<Event>, Malformed> {
    let mut all = messages(datagram);
    let first = all.next().expect("one message");
    assert!(all.next().is_none());
    decode(first)
}

fn leg(ifindex: u32, flags: u8, hops: u8, attrs: &[u8]) -> Vec<u8> {
    let mut out = Vec::from((attrs.len() as u16 + 8).to_ne_bytes());
    out.extend_from_slice(&[flags, hops]);
    out.extend_from_slice(&ifindex.to_ne_bytes());
    out.extend_from_slice(attrs);
    out
}

/// 10.9.0.0/16, ospf, metric 20, two legs: 192.0.2.1 weight 3, 2001:db8::1 with a dead device.
fn multipath_route() -> Vec<u8> {
    let v6: [u8; 16] = "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let via = attr(18, &[&10u16.to_ne_bytes()[..], &v6[..]].concat());
    let legs = [leg(7, 0, 2, &attr(5, &[192, 0, 2, 1])), leg(8, 1 | 16, 0, &via)].concat();
    message(
        24,
        0,
        &[
            &[2, 16, 0, 0, 254, 188, 0, 1, 0, 0, 0, 0],
            &attr(15, &254u32.to_ne_bytes()),
            &attr(1, &[10, 9, 0, 0]),
            &attr(6, &20u32.to_ne_bytes()),
            &attr(8, &attr(2, &1400u32.to_ne_bytes())),
            &attr(9, &legs),
            &attr(77, b"from the future"),
        ],
    )
}

#[test]
fn multipath_route_with_foreign_gateway() {
    let Ok(Some(Event::Route { route, replace: false, append: false })) = only(&multipath_route()) else {
        panic!()
    };
    assert_eq!(route.dst, "10.9.0.0/16".parse().unwrap());
    assert_eq!((route.table, route.kind, route.priority), (Table::Main, RouteKind::Unicast, 20));
    assert_eq!(route.protocol.name(), Some("ospf"));
    assert_eq!(route.mtu, Some(1400));
    let legs = &route.nexthops;
    assert_eq!(legs.len(), 2);
    assert_eq!((legs[0].ifindex, legs[0].weight, legs[0].dead), (7, 3, false));
    assert_eq!(legs[0].gateway, Some("192.0.2.1".parse().unwrap()));
    assert_eq!((legs[1].ifindex, legs[1].weight, legs[1].dead, legs[1].linkdown), (8, 1, true, true));
    assert_eq!(legs[1].gateway, Some("2001:db8::1".parse().unwrap()));
}

#[test]
fn routes_that_are_not_mirrored() {
    let plain = |table: u32, src_len: u8, flags: u32| {
        // The header has no room for numbers above 255.
        let head = [2, 8, src_len, 0, u8::try_from(table).unwrap_or(252), 4, 0, 1];
        let (dst, number) = (attr(1, &[10, 0, 0, 0]), attr(15, &table.to_ne_bytes()));
        only(&message(24, 0, &[&head, &flags.to_ne_bytes(), &number, &dst, &attr(4, &[1, 0, 0, 0])]))
    };
    assert!(matches!(plain(254, 0, 0), Ok(Some(Event::Route { .. }))));
    for number in [100, 70_000] {
        let Ok(Some(Event::Route { route, .. })) = plain(number, 0, 0) else { panic!("another table") };
        assert_eq!(route.table, Table::Other(number));
    }
    let Ok(Some(Event::Route { route, .. })) = plain(254, 24, 0) else { panic!("source-specific") };
    assert_eq!(route.from, Some("0.0.0.0/24".parse().unwrap()));
    assert_eq!(plain(254, 0, 0x200), Ok(None), "cloned");
}

#[test]
fn lies_are_malformed_not_fatal() {
    let route = |dst_len: u8, dst: &[u8]| {
        let head = [2, dst_len, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
        only(&message(24, 0, &[&head, &attr(1, dst)]))
    };
    assert_eq!(route(33, &[10, 0, 0, 0]), Err(Malformed), "prefix too long");
    assert_eq!(route(8, &[0; 16]), Err(Malformed), "IPv6 address in an IPv4 route");
    assert_eq!(route(8, &[10, 0, 0]), Err(Malformed), "three bytes of address");
    assert_eq!(only(&message(16, 0, &[&[0; 16]])), Err(Malformed), "a link without name");
    assert_eq!(only(&message(20, 0, &[&[2, 24, 0, 0, 1, 0, 0, 0]])), Err(Malformed), "no address");
    assert_eq!(only(&message(28, 0, &[&[2; 12]])), Err(Malformed), "a neighbour without address");
    assert_eq!(only(&message(104, 0, &[&[2, 0, 0, 0, 0, 0, 0, 0]])), Err(Malformed), "no number");
}

#[test]
fn bridge_messages_do_not_touch_links_and_neighbours() {
    let mut head = [0u8; 16];
    head[0] = 7;
    assert_eq!(only(&message(17, 0, &[&head, &attr(3, b"br0\0")])), Ok(None));
    assert_eq!(only(&message(28, 0, &[&[7, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]])), Ok(None));
}

/// `ip link add vrf-shop type vrf table 100`, and a card in it.
#[test]
fn vrf_devices_and_who_is_in_them() {
    let link = |ifindex: u32, name: &[u8], more: &[&[u8]]| {
        let (index, flags) = (ifindex.to_ne_bytes(), 0x10043u32.to_ne_bytes());
        let head = [&[0, 0, 1, 0][..], &index, &flags, &[0; 4]].concat();
        let (name, mtu) = (attr(3, name), attr(4, &1500u32.to_ne_bytes()));
        let parts = [&[&head[..], &name, &mtu][..], more].concat();
        match only(&message(16, 0, &parts)) {
            Ok(Some(Event::Link(link))) => link,
            other => panic!("{other:?}"),
        }
    };
    let table = |number: u32| attr(2, &attr(1, &number.to_ne_bytes()));
    let info = |kind: &[u8], data: Vec<u8>| attr(18, &[attr(1, kind), data].concat());
    let device = link(9, b"vrf-shop\0", &[&info(b"vrf\0", table(100))]);
    assert_eq!((device.kind.as_deref(), device.vrf_table, device.master), (Some("vrf"), Some(100), None));
    let card = link(3, b"eth1\0", &[&attr(10, &9u32.to_ne_bytes())]);
    assert_eq!((card.vrf_table, card.master), (None, Some(9)));
    // The same attribute of another kind is another thing.
    let tagged = link(4, b"eth1.5\0", &[&info(b"vlan\0", attr(2, &attr(1, &5u16.to_ne_bytes())))]);
    assert_eq!((tagged.vrf_table, tagged.vlan), (None, Some(5)));
    assert_eq!(link(5, b"odd\0", &[&info(b"vrf\0", attr(2, &attr(1, &[1])))]).vrf_table, None);
}

#[test]
fn nexthop_group_weights_have_sixteen_bits() {
    let members =
        [&5u32.to_ne_bytes()[..], &[0, 0, 0, 0], &6u32.to_ne_bytes()[..], &[0x2b, 0x01, 0, 0]].concat();
    let group = message(104, 0, &[&[0; 8], &attr(1, &9u32.to_ne_bytes()), &attr(2, &members)]);
    let Ok(Some(Event::Nexthop(object))) = only(&group) else { panic!() };
    assert_eq!((object.id, object.target), (9, NexthopTarget::Group(vec![(5, 1), (6, 300)])));
}

#[test]
fn neighbor_with_flags() {
    let head = [2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0x80, 1];
    let parts: [&[u8]; 4] =
        [&head, &attr(1, &[192, 0, 2, 9]), &attr(2, &[2, 0, 0, 0, 0, 9]), &attr(15, &1u32.to_ne_bytes())];
    let Ok(Some(Event::Neighbor(n))) = only(&message(28, 0, &parts)) else { panic!() };
    assert_eq!((n.ifindex, n.state, n.router, n.managed), (3, NeighborState::Stale, true, true));
    assert!(n.usable() && !n.failed());
    assert_eq!(n.mac.unwrap().to_string(), "02:00:00:00:00:09");
}

/// Feeds a datagram through everything that touches kernel bytes.
fn swallow(datagram: &[u8]) {
    let (mut tables, mut tracker) = (Tables::default(), Tracker::default());
    for message in messages(datagram) {
        if let Ok(Some(event)) = decode(message) {
            tracker.apply(&mut tables, event);
        }
    }
    let _changes = tracker.finish();
    for route in tables.routes_sorted() {
        let _hops = tables.nexthops_of(route);
        let _kind = tables.kind_of(route);
    }
}

#[test]
fn truncation_at_every_offset() {
    let whole = multipath_route();
    for cut in 0..whole.len() {
        swallow(&whole[..cut]);
        // And with a header that admits the cut.
        let mut honest = whole[..cut].to_vec();
        if let Some(len) = honest.get_mut(..4) {
            len.copy_from_slice(&(cut as u32).to_ne_bytes());
        }
        swallow(&honest);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        swallow(&bytes);
    }

    /// Well-formed frames around random bodies reach further than noise does.
    #[test]
    fn random_messages_never_panic(
        parts in proptest::collection::vec(
            (
                prop::sample::select(vec![16u16, 17, 20, 21, 24, 25, 28, 29, 104, 105]),
                prop::sample::select(vec![0u8, 2, 2, 10, 10, 7]),
                proptest::collection::vec(any::<u8>(), 15),
                proptest::collection::vec(
                    (0u16..40, proptest::collection::vec(any::<u8>(), 0..40)),
                    0..8,
                ),
            ),
            1..6,
        ),
    ) {
        let mut datagram = Vec::new();
        for (kind, family, rest, attrs) in &parts {
            let head_len = match *kind { 16 | 17 => 16, 20 | 21 | 104 | 105 => 8, _ => 12 };
            let head: Vec<u8> = std::iter::once(*family).chain(rest.iter().copied()).take(head_len).collect();
            let attrs: Vec<u8> = attrs.iter().flat_map(|(k, v)| attr(*k, v)).collect();
            datagram.extend(message(*kind, 0, &[&head, &attrs]));
        }
        swallow(&datagram);
    }

    #[test]
    fn damaged_messages_never_panic(at in 0usize..200, with in any::<u8>(), also in 0usize..200) {
        let mut bytes = multipath_route();
        let len = bytes.len();
        bytes[at % len] = with;
        bytes[also % len] ^= 0xff;
        swallow(&bytes);
    }
}
