//! Differences between two configurations.

use super::{EXAMPLE, PORTS, ok};
use crate::config::Change;

fn diff(old: &str, new: &str) -> Vec<String> {
    let line = |c: &Change| match (&c.old, &c.new) {
        (Some(old), Some(new)) => format!("{}: {old} -> {new}", c.path),
        (Some(_), None) => format!("- {}", c.path),
        (None, _) => format!("+ {}", c.path),
    };
    ok(old).config.diff(&ok(new).config).iter().map(line).collect()
}

/// The example with one text replaced by another.
fn edited(from: &str, to: &str) -> String {
    assert!(EXAMPLE.contains(from), "{from}");
    EXAMPLE.replacen(from, to, 1)
}

#[test]
fn same_meaning_is_no_difference() {
    assert!(diff(EXAMPLE, EXAMPLE).is_empty());
    // A default spelled out, a protocol by number, other white space.
    assert!(diff(EXAMPLE, &edited("busy_poll = false", "")).is_empty());
    assert!(diff(EXAMPLE, &edited("ip_protocol = \"tcp\"", "ip_protocol = 6")).is_empty());
    assert!(diff(EXAMPLE, &edited("external_port = \"8080\"", "external_port = \"8080/8080\"")).is_empty());
    assert!(diff(EXAMPLE, &EXAMPLE.replace(" = ", "=")).is_empty());
}

#[test]
fn changed_keys_are_named_with_both_values() {
    assert_eq!(
        diff(EXAMPLE, &edited("flows = 1048576", "flows = 2048")),
        ["dataplane.flows: 1048576 -> 2048"]
    );
    assert_eq!(
        diff(EXAMPLE, &edited("dest_port_range = \"80/443\"", "dest_port_range = \"80/80\"")),
        ["acl[acl-1].rule[acr-1].dest_port_range: \"80/443\" -> \"80/80\""]
    );
    assert_eq!(diff(EXAMPLE, &edited("workers = 2 ", "")), ["- dataplane.workers"]);
    assert_eq!(diff(EXAMPLE, &edited("hairpin = true", "hairpin = false")), ["nat.hairpin: true -> false"]);
    assert_eq!(
        diff(EXAMPLE, &edited("external_port = \"8080\"", "external_port = 8081")),
        ["dnat[fwd-1].external_port: \"8080\" -> \"8081\""]
    );
    assert_eq!(
        diff(EXAMPLE, &edited("weight = 1 ", "weight = 5 ")),
        ["route[10.20.0.0/16 metric 0 via 192.168.1.254 port 0].weight: 1 -> 5"]
    );
}

#[test]
fn added_and_removed_entries() {
    let (ports, _) = PORTS.split_at(PORTS.rfind("[[port]]").expect("two ports"));
    assert_eq!(diff(ports, PORTS), ["+ port[1]"]);
    assert_eq!(diff(PORTS, ports), ["- port[1]"]);
    let renamed = edited("id = \"qoscar-1\"", "id = \"voice\"");
    assert_eq!(diff(EXAMPLE, &renamed), ["- qos[qos-1].car[qoscar-1]", "+ qos[qos-1].car[voice]"]);
    let (without, _) = EXAMPLE.split_at(EXAMPLE.find("[flow_log]").expect("section"));
    assert_eq!(diff(EXAMPLE, without), ["- flow_log"]);
    // An ACL goes together with its rules.
    let acl = "[[acl]]\nid = \"x\"\n[[acl.rule]]\nid = \"y\"\ndirection = \"in\"\npolicy = \"drop\"\n\
               ip_protocol = \"all\"\nsource_cidr = \"::/0\"\ndest_cidr = \"::/0\"\n";
    assert_eq!(diff(PORTS, &format!("{PORTS}{acl}")), ["+ acl[x]", "+ acl[x].rule[y]"]);
}

#[test]
fn secrets_differ_without_being_shown() {
    let other = edited("a0a1a2a3", "a0a1a2a4");
    assert_eq!(diff(EXAMPLE, &other), ["tunnel[pop3].key_in: \"********\" -> \"********\""]);
}

fn rules(ids: &[&str]) -> String {
    let rule = |id: &&str| {
        format!(
            "[[acl.rule]]\nid = \"{id}\"\ndirection = \"in\"\npolicy = \"drop\"\nip_protocol = \"all\"\n\
             source_cidr = \"::/0\"\ndest_cidr = \"::/0\"\n"
        )
    };
    format!("{PORTS}[[acl]]\nid = \"a\"\n{}", ids.iter().map(rule).collect::<String>())
}

