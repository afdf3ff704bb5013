//! Runs frames through a pipeline and checks the packet accounting after every step.

use crate::*;
use sag_model::flow::RecordNo;
use sag_model::{DropReason, Nanos};
use sag_packet::rewrite::FrameMut;
use sag_pipeline::nat::NatState;
use sag_pipeline::originate::LINK_ROOM;
use sag_pipeline::snapshot::Snapshot;
use sag_pipeline::table::{FlowTable, Grace};
use sag_pipeline::tunnel::TunnelNo;
use sag_pipeline::worker::{BATCH, DEVICE_BUFFER, Emit, Frames, Pipeline, Tables, Verdict};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Room in front of a received frame, as AF_XDP gives it.
const HEADROOM: usize = 256;
/// And behind it.
const TAILROOM: usize = 64;

/// Frames in buffers with headroom, and the records that XDP is said to have found for them.
#[derive(Debug, Clone, Default)]
pub struct Buffers(pub Vec<(Vec<u8>, usize)>, pub Vec<Option<RecordNo>>);

impl Buffers {
    /// Of these frames, without records.
    pub fn new<F: AsRef<[u8]>>(frames: impl IntoIterator<Item = F>) -> Buffers {
        let one = |f: F| {
            let mut b = vec![0xEE; HEADROOM];
            b.extend_from_slice(f.as_ref());
            let len = b.len() - HEADROOM;
            b.resize(b.len() + TAILROOM, 0xEE);
            (b, len)
        };
        Buffers(frames.into_iter().map(one).collect(), Vec::new())
    }
}

impl Frames for Buffers {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn frame(&mut self, i: usize) -> FrameMut<'_> {
        let (b, len) = &mut self.0[i];
        FrameMut::new(b, HEADROOM, *len)
    }

    fn hint(&self, i: usize) -> Option<RecordNo> {
        self.1.get(i).copied().flatten()
    }
}

/// What the pipeline made: collected, or refused if `refuse` is set.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// What was made: port and frame.
    pub frames: Vec<(PortIdx, Vec<u8>)>,
    /// Packets that devices of tunnels got, with the tunnel's number.
    pub to_devices: Vec<(TunnelNo, Vec<u8>)>,
    /// Takes nothing.
    pub refuse: bool,
}

impl Emit for Sent {
    fn emit(&mut self, port: PortIdx, frame: &[u8]) -> bool {
        if !self.refuse {
            self.frames.push((port, frame.to_vec()));
        }
        !self.refuse
    }

    fn to_tunnel_device(&mut self, tunnel: TunnelNo, packet: &[u8]) -> bool {
        if !self.refuse {
            self.to_devices.push((tunnel, packet.to_vec()));
        }
        !self.refuse
    }
}

/// What became of one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Sent by a port.
    Tx(PortIdx, Vec<u8>),
    /// Dropped.
    Drop(DropReason),
    /// Left to the kernel.
    Kernel,
    /// Waits in the pipeline.
    Held,
    /// Became frames that the pipeline made.
    Emitted,
}

impl Outcome {
    /// The frame that was sent.
    pub fn frame(&self) -> &[u8] {
        match self {
            Outcome::Tx(_, f) => f,
            other => panic!("not sent but {other:?}"),
        }
    }

    /// Whether it was sent.
    pub fn is_tx(&self) -> bool {
        matches!(self, Outcome::Tx(..))
    }
}

/// One worker, a gateway and a clock.
#[derive(Debug)]
pub struct Rig {
    /// The gateway.
    pub net: Net,
    /// The gateway as it was last compiled.
    pub snap: Snapshot,
    /// The worker.
    pub pipe: Pipeline,
    /// The clock.
    pub now: Nanos,
    /// What the pipeline made.
    pub sent: Sent,
    verdicts: Vec<Verdict>,
}

impl Rig {
    /// With room for 1000 sessions in each family.
    pub fn new(net: Net) -> Rig {
        Rig::sized(net, 1000)
    }

    /// With room for so many sessions in each family.
    pub fn sized(net: Net, sessions: u32) -> Rig {
        let tables = Tables {
            v4: FlowTable::private(sessions, Grace::immediate()),
            v6: FlowTable::private(sessions, Grace::immediate()),
            nat: Arc::new(NatState::private(sessions)),
            first_fragments: Default::default(),
        };
        Rig::over(net, Arc::new(tables), 0, 1)
    }

    /// Worker `worker` of `workers` over shared tables.
    pub fn over(mut net: Net, tables: Arc<Tables>, worker: u32, workers: u32) -> Rig {
        net.allocate_in(tables.nat.clone());
        Rig {
            snap: net.snapshot(),
            net,
            pipe: Pipeline::new(tables, worker, workers),
            now: Nanos::from_secs(1000),
            sent: Sent::default(),
            verdicts: Vec::new(),
        }
    }

    /// Over [`Net::branch`].
    pub fn branch() -> Rig {
        Rig::new(Net::branch())
    }

    /// Changes the gateway and bumps the epoch, as a configuration commit does.
    pub fn commit(&mut self, change: impl FnOnce(&mut Net)) {
        change(&mut self.net);
        self.net.epoch += 1;
        self.snap = self.net.snapshot();
    }

