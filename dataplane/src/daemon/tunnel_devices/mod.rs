//! Devices of the kernel for tunnels (docs/decisions/0016-tunnel-devices.md): TUN devices by
//! which the machine's own programs use a tunnel. A thread of its own makes and changes them, since that waits for the
//! kernel's network lock, and `/dev/net/tun` is out of reach of the threads that are confined in files; the same thread
//! sets the kernel's routes, some of which lead by these devices. Another one reads what the kernel sends by them. What
//! comes out of a tunnel is written by the worker that has it.

mod keeper;
mod reader;
mod ring;

pub use keeper::{Wanted, remove_all};
pub use ring::{RingReceiver, RingSender, ring};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use ipnet::IpNet;
use keeper::{Change, Keeper, Problems};
use mio::Waker;
use reader::Reader;
use sag_model::config::Config;
use sag_pipeline::tunnel::{TunnelNo, Tunnels};
use sag_rtnl::{ConfigRoute, ConfigRoutes};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What could not be done is tried again after this time.
const RETRY: Duration = Duration::from_millis(500);
/// What others have changed is set again after this time, if the kernel says nothing of it: of routes that were removed, and
/// names that were changed.
const REPAIR: Duration = Duration::from_secs(5);
/// Notices of the kernel within this time are looked at once.
const PAUSE: Duration = Duration::from_millis(20);

enum Message {
    Keep(Vec<Wanted>),
    Routes(BTreeSet<ConfigRoute>),
    Look,
}

/// The control thread's end of both threads.
pub struct TunnelDevices {
    to: Sender<Message>,
    changes: Receiver<Change>,
    last: Vec<Wanted>,
    last_routes: Option<BTreeSet<ConfigRoute>>,
    /// A notice of the kernel is on its way.
    notice: Arc<AtomicBool>,
    problems: Arc<Mutex<Problems>>,
    reader: Option<Reader>,
}

impl TunnelDevices {
    /// Starts the thread that makes devices. It has the access to files that the caller has, and calls the control
    /// thread by `waker`. `stored`: what the service manager has kept.
    pub fn start(waker: Arc<Waker>, stored: Vec<OwnedFd>) -> io::Result<TunnelDevices> {
        let (to, inbox) = unbounded();
        let (out, changes) = unbounded();
        let (problems, notice) = (Arc::new(Mutex::new(Problems::new())), Arc::new(AtomicBool::new(false)));
        let (shown, noticed) = (problems.clone(), notice.clone());
        let say = move |change| {
            if out.send(change).is_ok() {
                let _ = waker.wake();
            }
        };
        let stored = stored.into_iter().map(File::from).collect();
        let work = move || run(&inbox, stored, (&shown, &noticed), say);
        std::thread::Builder::new().name("tunnel-devices".into()).spawn(work)?;
        Ok(TunnelDevices { to, changes, last: Vec::new(), last_routes: None, notice, problems, reader: None })
    }

    /// Starts the thread that reads devices, and hands packets to workers by these rings.
    pub fn read_into(&mut self, rings: Vec<RingSender>) -> io::Result<()> {
        self.reader = Some(Reader::start(rings)?);
        Ok(())
    }

    /// Has the tunnels' devices kept from now on.
    pub fn keep(&mut self, config: &Config, tunnels: &Tunnels, first: bool) {
        let wanted: Vec<Wanted> = config
            .tunnels
            .iter()
            .filter_map(|t| {
                let running = tunnels.iter().find(|r| r.name == t.name && r.device)?;
                Some(Wanted {
                    no: running.no,
                    tunnel: t.name.clone(),
                    name: t.device.clone()?,
                    mtu: running.device_mtu(),
                    up: running.state.is_up(),
                    addresses: t.addresses.clone(),
                })
            })
            .collect();
        // The first time there may be something of a predecessor.
        if first || wanted != self.last {
            self.last.clone_from(&wanted);
            self.send(Message::Keep(wanted));
        }
    }

    /// Has the kernel's routes kept from now on. The first time there may be some of a predecessor.
    pub fn keep_routes(&mut self, wanted: BTreeSet<ConfigRoute>) {
        if self.last_routes.as_ref() != Some(&wanted) {
            self.send(Message::Routes(wanted.clone()));
            self.last_routes = Some(wanted);
        }
    }

    /// The kernel says that a device has changed.
    pub fn look(&self) {
        let nothing = self.last.is_empty() && self.last_routes.as_ref().is_none_or(BTreeSet::is_empty);
        if !nothing && !self.notice.swap(true, Ordering::Relaxed) {
            self.send(Message::Look);
        }
    }

