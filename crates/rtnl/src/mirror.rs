//! [`Mirror`]: the sockets, the tables, and the rules that keep them equal to the kernel's.
//!
//! The listener subscribes before the first dump, so no change falls between the two. A change that
//! is in a dump already and arrives once more as a notification does no harm: notifications are
//! applied in the kernel's order, so every entry ends in its last state.

use crate::apply::{Changes, Tracker};
use crate::decode::{self, Event};
use crate::error::{Error, Result};
use crate::managed::Managed;
use crate::reading::{NexthopUsers, Readings};
use crate::request::{self, NeighborFlags};
use crate::route::Table;
use crate::socket::{Listener, Received, Requester};
use crate::tables::Tables;
use crate::types::{Neighbor, NeighborState};
use crate::wire;
use netlink_sys::protocols::NETLINK_ROUTE;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

/// Bytes of notifications that may wait between two polls (the kernel doubles it): some 150,000 route
/// changes.
const RECEIVE_BUFFER: usize = 64 << 20;
/// Datagrams that one poll takes, so that a flood of changes cannot hold the caller for long.
const DATAGRAMS_PER_POLL: usize = 512;
/// While notifications are being lost, everything but the routes is read at such intervals.
const READ_WHILE_DEAF: Duration = Duration::from_millis(200);

/// A live copy of the forwarding tables of the network namespace in which it was opened.
pub struct Mirror {
    listener: Listener,
    requester: Requester,
    tables: Tables,
    managed: Managed,
    /// Numbers of the tables that are mirrored besides those of the kernel's default rules.
    followed: BTreeSet<u32>,
    /// Links, addresses and neighbours must be read again: notifications were lost, or the last attempt failed.
    stale: bool,
    /// When they were.
    others_read: Instant,
    /// Notifications were lost, and what was read since is not reported yet.
    resynced: bool,
    readings: Readings,
    nexthop_users: NexthopUsers,
    /// Changes caused by requests, for the next poll to report.
    pending: Tracker,
    malformed: u64,
    link_notices: u64,
    setting_notices: u64,
}

impl Mirror {
    /// Subscribes to the kernel's notifications and reads all tables. Needs no privilege, except for
    /// a receive buffer beyond `net.core.rmem_max` (without it, a smaller one is used).
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be read.
    pub fn open() -> Result<Mirror> {
        Mirror::with_receive_buffer(RECEIVE_BUFFER)
    }

    /// As [`Mirror::open`], with a buffer of the given size for notifications. A small one costs
    /// re-reading when many changes come at once, never correctness.
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be read.
    pub fn with_receive_buffer(bytes: usize) -> Result<Mirror> {
        let mut mirror = Mirror {
            listener: Listener::open(bytes)?,
            requester: Requester::open(NETLINK_ROUTE)?,
            tables: Tables::default(),
            managed: Managed::default(),
            followed: BTreeSet::new(),
            stale: false,
            others_read: Instant::now(),
            resynced: false,
            readings: Readings::open()?,
            nexthop_users: NexthopUsers::default(),
            pending: Tracker::default(),
            malformed: 0,
            link_notices: 0,
            setting_notices: 0,
        };
        mirror.read_others(&mut Tracker::default())?;
        mirror.read_routes(&mut Tracker::default())?;
        Ok(mirror)
    }

    /// The tables as of the last [`Mirror::poll`].
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Mirrors the routes of these tables besides `local`, `main` and `default`. What that changes is in the tables at once, and
    /// in what the next [`Mirror::poll`] reports.
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be read; the next [`Mirror::poll`] tries again.
    pub fn follow_tables(&mut self, numbers: BTreeSet<u32>) -> Result<()> {
        if self.followed == numbers {
            return Ok(());
        }
        self.followed = numbers;
        let mut tracker = std::mem::take(&mut self.pending);
        let read = self.read_routes(&mut tracker);
        self.pending = tracker;
        if read.is_err() {
            self.readings.want();
        }
        read
    }

    /// How often all routes have been read.
    pub fn readings(&self) -> u64 {
        self.readings.count
    }

    /// Messages that could not be understood since the mirror was opened; 0 unless the kernel's
    /// interface changed.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Notifications about links since the mirror was opened, also those that change nothing in the tables: the kernel sends
    /// one when somebody attaches an XDP program.
    pub fn link_notices(&self) -> u64 {
        self.link_notices
    }

