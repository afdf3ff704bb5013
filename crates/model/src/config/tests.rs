use super::*;

/// The documented example, every key of which must be accepted.
const EXAMPLE: &str = include_str!("../../../../configs/vcpe.example.toml");

fn ok(text: &str) -> Checked {
    parse(text, "vcpe.toml").unwrap_or_else(|e| panic!("refused:\n{e}\nin:\n{text}"))
}

#[test]
fn smallest_file_has_the_documented_defaults() {
    let c = ok(include_str!("../../../../configs/minimal.toml")).config;
    assert_eq!(c.ports.len(), 2);
    let d = &c.dataplane;
    assert_eq!((d.workers, d.mode, d.zero_copy, d.flows), (None, XdpMode::Auto, ZeroCopy::Auto, 1_048_576));
    assert_eq!((d.acl_default, d.acl_stateful, d.busy_poll), (Policy::Accept, true, false));
    assert_eq!(d.metrics.map(|m| m.to_string()).as_deref(), Some("127.0.0.1:9477"));
    assert_eq!(d.control.to_str(), Some("/run/sag/vcpe.sock"));
    assert_eq!((d.icmp_rate, d.on_daemon_loss, d.log.as_str()), (1000, DaemonLoss::Drop, "info"));
}

#[test]
fn example_is_accepted_and_survives_a_round_trip() {
    let checked = ok(EXAMPLE);
    let text = checked.config.to_toml(Secrets::Shown).unwrap();
    assert_eq!(ok(&text).config, checked.config);
}
