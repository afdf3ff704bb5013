use super::*;
use clap::CommandFactory;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("sagctl").chain(line.split_whitespace()))
}

fn asked(cli: Cli) -> Command {
    let Task::Ask(command) = cli.task else { panic!("no question to a gateway") };
    command
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn session_filters() {
    let cli = parse("sessions --proto 6 --src 192.0.2.1 --dport 443 --sort idle --limit 5 --json").unwrap();
    assert!(cli.json);
    let Task::Ask(Command::Sessions(s)) = cli.task else { panic!() };
    let q = s.query();
    assert_eq!((q.limit, q.sort), (Some(5), SessionSort::Idle));
    assert_eq!(q.filter.src, Some("192.0.2.1/32".parse().unwrap()));
    assert_eq!((q.filter.proto, q.filter.dport), (Some(IpProto::TCP), Some(443)));

    let cli = parse("sessions flush -6 --port 1").unwrap();
    let Task::Ask(Command::Sessions(s)) = cli.task else { panic!() };
    let Some(SessionsCommand::Flush { filter, all }) = s.command else { panic!() };
    assert_eq!((filter.filter().family, filter.filter().port, all), (Some(6), Some("1".into()), false));
    assert!(parse("sessions --proto tcp flush").is_err());
    assert!(parse("sessions --src 192.0.2.1/33").is_err());
    assert!(parse("sessions -4 -6").is_err());
    assert!(parse("sessions --nat --no-nat").is_err());
}

#[test]
fn every_field_of_a_session_filter_has_an_option() {
    let line = "-4 --proto udp --src 192.0.2.1 --dst 198.51.100.0/24 --host 192.0.2.1 --sport 1 --dport 2 --nat \
                --nat-src 203.0.113.2 --nat-sport 3 --nat-dst 10.0.0.1 --nat-dport 4 --port 0 --in-port 0 --out-port 1 \
                --state replied --rule acr-1 --min-age 2h --min-idle 90 --min-packets 5 --min-bytes 6";
    let filter = |line: &str| match asked(parse(line).unwrap()) {
        Command::Sessions(s) => match s.command {
            Some(SessionsCommand::Flush { filter, .. }) => filter.filter(),
            None => s.query().filter,
        },
        Command::Top(t) => t.query().filter,
        other => panic!("{other:?}"),
    };
    let listed = filter(&format!("sessions {line}"));
    let expected = serde_json::json!({
        "family": 4, "proto": "udp", "src": "192.0.2.1/32", "dst": "198.51.100.0/24", "host": "192.0.2.1/32",
        "sport": 1, "dport": 2, "nat": true, "nat_src": "203.0.113.2/32", "nat_sport": 3,
        "nat_dst": "10.0.0.1/32", "nat_dport": 4, "port": "0", "in_port": "0", "out_port": "1",
        "state": "replied", "rule": "acr-1", "min_age_s": 7200, "min_idle_s": 90, "min_packets": 5,
        "min_bytes": 6,
    });
    assert_eq!(serde_json::to_value(&listed).unwrap(), expected);
    assert_eq!(filter(&format!("sessions flush {line}")), listed);
    assert_eq!(filter(&format!("top {line}")), listed);
    assert_eq!(filter("sessions --no-nat").nat, Some(false));
    assert!(filter("sessions").is_empty());
}

#[test]
fn times() {
    let idle = |time: &str| match parse(&format!("sessions --min-idle {time}")).map(asked) {
        Ok(Command::Sessions(s)) => s.query().filter.min_idle_s,
        _ => None,
    };
    assert_eq!(["0", "90", "90s", "5m", "2h", "1d"].map(idle), [0, 90, 90, 300, 7200, 86_400].map(Some));
    for bad in ["s", "5x", "1.5h", "+5", "5 m", "-5", "999999999999999999d", "１m"] {
        assert_eq!(idle(bad), None, "{bad}");
    }
}

#[test]
fn nat_and_its_bindings() {
    let op = |line: &str| match parse(line).map(asked) {
        Ok(Command::Nat(n)) => Some(serde_json::to_value(n.op()).unwrap()),
        _ => None,
    };
    assert_eq!(op("nat"), Some(serde_json::json!({"op": "nat"})));
    let all = "nat bindings --proto udp --inside 192.0.2.0/24 --inside-port 5000 --outside 203.0.113.2 \
               --outside-port 1024 --mapping address-dependent --min-sessions 2 --vrf shop --limit 7 --json";
    let expected = serde_json::json!({"op": "nat-bindings", "limit": 7, "count": false, "filter": {
        "protocol": "udp", "inside": "192.0.2.0/24", "inside_port": 5000, "outside": "203.0.113.2/32",
        "outside_port": 1024, "mapping": "address-dependent", "min_sessions": 2, "vrf": "shop"}});
    assert_eq!(op(all), Some(expected));
    let expected = serde_json::json!({"op": "nat-bindings", "count": true, "filter": {}});
    assert_eq!(op("nat bindings --count"), Some(expected));
    assert_eq!(op("nat bindings --mapping symmetric"), None);
    assert_eq!(op("nat --inside 192.0.2.1"), None);
    assert_eq!(op("nat mappings"), Some(serde_json::json!({"op": "nat-mappings"})));
    // The command line has a word for every mapping.
    for (word, _) in sag_model::config::NatBehavior::WORDS {
        assert_eq!(op(&format!("nat bindings --mapping {word}")).unwrap()["filter"]["mapping"], *word);
    }
}

#[test]
fn explained_packets() {
    let query = |line: &str| {
        let Command::Explain(e) = asked(parse(line).unwrap()) else { panic!() };
        e.query()
    };
    let q = query("explain --port 0 --src 192.0.2.1:5000 --dst 198.51.100.1 --dport 80").unwrap();
    assert_eq!((q.proto, q.sport, q.dport), (IpProto::TCP, 5000, 80));
    let q = query("explain --port 0 --proto udp --src [2001:db8::1]:53 --dst 2001:db8::2").unwrap();
    assert_eq!((q.src.to_string().as_str(), q.sport, q.dport), ("2001:db8::1", 53, 0));
    assert!(query("explain --port 0 --src 192.0.2.1 --dst 2001:db8::2").unwrap_err().contains("family"));
    assert!(
        query("explain --port 0 --src 192.0.2.1:1 --sport 2 --dst 192.0.2.9").unwrap_err().contains("two")
    );
    assert!(parse("explain --port 0 --src 192.0.2.1:x --dst 192.0.2.9").is_err());
    let q = query("explain --vrf shop --src 192.0.2.1 --dst 192.0.2.9").unwrap();
    assert_eq!((q.port, q.vrf.as_deref()), (None, Some("shop")));
    assert!(parse("explain --src 192.0.2.1 --dst 192.0.2.9").is_err(), "from nowhere");
}

#[test]
fn watching() {
    assert!(parse("status --watch 0.5 --rounds 2").is_ok());
    for bad in [
        "status --watch 0",
        "status --watch nan",
        "status --watch x",
        "status --rounds 2",
        "status --watch -1",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}
