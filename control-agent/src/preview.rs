//! What this version would do with a device document: `sag-agent preview`.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use anyhow::{Context, Result};
use sag_southbound::{Capability, Secret, StateReport};
use serde_json::{Value, json};

use crate::capability::CAPABILITIES;
use crate::commands::CommandLog;
use crate::compile::{Base, compile};
use crate::desired::{Desired, read_document};

/// What becomes of each of the documents, one line of JSON each, as soon as it is read.
///
/// # Errors
/// The input is no device document of a version that this program reads, or nobody reads the output.
pub fn previews(input: impl Read, base: Option<&Base>, out: &mut impl Write) -> Result<()> {
    for document in serde_json::Deserializer::from_reader(input).into_iter::<Value>() {
        let seen = preview(document.context("the document is not JSON")?, base)?;
        writeln!(out, "{seen}")?;
        out.flush()?;
    }
    Ok(())
}

/// What of the document is acted upon, what has no effect, how each command would go, and what the device can do with
/// everything installed. With the configuration of a gateway also what that would get: of a gateway without tunnels, whose
/// health checks have measured nothing.
///
/// # Errors
/// It is no device document of a version that this program reads.
pub fn preview(document: Value, base: Option<&Base>) -> Result<Value> {
    let (document, unreadable) = read_document(document).map_err(|e| anyhow::anyhow!("{e}"))?;
    let mut log = CommandLog::default();
    let commands: Vec<Value> = document
        .commands
        .iter()
        .map(|issued| {
            let (result, _) = log.take(issued);
            json!({"Name": result.name, "Outcome": result.outcome.as_str(), "Message": result.message})
        })
        .collect();
    let mut desired = Desired { unreadable, ..document.into() };
    let plan = base.map(|base| plan(&desired, base));
    mask(&mut desired);
    let ignored = std::mem::take(&mut desired.ignored);
    let installed = [
        Capability::Bgp,
        Capability::Ospf,
        Capability::Vrrp,
        Capability::Dns,
        Capability::DhcpServer,
        Capability::Pppoe,
    ];
    let capabilities = CAPABILITIES.into_iter().chain(installed).collect();
    let can = StateReport { capabilities: Some(capabilities), ..StateReport::default() };
    let can = serde_json::to_value(can)?["Capabilities"].take();
    let mut out =
        json!({"Desired": desired, "WithoutEffect": ignored, "Commands": commands, "Capabilities": can});
    if let Some(plan) = plan {
        out["Plan"] = plan;
    }
    Ok(out)
}

/// The configuration of the gateway, or why it would be refused as a whole.
fn plan(desired: &Desired, base: &Base) -> Value {
    match compile(desired, base, &BTreeMap::new(), &BTreeMap::new(), None) {
        Ok(c) => {
            let deviations: Vec<String> = c.deviations.iter().map(ToString::to_string).collect();
            json!({"Config": c.text, "Deviations": deviations, "Notices": c.notices, "Refused": []})
        }
        Err(why) => json!({"Config": "", "Deviations": [], "Notices": [], "Refused": why}),
    }
}

/// Secrets are not printed.
fn mask(desired: &mut Desired) {
    let of_ospf = desired.ospf.iter_mut().flat_map(|o| [&mut o.md5_key, &mut o.password]);
    let of_lines = desired.wans.values_mut().map(|w| &mut w.password);
    for secret in of_ospf.chain(of_lines).filter(|s| !s.reveal().is_empty()) {
        *secret = Secret::new("***");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_effect_is_told_apart() {
        let document = json!({"ProtocolVersion": "1.3", "Revision": 3, "RemoteAccessIp": "192.0.2.53",
            "Gateway": {"Bandwidth": 50}, "Commands": [{"Name": "Reboot", "Args": {}, "Revision": 3},
            {"Name": "Dance", "Args": {}, "Revision": 3}]});
        let seen = preview(document, None).expect("a document");
        assert_eq!(seen["Desired"]["bandwidth"], 50);
        assert_eq!(seen["WithoutEffect"], json!(["remote access"]));
        let outcomes: Vec<&Value> = (0..2).map(|i| &seen["Commands"][i]["Outcome"]).collect();
        assert_eq!(outcomes, [&json!("Done"), &json!("UnknownCommand")]);
        assert!(seen["Capabilities"].as_array().is_some_and(|c| c.contains(&json!("Acl"))));
        let secret = json!({"Revision": 3, "Ospf": {"RouterId": "192.0.2.1", "AuthenticationType": "MD5", "Md5Key": "hunter2"}});
        let shown = preview(secret, None).expect("a document").to_string();
        assert!(shown.contains("***") && !shown.contains("hunter2"), "{shown}");
        assert!(seen.get("Plan").is_none());
        assert!(preview(json!({"ProtocolVersion": "9.0"}), None).is_err());
    }

    #[test]
    fn documents_are_planned_one_after_the_other() {
        // The cloud says what the port is.
        let base = Base::from_toml("[[port]]\nname = \"1\"\ndevice = \"eth1\"\n").expect("base");
        let documents = r#"{"Revision": 1, "Ports": [{"PortName": "1", "Role": "LAN"}]}
            {"Revision": 2, "Ports": [{"PortName": "1", "Role": "NONE"}]} {"Revision": 3, "Ports": [
            {"PortName": "1", "Role": "LAN"}, {"PortName": "7", "Role": "WAN"}], "StaticRoutes": "none"}"#;
        let mut out = Vec::new();
        previews(documents.as_bytes(), Some(&base), &mut out).expect("documents");
        let plans: Vec<Value> = String::from_utf8(out)
            .expect("text")
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["Plan"].take())
            .collect();
        assert!(plans[0]["Config"].as_str().is_some_and(|text| text.contains("eth1")));
        assert_eq!((&plans[0]["Refused"], &plans[0]["Deviations"]), (&json!([]), &json!([])));
        assert!(plans[1]["Refused"][0].as_str().is_some_and(|why| why.contains("no port")), "{}", plans[1]);
        assert_eq!(plans[2]["Refused"], json!([]));
        assert!(plans[2]["Deviations"].to_string().contains("StaticRoutes"), "{}", plans[2]);
        assert!(previews(&b"{"[..], None, &mut Vec::new()).is_err());
    }
}
