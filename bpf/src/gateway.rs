//! The loaded gateway: its tables as the daemon writes them, and its shared memory.

use crate::abi::{MAX_DEVS, PORT_SLOTS, QUEUES_PER_DEV};
use crate::error::{LoadError, MapError};
use crate::held::Held;
use crate::inject::Injector;
use crate::lock::Lock;
use crate::mapped::{Mapped, PortSlot};
use crate::maps::{self, Maps};
use crate::pins::PinDir;
use crate::stats::PortStats;
use crate::sys;
use crate::tc_programs::Tc;
use libbpf_rs::{MapCore, MapFlags};
use sag_model::flow::{
    Bucket, ControlBlock, FlowRecord4, FlowRecord6, NextHopRecord, RevalidationQueue, SynCookieControl,
};
use sag_model::meter::{Meter, MeterGroup};
use sag_model::{MacAddr, PortIdx, VlanId, VrfZone};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// A port as the ingress side needs it (`struct gw_port`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortEntry {
    /// Number of the port, for counters and for what a worker gets.
    pub port: PortIdx,
    /// Where its packets come from.
    pub side: VrfZone,
    /// Slot of the device in the device map and the socket map.
    pub dev: u8,
    /// Frames to this address are the gateway's.
    pub mac: MacAddr,
    /// Untagged frames belong to this port. Off: only the sub-ports of the device are ours.
    pub on: bool,
    /// Some sub-port is configured on the device.
    pub vlans: bool,
    /// Frames are socket buffers, or may be: generic XDP.
    pub skb: bool,
}

impl PortEntry {
    /// The words of `struct gw_port`.
    fn words(&self, ifindex: u32) -> [u64; 2] {
        let flags = u8::from(self.on) | u8::from(self.vlans) << 1 | u8::from(self.skb) << 3;
        let [i, j, k, l] = ifindex.to_le_bytes();
        let head = u64::from_le_bytes([flags, self.side.byte(), self.port.0, self.dev, i, j, k, l]);
        let [a, b, c, d, e, f] = self.mac.0;
        [head, u64::from_le_bytes([0, 0, a, b, c, d, e, f])]
    }
}

/// What the kernel says about the loaded program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Number of the program in the kernel.
    pub id: u32,
    /// Changes with the instructions.
    pub tag: [u8; 8],
    /// Instructions the verifier walked through; 0 before Linux 5.16.
    pub verified_insns: u32,
    /// Size of the machine code; 0 without the JIT.
    pub jited_bytes: u32,
}

/// A loaded gateway. Dropping it leaves program, maps, links and traffic in place.
#[derive(Debug)]
pub struct Gateway {
    pub(crate) pins: PinDir,
    pub(crate) prog: OwnedFd,
    pub(crate) maps: Maps,
    pub(crate) mapped: Mapped,
    pub(crate) inject: Injector,
    pub(crate) held: Held,
    pub(crate) tc: Tc,
    reused: bool,
    // Last: released when everything else is closed.
    _lock: Lock,
}

impl Gateway {
    pub(crate) fn new(
        pins: PinDir,
        maps: Maps,
        mapped: Mapped,
        prog: OwnedFd,
        inject: Injector,
        lock: Lock,
        reused: bool,
    ) -> Gateway {
        let held = Held::default();
        let tc = Tc::default();
        let gateway = Gateway { pins, prog, maps, mapped, inject, held, tc, reused, _lock: lock };
        gateway.note_pins();
        gateway
    }

