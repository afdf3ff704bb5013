//! Every operation of the catalogue, with every way to name what a user may not see.
//!
//! One account has each kind of object twice: `hidden` and `shown`, linked with each other. The calls are made from the
//! catalogue, so a new operation is tested without being listed here.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::api::{Kind as ValueKind, ParamSpec, Pattern};
use crate::domain::policy::{Policy, check};
use crate::service::offers;
use crate::service::server::Settings;
use crate::store::Store;
use crate::store::audit::Retention;
use crate::store::offers::AccessPoint;

type Pairs = Vec<(String, String)>;

/// Parameters that name gateways, devices and everything else, wherever they are documented.
const NAMES: [&str; 32] = [
    "SmartAGId",
    "SagId",
    "OriginSmartAGId",
    "TargetSmartAGId",
    "InstanceId",
    "SmartAGIds",
    "SagInsId",
    "SmartAGIdList",
    "AssociateConfigs.N.SmartAGId",
    "SagSn",
    "Sn",
    "ProbeTaskId",
    "SmartAGSn",
    "SerialNumber",
    "SnNumber",
    "AclId",
    "AclIds",
    "UnboundAclIds",
    "AcrId",
    "QosId",
    "QosIds",
    "QosPolicyId",
    "QosCarId",
    "CcnId",
    "CcnInstanceId",
    "AssociatedCcnId",
    "FlowLogId",
    "HcInstanceId",
    "EnterpriseCode",
    "ResourceId",
    "RuleInstanceId",
    "RouteSource",
];

/// What was made of one call.
struct Outcome {
    /// The answer without the identifier of the request, or the error code.
    result: std::result::Result<String, String>,
    /// What the audit log says that it was about.
    resources: String,
}

impl Outcome {
    fn is_forbidden(&self) -> bool {
        matches!(self.code(), "Forbidden" | "Forbbiden.SubUser")
    }

    fn code(&self) -> &str {
        self.result.as_ref().map_or_else(String::as_str, |_| "OK")
    }
}

/// The identifiers of one side, by the parameters that name them.
type Side = BTreeMap<&'static str, String>;

struct World {
    app: Arc<App>,
    uid: i64,
    /// An account that has nothing.
    stranger: i64,
    hidden: Side,
    shown: Side,
    /// Nothing has these identifiers.
    absent: Side,
    /// What went wrong, of all calls.
    failures: Mutex<Vec<String>>,
    _dir: tempfile::TempDir,
}

fn caller(uid: i64, user: &str, policies: &[Value]) -> Arc<Caller> {
    for policy in policies {
        assert_eq!(check(policy).expect("well formed"), [""; 0]);
    }
    Arc::new(Caller {
        user: user.to_owned(),
        key_id: format!("key-{uid}-{user}"),
        policies: policies.iter().map(Policy::new).collect(),
        ..Caller::account(uid)
    })
}

/// Whether the operation is about instances of the client-app edition.
fn is_about_app(op: Op) -> bool {
    let name = op.name();
    [
        "ClientUser",
        "OnlineClient",
        "KickOut",
        "UserFlow",
        "AccessGatewayUser",
        "Software",
        "AGEnterpriseCode",
        "UserAccelerate",
    ]
    .iter()
    .any(|part| name.contains(part))
        && name != "DescribeSmartAccessGatewayVersions"
}

