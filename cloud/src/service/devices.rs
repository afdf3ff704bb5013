//! The devices as an administrator sees them: whether they have their configuration, and how their commands went.

use std::fmt::Write as _;

use sag_southbound::CommandOutcome;
use serde_json::{Value, json};

use crate::domain::device::Device;

use crate::store::Store;
use crate::time::stamp;

/// The device of that serial number, or all.
///
/// # Errors
/// The database fails.
pub async fn list(store: &Store, sn: Option<&str>) -> anyhow::Result<Vec<Device>> {
    let mut tx = store.read().await?;
    let found = match sn {
        Some(sn) => Device::by_sn(&mut tx, sn).await?.into_iter().collect(),
        None => Device::all(&mut tx).await?,
    };
    tx.rollback().await?;
    Ok(found)
}

fn outcome(of: Option<&CommandOutcome>) -> &str {
    of.map_or("no result", CommandOutcome::as_str)
}

fn connection(d: &Device, now: i64) -> &'static str {
    match d.seen {
        0 => "never seen",
        _ if d.online(now) => "online",
        _ => "offline",
    }
}

/// A device in a line, and each of its commands in one below it.
pub fn lines(d: &Device, now: i64) -> String {
    let escape = sag_text::escape;
    let mut out = format!("{}\t{}\t{}\t", escape(&d.sn), escape(&d.sag), connection(d, now));
    // Writing to a String does not fail.
    let _ = match (d.applied >= d.revision, d.failure.as_str()) {
        (false, _) => write!(out, "revision {} waits", d.revision),
        (true, "") => write!(out, "revision {} in force", d.applied),
        (true, why) => write!(out, "revision {} refused: {}", d.applied, escape(why)),
    };
    for deviation in d.state.deviations.iter().flatten() {
        let _ = write!(out, "\n\t{}", escape(&deviation.to_string()));
    }
    for waiting in &d.config.commands {
        let name = escape(waiting.command.name());
        let _ = write!(out, "\n\t{name}\trevision {}\twaits", waiting.revision);
    }
    for (name, r) in &d.config.command_results {
        let outcome = outcome(r.outcome.as_ref());
        let _ = write!(out, "\n\t{}\trevision {}\t{}Z\t", escape(name), r.revision, stamp(r.time));
        let _ = write!(out, "{}", escape(outcome));
        if !r.message.is_empty() {
            let _ = write!(out, ": {}", escape(&r.message));
        }
    }
    out
}

/// The same as JSON.
pub fn json(d: &Device, now: i64) -> Value {
    let waiting = d.config.commands.iter();
    let waiting =
        waiting.map(|c| json!({"Name": c.command.name(), "Revision": c.revision, "State": "Waiting"}));
    let results = d.config.command_results.iter().map(|(name, r)| {
        json!({
            "Name": name,
            "Revision": r.revision,
            "State": outcome(r.outcome.as_ref()),
            "Message": r.message,
            "TimeMs": r.time,
        })
    });
    json!({
        "SmartAGSn": d.sn,
        "SmartAGId": d.sag,
        "Online": d.online(now),
        "SeenMs": d.seen,
        "Revision": d.revision,
        "AppliedRevision": d.applied,
        "Failure": d.failure,
        "Deviations": d.state.deviations.clone().unwrap_or_default(),
        "Commands": waiting.chain(results).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use sag_southbound::{Command, Deviation, Effect, IssuedCommand, StateReport};

    use super::*;
    use crate::domain::device_config::{CommandRecord, DeviceConfig};
    use crate::store::devices::Summary;

    #[test]
    fn a_device_and_its_commands_are_lines() {
        let summary = Summary { sn: "sn1".into(), sag: "sag-1".into(), revision: 7, ..Summary::default() };
        let mut config = DeviceConfig::initial(0);
        config.commands = vec![IssuedCommand { command: Command::Reboot, revision: 7 }];
        let record = CommandRecord {
            revision: 5,
            time: 951_827_405_000,
            outcome: Some(CommandOutcome::Unsupported),
            message: "one\ntwo".into(),
        };
        config.command_results = [("Upgrade".to_owned(), record)].into();
        let mut d = Device { summary, config, state: StateReport::default() };
        let route = |object: &str| Deviation {
            section: "StaticRoutes".into(),
            object: object.into(),
            effect: Some(Effect::LeftOut),
            reason: "no device".into(),
        };
        let text = lines(&d, 1);
        assert_eq!(
            text,
            "sn1\tsag-1\tnever seen\trevision 7 waits\n\tReboot\trevision 7\twaits\n\
             \tUpgrade\trevision 5\t2000-02-29 12:30:05Z\tUnsupported: one\\ntwo"
        );
        (d.summary.applied, d.summary.failure, d.summary.seen) = (7, "port 9: no device".into(), 1);
        assert!(lines(&d, 1).starts_with("sn1\tsag-1\tonline\trevision 7 refused: port 9: no device\n"));
        assert!(lines(&d, 100_000).starts_with("sn1\tsag-1\toffline\t"));
        d.state.deviations = Some(vec![route("a\nb"), route("c")]);
        let text = lines(&d, 1);
        assert!(
            text.contains("\n\ta\\nb is left out: no device\n\tc is left out: no device\n\tReboot"),
            "{text}"
        );
        let row = json(&d, 1);
        assert_eq!(row["Deviations"][1]["Effect"], "left-out");
        assert_eq!(row["Commands"][0], json!({"Name": "Reboot", "Revision": 7, "State": "Waiting"}));
        assert_eq!(row["Commands"][1]["State"], "Unsupported");
    }
}
