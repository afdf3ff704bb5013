//! What reports read: all parts of the daemon, none of them to change.

use super::devices::Devices;
use super::flow_tables::FlowTables;
use super::kernel::KernelView;
use super::kernel_settings::SettingsThread;
use super::port_counters::{PortCounters, port_counters};
use super::port_mapping::PortMapping;
use super::publisher::Publisher;
use super::running_config::RunningConfig;
use super::session_sync::SessionSync;
use super::telemetry::Telemetry;
use super::tunnel_devices::TunnelDevices;
use super::workers::Workers;
use crate::esp::EspKeys;
use sag_compile::{Compiler, PortBinding};
use sag_model::PortIdx;

/// The daemon as reports see it.
#[derive(Clone, Copy)]
pub struct View<'d> {
    pub running: &'d RunningConfig,
    pub kernel: &'d KernelView,
    pub compiler: &'d Compiler,
    pub keys: &'d EspKeys,
    pub publisher: &'d Publisher,
    pub flows: &'d FlowTables,
    pub workers: &'d Workers,
    pub devices: &'d Devices,
    pub telemetry: &'d Telemetry,
    pub settings: &'d SettingsThread,
    pub port_mapping: &'d PortMapping,
    pub tunnel_devices: &'d TunnelDevices,
    pub session_sync: &'d SessionSync,
}

impl<'d> View<'d> {
    /// The ports by which the gateway forwards.
    pub fn own_ports(&self) -> impl Iterator<Item = &'d PortBinding> {
        self.publisher.bindings.iter().filter(|b| b.ours())
    }

    pub fn port_name(&self, idx: u8) -> &'d str {
        self.running.config.port(PortIdx(idx)).map_or("?", |p| p.name.as_str())
    }

    pub fn counters(&self, idx: PortIdx) -> PortCounters {
        port_counters(idx, self.publisher, self.workers, self.telemetry)
    }
}
