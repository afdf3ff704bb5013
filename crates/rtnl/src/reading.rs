//! Reading the routes again, in steps between which the caller does other work.
//!
//! The kernel does not announce every change of its routes (those of a link that goes down vanish silently), and
//! announcements are lost when more wait than the socket has room for. Then all routes are read. With a full Internet
//! table that takes seconds, so it is done some thousand at a time, while announcements are applied in between; see
//! [`crate::route_table`] for how the two go together. Readings follow each other at intervals, however often they are
//! asked for: after a long one comes a pause that is longer.

use crate::apply::Tracker;
use crate::decode::{self, Event};
use crate::error::{Error, Result};
use crate::request;
use crate::socket::Requester;
use crate::tables::Tables;
use ipnet::IpNet;
use netlink_packet_core::NLM_F_DUMP_INTR;
use netlink_sys::protocols::NETLINK_ROUTE;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Datagrams of a dump that one step takes: some 300 routes each.
const DATAGRAMS: usize = 4;
/// Routes that one step of another kind looks at.
const ROUTES: usize = 2048;
/// A reading that takes no longer is followed by another one at once.
const SHORT: Duration = Duration::from_millis(50);
/// After others there is a pause of so many times their length, and no longer than [`MAX_PAUSE`].
const PAUSE: u32 = 3;
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// A reading waits so long for a queue of announcements to become empty.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is done next.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// The routes of a family are dumped.
    Dump { v6: bool },
    /// Routes that the dumps did not have are removed, behind this destination.
    Sweep { after: Option<IpNet> },
}

/// A reading that is on.
struct Reading {
    stage: Stage,
    began: Instant,
    /// Whether a dump may lack routes that are there, of IPv4 and of IPv6: the kernel says so, or those of IPv6 have changed
    /// meanwhile, upon which it counts off those that it has reported already.
    disturbed: [bool; 2],
    /// Routes that were not found are still there.
    doubtful: bool,
}

/// What a step has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// There is more of the same.
    More,
    /// The next stage has begun.
    Stage,
    Done,
}

/// Readings of the routes, one after the other.
pub(crate) struct Readings {
    requester: Requester,
    /// The kernel has more to say about the last request.
    unfinished: bool,
    current: Option<Reading>,
    /// Since when one is wanted.
    wanted: Option<Instant>,
    /// None before.
    not_before: Option<Instant>,
    /// Announcements were lost, and not everything has been read since.
    unsure: bool,
    /// Announcements are being lost: the kernel makes none until those that wait have been taken.
    deaf: bool,
    /// How many have begun.
    pub count: u64,
}

impl Readings {
    pub fn open() -> Result<Readings> {
        Ok(Readings {
            requester: Requester::open(NETLINK_ROUTE)?,
            unfinished: false,
            current: None,
            wanted: None,
            not_before: None,
            unsure: false,
            deaf: false,
            count: 0,
        })
    }

    /// Has the routes read.
    pub fn want(&mut self) {
        self.wanted.get_or_insert_with(Instant::now);
    }

    /// Announcements were lost.
    pub fn lost(&mut self) {
        (self.unsure, self.deaf) = (true, true);
        self.want();
    }

    /// No announcement waits: from now on there are new ones.
    pub fn hear(&mut self) {
        self.deaf = false;
    }

    pub fn is_deaf(&self) -> bool {
        self.deaf
    }

    pub fn is_unsure(&self) -> bool {
        self.unsure
    }

    pub fn is_on(&self) -> bool {
        self.current.is_some()
    }

    /// Whether one is to begin now. `more`: announcements wait.
    pub fn is_due(&self, more: bool) -> bool {
        let now = Instant::now();
        !self.is_on()
            && !self.deaf
            && self.wanted.is_some_and(|since| !more || now.duration_since(since) > PATIENCE)
            && self.not_before.is_none_or(|at| at <= now)
    }

    /// Begins a reading; one that is on ends without result.
    pub fn begin(&mut self, tables: &mut Tables) -> Result<()> {
        self.want();
        self.current = None;
        // The kernel refuses a second dump by a socket.
        while self.unfinished {
            self.unfinished = self.requester.receive("routes", |_| {})?.is_none();
        }
        self.requester.send("routes", |seq| request::dump_routes(true, seq))?;
        self.unfinished = true;
        self.wanted = None;
        self.count += 1;
        tables.routes.begin();
        let (stage, began) = (Stage::Dump { v6: false }, Instant::now());
        self.current = Some(Reading { stage, began, disturbed: [false; 2], doubtful: false });
        Ok(())
    }

