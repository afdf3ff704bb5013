//! `qos`: what is ordered against what is measured.

use crate::Dscp;
use serde::{Deserialize, Serialize};

/// Answer to `qos`. Rates are in bit/s; measured ones are those of the last second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Qos {
    pub links: Vec<QosLink>,
    pub cars: Vec<QosCar>,
    pub policies: Vec<QosPolicy>,
}

/// What meters of one direction have counted. Bytes are IP bytes and `bandwidth.overhead`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QosCounters {
    pub passed_bytes: u64,
    /// Over the ceiling.
    pub over_ceiling_bytes: u64,
    /// Within the ceiling, but a link had nothing left.
    pub over_link_bytes: u64,
    /// Of what passed.
    pub rate_bps: u64,
}

impl QosCounters {
    pub const fn dropped_bytes(&self) -> u64 {
        self.over_ceiling_bytes + self.over_link_bytes
    }
}

/// A bandwidth that is metered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QosLink {
    /// `overlay`, `internet` or `port NAME`.
    pub link: String,
    /// `up`: out of the branch, or by the port; `down`: the other way.
    pub direction: String,
    pub limit_bps: u64,
    #[serde(flatten)]
    pub counters: QosCounters,
}

/// A CAR and its meters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QosCar {
    pub qos: String,
    pub id: String,
    pub name: Option<String>,
    pub priority: u8,
    /// `Absolute`, or as in `10..60 % of CcnBandwidth`.
    pub limit: String,
    pub floor_bps: u64,
    /// `null`: a percentage of what is unlimited.
    pub ceiling_bps: Option<u64>,
    pub burst_ms: u16,
    /// What it marks packets with.
    #[serde(default)]
    pub remark_dscp: Option<Dscp>,
    pub up: QosCounters,
    pub down: QosCounters,
}

/// A policy, and whether it matches at the moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QosPolicy {
    pub qos: String,
    pub id: String,
    pub name: Option<String>,
    pub priority: u8,
    /// Id of the CAR that meters what matches.
    pub car: String,
    pub ip_protocol: String,
    pub source_cidr: String,
    pub dest_cidr: String,
    pub source_port_range: String,
    pub dest_port_range: String,
    /// `null`: any.
    #[serde(default)]
    pub dscp: Option<Dscp>,
    pub start_time: Option<String>,
    pub end_time: Option<String>,
    /// Within its time window.
    pub active: bool,
}