/// A value that the catalogue allows.
fn plausible(p: &ParamSpec) -> String {
    let special = match p.name {
        "IP" => "192.168.50.2",
        "Mask" => "255.255.255.0",
        "Gateway" => "192.168.50.1",
        "MaxBandWidth" => "100",
        "BandWidthSpec" => "200",
        "UserCount" | "DataPlan" | "Priority" => "5",
        "Bandwidth" => "20",
        "PortName" => "1",
        "Vlan" => "0",
        "HardWareSpec" => "sag-vcpe",
        "HaType" => "warm_backup",
        "NewResourceGroupId" => "rg-new",
        "ResourceType" => "smartag",
        "VersionCode" => "0.1.1",
        "DestCidrBlock" | "DestinationCidr" | "CidrBlock" => "192.168.77.0/24",
        "MasterDns" | "SlaveDns" | "NextHop" | "SnatIp" | "DstIpAddr" | "SrcIpAddr" | "InternalIp"
        | "NetflowServerIp" | "ExternalIp" => "192.0.2.9",
        "DstPort" | "SrcPort" | "NetflowServerPort" => "1000",
        "MinBandwidthAbs" | "MinBandwidthPercent" => "1",
        "MaxBandwidthAbs" | "MaxBandwidthPercent" => "9",
        "VbrId" | "VbrInstanceId" | "VbrInstanceIds" => "vbr-test",
        "VbrRegionId" | "SlsRegionId" | "OriginRegionId" => "cn-shanghai",
        "CenInstanceId" | "CenId" => "cen-test",
        "MasterIp" | "SlaveIp" | "Address" | "ProbeTaskSourceAddress" => "192.0.2.9",
        "Domain" => "www.example.com",
        "UserMail" => "someone@example.com",
        "UserName" | "Username" | "UserNames" => "someone",
        "OpenApiName" => "ModifySagWan",
        "CronExpression" => "0 0 4 1/1 * ?",
        "AccessPointId" | "AccessPointIds" => "101",
        "CcnUid" | "VbrUid" | "CenUid" => "1",
        "InactiveAging" => "15",
        "LimitType" => "Absolute",
        "OutputType" => "netflow",
        "Type" if p.choices.is_empty() => "HC_TYPE_ICMP",
        "IpProtocol" => "TCP",
        "IPType" => "STATIC",
        _ => "",
    };
    if !special.is_empty() && (p.choices.is_empty() || p.choices.contains(&special)) {
        return special.to_owned();
    }
    if let Some(choice) = p.choices.first() {
        return (*choice).to_owned();
    }
    if let Some((least, _)) = p.range {
        return least.to_string();
    }
    match (p.kind, p.pattern) {
        (ValueKind::Int, _) => "5",
        (ValueKind::Bool, _) => "true",
        (_, Pattern::Cidr) => "10.9.0.0/16",
        (_, Pattern::Port) => "80",
        (_, Pattern::PortRange) => "-1/-1",
        (_, Pattern::Ipv4) => "192.0.2.9",
        (_, Pattern::EnterpriseCode) => "new12",
        (_, Pattern::Password) | (_, Pattern::Word) => "Passw0rd1",
        (_, Pattern::Month) => "202601",
        (_, Pattern::Time) => "2026-01-01T00:00:00+0800",
        _ => "testing",
    }
    .to_owned()
}

/// What the catalogue requires of a call apart from names.
fn required(op: Op) -> Pairs {
    let mut out = Vec::new();
    if op == Op::AssociateSmartAGWithApplicationBandwidthPackage {
        out.push(("AssociateConfigs.1.Bandwidth".to_owned(), "10".to_owned()));
    }
    for p in op.spec().params {
        let conditional = p.required_when.is_some() || p.name == "OriginRegionId";
        if p.name != "RegionId" && !p.name.contains(".N.") && (p.required || conditional) && !is_name(p) {
            let name = if p.list { format!("{}.1", p.name) } else { p.name.to_owned() };
            out.push((name, plausible(p)));
        }
    }
    out
}

/// Whether the parameter names one of the objects.
fn is_name(p: &ParamSpec) -> bool {
    NAMES.contains(&p.name) || p.name == "DnatEntryId"
}

/// The parameters of an operation that name objects, as they are sent.
fn names_of(op: Op) -> Vec<String> {
    let all = op.spec().params.iter().filter(|p| is_name(p));
    all.map(|p| if p.list { format!("{}.1", p.name) } else { p.name.replace(".N.", ".1.") }).collect()
}

