//! Route publication strategies of a gateway.

use ipnet::Ipv4Net;
use sag_southbound::{HealthStatus, PublishStrategy, RouteOrigin};
use serde::{Deserialize, Serialize};

use super::device::Device;
use super::net;
use crate::store::Kind;
use crate::store::objects::{Columns, Entity};

/// How one route of a gateway is published.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RouteStrategy {
    pub region_id: String,
    #[serde(rename = "SmartAGId")]
    pub smart_ag_id: String,
    /// `local` or `cloud`.
    pub source_type: String,
    pub route_source: String,
    pub dest_cidr_block: String,
    pub route_distribution: String,
    /// The health check that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hc_instance_id: Option<String>,
    pub create_time: i64,
}

impl Entity for RouteStrategy {
    const KIND: Kind = Kind::RouteStrategy;

    fn columns(&self) -> Columns<'_> {
        Columns { variant: &self.source_type, ..Columns::default() }
    }
}

impl RouteStrategy {
    /// Whether it is about a route of the gateway itself, which it publishes to the other members of the network.
    pub fn is_local(&self) -> bool {
        RouteOrigin::from(self.source_type.as_str()) == RouteOrigin::Local
    }

    /// Whether the route is published now.
    pub fn publishes(&self, devices: &[Device], now: i64) -> bool {
        let strategy = PublishStrategy::from(self.route_distribution.as_str());
        let check = self.hc_instance_id.as_deref().unwrap_or_default();
        verdict(devices, check, now).publishes(&strategy)
    }

    /// Whether a health check has taken back what is published otherwise.
    pub fn is_revoked(&self, devices: &[Device], now: i64) -> bool {
        let strategy = PublishStrategy::from(self.route_distribution.as_str());
        let revokes =
            matches!(strategy, PublishStrategy::RevokeOnHealthSuccess | PublishStrategy::RevokeOnHealthFail);
        revokes && !self.publishes(devices, now)
    }

    /// The block of its route.
    pub fn block(&self) -> Option<Ipv4Net> {
        net::cidr_list(&self.dest_cidr_block)?.into_iter().next()
    }
}

/// What the devices of a gateway have measured, a connected one before others.
fn verdict(devices: &[Device], check: &str, now: i64) -> HealthStatus {
    let says = |d: &Device| d.state.health_checks.iter().find(|h| h.id == check)?.status.clone();
    let (connected, silent): (Vec<_>, Vec<_>) = devices.iter().partition(|d| d.online(now));
    connected.into_iter().chain(silent).find_map(says).unwrap_or(HealthStatus::NotMeasured)
}
