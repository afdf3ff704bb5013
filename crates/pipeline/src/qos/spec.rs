//! What the configuration wants metered, as a compiler gives it to [`MeterNumbers::plan`](super::MeterNumbers::plan).

use super::meter::Rate;
use crate::policy::Verdict;
use sag_acl::Rule;
use sag_model::{Dscp, VrfNo, Zone};
use std::collections::BTreeMap;

/// A committed access rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Car {
    /// The name in the configuration.
    pub id: String,
    /// 1..=7, the lowest goes first.
    pub priority: u8,
    /// Rate within which a packet may use up what a link has left, whatever its class; `None`: there is no such rate.
    pub committed: Option<Rate>,
    /// Peak rate; `None`: no limit.
    pub peak: Option<Rate>,
    /// What may pass at once, as milliseconds of the rate.
    pub burst_ms: u64,
    /// What it marks packets with.
    pub remark: Option<Dscp>,
}

/// A port as meters see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeteredPort {
    /// The name in the configuration.
    pub name: String,
    /// Where it leads; `None`: traffic through it is not metered.
    pub zone: Option<Zone>,
    /// Rate of its link.
    pub rate: Option<Rate>,
}

/// All that is to be metered.
#[derive(Debug, Clone, Default)]
pub struct QosSpec {
    /// Of the overlay, in each direction.
    pub overlay: Option<Rate>,
    /// Of what leaves for the Internet.
    pub internet_up: Option<Rate>,
    /// Ports by [`sag_model::PortIdx`], and behind them their tunnels.
    pub ports: Vec<MeteredPort>,
    /// Committed access rates, by the index that rules name.
    pub cars: Vec<Car>,
    /// Policies that match at the moment, in the order in which they are tried; slot: index of the CAR.
    pub v4: Vec<(Rule<u32>, Verdict)>,
    /// The same of IPv6.
    pub v6: Vec<(Rule<u128>, Verdict)>,
    /// Those of `v4` and `v6`, by position, that match packets of one DSCP only.
    pub dscp4: BTreeMap<usize, Dscp>,
    /// The same of `v6`.
    pub dscp6: BTreeMap<usize, Dscp>,
    /// Those of `v4`, by position, that match packets from one VRF only.
    pub vrf4: BTreeMap<usize, VrfNo>,
    /// The same of `v6`.
    pub vrf6: BTreeMap<usize, VrfNo>,
    /// What may pass a link at once, as milliseconds of its rate.
    pub link_burst_ms: u64,
    /// Added to the length of every packet.
    pub overhead: u32,
    /// How far XDP's clock may be behind, in nanoseconds.
    pub slack: u32,
    /// The largest packet of any port: every rate lets four of them pass at once.
    pub largest: u64,
}

/// Out of the branch, or into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Out of the branch.
    Up,
    /// Into the branch.
    Down,
}

impl Direction {
    /// Its word in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::Up => "up",
            Direction::Down => "down",
        }
    }
}
