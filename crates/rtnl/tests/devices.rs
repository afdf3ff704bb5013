//! Devices that this program has made, against the real kernel: `ip` judges.

mod common;

use common::{Netns, ip};
use sag_model::MacAddr;
use sag_rtnl::{Device, DeviceChange, DeviceEditor, Editor, LinkHeader, Redirects};
use std::process::Command;

fn output(args: &str) -> String {
    let out = Command::new("ip").args(args.split_whitespace()).output().expect("run ip");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn named(editor: &mut DeviceEditor, name: &str) -> Option<Device> {
    editor.devices().unwrap().into_iter().find(|d| d.name == name)
}

#[test]
fn devices_are_found_changed_and_deleted() {
    let Some(ns) = Netns::new("devices") else { return };
    ns.enter(|| {
        ip("tuntap add mode tun name one");
        let mut editor = DeviceEditor::open().unwrap();
        let d = named(&mut editor, "one").unwrap();
        assert_eq!((d.alias.as_str(), d.up, d.mtu), ("", false, 1500));
        let change = DeviceChange {
            alias: Some("ours"),
            mtu: Some(1400),
            up: Some(true),
            carrier: Some(false),
            link_local: None,
        };
        editor.change(d.ifindex, &change).unwrap();
        let d = named(&mut editor, "one").unwrap();
        assert_eq!((d.alias.as_str(), d.up, d.mtu, d.carrier), ("ours", true, 1400, false));
        assert!(output("link show dev one").contains("alias ours"));
        // Only while a program has it open.
        let refused =
            editor.change(d.ifindex, &DeviceChange { carrier: Some(true), ..DeviceChange::default() });
        assert!(refused.unwrap_err().to_string().contains("change device"));

        // Addresses bear a mark, by which they are told from others.
        ip("addr add 10.9.0.1/24 dev one");
        for net in ["10.255.0.1/30", "fd00:255::1/64"] {
            let net = net.parse().unwrap();
            editor.add_address(d.ifindex, net).unwrap();
            editor.add_address(d.ifindex, net).unwrap();
            let all = editor.addresses().unwrap();
            assert!(all.contains(&(d.ifindex, net, true)), "{all:?}");
            assert!(all.contains(&(d.ifindex, "10.9.0.1/24".parse().unwrap(), false)), "{all:?}");
            assert!(output("addr show dev one").contains(&net.to_string()));
            editor.remove_address(d.ifindex, net).unwrap();
            editor.remove_address(d.ifindex, net).unwrap();
            assert!(!output("addr show dev one").contains(&net.to_string()));
        }
        editor.delete(d.ifindex).unwrap();
        editor.delete(d.ifindex).unwrap();
        assert_eq!(named(&mut editor, "one"), None);
        let gone = editor.add_address(d.ifindex, "10.255.0.1/30".parse().unwrap()).unwrap_err().to_string();
        assert!(gone.contains("10.255.0.1"), "{gone}");
        let gone = editor.change(d.ifindex, &change).unwrap_err().to_string();
        assert!(gone.contains("change device"), "{gone}");
    });
}

/// The port of a line by PPPoE: one end of a pair, with a point-to-point address and a neighbour that does not expire.
#[test]
fn a_pair_has_what_a_session_gives() {
    let Some(ns) = Netns::new("pair") else { return };
    ns.enter(|| {
        let (mut devices, mut editor) = (DeviceEditor::open().unwrap(), Editor::open().unwrap());
        devices.add_veth("ppp-x", "ppl-x").unwrap();
        let again = devices.add_veth("ppp-x", "ppl-y").unwrap_err().to_string();
        assert!(again.contains("add a pair of devices"), "{again}");
        let (port, link) = (named(&mut devices, "ppp-x").unwrap(), named(&mut devices, "ppl-x").unwrap());
        assert!(port.mac.is_some() && port.mac != link.mac && !port.up && !port.carrier);
        let up = DeviceChange { up: Some(true), ..DeviceChange::default() };
        // The session gives a link-local address, so the kernel makes none.
        let bare = DeviceChange { link_local: Some(false), ..up.clone() };
        devices.change(port.ifindex, &bare).unwrap();
        assert!(!named(&mut devices, "ppp-x").unwrap().carrier, "the other end is down");
        devices.change(link.ifindex, &up).unwrap();
        assert!(named(&mut devices, "ppp-x").unwrap().carrier);

        let [own, peer] = ["203.0.113.64", "203.0.113.1"].map(|a| a.parse().unwrap());
        let at = port.ifindex;
        for _ in 0..2 {
            editor.add_peer_address(at, own, peer).unwrap();
            editor.add_neighbor(at, peer.into(), link.mac.unwrap()).unwrap();
            editor.add_default(at, peer, 10).unwrap();
        }
        assert_eq!(devices.point_to_point(at).unwrap(), [(own.into(), peer.into())]);
        assert_eq!(devices.point_to_point(link.ifindex).unwrap(), []);
        assert_eq!(output("-6 addr show dev ppp-x"), "");
        let [own6, peer6] = ["fe80::c6f:eac3", "fe80::44b8:9889"].map(|a| a.parse().unwrap());
        for _ in 0..2 {
            editor.add_link_local(at, own6).unwrap();
            editor.add_neighbor(at, peer6.into(), link.mac.unwrap()).unwrap();
        }
        assert!(output("-6 addr show dev ppp-x").contains("fe80::c6f:eac3/64 scope link"));
        assert!(!output("-6 addr show dev ppp-x").contains("tentative"));
        assert!(output("-6 neigh show dev ppp-x").contains("fe80::44b8:9889 lladdr"));
        for _ in 0..2 {
            editor.remove_link_local(at, own6).unwrap();
            editor.remove_neighbor(at, peer6.into()).unwrap();
        }
        assert_eq!(output("-6 addr show dev ppp-x"), "");
        assert!(output("neigh show dev ppp-x").contains("203.0.113.1 lladdr"));
        assert!(output("neigh show dev ppp-x").contains("PERMANENT"));
        assert!(output("route show default").starts_with("default via 203.0.113.1 dev ppp-x"));
        for _ in 0..2 {
            editor.remove_default(at, peer, 10).unwrap();
            editor.remove_neighbor(at, peer.into()).unwrap();
            editor.remove_peer_address(at, own, peer).unwrap();
        }
        assert!(!output("neigh show dev ppp-x").contains("203.0.113.1"));
        assert_eq!(output("route show default") + &output("-4 addr show dev ppp-x"), "");
        devices.delete(at).unwrap();
        assert_eq!(named(&mut devices, "ppl-x"), None, "it goes with its other end");
        editor.remove_peer_address(at, own, peer).unwrap();
        editor.remove_neighbor(at, peer.into()).unwrap();
    });
}

/// Whatever arrives on one device leaves by the other, with a link header or without. Traffic goes through them in guests,
/// whose kernels have all of it (tests/vm/test_pppoe.py).
#[test]
fn redirects_replace_each_other() {
    let Some(ns) = Netns::new("redirects") else { return };
    ns.enter(|| {
        ip("tuntap add mode tun name session");
        let (mut devices, mut redirects) = (DeviceEditor::open().unwrap(), Redirects::open().unwrap());
        devices.add_veth("ppp-x", "ppl-x").unwrap();
        let [link, session] = ["ppl-x", "session"].map(|n| named(&mut devices, n).unwrap().ifindex);
        redirects.clear(link).unwrap();
        let push = LinkHeader::Push { dst: MacAddr([2, 0, 0, 0, 0, 1]), src: MacAddr([2, 0, 0, 0, 0, 2]) };
        if let Err(error) = redirects.set(link, session, LinkHeader::Pop) {
            assert!(error.to_string().contains("add a redirect to"), "{error}");
            redirects.clear(link).unwrap();
            return println!("SKIP: {error} (a kernel without cls_matchall, act_vlan or act_mirred)");
        }
        redirects.set(session, link, push).unwrap();
        let filters = |of: &str| {
            let args = ["-j", "filter", "show", "dev", of, "ingress"];
            String::from_utf8(Command::new("tc").args(args).output().unwrap().stdout).unwrap()
        };
        assert!(filters("ppl-x").contains("pop_eth") && filters("ppl-x").contains("\"to_dev\":\"session\""));
        assert!(filters("session").contains("push_eth") && filters("session").contains("02:00:00:00:00:01"));
        redirects.set(link, session, push).unwrap();
        assert!(!filters("ppl-x").contains("pop_eth"));
        redirects.clear(link).unwrap();
        redirects.clear(link).unwrap();
        assert!(!filters("ppl-x").contains("matchall"));
        redirects.clear(12_345).unwrap();
    });
}
