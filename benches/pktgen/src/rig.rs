//! Source and sink on their devices, and one trial with them.

use crate::capture::Capture;
use crate::outcome::{Outcome, Received, Sent};
use crate::place::{Home, Place, keep_to_core};
use crate::plan::{MAX_FRAME, Order, Pace, Traffic};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject};
use sag_bpf::{LiveFrames, attach_tcx, attach_xdp, park_xdp};
use serde::Deserialize;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Args)]
pub struct Devices {
    /// Device to send from, NAMESPACE:DEVICE
    #[arg(long)]
    pub tx: Place,
    /// Device at which the traffic arrives, NAMESPACE:DEVICE; without it nothing is received
    #[arg(long)]
    pub rx: Option<Place>,
    /// The devices may be in the network namespace that this is called in: the machine's, as a rule
    #[arg(long)]
    pub dev: bool,
    /// What receives: `xdp` costs least where frames arrive by XDP redirect, `tcx` where the kernel or an
    /// AF_XDP socket in copy mode sends them
    #[arg(long, value_enum, default_value_t = Sink::Xdp)]
    pub sink: Sink,
    /// Put the time into every frame and measure latencies (two looks at the clock a frame)
    #[arg(long)]
    pub stamp: bool,
    /// Look at sequence, addresses and ports of every flow (a memory access a frame)
    #[arg(long)]
    pub check: bool,
    /// Count tunnelled and rewritten frames too: all UDP, ESP, GRE and IP-in-IP
    #[arg(long)]
    pub any: bool,
    /// IPv4 address that sources are translated to; --check counts others
    #[arg(long)]
    pub outside: Option<Ipv4Addr>,
    /// Core to send on; what forwards within the kernel runs there too
    #[arg(long)]
    pub core: Option<usize>,
    /// Frames that are sent together, 1 to 256; fewer make latencies more exact and cost more
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub batch: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sink {
    Xdp,
    Tcx,
}

/// How much is sent, and how fast.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trial {
    /// To send; 0: until the time is over.
    pub frames: u64,
    /// The trial ends then at the latest; 0: when the frames are sent.
    pub seconds: f64,
    /// Frames a second; 0: as fast as it goes.
    pub rate: f64,
    /// Frames under way at most; 0: any number.
    pub window: u64,
    /// Flows; 0: all.
    pub flows: u64,
    pub order: Order,
    /// Goes on with the flow after that of the trial before.
    pub resume: bool,
    /// Time that the last frames have to arrive, ms.
    pub settle_ms: u64,
}

impl Default for Trial {
    fn default() -> Trial {
        Trial {
            frames: 0,
            seconds: 0.0,
            rate: 0.0,
            window: 0,
            flows: 0,
            order: Order::Shuffled,
            resume: false,
            settle_ms: 100,
        }
    }
}

#[derive(Debug)]
pub struct Rig {
    object: Object,
    traffic: Traffic,
    stamp: bool,
    check: bool,
    outside: Option<Ipv4Addr>,
    batch: u32,
    frame: Vec<u8>,
    cpus: u64,
    _sink: Option<OwnedFd>,
    _parked: Option<OwnedFd>,
}

/// Runs between two looks at whether a windowed source is done.
const SLICE: u32 = 1 << 18;

pub(crate) fn open() -> Result<OpenObject> {
    let object = include_bytes!(concat!(env!("OUT_DIR"), "/pktgen.bpf.o"));
    Ok(ObjectBuilder::default().name("pktgen")?.open_memory(object)?)
}

pub(crate) fn program(object: &Object, name: &str) -> Result<OwnedFd> {
    let p = object.progs().find(|p| p.name() == name).with_context(|| name.to_owned())?;
    p.as_fd().try_clone_to_owned().with_context(|| name.to_owned())
}

pub(crate) fn map(object: &Object, name: &str) -> Result<MapHandle> {
    let m = object.maps().find(|m| m.name() == name).with_context(|| format!("map {name}"))?;
    Ok(MapHandle::try_from(&m)?)
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|c| u64::from_ne_bytes(*c)).collect()
}

