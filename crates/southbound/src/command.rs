//! Things to do once, and how they went.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::wire::{Wire, WireError, deserialize_by_wire, wire_object};
use crate::words::words;

/// Something that the device does once.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Restarts the gateway (RebootSmartAccessGateway).
    Reboot,
    /// Installs another version (UpdateSmartAccessGatewayVersion).
    Upgrade(UpgradeArgs),
    /// Measures, and reports at once (DiagnoseSmartAccessGateway).
    Diagnose(DiagnoseArgs),
    /// Takes back what was set on the device itself, and reports at once (SynchronizeSmartAGWebConfig).
    Synchronize,
    /// Measures the paths to access points (ProbeAccessPointNetworkQuality).
    ProbeAccessPoints(ProbeArgs),
    /// A command that this version does not know, or whose arguments it cannot read. Its result is
    /// [`CommandOutcome::UnknownCommand`].
    Unknown {
        /// The name on the wire.
        name: String,
        /// The arguments as they came.
        args: Value,
    },
}

wire_object! {
    /// Arguments of [`Command::Upgrade`].
    pub struct UpgradeArgs {
        /// `Device` or `Dpi`.
        version_type: String = "VersionType",
        /// The version to install.
        version_code: String = "VersionCode",
    }

    /// Arguments of [`Command::Diagnose`].
    pub struct DiagnoseArgs {
        /// Under which the cloud keeps the diagnosis.
        diagnose_id: String = "DiagnoseId",
    }

    /// Arguments of [`Command::ProbeAccessPoints`].
    pub struct ProbeArgs {
        /// Numbers of the access points.
        access_point_ids: Vec<i64> = "AccessPointIds",
        /// Under which the device reports what it measured. Since version 1.3.
        probe_id: String = "ProbeId",
        /// Where the access points are. Since version 1.3.
        access_points: Vec<AccessPoint> = "AccessPoints",
    }

    /// An access point.
    pub struct AccessPoint {
        /// Its number.
        id: i64 = "Id",
        /// An IPv4 or IPv6 address that answers echo requests.
        address: String = "Address",
    }
}

impl Command {
    /// Names of all commands that this version knows.
    pub const NAMES: [&'static str; 5] =
        ["Reboot", "Upgrade", "Diagnose", "Synchronize", "ProbeAccessPoints"];

    /// The name on the wire.
    pub fn name(&self) -> &str {
        match self {
            Command::Reboot => "Reboot",
            Command::Upgrade(_) => "Upgrade",
            Command::Diagnose(_) => "Diagnose",
            Command::Synchronize => "Synchronize",
            Command::ProbeAccessPoints(_) => "ProbeAccessPoints",
            Command::Unknown { name, .. } => name,
        }
    }

    /// The arguments on the wire.
    fn args(&self) -> Value {
        let written = match self {
            Command::Reboot | Command::Synchronize => Ok(json!({})),
            Command::Upgrade(args) => serde_json::to_value(args),
            Command::Diagnose(args) => serde_json::to_value(args),
            Command::ProbeAccessPoints(args) => serde_json::to_value(args),
            Command::Unknown { args, .. } => Ok(args.clone()),
        };
        written.unwrap_or_default()
    }

    fn from_parts(name: String, args: Value) -> Command {
        let read = match name.as_str() {
            "Reboot" => Ok(Command::Reboot),
            "Upgrade" => Wire::from_json(args.clone()).map(Command::Upgrade),
            "Diagnose" => Wire::from_json(args.clone()).map(Command::Diagnose),
            "Synchronize" => Ok(Command::Synchronize),
            "ProbeAccessPoints" => Wire::from_json(args.clone()).map(Command::ProbeAccessPoints),
            _ => return Command::Unknown { name, args },
        };
        read.unwrap_or(Command::Unknown { name, args })
    }
}

/// A command as the device gets it: `{"Name", "Args", "Revision"}`.
#[derive(Debug, Clone, PartialEq)]
pub struct IssuedCommand {
    /// What to do.
    pub command: Command,
    /// The revision of the configuration that brought it. The device carries it out when that revision is in force, and
    /// the cloud repeats it until a result for that revision has come.
    pub revision: i64,
}

wire_object! {
    /// The parts of a command on the wire.
    pub struct RawCommand {
        /// See [`Command::name`].
        name: String = "Name",
        /// The arguments.
        args: Value = "Args",
        /// See [`IssuedCommand::revision`].
        revision: i64 = "Revision",
    }
}

impl Serialize for IssuedCommand {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let (name, args) = (self.command.name().to_owned(), self.command.args());
        RawCommand { name, args, revision: self.revision }.serialize(s)
    }
}

impl Wire for IssuedCommand {
    fn from_json(value: Value) -> Result<IssuedCommand, WireError> {
        let raw = RawCommand::from_json(value)?;
        Ok(IssuedCommand { command: Command::from_parts(raw.name, raw.args), revision: raw.revision })
    }
}

deserialize_by_wire!(IssuedCommand);

words! {
    /// How a command went.
    pub enum CommandOutcome {
        /// Carried out, or begun where the device must restart for it.
        Done = "Done",
        /// The device knows the command and does not do it; the message says why.
        Unsupported = "Unsupported",
        /// The device does not know the command.
        UnknownCommand = "UnknownCommand",
    }
}

/// The result of one command.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CommandResult {
    /// The name of the command.
    #[serde(rename = "Name")]
    pub name: String,
    /// The revision that brought the command.
    #[serde(rename = "Revision")]
    pub revision: i64,
    /// How it went.
    #[serde(rename = "Outcome")]
    pub outcome: CommandOutcome,
    /// Why it was not done, for people.
    #[serde(rename = "Message", skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Wire for CommandResult {
    fn from_json(value: Value) -> Result<CommandResult, WireError> {
        use crate::wire::{member, object};
        let mut map = object(value)?;
        Ok(CommandResult {
            name: member(&mut map, "Name")?,
            revision: member(&mut map, "Revision")?,
            outcome: member(&mut map, "Outcome")?,
            message: member(&mut map, "Message")?,
        })
    }
}

deserialize_by_wire!(CommandResult);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_for_every_command() {
        for name in Command::NAMES {
            let command = Command::from_parts(name.to_owned(), json!({}));
            assert_eq!(command.name(), name);
            assert!(!matches!(command, Command::Unknown { .. }), "{name}");
        }
    }

    #[test]
    fn unknown_commands_and_arguments_stay_what_they_are() {
        let row = json!({"Name": "Dance", "Args": {"Steps": [1, 2]}, "Revision": 9});
        let read: IssuedCommand = serde_json::from_value(row.clone()).expect("read");
        assert!(matches!(&read.command, Command::Unknown { name, .. } if name == "Dance"));
        assert_eq!(serde_json::to_value(&read).expect("written"), row);
        let odd = json!({"Name": "Upgrade", "Args": [], "Revision": 9});
        let read: IssuedCommand = serde_json::from_value(odd).expect("read");
        assert!(matches!(&read.command, Command::Unknown { name, .. } if name == "Upgrade"));
        let no_revision = serde_json::from_value::<IssuedCommand>(json!({"Name": "Reboot"}));
        assert_eq!(no_revision.expect_err("no revision").to_string(), "Revision: is missing");
    }
}
