//! Commands that wait for an agent, as a device's configuration holds them.

use sag_southbound::{Command, CommandOutcome, IssuedCommand, ResultReport, Wire};

use crate::domain::device::Device;
use crate::error::{ApiError, Result};

const SECTION: &str = "Commands";

/// Commands without a result.
pub fn waiting(d: &Device) -> Result<Vec<IssuedCommand>> {
    Vec::from_json(d.get(SECTION).clone()).map_err(ApiError::internal)
}

fn store(d: &mut Device, commands: &[IssuedCommand]) -> Result<()> {
    d.set(SECTION, serde_json::to_value(commands)?);
    Ok(())
}

/// Adds a command to the device's next revision. It replaces an older one of its name that has no result yet.
pub fn issue(d: &mut Device, command: Command) -> Result<()> {
    let mut commands = waiting(d)?;
    commands.retain(|c| c.command.name() != command.name());
    commands.push(IssuedCommand { command, revision: d.revision + 1 });
    store(d, &commands)
}

/// Takes away the commands that a result is about, and logs those that were not carried out.
pub fn conclude(d: &mut Device, report: &ResultReport) -> Result<()> {
    let mut commands = waiting(d)?;
    commands.retain(|c| c.revision > report.revision);
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
    store(d, &commands)
}
