//! What both gateways know of each other's sessions, and what they say of it.

use crate::context::{Context, Totals};
use crate::names::{Names, Translation};
use crate::places::{Cx, Places};
use crate::wire::{Item, Malformed, Reader, VERSION, write};
use sag_model::flow::{FlowRecord4, FlowRecord6};
use sag_packet::Family;
use sag_pipeline::Tables;
use sag_pipeline::family::FlowFamily;
use sag_pipeline::nat::Events;
use sag_pipeline::session::replica;
use sag_pipeline::table::FlowTable;

/// Why the peer is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It says what no gateway says.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// It is of another version.
    #[error("the peer speaks version {0} of the protocol, this gateway {VERSION}: bring both to one version")]
    Version(u16),
}

/// One gateway's knowledge.
#[derive(Debug)]
pub struct Engine {
    v4: Places<FlowRecord4>,
    v6: Places<FlowRecord6>,
    /// Of equal claims this gateway decides.
    decides: bool,
    names: Names,
    peer_names: Names,
    hearing: Names,
    by: Translation,
    is_linked: bool,
    has_greeted: bool,
    names_due: bool,
    again_due: bool,
    said_complete: bool,
    peer_is_complete: bool,
    peer_has_all: bool,
    /// What was refused for its VRF when the names were last compared.
    unknown_before: u64,
    /// What has been counted.
    pub totals: Totals,
}

impl Engine {
    /// For these tables. `decides`: exactly one of two peers does.
    pub fn new(tables: &Tables, decides: bool) -> Engine {
        Engine {
            v4: Places::new(&tables.v4),
            v6: Places::new(&tables.v6),
            decides,
            names: Names::default(),
            peer_names: Names::default(),
            hearing: Names::default(),
            by: Translation::new(&Names::default(), &Names::default()),
            is_linked: false,
            has_greeted: false,
            names_due: false,
            again_due: false,
            said_complete: false,
            peer_is_complete: false,
            peer_has_all: false,
            unknown_before: 0,
            totals: Totals::default(),
        }
    }

    /// The numbers of this gateway.
    pub fn set_names(&mut self, names: Names) {
        if self.names != names {
            self.names = names;
            self.names_due = true;
            self.compare_names();
        }
    }

    fn compare_names(&mut self) {
        self.by = Translation::new(&self.peer_names, &self.names);
        if self.totals.unknown_vrf != self.unknown_before {
            self.unknown_before = self.totals.unknown_vrf;
            self.again_due = true;
        }
    }

    /// The link to the peer is there.
    pub fn begin(&mut self, cx: &Context<'_>) {
        self.v4.begin(&cx.tables.v4);
        self.v6.begin(&cx.tables.v6);
        (self.is_linked, self.has_greeted, self.names_due, self.again_due) = (true, false, true, false);
        (self.said_complete, self.peer_is_complete, self.peer_has_all) = (false, false, false);
        (self.peer_names, self.hearing) = Default::default();
        self.compare_names();
    }

    /// The link is gone: what the peer had is this gateway's.
    pub fn end(&mut self, cx: &Context<'_>) {
        if std::mem::take(&mut self.is_linked) {
            let released = self.v4.end(&cx.tables.v4, cx.now) + self.v6.end(&cx.tables.v6, cx.now);
            self.totals.released += released;
            cx.tables.v4.set_addresses_moved(None);
            cx.tables.v6.set_addresses_moved(None);
        }
        (self.peer_is_complete, self.peer_has_all) = (false, false);
    }

    /// No peer is configured any more.
    pub fn stop(&mut self, cx: &Context<'_>) {
        self.end(cx);
        cx.tables.v4.track_changes(false);
        cx.tables.v6.track_changes(false);
    }

    /// Whether this gateway has everything that the peer had when the link came.
    pub fn has_all(&self) -> bool {
        self.is_linked && self.peer_is_complete
    }

    /// Whether the peer says so of itself.
    pub fn peer_has_all(&self) -> bool {
        self.is_linked && self.peer_has_all
    }

    /// Writes what is to be said, as long as it fits into so many bytes. `alive`: even if there is nothing.
    pub fn collect(&mut self, cx: &Context<'_>, alive: bool, limit: usize, out: &mut Vec<u8>) {
        if !self.is_linked {
            return;
        }
        if !std::mem::replace(&mut self.has_greeted, true) {
            write(&Item::Hello { version: VERSION }, out);
        }
        if std::mem::take(&mut self.names_due) {
            self.names.say(out);
        }
        if std::mem::take(&mut self.again_due) {
            write(&Item::Again, out);
        }
        let mut of_call = Cx::new(cx, self.decides, &mut self.totals);
        self.v4.release(&cx.tables.v4);
        self.v6.release(&cx.tables.v6);
        self.v4.collect(&cx.tables.v4, out, limit, &mut of_call);
        self.v6.collect(&cx.tables.v6, out, limit, &mut of_call);
        if !self.said_complete && self.v4.is_complete() && self.v6.is_complete() {
            self.said_complete = true;
            write(&Item::Complete, out);
        }
        if alive {
            cx.meters.say(out, limit);
            write(&Item::Alive { complete: self.peer_is_complete }, out);
        }
    }

    /// Takes in a frame of the peer.
    ///
    /// # Errors
    ///
    /// The peer says what no gateway says: the link is to end.
    pub fn hear(&mut self, frame: &[u8], cx: &Context<'_>) -> Result<(), Refused> {
        for item in Reader::new(frame) {
            let mut of_call = Cx::new(cx, self.decides, &mut self.totals);
            match item? {
                Item::Hello { version } if version == VERSION => {}
                Item::Hello { version } => return Err(Refused::Version(version)),
                Item::Name { kind, number, name } => self.hearing.hear(kind, number, name),
                Item::Named => {
                    self.peer_names = std::mem::take(&mut self.hearing);
                    self.compare_names();
                }
                Item::Session4(p) => self.v4.hear(&cx.tables.v4, p, &self.by, &mut of_call),
                Item::Session6(p) => self.v6.hear(&cx.tables.v6, p, &self.by, &mut of_call),
                Item::Empty { family: Family::V4, place } => {
                    self.v4.hear_empty(&cx.tables.v4, place, &mut of_call);
                }
                Item::Empty { family: Family::V6, place } => {
                    self.v6.hear_empty(&cx.tables.v6, place, &mut of_call);
                }
                Item::Complete => self.peer_is_complete = true,
                Item::Level { id, peak, committed } => cx.meters.hear(id, peak, committed),
                Item::Alive { complete } => self.peer_has_all = complete,
                Item::Again => {
                    self.v4.say_again(&cx.tables.v4);
                    self.v6.say_again(&cx.tables.v6);
                }
            }
        }
        Ok(())
    }

    /// What NAT translates to has changed: gives the peer's sessions among these numbers of both tables the ports
    /// for which the address was missing. False: there are no further numbers.
    pub fn bind_late(&mut self, cx: &Context<'_>, from: u32, count: u32, events: &mut Events) -> bool {
        let more = bind_some(&cx.tables.v4, cx, from, count, events);
        bind_some(&cx.tables.v6, cx, from, count, events) || more
    }
}

fn bind_some<R: FlowFamily>(
    table: &FlowTable<R>,
    cx: &Context<'_>,
    from: u32,
    count: u32,
    events: &mut Events,
) -> bool {
    let end = from.saturating_add(count);
    for n in from.max(1)..table.used().min(end) {
        replica::bind_late(table, (&cx.tables.nat, cx.snap), n, cx.now, events);
    }
    end < table.used()
}
