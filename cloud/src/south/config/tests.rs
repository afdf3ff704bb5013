//! What is stored has the names of the contract, so the contract's own reader says what has to be sent.

use std::fmt::Debug;

use sag_southbound::Wire;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{device, objects};
use crate::store::secrets::Cipher;

/// What `send` makes of a stored object with these members, each of which it must have, is what the contract reads.
fn check<S, T>(stored: &Value, send: impl Fn(S) -> T)
where
    S: DeserializeOwned + Serialize,
    T: Wire + Serialize + Debug + PartialEq,
{
    let object: S = serde_json::from_value(stored.clone()).expect("stored");
    let whole = serde_json::to_value(&object).expect("written");
    for (name, value) in stored.as_object().expect("an object") {
        assert_eq!(whole[name], *value, "{name} is not stored");
    }
    let sent = send(object);
    assert_eq!(T::from_json(whole).expect("read"), sent);
    let sent = serde_json::to_value(&sent).expect("sent");
    for (name, value) in stored.as_object().expect("an object") {
        let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        assert_eq!(text(&sent[name]), text(value), "{name}");
    }
}

#[test]
fn settings_of_the_device_are_sent_as_they_are_stored() {
    let port = json!({"PortName": "4", "Role": "LAN", "Status": "Up", "Mac": "02:00:00:00:00:01"});
    check(&port, |p| device::port(&p));
    let lan = json!({"IPType": "DHCP", "IP": "10.0.0.1", "Mask": "255.0.0.0", "StartIp": "10.0.0.2",
        "EndIp": "10.0.0.9", "Lease": "3"});
    check(&lan, |l| device::lan(&l));
    let line = json!({"Vlan": "7", "IP": "10.0.0.1", "Mask": "255.0.0.0"});
    check(&line, |l| device::leased_line(&l).expect("a VLAN"));
    let management = json!({"IP": "10.0.0.1", "Mask": "255.0.0.0", "Gateway": "10.0.0.2"});
    check(&management, |m| device::management(&m));
    check(&json!({"RouterId": "1.1.1.1", "LocalAs": 1, "HoldTime": 2, "KeepAlive": 3}), |b| device::bgp(&b));
    let protocol = json!({"RouteProtocol": "BGP", "Vlan": "7", "RemoteIp": "10.0.0.1", "RemoteAs": "9"});
    check(&protocol, |p| device::port_protocol(&p).expect("a VLAN"));
    let route = json!({"PortName": "3", "Vlan": "7", "DestinationCidr": "10.0.0.0/8", "NextHop": "10.0.0.1"});
    check(&route, |r| device::static_route(&r).expect("a VLAN"));
    check(&json!({"MasterDns": "10.0.0.1", "SlaveDns": "10.0.0.2"}), |d| device::dns(&d));
    let ha = json!({"Mode": "STATIC", "PortName": "1", "VirtualIp": "10.0.0.1"});
    check(&ha, |h| device::ha(&h));
    let upgrade = json!({"CronExpression": "0 0 4 1 * ?", "Duration": 30, "TimeZone": "Asia/Shanghai",
        "UpgradeType": "boot"});
    check(&upgrade, |u| device::upgrade_policy(&u));
}

#[test]
fn secrets_are_sent_in_clear() {
    let dir = tempfile::tempdir().expect("dir");
    let cipher = Cipher::load(&dir.path().join("key").display().to_string()).expect("made");
    let seal = |text: &str| cipher.seal(text).expect("sealed");
    let mut wan = json!({"IPType": "PPPOE", "IP": "10.0.0.1", "Mask": "255.0.0.0", "Gateway": "10.0.0.2",
        "Priority": 1, "Weight": 2, "ISP": "CT", "Bandwidth": 3, "Username": "name"});
    check(&wan, |w| device::wan(&cipher, &w).expect("sent"));
    wan["SealedPassword"] = seal(" p ").into();
    let stored = serde_json::from_value(wan).expect("stored");
    assert_eq!(device::wan(&cipher, &stored).expect("sent").password.reveal(), " p ");
    let mut ospf = json!({"AreaId": 1, "AuthenticationType": "MD5", "DeadTime": 2, "HelloTime": 3,
        "RouterId": "1.1.1.1", "Md5KeyId": 4});
    check(&ospf, |o| device::ospf(&cipher, &o).expect("sent"));
    ospf["SealedMd5Key"] = seal("key").into();
    ospf["SealedPassword"] = seal("password").into();
    let sent = device::ospf(&cipher, &serde_json::from_value(ospf).expect("stored")).expect("sent");
    assert_eq!((sent.md5_key.reveal(), sent.password.reveal()), ("key", "password"));
}

