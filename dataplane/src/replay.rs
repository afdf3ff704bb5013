//! `sag-vcpe replay`: the pipeline over a capture file, one verdict a packet. Time is the capture's;
//! the configuration is all there is: no kernel table is read. Neighbours that the file does not
//! name get an address derived from theirs (02:00 and the last four bytes).

use crate::config_file;
use crate::daemon::environment::memory;
use crate::esp::EspKeys;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args as ClapArgs;
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::{Block, PcapNgReader};
use sag_compile::{ClockReading, Compiler, Plan, SharedRecords};
use sag_model::config::{Config, Timestamp};
use sag_model::{Nanos, PortIdx};
use sag_packet::rewrite::FrameMut;
use sag_pipeline::snapshot::Snapshot;
use sag_pipeline::table::{FlowTable, Grace};
use sag_pipeline::{Emit, Frames, Pipeline, Tables, Verdict};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, ClapArgs)]
pub struct Args {
    #[arg(long)]
    pub config: PathBuf,
    /// Capture to read (pcap or pcapng, Ethernet)
    #[arg(long = "in", value_name = "PCAP")]
    pub input: PathBuf,
    /// Name of the port at which its packets arrive
    #[arg(long)]
    pub port: String,
    /// Directory for `<port>.pcap` and `verdicts.jsonl`
    #[arg(long)]
    pub out: PathBuf,
}

/// A line of `verdicts.jsonl`.
#[derive(Debug, Serialize)]
struct Line<'a> {
    /// Number of the packet in the capture, from 1.
    packet: u64,
    time_ns: u64,
    /// `forward`, `drop` or `kernel`.
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// Where the packet (or its fragments) left.
    #[serde(skip_serializing_if = "Option::is_none")]
    out_port: Option<&'a str>,
    /// Bytes of the frame that left.
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<usize>,
    /// Frames that the gateway made because of this packet: (port, bytes).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    originated: Vec<(&'a str, usize)>,
}

/// Room in front of a frame, as a worker has it.
const HEADROOM: usize = 128;

struct One<'b> {
    buf: &'b mut [u8],
    len: usize,
}

impl Frames for One<'_> {
    fn len(&self) -> usize {
        1
    }
    fn frame(&mut self, _: usize) -> FrameMut<'_> {
        FrameMut::new(self.buf, HEADROOM, self.len)
    }
}

#[derive(Default)]
struct Made(Vec<(PortIdx, Vec<u8>)>);

impl Emit for Made {
    fn emit(&mut self, port: PortIdx, frame: &[u8]) -> bool {
        self.0.push((port, frame.to_vec()));
        true
    }
}

pub fn replay(args: &Args) -> Result<()> {
    let (checked, _) = config_file::load(&args.config)?;
    for w in &checked.warnings {
        eprintln!("warning: {w}");
    }
    let config = checked.config;
    let Some(ingress) = config.port_by_name(&args.port) else {
        let names: Vec<_> = config.ports.iter().map(|p| p.name.as_str()).collect();
        bail!("{} has no port named {:?}; it has {}", args.config.display(), args.port, names.join(", "));
    };
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let mut capture = Capture::open(&args.input)?;
    let mut shell = Shell::new(config, &args.out, ingress)?;
    while let Some((time, data)) =
        capture.next().with_context(|| format!("reading {}", args.input.display()))?
    {
        shell.packet(time, &data)?;
    }
    shell.finish()
}

/// The time until the first packet of the capture gives one.
const BEGIN: ClockReading = ClockReading { monotonic: Nanos::ZERO, wall: Timestamp(0) };

/// The replayer's shell around the pipeline.
struct Shell<'d> {
    config: Config,
    compiler: Compiler,
    records: SharedRecords,
    keys: EspKeys,
    snapshot: Snapshot,
    pipeline: Pipeline,
    ingress: PortIdx,
    dev: u8,
    out: &'d Path,
    writers: BTreeMap<PortIdx, PcapWriter<BufWriter<File>>>,
    verdicts: BufWriter<File>,
    number: u64,
    counts: BTreeMap<String, u64>,
}

