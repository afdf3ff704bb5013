//! The program against a gateway that is played by a thread: output, errors, exit codes.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;

/// Answers the requests of one client with the given lines, and gives the requests away.
struct Gateway {
    dir: tempfile::TempDir,
    requests: mpsc::Receiver<Value>,
}

impl Gateway {
    /// Every `{}` of an answer becomes the request's identifier.
    fn answering(answers: Vec<String>) -> Gateway {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let (sender, requests) = mpsc::channel();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = BufReader::new(stream);
            for answer in answers {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                let request: Value = serde_json::from_str(&line).unwrap();
                let answer = answer.replace("{}", &request["id"].to_string());
                let _ = sender.send(request);
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
                stream.get_mut().write_all(b"\n").unwrap();
            }
        });
        Gateway { dir, requests }
    }

    fn ok(answer: Value) -> Gateway {
        Gateway::answering(vec![format!("{{\"v\":1,\"id\":{{}},\"ok\":{answer}}}")])
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn run(&self, args: &str) -> Output {
        sagctl(&self.socket(), args)
    }
}

fn command(socket: &Path, args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sagctl"));
    command.arg("--socket").arg(socket).args(args.split_whitespace());
    command.env_remove("SAG_SOCKET").env_remove("COLUMNS").stdin(Stdio::null());
    command
}

fn sagctl(socket: &Path, args: &str) -> Output {
    command(socket, args).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn json_is_what_the_gateway_said() {
    let said = r#"{"zebra":1,"drops":[{"reason":"no-route","port":"0","packets":18446744073709551615,"text":"t"}],"new_key":[]}"#;
    let gateway = Gateway::answering(vec![format!("{{\"v\":1,\"id\":{{}},\"ok\":{said}}}")]);
    let output = gateway.run("--json drops");
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    let squeezed: String = stdout(&output).split_whitespace().collect();
    assert_eq!(squeezed, said);
    assert!(stdout(&output).starts_with("{\n  \"zebra\": 1,\n"));
}

#[test]
fn a_table_is_made_for_people() {
    let drops = json!({"drops": [{"port": "0", "reason": "no-route", "text": "no route", "packets": 1234}]});
    let gateway = Gateway::ok(drops);
    let output = gateway.run("drops");
    assert_eq!(stdout(&output), "PORT  REASON    PACKETS  MEANS\n0     no-route    1,234  no route\n");
    assert_eq!(output.status.code(), Some(0));
    let request = gateway.requests.recv().unwrap();
    assert_eq!((&request["v"], &request["op"]), (&json!(1), &json!("drops")));
}

#[test]
fn options_become_arguments() {
    let gateway = Gateway::ok(json!({"sessions": [], "total": 41}));
    let output = gateway.run("sessions --proto udp --src 192.0.2.0/24 --dport 53 --port 1 --count");
    assert_eq!(stdout(&output), "41\n");
    let request = gateway.requests.recv().unwrap();
    let filter = json!({"proto": "udp", "src": "192.0.2.0/24", "dport": 53, "port": "1"});
    assert_eq!((&request["filter"], &request["count"]), (&filter, &json!(true)));

    let gateway = Gateway::ok(json!({"flushed": 3}));
    assert_eq!(stdout(&gateway.run("sessions flush --state established")), "3 sessions flushed\n");
    let request = gateway.requests.recv().unwrap();
    assert_eq!((&request["op"], &request["all"]), (&json!("sessions-flush"), &json!(false)));
}

#[test]
fn nat_is_a_table_or_json() {
    let answer = json!({"bindings": [{"protocol": "udp", "inside": "192.0.2.10", "inside_port": 5000,
        "outside": "203.0.113.2", "outside_port": 5000, "sessions": 2, "mapping": "endpoint-independent"}], "total": 1});
    let gateway = Gateway::ok(answer.clone());
    let output = gateway.run("nat bindings --outside 203.0.113.2 --outside-port 5000");
    let want = "PROTO  INSIDE           OUTSIDE           MAPPING      SESSIONS\n\
                udp    192.0.2.10:5000  203.0.113.2:5000  independent         2\n";
    assert_eq!((stdout(&output), stderr(&output)), (want, ""));
    let request = gateway.requests.recv().unwrap();
    let filter = json!({"outside": "203.0.113.2/32", "outside_port": 5000});
    assert_eq!((&request["op"], &request["filter"]), (&json!("nat-bindings"), &filter));

    let output = Gateway::ok(answer.clone()).run("nat bindings --json");
    assert_eq!(serde_json::from_str::<Value>(stdout(&output)).unwrap(), answer);
    assert_eq!(stdout(&Gateway::ok(answer).run("nat bindings --count")), "1\n");

    let answer = json!({"entries": [], "pools": [], "totals": {"bindings": 0, "hosts": 0, "host_limit": null,
        "host_limit_hits": 0, "evicted": 0, "hairpinned": 0, "log_lost": 0}});
    let gateway = Gateway::ok(answer.clone());
    assert_eq!(stdout(&gateway.run("nat")), "no NAT is configured\n");
    assert_eq!(gateway.requests.recv().unwrap()["op"], "nat");
    let output = Gateway::ok(answer.clone()).run("--json nat");
    assert_eq!(serde_json::from_str::<Value>(stdout(&output)).unwrap(), answer);
}

#[test]
fn a_refusal_is_exit_code_1_with_its_remedy() {
    let err =
        r#"{"v":1,"id":{},"err":{"code":"NotSupported","message":"NAT is not enforced","remedy":"wait"}}"#;
    let gateway = Gateway::answering(vec![err.into()]);
    let output = gateway.run("nat");
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
    assert_eq!(stderr(&output), "sagctl: NAT is not enforced\n        wait\n");
    // The identifier could not be read: still an answer to what was asked.
    let err = r#"{"v":1,"id":0,"err":{"code":"TooLarge","message":"too long","remedy":""}}"#;
    let output = Gateway::answering(vec![err.into()]).run("status");
    assert_eq!((output.status.code(), stderr(&output)), (Some(1), "sagctl: too long\n"));
}

#[test]
fn no_gateway_is_exit_code_2_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none");
    let output = sagctl(&path, "status");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no control socket at"), "{}", stderr(&output));
    assert!(stderr(&output).contains("--socket"), "{}", stderr(&output));
    drop(UnixListener::bind(&path).unwrap());
    let output = sagctl(&path, "status");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("not running"), "{}", stderr(&output));
    let by_environment =
        Command::new(env!("CARGO_BIN_EXE_sagctl")).arg("status").env("SAG_SOCKET", &path).output();
    assert!(stderr(&by_environment.unwrap()).contains(path.to_str().unwrap()));
}