#[test]
fn only_rules_that_moved_are_reported() {
    let old = rules(&["r1", "r2", "r3", "r4"]);
    assert_eq!(diff(&old, &rules(&["r4", "r1", "r2", "r3"])), ["acl[a].rule[r4].position: 4 -> 1"]);
    assert_eq!(diff(&old, &rules(&["r2", "r3", "r4", "r1"])), ["acl[a].rule[r1].position: 1 -> 4"]);
    // Removal and insertion move nobody.
    assert_eq!(diff(&old, &rules(&["r1", "new", "r3", "r4"])), ["- acl[a].rule[r2]", "+ acl[a].rule[new]"]);
}

#[test]
fn order_counts_only_where_it_has_a_meaning() {
    let entry = |id: &str, net: &str| {
        format!("[[snat]]\nid = \"{id}\"\ncidr_block = \"{net}\"\nsnat_ip = \"10.9.9.9\"\n")
    };
    let (a, b) = (entry("a", "10.1.0.0/16"), entry("b", "10.2.0.0/16"));
    assert!(diff(&format!("{PORTS}{a}{b}"), &format!("{PORTS}{b}{a}")).is_empty());
}

#[test]
fn entries_come_and_go_with_what_they_hold() {
    let (ports, _) = PORTS.split_at(PORTS.rfind("[[port]]").expect("two ports"));
    let added = ok(ports).config.diff(&ok(PORTS).config).remove(0);
    assert!(added.old.is_none() && added.new.expect("a port").contains("device = \"eth0\""));
    // An entry with secrets does not show them.
    let start =
        EXAMPLE.find("name = \"pop3\"").and_then(|at| EXAMPLE[..at].rfind("[[tunnel]]")).expect("a tunnel");
    let end = start + 1 + EXAMPLE[start + 1..].find("\n[").expect("a next section");
    let without = format!("{}{}", &EXAMPLE[..start], &EXAMPLE[end..]);
    let removed = ok(EXAMPLE).config.diff(&ok(&without).config);
    let text = format!("{removed:?}");
    assert!(
        text.contains("tunnel[pop3]") && text.contains("********") && !text.contains("a0a1a2a3"),
        "{text}"
    );
}

/// Ports of these names, in this order, a neighbour and routes that name them.
fn ordered(names: &[&str]) -> crate::config::Config {
    let mut text = String::new();
    for n in names {
        text += &format!(
            "[[port]]\nname = \"{n}\"\ndevice = \"eth{n}\"\nrole = \"lan\"\naddresses = [\"192.0.{n}.1/24\"]\n"
        );
    }
    for n in names {
        text += &format!(
            "[[neighbor]]\nport = \"{n}\"\naddress = \"192.0.{n}.7\"\nmac = \"02:00:00:00:00:0{n}\"\n"
        );
        text += &format!(
            "[[route]]\ndestination = \"10.{n}.0.0/16\"\nnext_hop = \"192.0.{n}.7\"\nport = \"{n}\"\n"
        );
    }
    ok(&text).config
}

#[test]
fn ports_keep_their_numbers_in_whatever_order_they_stand() {
    use crate::config::RouteTarget;
    let before = ordered(&["1", "2", "3"]);
    let names = |c: &crate::config::Config| c.ports.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
    for (order, expected) in [
        (&["3", "2", "1"][..], &["1", "2", "3"][..]),
        (&["3", "1", "2", "4"], &["1", "2", "3", "4"]),
        (&["4", "3", "1"], &["1", "4", "3"]),
        (&["3"], &["3"]),
        (&["3", "2"], &["3", "2"]),
        (&["5", "4"], &["5", "4"]),
    ] {
        let mut after = ordered(order);
        after.keep_numbers(|p| before.port_by_name(&p.name));
        assert_eq!(names(&after), expected, "{order:?}");
        // What refers to a port still means the same one.
        for (i, name) in order.iter().enumerate() {
            assert_eq!(after.port(after.neighbors[i].port).map(|p| p.name.as_str()), Some(*name));
            let RouteTarget::Via { port: Some(port), .. } = after.routes[i].target else {
                panic!("{order:?}")
            };
            assert_eq!(after.port(port).map(|p| p.name.as_str()), Some(*name));
        }
    }
    let mut same = ordered(&["1", "2", "3"]);
    same.keep_numbers(|_| None);
    assert_eq!(same, before);
    // Two that had the same number: one has it, the other another.
    same.keep_numbers(|_| Some(crate::PortIdx(2)));
    assert_eq!(names(&same), ["2", "3", "1"]);
}