impl<'d> Shell<'d> {
    fn new(config: Config, out: &'d Path, ingress: PortIdx) -> Result<Self> {
        let sessions = config.dataplane.flow_capacity(memory());
        let mut records = SharedRecords::private(sessions.v4);
        let nat = records.nat.clone();
        let mut keys = EspKeys::default();
        let mut compiler = Compiler::new(&records, keys.associations.clone());
        compiler.replay = true;
        let plan = compiler.compile(&config, &sag_rtnl::Tables::default(), 1, BEGIN);
        for problem in &plan.problems {
            eprintln!("warning: {problem}");
        }
        let snapshot = apply(plan, &mut records, &mut keys, BEGIN.monotonic);
        let grace = Grace::immediate();
        let tables = Tables {
            v4: FlowTable::private(sessions.v4, grace.clone()),
            v6: FlowTable::private(sessions.v6, grace),
            nat,
            first_fragments: Default::default(),
        };
        let mut pipeline = Pipeline::new(Arc::new(tables), 0, 1);
        pipeline.request_without_limit();
        let port = snapshot.port(ingress).context("the port vanished")?;
        let dev = port.dev;
        if config.port(ingress).is_some_and(|p| p.zone().is_none()) {
            bail!("port {:?} has the role mgmt: its packets are the kernel's", port.name);
        }
        let path = out.join("verdicts.jsonl");
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        // An egress port without packets has an empty capture, so that a reader finds what it expects.
        let mut shell = Shell {
            dev,
            compiler,
            records,
            keys,
            snapshot,
            pipeline,
            ingress,
            out,
            writers: BTreeMap::new(),
            verdicts: BufWriter::new(file),
            number: 0,
            counts: BTreeMap::new(),
            config,
        };
        let ours: Vec<_> = shell.config.ports().filter(|(_, p)| p.zone().is_some()).map(|(i, _)| i).collect();
        for idx in ours {
            shell.writer(idx)?;
        }
        Ok(shell)
    }

    fn packet(&mut self, time: Duration, data: &[u8]) -> Result<()> {
        self.number += 1;
        let now = Nanos(time.as_nanos() as u64);
        let mut made = Made::default();
        if self.number == 1 {
            self.records.meters.begin(now);
        }
        // Time windows of policies go by the capture's time.
        if self.compiler.qos.is_due(&self.config, Timestamp(time.as_secs() as i64)) {
            self.recompile(sag_model::flow::next_epoch(self.snapshot.epoch), now);
        }
        self.pipeline.poll(&self.snapshot, now, &mut made);
        let mut buf = vec![0u8; HEADROOM + data.len() + HEADROOM];
        buf[HEADROOM..HEADROOM + data.len()].copy_from_slice(data);
        let mut verdicts = Vec::with_capacity(1);
        let mut frames = One { buf: &mut buf, len: data.len() };
        self.pipeline.batch(&self.snapshot, now, self.dev, &mut frames, &mut verdicts, &mut made);
        let verdict = verdicts.first().copied().context("the pipeline gave no verdict")?;
        let (mut own, mut made) = match verdict {
            Verdict::Tx { port, start, len } => (vec![(port, buf[start..start + len].to_vec())], made),
            Verdict::Held => (self.resolve(now)?, made),
            Verdict::Emitted => (std::mem::take(&mut made.0), made),
            Verdict::Drop(_) | Verdict::Kernel => (Vec::new(), made),
        };
        // A held packet that is released may itself have caused an error instead of leaving.
        let (name, reason) = match verdict {
            Verdict::Drop(r) => ("drop", Some(r.name())),
            Verdict::Kernel => ("kernel", None),
            // Every neighbor can be resolved here, so the packet waits for its first fragment.
            Verdict::Held if own.is_empty() && made.0.is_empty() => ("held", None),
            _ if own.is_empty() => ("drop", Some("neighbor-failed")),
            _ => ("forward", None),
        };
        *self.counts.entry(reason.map_or(name.to_owned(), |r| format!("{name}:{r}"))).or_default() += 1;
        for (port, frame) in own.iter().chain(&made.0) {
            let packet = PcapPacket::new(time, frame.len() as u32, frame);
            self.writer(*port)?.write_packet(&packet)?;
        }
        let label = |i: PortIdx| self.config.port(i).map_or("?", |p| p.name.as_str());
        let line = Line {
            packet: self.number,
            time_ns: now.0,
            verdict: name,
            reason,
            out_port: own.first().map(|(p, _)| label(*p)),
            length: own.first().map(|(_, f)| f.len()),
            originated: made.0.drain(..).map(|(p, f)| (label(p), f.len())).collect(),
        };
        serde_json::to_writer(&mut self.verdicts, &line)?;
        self.verdicts.write_all(b"\n")?;
        own.clear();
        Ok(())
    }

