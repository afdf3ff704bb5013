//! Devices that this program has made, against the real kernel: `ip` judges.

mod common;

use common::{Netns, ip};
use sag_rtnl::{Device, DeviceChange, DeviceEditor};
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
        let change =
            DeviceChange { alias: Some("ours"), mtu: Some(1400), up: Some(true), carrier: Some(false) };
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
