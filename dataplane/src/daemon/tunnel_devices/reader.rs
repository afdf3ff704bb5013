//! The thread that takes what the kernel sends by devices of tunnels, and hands it to workers.

use super::ring::{DevicePacket, RingSender};
use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use sag_pipeline::tunnel::TunnelNo;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Packets of a device in a row.
const BATCH: usize = 64;
const WAKE: Token = Token(0);

/// What the control thread has the reader do.
enum Message {
    Watch(TunnelNo, Arc<File>),
    Forget(TunnelNo),
}

/// The control thread's end.
pub struct Reader {
    to: Sender<Message>,
    waker: Waker,
    /// Packets that found their ring full, by tunnel.
    lost: Arc<[AtomicU64]>,
}

impl Reader {
    /// Starts the thread, which hands packets to these workers.
    pub fn start(rings: Vec<RingSender>) -> io::Result<Reader> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let (to, inbox) = unbounded();
        let lost: Arc<[AtomicU64]> = (0..=TunnelNo::MAX).map(|_| AtomicU64::new(0)).collect();
        let work = Work { rings, lost: lost.clone(), devices: Vec::new(), inbox };
        std::thread::Builder::new().name("tunnel-reader".into()).spawn(move || work.run(poll))?;
        Ok(Reader { to, waker, lost })
    }

    /// Takes packets from a tunnel's device from now on.
    pub fn watch(&self, no: TunnelNo, device: Arc<File>) {
        self.send(Message::Watch(no, device));
    }

    /// The device is none of the tunnel's any more.
    pub fn forget(&self, no: TunnelNo) {
        self.send(Message::Forget(no));
    }

    /// Packets of a tunnel that found their ring full.
    pub fn lost(&self, no: TunnelNo) -> u64 {
        self.lost[no.index()].load(Ordering::Relaxed)
    }

    fn send(&self, message: Message) {
        if self.to.send(message).is_err() || self.waker.wake().is_err() {
            tracing::error!("the thread that reads the devices of tunnels has ended; restart the daemon");
        }
    }
}

struct Watched {
    no: TunnelNo,
    file: Arc<File>,
    /// There may be more to read.
    ready: bool,
}

struct Work {
    rings: Vec<RingSender>,
    lost: Arc<[AtomicU64]>,
    devices: Vec<Watched>,
    inbox: Receiver<Message>,
}

impl Work {
    /// Until the control thread is gone.
    fn run(mut self, mut poll: Poll) {
        let mut events = Events::with_capacity(64);
        let Some(first) = TunnelNo::new(1) else { return };
        let mut packet = DevicePacket::new(first);
        loop {
            let timeout = self.devices.iter().any(|d| d.ready).then_some(std::time::Duration::ZERO);
            if let Err(error) = poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "cannot wait for the devices of tunnels; nothing more is read from them");
                return;
            }
            for event in &events {
                if event.token() == WAKE {
                    if !self.read_inbox(&poll) {
                        return;
                    }
                } else if let Some(d) =
                    self.devices.iter_mut().find(|d| usize::from(d.no.get()) == event.token().0)
                {
                    d.ready = true;
                }
            }
            for d in self.devices.iter_mut().filter(|d| d.ready) {
                d.ready = read_device(d, &mut packet, &mut self.rings, &self.lost[d.no.index()]);
            }
            self.rings.iter_mut().for_each(RingSender::wake);
        }
    }

    /// False: the control thread is gone.
    fn read_inbox(&mut self, poll: &Poll) -> bool {
        use crossbeam_channel::TryRecvError;
        loop {
            let (no, new) = match self.inbox.try_recv() {
                Ok(Message::Watch(no, file)) => (no, Some(file)),
                Ok(Message::Forget(no)) => (no, None),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            };
            if let Some(i) = self.devices.iter().position(|d| d.no == no) {
                let old = self.devices.swap_remove(i);
                // A device that was deleted has gone from the set by itself.
                let _ = poll.registry().deregister(&mut SourceFd(&old.file.as_raw_fd()));
            }
            if let Some(file) = new {
                let fd = file.as_raw_fd();
                let token = Token(usize::from(no.get()));
                match poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE) {
                    Ok(()) => self.devices.push(Watched { no, file, ready: true }),
                    Err(error) => tracing::error!(%error, "cannot wait for the device of a tunnel"),
                }
            }
        }
    }
}

/// Some packets of a device. False: there are no more.
fn read_device(d: &Watched, packet: &mut DevicePacket, rings: &mut [RingSender], lost: &AtomicU64) -> bool {
    for _ in 0..BATCH {
        // Of a device that was deleted as well; another one is opened in its place.
        if packet.read(&*d.file).is_err() {
            return false;
        }
        packet.tunnel = d.no;
        let at = packet.flow_hash() % rings.len().max(1) as u64;
        if !rings.get_mut(at as usize).is_some_and(|r| r.push(packet)) {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
    true
}