    /// Invents the neighbour that a packet waits for and lets it go.
    fn resolve(&mut self, now: Nanos) -> Result<Vec<(PortIdx, Vec<u8>)>> {
        let requests: Vec<_> = self.pipeline.take_requests().collect();
        for (port, to) in requests {
            self.compiler
                .numbers
                .nexthops
                .number(port, to)
                .ok_or_else(|| anyhow!("more next hops than numbers for them"))?;
        }
        self.recompile(self.snapshot.epoch, now);
        let mut made = Made::default();
        self.pipeline.poll(&self.snapshot, now, &mut made);
        Ok(made.0)
    }

    fn recompile(&mut self, epoch: u32, now: Nanos) {
        let clock = ClockReading { monotonic: now, wall: Timestamp((now.0 / 1_000_000_000) as i64) };
        let plan = self.compiler.compile(&self.config, &sag_rtnl::Tables::default(), epoch, clock);
        self.snapshot = apply(plan, &mut self.records, &mut self.keys, now);
    }

    fn writer(&mut self, port: PortIdx) -> Result<&mut PcapWriter<BufWriter<File>>> {
        use std::collections::btree_map::Entry;
        match self.writers.entry(port) {
            Entry::Occupied(e) => Ok(e.into_mut()),
            Entry::Vacant(e) => {
                let name = self.config.port(port).map_or("unknown", |p| p.name.as_str());
                let path = self.out.join(format!("{}.pcap", name.replace(['/', '\\'], "_")));
                let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
                let header = PcapHeader {
                    datalink: DataLink::ETHERNET,
                    ts_resolution: pcap_file::TsResolution::NanoSecond,
                    ..PcapHeader::default()
                };
                Ok(e.insert(PcapWriter::with_header(BufWriter::new(file), header)?))
            }
        }
    }

    fn finish(mut self) -> Result<()> {
        self.verdicts.flush()?;
        for w in self.writers.into_values() {
            w.into_writer().flush()?;
        }
        let parts: Vec<_> = self.counts.iter().map(|(k, n)| format!("{n} {k}")).collect();
        let port = self.config.port(self.ingress).map_or("?", |p| p.name.as_str());
        println!("{} packets on port {port}: {}", self.number, parts.join(", "));
        Ok(())
    }
}

/// Puts a plan in force: the same steps as in the daemon, without those of XDP.
fn apply(plan: Plan, records: &mut SharedRecords, keys: &mut EspKeys, now: Nanos) -> Snapshot {
    keys.configure(&plan.esp);
    records.apply(&plan.records, now);
    plan.snapshot
}

/// A capture of either format.
enum Capture {
    Pcap(PcapReader<BufReader<File>>),
    PcapNg(PcapNgReader<BufReader<File>>),
}

impl Capture {
    fn open(path: &Path) -> Result<Capture> {
        let what = || format!("cannot read {}", path.display());
        let mut file = File::open(path).with_context(what)?;
        let mut magic = [0u8; 4];
        file.read_exact(&mut magic).with_context(|| format!("{} is no capture file", path.display()))?;
        file.rewind().with_context(what)?;
        let reader = BufReader::new(file);
        if magic == [0x0A, 0x0D, 0x0D, 0x0A] {
            return Ok(Capture::PcapNg(PcapNgReader::new(reader).with_context(what)?));
        }
        let pcap = PcapReader::new(reader)
            .with_context(|| format!("{} is no pcap or pcapng file", path.display()))?;
        match pcap.header().datalink {
            DataLink::ETHERNET => Ok(Capture::Pcap(pcap)),
            other => bail!("{} has link type {other:?}; only Ethernet can be replayed", path.display()),
        }
    }

    fn next(&mut self) -> Result<Option<(Duration, Vec<u8>)>> {
        match self {
            Capture::Pcap(r) => match r.next_packet() {
                None => Ok(None),
                Some(p) => {
                    let p = p?;
                    Ok(Some((p.timestamp, p.data.into_owned())))
                }
            },
            Capture::PcapNg(r) => loop {
                match r.next_block() {
                    None => return Ok(None),
                    Some(Err(e)) => return Err(e.into()),
                    Some(Ok(Block::EnhancedPacket(p))) => {
                        return Ok(Some((p.timestamp, p.data.into_owned())));
                    }
                    Some(Ok(Block::InterfaceDescription(i))) if i.linktype != DataLink::ETHERNET => {
                        bail!("interface with link type {:?}; only Ethernet can be replayed", i.linktype)
                    }
                    Some(Ok(_)) => {}
                }
            },
        }
    }
}
