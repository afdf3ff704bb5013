//! The state of the network, and what of the configuration is not in force, for the operator: `network.json` in
//! `state_dir`, and `sag-agent status`, which prints it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sag_southbound::Identity;
use serde::{Deserialize, Serialize};

use crate::compile::Compiled;
use crate::config::Config;
use crate::desired::Ccn;
use crate::files::{self, Unwritten};
use crate::identity;

const FILE: &str = "network.json";

/// This device in its network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Network {
    /// The network; empty: this gateway is in none.
    #[serde(rename = "CcnId")]
    pub ccn: String,
    #[serde(rename = "HubSmartAGId")]
    pub hub: String,
    #[serde(rename = "SmartAGId")]
    pub gateway: String,
    #[serde(rename = "SmartAGSn")]
    pub sn: String,
    pub fingerprint: String,
    /// Where the tunnels of this device end.
    pub address: String,
    pub peers: Vec<Peer>,
    /// Devices and blocks without tunnel or route, and why.
    pub refused: Vec<String>,
    /// What else is wrong.
    pub problems: Vec<String>,
    /// Objects of the cloud that are not in force as they are, and why.
    pub deviations: Vec<String>,
}

/// The far end of a tunnel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Peer {
    #[serde(rename = "SmartAGSn")]
    pub sn: String,
    #[serde(rename = "SmartAGId")]
    pub gateway: String,
    /// Empty: it does not sign.
    pub fingerprint: String,
    pub tunnel: String,
    pub address: String,
    pub epoch: u64,
    pub blocks: Vec<String>,
}

/// The file, and what it has.
#[derive(Debug)]
pub struct NetworkStatus {
    path: PathBuf,
    written: Option<Network>,
    unwritten: Unwritten,
}

impl NetworkStatus {
    pub fn new(state_dir: &Path) -> NetworkStatus {
        NetworkStatus { path: state_dir.join(FILE), written: None, unwritten: Unwritten::default() }
    }

    /// Writes down what has changed.
    pub fn write(
        &mut self,
        ccn: Option<&Ccn>,
        identity: Option<Identity>,
        config: &Config,
        compiled: &Compiled,
        (problems, deviations): (&[String], &[String]),
    ) {
        let peers = compiled.tunnels.iter().map(|t| Peer {
            sn: t.peer.sn.clone(),
            gateway: t.gateway.clone(),
            fingerprint: t.endpoint.identity.map(|i| i.fingerprint()).unwrap_or_default(),
            tunnel: t.name.clone(),
            address: t.remote.to_string(),
            epoch: t.endpoint.epoch,
            blocks: t.blocks.iter().map(|(block, _)| block.clone()).collect(),
        });
        let now = Network {
            ccn: ccn.map(|c| c.id.clone()).unwrap_or_default(),
            hub: ccn.map(|c| c.hub.clone()).unwrap_or_default(),
            gateway: config.smart_ag_id.clone(),
            sn: config.smart_ag_sn.clone(),
            fingerprint: identity.map(|i| i.fingerprint()).unwrap_or_default(),
            address: compiled.local.map(|a| a.to_string()).unwrap_or_default(),
            peers: peers.collect(),
            refused: compiled.refused.clone(),
            problems: problems.to_vec(),
            deviations: deviations.to_vec(),
        };
        if self.written.as_ref() == Some(&now) {
            return;
        }
        let text = serde_json::to_vec_pretty(&now).unwrap_or_default();
        if self.unwritten.note("state of the network", &self.path, files::replace(&self.path, &text)) {
            self.written = Some(now);
        }
    }
}

/// What `sag-agent status` prints.
///
/// # Errors
/// The identity or the file cannot be read.
pub fn report(config: &Config, json: bool) -> Result<String> {
    let path = config.state_dir.join(FILE);
    let mut network = match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| path.display().to_string())?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Network::default(),
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    };
    // The identity is there before the first network is.
    let identity = identity::read(&config.state_dir).map_err(anyhow::Error::msg)?;
    network.fingerprint = identity.map(|key| key.identity().fingerprint()).unwrap_or_default();
    (network.gateway, network.sn) = (config.smart_ag_id.clone(), config.smart_ag_sn.clone());
    if json {
        return Ok(serde_json::to_string_pretty(&network)? + "\n");
    }
    Ok(human_readable(&network))
}

fn human_readable(n: &Network) -> String {
    let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
    let mut out = String::new();
    let _ = writeln!(out, "device       {} of gateway {}", n.sn, n.gateway);
    let own = or(&n.fingerprint, "none yet: the agent makes it at its first start");
    let _ = writeln!(out, "fingerprint  {own}");
    let _ = writeln!(out, "network      {}", or(&n.ccn, "none"));
    if !n.ccn.is_empty() {
        let _ = writeln!(out, "hub          {}", or(&n.hub, "none: a tunnel to every member"));
        let _ = writeln!(out, "address      {}", or(&n.address, "none"));
    }
    for p in &n.peers {
        let fingerprint = or(&p.fingerprint, "does not sign");
        let _ = writeln!(out, "\npeer         {} of gateway {}", p.sn, p.gateway);
        let _ = writeln!(out, "fingerprint  {fingerprint}");
        let _ = writeln!(out, "tunnel       {} to {}, key {}", p.tunnel, p.address, p.epoch);
        let _ = writeln!(out, "blocks       {}", or(&p.blocks.join(", "), "none"));
    }
    let lists =
        [("refused", &n.refused), ("problems", &n.problems), ("not in force as they are", &n.deviations)];
    for (title, rows) in lists {
        if !rows.is_empty() {
            let _ = writeln!(out, "\n{title}");
        }
        for row in rows {
            let _ = writeln!(out, "  {row}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_compares_and_what_is_refused_is_shown() {
        let peer =
            Peer { sn: "sn2".into(), gateway: "sag-2".into(), tunnel: "ccn-sn2".into(), ..Peer::default() };
        let network = Network {
            ccn: "ccn-1".into(),
            sn: "sn1".into(),
            fingerprint: "605c-ca0f".into(),
            peers: vec![peer.clone(), Peer { fingerprint: "340b-8476".into(), ..peer }],
            refused: vec!["device sn3 of gateway sag-3 has no tunnel: its address".into()],
            deviations: vec!["rule acr-7 of ACL acl-3 is left out: applications".into()],
            ..Network::default()
        };
        let text = human_readable(&network);
        for part in [
            "605c-ca0f",
            "340b-8476",
            "does not sign",
            "device sn3",
            "acr-7",
            "none: a tunnel to every member",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let again: Network =
            serde_json::from_str(&serde_json::to_string(&network).expect("JSON")).expect("read");
        assert_eq!(again, network);
    }
}
