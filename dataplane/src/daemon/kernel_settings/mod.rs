//! Settings of the kernel that a router needs on its ports: set while the gateway is loaded, put back when it is unloaded.
//!
//! A thread of its own does it. The kernel changes some of them under its network lock, for which the control thread should
//! not wait; and that thread is confined in files (Landlock) once it has started, this one is not.

mod keeper;
mod record;
mod rules;
mod sysctl;
#[cfg(test)]
mod tests;

pub use keeper::{Order, Report};
pub use rules::{Place, Target};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use keeper::Keeper;
use sag_compile::PortBinding;
use sag_model::Role;
use sag_model::config::{Dataplane, FailAction, KernelSettings};
use sag_rtnl::{Link, Tables};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use sysctl::Sysctl;

/// Settings that somebody else has changed are changed back after this time at the latest.
const ROUND: Duration = Duration::from_secs(2);

/// Notices of the kernel within this time are looked at once.
const PAUSE: Duration = Duration::from_millis(50);

enum Message {
    Keep(Order),
    Look,
    PutBack(Sender<()>),
}

/// The control thread's end.
pub struct SettingsThread {
    to: Sender<Message>,
    last: Option<Order>,
    /// A notice of the kernel is on its way.
    notice: Arc<AtomicBool>,
    report: Arc<Mutex<Report>>,
}

impl SettingsThread {
    /// The thread has the access to files that the caller has.
    pub fn start(record: PathBuf) -> io::Result<SettingsThread> {
        let (to, inbox) = unbounded();
        let report = Arc::new(Mutex::new(Report::default()));
        let notice = Arc::new(AtomicBool::new(false));
        let (shown, noticed) = (report.clone(), notice.clone());
        let work = move || run(&inbox, &record, &shown, &noticed);
        std::thread::Builder::new().name("settings".into()).spawn(work)?;
        Ok(SettingsThread { to, last: None, notice, report })
    }

    /// Has the settings of the ports' devices kept from now on.
    pub fn keep(&mut self, order: Order) {
        if self.last.as_ref() != Some(&order) {
            self.last = Some(order.clone());
            self.send(Message::Keep(order));
        }
    }

    /// The kernel says that a setting of a device has changed: looks now, not with the next round.
    pub fn look(&self) {
        if !self.notice.swap(true, Ordering::Relaxed) {
            self.send(Message::Look);
        }
    }

    /// Puts everything back, and waits for that as long as this.
    pub fn put_back(&self, time: Duration) {
        let (done, wait) = bounded(1);
        self.send(Message::PutBack(done));
        if wait.recv_timeout(time).is_err() {
            tracing::warn!("the kernel's settings could not be put back before the end");
        }
    }

    pub fn report(&self) -> Report {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn send(&self, message: Message) {
        if self.to.send(message).is_err() {
            tracing::error!("the thread that keeps the kernel's settings has ended; restart the daemon");
        }
    }
}

fn run(inbox: &Receiver<Message>, record: &Path, shown: &Mutex<Report>, notice: &AtomicBool) {
    let mut keeper = Keeper::open(Sysctl::default(), record);
    let mut order = Order::default();
    let mut known = false;
    loop {
        match inbox.recv_timeout(ROUND) {
            Ok(Message::Keep(new)) => (order, known) = (new, true),
            Ok(Message::Look) => {
                std::thread::sleep(PAUSE);
                notice.store(false, Ordering::Relaxed);
            }
            Ok(Message::PutBack(done)) => {
                keeper.put_back(&device_name);
                let _ = done.send(());
                return;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // Until the ports are known, nothing of a predecessor's is put back.
        if known {
            let report = keeper.keep(&order, &device_name);
            let before =
                std::mem::replace(&mut *shown.lock().unwrap_or_else(PoisonError::into_inner), report.clone());
            for warning in report.warnings.iter().filter(|w| !before.warnings.contains(w)) {
                tracing::warn!(event = "kernel-setting", "{warning}");
            }
            for warning in before.warnings.iter().filter(|w| !report.warnings.contains(w)) {
                tracing::info!(event = "kernel-setting", "no longer: {warning}");
            }
        }
    }
}

/// The name of a device by its number. `/sys/class/net` may be that of another network namespace.
fn device_name(ifindex: u32) -> Option<String> {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    netdevice::index_to_name(&socket, ifindex).ok()
}

/// Puts back what a daemon that does not run any more has recorded; how many settings that were.
pub fn put_back_recorded(record: &Path) -> usize {
    Keeper::open(Sysctl::default(), record).put_back(&device_name)
}

/// The devices of the ports and of the tunnels (`inside`), and what is to be done with them.
pub fn order<'t>(
    dataplane: &Dataplane,
    bindings: &[PortBinding],
    inside: impl Iterator<Item = &'t str>,
    tables: &Tables,
) -> Order {
    let mut targets: Vec<Target> = Vec::new();
    for b in bindings.iter().filter(|b| b.ours()) {
        let Some(l3) = b.l3_ifindex else { continue };
        let above = |l: &&Link| l.kind.as_deref() == Some("macvlan") && l.parent == Some(l3);
        for l in tables.link(l3).into_iter().chain(tables.links().filter(above)) {
            // What a VRF takes are packets, not frames.
            let master = l.master.and_then(|m| tables.link(m)).filter(|m| m.kind.as_deref() != Some("vrf"));
            let master = master.map(|m| m.name.clone());
            targets.push(Target {
                ifindex: l.ifindex,
                name: l.name.clone(),
                lan: b.role == Role::Lan,
                place: if l.ifindex == l3 { Place::Port } else { Place::Above },
                master,
            });
        }
        for l in below(tables, b.port.ifindex) {
            let is_port = bindings.iter().any(|b| b.ours() && b.port.ifindex == l.ifindex);
            if !is_port && !targets.iter().any(|t| t.place == Place::Below && t.ifindex == l.ifindex) {
                let (ifindex, name) = (l.ifindex, l.name.clone());
                targets.push(Target {
                    ifindex,
                    name,
                    lan: b.role == Role::Lan,
                    place: Place::Below,
                    master: None,
                });
            }
        }
    }
    // As of a port: what comes out of a tunnel is the machine's own, or the gateway forwards it, not the kernel.
    targets.extend(inside.filter_map(|name| tables.link_named(name)).map(|l| Target {
        ifindex: l.ifindex,
        name: l.name.clone(),
        lan: true,
        place: Place::Port,
        master: None,
    }));
    Order {
        targets,
        write: dataplane.kernel_settings == KernelSettings::Router,
        pass_to_kernel: dataplane.fail_action == FailAction::PassToKernel,
    }
}

/// The devices that a port's device gets its frames from: below a VLAN or macvlan device, members of a bridge, bond or team,
/// and those below these.
pub fn below(tables: &Tables, ifindex: u32) -> Vec<&Link> {
    let mut found: Vec<&Link> = Vec::new();
    let mut next = tables.link(ifindex).into_iter().collect::<Vec<_>>();
    while let Some(l) = next.pop() {
        let kind = l.kind.as_deref().unwrap_or_default();
        let parent = l.parent.filter(|_| matches!(kind, "vlan" | "macvlan")).and_then(|p| tables.link(p));
        let enslaves = matches!(kind, "bridge" | "bond" | "team");
        let members = tables.links().filter(|m| enslaves && m.master == Some(l.ifindex));
        for one in parent.into_iter().chain(members) {
            if one.ifindex != ifindex && !found.iter().any(|f| f.ifindex == one.ifindex) {
                found.push(one);
                next.push(one);
            }
        }
    }
    found
}
