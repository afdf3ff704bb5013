//! Meters as the workers and the XDP program share them: plain atomics over one piece of memory. The
//! layout's only definition is `bpf/include/gw_abi.h`; the `bpf` crate asserts these offsets against
//! it. The arithmetic is in `sag_pipeline::qos::meter` and in `bpf/include/gw_meter.h`; a test runs
//! both on the same numbers.
//!
//! A rate is one word, the moment at which everything passed so far would have left a line of that
//! rate (virtual scheduling, ITU-T I.371 annex B). A packet passes if that moment is no further ahead
//! than the burst allows, and moves it on by its own time on that line.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// A unit of meter time is 2^-8 ns.
pub const UNIT_SHIFT: u32 = 8;
/// The time of a byte has so many bits below a unit.
pub const COST_SHIFT: u32 = 16;
/// Meters; number 0 is none.
pub const METERS: usize = 1024;
/// Meter groups: the meters that a flow passes; number 0 is none.
pub const METER_GROUPS: usize = 16_384;
/// Links that a packet passes at the most: the instance's, the egress port, the ingress port.
pub const GROUP_LINKS: usize = 3;
/// How far the committed rates of CARs may push a link ahead, in units (16 s): only committed rates that add up
/// to more than the link get there.
pub const MAX_DEBT: u64 = 16_000_000_000 << UNIT_SHIFT;

/// In [`MeterGroup::remark`]: there is a DSCP.
pub const REMARK: u8 = 0x80;

/// `struct gw_meter`: a rate, or the two rates of a CAR.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Meter {
    /// Theoretical arrival time of the peak rate (PIR), or of the link, in units.
    pub tat: AtomicU64,
    /// Theoretical arrival time of the committed rate (CIR), in units.
    pub committed_tat: AtomicU64,
    /// Time of a byte at the peak rate.
    pub cost: AtomicU64,
    /// Time of a byte at the committed rate; 0: there is none.
    pub committed_cost: AtomicU64,
    /// How far the peak time may be ahead, in units.
    pub burst: AtomicU64,
    /// How far the committed time may be ahead, in units.
    pub committed_burst: AtomicU64,
    /// What the meter is for, so that the next daemon finds it; 0: free.
    pub id: AtomicU64,
    /// Unused.
    pub pad: AtomicU64,
}

/// The meters that a flow passes, and what became of its bytes.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct MeterGroup {
    /// Meter of the CAR; 0: none.
    pub car: AtomicU16,
    /// Meters of the links, the used ones first.
    pub links: [AtomicU16; GROUP_LINKS],
    /// Bytes added to the length of every packet.
    pub overhead: AtomicU16,
    /// [`REMARK`] and the DSCP that what passes is marked with; 0: it stays as it is.
    pub remark: AtomicU8,
    /// Unused.
    pub pad: AtomicU8,
    /// How far XDP's clock may be behind, in nanoseconds.
    pub slack: AtomicU32,
    /// How far ahead a link may be for a packet that borrows, in units.
    pub borrow_limit: [AtomicU64; GROUP_LINKS],
    /// By workers. XDP counts by CPU, elsewhere.
    pub passed_bytes: AtomicU64,
    /// Over the peak rate of the CAR.
    pub car_dropped_bytes: AtomicU64,
    /// Over what a link had left.
    pub link_dropped_bytes: AtomicU64,
}

const _: () = {
    assert!(size_of::<Meter>() == 64);
    assert!(size_of::<MeterGroup>() == 64);
};