    /// Notifications about settings of devices since the mirror was opened: forwarding, `rp_filter`, `mc_forwarding` and
    /// proxy ARP. The kernel announces no others.
    pub fn setting_notices(&self) -> u64 {
        self.setting_notices
    }

    /// Takes notifications that wait, never blocking for more, and a bounded number of them: call it when [`Mirror::fd`] is
    /// readable, again while [`Changes::more`] is set, and about once a second besides (see [`Mirror::manage`]).
    ///
    /// Where the kernel does not announce what becomes of its routes, and where announcements were lost, the routes are
    /// read again, some thousand in a call; announcements are followed meanwhile. After an error the next calls read all
    /// tables again and report what changed since the last success.
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be read.
    pub fn poll(&mut self) -> Result<Changes> {
        let mut tracker = std::mem::take(&mut self.pending);
        match self.follow(&mut tracker) {
            Ok(more) => {
                let read = !self.stale && !self.readings.is_unsure();
                let resynced = self.resynced && read;
                self.resynced &= !read;
                let changes = tracker.finish();
                self.refresh_managed(Instant::now());
                Ok(Changes { resynced, more, ..changes })
            }
            Err(e) => {
                self.pending = tracker;
                self.stale = true;
                self.readings.want();
                Err(e)
            }
        }
    }

    /// Takes what waits, and reads what has to be read; returns whether there is more to do at once.
    fn follow(&mut self, tracker: &mut Tracker) -> Result<bool> {
        let mut more = self.drain(tracker)?;
        // While announcements are being lost, what is read is soon out of date.
        let deaf = self.readings.is_deaf();
        if self.stale && (!deaf || self.others_read.elapsed() > READ_WHILE_DEAF) {
            self.read_others(tracker)?;
            self.stale |= deaf;
            self.others_read = Instant::now();
        }
        if self.readings.is_due(more) {
            self.begin_reading(tracker)?;
            // What arrived meanwhile has announced itself, but there may be some of before.
            more = true;
        }
        if self.readings.is_on() {
            let followed = &self.followed;
            more |= !self.readings.step(&mut self.tables, tracker, |e| is_followed(followed, e))?;
        }
        more |= self.nexthop_users.step(&self.tables, tracker);
        Ok(more)
    }

    /// Applies what waits on the listening socket; true if there is more.
    fn drain(&mut self, tracker: &mut Tracker) -> Result<bool> {
        let mut more = true;
        tracker.unsure = self.readings.is_unsure();
        for _ in 0..DATAGRAMS_PER_POLL {
            match self.listener.receive()? {
                Received::Nothing => {
                    self.readings.hear();
                    more = false;
                    break;
                }
                // The kernel stays silent until its queue is empty, so go on emptying it.
                Received::Overrun => {
                    (self.stale, self.resynced, tracker.unsure) = (true, true, true);
                    self.readings.lost();
                }
                Received::Datagram(len) => {
                    let datagram = self.listener.buf.get(..len).unwrap_or_default();
                    for message in wire::messages(datagram) {
                        match decode::decode(message) {
                            Ok(Some(Event::Setting)) => self.setting_notices += 1,
                            Ok(Some(event)) if !is_followed(&self.followed, &event) => {}
                            Ok(Some(event)) => {
                                self.link_notices += u64::from(matches!(event, Event::Link(_)));
                                if is_route_v6(&event) {
                                    self.readings.disturb();
                                }
                                tracker.apply(&mut self.tables, event);
                            }
                            Ok(None) => {}
                            Err(decode::Malformed) => self.malformed += 1,
                        }
                    }
                }
            }
        }
        if std::mem::take(&mut tracker.reread_routes) {
            self.readings.want();
        }
        Ok(more)
    }

    /// Reads everything but the routes.
    fn read_others(&mut self, tracker: &mut Tracker) -> Result<()> {
        // Stays set if one of the dumps fails.
        self.stale = true;
        let mut whole = true;
        let (new, sound) = self.requester.dump("links", request::dump_links, load)?;
        tracker.replace_links(&mut self.tables, new);
        whole &= sound;
        let (new, sound) = self.dump_families("addresses", request::dump_addresses)?;
        tracker.replace_addresses(&mut self.tables, new);
        whole &= sound;
        let (new, sound) = self.dump_families("neighbours", request::dump_neighbors)?;
        tracker.replace_neighbors(&mut self.tables, new);
        whole &= sound;
        self.stale = !whole;
        Ok(())
    }

