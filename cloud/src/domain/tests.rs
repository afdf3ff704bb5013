//! A database that an older version made: nothing in it is lost.

use serde_json::Value;

use super::acl::{Acl, AclRule};
use super::app::{AppState, AppUser, EnterpriseCode};
use super::ccn::Ccn;
use super::device_config::DeviceConfig;
use super::distribution::RouteStrategy;
use super::flow_log::FlowLog;
use super::gateway::Gateway;
use super::grants::{CcnGrant, CenGrant, VbrGrant};
use super::health::HealthCheck;
use super::membership::{Announced, CcnMember};
use super::nat::{DnatEntry, SnatEntry};
use super::orders::Order;
use super::probe::ProbeTask;
use super::qos::{Qos, QosCar, QosPolicy};
use crate::store::Kind;
use crate::store::objects::Entity;

const DUMP: &str = include_str!("../../tests/data/version-2.sql");

fn same<T: Entity>(text: &str) -> (Value, Value) {
    let before: Value = serde_json::from_str(text).expect("a document");
    let body: T = serde_json::from_str(text).expect("of this type");
    (before, serde_json::to_value(&body).expect("a document"))
}

#[test]
fn no_field_of_a_stored_document_is_lost() {
    let db = rusqlite::Connection::open_in_memory().expect("opens");
    db.execute_batch(DUMP).expect("fills");
    let mut rows = db.prepare("SELECT kind, body FROM objects").expect("prepares");
    let rows = rows.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?))).expect("reads");
    let mut kinds = std::collections::BTreeSet::new();
    for row in rows {
        let (kind, text) = row.expect("a row");
        let (before, after) = match Kind::from_stored(&kind).expect("a kind") {
            Kind::Gateway => same::<Gateway>(&text),
            Kind::Acl => same::<Acl>(&text),
            Kind::AclRule => same::<AclRule>(&text),
            Kind::Qos => same::<Qos>(&text),
            Kind::QosPolicy => same::<QosPolicy>(&text),
            Kind::QosCar => same::<QosCar>(&text),
            Kind::SnatEntry => same::<SnatEntry>(&text),
            Kind::DnatEntry => same::<DnatEntry>(&text),
            Kind::HealthCheck => same::<HealthCheck>(&text),
            Kind::ProbeTask => same::<ProbeTask>(&text),
            Kind::RouteStrategy => same::<RouteStrategy>(&text),
            Kind::Ccn => same::<Ccn>(&text),
            Kind::FlowLog => same::<FlowLog>(&text),
            Kind::AppUser => same::<AppUser>(&text),
            Kind::AppState => same::<AppState>(&text),
            Kind::EnterpriseCode => same::<EnterpriseCode>(&text),
            Kind::CcnGrant => same::<CcnGrant>(&text),
            Kind::CenGrant => same::<CenGrant>(&text),
            Kind::VbrGrant => same::<VbrGrant>(&text),
            Kind::Order => same::<Order>(&text),
            Kind::CcnMember => same::<CcnMember>(&text),
            Kind::Announcement => same::<Announced>(&text),
        };
        for (field, value) in before.as_object().expect("an object") {
            // Identifiers that are columns too.
            let column = ["Key", "RegionId"].contains(&field.as_str())
                || (kind == "app_state" && field == "SmartAGId");
            assert!(column || after[field] == *value, "{kind} loses {field}: {value} is {}", after[field]);
        }
        kinds.insert(kind);
    }
    assert!(kinds.len() >= 17, "{kinds:?}");
}

