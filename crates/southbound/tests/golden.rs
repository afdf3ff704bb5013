//! The golden files are the messages of the protocol. A test fails if a type writes something else than its file, or
//! reads something else from it than what was written. `UPDATE_GOLDEN=1 cargo test -p sag-southbound` writes the files;
//! whoever does so raises the version if an old reader would understand something else.

mod samples;

use std::fmt::Debug;
use std::path::PathBuf;

use sag_southbound::*;
use serde::Serialize;
use serde_json::{Value, json};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn stored(name: &str) -> Value {
    let text = std::fs::read_to_string(file(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The members of every object in the order of their names, also of JSON inside a text. Otherwise a feature that some
/// other crate of the build turns on in `serde_json` would decide about their order.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(members.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::String(text) if text.starts_with(['{', '[']) => match serde_json::from_str(&text) {
            Ok(inner) => Value::String(sorted(inner).to_string()),
            Err(_) => Value::String(text),
        },
        other => other,
    }
}

/// Both directions: what the type writes is the file, and what is read from the file is the value.
fn golden<T: Serialize + Wire + PartialEq + Debug>(name: &str, value: &T) {
    let written = serde_json::to_value(value).expect("written");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text = serde_json::to_string_pretty(value).expect("written");
        std::fs::write(file(name), text + "\n").expect("golden file");
    }
    let text = |value: Value| serde_json::to_string_pretty(&sorted(value)).expect("written");
    assert_eq!(text(written), text(stored(name)), "{name} is not what the type writes");
    assert_eq!(&T::from_json(stored(name)).expect("read"), value, "{name} is not read as what was written");
}

#[test]
fn device_document() {
    golden("device-document.json", &samples::document());
}

#[test]
fn empty_device_document() {
    golden("device-document-empty.json", &DeviceDocument::default());
}

#[test]
fn state_report() {
    golden("state-report.json", &samples::report());
}

#[test]
fn report_answers() {
    golden("report-answer.json", &samples::report_answer());
    // A cloud before version 1.2 answers nothing.
    assert_eq!(ReportAnswer::from_json(json!({"RequestId": "x"})), Ok(ReportAnswer::default()));
}

#[test]
fn client_app_report() {
    golden("client-app-report.json", &samples::client_app_report());
}

#[test]
fn pull_answers() {
    let document = DeviceDocument { revision: 8, ..DeviceDocument::default() };
    golden("pull-changed.json", &PullAnswer { revision: 8, changed: true, config: Some(document) });
    golden(
        "pull-unchanged.json",
        &PullAnswer::<DeviceDocument> { revision: 8, changed: false, config: None },
    );
}

#[test]
fn capabilities() {
    golden("capabilities.json", &Capability::KNOWN.to_vec());
}

#[test]
fn commands() {
    golden("commands.json", &samples::commands());
    let named: Vec<String> = samples::commands().iter().map(|c| c.command.name().to_owned()).collect();
    assert_eq!(named, Command::NAMES, "a sample for each command");
}

#[test]
fn command_results() {
    golden("command-results.json", &samples::command_results());
}

#[test]
fn parameters_of_requests() {
    let (pull, result) = (samples::pull_request(), samples::result_report());
    let object = |p: Parameters| -> Value {
        Value::Object(p.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect())
    };
    let requests = json!({
        Action::Pull.name(): object(pull.parameters()),
        Action::ReportResult.name(): object([result.query(), result.form()].concat()),
    });
    golden("requests.json", &requests);
    let stored = stored("requests.json");
    let get = |action: Action| {
        let sent = stored[action.name()].clone();
        move |name: &str| sent[name].as_str().map(str::to_owned)
    };
    assert_eq!(PullRequest::from_parameters(get(Action::Pull)), Ok(pull));
    assert_eq!(ResultReport::from_parameters(get(Action::ReportResult)), Ok(result));
}

/// A message of a newer writer: unknown words and commands stay what they are, unknown members are ignored.
#[test]
fn unknown_things_are_represented_as_such() {
    let document: DeviceDocument = read(stored("unknown-document.json")).expect("read");
    let unknown = |word: &str| word.to_owned();
    assert_eq!(document.ports[0].role, Some(PortRole::Unknown(unknown("DMZ"))));
    assert_eq!(document.wan["0"].ip_type, Some(AddressMode::Unknown(unknown("SLAAC"))));
    assert_eq!(document.route_protocol, Some(RouteProtocol::Unknown(unknown("ISIS"))));
    assert_eq!(document.wan_snat, Some(Switch::Unknown(unknown("SOMETIMES"))));
    assert_eq!(document.health_checks[0].kind, Some(ProbeKind::Unknown(unknown("TCP_SYN"))));
    let strategy = document.route_distribution[0].strategy.as_ref();
    assert_eq!(strategy, Some(&PublishStrategy::Unknown(unknown("publish_at_night"))));
    let Command::Unknown { name, args } = &document.commands[0].command else { panic!("a known command") };
    assert_eq!((name.as_str(), args), ("Dance", &json!({"Steps": 3})));
    let again = serde_json::to_value(&document).expect("written");
    for (path, word) in [
        ("/Ports/0/Role", json!("DMZ")),
        ("/Wan/0/IPType", json!("SLAAC")),
        ("/RouteDistribution/0/RouteDistribution", json!("publish_at_night")),
        ("/Commands/0/Args/Steps", json!(3)),
    ] {
        assert_eq!(again.pointer(path), Some(&word), "{path}");
    }
    assert_eq!(again.get("Quantum"), None, "members that are not known are ignored");

    let report: StateReport = read(stored("unknown-report.json")).expect("read");
    let capabilities = report.capabilities.expect("a list");
    assert_eq!(capabilities, [Capability::Acl, Capability::Unknown(unknown("Teleport"))]);
}

/// What was written before messages had a version, by the programs that ran then.
#[test]
fn messages_without_a_version_are_read() {
    let document: DeviceDocument = read(stored("unversioned-document.json")).expect("read");
    assert_eq!(document.version, Version::UNVERSIONED);
    assert_eq!(document.ecc["3"][0].vlan, Some(100));
    assert_eq!(document.acls[0].rules[0].dpi_group_ids.as_deref(), Some(&["20".to_owned()][..]));
    let report: StateReport = read(stored("unversioned-report.json")).expect("read");
    assert_eq!(report.version, Version::UNVERSIONED);
    assert_eq!(report.ports.len(), 2);
    assert_eq!(report.access_point_qualities[0].rtt, "4.98");
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?}", samples::document());
    for secret in ["hunter2", "md5-key", "device-key", "console"] {
        assert!(!shown.contains(secret), "{secret}");
    }
}

/// The page for people names every word of the lists.
#[test]
fn the_documentation_is_complete() {
    let page = include_str!("../../../docs/protocol.md");
    let capabilities = Capability::KNOWN.iter().map(Capability::as_str);
    let actions = Action::ALL.into_iter().map(Action::name);
    let outcomes = CommandOutcome::KNOWN.iter().map(CommandOutcome::as_str);
    for word in capabilities.chain(actions).chain(Command::NAMES).chain(outcomes) {
        assert!(page.contains(&format!("`{word}`")), "{word} is not in docs/protocol.md");
    }
    assert!(page.contains(&format!("version {}", Version::CURRENT)), "the current version");
}
