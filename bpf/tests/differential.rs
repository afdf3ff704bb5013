//! The XDP program and the Rust pipeline over the same flow table, the same next hops and the same
//! packets: what XDP forwards leaves as the pipeline would have sent it, byte for byte and counted
//! alike; what it punts, drops or gives to the kernel it does for a reason that holds.
//!
//! `SAG_DIFF_SECONDS` says for how long (5), `SAG_SEED` which story comes first. The fuzz target `xdp` has stories of
//! its own inputs; those of `fuzz/corpus/xdp` are told here, too.

mod common;
#[path = "differential/decap.rs"]
mod decap;
#[path = "differential/metered.rs"]
mod metered;
#[path = "differential/order.rs"]
mod order;
#[path = "differential/packets.rs"]
mod packets;
#[path = "differential/rules.rs"]
mod rules;
#[path = "differential/tunneled.rs"]
mod tunneled;

use common::netns::*;
use common::*;
use sag_bpf::*;
use sag_model::flow::*;
use sag_model::{DropReason, Nanos, PortIdx, VlanId};
use sag_packet::parse::NetworkLayer;
use sag_packet::partial;
use sag_packet::proto::*;
use sag_pipeline::Tables;
use sag_pipeline::nat::{Identifications, NatState};
use sag_pipeline::table::{FlowTable, Grace, TableMemory, index_buckets};
use sag_testkit::{self as testkit, Outcome, Rig, Rng};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const SESSIONS4: u32 = 150;
const SESSIONS6: u32 = 60;
/// Packets of one story, and of all of them at the least.
const STORY: usize = 400;
const ENOUGH: u64 = 20_000;
const PORTS: [PortIdx; 4] = [testkit::LAN, testkit::WAN, testkit::LINE, testkit::LAN2];

/// Three devices with the program on them, and a socket for what it punts.
pub struct Lab {
    gw: Gateway,
    devs: [u32; 3],
    _socket: std::os::fd::OwnedFd,
    _ns: Netns,
    _fs: Bpffs,
}

impl Lab {
    /// `None` without the privilege.
    pub fn new() -> Option<Lab> {
        let (fs, ns) = (root()?, Netns::new()?);
        // Nothing but the test's own frames; where there is no IPv6, there is none to switch off.
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
        ip(&["link", "add", "vc", "type", "veth", "peer", "name", "vd"]).unwrap();
        ip(&["link", "set", "vc", "up"]).unwrap();
        let gw = Gateway::open(&OpenOptions { sessions4: SESSIONS4, sessions6: SESSIONS6, ..fs.options() })
            .expect("open");
        let socket = af_xdp_socket();
        let devs = ["va", "vb", "vc"].map(|name| {
            let i = ifindex(name);
            gw.attach(i, name, AttachMode::Native).expect("attach");
            i
        });
        for (slot, &i) in devs.iter().enumerate() {
            gw.set_dev(slot as u8, i).unwrap();
            gw.set_xsk(slot as u8, 0, std::os::fd::AsFd::as_fd(&socket)).unwrap();
        }
        gw.control().fail_action.store(1, Relaxed);
        gw.control().fast_path.store(FAST_PATH_ON | FAST_PATH_SUMS, Relaxed);
        Some(Lab { gw, devs, _socket: socket, _ns: ns, _fs: fs })
    }

    /// Empty tables over the gateway's memory, as the daemon makes them.
    fn tables(&self, seed: u64) -> Tables {
        let c = self.gw.control();
        c.seed.store(seed, Relaxed);
        let v4 = TableMemory {
            records: self.gw.flows4(),
            sessions: SESSIONS4,
            buckets: self.gw.index4(),
            sequences: self.gw.sequences4(),
        };
        let v6 = TableMemory {
            records: self.gw.flows6(),
            sessions: SESSIONS6,
            buckets: self.gw.index6(),
            sequences: self.gw.sequences6(),
        };
        let v4 = table(v4, seed, &c.index4);
        let v6 = table(v6, seed, &c.index6);
        self.gw.nat_ports().iter().for_each(|w| w.store(0, Relaxed));
        let identifications = Identifications::new(self.gw.ip_ids(), seed);
        let nat = Arc::new(NatState::new(v4.capacity(), self.gw.nat_ports(), identifications, seed));
        Tables { v4, v6, nat, first_fragments: Default::default() }
    }

