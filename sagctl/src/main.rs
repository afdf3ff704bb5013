//! `sagctl`: what an operator types to see and to change a running gateway.
//!
//! One request over the control socket, one table (or, with `--json`, the gateway's answer as it is).
//! Exit codes: 0 done, 1 the gateway refused, 2 wrong usage or no gateway to talk to.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]
// What is printed goes through `output`.
#![warn(clippy::print_stdout)]

mod cli;
mod client;
mod input;
mod output;
mod page;
mod render;
mod table;
mod units;
mod watch;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command, ConfigCommand, HaArgs, LanArgs, Local, SessionsCommand, Task, TunnelsCommand};
use client::{Client, Failure};
use input::{document, from_json, rekey};
use page::Page;
use sag_model::control::{self, HaQuery, Op, SessionFlush, TunnelConfirm, TunnelKeyQuery, TunnelPeers};
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // The reader has closed the pipe, as `head` does: this is no failure.
            if matches!(&failure, Failure::Output(e) if e.kind() == ErrorKind::BrokenPipe) {
                return ExitCode::SUCCESS;
            }
            eprint!("{}", failure.report());
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    match &cli.task {
        Task::Ask(command) => ask(cli, command),
        Task::Local(Local::Manual(manual)) => manual.write(Cli::command()).map_err(Failure::Output),
        Task::Local(Local::Routing { dir }) => routing(cli, dir.as_deref()),
        Task::Local(Local::Dhcp(args)) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
            lan(cli, args, |status, page| render::dhcp(status, now, page))
        }
        Task::Local(Local::Dns(args)) => lan(cli, args, render::dns),
        Task::Local(Local::Completions { shell }) => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "sagctl", &mut text);
            output::print(&String::from_utf8_lossy(&text))
        }
    }
}

/// What the routing service says.
fn routing(cli: &Cli, dir: Option<&Path>) -> Result<(), Failure> {
    const REMEDY: &str = "the agent runs it where FRR is installed: docs/routing.md";
    let refused = |message: String| Failure::Connection { message, remedy: REMEDY.to_owned() };
    let dir = match dir {
        Some(dir) => dir.to_owned(),
        None => sag_frr::place(Path::new(sag_frr::PLACE)).map_err(refused)?,
    };
    let status = sag_frr::Client::new(&dir).show().map_err(|e| refused(e.to_string()))?;
    // What FRR says of others comes from the network.
    let as_json = |e: serde_json::Error| refused(format!("not the answer of a routing service: {e}"));
    let answer = client::Answer::of(&status).map_err(as_json)?;
    let text = if cli.json { answer.pretty() } else { render::routing(&answer.read()?, &cli.page()) };
    output::print(&text)
}

/// What the agent has written down about LAN ports.
fn lan(
    cli: &Cli,
    args: &LanArgs,
    render: impl Fn(&sag_dnsmasq::Status, &Page) -> String,
) -> Result<(), Failure> {
    const REMEDY: &str =
        "the agent serves LANs where dnsmasq is installed and the cloud says so: docs/dhcp-dns.md";
    let failed = |message: String| Failure::Connection { message, remedy: REMEDY.to_owned() };
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => sag_dnsmasq::place(Path::new(sag_dnsmasq::PLACE)).map_err(failed)?,
    };
    let file = dir.join(sag_dnsmasq::STATUS);
    let wrong = |e: &dyn std::fmt::Display| failed(format!("{}: {e}", file.display()));
    let text = std::fs::read_to_string(&file).map_err(|e| wrong(&e))?;
    let status: sag_dnsmasq::Status = serde_json::from_str(&text).map_err(|e| wrong(&e))?;
    // Hosts choose their names.
    let answer = client::Answer::of(&status).map_err(|e| wrong(&e))?;
    let text = if cli.json { answer.pretty() } else { render(&answer.read()?, &cli.page()) };
    output::print(&text)
}

