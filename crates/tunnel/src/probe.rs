//! The probe packet that two gateways exchange through a tunnel: UDP inside the tunnel.
//!
//! ```text
//! 0        4    5    6      8          12          16             24
//! | "SAGp" | 1  |kind| size | sequence | instance  | cookie       | zeros up to the size
//! ```

/// UDP port of both ends.
pub const PORT: u16 = 9479;
/// Bytes of the payload without padding.
pub const LEN: usize = 24;
const MAGIC: [u8; 4] = *b"SAGp";
const VERSION: u8 = 1;

/// Kind of a probe packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Liveness: the far end answers it.
    Alive = 1,
    /// Answer to [`Kind::Alive`].
    AliveReply = 2,
    /// Path MTU: a packet of this size.
    Size = 3,
    /// Answer to [`Kind::Size`].
    SizeReply = 4,
}

impl Kind {
    const fn from_u8(n: u8) -> Option<Kind> {
        match n {
            1 => Some(Kind::Alive),
            2 => Some(Kind::AliveReply),
            3 => Some(Kind::Size),
            4 => Some(Kind::SizeReply),
            _ => None,
        }
    }

    /// The kind of the answer; `None` for an answer.
    pub const fn reply(self) -> Option<Kind> {
        match self {
            Kind::Alive => Some(Kind::AliveReply),
            Kind::Size => Some(Kind::SizeReply),
            Kind::AliveReply | Kind::SizeReply => None,
        }
    }
}

/// A probe or its answer, which repeats all but the kind and the padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// What it is for.
    pub kind: Kind,
    /// Bytes of the outer packet, for [`Kind::Size`]; else 0.
    pub size: u16,
    /// Number of the probe.
    pub sequence: u32,
    /// A random number of the sender's process: distinguishes its answers from those to another process's probes.
    pub instance: u32,
    /// Any number of the sender's: the answer repeats it.
    pub cookie: u64,
}

impl Probe {
    /// Writes the payload, padded with zeros to the end of `out`. False: `out` is too short.
    pub fn write(&self, out: &mut [u8]) -> bool {
        let Some((front, padding)) = out.split_first_chunk_mut::<LEN>() else { return false };
        front[..4].copy_from_slice(&MAGIC);
        front[4] = VERSION;
        front[5] = self.kind as u8;
        front[6..8].copy_from_slice(&self.size.to_be_bytes());
        front[8..12].copy_from_slice(&self.sequence.to_be_bytes());
        front[12..16].copy_from_slice(&self.instance.to_be_bytes());
        front[16..].copy_from_slice(&self.cookie.to_be_bytes());
        padding.fill(0);
        true
    }

    /// Reads the payload of a UDP datagram. `None`: not a probe of this version.
    pub fn read(payload: &[u8]) -> Option<Probe> {
        let f = payload.first_chunk::<LEN>()?;
        let word = |at: usize| u32::from_be_bytes([f[at], f[at + 1], f[at + 2], f[at + 3]]);
        if f[..4] != MAGIC || f[4] != VERSION {
            return None;
        }
        Some(Probe {
            kind: Kind::from_u8(f[5])?,
            size: u16::from_be_bytes([f[6], f[7]]),
            sequence: word(8),
            instance: word(12),
            cookie: u64::from(word(16)) << 32 | u64::from(word(20)),
        })
    }

    /// The answer to this probe; `None` for an answer.
    pub fn reply(&self) -> Option<Probe> {
        Some(Probe { kind: self.kind.reply()?, ..*self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(kind in 1u8..5, size: u16, sequence: u32, instance: u32, cookie: u64, fill in 0usize..99) {
            let p = Probe { kind: Kind::from_u8(kind).unwrap(), size, sequence, instance, cookie };
            let mut buf = vec![0xEE; LEN + fill];
            prop_assert!(p.write(&mut buf));
            prop_assert_eq!(Probe::read(&buf), Some(p));
            prop_assert!(buf[LEN..].iter().all(|b| *b == 0));
            prop_assert_eq!(p.reply().is_some(), kind % 2 == 1);
            prop_assert!(!p.write(&mut buf[..LEN - 1]));
        }

        #[test]
        fn anything_else_is_none(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(Probe::read(&bytes), None);
        }
    }
}
