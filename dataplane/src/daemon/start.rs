//! From a configuration to a running daemon.

use super::confine;
use super::core::{Daemon, read_clocks};
use super::devices::{Devices, is_pair_end};
use super::environment;
use super::flow_tables::FlowTables;
use super::kernel::KernelView;
use super::kernel_settings::SettingsThread;
use super::port_mapping::PortMapping;
use super::publisher::{Context as PublishContext, Publisher};
use super::route_changes::RouteChanges;
use super::running_config::RunningConfig;
use super::session_sync::SessionSync;
use super::telemetry::{Telemetry, Writers};
use super::timers::Timers;
use super::tunnel_devices::TunnelDevices;
use super::vrf_numbers;
use super::workers::{Resources, Workers};
use crate::esp::EspKeys;
use anyhow::{Context as _, Result};
use mio::Waker;
use sag_bpf::{Gateway, LoadError, OpenOptions};
use sag_compile::{Compiler, DeviceSlots, NextHopTable, SharedRecords};
use sag_model::config::{Checked, Config, Dataplane};
use sag_model::flow::next_epoch;
use sag_pipeline::qos::MeterTable;
use sag_pipeline::session;
use sag_rtnl::Tables;
use sag_xsk::sys;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Opens the shared memory, takes over what an earlier daemon has left, publishes the first plan, and starts the workers.
pub fn start(path: &Path, checked: Checked, text: String, waker: Arc<Waker>) -> Result<Daemon> {
    let mut running = RunningConfig::new(path, checked, text);
    for w in &running.warnings {
        tracing::warn!("{w}");
    }
    let stored = sag_sandbox::stored_descriptors();
    let mut kernel = KernelView::open()?;
    let gateway = open_gateway(&running.config.dataplane)?;
    // Before there are other threads.
    confine::process(&running.config);
    let slots = adopt_numbers(&mut running.config, &gateway, kernel.tables());
    let vrfs = vrf_numbers::load(&running.config.dataplane.state_dir);
    let flows = FlowTables::open(&gateway, &running.config.dataplane, &vrfs.values().copied().collect());
    let mut keys = EspKeys::default();
    let words = environment::esp_words_file(&running.config.dataplane)?;
    keys.load_numbers(&running.config.dataplane.state_dir, Some(&words));
    let writers = Writers::start(flows.tables.v4.capacity())?;
    let settings = SettingsThread::start(environment::settings_file(&running.config.dataplane)?)
        .context("cannot start the thread of the kernel's settings")?;
    let mut tunnel_devices = TunnelDevices::start(waker.clone(), stored)
        .context("cannot start the thread of the tunnels' devices")?;
    // The threads that write files are there: a log may be moved by a reload, or its file system mounted anew.
    confine::files(&running.config, path);

    let records = open_records(&gateway, &flows);
    let mut compiler = Compiler::new(&records, keys.associations.clone());
    compiler.devices = slots;
    compiler.vrfs.restore(vrfs);
    compiler.syn_cookies = Some(gateway.syn_cookies());
    compiler.numbers.nexthops.reuse_after(flows.grace());
    // XDP's clock is that of the jiffies, and it is read once in each.
    compiler.qos.slack = u32::try_from(sys::coarse_resolution()).unwrap_or(u32::MAX / 2).saturating_mul(2);
    kernel.follow_tables(&running.config);
    let epoch = next_epoch(gateway.control().epoch.load(Ordering::Relaxed));
    let plan = compiler.compile(&running.config, kernel.tables(), epoch, read_clocks());

    let telemetry = Telemetry::start(&gateway, writers);
    telemetry.journal.write_to(running.config.nat.log_file.clone());
    telemetry.journal.rules.name_ports(&running.config);
    telemetry.journal.vrfs.set(&compiler.vrfs);
    if let Some(why) = gateway.injector().why_not() {
        tracing::warn!(
            "{why}; fragments and ICMP errors for the gateway's own NAT addresses do not reach it"
        );
    }
    let mut workers = Workers::new(waker);
    let mut cx = PublishContext { keys: &mut keys, workers: &workers, dataplane: &running.config.dataplane };
    let publisher = Publisher::start(gateway, records, plan, &flows.tables, &mut cx);
    session::count_rules(&flows.tables.v4, &publisher.snapshot);
    session::count_rules(&flows.tables.v6, &publisher.snapshot);
    kernel.reserve_own_ports(&publisher.snapshot, &flows.tables.nat);
    workers.start(&Resources {
        config: &running.config,
        tables: &flows.tables,
        snapshot: &publisher.snapshot,
        gateway: &publisher.gateway,
        journal: &telemetry.journal.journal,
    })?;
    tunnel_devices
        .read_into(workers.take_rings())
        .context("cannot start the thread that reads the tunnels' devices")?;
    let session_sync = SessionSync::start(
        (flows.tables.clone(), publisher.gateway.meters()),
        publisher.snapshot.clone(),
        flows.writer(),
        telemetry.journal.journal.clone(),
    )
    .context("cannot start the thread of session synchronisation")?;
    running.save_last_good(&telemetry.saver);
    vrf_numbers::save(&compiler.vrfs, &telemetry.saver, &running.config.dataplane.state_dir);
    let (devices, timers, port_mapping) = (Devices::default(), Timers::default(), PortMapping::new());
    devices.count_lost(&publisher.gateway);
    let mut daemon = Daemon {
        running,
        kernel,
        compiler,
        keys,
        publisher,
        route_changes: RouteChanges::default(),
        flows,
        workers,
        devices,
        telemetry,
        timers,
        settings,
        port_mapping,
        tunnel_devices,
        session_sync,
    };
    daemon.configure_session_sync();
    Ok(daemon)
}