/// The identifier that a parameter of an operation names on this side.
fn id(op: Option<Op>, side: &Side, name: &str) -> String {
    let about_app = op.is_some_and(is_about_app);
    let key = match name.trim_end_matches(".1") {
        "InstanceId" if op == Some(Op::DeleteSnatEntry) => "SnatEntry",
        "InstanceId" if op.is_some_and(|op| op.name().ends_with("DnsForward")) => "DnsForward",
        "SmartAGId" | "SagId" | "OriginSmartAGId" | "TargetSmartAGId" | "InstanceId" | "SmartAGIds"
            if about_app =>
        {
            "App"
        }
        "SmartAGId"
        | "SagId"
        | "OriginSmartAGId"
        | "TargetSmartAGId"
        | "InstanceId"
        | "SmartAGIds"
        | "ResourceId"
        | "RouteSource"
        | "SagInsId"
        | "SmartAGIdList"
        | "AssociateConfigs.1.SmartAGId"
        | "AssociateConfigs.N.SmartAGId" => "Gateway",
        "ProbeTaskId" => "ProbeTask",
        "SagSn" | "Sn" | "SmartAGSn" | "SerialNumber" | "SnNumber" => "Sn",
        "AclId" | "AclIds" | "UnboundAclIds" | "RuleInstanceId" => "Acl",
        "AcrId" => "AclRule",
        "QosId" | "QosIds" => "Qos",
        "QosPolicyId" => "QosPolicy",
        "QosCarId" => "QosCar",
        "CcnId" | "CcnInstanceId" | "AssociatedCcnId" => "Ccn",
        "FlowLogId" => "FlowLog",
        "HcInstanceId" => "HealthCheck",
        "EnterpriseCode" => "EnterpriseCode",
        "DnatEntryId" => "DnatEntry",
        other => panic!("{other}"),
    };
    side[key].clone()
}

/// The documented names of the objects of a side, in any region and account; `old` gives those of before.
fn resources(side: &Side, old: bool) -> Vec<String> {
    let (gateway, ccn) = if old { ("smartaccessgateway", "cloudconnectnetwork") } else { ("smartag", "ccn") };
    [
        (gateway, "Gateway"),
        (gateway, "App"),
        ("acl", "Acl"),
        ("qos", "Qos"),
        (ccn, "Ccn"),
        ("flowlog", "FlowLog"),
        ("enterprisecode", "EnterpriseCode"),
    ]
    .iter()
    .map(|(word, key)| format!("acs:smartag:*:*:{word}/{}", side[key]))
    .collect()
}

impl World {
    async fn new() -> World {
        let shm = std::path::Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.expect("dir");
        let url = format!("sqlite://{}/cloud.db", dir.path().display());
        let store = Store::open(&url, None, 2).await.expect("opens");
        offers::add_version(&store, "Device", "0.1.1", "sag-vcpe-0.1.1").await.expect("offers");
        let point = AccessPoint {
            id: 101,
            address: "192.0.2.1".into(),
            latitude: "31.23".into(),
            longitude: "121.47".into(),
            ..AccessPoint::default()
        };
        offers::add_access_point(&store, &point).await.expect("offers");
        let mut uids = Vec::new();
        for account in ["main", "stranger"] {
            let key = store.create_key(account, "").await.expect("makes").id;
            uids.push(Caller::load(&store, &key).await.expect("reads").expect("a key").uid);
        }
        let mut world = World {
            app: App::new(
                store,
                Settings {
                    rate_limit: 0,
                    max_body: 1 << 20,
                    limits: sag_http::Limits::default(),
                    retention: Retention { days: 0, entries: 0 },
                    origins: super::super::Origins::default(),
                },
            ),
            uid: uids[0],
            stranger: uids[1],
            hidden: Side::new(),
            shown: Side::new(),
            absent: Side::new(),
            failures: Mutex::default(),
            _dir: dir,
        };
        // The first enterprise code is the default one.
        world.shown = world.side("shown").await;
        world.hidden = world.side("hidden").await;
        for (key, id) in &world.hidden {
            let mut absent: String = id.clone();
            absent.truncate(id.len() - 3);
            world.absent.insert(key, absent + "0z9");
        }
        world.absent.insert("EnterpriseCode", "none9".to_owned());
        world.link().await;
        world
    }

