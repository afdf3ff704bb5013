//! Messages of the gateway to which sessions follow, and packets of the sessions that it is said to have.

use sag_ha::wire::{Item, Reader, write};
use sag_ha::{Context, Engine, Meters};
use sag_model::Nanos;
use sag_model::meter::Meter;
use sag_pipeline::family::FlowFamily;
use sag_pipeline::nat::{Events, NatState};
use sag_pipeline::session::{self, Ending};
use sag_pipeline::snapshot::Snapshot;
use sag_pipeline::table::{DeferredFree, FlowTable, Grace};
use sag_pipeline::worker::Tables;
use sag_testkit::{Net, Pkt, Rig, Rng};
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Sessions of each table.
const SESSIONS: u32 = 16;
/// Bytes of a round's messages.
const LIMIT: usize = 60_000;

/// What a piece of the input is, by the lowest two bits of its first byte; the higher ones are the port of a packet.
const MESSAGE: u8 = 0;
const PACKET: u8 = 1;
const CUT: u8 = 2;

fn net() -> Net {
    let mut n = Net::translating();
    n.nat64("2001:db8:64::/96", &[], sag_pipeline::nat::Behavior::EndpointIndependent);
    n
}

/// A gateway that hears what it is told.
struct Gateway {
    rig: Rig,
    tables: Arc<Tables>,
    engine: Engine,
}

/// One for all inputs: what they do to it is not looked at.
fn meters() -> &'static [Meter] {
    static METERS: LazyLock<Vec<Meter>> =
        LazyLock::new(|| (0..4).map(|id| Meter { id: id.into(), ..Meter::default() }).collect());
    &METERS
}

fn context<'c>(tables: &'c Tables, snap: &'c Snapshot, now: Nanos) -> Context<'c> {
    Context { tables, snap, now: now.tick(), meters: Meters { all: meters(), now } }
}

impl Gateway {
    fn new() -> Gateway {
        let tables = Arc::new(Tables {
            v4: FlowTable::private(SESSIONS, Grace::immediate()),
            v6: FlowTable::private(SESSIONS, Grace::immediate()),
            nat: Arc::new(NatState::private(SESSIONS)),
            first_fragments: Default::default(),
        });
        let engine = Engine::new(&tables, true);
        Gateway { rig: Rig::over(net(), tables.clone(), 0, 1), tables, engine }
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut Engine, &Context<'_>) -> T) -> T {
        work(&mut self.engine, &context(&self.tables, &self.rig.snap, self.rig.now))
    }

    fn say(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.with(|engine, cx| engine.collect(cx, true, LIMIT, &mut out));
        out
    }

    fn end_all(&mut self) {
        fn of<R: FlowFamily>(table: &FlowTable<R>, nat: &NatState, snap: &Snapshot) {
            let (mut deferred, mut events) = (DeferredFree::default(), Events::default());
            for n in 1..table.used() {
                let ending = Ending { deferred: &mut deferred, events: &mut events, nat };
                session::end(table, n, snap, ending);
            }
        }
        of(&self.tables.v4, &self.tables.nat, &self.rig.snap);
        of(&self.tables.v6, &self.tables.nat, &self.rig.snap);
    }
}

/// Whatever a gateway with the key says: what is read is written and read again without a change, every packet is accounted
/// for, and when all sessions have ended NAT holds nothing for them.
pub(crate) fn hear(data: &[u8]) {
    let (mut g, mut rest) = (Gateway::new(), data);
    g.with(|engine, cx| engine.begin(cx));
    while let Some((&[what, hi, lo], tail)) = rest.split_first_chunk::<3>() {
        let (piece, tail) = tail.split_at(usize::from(u16::from_be_bytes([hi, lo])).min(tail.len()));
        rest = tail;
        match what & 3 {
            MESSAGE => {
                Reader::new(piece).map_while(Result::ok).for_each(|item| read_again(&item));
                let refused = g.with(|engine, cx| engine.hear(piece, cx).is_err());
                if refused {
                    g.with(|engine, cx| engine.end(cx));
                    g.with(|engine, cx| engine.begin(cx));
                }
            }
            PACKET => {
                g.rig.frame(what >> 2 & 7, piece);
            }
            CUT => {
                g.with(|engine, cx| engine.end(cx));
                g.with(|engine, cx| engine.begin(cx));
            }
            _ => {
                g.rig.now = g.rig.now + Duration::from_secs(30);
                g.rig.poll();
            }
        }
        let said = g.say();
        assert!(Reader::new(&said).all(|item| item.is_ok()), "a gateway says what is no message");
        let most = u64::from(SESSIONS);
        assert!(u64::from(g.tables.v4.live()) <= most && u64::from(g.tables.v6.live()) <= most);
    }
    g.with(|engine, cx| engine.end(cx));
    assert_eq!(sag_ha::replicas(&g.tables), 0, "sessions that nobody ages");
    g.end_all();
    let totals = &g.tables.nat.totals;
    assert_eq!((g.tables.v4.live(), g.tables.v6.live()), (0, 0));
    assert_eq!(totals.bindings.load(Ordering::Relaxed), 0, "ports that are never given back");
}

fn read_again(item: &Item<'_>) {
    let mut text = Vec::new();
    write(item, &mut text);
    let again: Vec<_> = Reader::new(&text).collect();
    assert_eq!(again, [Ok(*item)]);
}

/// What a gateway with some flows says, and a packet of one of them.
pub(crate) fn fresh(d: &mut Rng) -> Vec<u8> {
    let mut g = Gateway::new();
    g.with(|engine, cx| engine.begin(cx));
    let mut frames = Vec::new();
    for n in 0..1 + d.below(6) as u16 {
        let (near, far) = d.pick(&[
            ("192.168.1.10", "198.51.100.9"),
            ("2001:db8:1::10", "2001:db8:9::9"),
            ("2001:db8:1::10", "2001:db8:64::c633:6409"),
        ]);
        let p = if d.once_in(2) {
            Pkt::tcp(near, far, 1000 + n, 443, 2)
        } else {
            Pkt::udp(near, far, 1000 + n, 53)
        };
        let frame = p.build();
        g.rig.frame(sag_testkit::DEV_LAN, &frame);
        frames.push(frame);
    }
    let mut out = Vec::new();
    let mut add = |what: u8, piece: &[u8]| {
        out.push(what);
        out.extend((piece.len() as u16).to_be_bytes());
        out.extend(piece);
    };
    add(MESSAGE, &g.say());
    let used = frames.swap_remove(d.below(frames.len()));
    add(PACKET | sag_testkit::DEV_LAN << 2, &used);
    if d.once_in(3) {
        add(CUT, &[]);
    }
    g.end_all();
    add(MESSAGE, &g.say());
    out
}
