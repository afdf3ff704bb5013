//! What the gateways say to each other: items, one after the other, in frames of the link. Numbers are little-endian; words
//! of keys are as the table has them.
//!
//! | item | tag | what follows |
//! |---|---|---|
//! | [`Item::Hello`] | 1 | version (2) |
//! | [`Item::Name`] | 2 | kind (1), number (1), length (1), name |
//! | [`Item::Session4`], [`Item::Session6`] | 3, 4 | place (4), version (4), session |
//! | [`Item::Empty`] | 5, 6 | place (4) |
//! | [`Item::Complete`] | 7 | |
//! | [`Item::Alive`] | 8 | whether the other's sessions are complete (1) |
//! | [`Item::Again`] | 9 | |
//! | [`Item::Named`] | 10 | |
//! | [`Item::Level`] | 11 | id (8), peak (8), committed (8) |

use sag_model::flow::{Key4, Key6, L4_KEY, vrf_zone};
use sag_model::ids::VrfZone;
use sag_packet::Family;
use sag_pipeline::session::replica::Replica;

/// Version of the messages. Gateways of different versions do not exchange sessions.
pub const VERSION: u16 = 1;

/// Bytes of the longest item.
pub const MAX_ITEM: usize = 320;

/// The highest place that a table may have: the most that `dataplane.flows` allows.
pub const MAX_PLACE: u32 = 8_388_608;

/// What a name is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A VRF.
    Vrf,
    /// A port.
    Port,
}

/// One thing that a gateway says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'b> {
    /// The first item of a connection.
    Hello {
        /// [`VERSION`] of the sender.
        version: u16,
    },
    /// The sender has this number for a VRF or a port.
    Name {
        /// Of what.
        kind: Kind,
        /// The sender's number.
        number: u8,
        /// The name in its configuration.
        name: &'b str,
    },
    /// All names have been said; those that were not, are none any more.
    Named,
    /// A place of the IPv4 table holds this session.
    Session4(Placed<Key4>),
    /// A place of the IPv6 table holds this session.
    Session6(Placed<Key6>),
    /// A place holds no session any more.
    Empty {
        /// Of which table.
        family: Family,
        /// The sender's number of the session that was there.
        place: u32,
    },
    /// Everything that the sender had at the beginning has been said.
    Complete,
    /// The sender is alive.
    Alive {
        /// It has got everything that the receiver had at the beginning.
        complete: bool,
    },
    /// The sender wants everything once more.
    Again,
    /// A meter of the sender is so far ahead of now, in units of meter time.
    Level {
        /// What the meter is for, as in [`sag_model::meter::Meter::id`].
        id: u64,
        /// Its peak rate.
        peak: u64,
        /// Its committed rate.
        committed: u64,
    },
}

/// A session at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed<K> {
    /// The sender's number of the session.
    pub place: u32,
    /// How often the session has changed hands, as far as the sender knows.
    pub version: u32,
    /// The session.
    pub session: Replica<K>,
}

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The frame ends inside an item.
    #[error("a message ends too early")]
    Short,
    /// There is no such item.
    #[error("unknown message {0}")]
    Tag(u8),
    /// A field has a value that it cannot have.
    #[error("a message has a wrong {0}")]
    Field(&'static str),
}