#[test]
fn a_vlan_is_a_number_or_none() {
    let vlan = |text: &str| {
        let stored = serde_json::from_value(json!({"Vlan": text})).expect("stored");
        device::static_route(&stored).map(|route| route.vlan)
    };
    assert_eq!(
        [vlan("0").ok(), vlan("4094").ok(), vlan("").ok()],
        [Some(Some(0)), Some(Some(4094)), Some(None)]
    );
    assert!(vlan("ten").is_err());
}

#[test]
fn objects_are_sent_as_they_are_stored() {
    let gateway = json!({"Name": "branch", "Status": "Active", "CidrBlock": "10.0.0.0/8",
        "RoutingStrategy": "static", "Bandwidth": 1, "SecurityLockThreshold": 2, "UpBandwidthWan": 3,
        "HaType": "no_backup", "DpiStatus": "On", "DpiMonitorStatus": "Active", "AccessPointId": 4,
        "Locked": true});
    check(&gateway, |g| objects::gateway(&g));
    let packets = json!({"Name": "n", "Description": "d", "Priority": 5, "IpProtocol": "TCP",
        "SourceCidr": "10.0.0.0/8", "DestCidr": "10.1.0.0/16", "SourcePortRange": "1/2",
        "DestPortRange": "3/4", "DpiGroupIds": ["20"], "DpiSignatureIds": ["1", "2"]});
    let with = |more: Value| {
        let mut all = packets.clone();
        for (name, value) in more.as_object().expect("an object") {
            all[name] = value.clone();
        }
        all
    };
    let rule = with(json!({"AcrId": "acr-1", "Direction": "in", "Policy": "drop", "Type": "WAN"}));
    check(&rule, objects::acl_rule);
    let policy = with(json!({"QosPolicyId": "qospy-1", "StartTime": "1", "EndTime": "2"}));
    check(&policy, objects::qos_policy);
    let car = json!({"QosCarId": "qoscar-1", "Name": "n", "Description": "d", "Priority": 1,
        "LimitType": "Absolute", "MinBandwidthAbs": 2, "MaxBandwidthAbs": 3, "MinBandwidthPercent": 4,
        "MaxBandwidthPercent": 5, "PercentSourceType": "CcnBandwidth"});
    check(&car, objects::qos_car);
    check(
        &json!({"InstanceId": "snat-1", "CidrBlock": "10.0.0.0/8", "SnatIp": "10.0.0.1"}),
        objects::snat_entry,
    );
    let dnat = json!({"DnatEntryId": "dnat-1", "Type": "Intranet", "IpProtocol": "TCP",
        "ExternalIp": "10.0.0.1", "ExternalPort": "1", "InternalIp": "10.0.0.2", "InternalPort": "2"});
    check(&dnat, objects::dnat_entry);
    let check_of_health = json!({"HcInstanceId": "hc-1", "Name": "n", "Type": "ICMP_ECHO",
        "DstIpAddr": "10.0.0.1", "SrcIpAddr": "10.0.0.2", "DstPort": 1, "SrcPort": 2, "ProbeInterval": 3,
        "ProbeCount": 4, "ProbeTimeout": 5, "RttThreshold": 6, "RttFailThreshold": 7, "FailCountThreshold": 8});
    check(&check_of_health, objects::health_check);
    let strategy = json!({"SourceType": "local", "RouteSource": "STATIC", "DestCidrBlock": "10.0.0.0/8",
        "RouteDistribution": "publish", "HcInstanceId": "hc-1"});
    check(&strategy, objects::distribution_rule);
    let log = json!({"FlowLogId": "fl-1", "Name": "n", "Status": "Active", "ActiveAging": 1,
        "InactiveAging": 2, "OutputType": "all", "SlsRegionId": "cn-shanghai", "ProjectName": "p",
        "LogstoreName": "l", "NetflowServerIp": "10.0.0.1", "NetflowServerPort": 3, "NetflowVersion": "V9"});
    check(&log, objects::flow_log);
}
