//! Forwards every packet between two devices, unchanged: `l2fwd A B`. The bare cost of AF_XDP.
//!
//! Options: `--cpu N`, `--batch N`, `--fill N` (chunks posted per port), `--ring N`, `--frames N`, `--busy N`,
//! `--copy`, `--huge`, `--verbose`.

#[path = "../../crates/xsk/tests/common/mod.rs"]
mod common;

use common::bpf::Redirect;
use sag_xsk::nic::Facts;
use sag_xsk::{BusyPoll, Mode, Socket, SocketConfig, Umem, UmemConfig, sys};

struct Options {
    devices: Vec<String>,
    cpu: Option<usize>,
    batch: usize,
    fill: u32,
    ring: u32,
    busy: u16,
    frames: u32,
    copy: bool,
    huge: bool,
    verbose: bool,
}

fn options() -> Result<Options, Box<dyn std::error::Error>> {
    let mut options = Options {
        devices: Vec::new(),
        cpu: None,
        batch: 64,
        fill: 2048,
        ring: 2048,
        busy: 0,
        frames: 16384,
        copy: false,
        huge: false,
        verbose: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--cpu" => options.cpu = Some(value()?.parse()?),
            "--batch" => options.batch = value()?.parse()?,
            "--fill" => options.fill = value()?.parse()?,
            "--ring" => options.ring = value()?.parse()?,
            "--busy" => options.busy = value()?.parse()?,
            "--frames" => options.frames = value()?.parse()?,
            "--copy" => options.copy = true,
            "--huge" => options.huge = true,
            "--verbose" => options.verbose = true,
            device => options.devices.push(device.to_owned()),
        }
    }
    Ok(options)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = options()?;
    let [first, second] = options.devices.as_slice() else {
        return Err("usage: l2fwd A B [--cpu N] [--batch N] ...".into());
    };
    if let Some(cpu) = options.cpu {
        sys::pin_to_cpu(cpu)?;
    }
    let config = UmemConfig { frames: options.frames, huge_pages: options.huge, ..UmemConfig::default() };
    let mut umem = Umem::new(&config)?;
    let mut ports = Vec::new();
    let mut programs = Vec::new();
    for device in [first, second] {
        let socket = Socket::open(
            &mut umem,
            &SocketConfig {
                mode: if options.copy { Mode::Copy } else { Mode::Auto },
                rx_ring: options.ring,
                tx_ring: options.ring,
                fill_ring: options.ring.max(options.fill.next_power_of_two()),
                fill_level: options.fill,
                busy_poll: (options.busy > 0).then_some(BusyPoll { microseconds: 20, budget: options.busy }),
                ..SocketConfig::new(device, 0)
            },
        )?;
        let program = Redirect::attach(socket.ifindex())?;
        program.set(0, socket.fd())?;
        eprintln!("{}", Facts::read(device)?.line(socket.binding()));
        ports.push(socket);
        programs.push(program);
    }

    let mut batch = Vec::with_capacity(options.batch);
    let (mut received, mut refused, mut rounds) = (0u64, 0u64, 0u64);
    let mut report = sys::now();
    loop {
        for from in 0..2 {
            let [first, second] = ports.as_mut_slice() else { unreachable!("two were opened") };
            let (from, to) = if from == 0 { (first, second) } else { (second, first) };
            from.refill(&mut umem);
            from.wake_if_needed()?;
            let count = from.rx(&mut umem, &mut batch, options.batch);
            to.complete(&mut umem);
            if count == 0 {
                to.flush()?;
                continue;
            }
            received += count as u64;
            rounds += 1;
            for frame in batch.drain(..) {
                if let Err(frame) = to.send(&mut umem, frame) {
                    umem.release(frame);
                    refused += 1;
                }
            }
            to.flush()?;
        }
        if options.verbose && rounds.is_multiple_of(4096) && sys::now() - report > 1_000_000_000 {
            report = sys::now();
            eprintln!("{received} received in {rounds} batches, {refused} refused, {:?}", umem.census());
            for port in &ports {
                eprintln!("  {port:?} {:?}", port.stats()?);
            }
        }
    }
}