    /// Changes the gateway within the epoch (neighbours, link state).
    pub fn change(&mut self, change: impl FnOnce(&mut Net)) {
        change(&mut self.net);
        self.snap = self.net.snapshot();
    }

    /// Lets time pass, then does the housekeeping until it has come round.
    pub fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        for _ in 0..40 {
            self.now = self.now + Duration::from_millis(1);
            self.poll();
        }
    }

    /// Housekeeping.
    pub fn poll(&mut self) {
        self.pipe.poll(&self.snap, self.now, &mut self.sent);
        self.check_accounting();
    }

    /// Sends one packet into its port.
    pub fn send(&mut self, pkt: &Pkt) -> Outcome {
        let dev = match pkt.dmac {
            m if m == GATEWAY_MACS[WAN.index()] => DEV_WAN,
            m if m == GATEWAY_MACS[LINE.index()] => DEV_LINE,
            _ => DEV_LAN,
        };
        self.frame(dev, &pkt.build())
    }

    /// One frame that arrived on a device.
    pub fn frame(&mut self, dev: u8, frame: &[u8]) -> Outcome {
        self.batch(dev, &[frame]).remove(0)
    }

    /// Frames that arrived together on a device.
    pub fn batch<F: AsRef<[u8]>>(&mut self, dev: u8, frames: &[F]) -> Vec<Outcome> {
        self.hinted(dev, frames, Vec::new())
    }

    /// The same with the records that XDP is said to have found.
    pub fn hinted<F: AsRef<[u8]>>(
        &mut self,
        dev: u8,
        frames: &[F],
        hints: Vec<Option<RecordNo>>,
    ) -> Vec<Outcome> {
        assert!(frames.len() <= BATCH);
        let mut buffers = Buffers::new(frames);
        buffers.1 = hints;
        self.pipe.batch(&self.snap, self.now, dev, &mut buffers, &mut self.verdicts, &mut self.sent);
        assert_eq!(self.verdicts.len(), frames.len(), "a verdict for every frame");
        self.check_accounting();
        let out = self.verdicts.iter().zip(&buffers.0).map(|(v, (buf, _))| match *v {
            Verdict::Tx { port, start, len } => Outcome::Tx(port, buf[start..start + len].to_vec()),
            Verdict::Drop(reason) => Outcome::Drop(reason),
            Verdict::Kernel => Outcome::Kernel,
            Verdict::Held => Outcome::Held,
            Verdict::Emitted => Outcome::Emitted,
        });
        out.collect()
    }

    /// Takes what the pipeline has made since the last call.
    pub fn emitted(&mut self) -> Vec<(PortIdx, Vec<u8>)> {
        std::mem::take(&mut self.sent.frames)
    }

    /// A packet that the kernel sends by the device of a tunnel. False: it was dropped.
    pub fn from_device(&mut self, tunnel: TunnelNo, packet: &[u8]) -> bool {
        let mut buf = vec![0xEE; DEVICE_BUFFER];
        buf[LINK_ROOM..LINK_ROOM + packet.len()].copy_from_slice(packet);
        let sent = self.pipe.send_from_device(
            &self.snap,
            self.now,
            tunnel,
            (&mut buf, packet.len()),
            &mut self.sent,
        );
        self.check_accounting();
        sent
    }

    /// Takes the packets that devices of tunnels got.
    pub fn to_devices(&mut self) -> Vec<(TunnelNo, Vec<u8>)> {
        std::mem::take(&mut self.sent.to_devices)
    }

    /// Takes the next hops that the pipeline wants resolved.
    pub fn requests(&mut self) -> Vec<(PortIdx, IpAddr)> {
        self.pipe.take_requests().collect()
    }

    /// Sessions alive, IPv4 and IPv6.
    pub fn sessions(&self) -> (u32, u32) {
        (self.pipe.tables.v4.live(), self.pipe.tables.v6.live())
    }

    /// Packets that a port dropped for a reason.
    pub fn drops(&self, port: PortIdx, reason: DropReason) -> u64 {
        self.pipe.counters.port(port).drops[reason.index()].get()
    }

    /// In equals out plus drops plus kernel plus waiting, per port; all that left was forwarded or
    /// made here; sessions made are alive or ended.
    pub fn check_accounting(&self) {
        let c = &self.pipe.counters;
        let (mut tx, mut forwarded) = (0, 0);
        for i in 0..PortIdx::MAX as u8 {
            let p = c.port(PortIdx(i));
            assert!(p.balanced(), "accounting of port {i}: {p:?}");
            tx += p.tx_packets.get();
            forwarded += p.forwarded.get() + p.originated.get();
        }
        assert_eq!(tx, forwarded, "all that left was forwarded or made here");
        assert!(c.sessions_ended.get() <= c.sessions_created.get() || self.shared());
        if !self.shared() {
            let (v4, v6) = self.sessions();
            assert_eq!(c.sessions_created.get() - c.sessions_ended.get(), u64::from(v4 + v6));
        }
    }

    fn shared(&self) -> bool {
        Arc::strong_count(&self.pipe.tables) > 1
    }
}
