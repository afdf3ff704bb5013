//! Numbers by which the parts of the pipeline name each other's objects.
//!
//! Records in memory that XDP shares hold plain integers, with 0 for "none". They become these types, and back, in the
//! functions here and nowhere else.

use std::num::{NonZeroU8, NonZeroU16};

/// Number of a tunnel, for the daemon's life: 1 to 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelNo(NonZeroU8);

impl TunnelNo {
    /// The largest number.
    pub const MAX: u8 = u8::MAX;

    /// The number in a record; 0 is none.
    #[inline]
    pub const fn new(n: u8) -> Option<TunnelNo> {
        match NonZeroU8::new(n) {
            Some(n) => Some(TunnelNo(n)),
            None => None,
        }
    }

    /// The number as an integer.
    #[inline]
    pub const fn get(self) -> u8 {
        self.0.get()
    }

    /// The place in a table of tunnels, whose place 0 stays empty.
    #[inline]
    pub const fn index(self) -> usize {
        self.0.get() as usize
    }

    /// As a record holds it.
    #[inline]
    pub const fn to_record(no: Option<TunnelNo>) -> u8 {
        match no {
            Some(no) => no.get(),
            None => 0,
        }
    }
}

/// Number of a meter group: 1 to 16383.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeterGroupNo(NonZeroU16);

impl MeterGroupNo {
    /// The number in a record; 0 is none.
    #[inline]
    pub const fn new(n: u16) -> Option<MeterGroupNo> {
        match NonZeroU16::new(n) {
            Some(n) => Some(MeterGroupNo(n)),
            None => None,
        }
    }

    /// The number as an integer.
    #[inline]
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// The place in the table of groups, whose place 0 stays empty.
    #[inline]
    pub const fn index(self) -> usize {
        self.0.get() as usize
    }

    /// As a record holds it.
    #[inline]
    pub const fn to_record(no: Option<MeterGroupNo>) -> u16 {
        match no {
            Some(no) => no.get(),
            None => 0,
        }
    }
}

/// Index into the next-hop records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NhIdx(pub u16);

impl NhIdx {
    /// The place in the table of next hops.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Slot of an ACL rule: its number for the daemon's life, index into its counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleSlot(pub u32);

impl RuleSlot {
    /// Mark in a word of a session: it counts for the rule's limit.
    pub const COUNTED: u32 = 1 << 31;
    /// Mark in a word of a session: it counts for the rule's limit of its source.
    pub const SOURCE_COUNTED: u32 = 1 << 30;
    /// The marks.
    pub const MARKS: u32 = RuleSlot::COUNTED | RuleSlot::SOURCE_COUNTED;
    /// The word of a session that has ended; no rule has this number.
    pub const ENDED: u32 = !RuleSlot::MARKS;

    /// The slot in a word of a session, marks aside; 0 is none.
    #[inline]
    pub const fn from_word(word: u32) -> Option<RuleSlot> {
        match word & !RuleSlot::MARKS {
            0 => None,
            n => Some(RuleSlot(n - 1)),
        }
    }

    /// As a word of a session holds it: one more than the slot, 0 for none.
    #[inline]
    pub const fn to_word(slot: Option<RuleSlot>) -> u32 {
        match slot {
            Some(slot) => slot.0 + 1,
            None => 0,
        }
    }
}
