//! The daemon: one control thread (this one) and the workers.
//!
//! The control thread owns configuration, kernel mirror, XDP maps and the control socket. Workers get immutable
//! snapshots and report sockets and unresolved next hops; nothing else is shared but the flow table, the next-hop
//! records and counters.
//!
//! | part | duty |
//! |---|---|
//! | [`RunningConfig`](running_config::RunningConfig) | the document in force, where it came from, what it warns of |
//! | [`KernelView`](kernel::KernelView) | links, addresses, routes and neighbors of the kernel; the ports that its sockets hold |
//! | [`Resolver`](neighbors::Resolver) | which neighbors the kernel is asked to resolve, and how many at a time |
//! | [`Compiler`](sag_compile::Compiler), [`EspKeys`](crate::esp::EspKeys) | what forwards by them: plans, and the keys of tunnels |
//! | [`Publisher`](publisher::Publisher) | what workers and XDP see, and the order in which it changes |
//! | [`FlowTables`](flow_tables::FlowTables) | the session tables: grace periods, sizes of indexes |
//! | [`Workers`](workers::Workers) | the threads that forward |
//! | [`Devices`](devices::Devices) | XDP programs and AF_XDP sockets on devices |
//! | [`Telemetry`](telemetry::Telemetry) | where counters began, rates, floods, the NAT log, the metrics |
//! | [`PortMapping`](port_mapping::PortMapping) | ports outside that hosts ask for (PCP, NAT-PMP) |
//! | [`SessionSync`](session_sync::SessionSync) | the peer to which sessions follow |
//! | [`SynCookieKeeper`](syn_cookies::SynCookieKeeper) | secrets of SYN cookies, and which services answer with them |
//! | [`SettingsThread`](kernel_settings::SettingsThread) | the kernel's settings of the ports |
//! | [`TunnelDevices`](tunnel_devices::TunnelDevices) | devices of the kernel for tunnels, and what passes them |
//! | [`Timers`](timers::Timers) | when housekeeping is due |
//!
//! [`Daemon`](core::Daemon) wires them and dispatches events; what reports read is a [`View`](view::View).

mod confine;
mod control;
mod core;
mod devices;
pub mod environment;
mod event_loop;
mod file_health;
mod floods;
mod flow_tables;
mod grace_periods;
mod journal;
mod kernel;
mod kernel_duties;
mod kernel_routes;
mod kernel_settings;
mod keys;
mod metered_rates;
mod neighbors;
mod own_ports;
mod port_counters;
mod port_mapping;
mod publisher;
mod record_file;
mod repairs;
mod report;
mod route_changes;
mod rule_log;
mod running_config;
mod saver;
mod session_sync;
mod source_routes;
mod stale_flows;
mod start;
mod syn_cookies;
mod telemetry;
mod timers;
mod tunnel_devices;
mod view;
mod vrf_numbers;
mod worker;
mod workers;

pub use environment::unload;
pub use event_loop::run;
