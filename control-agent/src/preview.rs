//! What this version would do with a device document: `sag-agent preview`.

use anyhow::{Context, Result};
use sag_southbound::{DeviceDocument, StateReport, read};
use serde_json::{Value, json};

use crate::capability::CAPABILITIES;
use crate::commands::CommandLog;
use crate::desired::Desired;

/// What of the document is acted upon, what has no effect, how each command would go, and what the device can do.
///
/// # Errors
/// The text is no device document of a version that this program reads.
pub fn preview(text: &str) -> Result<Value> {
    let document: Value = serde_json::from_str(text).context("the document is not JSON")?;
    let document: DeviceDocument = read(document).map_err(|e| anyhow::anyhow!("{e}"))?;
    let mut log = CommandLog::default();
    let commands: Vec<Value> = document
        .commands
        .iter()
        .map(|issued| {
            let (result, _) = log.take(issued);
            json!({"Name": result.name, "Outcome": result.outcome.as_str(), "Message": result.message})
        })
        .collect();
    let mut desired = Desired::from(document);
    let ignored = std::mem::take(&mut desired.ignored);
    let can = StateReport { capabilities: Some(CAPABILITIES.to_vec()), ..StateReport::default() };
    let can = serde_json::to_value(can)?["Capabilities"].take();
    Ok(json!({"Desired": desired, "WithoutEffect": ignored, "Commands": commands, "Capabilities": can}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_effect_is_told_apart() {
        let text = r#"{"ProtocolVersion": "1.3", "Revision": 3, "Dns": {"MasterDns": "192.0.2.53"}, "Gateway": {"Bandwidth": 50},
            "Commands": [{"Name": "Reboot", "Args": {}, "Revision": 3}, {"Name": "Dance", "Args": {}, "Revision": 3}]}"#;
        let seen = preview(text).expect("a document");
        assert_eq!(seen["Desired"]["bandwidth"], 50);
        assert_eq!(seen["WithoutEffect"], json!(["DNS servers"]));
        let outcomes: Vec<&Value> = (0..2).map(|i| &seen["Commands"][i]["Outcome"]).collect();
        assert_eq!(outcomes, [&json!("Done"), &json!("UnknownCommand")]);
        assert!(seen["Capabilities"].as_array().is_some_and(|c| c.contains(&json!("Acl"))));
        assert!(preview("{").is_err() && preview(r#"{"ProtocolVersion": "9.0"}"#).is_err());
    }
}
