//! The three calls of an agent: their names, parameters and answers.

use crate::command::CommandResult;
use crate::document::DeviceDocument;
use crate::report::Deviation;
use crate::version::Version;
use crate::wire::{Wire, WireError, deserialize_by_wire, wire_object};

/// Seconds that the cloud holds a long poll at most: less than the time after which a silent device is offline.
pub const MAX_WAIT: u64 = 45;

/// Bytes of the longest state report.
pub const MAX_REPORT: usize = 512 * 1024;

/// A call of the southbound protocol. The calls are operations of the same endpoint as the documented ones, with the
/// same signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// [`PullRequest`], answered by [`PullAnswer`].
    Pull,
    /// [`StateReport`](crate::StateReport) as the parameter `State`, answered by [`ReportAnswer`].
    ReportState,
    /// [`ResultReport`].
    ReportResult,
}

impl Action {
    /// Every call.
    pub const ALL: [Action; 3] = [Action::Pull, Action::ReportState, Action::ReportResult];

    /// The name of the operation.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Pull => "PullSmartAGConfig",
            Action::ReportState => "ReportSmartAGState",
            Action::ReportResult => "ReportSmartAGConfigResult",
        }
    }

    /// The call of that name.
    pub fn by_name(name: &str) -> Option<Action> {
        Action::ALL.into_iter().find(|a| a.name() == name)
    }
}

/// A parameter that is missing or not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the parameter {0} is missing or not allowed")]
pub struct ParameterError(pub &'static str);

/// Parameters with their names, ready to be sent.
pub type Parameters = Vec<(&'static str, String)>;

fn number<T: std::str::FromStr + Default>(
    value: Option<String>,
    name: &'static str,
) -> Result<T, ParameterError> {
    value.map_or(Ok(T::default()), |v| v.trim().parse().map_err(|_| ParameterError(name)))
}

fn version(value: Option<String>) -> Result<Version, ParameterError> {
    match value {
        Some(v) => v.parse().map_err(|_| ParameterError("ProtocolVersion")),
        None => Ok(Version::UNVERSIONED),
    }
}

/// A long poll: answered at once if the revision is another than the agent's, else when it becomes another or the time
/// is over.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PullRequest {
    /// The instance.
    pub smart_ag_id: String,
    /// Serial number of the device.
    pub smart_ag_sn: String,
    /// Revision that the agent has; 0: none.
    pub revision: u64,
    /// Seconds to wait for a change; more than [`MAX_WAIT`] are taken as that.
    pub wait: u64,
    /// What the agent speaks.
    pub version: Version,
}

impl PullRequest {
    /// The parameters of the call.
    pub fn parameters(&self) -> Parameters {
        vec![
            ("SmartAGId", self.smart_ag_id.clone()),
            ("SmartAGSn", self.smart_ag_sn.clone()),
            ("Revision", self.revision.to_string()),
            ("Wait", self.wait.to_string()),
            ("ProtocolVersion", self.version.to_string()),
        ]
    }

    /// Reads the parameters of a call; `get` finds one by its name.
    ///
    /// # Errors
    /// The name of a parameter that is missing or not allowed.
    pub fn from_parameters(get: impl Fn(&str) -> Option<String>) -> Result<PullRequest, ParameterError> {
        Ok(PullRequest {
            smart_ag_id: get("SmartAGId").unwrap_or_default(),
            smart_ag_sn: get("SmartAGSn").ok_or(ParameterError("SmartAGSn"))?,
            revision: number(get("Revision"), "Revision")?,
            wait: number::<u64>(get("Wait"), "Wait")?.min(MAX_WAIT),
            version: version(get("ProtocolVersion"))?,
        })
    }
}

/// The answer to a [`PullRequest`].
///
/// The agent reads it with an unread configuration (`PullAnswer<serde_json::Value>`) first, because it has to report a
/// result for the revision even if it cannot read the configuration.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PullAnswer<C = DeviceDocument> {
    /// The current revision.
    #[serde(rename = "Revision")]
    pub revision: i64,
    /// Whether that is another than the agent's.
    #[serde(rename = "Changed")]
    pub changed: bool,
    /// The configuration, if it changed.
    #[serde(rename = "Config", skip_serializing_if = "Option::is_none")]
    pub config: Option<C>,
}

impl<C: Wire> Wire for PullAnswer<C> {
    fn from_json(value: serde_json::Value) -> Result<PullAnswer<C>, WireError> {
        use crate::wire::{member, object};
        let mut map = object(value)?;
        Ok(PullAnswer {
            revision: member(&mut map, "Revision")?,
            changed: member(&mut map, "Changed")?,
            config: member(&mut map, "Config")?,
        })
    }
}

deserialize_by_wire!(PullAnswer);
deserialize_by_wire!(PullAnswer<serde_json::Value>);

wire_object! {
    /// The answer to a [`StateReport`](crate::StateReport).
    pub struct ReportAnswer {
        /// What became of its [`Announcement`](crate::Announcement); absent: it had none. Since version 1.2.
        overlay: Option<Acceptance> = "Overlay",
    }

    /// Whether the other members of a network get what a device has announced.
    pub struct Acceptance {
        /// The newest epoch that the cloud has accepted of the device.
        epoch: Option<u64> = "Epoch",
        /// Why they do not get it; empty: they do.
        problem: String = "Problem",
    }
}

/// Whether a revision was put in force, and how its commands went.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResultReport {
    /// The instance.
    pub smart_ag_id: String,
    /// Serial number of the device.
    pub smart_ag_sn: String,
    /// The revision; those before it need no result any more.
    pub revision: i64,
    /// Why it is not in force; empty: it is.
    pub failure: String,
    /// Results of the commands that came with it.
    pub commands: Vec<CommandResult>,
    /// Objects of a revision in force that are not in force as they are; absent: the agent does not say. Since version 1.3.
    pub deviations: Option<Vec<Deviation>>,
    /// What the agent speaks.
    pub version: Version,
}