    /// Tells XDP what the snapshot says.
    fn publish(&self, rig: &Rig) {
        for (slot, &i) in self.devs.iter().enumerate() {
            let on_dev = || rig.snap.ports.iter().enumerate().filter(|(_, p)| usize::from(p.dev) == slot);
            for (no, p) in on_dev() {
                let vlans = on_dev().any(|(_, p)| p.vlan != 0);
                let port = PortIdx(no as u8);
                let entry =
                    PortEntry { port, side: p.side(), dev: p.dev, mac: p.mac, on: true, vlans, skb: false };
                match p.vlan {
                    0 => self.gw.set_port(i, &entry).unwrap(),
                    v => {
                        let entry = PortEntry { vlans: false, ..entry };
                        self.gw.set_vlan(i, VlanId::new(v).unwrap(), &entry).unwrap();
                    }
                }
            }
        }
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (vrf, a) in rig.snap.kernel_addresses() {
            match a {
                IpAddr::V4(addr) => {
                    let external = rig.snap.nat.externals.get(&addr.to_bits());
                    let pool = external.and_then(|_| rig.pipe.tables.nat.pool_of(addr));
                    let tunnel = rig.snap.tunnels.end_at(addr.into());
                    let any = external.is_some_and(|e| e.internet.has_any() || e.intranet.has_any());
                    let silent = rig.snap.nat.is_silent(addr);
                    v4.push(LocalAddr { addr, nat_slot: pool.map(|p| p.no), any, tunnel, silent, vrf });
                }
                IpAddr::V6(a) => v6.push((vrf, a)),
            }
        }
        self.gw.replace_local4(&v4).unwrap();
        let macs = rig.snap.ports.iter().filter(|p| usize::from(p.dev) < self.devs.len()).flat_map(|p| {
            let (dev, vlan) = (self.devs[usize::from(p.dev)], p.vlan);
            p.macs.iter().map(move |m| (dev, vlan, *m))
        });
        self.gw.replace_macs(&macs.collect::<Vec<_>>()).unwrap();
        let ends: Vec<_> = v6.iter().map(|a| a.1).filter(|a| rig.snap.tunnels.end_at((*a).into())).collect();
        self.gw.replace_local6(&v6, &ends).unwrap();
        self.gw.control().epoch.store(rig.snap.epoch, Relaxed);
    }

    fn meters(&self) -> metered::Memory {
        metered::Memory::of(&self.gw)
    }

    /// What the next datagrams are numbered by.
    fn ip_ids(&self) -> Vec<u64> {
        self.gw.ip_ids().iter().map(|c| c.load(Relaxed)).collect()
    }

    fn restore_ip_ids(&self, to: &[u64]) {
        self.gw.ip_ids().iter().zip(to).for_each(|(c, n)| c.store(*n, Relaxed));
    }

    fn stats(&self) -> [PortStats; 4] {
        PORTS.map(|p| self.gw.stats(p).unwrap())
    }
}

fn table<R: FlowRecord>(mem: TableMemory<R>, seed: u64, live: &AtomicU64) -> FlowTable<R> {
    let index = Geometry::sized(index_buckets(mem.sessions));
    let table = FlowTable::new(mem, seed, index, Grace::immediate());
    table.clear();
    live.store(index.to_word(), Relaxed);
    table
}

/// What changes in a flow record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    packets: u64,
    bytes: u64,
    last_seen: u32,
    action: u64,
    epoch: u32,
    ingress: IngressId,
}

fn written<R: FlowRecord>(t: &FlowTable<R>) -> impl Iterator<Item = (&R, Written)> {
    (0..t.used()).flat_map(RecordNo::both).map(|no| {
        let r = t.record(no);
        let w = Written {
            packets: r.packets().load(Relaxed),
            bytes: r.bytes().load(Relaxed),
            last_seen: r.last_seen().load(Relaxed),
            action: r.action().load(Relaxed),
            epoch: r.epoch().load(Relaxed),
            ingress: r.ingress(),
        };
        (r, w)
    })
}