    /// True if the maps, and with them sessions and counters, are those of an earlier run.
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// Epoch, seed, live indexes, and what to do without a worker.
    pub fn control(&self) -> &'static ControlBlock {
        &self.mapped.shared.control
    }

    /// What SYN cookies are made by.
    pub fn syn_cookies(&self) -> &'static SynCookieControl {
        &self.mapped.shared.syn
    }

    /// What sequence numbers of IPv4 sessions are translated by, by session number.
    pub fn sequences4(&self) -> &'static [AtomicU64] {
        self.mapped.sequences4
    }

    /// The same of IPv6.
    pub fn sequences6(&self) -> &'static [AtomicU64] {
        self.mapped.sequences6
    }

    /// Next hops by number; 0 is none.
    pub fn nexthops(&self) -> &'static [NextHopRecord] {
        &self.mapped.shared.nexthops
    }

    /// Revalidations under way, by device slot × [`QUEUES_PER_DEV`](crate::QUEUES_PER_DEV) + queue.
    pub fn revalidations(&self) -> &'static [RevalidationQueue] {
        &self.mapped.shared.revalidations
    }

    /// IPv4 records by number ([`RecordNo`](sag_model::flow::RecordNo)).
    pub fn flows4(&self) -> &'static [FlowRecord4] {
        self.mapped.flows4
    }

    /// The same of IPv6.
    pub fn flows6(&self) -> &'static [FlowRecord6] {
        self.mapped.flows6
    }

    /// Regions for every size of the IPv4 index: the one of S buckets (a power of two) is `S..2 * S`.
    pub fn index4(&self) -> &'static [Bucket] {
        self.mapped.index4
    }

    /// The same of IPv6.
    pub fn index6(&self) -> &'static [Bucket] {
        self.mapped.index6
    }

    /// Which ports of the outside addresses lead inside; [`nat_port_bit`] says where a port's bit is.
    /// Workers share words, so they change bits by `fetch_or` and `fetch_and`.
    ///
    /// [`nat_port_bit`]: sag_model::flow::nat_port_bit
    pub fn nat_ports(&self) -> &'static [AtomicU64] {
        self.mapped.nat_ports
    }

    /// What translated IPv4 datagrams are numbered by, in XDP as in workers.
    pub fn ip_ids(&self) -> &'static [AtomicU64] {
        self.mapped.ip_ids
    }

    /// Meters, which workers and XDP charge alike; number 0 is none.
    pub fn meters(&self) -> &'static [Meter] {
        self.mapped.meters
    }

    /// Groups of meters, which flow records name; number 0 is none.
    pub fn meter_groups(&self) -> &'static [MeterGroup] {
        self.mapped.meter_groups
    }

    /// Bytes that XDP let pass: of the groups of the first CPU, then those of the next one.
    pub fn passed_bytes(&self) -> &'static [AtomicU64] {
        self.mapped.passed
    }

    /// Says what a device is to the gateway.
    ///
    /// # Errors
    /// [`MapError::Range`] if the device slot is out of range; [`MapError::SlotTaken`] if another device has the place in
    /// the table of ports.
    pub fn set_port(&self, ifindex: u32, entry: &PortEntry) -> Result<(), MapError> {
        check_dev(entry.dev)?;
        let slot = self.port_slot(ifindex);
        let [head, mac] = entry.words(ifindex);
        let held = (slot.head.load(Relaxed) >> 32) as u32;
        if held != 0 && held != ifindex {
            return Err(MapError::SlotTaken { ifindex, held });
        }
        // Readers must never see the new head with an old address of another device.
        slot.mac.store(mac, Relaxed);
        slot.head.store(head, Release);
        Ok(())
    }

    /// The device is not ours any more: its frames go to the kernel, uncounted.
    pub fn clear_port(&self, ifindex: u32) {
        let slot = self.port_slot(ifindex);
        if (slot.head.load(Relaxed) >> 32) as u32 == ifindex {
            slot.head.store(0, Release);
        }
    }

    /// Interface numbers of the devices that are ports, of this run or an earlier one.
    pub fn ports(&self) -> Vec<u32> {
        let heads = self.mapped.shared.ports.iter().map(|s| s.head.load(Relaxed));
        heads.filter(|h| *h != 0).map(|h| (h >> 32) as u32).collect()
    }

    /// The number of a port and its device's slot, of this run or an earlier one.
    pub fn port_of(&self, ifindex: u32, vlan: Option<VlanId>) -> Option<(PortIdx, u8)> {
        let [flags, _, port, dev, ..] = match vlan {
            None => {
                let head = self.port_slot(ifindex).head.load(Relaxed);
                ((head >> 32) as u32 == ifindex).then(|| head.to_le_bytes())?
            }
            Some(vlan) => {
                let value = self.maps.vlans.lookup(&vlan_key(ifindex, vlan), MapFlags::ANY).ok()??;
                *value.first_chunk::<8>()?
            }
        };
        (flags & 1 != 0).then_some((PortIdx(port), dev))
    }

    /// The slot that a device has, of this run or an earlier one.
    pub fn dev_of(&self, ifindex: u32) -> Option<u8> {
        let head = self.port_slot(ifindex).head.load(Relaxed);
        ((head >> 32) as u32 == ifindex && head != 0).then(|| head.to_le_bytes()[3])
    }

    /// The VLAN sub-ports: interface number of the device, VLAN.
    pub fn vlans(&self) -> Vec<(u32, VlanId)> {
        let known = |key: Vec<u8>| {
            let [a, b, c, d, v, w, _, _] = *key.first_chunk::<8>()?;
            Some((u32::from_ne_bytes([a, b, c, d]), VlanId::new(u16::from_ne_bytes([v, w]))?))
        };
        self.maps.vlans.keys().filter_map(known).collect()
    }

    fn port_slot(&self, ifindex: u32) -> &'static PortSlot {
        &self.mapped.shared.ports[ifindex as usize % PORT_SLOTS]
    }

    /// Adds or changes a VLAN sub-port; the device's own entry must say `vlans`.
    ///
    /// # Errors
    /// [`MapError::Range`] if the device slot is out of range; [`MapError::Map`] if the kernel refuses the entry.
    pub fn set_vlan(&self, ifindex: u32, vlan: VlanId, entry: &PortEntry) -> Result<(), MapError> {
        check_dev(entry.dev)?;
        let what = format_args!("VLAN {} of device {ifindex}", vlan.get());
        let value = entry.words(ifindex).map(u64::to_ne_bytes).concat();
        maps::put(&self.maps.vlans, "gw_vlans", what, &vlan_key(ifindex, vlan), &value)
    }

    /// The VLAN is no sub-port any more: its frames go to the kernel.
    ///
    /// # Errors
    /// [`MapError::Map`] if the kernel refuses.
    pub fn clear_vlan(&self, ifindex: u32, vlan: VlanId) -> Result<(), MapError> {
        let what = format_args!("VLAN {} of device {ifindex}", vlan.get());
        maps::take(&self.maps.vlans, "gw_vlans", what, &vlan_key(ifindex, vlan))
    }

    /// Makes the Ethernet addresses at which ports are reached beside their own exactly these: number of the device, VLAN (0:
    /// untagged), address. True if one of them was not there.
    ///
    /// # Errors
    /// [`MapError::Map`] if the kernel refuses an entry: the map is full.
    pub fn replace_macs(&self, macs: &[(u32, u16, MacAddr)]) -> Result<bool, MapError> {
        let key = |&(ifindex, vlan, mac): &(u32, u16, MacAddr)| {
            let [a, b, c, d, e, f] = mac.0;
            let [v, w] = vlan.to_le_bytes();
            let mut key = [v, w, a, b, c, d, e, f, 0, 0, 0, 0, 0, 0, 0, 0];
            key[8..12].copy_from_slice(&ifindex.to_ne_bytes());
            (key.to_vec(), 1)
        };
        maps::replace(&self.maps.macs, "gw_other_macs", &macs.iter().map(key).collect::<Vec<_>>())
    }

    /// Packets of this queue that need a worker go to this AF_XDP socket from now on.
    ///
    /// # Errors
    /// [`MapError::Range`] if the device slot or the queue is out of range; [`MapError::Map`] if the kernel refuses the entry.
    pub fn set_xsk(&self, dev: u8, queue: u32, socket: BorrowedFd<'_>) -> Result<(), MapError> {
        let slot = xsk_slot(dev, queue)?;
        let what = format_args!("the socket of device slot {dev}, queue {queue}");
        let fd = (socket.as_raw_fd() as u32).to_ne_bytes();
        maps::put(&self.maps.xsks, "gw_xsks", what, &slot.to_ne_bytes(), &fd)
    }

    /// The queue has no socket any more: its packets are dropped or passed, as `fail_action` says.
    ///
    /// # Errors
    /// [`MapError::Range`] if the device slot or the queue is out of range; [`MapError::Map`] if the kernel refuses the entry.
    pub fn clear_xsk(&self, dev: u8, queue: u32) -> Result<(), MapError> {
        let slot = xsk_slot(dev, queue)?;
        let what = format_args!("the socket of device slot {dev}, queue {queue}");
        maps::take(&self.maps.xsks, "gw_xsks", what, &slot.to_ne_bytes())
    }

    /// Lets next hops with this device slot send out of a device.
    ///
    /// # Errors
    /// [`MapError::Range`] if the device slot is out of range; [`MapError::Map`] if the kernel refuses the entry.
    pub fn set_dev(&self, dev: u8, ifindex: u32) -> Result<(), MapError> {
        check_dev(dev)?;
        let what = format_args!("device slot {dev} to device {ifindex}");
        let slot = u32::from(dev).to_ne_bytes();
        maps::put(&self.maps.devs, "gw_devs", what, &slot, &ifindex.to_ne_bytes())
    }

    /// Whether next hops with this device slot go out of this device.
    pub fn sends_by(&self, dev: u8, ifindex: u32) -> bool {
        let value = self.maps.devs.lookup(&u32::from(dev).to_ne_bytes(), MapFlags::ANY);
        matches!(value, Ok(Some(v)) if v == ifindex.to_ne_bytes())
    }

    /// Next hops with this device slot send nowhere any more: their packets go to a worker.
    ///
    /// # Errors
    /// [`MapError::Range`] if the device slot is out of range; [`MapError::Map`] if the kernel refuses the entry.
    pub fn clear_dev(&self, dev: u8) -> Result<(), MapError> {
        check_dev(dev)?;
        let slot = u32::from(dev).to_ne_bytes();
        maps::take(&self.maps.devs, "gw_devs", format_args!("device slot {dev}"), &slot)
    }

    /// What gives frames to the kernel's stack; it outlives the gateway. It is there on kernels that
    /// take none too, and says so.
    pub fn injector(&self) -> Injector {
        self.inject.clone()
    }

    /// Counters of a port, summed over the CPUs.
    ///
    /// # Errors
    /// [`MapError::Map`] if the kernel does not let them be read.
    pub fn stats(&self, port: PortIdx) -> Result<PortStats, MapError> {
        PortStats::read(&self.maps, port)
    }

    /// What the kernel says about the program.
    ///
    /// # Errors
    /// [`LoadError::Io`] if the kernel does not say.
    pub fn program_info(&self) -> Result<ProgramInfo, LoadError> {
        let info = sys::prog_info(self.prog.as_fd()).map_err(|source| LoadError::Io {
            what: "cannot inspect the program of",
            path: self.pins.path().to_owned(),
            source,
        })?;
        Ok(ProgramInfo {
            id: info.id,
            tag: info.tag,
            verified_insns: info.verified_insns,
            jited_bytes: info.jited_prog_len,
        })
    }
}

fn vlan_key(ifindex: u32, vlan: VlanId) -> [u8; 8] {
    let [a, b, c, d] = ifindex.to_ne_bytes();
    let [v, w] = vlan.get().to_ne_bytes();
    [a, b, c, d, v, w, 0, 0]
}

fn check_dev(dev: u8) -> Result<(), MapError> {
    if u32::from(dev) < MAX_DEVS {
        return Ok(());
    }
    Err(MapError::Range {
        map: "gw_devs",
        what: format!("device slot {dev}"),
        limit: MAX_DEVS.into(),
        remedy: "",
    })
}

fn xsk_slot(dev: u8, queue: u32) -> Result<u32, MapError> {
    check_dev(dev)?;
    if queue >= QUEUES_PER_DEV {
        return Err(MapError::Range {
            map: "gw_xsks",
            what: format!("queue {queue}"),
            limit: QUEUES_PER_DEV.into(),
            remedy: ": give the device fewer queues (`ethtool -L DEV combined 64`)",
        });
    }
    Ok(u32::from(dev) * QUEUES_PER_DEV + queue)
}