    /// A call of the account itself that must be answered.
    async fn make(&self, action: &str, pairs: &[(&str, &str)]) -> Value {
        let op = Op::by_name(action).expect("an operation");
        let mut all: Pairs = required(op);
        all.retain(|(name, _)| !pairs.iter().any(|(n, _)| n == name));
        all.extend(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        all.push(("RegionId".to_owned(), "cn-shanghai".to_owned()));
        let outcome = self.call(&caller(self.uid, "", &[]), action, &all).await;
        let answer = outcome.result.unwrap_or_else(|code| panic!("{action}: {code}"));
        serde_json::from_str(&answer).expect("JSON")
    }

    async fn side(&self, side: &str) -> Side {
        let name = format!("{side}-name");
        let text = |v: &Value| v.as_str().expect("an identifier").to_owned();
        let gateway = text(&self.make("CreateSmartAccessGateway", &[("Name", &name)]).await["SmartAGId"]);
        self.make("ActivateSmartAccessGateway", &[("SmartAGId", &gateway)]).await;
        let seen = self.make("DescribeSmartAccessGatewayAttribute", &[("SmartAGId", &gateway)]).await;
        let sn = text(&seen["SerialNumber"]).split(',').next().expect("two").to_owned();
        let app = text(&self.make("CreateSmartAccessGatewaySoftware", &[]).await["SmartAGId"]);
        self.make(
            "CreateSmartAccessGatewayClientUser",
            &[("SmartAGId", &app), ("UserName", "someone"), ("Password", "Passw0rd1")],
        )
        .await;
        let acl = text(&self.make("CreateACL", &[("Name", &name)]).await["AclId"]);
        let rule = text(&self.make("AddACLRule", &[("AclId", &acl), ("Name", &name)]).await["AcrId"]);
        let qos = text(&self.make("CreateQos", &[("QosName", &name)]).await["QosId"]);
        let policy = self.make("CreateQosPolicy", &[("QosId", &qos), ("Name", &name)]).await;
        let car = self.make("CreateQosCar", &[("QosId", &qos), ("Name", &name)]).await;
        let ccn = text(
            &self.make("CreateCloudConnectNetwork", &[("Name", &name), ("CidrBlock", "")]).await["CcnId"],
        );
        let log = text(&self.make("CreateFlowLog", &[("Name", &name)]).await["FlowLogId"]);
        let hc = self.make("CreateHealthCheck", &[("SmartAGId", &gateway), ("Name", &name)]).await;
        let probe =
            self.make("CreateProbeTask", &[("SagId", &gateway), ("Sn", &sn), ("TaskName", &name)]).await;
        let forward =
            self.make("AddSmartAccessGatewayDnsForward", &[("SagInsId", &gateway), ("SagSn", &sn)]).await;
        let snat = self.make("AddSnatEntry", &[("SmartAGId", &gateway)]).await;
        let dnat = self.make("AddDnatEntry", &[("SagId", &gateway), ("Type", "Internet")]).await;
        let code = format!("{}1", &side[..4]);
        self.make("CreateEnterpriseCode", &[("EnterpriseCode", &code)]).await;
        Side::from([
            ("Gateway", gateway),
            ("App", app),
            ("Sn", sn),
            ("Acl", acl),
            ("AclRule", rule),
            ("Qos", qos),
            ("QosPolicy", text(&policy["QosPolicyId"])),
            ("QosCar", text(&car["QosCarId"])),
            ("Ccn", ccn),
            ("FlowLog", log),
            ("HealthCheck", text(&hc["InstanceId"])),
            ("ProbeTask", text(&probe["Data"])),
            ("DnsForward", text(&forward["Data"]["InstanceId"])),
            ("SnatEntry", text(&snat["InstanceId"])),
            ("DnatEntry", text(&dnat["DnatEntryId"])),
            ("EnterpriseCode", code),
            ("Name", name),
        ])
    }

    /// Links both sides crosswise, so that each object of one side is next to one of the other.
    async fn link(&self) {
        for (a, b) in [(&self.hidden, &self.shown), (&self.shown, &self.hidden)] {
            let gw = ("SmartAGId", a["Gateway"].as_str());
            self.make("AssociateACL", &[gw, ("AclId", &b["Acl"])]).await;
            self.make("AssociateQos", &[gw, ("QosId", &b["Qos"])]).await;
            self.make("AssociateFlowLog", &[gw, ("FlowLogId", &b["FlowLog"])]).await;
            self.make("BindSmartAccessGateway", &[gw, ("CcnId", &b["Ccn"])]).await;
            let app = ("SmartAGId", a["App"].as_str());
            self.make("UpdateSmartAGEnterpriseCode", &[app, ("EnterpriseCode", &b["EnterpriseCode"])]).await;
        }
        self.make("BindVbr", &[("SmartAGId", &self.hidden["Gateway"])]).await;
    }

    async fn call(&self, who: &Arc<Caller>, action: &str, pairs: &[(String, String)]) -> Outcome {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed).to_string();
        let mut params = Params::default();
        for (name, value) in pairs {
            params.set(name, value);
        }
        let peer = "192.0.2.7:1".parse().expect("an address");
        let origin = Origin { request_id: &n, peer, host: "" };
        // A key of its own for each call: the log takes few refused ones of one key.
        let claim = Claim::unsigned(&format!("key-{n}"), &n, action);
        let result = dispatch(&self.app, &claim, who.clone(), params, origin).await;
        let mut tx = self.app.store.read().await.expect("begins");
        let sql = "SELECT resources FROM audit WHERE request_id = $1";
        let resources = tx.texts(sql, crate::args![n.as_str()]).await.expect("reads").concat();
        tx.rollback().await.expect("ends");
        let result = match result {
            Ok(answer) => {
                let mut answer: Value = serde_json::from_str(&answer).expect("JSON");
                answer.as_object_mut().expect("an object").remove("RequestId");
                Ok(answer.to_string())
            }
            Err(e) => Err(e.code.into_owned()),
        };
        Outcome { result, resources }
    }

