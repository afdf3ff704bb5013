//! Commands that wait for an agent, as a device's configuration holds them.

use sag_southbound::{Command, CommandOutcome, IssuedCommand, ResultReport};

use crate::domain::device::Device;

/// Adds a command to the device's next revision. It replaces an older one of its name that has no result yet.
pub fn issue(d: &mut Device, command: Command) {
    let revision = d.revision + 1;
    let commands = &mut d.config.commands;
    commands.retain(|c| c.command.name() != command.name());
    commands.push(IssuedCommand { command, revision });
}

/// Takes away the commands that a result is about, and logs those that were not carried out.
pub fn conclude(d: &mut Device, report: &ResultReport) {
    d.config.commands.retain(|c| c.revision > report.revision);
    for result in report.commands.iter().filter(|r| r.outcome != CommandOutcome::Done) {
        tracing::warn!(
            device = d.sn,
            command = result.name,
            revision = result.revision,
            outcome = result.outcome.as_str(),
            message = result.message,
            "the device did not carry out a command"
        );
    }
}