impl Rig {
    pub fn new(traffic: &Traffic, devices: &Devices, capture: Option<&Capture>) -> Result<Rig> {
        traffic.check()?;
        if let Some(core) = devices.core {
            keep_to_core(core)?;
        }
        let home = Home::new()?;
        let mut lengths = traffic.lengths();
        let longest: u32 = capture.map_or_else(
            || lengths.iter().copied().max().unwrap_or(60),
            |c| c.frames.iter().map(|f| f.bytes.len() as u32).max().unwrap_or(60),
        );
        let fixed: Vec<u32> = [
            traffic.ip6().into(),
            devices.stamp.into(),
            devices.check.into(),
            // PG_ANY_ALL, PG_ANY_TUNNELLED
            if capture.is_some() { 2 } else { devices.any.into() },
            capture.is_some_and(|c| c.timed).into(),
            capture.map_or(1, |c| c.frames.len() as u32),
            longest,
            lengths.len() as u32,
        ]
        .into_iter()
        .chain({
            lengths.resize(16, 60);
            lengths
        })
        .collect();
        // Nothing looks at memory: looks, places, known.
        let fixed = fixed.into_iter().chain([0; 3]).flat_map(u32::to_ne_bytes);
        let outer = if capture.is_some() { Vec::new() } else { traffic.outer.fixed() };
        let fixed: Vec<u8> = fixed.chain(outer).collect();

        let mut opened = open()?;
        for mut m in opened.maps_mut() {
            match m.name().to_string_lossy().as_ref() {
                ".rodata.fixed" => {
                    let data = m.initial_value_mut().context(".rodata.fixed")?;
                    data.get_mut(..fixed.len()).context(".rodata.fixed")?.copy_from_slice(&fixed);
                }
                "pg_flows" if devices.check => m.set_max_entries(traffic.flows as u32)?,
                "pg_capture" => m.set_max_entries(capture.map_or(1, |c| c.frames.len() as u32))?,
                _ => {}
            }
        }
        let object = opened.load().context("the kernel refused the programs (needs root and Linux 5.18)")?;
        let sink = devices.rx.as_ref().map(|rx| sink(&object, &home, rx, devices)).transpose()?;
        let tx = home.enter(&devices.tx, devices.dev)?;
        map(&object, "pg_devs")?
            .update(&0u32.to_ne_bytes(), &tx.to_ne_bytes(), MapFlags::ANY)
            .with_context(|| format!("{} takes no redirected frames", devices.tx))?;
        // Nobody uses the loopback of a namespace that is made for measuring. Without it trials take longer to begin.
        let lo = Place { device: "lo".into(), ..devices.tx.clone() };
        let parked = (!devices.dev)
            .then(|| park_xdp(program(&object, "pg_flood")?.as_fd(), home.enter(&lo, false)?).context("lo"))
            .and_then(Result::ok);
        if let Some(c) = capture {
            c.store(&map(&object, "pg_capture")?)?;
        }
        Ok(Rig {
            object,
            traffic: traffic.clone(),
            stamp: devices.stamp,
            check: devices.check,
            outside: devices.outside,
            batch: devices.batch,
            frame: vec![0; (longest as usize).min(MAX_FRAME)],
            cpus: libbpf_rs::num_possible_cpus()? as u64,
            _sink: sink,
            _parked: parked,
        })
    }

    pub fn run(&self, t: &Trial) -> Result<Outcome> {
        self.run_by(t, if t.window > 0 { "pg_windowed" } else { "" })
    }

    /// Captured frames instead of made ones.
    pub fn replay(&self, t: &Trial) -> Result<Outcome> {
        self.run_by(t, "pg_replay")
    }

    fn run_by(&self, t: &Trial, program_name: &str) -> Result<Outcome> {
        let paced = t.rate > 0.0;
        let mut name = program_name;
        if name.is_empty() {
            name = if paced { "pg_paced" } else { "pg_flood" };
        }
        if t.frames == 0 && t.seconds <= 0.0 {
            bail!("how much? frames or seconds");
        }
        if !t.seconds.is_finite() || t.seconds < 0.0 || !t.rate.is_finite() {
            bail!("seconds and rate are numbers from 0 up");
        }
        let flows = if t.flows == 0 { self.traffic.flows } else { t.flows };
        if flows > self.traffic.flows {
            bail!("{flows} flows; the source was set up for {}", self.traffic.flows);
        }
        let frames = match (t.frames, paced) {
            (0, true) => ((t.rate * t.seconds) as u64).max(1),
            (0, false) => u64::MAX,
            (n, _) => n,
        };
        self.reset(t, flows, frames)?;
        let mut limit = (t.seconds > 0.0).then(|| Duration::from_secs_f64(t.seconds));
        if paced && t.frames == 0 {
            // The last frames are due at the end of the time.
            limit = limit.map(|l| l + Duration::from_millis(20));
        }
        let prog = program(&self.object, name)?;
        let send = |runs: u64, limit: Option<Duration>| {
            let runs = runs.min(i32::MAX as u64) as u32;
            LiveFrames { frame: &self.frame, runs, batch: self.batch, limit }
                .send(prog.as_fd())
                .context("live frames (Linux 5.18 or later)")
        };
        let ns = if name == "pg_flood" {
            let ns = send(frames, limit)?;
            // The program has no say in how often it runs.
            ns.filter(|_| frames <= i32::MAX as u64)
        } else {
            self.until_sent(frames, limit, send)?;
            None
        };
        self.settle(t.settle_ms)?;
        Ok(Outcome::new(self.sent()?, &self.received()?, self.stamp, self.check, ns))
    }