    /// Everything that is stored of objects.
    async fn stored(&self) -> Vec<String> {
        let mut tx = self.app.store.read().await.expect("begins");
        let mut out = Vec::new();
        for sql in [
            "SELECT kind || ' ' || id || ' ' || parent || ' ' || body FROM objects ORDER BY kind, id",
            "SELECT kind || ' ' || a || ' ' || b FROM links ORDER BY kind, a, b",
            "SELECT sn || ' ' || sag || ' ' || revision || ' ' || sealed_key || body || report FROM devices ORDER BY sn",
        ] {
            out.extend(tx.texts(sql, Vec::new()).await.expect("reads"));
        }
        tx.rollback().await.expect("ends");
        out
    }

    fn expect(&self, good: bool, what: impl FnOnce() -> String) {
        if !good {
            self.failures.lock().expect("no panic").push(what());
        }
    }

    /// Fails with everything that went wrong.
    fn finish(self) {
        let failures = self.failures.into_inner().expect("no panic");
        assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    }

    /// The answer does not show anything of the hidden side.
    fn expect_hidden(&self, what: &str, outcome: &Outcome) {
        let Ok(answer) = &outcome.result else { return };
        for (key, id) in &self.hidden {
            self.expect(!answer.contains(id.as_str()), || {
                format!("{what} shows the hidden {key} {id}: {answer}")
            });
        }
    }

    /// The names of the operation with the identifiers of a side, and the rest that it needs.
    fn request(&self, op: Op, region: bool, side_of: impl Fn(&str) -> Option<Side>) -> Pairs {
        let mut out = required(op);
        for name in names_of(op) {
            if let Some(side) = side_of(&name) {
                let value = id(Some(op), &side, &name);
                out.push((name, value));
            }
        }
        if region {
            out.push(("RegionId".to_owned(), "cn-shanghai".to_owned()));
        }
        out
    }

    /// Makes the call; what it names of the hidden side neither shows nor changes.
    async fn attack(&self, who: &Arc<Caller>, op: Op, pairs: &[(String, String)]) -> Outcome {
        let before = self.stored().await;
        let outcome = self.call(who, op.name(), pairs).await;
        let what = format!("{} {pairs:?}", op.name());
        self.expect_hidden(&what, &outcome);
        let same = before == self.stored().await;
        self.expect(same, || format!("{what} -> {} changed something", outcome.code()));
        outcome
    }

