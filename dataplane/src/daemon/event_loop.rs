//! `sag-vcpe run`: what the control thread waits for.

use super::core::Daemon;
use super::{environment, start};
use crate::config_file;
use crate::server::{Counts, Handler, MetricsServer, Roles, Server};
use anyhow::{Context, Result, anyhow};
use mio::net::UnixStream as MioStream;
use mio::{Events, Interest, Poll, Token, Waker};
use sag_sandbox::Supervisor;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

const NETLINK: Token = Token(0);
const WAKE: Token = Token(1);
const TERM: Token = Token(2);
const HUP: Token = Token(3);
const PORT_REQUESTS: Token = Token(4);
const SERVER: Token = Token(16);

/// Descriptors that the daemon wants to be allowed.
const DESCRIPTORS: usize = 16 * 1024;

/// Runs until SIGTERM or SIGINT.
pub fn run(path: &Path, detach_on_exit: bool) -> Result<()> {
    let (checked, text) = config_file::load(path)?;
    environment::start_logging(&checked.config.dataplane.log)?;
    sag_sandbox::protect_memory();
    environment::preflight(&checked.config)?;
    // Sockets of workers, maps and links, clients: more than the usual 1,024 with many ports and queues.
    sag_http::raise_descriptor_limit(DESCRIPTORS);
    let mut poll = Poll::new().context("cannot make a poll descriptor")?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE).context("cannot make a waker")?);
    let mut term = signal_stream(&poll, TERM, &[signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT])?;
    let mut hup = signal_stream(&poll, HUP, &[signal_hook::consts::SIGHUP])?;
    let mut daemon = start::start(path, checked, text, waker)?;
    let socket = &daemon.running.config.dataplane.control;
    let d = &daemon.running.config.dataplane;
    let roles = Roles::new(&d.control_admin_group, &d.control_read_group);
    let mut server =
        Server::bind(socket, roles).with_context(|| format!("control socket {}", socket.display()))?;
    poll.registry().register(daemon.kernel.event_source(), NETLINK, Interest::READABLE)?;
    daemon.port_mapping.wake_by(poll.registry().try_clone()?, PORT_REQUESTS);
    let _metrics = serve_metrics(&daemon, server.counts())?;
    daemon.keep_tunnel_devices(true);
    daemon.keep_kernel_routes();
    daemon.reconcile_devices();

    let mut events = Events::with_capacity(128);
    let mut ticked = Instant::now();
    let mut answering = false;
    let mut supervisor = Supervisor::new();
    loop {
        supervisor.alive();
        let interval = daemon.tick_interval();
        let timeout = if daemon.has_more_changes() { Duration::ZERO } else { interval };
        if let Err(e) = poll.poll(&mut events, Some(timeout))
            && e.kind() != std::io::ErrorKind::Interrupted
        {
            return Err(e).context("poll failed");
        }
        let mut announced = false;
        for event in &events {
            match event.token() {
                NETLINK => announced = true,
                WAKE => {
                    daemon.handle_wakeup();
                    if let Some(why) = daemon.devices.take_fatal() {
                        daemon.stop(true)?;
                        return Err(anyhow!(why));
                    }
                }
                TERM if drain(&mut term) => return daemon.stop(detach_on_exit),
                HUP if drain(&mut hup) => match daemon.reload() {
                    Ok(applied) => tracing::info!(epoch = applied.epoch, "configuration read again"),
                    Err(error) => tracing::error!("{error}; the running configuration stays"),
                },
                PORT_REQUESTS => daemon.answer_port_requests(),
                token if server.owns(token) => server.handle(poll.registry(), token, &mut daemon),
                _ => {}
            }
        }
        // One share of them, and then whoever has a question.
        if announced || daemon.has_more_changes() {
            daemon.apply_kernel_changes();
        }
        // Requests are answered once the gateway forwards, so that a start script can wait for the answer.
        if !answering && daemon.publisher.is_live() {
            server.register(poll.registry(), SERVER)?;
            answering = true;
            supervisor.ready();
        }
        if ticked.elapsed() >= interval {
            ticked = Instant::now();
            daemon.tick();
            server.tick(poll.registry());
        }
    }
}

fn serve_metrics(daemon: &Daemon, control: Arc<Counts>) -> Result<Option<MetricsServer>> {
    let address = daemon.running.config.dataplane.metrics.map(|a| a.to_string()).unwrap_or_default();
    // A scrape before the first tick does not find counters that are not there.
    daemon.telemetry.publish_metrics(daemon.view().metrics());
    let metrics = daemon.telemetry.metrics();
    MetricsServer::start(&address, move || {
        let mut snapshot = metrics.lock().unwrap_or_else(PoisonError::into_inner).clone();
        snapshot.control = control.read();
        snapshot
    })
    .map_err(Into::into)
}

fn signal_stream(poll: &Poll, token: Token, signals: &[i32]) -> Result<MioStream> {
    let (read, write) = UnixStream::pair().context("cannot make a signal pipe")?;
    read.set_nonblocking(true)?;
    for &s in signals {
        signal_hook::low_level::pipe::register(s, write.try_clone()?).context("cannot catch a signal")?;
    }
    let mut read = MioStream::from_std(read);
    poll.registry().register(&mut read, token, Interest::READABLE)?;
    Ok(read)
}

/// Reads everything that waits; true if there was something.
fn drain(s: &mut MioStream) -> bool {
    let mut buf = [0u8; 64];
    let mut any = false;
    while matches!(s.read(&mut buf), Ok(n) if n > 0) {
        any = true;
    }
    any
}