/// The records of both families, IPv4 first.
fn records(t: &Tables) -> Vec<Written> {
    written(&t.v4).map(|r| r.1).chain(written(&t.v6).map(|r| r.1)).collect()
}

fn restore(t: &Tables, to: &[Written]) {
    fn put<R: FlowRecord>(r: &R, w: &Written) {
        r.packets().store(w.packets, Relaxed);
        r.bytes().store(w.bytes, Relaxed);
        r.last_seen().store(w.last_seen, Relaxed);
    }
    let v4 = t.v4.used() as usize * 2;
    written(&t.v4).zip(to).for_each(|((r, _), w)| put(r, w));
    written(&t.v6).zip(&to[v4..]).for_each(|((r, _), w)| put(r, w));
}

/// The only record that differs, and how; `None`: none does.
fn moved(before: &[Written], after: &[Written], at: &str) -> Option<(usize, Written)> {
    assert_eq!(before.len(), after.len(), "{at}: no session was made");
    let mut all = before.iter().zip(after).enumerate().filter(|(_, (b, a))| a != b);
    let first = all.next();
    assert_eq!(all.next(), None, "{at}: one record at most");
    first.map(|(n, (_, a))| (n, *a))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Books {
    rx: (u64, u64),
    forwarded: u64,
    tx: (u64, u64),
}

fn rust_books(rig: &Rig) -> [Books; 4] {
    PORTS.map(|p| {
        let c = rig.pipe.counters.port(p);
        Books {
            rx: (c.rx_packets.get(), c.rx_bytes.get()),
            forwarded: c.forwarded.get(),
            tx: (c.tx_packets.get(), c.tx_bytes.get()),
        }
    })
}

fn xdp_books(s: &[PortStats; 4]) -> [Books; 4] {
    s.map(|s| Books { rx: (s.rx_packets, s.rx_bytes), forwarded: s.fast, tx: (s.tx_packets, s.tx_bytes) })
}

fn since(after: [Books; 4], before: [Books; 4]) -> [Books; 4] {
    std::array::from_fn(|i| {
        let (a, b) = (after[i], before[i]);
        let less = |a: (u64, u64), b: (u64, u64)| (a.0 - b.0, a.1 - b.1);
        Books { rx: less(a.rx, b.rx), forwarded: a.forwarded - b.forwarded, tx: less(a.tx, b.tx) }
    })
}

#[derive(Debug, Default)]
pub struct Tally {
    packets: u64,
    forwarded: u64,
    translated: u64,
    /// With another identification.
    renumbered: u64,
    tagged: u64,
    /// Bytes behind the packet were cut off, without and with a translation.
    cut: u64,
    cut_translated: u64,
    v6: u64,
    /// From or to a VRF whose networks are another one's, too; and those of them from another VRF than they left for.
    vrfs: u64,
    leaked: u64,
    metered: u64,
    protocols: BTreeMap<&'static str, u64>,
    punted: BTreeMap<&'static str, u64>,
    kernel: BTreeMap<&'static str, u64>,
    dropped: BTreeMap<&'static str, u64>,
    /// What the pipeline did with what XDP punted.
    punted_to: BTreeMap<String, u64>,
}

fn count<K: Ord>(m: &mut BTreeMap<K, u64>, k: K) {
    *m.entry(k).or_default() += 1;
}

/// The frame with a whole checksum, if it had a partial one.
fn completed(frame: &[u8]) -> Vec<u8> {
    let mut f = frame.to_vec();
    if let Some(Ok(NetworkLayer::Ip(p))) = rules::look(frame).map(|look| look.seen)
        && partial::is_partial(frame, &p)
    {
        partial::complete(&mut f, &p);
    }
    f
}

struct Story<'l> {
    lab: &'l Lab,
    rig: Rig,
    stats: [PortStats; 4],
    /// What is said when something differs.
    at: String,
}