    /// Every operation with every way to name the hidden side.
    async fn attack_all(&self, who: &Arc<Caller>, twin: &Arc<Caller>) {
        for op in Op::ALL.iter().copied() {
            let names = names_of(op);
            for region in [true, false] {
                let pairs = self.request(op, region, |_| Some(self.hidden.clone()));
                if names.is_empty() {
                    // Makes something or is about nothing: only what it shows matters.
                    let mut pairs = pairs;
                    pairs.push(("DryRun".to_owned(), "true".to_owned()));
                    let outcome = self.call(who, op.name(), &pairs).await;
                    self.expect_hidden(op.name(), &outcome);
                    continue;
                }
                let outcome = self.attack(who, op, &pairs).await;
                let required_region = op.spec().params.iter().any(|p| p.name == "RegionId" && p.required);
                let names_required = op.spec().params.iter().any(|p| is_name(p) && p.required);
                // A part of a hidden object is no other than one that does not exist.
                let refused = outcome.is_forbidden()
                    || outcome.code() == "HC.InstanceNoFound"
                    || (op == Op::CreateEnterpriseCode && outcome.code() == "EnterpriseCode.BeenOccupied")
                    || (op.reads() && outcome.result.is_ok() && !names_required)
                    || (!region && required_region);
                self.expect(refused, || format!("{} is answered {:?} {pairs:?}", op.name(), outcome.result));
                if outcome.is_forbidden() && !op.reads() && op != Op::CreateEnterpriseCode {
                    let id = self.hidden.values().any(|id| outcome.resources.contains(id.as_str()));
                    self.expect(id, || format!("{}: the log has {:?}", op.name(), outcome.resources));
                }
                // Where nothing of it exists the answer is the same.
                if op != Op::CreateEnterpriseCode {
                    let other = self.call(twin, op.name(), &pairs).await;
                    let code = |o: &Outcome| o.result.as_ref().err().cloned();
                    let (code, other) = (code(&outcome), code(&other));
                    self.expect(code == other, || format!("{} {code:?} {other:?} {pairs:?}", op.name()));
                }
            }
            // One of the names is a hidden one.
            for name in &names {
                let one = |n: &str| Some(if n == name { self.hidden.clone() } else { self.shown.clone() });
                let pairs = self.request(op, true, one);
                let outcome = self.attack(who, op, &pairs).await;
                let refused = op.reads() || outcome.result.is_err();
                self.expect(refused, || format!("{} is carried out with {pairs:?}", op.name()));
                // What is unique for everybody cannot hide that it is taken.
                let unique = matches!(
                    (op, name.as_str()),
                    (Op::BindSerialNumber, "SerialNumber") | (Op::CreateEnterpriseCode, "EnterpriseCode")
                );
                if !outcome.is_forbidden() && !unique {
                    let none =
                        |n: &str| Some(if n == name { self.absent.clone() } else { self.shown.clone() });
                    let mut pairs = self.request(op, true, none);
                    pairs.push(("DryRun".to_owned(), "true".to_owned()));
                    let absent = self.call(who, op.name(), &pairs).await;
                    let (code, other) = (outcome.code(), absent.code());
                    self.expect(code == other, || format!("{} {name}: {code}, absent {other}", op.name()));
                }
            }
            // A parameter that the operation does not have names nothing.
            for name in NAMES.iter().filter(|n| !names.iter().any(|own| own == *n)) {
                let hidden = id(None, &self.hidden, name);
                let mut pairs = self.request(op, true, |_| Some(self.shown.clone()));
                pairs.push(((*name).to_owned(), hidden.clone()));
                pairs.push(("DryRun".to_owned(), "true".to_owned()));
                let outcome = self.attack(who, op, &pairs).await;
                let unseen = !outcome.resources.contains(&hidden);
                self.expect(unseen, || format!("{} {name} is about {}", op.name(), outcome.resources));
                let mut pairs = self.request(op, true, |_| None);
                pairs.push(((*name).to_owned(), hidden));
                pairs.push(("DryRun".to_owned(), "true".to_owned()));
                self.attack(who, op, &pairs).await;
            }
            // Lists may hold several identifiers, in both forms.
            for name in &names {
                let both = [&self.shown, &self.hidden].map(|side| id(Some(op), side, name));
                let mut pairs = self.request(op, true, |n| (n != name).then(|| self.shown.clone()));
                match name.strip_suffix(".1") {
                    Some(list) => pairs.extend([1, 2].map(|n| (format!("{list}.{n}"), both[n - 1].clone()))),
                    None => pairs.push((name.clone(), both.join(","))),
                }
                self.attack(who, op, &pairs).await;
            }
        }
        self.attack_as_agent(who).await;
    }

