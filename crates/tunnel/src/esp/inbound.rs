//! Inbound processing (RFC 4303 3.4).

use super::suite::AadBytes;
use super::window::{Arrival, ReplayWindow, infer_sequence};
use super::{Cipher, FEC_NEXT_HEADER, HEADER, HEADROOM, ICV, Inner, NO_NEXT_HEADER, Suite};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A sequence number inferred further ahead than this is more likely one behind the replay window.
const FAR_AHEAD: u64 = 1 << 31;

/// Why a packet is dropped. The order is that of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Too short for an ESP packet, or not a multiple of four bytes.
    #[error("ESP packet too short, or not a multiple of four bytes")]
    Truncated,
    /// Received before, or behind the replay window (RFC 4303 3.4.3).
    #[error("sequence number was received before or has left the window")]
    Replay,
    /// The integrity check failed (RFC 4303 3.4.4).
    #[error("integrity check value is wrong")]
    BadIcv,
    /// The padding is not the one that RFC 4303 2.4 prescribes.
    #[error("padding is longer than the packet or not 1, 2, 3, …")]
    BadPadding,
    /// The payload is of no kind that is known, or shorter than its header says.
    #[error("payload is neither IPv4 nor IPv6 nor FEC, or is shorter than its header says")]
    BadNextHeader,
    /// A dummy packet (RFC 4303 2.6): not an error of the sender's.
    #[error("dummy packet")]
    Dummy,
}

/// Counts the inbound SAs of the process.
static MADE: AtomicU64 = AtomicU64::new(0);

/// An inbound security association (SA).
#[derive(Debug)]
pub struct Inbound {
    spi: u32,
    /// Larger than that of every SA that was made before it.
    order: u64,
    suite: Suite,
    extended: bool,
    window: ReplayWindow,
    used: AtomicBool,
}

/// An opened packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Where the inner packet is, counted from the SPI.
    pub at: Range<usize>,
    /// What the packet carries.
    pub inner: Inner,
    /// The sequence number, 64 bits with extended sequence numbers.
    pub sequence: u64,
    /// No packet with a higher sequence number was received before, by whichever worker.
    pub newest: bool,
}

impl Inbound {
    /// An SA that receives under `spi`, with extended sequence numbers (RFC 4303 2.2.1) if `extended`.
    /// `window`: size of the replay window in packets; `top`: the highest sequence number that counts as
    /// received, 0 for a new SA.
    pub fn new(spi: u32, suite: Suite, extended: bool, window: u32, top: u64) -> Inbound {
        let order = MADE.fetch_add(1, Ordering::Relaxed) + 1;
        let window = ReplayWindow::new(window, top);
        Inbound { spi, order, suite, extended, window, used: AtomicBool::new(false) }
    }

    /// The same, which also writes the highest number received to `mirror`, where the next process finds it if this one
    /// is killed.
    #[must_use]
    pub fn mirrored(mut self, mirror: &'static AtomicU64) -> Inbound {
        self.window.mirror(mirror);
        self
    }

    /// Larger than that of every SA that was made before it in this process.
    pub const fn order(&self) -> u64 {
        self.order
    }

    /// The security parameters index.
    pub const fn spi(&self) -> u32 {
        self.spi
    }

    /// The cipher.
    pub const fn cipher(&self) -> Cipher {
        self.suite.cipher()
    }

    /// Whether sequence numbers are extended (RFC 4303 2.2.1).
    pub const fn extended(&self) -> bool {
        self.extended
    }

    /// The replay window.
    pub fn window(&self) -> &ReplayWindow {
        &self.window
    }

    /// Whether a packet has been received under the SA.
    pub fn used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Authenticates and decrypts a packet in place; `esp` is all of it, from the SPI to the ICV. After an
    /// error its bytes are unspecified, except after [`OpenError::Truncated`] and a replay that was
    /// recognized before decryption.
    ///
    /// # Errors
    /// [`OpenError`] says why the packet must be dropped.
    #[inline]
    pub fn open(&self, esp: &mut [u8]) -> Result<Opened, OpenError> {
        let sealed = esp.len().checked_sub(HEADROOM + ICV).filter(|n| *n >= 4 && n % 4 == 0);
        let (Some(sealed), Some((header, text))) = (sealed, esp.split_at_mut_checked(HEADROOM)) else {
            return Err(OpenError::Truncated);
        };
        let low = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let top = self.window.top();
        let sequence =
            if self.extended { infer_sequence(top, self.window.size(), low) } else { u64::from(low) };
        if !self.window.may_receive_below(top, sequence) {
            return Err(OpenError::Replay);
        }
        let spi = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let mut iv = [0; super::IV];
        iv.copy_from_slice(&header[HEADER..]);
        if !self.suite.open(iv, AadBytes::new(spi, sequence, self.extended), text) {
            // A packet behind the window is inferred to belong to the next 2^32 numbers, far ahead.
            let late = sequence.saturating_sub(top) > FAR_AHEAD;
            return Err(if late { OpenError::Replay } else { OpenError::BadIcv });
        }
        let newest = match self.window.receive(sequence) {
            Arrival::Replay => return Err(OpenError::Replay),
            Arrival::Older => false,
            Arrival::Newest => true,
        };
        // Not written for each packet: workers share the line.
        if !self.used() {
            self.used.store(true, Ordering::Relaxed);
        }
        let (pad, next_header) = (usize::from(text[sealed - 2]), text[sealed - 1]);
        let inner = (sealed - 2).checked_sub(pad).ok_or(OpenError::BadPadding)?;
        if text[inner..sealed - 2].iter().zip(1u8..).any(|(b, want)| *b != want) {
            return Err(OpenError::BadPadding);
        }
        let (inner, kind) = trim(&text[..inner], next_header)?;
        Ok(Opened { at: HEADROOM..HEADROOM + inner, inner: kind, sequence, newest })
    }
}

/// Length and kind of the inner packet: the length that its header says, because traffic flow
/// confidentiality padding may follow (RFC 4303 2.7). An FEC packet takes all of the payload.
fn trim(text: &[u8], next_header: u8) -> Result<(usize, Inner), OpenError> {
    let version = text.first().map_or(0, |b| b >> 4);
    let word = |at: usize| text.get(at..at + 2).map(|w| usize::from(u16::from_be_bytes([w[0], w[1]])));
    let (said, kind) = match (next_header, version) {
        (4, 4) if text.len() >= 20 => (word(2), Inner::V4),
        (41, 6) if text.len() >= 40 => (word(4).map(|n| n + 40), Inner::V6),
        (FEC_NEXT_HEADER, _) => (Some(text.len()), Inner::Fec),
        (NO_NEXT_HEADER, _) => return Err(OpenError::Dummy),
        _ => return Err(OpenError::BadNextHeader),
    };
    match said {
        Some(n) if n <= text.len() => Ok((n, kind)),
        _ => Err(OpenError::BadNextHeader),
    }
}
