//! Measures forwarders on a veth path, in turns: what a sink behind the forwarder receives while a
//! generator in front of it sends more than anyone can take.
//!
//! `veth_forwarders [--settle N] [--seconds N] [--repeat N] [--size N] --- COMMAND... [--- COMMAND...]`: every command is
//! run in a namespace whose devices `a` (from the generator) and `b` (to the sink) it must connect.
//! Generator on CPU 0; give the forwarder CPU 1.

#[path = "../../crates/xsk/tests/common/mod.rs"]
mod common;

use common::bpf::{Generator, Sink};
use common::{Netns, udp_packet};
use sag_xsk::{IfName, nic, sys};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn index(device: &str) -> Fallible<u32> {
    let name = IfName::new(device).ok_or("bad device name")?;
    Ok(nic::ifindex(name).ok_or(format!("no device {device}"))?)
}

/// Waits, for a few seconds at most, until nothing else keeps the CPUs busy.
fn wait_for_quiet() -> Fallible<()> {
    let idle = || -> Fallible<f64> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        let ticks =
            stat.lines().next().and_then(|line| line.split_whitespace().nth(4)).ok_or("/proc/stat")?;
        Ok(ticks.parse::<f64>()?)
    };
    // Two CPUs at 100 ticks a second: 60 in 300 ms.
    for _ in 0..10 {
        let before = idle()?;
        std::thread::sleep(Duration::from_millis(300));
        if idle()? - before >= 54.0 {
            break;
        }
    }
    Ok(())
}

/// Delivered and offered packets per second.
fn measure(command: &[String], settle: f64, seconds: f64, size: usize) -> Fallible<(f64, f64)> {
    let netns = |role: &str| Netns::new(&format!("xsk-b-{role}")).ok_or("no namespace");
    let (gateway, left, right) = (netns("gw")?, netns("l")?, netns("r")?);
    gateway.veth("a", &left, "ha", 1);
    gateway.veth("b", &right, "hb", 1);
    let sink = right.enter(|| {
        Sink::attach(index("hb")?).map_err(Into::<Box<dyn std::error::Error + Send + Sync>>::into)
    })?;
    let generator =
        left.enter(|| -> Fallible<Generator> { Ok(Generator::new(&udp_packet(size, 1), index("ha")?)?) })?;
    let mut forwarder = Command::new("nsenter");
    forwarder.arg(format!("--net=/run/netns/{}", gateway.name())).args(command);
    let quiet = std::env::var_os("BENCH_VERBOSE").is_none();
    let output = || if quiet { Stdio::null() } else { Stdio::inherit() };
    let mut running = Running(forwarder.stdin(Stdio::piped()).stdout(output()).stderr(output()).spawn()?);
    std::thread::sleep(Duration::from_secs_f64(settle));
    if let Some(status) = running.0.try_wait()? {
        return Err(format!("{command:?} ended with {status}; BENCH_VERBOSE=1 shows why").into());
    }

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| -> Fallible<()> {
            left.join_thread()?;
            sys::pin_to_cpu(0)?;
            while !stop.load(Ordering::Relaxed) {
                generator.run(2_000_000, 64)?;
            }
            Ok(())
        });
        std::thread::sleep(Duration::from_millis(700));
        let counts = || -> Fallible<_> { Ok((sink.count()?, generator.count()?, Instant::now())) };
        let before = counts();
        std::thread::sleep(Duration::from_secs_f64(seconds));
        let after = counts();
        stop.store(true, Ordering::Relaxed);
        sending.join().map_err(|_| "the generator panicked")??;
        let (before, after) = (before?, after?);
        let time = (after.2 - before.2).as_secs_f64();
        Ok(((after.0 - before.0) as f64 / time, (after.1 - before.1) as f64 / time))
    })
}

fn main() -> Fallible<()> {
    let (mut settle, mut seconds, mut repeat, mut size) = (2.5, 4.0, 3, 64);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut parts = arguments.split(|argument| argument == "---");
    let mut settings = parts.next().unwrap_or_default().iter();
    while let (Some(name), Some(value)) = (settings.next(), settings.next()) {
        match name.as_str() {
            "--seconds" => seconds = value.parse()?,
            "--settle" => settle = value.parse()?,
            "--repeat" => repeat = value.parse()?,
            "--size" => size = value.parse()?,
            other => return Err(format!("unknown setting {other}").into()),
        }
    }
    let commands: Vec<&[String]> = parts.collect();
    let mut results = vec![Vec::new(); commands.len()];
    for _ in 0..repeat {
        for (command, results) in commands.iter().zip(&mut results) {
            wait_for_quiet()?;
            match measure(command, settle, seconds, size) {
                Ok((delivered, offered)) => {
                    println!("{:.3} Mpps of {:.2}  {}", delivered / 1e6, offered / 1e6, command.join(" "));
                    results.push(delivered);
                }
                Err(error) => println!("failed: {error}"),
            }
        }
    }
    println!("\nmedian and best of {repeat}, {size}-byte packets:");
    for (command, results) in commands.iter().zip(&mut results) {
        results.sort_by(f64::total_cmp);
        if let (Some(median), Some(best)) = (results.get(results.len() / 2), results.last()) {
            println!("{:.3} {:.3} Mpps  {}", median / 1e6, best / 1e6, command.join(" "));
        }
    }
    Ok(())
}