    /// Begins to read the routes, with the nexthop objects to which they refer.
    fn begin_reading(&mut self, tracker: &mut Tracker) -> Result<()> {
        // The kernel announces that a link goes down before it removes the link's routes: wait for it to
        // finish. The loopback device is number 1 in every namespace; if it is not, the answer "no
        // such link" comes after the same wait.
        let _answer = self.requester.request("link 1", |seq| request::get_link(1, seq), |_| {})?;
        let (new, sound) = self.requester.dump("nexthops", request::dump_nexthops, load)?;
        tracker.replace_nexthops(&mut self.tables, new);
        self.readings.begin(&mut self.tables)?;
        if !sound {
            self.readings.want();
        }
        Ok(())
    }

    /// Reads all routes at once.
    fn read_routes(&mut self, tracker: &mut Tracker) -> Result<()> {
        self.begin_reading(tracker)?;
        let followed = &self.followed;
        while !self.readings.step(&mut self.tables, tracker, |e| is_followed(followed, e))? {}
        Ok(())
    }

    /// One table, IPv4 and IPv6; the flag says whether it is consistent.
    fn dump_families(
        &mut self,
        what: &'static str,
        request: fn(bool, u32) -> Vec<u8>,
    ) -> Result<(Tables, bool)> {
        let followed = &self.followed;
        let load_followed = |tables: &mut Tables, event: Event| {
            if is_followed(followed, &event) {
                load(tables, event);
            }
        };
        let (mut both, sound4) = self.requester.dump(what, |seq| request(true, seq), load_followed)?;
        let (v6, sound6) = self.requester.dump(what, |seq| request(false, seq), load_followed)?;
        both.absorb(v6);
        Ok((both, sound4 && sound6))
    }

    /// Has the kernel resolve a neighbour (ARP or ND), as if it had a packet to send to it. Returns at
    /// once, with the entry in the tables; the outcome follows in [`Changes::neighbors`]. Entries that are
    /// resolved stay so: those gone stale are checked by the kernel a few seconds later.
    ///
    /// # Errors
    /// [`Error`]: no privilege, no such interface, the interface is down, the neighbour table is full.
    pub fn resolve(&mut self, ifindex: u32, ip: IpAddr) -> Result<()> {
        let managed = self.managed.contains(ifindex, ip);
        self.use_neighbor("resolve", ifindex, ip, managed)
    }

    /// Keeps a neighbour resolved until [`Mirror::unmanage`]. The kernel does it by itself from Linux
    /// 5.16 on; for older ones, and after link failures, [`Mirror::poll`] repeats the request.
    ///
    /// # Errors
    /// [`Error`]: no privilege, no such interface, the interface is down, the neighbour table is full.
    pub fn manage(&mut self, ifindex: u32, ip: IpAddr) -> Result<()> {
        self.use_neighbor("manage", ifindex, ip, true)?;
        self.managed.insert(ifindex, ip, Instant::now());
        Ok(())
    }

    /// Leaves a neighbour to the kernel's ordinary ageing.
    ///
    /// # Errors
    /// [`Error`]: no privilege, no such interface, the interface is down, the neighbour table is full.
    pub fn unmanage(&mut self, ifindex: u32, ip: IpAddr) -> Result<()> {
        if self.managed.remove(ifindex, ip) && self.tables.neighbor(ifindex, ip).is_some_and(|n| n.managed) {
            self.use_neighbor("stop managing", ifindex, ip, false)?;
        }
        Ok(())
    }

    /// Whether a neighbour is kept resolved.
    pub fn is_managed(&self, ifindex: u32, ip: IpAddr) -> bool {
        self.managed.contains(ifindex, ip)
    }

    /// The neighbours that are kept resolved.
    pub fn managed(&self) -> Vec<(u32, IpAddr)> {
        self.managed.all().collect()
    }