impl Story<'_> {
    fn packet(&mut self, dev: u8, frame: &[u8], tally: &mut Tally) {
        self.rig.poll();
        let start = records(&self.rig.pipe.tables);
        let meters = self.lab.meters();
        let began = meters.state();
        let numbered = self.lab.ip_ids();
        // XDP reads the time once a jiffy, and the jiffy may be there just before the time is.
        let before_tick = tick().wrapping_sub(1);
        let ifindex = self.lab.devs[usize::from(dev)];
        let run = self.lab.gw.test_run(TestFrame { bytes: frame, ifindex, queue: 0 }).unwrap();
        let ticks = before_tick..=tick();
        let frame = &untagged(frame)[..];
        let by_xdp = records(&self.rig.pipe.tables);
        restore(&self.rig.pipe.tables, &start);
        let charged = metered::change(&began, &meters.state());
        meters.restore(&began);
        // Workers draw the number that XDP drew.
        self.lab.restore_ip_ids(&numbered);
        let stats = self.lab.stats();
        let old = std::mem::replace(&mut self.stats, stats);
        let gained = since(xdp_books(&stats), xdp_books(&old));
        assert!(stats.iter().all(PortStats::balanced), "{}", self.at);
        let received: u64 = gained.iter().map(|b| b.rx.0).sum();
        assert_eq!(received, 1, "{}: counted once", self.at);

        tally.packets += 1;
        if run.action == XDP_REDIRECT && run.note.is_none() {
            let moved = moved(&start, &by_xdp, &self.at);
            tally.metered += u64::from(charged.charged());
            self.forwarded(dev, frame, &run.frame, gained, (&start, moved, ticks), tally);
            assert_eq!(metered::change(&began, &meters.state()), charged, "{}: metered alike", self.at);
            return;
        }
        // What a meter drops is on its way out: its checksum may have been completed.
        let dropped = run.action == XDP_DROP && run.frame == completed(frame);
        assert!(dropped || run.frame == frame, "{}: not forwarded, not changed", self.at);
        // A flow that is refused counts what it loses.
        let counted = moved(&start, &by_xdp, &self.at);
        let refused = |w: Written| Action::from_word(w.action).act == FlowAct::Drop;
        let lost = counted.is_none_or(|(_, w)| run.action == XDP_DROP && refused(w));
        assert!(lost, "{}: not forwarded, not counted: {counted:?}", self.at);
        let at = &self.at;
        match (run.action, run.note) {
            (XDP_REDIRECT, Some(note)) => {
                if let Err(e) = rules::punt(&self.rig, dev, frame, note.reason, note.record) {
                    panic!("{at}: {e}");
                }
                count(&mut tally.punted, note.reason.name());
                let what = match self.rig.frame(dev, frame) {
                    Outcome::Tx(..) => "sent".to_owned(),
                    Outcome::Drop(r) => r.name().to_owned(),
                    other => format!("{other:?}").to_lowercase(),
                };
                count(&mut tally.punted_to, what);
            }
            (XDP_PASS, None) => {
                let out = self.rig.frame(dev, frame);
                match rules::kernel(&self.rig.snap, dev, frame, &out) {
                    Some(why) => count(&mut tally.kernel, why),
                    None => panic!("{at}: the kernel's, says XDP; the pipeline: {out:?}"),
                }
            }
            (XDP_DROP, None) => {
                let i = PORTS.iter().position(|p| gained[p.index()].rx.0 == 1).unwrap();
                let reason = *DropReason::ALL
                    .iter()
                    .find(|r| self.stats[i].drops(**r) == old[i].drops(**r) + 1)
                    .expect("a drop has its reason");
                let drops = self.rig.drops(PORTS[i], reason);
                assert_eq!(self.rig.frame(dev, frame), Outcome::Drop(reason), "{at}");
                assert_eq!(self.rig.drops(PORTS[i], reason), drops + 1, "{at}: at the same port");
                assert_eq!(metered::change(&began, &meters.state()), charged, "{at}: metered alike");
                count(&mut tally.dropped, reason.name());
            }
            other => panic!("{at}: {other:?}"),
        }
    }

    fn forwarded(
        &mut self,
        dev: u8,
        frame: &[u8],
        sent: &[u8],
        gained: [Books; 4],
        (start, by_xdp, ticks): (&[Written], Option<(usize, Written)>, std::ops::RangeInclusive<u32>),
        tally: &mut Tally,
    ) {
        let at = &self.at;
        let look = rules::look(frame).expect("forwarded");
        let Ok(NetworkLayer::Ip(p)) = look.seen else { panic!("{at}: forwarded, but {:?}", look.seen) };
        let (no, counted) = by_xdp.unwrap_or_else(|| panic!("{at}: forwarded, not counted in a record"));
        let old = start[no];
        let want = Written {
            packets: old.packets + 1,
            bytes: old.bytes + u64::from(p.ip_len),
            last_seen: counted.last_seen,
            ..old
        };
        assert_eq!(counted, want, "{at}");
        assert!(ticks.contains(&counted.last_seen), "{at}: seen at {}, now {ticks:?}", counted.last_seen);

        let books = rust_books(&self.rig);
        let out = self.rig.frame(dev, frame);
        let Outcome::Tx(port, bytes) = out else { panic!("{at}: forwarded; the pipeline: {out:?}") };
        assert_eq!(sent, bytes, "{at}");
        let now = self.rig.now.tick().0;
        let after = records(&self.rig.pipe.tables);
        assert_eq!(moved(start, &after, at), Some((no, Written { last_seen: now, ..want })), "{at}");
        let mine = since(rust_books(&self.rig), books);
        assert_eq!(mine[port.index()].tx, (1, bytes.len() as u64), "{at}");
        assert_eq!(mine, gained, "{at}: both count alike");

        tally.forwarded += 1;
        let nat = Action::from_word(old.action).flags & (FLOW_SNAT | FLOW_DNAT) != 0;
        tally.translated += u64::from(nat);
        if look.ethertype == ETHERTYPE_IPV4 {
            let id = |frame: &[u8], l3: usize| [frame[l3 + 4], frame[l3 + 5]];
            let sent_l3 = rules::look(sent).expect("forwarded").l3;
            let renumbered = id(frame, look.l3) != id(sent, sent_l3);
            let snat = Action::from_word(old.action).flags & FLOW_SNAT != 0;
            assert!(!renumbered || snat && !p.dont_fragment, "{at}: it keeps its identification");
            tally.renumbered += u64::from(renumbered);
        }
        tally.tagged += u64::from(look.tagged);
        let cut = frame.len() > look.l3 + usize::from(p.ip_len);
        tally.cut += u64::from(cut && !nat);
        tally.cut_translated += u64::from(cut && nat);
        tally.v6 += u64::from(look.ethertype == ETHERTYPE_IPV6);
        let ingress = self.rig.snap.ingress.port(dev, look.vlan).expect("forwarded");
        let [from, to] = [ingress, port].map(|p| self.rig.snap.vrf_of(p, None));
        tally.vrfs += u64::from(!from.is_default() || !to.is_default());
        tally.leaked += u64::from(from != to);
        let proto = match p.proto {
            TCP => "tcp",
            UDP => "udp",
            ICMP => "icmp",
            ICMPV6 => "icmpv6",
            _ => "other",
        };
        count(&mut tally.protocols, proto);
    }
}