/// Every section, as an older version wrote it; the devices of the dump have only some.
const DEVICE: &str = r#"{
    "CreateTime": 1795970699024,
    "Ports": [{"PortName": "0", "Role": "WAN", "Status": "Up", "Mac": "02:00:00:00:00:01"}],
    "Wan": {
        "0": {"IPType": "STATIC", "Priority": 10, "Weight": 100, "ISP": "CT", "Bandwidth": 50,
            "IP": "192.0.2.2", "Mask": "255.255.255.0", "Gateway": "192.0.2.1"},
        "4": {"IPType": "PPPOE", "Priority": 5, "Weight": 50, "Username": "user", "SealedPassword": "sealed"}
    },
    "Lan": {"1": {"IPType": "DHCP", "IP": "10.0.0.1", "Mask": "255.255.255.0", "StartIp": "10.0.0.10",
        "EndIp": "10.0.0.20", "Lease": "60"}},
    "Ecc": {"3": [{"Vlan": "7", "IP": "10.9.0.1", "Mask": "255.255.255.0"}], "5": []},
    "Management": {"IP": "192.0.2.9", "Mask": "255.255.255.0", "Gateway": "192.0.2.1"},
    "RouteProtocol": "OSPF",
    "Bgp": {"RouterId": "10.0.0.1", "LocalAs": 65001, "HoldTime": 9, "KeepAlive": 3},
    "Ospf": {"AreaId": 1, "AuthenticationType": "MD5", "DeadTime": 40, "HelloTime": 10, "RouterId": "10.0.0.1",
        "Md5KeyId": 3, "SealedMd5Key": "sealed", "SealedPassword": "sealed"},
    "PortProtocols": {"1": {"RouteProtocol": "BGP", "Vlan": "0", "RemoteIp": "10.0.0.9", "RemoteAs": "65002"}},
    "StaticRoutes": [{"PortName": "1", "Vlan": "0", "DestinationCidr": "10.5.0.0/16", "NextHop": "10.0.0.9"}],
    "Dns": {"MasterDns": "192.0.2.53", "SlaveDns": "192.0.2.54"},
    "Ha": {"Mode": "STATIC", "PortName": "1", "VirtualIp": "10.0.0.3"},
    "Snat": "ENABLE",
    "RemoteAccessIp": "10.44.0.1",
    "SealedAdminPassword": "sealed",
    "UpgradePolicy": {"CronExpression": "0 0 4 1/1 * ?", "Duration": 30, "TimeZone": "Asia/Shanghai",
        "UpgradeType": "scheduled"},
    "DpiUpgradePolicy": {"CronExpression": "0 0 4 1/1 * ?", "Duration": 30, "TimeZone": "Asia/Shanghai",
        "UpgradeType": "boot"},
    "TargetVersion": "0.1.1",
    "DpiVersion": "20201117_1_0-0.0.1",
    "Tasks": {"Snat": {"Revision": 12, "CreateTime": 1795970700180}},
    "Commands": [{"Name": "Diagnose", "Args": {"DiagnoseId": "dia-1"}, "Revision": 12}],
    "Diagnosis": {
        "DiagnoseId": "dia-1", "InstanceId": "sag-1", "SN": "sag0", "UId": 1, "BoxType": "sag-vcpe",
        "BoxVersion": "2.3.1", "MonitorVersion": "1.2.0", "State": "finished", "Percent": 100, "StartTime": 1,
        "EndTime": 2, "TotalNumber": 1, "FinishedNumber": 1, "UserLevel": "user", "StoreType": "local",
        "ReportSLSSuccess": 0, "Statistics": {"Total": 1, "Error": 0, "Warning": 0, "Info": 1},
        "Details": [{"Type": "config", "Statistics": {"Total": 1, "Error": 0, "Warning": 0, "Info": 1}, "Items": [{
            "Type": "config", "ItemName": "wanConfigCheck", "Level": "info", "StartTime": 1, "EndTime": 2,
            "EN": {"ItemName": "wanConfigCheck", "ItemType": "Config", "ItemLevel": "INFO", "Details": ["OK"],
                "Advice": ["N/A"]},
            "CN": {"ItemName": "wanConfigCheck", "ItemType": "配置", "ItemLevel": "正常", "Details": ["OK"],
                "Advice": ["N/A"]}
        }]}],
        "Level": {"Biz": "info", "Configuration": "info", "Total": "info"}
    }
}"#;

#[test]
fn no_field_of_a_stored_device_is_lost() {
    let db = rusqlite::Connection::open_in_memory().expect("opens");
    db.execute_batch(DUMP).expect("fills");
    let mut rows = db.prepare("SELECT body FROM devices").expect("prepares");
    let rows = rows.query_map([], |r| r.get::<_, String>(0)).expect("reads");
    let mut texts: Vec<String> = rows.map(|row| row.expect("a row")).collect();
    assert_eq!(texts.len(), 2);
    texts.push(DEVICE.to_owned());
    for text in texts {
        let before: Value = serde_json::from_str(&text).expect("a document");
        let config: DeviceConfig = serde_json::from_str(&text).expect("a configuration");
        let after = serde_json::to_value(&config).expect("a document");
        for (section, value) in before.as_object().expect("an object") {
            // These are columns.
            let column = ["Slot", "SealedKey"].contains(&section.as_str());
            assert!(column || after[section] == *value, "{section}: {value} is {}", after[section]);
        }
        if text == DEVICE {
            assert_eq!(after, before);
        }
    }
}

#[test]
fn a_port_that_no_agent_reported() {
    let text = r#"{"Ports": [{"PortName": "9", "Role": "LAN", "Mac": null, "Status": null}]}"#;
    let config: DeviceConfig = serde_json::from_str(text).expect("a configuration");
    assert_eq!((config.ports[0].mac.as_str(), config.ports[0].status.as_str()), ("", ""));
}