/// Reads a frame item by item.
#[derive(Debug, Clone)]
pub struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    /// Of a frame.
    pub fn new(frame: &'b [u8]) -> Reader<'b> {
        Reader(frame)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.bytes::<1>().map(|[b]| b)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn place(&mut self) -> Result<u32, Malformed> {
        let place = self.u32()?;
        if place == 0 || place > MAX_PLACE { Err(Malformed::Field("place")) } else { Ok(place) }
    }

    fn text(&mut self) -> Result<&'b str, Malformed> {
        let len = usize::from(self.u8()?);
        let (head, rest) = self.0.split_at_checked(len).ok_or(Malformed::Short)?;
        self.0 = rest;
        std::str::from_utf8(head).map_err(|_| Malformed::Field("name"))
    }

    fn placed<K: WireKey>(&mut self) -> Result<Placed<K>, Malformed> {
        let (place, version) = (self.place()?, self.u32()?);
        let key = K::read(self)?;
        let new = K::read_translated(self, &key)?;
        let to = VrfZone::from_byte(self.u8()?).ok_or(Malformed::Field("zone"))?;
        let flags = self.u8()?;
        let (state, answered, crosses) = (flags & 0xF, flags & ANSWERED != 0, flags & CROSSES != 0);
        if flags & !(0xF | ANSWERED | CROSSES | PROXIED) != 0 || (crosses && !K::MAY_CROSS) {
            return Err(Malformed::Field("flag"));
        }
        if state == 0 || state == DENIED || state > LAST_STATE {
            return Err(Malformed::Field("state"));
        }
        let ports = self.bytes()?;
        let idle = self.u32()?;
        let proxied = if flags & PROXIED != 0 { self.u64()? } else { 0 };
        let session = Replica { key, new, to, state, answered, crosses, proxied, ports, idle };
        Ok(Placed { place, version, session })
    }

    fn item(&mut self) -> Result<Item<'b>, Malformed> {
        Ok(match self.u8()? {
            1 => Item::Hello { version: u16::from_le_bytes(self.bytes()?) },
            2 => {
                let kind = match self.u8()? {
                    0 => Kind::Vrf,
                    1 => Kind::Port,
                    _ => return Err(Malformed::Field("kind")),
                };
                Item::Name { kind, number: self.u8()?, name: self.text()? }
            }
            3 => Item::Session4(self.placed()?),
            4 => Item::Session6(self.placed()?),
            5 => Item::Empty { family: Family::V4, place: self.place()? },
            6 => Item::Empty { family: Family::V6, place: self.place()? },
            7 => Item::Complete,
            8 => match self.u8()? {
                complete @ 0..=1 => Item::Alive { complete: complete == 1 },
                _ => return Err(Malformed::Field("flag")),
            },
            9 => Item::Again,
            10 => Item::Named,
            11 => match self.u64()? {
                0 => return Err(Malformed::Field("meter")),
                id => Item::Level { id, peak: self.u64()?, committed: self.u64()? },
            },
            tag => return Err(Malformed::Tag(tag)),
        })
    }
}

impl<'b> Iterator for Reader<'b> {
    type Item = Result<Item<'b>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let item = self.item();
        if item.is_err() {
            // What follows has no meaning.
            self.0 = &[];
        }
        Some(item)
    }
}

const ANSWERED: u8 = 1 << 4;
const CROSSES: u8 = 1 << 5;
const PROXIED: u8 = 1 << 6;
/// State of a refused flow, which is no session.
const DENIED: u8 = 9;
/// The highest number by which a record notes a state.
const LAST_STATE: u8 = 13;

/// A key on the wire.
pub trait WireKey: Copy {
    /// Whether a session with such a key may go through NAT64.
    const MAY_CROSS: bool;
    /// The tag of a session.
    const SESSION: u8;
    /// The tag of an empty place.
    const EMPTY: u8;
    /// Reads a key.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes.
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed>;
    /// Reads what becomes of a packet with a key: addresses and ports alone.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes.
    fn read_translated(r: &mut Reader<'_>, key: &Self) -> Result<Self, Malformed>;
    /// Writes a key, the VRF in it as it is.
    fn write(&self, out: &mut Vec<u8>);
    /// Writes what becomes of a packet.
    fn write_translated(&self, out: &mut Vec<u8>);
    /// The key of another VRF.
    #[must_use]
    fn in_vrf_zone(self, side: VrfZone) -> Self;
}

fn read_l4(r: &mut Reader<'_>) -> Result<u64, Malformed> {
    let b: [u8; 6] = r.bytes()?;
    let l4 = u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], 0, 0]);
    vrf_zone(l4).map(|_| l4).ok_or(Malformed::Field("zone"))
}

fn write_l4(l4: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&l4.to_le_bytes()[..6]);
}

/// The transport half of a key with other ports.
fn with_ports(l4: u64, ports: u32) -> u64 {
    l4 >> 32 << 32 | u64::from(ports)
}

/// The transport half of a key from another VRF.
fn from_side(l4: u64, side: VrfZone) -> u64 {
    l4 & L4_KEY & !(0xFF << 40) | u64::from(side.byte()) << 40
}

impl WireKey for Key4 {
    const MAY_CROSS: bool = false;
    const SESSION: u8 = 3;
    const EMPTY: u8 = 5;

