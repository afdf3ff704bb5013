//! Outbound processing (RFC 4303 3.3).

use super::suite::AadBytes;
use super::{Cipher, HEADER, HEADROOM, ICV, Inner, NO_NEXT_HEADER, Suite};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a packet cannot be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// All sequence numbers are used; none may be used twice under a key (RFC 4303 3.3.3).
    #[error("the association has used all its sequence numbers: install another one")]
    Exhausted,
    /// No number is reserved: what it would be is not written down yet, and it could be used again after a restart.
    #[error("no sequence number is reserved for the association")]
    Unreserved,
    /// The buffer is too short in front of the packet or behind it, or the packet is too long for the cipher.
    #[error("the buffer has no room for the ESP header and trailer")]
    NoRoom,
}

/// An outbound security association (SA).
#[derive(Debug)]
pub struct Outbound {
    spi: u32,
    suite: Suite,
    /// 64-bit sequence numbers, of which the packet carries the low half.
    extended: bool,
    /// The next number.
    next: AtomicU64,
    /// Numbers below it may be used: the control thread raises it when it has written so on disk.
    reserved: AtomicU64,
    /// Added to the sequence number it makes the IV.
    iv_base: u64,
    /// Bytes under the key so far.
    bytes: AtomicU64,
}

/// The end of an SA's sequence numbers: none is used twice under a key (RFC 4303 3.3.3).
pub(super) const fn sequence_end(extended: bool) -> u64 {
    if extended { u64::MAX - (1 << 32) + 1 } else { 1 << 32 }
}

/// A sealed packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Where it is in the buffer, from the SPI to the ICV.
    pub at: Range<usize>,
    /// Its sequence number.
    pub sequence: u64,
}

impl Outbound {
    /// An SA that sends under `spi`, with extended sequence numbers (RFC 4303 2.2.1) if `extended`, under a key that no
    /// other process has used or will use: all its numbers are reserved from the start.
    /// `first` is the first sequence number, 1 for a new SA; its packet has the IV `iv`, the one after it `iv + 1`.
    pub fn new(spi: u32, suite: Suite, extended: bool, first: u64, iv: u64) -> Outbound {
        let sa = Outbound::unreserved(spi, suite, extended, first, iv);
        sa.grant(u64::MAX);
        sa
    }

    /// The same under a key that outlives the process: nothing can be sent before [`Outbound::grant`]. `first` and `iv`
    /// are those of a [`super::Lease`].
    pub fn unreserved(spi: u32, suite: Suite, extended: bool, first: u64, iv: u64) -> Outbound {
        let first = first.max(1);
        Outbound {
            spi,
            suite,
            extended,
            next: AtomicU64::new(first),
            reserved: AtomicU64::new(0),
            iv_base: iv.wrapping_sub(first),
            bytes: AtomicU64::new(0),
        }
    }

    /// Sequence numbers below `end` may be used from now on: no process will use them again under the key.
    pub fn grant(&self, end: u64) {
        self.reserved.fetch_max(end.min(sequence_end(self.extended)), Ordering::Relaxed);
    }

    /// The first sequence number that is not reserved.
    pub fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
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

    /// The next sequence number.
    pub fn next_sequence(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Bytes encrypted under the key.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Reserves sequence numbers for up to `n` packets, to be used at once: a number that is used late may be
    /// behind the peer's replay window when it arrives.
    #[inline]
    pub fn reserve(&self, n: u32) -> Batch<'_> {
        let n = u64::from(n);
        // While nothing may be sent the numbers stay where they are: a peer recovers the high half of the next one only
        // if it is less than 2^32 ahead.
        let first = match self.next.load(Ordering::Relaxed) {
            next if next >= self.reserved() => return Batch { sa: self, next, end: next, bytes: 0 },
            _ => self.next.fetch_add(n, Ordering::Relaxed),
        };
        Batch { sa: self, next: first, end: first.saturating_add(n), bytes: 0 }
    }

    /// Why a packet has no number.
    #[cold]
    fn refusal(&self, sequence: u64) -> SealError {
        let usable = sequence < sequence_end(self.extended);
        if usable && sequence >= self.reserved() { SealError::Unreserved } else { SealError::Exhausted }
    }

