//! `sagctl`: what an operator types to see and to change a running gateway.
//!
//! One request over the control socket, one table (or, with `--json`, the gateway's own words).
//! Exit codes: 0 done, 1 the gateway refused, 2 wrong usage or no gateway to talk to.

#![forbid(unsafe_code)]

mod cli;
mod client;
mod render;
mod table;
mod units;
mod watch;

use clap::Parser;
use cli::{Cli, Command, ConfigCommand, SessionsCommand, TunnelsCommand};
use client::{Client, Failure};
use render::Page;
use sag_model::control::{ConfigText, KeyText, Op, SessionFlush, TunnelKeyQuery, TunnelPeers, TunnelRekey};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // The reader of the output has seen enough.
            if matches!(&failure, Failure::Output(e) if e.kind() == ErrorKind::BrokenPipe) {
                return ExitCode::SUCCESS;
            }
            eprint!("{}", failure.report());
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let page = cli.page();
    let mut client = Client::connect(&cli.socket)?;
    let op = match &cli.command {
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
        Command::Nat(n) => n.op(),
        Command::Tunnels(t) => match &t.command {
            None => return watch::run(cli, &mut client, &page, &t.watch, Op::Tunnels, render::tunnels),
            Some(TunnelsCommand::Rekey { name, keys, now, wait }) => {
                Op::TunnelsRekey(rekey(name, keys, *now, *wait)?)
            }
            Some(TunnelsCommand::Key { gateway, renew }) => {
                Op::TunnelsKey(TunnelKeyQuery { gateway: gateway.clone(), renew: *renew })
            }
            Some(TunnelsCommand::Peers { file }) => {
                let peers =
                    from_json(&document(file)?, "a list of tunnel, gateway, epoch, public_key and link")?;
                Op::TunnelsPeers(TunnelPeers { peers })
            }
        },
        Command::Trace => Op::Trace,
        Command::Config(ConfigCommand::Show) => Op::ConfigShow,
        Command::Config(ConfigCommand::Apply { file }) => Op::ConfigApply(document(file)?),
        Command::Config(ConfigCommand::Diff { file }) => Op::ConfigDiff(document(file)?),
        Command::Reload => Op::Reload,
    };
    let answer = client.call(op.clone())?;
    let text = if cli.json { answer.pretty() } else { spell_out(&op, &answer, &page)? };
    print(&text)
}

/// The human form of an answer.
fn spell_out(op: &Op, answer: &client::Answer, page: &Page) -> Result<String, Failure> {
    Ok(match op {
        Op::Acl(_) => render::acl(&answer.read()?, page),
        Op::Routes(_) => render::routes(&answer.read()?, page),
        Op::Sessions(q) if q.count => render::session_count(&answer.read()?),
        Op::Sessions(_) => render::sessions(&answer.read()?, page),
        Op::SessionsFlush(_) => render::flushed(&answer.read()?),
        Op::Nat => render::nat(&answer.read()?, page),
        Op::NatBindings(q) if q.count => render::nat_binding_count(&answer.read()?),
        Op::NatBindings(_) => render::nat_bindings(&answer.read()?, page),
        Op::Explain(_) => render::explain(&answer.read()?, page),
        Op::TunnelsRekey(_) | Op::TunnelsPeers(_) => render::rekeyed(&answer.read()?),
        Op::ConfigShow => render::config_show(&answer.read()?),
        Op::ConfigApply(c) => render::config_applied(&answer.read()?, &c.name, page),
        Op::Reload => render::config_applied(&answer.read()?, "the configuration file", page),
        Op::ConfigDiff(_) => render::config_diff(&answer.read()?, page),
        // A gateway that knows more than this program: show its words.
        _ => answer.pretty(),
    })
}

/// Keys for a tunnel: spi_in, spi_out, key_in and key_out in JSON, or in lines as in the configuration.
fn rekey(tunnel: &str, file: &Path, now: bool, wait: u32) -> Result<TunnelRekey, Failure> {
    let mut document = document(file)?;
    let text = std::mem::take(&mut document.text);
    let text = if text.trim_start().starts_with('{') { text } else { lines_to_json(&text) };
    let read: Pair =
        from_json(&ConfigText { text, name: document.name }, "spi_in, spi_out, key_in and key_out")?;
    let Pair { spi_in, spi_out, key_in, key_out } = read;
    Ok(TunnelRekey { tunnel: tunnel.to_owned(), spi_in, spi_out, key_in, key_out, now, wait })
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    spi_in: u32,
    spi_out: u32,
    key_in: KeyText,
    key_out: KeyText,
}

/// `key = value` lines; what follows `#` is left out.
fn lines_to_json(text: &str) -> String {
    let line = |l: &str| {
        let (key, value) = l.split('#').next()?.split_once('=')?;
        Some(format!("\"{}\":{}", key.trim(), value.trim()))
    };
    format!("{{{}}}", text.lines().filter_map(line).collect::<Vec<_>>().join(","))
}

/// Not a word of the text is repeated in an error: it may be a key.
fn from_json<T: serde::de::DeserializeOwned>(document: &ConfigText, what: &str) -> Result<T, Failure> {
    serde_json::from_str(&document.text)
        .map_err(|e| Failure::Usage(format!("{}, line {}: not {what}", document.name, e.line())))
}

/// Reads a configuration from a file, or from standard input if that is `-`.
fn document(file: &Path) -> Result<ConfigText, Failure> {
    let name = file.display().to_string();
    let text = if name == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    match text {
        Ok(text) => Ok(ConfigText { text, name }),
        Err(e) => Err(Failure::Usage(format!("cannot read {name}: {e}"))),
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}