impl ResultReport {
    /// Characters of a failure that are sent.
    const MAX_FAILURE: usize = 1000;

    /// The parameters of the call that belong into its address.
    pub fn query(&self) -> Parameters {
        vec![
            ("SmartAGId", self.smart_ag_id.clone()),
            ("SmartAGSn", self.smart_ag_sn.clone()),
            ("Revision", self.revision.to_string()),
            ("Success", self.failure.is_empty().to_string()),
            ("ProtocolVersion", self.version.to_string()),
        ]
    }

    /// The parameters that may be long and belong into its body.
    pub fn form(&self) -> Parameters {
        let mut out = Vec::new();
        if !self.failure.is_empty() {
            out.push(("Message", self.failure.chars().take(Self::MAX_FAILURE).collect()));
        }
        if !self.commands.is_empty() {
            out.push(("CommandResults", serde_json::to_string(&self.commands).unwrap_or_default()));
        }
        if let Some(deviations) = &self.deviations {
            out.push(("Deviations", serde_json::to_string(deviations).unwrap_or_default()));
        }
        out
    }

    /// Reads the parameters of a call; `get` finds one by its name.
    ///
    /// # Errors
    /// The name of a parameter that is missing or not allowed.
    pub fn from_parameters(get: impl Fn(&str) -> Option<String>) -> Result<ResultReport, ParameterError> {
        let revision = get("Revision").and_then(|v| v.parse().ok()).filter(|r: &i64| *r >= 0);
        let success = match get("Success").as_deref() {
            Some(word) if word == "1" || word.eq_ignore_ascii_case("true") => true,
            Some(word) if word == "0" || word.eq_ignore_ascii_case("false") => false,
            _ => return Err(ParameterError("Success")),
        };
        let message = get("Message").filter(|m| !m.is_empty());
        let commands = list(&get, "CommandResults")?.unwrap_or_default();
        let deviations = list(&get, "Deviations")?;
        Ok(ResultReport {
            smart_ag_id: get("SmartAGId").unwrap_or_default(),
            smart_ag_sn: get("SmartAGSn").unwrap_or_default(),
            revision: revision.ok_or(ParameterError("Revision"))?,
            failure: if success { String::new() } else { message.unwrap_or("failed".into()) },
            commands,
            deviations,
            version: version(get("ProtocolVersion"))?,
        })
    }
}

/// A parameter that is a list as JSON.
fn list<T: Wire>(
    get: &impl Fn(&str) -> Option<String>,
    name: &'static str,
) -> Result<Option<Vec<T>>, ParameterError> {
    let read = |text: String| {
        let value = serde_json::from_str::<serde_json::Value>(&text).ok()?;
        Vec::from_json(value).ok()
    };
    get(name).map(|text| read(text).ok_or(ParameterError(name))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::CommandOutcome;

    fn find(parameters: &Parameters) -> impl Fn(&str) -> Option<String> {
        |name| parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone())
    }

    #[test]
    fn requests_are_read_as_they_are_sent() {
        let pull = PullRequest {
            smart_ag_id: "sag-1".into(),
            smart_ag_sn: "sn1".into(),
            revision: 7,
            wait: 25,
            version: Version::CURRENT,
        };
        assert_eq!(PullRequest::from_parameters(find(&pull.parameters())), Ok(pull.clone()));
        let result = ResultReport {
            smart_ag_id: "sag-1".into(),
            smart_ag_sn: "sn1".into(),
            revision: 7,
            failure: "port 9: no device".into(),
            commands: vec![CommandResult {
                name: "Dance".into(),
                revision: 7,
                outcome: CommandOutcome::UnknownCommand,
                message: "sag-agent 0.1.0 does not know it".into(),
            }],
            deviations: Some(vec![Deviation { object: "port 9".into(), ..Deviation::default() }]),
            version: Version::CURRENT,
        };
        let sent = [result.query(), result.form()].concat();
        assert_eq!(ResultReport::from_parameters(find(&sent)), Ok(result));
    }

    #[test]
    fn old_agents_send_less() {
        let sent: Parameters = vec![("SmartAGSn", "sn1".into())];
        let read = PullRequest::from_parameters(find(&sent)).expect("read");
        assert_eq!((read.revision, read.wait, read.version), (0, 0, Version::UNVERSIONED));
        let sent: Parameters = vec![("Revision", "3".into()), ("Success", "false".into())];
        let read = ResultReport::from_parameters(find(&sent)).expect("read");
        assert_eq!((read.failure.as_str(), read.commands.len()), ("failed", 0));
    }

    #[test]
    fn wrong_parameters_are_named() {
        let wrong = |name: &'static str, value: &str| -> Parameters {
            let mut all: Parameters =
                vec![("SmartAGSn", "s".into()), ("Revision", "3".into()), ("Success", "true".into())];
            all.retain(|(n, _)| *n != name);
            all.push((name, value.into()));
            all
        };
        for (name, value) in [("Revision", "-1"), ("Wait", "x"), ("ProtocolVersion", "one")] {
            let e = PullRequest::from_parameters(find(&wrong(name, value)));
            assert_eq!(e, Err(ParameterError(name)));
        }
        for (name, value) in
            [("Revision", "-1"), ("Success", "perhaps"), ("CommandResults", "[7]"), ("Deviations", "x")]
        {
            let e = ResultReport::from_parameters(find(&wrong(name, value)));
            assert_eq!(e, Err(ParameterError(name)));
        }
    }
}