#[test]
fn strange_answers_are_exit_code_2() {
    for (answer, text) in [
        (r#"{"v":2,"id":{},"ok":{}}"#, "the gateway speaks version 2, this sagctl version 1"),
        ("HTTP/1.1 400 Bad Request", "no control socket of sag-vcpe"),
        (r#"{"v":1,"id":77,"ok":{}}"#, "another request"),
        (r#"{"v":1,"id":{},"ok":{"drops":7}}"#, "not what this sagctl expects"),
    ] {
        let output = Gateway::answering(vec![answer.replace("\"ok\":{}", "\"ok\":{ }")]).run("drops");
        assert_eq!(output.status.code(), Some(2), "{answer}");
        assert!(stderr(&output).contains(text), "{answer}: {}", stderr(&output));
    }
    let output = Gateway::answering(vec![]).run("drops");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("lost the gateway"), "{}", stderr(&output));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let nowhere = Path::new("/nonexistent/socket");
    for args in ["", "reboot", "sessions --src 1.2.3.4.5", "config apply", "status --watch 0"] {
        assert_eq!(sagctl(nowhere, args).status.code(), Some(2), "{args}");
    }
    let gateway = Gateway::ok(json!({}));
    let output = gateway.run("config apply /nonexistent/vcpe.toml");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("/nonexistent/vcpe.toml"), "{}", stderr(&output));
}

#[test]
fn a_document_is_sent_whole() {
    let gateway = Gateway::ok(json!({"epoch": 8, "changed": true, "warnings": ["[[qos]] is not enforced"]}));
    let file = gateway.dir.path().join("vcpe.toml");
    std::fs::write(&file, "[dataplane]\nflows = 1024 # ü\n").unwrap();
    let output = gateway.run(&format!("config apply {}", file.display()));
    let want = format!("{} applied, epoch 8\nwarning: [[qos]] is not enforced\n", file.display());
    assert_eq!(stdout(&output), want);
    let request = gateway.requests.recv().unwrap();
    assert_eq!(request["text"], "[dataplane]\nflows = 1024 # ü\n");
    assert_eq!(request["name"], file.to_str().unwrap());

    let gateway = Gateway::ok(json!({"changes": [{"path": "a", "old": "1", "new": "2"}], "warnings": []}));
    let mut child = command(&gateway.socket(), "config diff -");
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"a = 2\n").unwrap();
    assert_eq!(stdout(&child.wait_with_output().unwrap()), "~ a = 1 -> 2\n");
    assert_eq!(gateway.requests.recv().unwrap()["text"], "a = 2\n");
}

#[test]
fn watching_shows_rates() {
    let answer = |n: u64| {
        let drops = json!({"drops": [{"port": "0", "reason": "no-route", "text": "no route", "packets": n}]});
        format!("{{\"v\":1,\"id\":{{}},\"ok\":{drops}}}")
    };
    let gateway = Gateway::answering(vec![answer(0), answer(1000), answer(1000)]);
    let output = gateway.run("drops --watch 0.1 --rounds 3");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let rounds: Vec<&str> = stdout(&output).split("\n\n").collect();
    assert_eq!(rounds.len(), 3, "{rounds:?}");
    assert_eq!(rounds[0].trim(), "nothing was dropped");
    let rate = |round: &str| round.lines().nth(1).unwrap().split_whitespace().nth(3).unwrap().to_owned();
    assert_ne!(rate(rounds[1]), "0");
    assert_eq!(rate(rounds[2]), "0");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let sessions: Vec<Value> = (0..5000)
        .map(|n| json!({"port": format!("{n}"), "reason": "no-route", "text": "t", "packets": 1}))
        .collect();
    let gateway = Gateway::ok(json!({ "drops": sessions }));
    let mut child =
        command(&gateway.socket(), "drops").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
}