    fn read(r: &mut Reader<'_>) -> Result<Key4, Malformed> {
        Ok(Key4 { addrs: r.u64()?, l4: read_l4(r)? })
    }

    fn read_translated(r: &mut Reader<'_>, key: &Key4) -> Result<Key4, Malformed> {
        Ok(Key4 { addrs: r.u64()?, l4: with_ports(key.l4, r.u32()?) })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.addrs.to_le_bytes());
        write_l4(self.l4, out);
    }

    fn write_translated(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.addrs.to_le_bytes());
        out.extend_from_slice(&(self.l4 as u32).to_le_bytes());
    }

    fn in_vrf_zone(self, side: VrfZone) -> Key4 {
        Key4 { l4: from_side(self.l4, side), ..self }
    }
}

impl WireKey for Key6 {
    const MAY_CROSS: bool = true;
    const SESSION: u8 = 4;
    const EMPTY: u8 = 6;

    fn read(r: &mut Reader<'_>) -> Result<Key6, Malformed> {
        Ok(Key6 { src: [r.u64()?, r.u64()?], dst: [r.u64()?, r.u64()?], l4: read_l4(r)? })
    }

    fn read_translated(r: &mut Reader<'_>, key: &Key6) -> Result<Key6, Malformed> {
        let (src, dst) = ([r.u64()?, r.u64()?], [r.u64()?, r.u64()?]);
        Ok(Key6 { src, dst, l4: with_ports(key.l4, r.u32()?) })
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.src.iter().chain(&self.dst).for_each(|w| out.extend_from_slice(&w.to_le_bytes()));
        write_l4(self.l4, out);
    }

    fn write_translated(&self, out: &mut Vec<u8>) {
        self.src.iter().chain(&self.dst).for_each(|w| out.extend_from_slice(&w.to_le_bytes()));
        out.extend_from_slice(&(self.l4 as u32).to_le_bytes());
    }

    fn in_vrf_zone(self, side: VrfZone) -> Key6 {
        Key6 { l4: from_side(self.l4, side), ..self }
    }
}

/// Writes a session at its place.
pub fn write_session<K: WireKey>(p: &Placed<K>, out: &mut Vec<u8>) {
    let r = &p.session;
    out.push(K::SESSION);
    out.extend_from_slice(&p.place.to_le_bytes());
    out.extend_from_slice(&p.version.to_le_bytes());
    r.key.write(out);
    r.new.write_translated(out);
    out.push(r.to.byte());
    let flag = |on: bool, flag: u8| if on { flag } else { 0 };
    let flags = flag(r.answered, ANSWERED) | flag(r.crosses, CROSSES) | flag(r.proxied != 0, PROXIED);
    out.push(r.state & 0xF | flags);
    out.extend_from_slice(&r.ports);
    out.extend_from_slice(&r.idle.to_le_bytes());
    if r.proxied != 0 {
        out.extend_from_slice(&r.proxied.to_le_bytes());
    }
}

/// Writes an item.
pub fn write(item: &Item<'_>, out: &mut Vec<u8>) {
    match item {
        Item::Hello { version } => {
            out.push(1);
            out.extend_from_slice(&version.to_le_bytes());
        }
        Item::Name { kind, number, name } => {
            // Names of the configuration are shorter.
            let name = &name.as_bytes()[..name.len().min(usize::from(u8::MAX))];
            let kind = match kind {
                Kind::Vrf => 0,
                Kind::Port => 1,
            };
            out.extend_from_slice(&[2, kind, *number, name.len() as u8]);
            out.extend_from_slice(name);
        }
        Item::Session4(p) => write_session(p, out),
        Item::Session6(p) => write_session(p, out),
        Item::Empty { family, place } => {
            out.push(if *family == Family::V4 { Key4::EMPTY } else { Key6::EMPTY });
            out.extend_from_slice(&place.to_le_bytes());
        }
        Item::Complete => out.push(7),
        Item::Alive { complete } => out.extend_from_slice(&[8, u8::from(*complete)]),
        Item::Again => out.push(9),
        Item::Named => out.push(10),
        Item::Level { id, peak, committed } => {
            out.push(11);
            [id, peak, committed].iter().for_each(|w| out.extend_from_slice(&w.to_le_bytes()));
        }
    }
}