    /// Has the kernel forget a neighbour that has not answered, so that it asks no more and has room for others. One that is
    /// resolved, or that somebody else looks after, stays. Returns whether there was one to forget.
    ///
    /// # Errors
    /// [`Error`]: no privilege.
    pub fn forget(&mut self, ifindex: u32, ip: IpAddr) -> Result<bool> {
        let unanswered = |n: &Neighbor| {
            matches!(n.state, NeighborState::Incomplete | NeighborState::Failed | NeighborState::None)
                && !n.managed
                && !n.ext_learned
        };
        if self.managed.contains(ifindex, ip) || !self.tables.neighbor(ifindex, ip).is_some_and(unanswered) {
            return Ok(false);
        }
        match self.requester.request(
            "a neighbour",
            |seq| request::delete_neighbor(ifindex, ip, seq),
            |_| {},
        )? {
            Ok(()) => {}
            // The kernel has forgotten it already.
            Err(e) if matches!(e.raw_os_error(), Some(2)) => {}
            Err(source) => return Err(Error::neighbor("forget", ip, ifindex, source)),
        }
        self.pending.apply(&mut self.tables, Event::NeighborGone(ifindex, ip));
        Ok(true)
    }

    fn use_neighbor(&mut self, request: &'static str, ifindex: u32, ip: IpAddr, managed: bool) -> Result<()> {
        let known = self.tables.neighbor(ifindex, ip);
        // The request would turn an administrator's entry into an ordinary one.
        if known.is_some_and(|n| matches!(n.state, NeighborState::Permanent | NeighborState::NoArp)) {
            return Ok(());
        }
        let flags = NeighborFlags {
            managed,
            ext_learned: known.is_some_and(|n| n.ext_learned),
            router: known.is_some_and(|n| n.router),
        };
        self.requester
            .request("a neighbour", |seq| request::use_neighbor(ifindex, ip, flags, seq), |_| {})?
            .map_err(|source| Error::neighbor(request, ip, ifindex, source))?;
        self.read_neighbor(ifindex, ip)
    }

    /// The kernel does not announce that it begins to resolve an entry: unless it is read, a failed one
    /// would look failed until the end.
    fn read_neighbor(&mut self, ifindex: u32, ip: IpAddr) -> Result<()> {
        let mut entry = None;
        let message = |seq| request::get_neighbor(ifindex, ip, seq);
        let _gone_again =
            self.requester.request("a neighbour", message, |m| entry = decode::decode(m).ok().flatten())?;
        if let Some(event @ Event::Neighbor(_)) = entry {
            self.pending.apply(&mut self.tables, event);
        }
        Ok(())
    }

    /// Repeats the request for managed neighbours that the kernel has dropped or does not manage itself.
    fn refresh_managed(&mut self, now: Instant) {
        for (ifindex, ip) in self.managed.due(&self.tables, now) {
            // A refusal (link just gone) is repeated next time, or the link's removal is announced.
            let _refused = self.use_neighbor("manage", ifindex, ip, true);
        }
    }

    /// The descriptor to wait on: readable when notifications wait.
    pub fn fd(&self) -> RawFd {
        self.listener.socket.as_raw_fd()
    }
}

impl AsFd for Mirror {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.socket.as_fd()
    }
}

/// For edge-triggered polling: after an event call [`Mirror::poll`] until [`Changes::more`] is false.
impl mio::event::Source for Mirror {
    fn register(
        &mut self,
        registry: &mio::Registry,
        token: mio::Token,
        interests: mio::Interest,
    ) -> std::io::Result<()> {
        self.listener.socket.register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &mio::Registry,
        token: mio::Token,
        interests: mio::Interest,
    ) -> std::io::Result<()> {
        self.listener.socket.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &mio::Registry) -> std::io::Result<()> {
        self.listener.socket.deregister(registry)
    }
}

fn is_route_v6(event: &Event) -> bool {
    match event {
        Event::Route { route, .. } | Event::RouteGone(route) => route.dst.addr().is_ipv6(),
        _ => false,
    }
}

/// Whether an event is about one of the tables that are mirrored.
fn is_followed(followed: &BTreeSet<u32>, event: &Event) -> bool {
    match event {
        Event::Route { route, .. } | Event::RouteGone(route) => match route.table {
            Table::Other(number) => followed.contains(&number),
            Table::Local | Table::Main | Table::Default => true,
        },
        _ => true,
    }
}

/// Puts an entry of a dump into fresh tables.
fn load(tables: &mut Tables, event: Event) {
    match event {
        Event::Link(link) => tables.insert_link(link),
        Event::Address(address) => tables.insert_address(address),
        Event::Neighbor(neighbor) => tables.insert_neighbor(neighbor),
        Event::Nexthop(object) => tables.insert_nexthop(object),
        _ => {}
    }
}
