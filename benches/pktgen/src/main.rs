//! `pktgen`: traffic for measuring a gateway, and the count of what comes out behind it.
//!
//! Exit codes: 0 done, 1 it could not be measured, 2 wrong usage.

#![forbid(unsafe_code)]

mod cli;
mod serve;
mod show;

use anyhow::{Context, Result, bail};
use clap::Parser;
use cli::{Cli, Command};
use sag_pktgen::bare::{Bare, Looks};
use sag_pktgen::capture::Capture;
use sag_pktgen::outcome::Outcome;
use sag_pktgen::plan::Order;
use sag_pktgen::rig::{Rig, Trial};
use sag_pktgen::rules;
use sag_pktgen::search::{self, Sample};
use serde_json::json;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::from(1)
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let json = cli.json;
    match cli.command {
        Command::Run { rig, trial } => {
            let o = Rig::new(&rig.traffic, &rig.devices, None)?.run(&trial.trial())?;
            show::outcome(json, &o);
        }
        Command::Throughput { rig, search: s } => {
            let rig = Rig::new(&rig.traffic, &rig.devices, None)?;
            let max = most(&rig, s.max, s.seconds)?;
            let search =
                search::Throughput { min: s.min.min(max), max, loss: s.loss, precision: s.precision };
            let found = search.search(|rate| sample(&rig, rate, s.seconds))?;
            show::found(json, &found, s.loss);
        }
        Command::Latency { rig, of, load, seconds } => {
            let mut devices = rig.devices;
            devices.stamp = true;
            let rig = Rig::new(&rig.traffic, &devices, None)?;
            let max = most(&rig, of, seconds)?;
            let rows = load
                .iter()
                .map(|share| Ok((*share, paced(&rig, max * share, seconds)?)))
                .collect::<Result<Vec<_>>>()?;
            show::latencies(json, &rows);
        }
        Command::Loss { rig, of, steps, seconds } => {
            let rig = Rig::new(&rig.traffic, &rig.devices, None)?;
            let max = most(&rig, of, seconds)?;
            show::curve(json, &search::loss_curve(max, steps, |rate| sample(&rig, rate, seconds))?);
        }
        Command::BackToBack { rig, max } => {
            let rig = Rig::new(&rig.traffic, &rig.devices, None)?;
            let all_arrive = |frames| Ok(rig.run(&Trial { frames, ..Trial::default() })?.lost == 0);
            let frames = search::back_to_back(max, all_arrive)?;
            show::value(json, &json!({ "frames": frames, "of": max }));
        }
        Command::NewFlows { rig, window } => {
            let flows = rig.traffic.flows;
            let rig = Rig::new(&rig.traffic, &rig.devices, None)?;
            let trial =
                Trial { frames: flows, window, order: Order::Ascending, seconds: 30.0, ..Trial::default() };
            show::outcome(json, &rig.run(&trial)?);
        }
        Command::Replay { rig, file, timed, trial } => {
            let capture = Capture::read(&file, timed)?;
            if capture.left_out > 0 {
                eprintln!("{} frames left out: cut off, or longer than 1514 bytes", capture.left_out);
            }
            let mut trial = trial.trial();
            if trial.frames == 0 && trial.seconds == 0.0 {
                trial.frames = capture.frames.len() as u64;
            }
            show::outcome(json, &Rig::new(&rig.traffic, &rig.devices, Some(&capture))?.replay(&trial)?);
        }
        Command::Serve { rig } => serve::serve(&Rig::new(&rig.traffic, &rig.devices, None)?)?,
        Command::Bare { from, to, looks, flows, dev } => {
            let _bare = Bare::new(&from, &to, Looks { each: looks, flows }, dev)?;
            println!("redirecting {from} to {to} until standard input ends");
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).context("standard input")?;
        }
        Command::Rules { family, count, seed, traffic } => {
            if count > 200_000 {
                bail!("--count {count}: 200000 at most");
            }
            for line in rules::generate(family, count, seed, &traffic.spared()?)? {
                println!("{}", serde_json::to_string(&line)?);
            }
        }
    }
    Ok(())
}

fn paced(rig: &Rig, rate: f64, seconds: f64) -> Result<Outcome> {
    rig.run(&Trial { rate, seconds, ..Trial::default() })
}

fn sample(rig: &Rig, rate: f64, seconds: f64) -> Result<Sample> {
    let o = paced(rig, rate, seconds)?;
    Ok(Sample { asked: rate, offered: o.offered_pps, sent: o.sent, lost: o.lost })
}

/// The rate given, or what the source sends when it is not held back.
fn most(rig: &Rig, given: f64, seconds: f64) -> Result<f64> {
    if given > 0.0 {
        return Ok(given);
    }
    let o = rig.run(&Trial { seconds, ..Trial::default() })?;
    if o.offered_pps > 0.0 { Ok(o.offered_pps) } else { bail!("the source sends nothing") }
}
