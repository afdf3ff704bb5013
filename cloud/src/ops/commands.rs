//! Commands that wait for an agent, and how they went, as a device's configuration holds them.

use sag_southbound::{Command, CommandOutcome, IssuedCommand, ResultReport};

use crate::domain::device::Device;
use crate::domain::device_config::CommandRecord;

/// Characters of a message that are kept.
const LONGEST_MESSAGE: usize = 1024;

/// Adds a command to the device's next revision. It replaces an older one of its name that has no result yet.
pub fn issue(d: &mut Device, command: Command) {
    let revision = d.revision + 1;
    let commands = &mut d.config.commands;
    commands.retain(|c| c.command.name() != command.name());
    commands.push(IssuedCommand { command, revision });
}

/// Takes away the commands that a report of `now` is about, and writes down how they went. Only what was issued has a
/// result: an agent cannot make the list grow.
pub fn conclude(d: &mut Device, report: &ResultReport, now: i64) {
    let concluded = d.config.commands.extract_if(.., |c| c.revision <= report.revision);
    for issued in concluded {
        let (name, revision) = (issued.command.name(), issued.revision);
        let found = report.commands.iter().find(|r| r.name == name && r.revision == revision);
        let record = CommandRecord {
            revision,
            time: now,
            outcome: found.map(|r| r.outcome.clone()),
            message: found.map(|r| r.message.chars().take(LONGEST_MESSAGE).collect()).unwrap_or_default(),
        };
        if record.outcome != Some(CommandOutcome::Done) {
            tracing::warn!(
                device = d.summary.sn,
                command = name,
                revision,
                outcome = record.outcome.as_ref().map_or("none", CommandOutcome::as_str),
                message = record.message,
                "the device did not carry out a command"
            );
        }
        d.config.command_results.insert(name.to_owned(), record);
    }
}

#[cfg(test)]
mod tests {
    use sag_southbound::{CommandResult, UpgradeArgs};

    use super::*;
    use crate::domain::device_config::DeviceConfig;
    use crate::store::devices::Summary;

    fn result(name: &str, revision: i64, outcome: CommandOutcome, message: &str) -> CommandResult {
        CommandResult { name: name.into(), revision, outcome, message: message.into() }
    }

    #[test]
    fn results_of_issued_commands_are_written_down_and_no_others() {
        let config = DeviceConfig::initial(1);
        let summary = Summary { sn: "sn1".into(), revision: 4, ..Summary::default() };
        let mut d = Device { summary, config, state: sag_southbound::StateReport::default() };
        issue(&mut d, Command::Reboot);
        issue(&mut d, Command::Upgrade(UpgradeArgs::default()));
        issue(&mut d, Command::Synchronize);
        d.revision = 5;
        issue(&mut d, Command::Synchronize);
        let commands = vec![
            result("Reboot", 5, CommandOutcome::Done, ""),
            result("Upgrade", 5, CommandOutcome::Unsupported, &"x".repeat(5000)),
            result("Dance", 5, CommandOutcome::Done, ""),
            result("Synchronize", 4, CommandOutcome::Done, ""),
        ];
        conclude(&mut d, &ResultReport { revision: 5, commands, ..ResultReport::default() }, 77);
        let names: Vec<&str> = d.config.commands.iter().map(|c| c.command.name()).collect();
        assert_eq!(names, ["Synchronize"], "of a later revision");
        let results = &d.config.command_results;
        assert_eq!(results.keys().collect::<Vec<_>>(), ["Reboot", "Upgrade"]);
        assert_eq!((results["Reboot"].revision, results["Reboot"].time), (5, 77));
        assert_eq!(results["Reboot"].outcome, Some(CommandOutcome::Done));
        assert_eq!(results["Upgrade"].outcome, Some(CommandOutcome::Unsupported));
        assert_eq!(results["Upgrade"].message.len(), LONGEST_MESSAGE);
        conclude(&mut d, &ResultReport { revision: 6, ..ResultReport::default() }, 78);
        assert_eq!(d.config.command_results["Synchronize"].outcome, None);
        assert!(d.config.commands.is_empty());
    }

    #[test]
    fn a_command_replaces_an_earlier_one_of_its_name() {
        let (summary, config) = (Summary::default(), DeviceConfig::initial(1));
        let mut d = Device { summary, config, state: sag_southbound::StateReport::default() };
        for _ in 0..1000 {
            issue(&mut d, Command::Reboot);
            issue(&mut d, Command::Synchronize);
        }
        assert_eq!(d.config.commands.len(), 2);
    }
}