/// The clock by which XDP stamps records.
fn tick() -> u32 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time goes to a value that lives through the call.
    #[allow(unsafe_code)]
    let r = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut t) };
    assert_eq!(r, 0);
    Nanos(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64).tick().0
}

/// As much of a frame as says what it is.
fn head(frame: &[u8]) -> &[u8] {
    &frame[..frame.len().min(80)]
}

/// A gateway, its packets, and what happens to it on the way.
fn play(lab: &Lab, seed: u64, tally: &mut Tally) {
    tell(lab, seed, &mut std::iter::repeat_n(None, STORY), tally);
}

/// A story whose packets are those of an input, each after some that make flows. The input is a seed of eight bytes,
/// then repeatedly a device, a length of two bytes, a frame.
pub fn play_input(lab: &Lab, data: &[u8], tally: &mut Tally) {
    let Some((seed, mut rest)) = data.split_first_chunk::<8>() else { return };
    let mut given = Vec::new();
    while let Some((&[dev, hi, lo], tail)) = rest.split_first_chunk::<3>() {
        let (frame, tail) = tail.split_at(usize::from(u16::from_be_bytes([hi, lo])).min(tail.len()));
        rest = tail;
        // The kernel runs no program on less, and no device sends more.
        if (14..=1514).contains(&frame.len()) {
            given.extend([None, None, Some((dev % 3, frame))]);
        }
    }
    tell(lab, u64::from_le_bytes(*seed), &mut given.into_iter(), tally);
}