    /// The kernel has announced a change of a route of IPv6.
    pub fn disturb(&mut self) {
        if let Some(Reading { stage: Stage::Dump { v6: true }, disturbed, .. }) = &mut self.current {
            disturbed[1] = true;
        }
    }

    /// Does one step of the reading that is on. True: that was the last one.
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be read; the reading has ended, and another one is wanted.
    pub fn step(
        &mut self,
        tables: &mut Tables,
        tracker: &mut Tracker,
        followed: impl Fn(&Event) -> bool,
    ) -> Result<bool> {
        if self.current.is_none() {
            return Ok(true);
        }
        let done = loop {
            match self.advance(tables, tracker, &followed) {
                Ok(Progress::Stage) => {}
                Ok(progress) => break Ok(progress == Progress::Done),
                Err(e) => break Err(e),
            }
        };
        if !matches!(done, Ok(false)) {
            self.end(tables, done.is_err());
        }
        done
    }

    fn advance(
        &mut self,
        tables: &mut Tables,
        tracker: &mut Tracker,
        followed: impl Fn(&Event) -> bool,
    ) -> Result<Progress> {
        let Some(reading) = &mut self.current else { return Ok(Progress::Done) };
        match reading.stage {
            Stage::Dump { v6 } => {
                let interrupted = &mut reading.disturbed[usize::from(v6)];
                for _ in 0..DATAGRAMS {
                    let end = self.requester.receive("routes", |message| {
                        *interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                        match decode::decode(message) {
                            Ok(Some(event)) if !followed(&event) => {}
                            Ok(Some(Event::Route { route, .. })) => tracker.read_route(tables, route),
                            _ => {}
                        }
                    })?;
                    let Some(end) = end else { continue };
                    self.unfinished = false;
                    end.map_err(|source| Error::Dump { what: "routes", source })?;
                    reading.stage = if v6 {
                        Stage::Sweep { after: None }
                    } else {
                        self.requester.send("routes", |seq| request::dump_routes(false, seq))?;
                        self.unfinished = true;
                        Stage::Dump { v6: true }
                    };
                    return Ok(Progress::Stage);
                }
                Ok(Progress::More)
            }
            Stage::Sweep { after } => {
                let swept = tables.routes.sweep(after, ROUTES, reading.disturbed);
                tracker.prefixes.extend(swept.gone);
                reading.doubtful |= swept.doubtful;
                reading.stage = Stage::Sweep { after: swept.last };
                Ok(if swept.last.is_some() { Progress::More } else { Progress::Done })
            }
        }
    }

    fn end(&mut self, tables: &mut Tables, failed: bool) {
        tables.routes.end();
        let Some(Reading { began, disturbed, doubtful, .. }) = self.current.take() else { return };
        let took = began.elapsed();
        self.not_before = (took > SHORT).then(|| Instant::now() + took.saturating_mul(PAUSE).min(MAX_PAUSE));
        let disturbed = disturbed != [false; 2];
        if failed || doubtful || self.unsure && disturbed {
            self.want();
        }
        // What came in between, and could not be told, is read the next time.
        self.unsure &= self.wanted.is_some();
    }
}

/// Finds the routes that use nexthop objects which have changed, in steps as well.
#[derive(Default)]
pub(crate) struct NexthopUsers {
    /// Objects whose users are still to be found.
    changed: BTreeSet<u32>,
    /// Objects and groups whose users are being found, and where to go on.
    now: Option<(BTreeSet<u32>, Option<IpNet>)>,
}

impl NexthopUsers {
    /// Finds some. Returns whether there may be more.
    pub fn step(&mut self, tables: &Tables, tracker: &mut Tracker) -> bool {
        self.changed.append(&mut tracker.nexthops);
        if self.now.is_none() && !self.changed.is_empty() {
            let all = tables.with_groups(&std::mem::take(&mut self.changed));
            if all.iter().any(|id| tables.routes.uses(*id)) {
                self.now = Some((all, None));
            }
        }
        let Some((ids, after)) = &mut self.now else { return false };
        let (users, last) = tables.routes.users(ids, *after, ROUTES);
        tracker.prefixes.extend(users);
        *after = last;
        if last.is_none() {
            self.now = None;
        }
        self.now.is_some() || !self.changed.is_empty()
    }
}