    /// Takes a device that was opened (`Some`) or closed, and has the reader take note.
    pub fn next_change(&self) -> Option<(TunnelNo, Option<Arc<File>>)> {
        let change = match self.changes.try_recv().ok()? {
            Change::Opened(no, file) => (no, Some(file)),
            Change::Closed(no) => (no, None),
        };
        if let Some(reader) = &self.reader {
            match &change {
                (no, Some(file)) => reader.watch(*no, file.clone()),
                (no, None) => reader.forget(*no),
            }
        }
        Some(change)
    }

    /// The device of a tunnel.
    pub fn name(&self, no: TunnelNo) -> Option<&str> {
        self.last.iter().find(|w| w.no == no).map(|w| w.name.as_str())
    }

    /// Names of the devices.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(|w| w.name.as_str())
    }

    /// Why a device is not as it should be.
    pub fn problem(&self, name: &str) -> Option<String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Packets of the kernel's for a tunnel that found no room on the way to a worker.
    pub fn lost(&self, no: TunnelNo) -> u64 {
        self.reader.as_ref().map_or(0, |r| r.lost(no))
    }

    fn send(&self, message: Message) {
        if self.to.send(message).is_err() {
            tracing::error!("the thread that keeps the devices of tunnels has ended; restart the daemon");
        }
    }
}

fn run(
    inbox: &Receiver<Message>,
    stored: Vec<File>,
    (shown, notice): (&Mutex<Problems>, &AtomicBool),
    say: impl Fn(Change),
) {
    let mut keeper = match Keeper::open(stored) {
        Ok(keeper) => keeper,
        Err(error) => {
            tracing::error!(%error, "tunnels get no devices");
            return;
        }
    };
    let mut routes = match RouteKeeper::open() {
        Ok(routes) => routes,
        Err(error) => {
            tracing::error!(%error, "the kernel gets no routes of the configuration");
            return;
        }
    };
    let mut wanted = Vec::new();
    let mut before = Problems::new();
    loop {
        let message = if !before.is_empty() {
            inbox.recv_timeout(RETRY)
        } else if wanted.is_empty() && routes.wanted.is_empty() {
            inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            inbox.recv_timeout(REPAIR)
        };
        match message {
            Ok(Message::Keep(new)) => wanted = new,
            Ok(Message::Routes(new)) => {
                routes.keep(new);
                continue;
            }
            Ok(Message::Look) => {
                std::thread::sleep(PAUSE);
                notice.store(false, Ordering::Relaxed);
                routes.look();
            }
            Err(RecvTimeoutError::Timeout) => routes.look(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let problems = keeper.keep(&wanted, &mut |change| say(change));
        for (name, why) in problems.iter().filter(|(name, why)| before.get(*name) != Some(why)) {
            tracing::warn!(
                event = "tunnel-device",
                device = name,
                "the device is not as it should be: {why}"
            );
        }
        for name in before.keys().filter(|name| !problems.contains_key(*name)) {
            tracing::info!(event = "tunnel-device", device = name, "the device is as it should be");
        }
        shown.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&problems);
        before = problems;
    }
}

/// The kernel's routes, as they were last wanted.
struct RouteKeeper {
    routes: ConfigRoutes,
    wanted: BTreeSet<ConfigRoute>,
    /// What the kernel refused the last time; it is in the log.
    refused: BTreeMap<IpNet, String>,
}

impl RouteKeeper {
    fn open() -> sag_rtnl::Result<RouteKeeper> {
        Ok(RouteKeeper { routes: ConfigRoutes::open()?, wanted: BTreeSet::new(), refused: BTreeMap::new() })
    }

    fn keep(&mut self, wanted: BTreeSet<ConfigRoute>) {
        self.wanted = wanted;
        self.set();
    }

    /// Devices have changed, and the kernel may have dropped routes with them.
    fn look(&mut self) {
        if !self.wanted.is_empty() {
            self.set();
        }
    }

    fn set(&mut self) {
        let refused: BTreeMap<IpNet, String> = match self.routes.set(&self.wanted) {
            Ok(refused) => refused.into_iter().map(|(dst, error)| (dst, error.to_string())).collect(),
            Err(error) => {
                tracing::warn!(event = "kernel-route", %error, "the kernel's routes cannot be set");
                return;
            }
        };
        // A device that is down takes its routes along: nothing to warn of.
        for (dst, why) in refused.iter().filter(|(dst, why)| self.refused.get(*dst) != Some(why)) {
            tracing::info!(event = "kernel-route", %dst, "the kernel has no route of the configuration there: {why}");
        }
        self.refused = refused;
    }
}