    /// The calls of agents, whose answers have the secrets of a device in clear.
    async fn attack_as_agent(&self, who: &Arc<Caller>) {
        for action in sag_southbound::Action::ALL.map(|a| a.name()) {
            for name in
                ["SmartAGId", "SagId", "OriginSmartAGId", "TargetSmartAGId", "InstanceId", "SmartAGIds"]
            {
                for gateway in [None, Some(&self.shown["Gateway"])] {
                    let mut pairs: Pairs = [
                        ("SmartAGSn", self.hidden["Sn"].as_str()),
                        ("SerialNumber", self.hidden["Sn"].as_str()),
                        ("Revision", "0"),
                        ("Wait", "0"),
                        ("Success", "true"),
                        ("State", "{}"),
                    ]
                    .map(|(n, v)| (n.to_owned(), v.to_owned()))
                    .into();
                    pairs.extend(gateway.map(|gw| ("SmartAGId".to_owned(), gw.clone())));
                    if gateway.is_none() || name != "SmartAGId" {
                        pairs.push((name.to_owned(), self.hidden["Gateway"].clone()));
                    }
                    let before = self.stored().await;
                    let outcome = self.call(who, action, &pairs).await;
                    let same = before == self.stored().await;
                    let refused = outcome.result.is_err() && same;
                    self.expect(refused, || format!("{action} {pairs:?}: {:?}", outcome.result));
                }
            }
        }
    }

    /// Calls that name the shown side alone are not refused.
    async fn use_shown(&self, who: &Arc<Caller>) {
        for op in Op::ALL.iter().copied().filter(|op| !names_of(*op).is_empty()) {
            let mut pairs = self.request(op, true, |_| Some(self.shown.clone()));
            pairs.push(("DryRun".to_owned(), "true".to_owned()));
            let outcome = self.attack(who, op, &pairs).await;
            // A code is made, and a change of the default code changes the other one.
            if op != Op::CreateEnterpriseCode {
                self.expect(!outcome.is_forbidden(), || format!("{} is refused", op.name()));
            }
        }
    }
}

fn policy(statements: Value) -> Value {
    json!({"Version": "1", "Statement": statements})
}

#[tokio::test]
async fn nothing_that_is_denied_is_shown_or_changed() {
    let world = World::new().await;
    let allow = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
    let deny = json!({"Effect": "Deny", "Action": "*", "Resource": resources(&world.hidden, false)});
    let policies = [policy(json!([allow, deny]))];
    let twin = caller(world.stranger, "limited", &policies);
    let user = caller(world.uid, "limited", &policies);
    world.attack_all(&user, &twin).await;
    world.use_shown(&user).await;
    world.finish();
}

#[tokio::test]
async fn nothing_but_what_is_allowed_is_shown_or_changed() {
    let world = World::new().await;
    let policies = [policy(
        json!([{"Effect": "Allow", "Action": "smartag:*", "Resource": resources(&world.shown, false)}]),
    )];
    let twin = caller(world.stranger, "limited", &policies);
    let user = caller(world.uid, "limited", &policies);
    world.attack_all(&user, &twin).await;
    world.use_shown(&user).await;
    for op in Op::ALL.iter().copied().filter(|op| names_of(*op).is_empty() && !op.reads()) {
        let outcome = world.call(&user, op.name(), &world.request(op, true, |_| None)).await;
        world.expect(outcome.is_forbidden(), || format!("{} makes something", op.name()));
    }
    world.finish();
}