/// `None` stands for a packet of the story's own.
fn tell(lab: &Lab, seed: u64, packets: &mut dyn Iterator<Item = Option<(u8, &[u8])>>, tally: &mut Tally) {
    let mut d = Rng::new(seed);
    for r in &lab.gw.nexthops()[..512] {
        for w in [&r.dev, &r.dmac_vlan, &r.smac_mtu] {
            w.store(0, Relaxed);
        }
    }
    let tables = lab.tables(d.roll() | 1);
    let mut net = packets::net(&mut d).over(lab.gw.nexthops());
    net.meter_by(lab.meters().book());
    metered::qos(&mut d, &mut net);
    let rig = Rig::over(net, Arc::new(tables), 0, 1);
    lab.publish(&rig);
    let mut s = Story { lab, rig, stats: lab.stats(), at: String::new() };
    for (n, given) in packets.enumerate() {
        let pause = if d.once_in(30) { d.pause() } else { Duration::from_micros(50) };
        s.rig.now = s.rig.now + pause;
        if d.once_in(100) {
            match d.once_in(2) {
                true => s.rig.commit(|n| d.event(n)),
                false => s.rig.change(|n| d.event(n)),
            }
            lab.publish(&s.rig);
        }
        let (dev, frame) = match given {
            Some((dev, frame)) => (dev, frame.to_vec()),
            None => packets::frame(&mut d, &s.rig),
        };
        if d.once_in(4) {
            lab.meters()
                .shuffle(&mut d, s.rig.now.0.max(u64::from(tick() + 1) << sag_model::time::TICK_SHIFT));
        }
        s.at = format!("SAG_SEED={seed}, packet {n}, device {dev}: {:02x?}", head(&frame));
        s.packet(dev, &frame, tally);
    }
}

#[test]
fn xdp_does_what_the_pipeline_does() {
    let Some(lab) = Lab::new() else { return };
    let env = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seconds = env("SAG_DIFF_SECONDS").unwrap_or(5);
    let clock = || std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |t| t.as_micros() as u64);
    let first = env("SAG_SEED").unwrap_or_else(clock);
    println!("SAG_SEED={first}");
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut t = Tally::default();
    let mut seed = first;
    while Instant::now() < until || t.packets < ENOUGH {
        play(&lab, seed, &mut t);
        seed += 1;
    }
    println!("{} stories: {t:#?}", seed - first);
    assert!(t.forwarded > 1000 && t.translated > 300, "too little was forwarded");
    for proto in ["tcp", "udp", "icmp", "icmpv6", "other"] {
        assert!(t.protocols.get(proto).is_some_and(|n| *n > 50), "too little {proto}");
    }
    let by_meters = |r: DropReason| t.dropped.get(r.name()).copied().unwrap_or(0);
    assert!(t.metered > 300, "too little was metered");
    assert!(
        by_meters(DropReason::CarExceeded) > 50 && by_meters(DropReason::LinkExceeded) > 50,
        "too little was dropped by meters"
    );
    assert!(
        t.punted.get("ingress").is_some_and(|n| *n > 100),
        "too few packets of sessions came in elsewhere"
    );
    let spoofed = t.punted_to.get(DropReason::ReversePath.name());
    assert!(spoofed.is_some_and(|n| *n > 100), "too few sources were forged");
    assert!(t.v6 > 50 && t.tagged > 50, "too little IPv6, or too few tags");
    assert!(t.vrfs > 200 && t.leaked > 200, "too little of VRFs");
    assert!(t.renumbered > 100, "too few without DF: {}", t.renumbered);
    assert!(t.cut > 100 && t.cut_translated > 50, "too few with bytes behind the packet");
    assert!(t.punted.len() > 8 && t.kernel.contains_key("both") && !t.dropped.is_empty(), "too few outcomes");
}

#[test]
fn inputs_that_were_found() {
    let Some(lab) = Lab::new() else { return };
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/xdp");
    let mut t = Tally::default();
    for entry in std::fs::read_dir(dir).expect("the corpus") {
        let path = entry.expect("the corpus").path();
        println!("{}", path.display());
        play_input(&lab, &std::fs::read(path).expect("an input"), &mut t);
    }
    assert!(t.packets > 100, "{} packets", t.packets);
}