    fn until_sent(
        &self,
        frames: u64,
        limit: Option<Duration>,
        send: impl Fn(u64, Option<Duration>) -> Result<Option<u32>>,
    ) -> Result<()> {
        let end = limit.map(|l| Instant::now() + l);
        let left = || end.map(|e| e.saturating_duration_since(Instant::now()));
        // A paced source is not interrupted while there is time.
        let runs = if limit.is_some() { i32::MAX as u64 } else { u64::from(SLICE) };
        while self.sent()?.frames < frames && left().is_none_or(|l| !l.is_zero()) {
            send(
                if frames == u64::MAX { runs } else { u64::from(SLICE).max(runs.min(frames * 64)) },
                left(),
            )?;
        }
        Ok(())
    }

    fn reset(&self, t: &Trial, flows: u64, frames: u64) -> Result<()> {
        let pace = Pace {
            flows,
            order: t.order,
            frames,
            interval: if t.rate > 0.0 { (1024e9 / t.rate) as u64 } else { 0 },
            window: t.window,
            outside: self.outside,
            cpus: self.cpus,
        };
        self.store(".data.plan", &self.traffic.words(&pace))?;
        let next = if t.resume { self.next_flow(flows)? } else { [0, 0] };
        self.store(".data.state", &next)?;
        let rx = map(&self.object, "pg_rx")?;
        let zero = vec![vec![0u8; rx.value_size() as usize]; self.cpus as usize];
        rx.update_percpu(&0u32.to_ne_bytes(), &zero, MapFlags::ANY)?;
        if self.check {
            let m = map(&self.object, "pg_flows")?;
            const AT_ONCE: u32 = 65_536;
            let mut first = 0;
            while first < m.max_entries() {
                let n = AT_ONCE.min(m.max_entries() - first);
                let keys: Vec<u8> = (first..first + n).flat_map(u32::to_ne_bytes).collect();
                let values = vec![0u8; (n * m.value_size()) as usize];
                m.update_batch(&keys, &values, n, MapFlags::ANY, MapFlags::ANY)?;
                first += n;
            }
        }
        Ok(())
    }

    fn store(&self, name: &str, words: &[u64]) -> Result<()> {
        let m = map(&self.object, name)?;
        let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        bytes.resize(m.value_size() as usize, 0);
        Ok(m.update(&0u32.to_ne_bytes(), &bytes, MapFlags::ANY)?)
    }

    /// Endpoint and remote of the next flow.
    fn next_flow(&self, flows: u64) -> Result<[u64; 2]> {
        let m = map(&self.object, ".data.state")?;
        let v = words(&m.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?.context(".data.state")?);
        match v.as_slice() {
            [e, r, ..] if r * self.traffic.endpoints + e < flows => Ok([*e, *r]),
            _ => Ok([0, 0]),
        }
    }

    fn sent(&self) -> Result<Sent> {
        let m = map(&self.object, ".data.state")?;
        let v = m.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?.context(".data.state")?;
        Ok(Sent::read(&words(&v)))
    }

    pub fn received(&self) -> Result<Received> {
        let m = map(&self.object, "pg_rx")?;
        let v = m.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY)?.context("pg_rx")?;
        Ok(Received::read(&v.iter().map(|v| words(v)).collect::<Vec<_>>()))
    }

    /// Waits for frames that are under way.
    fn settle(&self, ms: u64) -> Result<()> {
        let sent = self.sent()?.frames;
        let end = Instant::now() + Duration::from_millis(ms);
        while self.received()?.packets < sent && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

fn sink(object: &Object, home: &Home, rx: &Place, devices: &Devices) -> Result<OwnedFd> {
    let ifindex = home.enter(rx, devices.dev)?;
    let attached = match devices.sink {
        Sink::Xdp => attach_xdp(program(object, "pg_sink_xdp")?.as_fd(), ifindex),
        Sink::Tcx => attach_tcx(program(object, "pg_sink_tcx")?.as_fd(), ifindex),
    };
    attached.with_context(|| match devices.sink {
        Sink::Xdp => format!("{rx} takes no XDP program (another one attached? a driver without XDP?)"),
        Sink::Tcx => format!("{rx} takes no tcx program (Linux 6.6 or later)"),
    })
}
