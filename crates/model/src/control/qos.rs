//! `qos`: what is ordered against what is measured.

use crate::Dscp;
use serde::{Deserialize, Serialize};

/// Answer to `qos`. Rates are in bit/s; measured ones are those of the last second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Qos {
    /// Bandwidths that are metered.
    pub links: Vec<QosLink>,
    /// CARs with their meters.
    pub cars: Vec<QosCar>,
    /// Policies of the configuration.
    pub policies: Vec<QosPolicy>,
}

/// What meters of one direction have counted. Bytes are IP bytes and `bandwidth.overhead`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QosCounters {
    /// Bytes that passed.
    pub passed_bytes: u64,
    /// Over the peak rate (PIR).
    pub over_ceiling_bytes: u64,
    /// Within the peak rate, but a link had nothing left.
    pub over_link_bytes: u64,
    /// Of what passed.
    pub rate_bps: u64,
}

impl QosCounters {
    /// Bytes that were dropped for either reason.
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
    /// Rate of the link, in bit/s.
    pub limit_bps: u64,
    /// What its meter has counted.
    #[serde(flatten)]
    pub counters: QosCounters,
}

/// A CAR and its meters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QosCar {
    /// Identifier of the QoS.
    pub qos: String,
    /// Identifier, as in the configuration.
    pub id: String,
    /// For people.
    pub name: Option<String>,
    /// As in the configuration.
    pub priority: u8,
    /// `Absolute`, or as in `10..60 % of CcnBandwidth`.
    pub limit: String,
    /// Committed rate (CIR), in bit/s; 0: nothing is guaranteed.
    pub floor_bps: u64,
    /// `null`: a percentage of what is unlimited.
    pub ceiling_bps: Option<u64>,
    /// Burst, in milliseconds of the rates.
    pub burst_ms: u16,
    /// What it marks packets with.
    #[serde(default)]
    pub remark_dscp: Option<Dscp>,
    /// From the branch.
    pub up: QosCounters,
    /// To the branch.
    pub down: QosCounters,
}

/// A policy, and whether it matches at the moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QosPolicy {
    /// Identifier of the QoS.
    pub qos: String,
    /// Identifier, as in the configuration.
    pub id: String,
    /// For people.
    pub name: Option<String>,
    /// As in the configuration.
    pub priority: u8,
    /// Id of the CAR that meters what matches.
    pub car: String,
    /// As in the configuration.
    pub ip_protocol: String,
    /// As in the configuration.
    pub source_cidr: String,
    /// As in the configuration.
    pub dest_cidr: String,
    /// As in the configuration.
    pub source_port_range: String,
    /// As in the configuration.
    pub dest_port_range: String,
    /// `null`: any.
    #[serde(default)]
    pub dscp: Option<Dscp>,
    /// As in the configuration; `null`: any.
    #[serde(default)]
    pub vrf: Option<String>,
    /// RFC 3339; `null`: always.
    pub start_time: Option<String>,
    /// RFC 3339; `null`: never.
    pub end_time: Option<String>,
    /// Within its time window.
    pub active: bool,
}