    /// Seals one packet, see [`Batch::seal`].
    ///
    /// # Errors
    /// As [`Batch::seal`].
    #[inline]
    pub fn seal(&self, buf: &mut [u8], at: Range<usize>, inner: Inner) -> Result<Sealed, SealError> {
        self.reserve(1).seal(buf, at, inner)
    }

    /// Makes a dummy packet of the bytes `at`, which the receiver discards (RFC 4303 2.6).
    ///
    /// # Errors
    /// As [`Batch::seal`].
    pub fn dummy(&self, buf: &mut [u8], at: Range<usize>) -> Result<Sealed, SealError> {
        self.reserve(1).seal_as(buf, at, NO_NEXT_HEADER)
    }

    /// Seals with a given sequence number and IV, which must not have been used under this key before.
    #[inline]
    pub(super) fn seal_with(
        &self,
        buf: &mut [u8],
        at: Range<usize>,
        next_header: u8,
        sequence: u64,
        iv: u64,
    ) -> Result<Sealed, SealError> {
        let start = at.start.checked_sub(HEADROOM).ok_or(SealError::NoRoom)?;
        let inner = at.end.checked_sub(at.start).ok_or(SealError::NoRoom)?;
        let pad = (inner + 2).next_multiple_of(4) - (inner + 2);
        let text_end = at.end + pad + 2;
        let end = text_end + ICV;
        let packet = buf.get_mut(start..end).ok_or(SealError::NoRoom)?;
        let (header, text) = packet.split_at_mut(HEADROOM);
        let (text, icv) = text.split_at_mut(text_end - at.start);
        let icv = icv.first_chunk_mut().ok_or(SealError::NoRoom)?;
        let iv = iv.to_be_bytes();
        header[..4].copy_from_slice(&self.spi.to_be_bytes());
        header[4..HEADER].copy_from_slice(&(sequence as u32).to_be_bytes());
        header[HEADER..].copy_from_slice(&iv);
        for (i, b) in text[inner..].iter_mut().enumerate() {
            *b = (i + 1) as u8;
        }
        text[inner + pad] = pad as u8;
        text[inner + pad + 1] = next_header;
        let aad = AadBytes::new(self.spi, sequence, self.extended);
        match self.suite.seal(iv, aad, text, icv) {
            true => Ok(Sealed { at: start..end, sequence }),
            false => Err(SealError::NoRoom),
        }
    }
}

/// Reserved sequence numbers. Those that are not used are skipped, which RFC 4303 allows.
#[derive(Debug)]
pub struct Batch<'a> {
    sa: &'a Outbound,
    next: u64,
    end: u64,
    bytes: u64,
}

impl Batch<'_> {
    /// Encrypts and authenticates the inner packet at `at` of `buf`, which must have [`super::HEADROOM`] bytes before and
    /// up to [`super::TAILROOM`] behind it.
    ///
    /// # Errors
    /// [`SealError::Exhausted`] if the numbers of the batch, or those of the SA, are used up;
    /// [`SealError::Unreserved`] before more are granted; [`SealError::NoRoom`] if the buffer is too short.
    #[inline]
    pub fn seal(&mut self, buf: &mut [u8], at: Range<usize>, inner: Inner) -> Result<Sealed, SealError> {
        self.seal_as(buf, at, inner.next_header())
    }

    #[inline]
    fn seal_as(&mut self, buf: &mut [u8], at: Range<usize>, next_header: u8) -> Result<Sealed, SealError> {
        let sequence = self.next;
        if sequence >= self.end || sequence >= self.sa.reserved() {
            return Err(self.sa.refusal(sequence));
        }
        self.next += 1;
        let sealed =
            self.sa.seal_with(buf, at, next_header, sequence, self.sa.iv_base.wrapping_add(sequence))?;
        self.bytes += sealed.at.len() as u64;
        Ok(sealed)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.bytes != 0 {
            self.sa.bytes.fetch_add(self.bytes, Ordering::Relaxed);
        }
    }
}