fn ask(cli: &Cli, command: &Command) -> Result<(), Failure> {
    let page = cli.page();
    let mut client = Client::connect(&cli.socket)?;
    let op = match command {
        Command::Status(w) => return watch::run(cli, &mut client, &page, w, Op::Status, render::status),
        Command::Ports(w) => return watch::run(cli, &mut client, &page, w, Op::Ports, render::ports),
        Command::Drops(w) => return watch::run(cli, &mut client, &page, w, Op::Drops, render::drops),
        Command::Qos(w) => return watch::run(cli, &mut client, &page, w, Op::Qos, render::qos),
        Command::Top(top) => {
            return watch::run(cli, &mut client, &page, &top.watch, Op::Top(top.query()), render::top);
        }
        Command::Acl(a) => Op::Acl(a.query()),
        Command::Routes(r) => Op::Routes(r.query()),
        Command::Sessions(s) => match &s.command {
            Some(SessionsCommand::Flush { filter, all }) => {
                Op::SessionsFlush(SessionFlush { filter: filter.filter(), all: *all })
            }
            None => Op::Sessions(s.query()),
        },
        Command::Explain(e) => Op::Explain(e.query().map_err(Failure::Usage)?),
        Command::Ha(h) => Op::Ha(HaQuery { state_only: h.check }),
        Command::Nat(n) => n.op(),
        Command::Tunnels(t) => match &t.command {
            None => return watch::run(cli, &mut client, &page, &t.watch, Op::Tunnels, render::tunnels),
            Some(TunnelsCommand::Rekey { name, keys, now, wait }) => {
                Op::TunnelsRekey(rekey(name, keys, *now, *wait)?)
            }
            Some(TunnelsCommand::Confirm { name }) => {
                Op::TunnelsConfirm(TunnelConfirm { tunnel: name.clone() })
            }
            Some(TunnelsCommand::Key { gateway, renew }) => {
                Op::TunnelsKey(TunnelKeyQuery { gateway: gateway.clone(), renew: *renew, epoch: None })
            }
            Some(TunnelsCommand::Peers { file }) => {
                let peers =
                    from_json(&document(file)?, "a list of tunnel, gateway, epoch, public_key and link")?;
                Op::TunnelsPeers(TunnelPeers { peers })
            }
        },
        Command::Config(ConfigCommand::Show) => Op::ConfigShow,
        Command::Config(ConfigCommand::Apply { file }) => Op::ConfigApply(document(file)?),
        Command::Config(ConfigCommand::Diff { file }) => Op::ConfigDiff(document(file)?),
        Command::Reload => Op::Reload,
    };
    let answer = client.call(op.clone())?;
    if let Command::Ha(HaArgs { check: true }) = command {
        let ha: control::Ha = answer.read()?;
        return if ha.ready { Ok(()) } else { Err(Failure::NotReady) };
    }
    let text = if cli.json { answer.pretty() } else { human_readable(&op, &answer, &page)? };
    output::print(&text)
}

/// The human form of an answer.
fn human_readable(op: &Op, answer: &client::Answer, page: &Page) -> Result<String, Failure> {
    Ok(match op {
        Op::Acl(q) if q.log => render::acl_log(&answer.read()?, page),
        Op::Acl(_) => render::acl(&answer.read()?, page),
        Op::Routes(_) => render::routes(&answer.read()?, page),
        Op::Sessions(q) if q.count => render::session_count(&answer.read()?),
        Op::Sessions(_) => render::sessions(&answer.read()?, page),
        Op::SessionsFlush(_) => render::flushed(&answer.read()?),
        Op::Ha(_) => render::ha(&answer.read()?, page),
        Op::Nat => render::nat(&answer.read()?, page),
        Op::NatBindings(q) if q.count => render::nat_binding_count(&answer.read()?),
        Op::NatBindings(_) => render::nat_bindings(&answer.read()?, page),
        Op::NatMappings => render::nat_mappings(&answer.read()?, page),
        Op::Explain(_) => render::explain(&answer.read()?, page),
        Op::TunnelsConfirm(_) => render::confirmed(&answer.read()?),
        Op::TunnelsRekey(_) | Op::TunnelsPeers(_) => render::rekeyed(&answer.read()?),
        Op::ConfigShow => {
            let text = render::config_show(&answer.read_verbatim()?);
            if output::is_terminal() { sag_text::escape_lines(&text).into_owned() } else { text }
        }
        Op::ConfigApply(c) => render::config_applied(&answer.read()?, &c.name, page),
        Op::Reload => render::config_applied(&answer.read()?, "the configuration file", page),
        Op::ConfigDiff(_) => render::config_diff(&answer.read()?, page),
        // This program has no form for the answer: show it as it is.
        _ => answer.pretty(),
    })
}