fn open_gateway(d: &Dataplane) -> Result<Gateway> {
    let sessions = d.flow_capacity(environment::memory());
    let options = OpenOptions {
        pin_dir: d.pin_dir.clone(),
        lock_file: environment::lock_file(d)?,
        sessions4: sessions.v4,
        sessions6: sessions.v6,
    };
    match environment::retry_while_locked(|| Gateway::open(&options)) {
        // Of no use to anybody, and a daemon that does not start is worse than one without the old sessions.
        Err(error @ LoadError::Incomplete { .. }) => {
            tracing::warn!("{error}: what is left of them is removed, sessions begin anew");
            environment::retry_while_locked(|| sag_bpf::unload(&d.pin_dir, &options.lock_file))?;
            Ok(environment::retry_while_locked(|| Gateway::open(&options))?)
        }
        done => Ok(done?),
    }
}

/// The records that XDP reads. Next hops of the predecessor stay as they are.
fn open_records(gateway: &Gateway, flows: &FlowTables) -> SharedRecords {
    let predecessor = gateway.control().nexthops_from.load(Ordering::Relaxed);
    SharedRecords {
        nexthops: NextHopTable::open(gateway.nexthops(), predecessor),
        nat: flows.tables.nat.clone(),
        meters: MeterTable::over(gateway.meters(), gateway.meter_groups(), gateway.passed_bytes()),
    }
}

/// Gives ports the numbers, and devices the slots, under which the flows of an earlier daemon know them: XDP goes
/// on by its records and counts for its ports until this one has taken over.
fn adopt_numbers(config: &mut Config, gateway: &Gateway, tables: &Tables) -> DeviceSlots {
    let ifindex = |device: &str| tables.link_named(device).map(|l| l.ifindex);
    config.keep_numbers(|p| gateway.port_of(ifindex(&p.device)?, p.vlan).map(|(port, _)| port));
    let mut slots = DeviceSlots::default();
    for i in gateway.ports() {
        // The end of a pair has the slot of its port.
        if let (Some(link), Some(slot)) =
            (tables.link(i).filter(|l| !is_pair_end(&l.name)), gateway.dev_of(i))
        {
            slots.reserve(&link.name, slot);
        }
    }
    slots
}