#[tokio::test]
async fn each_way_to_write_a_policy_refuses() {
    let world = World::new().await;
    let allow = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
    let in_region: Vec<String> = resources(&world.hidden, false)
        .iter()
        .map(|r| r.replacen("*:*", &format!("cn-shanghai:{}", world.uid), 1))
        .collect();
    for statements in [
        json!([allow, {"Effect": "Deny", "Action": "*", "Resource": resources(&world.hidden, true)}]),
        json!([allow, {"Effect": "Deny", "NotAction": "smartag:Nothing", "Resource": in_region}]),
        json!([allow, {"Effect": "Deny", "Action": "*", "NotResource": resources(&world.shown, false)}]),
        json!([{"Effect": "Allow", "Action": "*", "NotResource": resources(&world.hidden, true)}]),
        json!([{"Effect": "Allow", "NotAction": "smartag:Nothing", "Resource": resources(&world.shown, true)}]),
        json!([allow, {"Effect": "Deny", "Action": "*", "Resource": resources(&world.hidden, false),
                       "Condition": {"IpAddress": {"acs:SourceIp": "192.0.2.0/24"}}}]),
    ] {
        let user = caller(world.uid, "limited", &[policy(statements.clone())]);
        for op in Op::ALL.iter().copied().filter(|op| !names_of(*op).is_empty()) {
            for region in [true, false] {
                let pairs = world.request(op, region, |_| Some(world.hidden.clone()));
                let outcome = world.attack(&user, op, &pairs).await;
                let refused = op.reads() || outcome.result.is_err();
                world.expect(refused, || format!("{} {statements}", op.name()));
            }
        }
    }
    world.finish();
}

#[tokio::test]
async fn a_repeated_call_of_another_user_is_not_answered() {
    let world = World::new().await;
    let allow = policy(json!([{"Effect": "Allow", "Action": "*", "Resource": "*"}]));
    let token = ("ClientToken".to_owned(), "same".to_owned());
    let mut pairs = required(Op::CreateACL);
    pairs.extend([token, ("RegionId".to_owned(), "cn-shanghai".to_owned())]);
    let mut answers = Vec::new();
    for user in ["", "one", "two", "one"] {
        let who = caller(world.uid, user, std::slice::from_ref(&allow));
        let answer = world.call(&who, "CreateACL", &pairs).await.result.expect("answers");
        // Whether members keep their order is a feature of serde_json that other crates may switch on.
        answers.push(serde_json::from_str::<Value>(&answer).expect("JSON"));
    }
    assert_eq!(answers[1], answers[3], "the same user's call is answered as before");
    assert!(answers[0] != answers[1] && answers[1] != answers[2], "{answers:?}");
}

#[tokio::test]
async fn counts_are_of_what_the_user_may_see() {
    let world = World::new().await;
    let deny = json!({"Effect": "Deny", "Action": "*", "Resource": resources(&world.hidden, false)});
    let allow = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
    let user = caller(world.uid, "limited", &[policy(json!([allow, deny]))]);
    let pairs =
        vec![("RegionId".to_owned(), "cn-shanghai".to_owned()), ("PageSize".to_owned(), "1".to_owned())];
    for (action, count, list, counted) in [
        ("DescribeSmartAccessGateways", 2, "/SmartAccessGateways/SmartAccessGateway", ""),
        ("DescribeACLs", 1, "/Acls/Acl", "SagCount"),
        ("DescribeQoses", 1, "/Qoses/Qos", "SagCount"),
        (
            "DescribeCloudConnectNetworks",
            1,
            "/CloudConnectNetworks/CloudConnectNetwork",
            "AssociatedCloudBoxCount",
        ),
        ("DescribeFlowLogs", 1, "/FlowLogs/FlowLogSetType", "TotalSagNum"),
        ("ListEnterpriseCode", 1, "/EnterpriseCodes", "SmartAGCount"),
    ] {
        let answer = world.call(&user, action, &pairs).await.result.expect("answers");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["TotalCount"], count, "{action} {answer}");
        let rows = answer.pointer(list).and_then(Value::as_array);
        let rows = rows.unwrap_or_else(|| panic!("{action} {answer}"));
        assert_eq!(rows.len(), 1, "{action}: one a page");
        if !counted.is_empty() {
            let shown = rows[0][counted].to_string().replace('"', "");
            assert_eq!(shown, "0", "{action}: the gateway of the hidden side is not counted");
        }
    }
}
