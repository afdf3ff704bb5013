//! Commands of the cloud: which of them this version carries out, and what it answers to the others.

use std::collections::BTreeMap;

use sag_southbound::{Command, CommandOutcome, CommandResult, IssuedCommand};

/// What the main loop has to do for a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Report the state at once.
    Report,
    /// Measure, and report what was measured.
    Measure,
    /// Restart when the cloud has the result.
    Restart,
}

fn respond(command: &Command) -> (CommandOutcome, String, Effect) {
    let unsupported = |why: &str| (CommandOutcome::Unsupported, why.to_owned(), Effect::None);
    match command {
        Command::Reboot => (CommandOutcome::Done, String::new(), Effect::Restart),
        Command::Synchronize => (CommandOutcome::Done, String::new(), Effect::Report),
        // `Done` says that it has begun; what was measured is part of a later report.
        Command::Diagnose(_) => (CommandOutcome::Done, String::new(), Effect::Measure),
        Command::Upgrade(_) => {
            unsupported("upgrades are installed by the machine's package manager, not by the cloud")
        }
        Command::ProbeAccessPoints(args) if args.access_points.is_empty() => {
            unsupported("the cloud does not say where the access points are")
        }
        Command::ProbeAccessPoints(_) => (CommandOutcome::Done, String::new(), Effect::Measure),
        Command::Unknown { name, .. } => {
            let why = format!("sag-agent {} does not know the command {name:?}", crate::VERSION);
            (CommandOutcome::UnknownCommand, why, Effect::None)
        }
    }
}

/// Results that are kept.
const MAX_RESULTS: usize = 256;

/// Commands that were carried out, by revision and name. The cloud repeats a command until it has the result, so a
/// command that comes again is answered again and not carried out again.
#[derive(Debug, Default)]
pub struct CommandLog {
    done: BTreeMap<(i64, String), CommandResult>,
}

impl CommandLog {
    /// Forgets everything: revisions of another database say nothing about this one.
    pub fn clear(&mut self) {
        self.done.clear();
    }

    /// The result of a command, and what is to be done for it now.
    pub fn take(&mut self, issued: &IssuedCommand) -> (CommandResult, Effect) {
        let name = issued.command.name().to_owned();
        let key = (issued.revision, name.clone());
        if let Some(result) = self.done.get(&key) {
            return (result.clone(), Effect::None);
        }
        let (outcome, message, effect) = respond(&issued.command);
        let result = CommandResult { name, revision: issued.revision, outcome, message };
        self.done.insert(key, result.clone());
        // The cloud repeats what is outstanding: the oldest is not.
        if self.done.len() > MAX_RESULTS {
            self.done.pop_first();
        }
        (result, effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sag_southbound::{AccessPoint, DiagnoseArgs, ProbeArgs, UpgradeArgs};
    use serde_json::json;

    fn issued(command: Command, revision: i64) -> IssuedCommand {
        IssuedCommand { command, revision }
    }

    #[test]
    fn each_command_has_its_own_answer() {
        let unknown = Command::Unknown { name: "Dance".into(), args: json!({}) };
        let points = vec![AccessPoint { id: 101, address: "192.0.2.1".into() }];
        let points = ProbeArgs { access_points: points, ..ProbeArgs::default() };
        for (command, outcome, effect) in [
            (Command::Reboot, CommandOutcome::Done, Effect::Restart),
            (Command::Diagnose(DiagnoseArgs::default()), CommandOutcome::Done, Effect::Measure),
            (Command::ProbeAccessPoints(ProbeArgs::default()), CommandOutcome::Unsupported, Effect::None),
            (Command::ProbeAccessPoints(points), CommandOutcome::Done, Effect::Measure),
            (Command::Synchronize, CommandOutcome::Done, Effect::Report),
            (Command::Upgrade(UpgradeArgs::default()), CommandOutcome::Unsupported, Effect::None),
            (unknown, CommandOutcome::UnknownCommand, Effect::None),
        ] {
            let (result, done) = CommandLog::default().take(&issued(command, 4));
            assert_eq!((&result.outcome, done), (&outcome, effect), "{}", result.name);
            assert_eq!(result.message.is_empty(), outcome == CommandOutcome::Done);
        }
    }

    #[test]
    fn a_repeated_command_is_answered_and_not_carried_out_again() {
        let mut log = CommandLog::default();
        let (first, effect) = log.take(&issued(Command::Reboot, 4));
        assert_eq!(effect, Effect::Restart);
        assert_eq!(log.take(&issued(Command::Reboot, 4)), (first, Effect::None));
        assert_eq!(log.take(&issued(Command::Reboot, 5)).1, Effect::Restart);
        log.clear();
        assert_eq!(log.take(&issued(Command::Reboot, 4)).1, Effect::Restart);
    }

    #[test]
    fn results_are_kept_of_the_latest_commands() {
        let mut log = CommandLog::default();
        for revision in 0..10_000 {
            assert_eq!(log.take(&issued(Command::Synchronize, revision)).1, Effect::Report);
        }
        assert_eq!(log.done.len(), MAX_RESULTS);
        assert_eq!(log.take(&issued(Command::Synchronize, 9_999)).1, Effect::None);
    }
}
