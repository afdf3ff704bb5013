//! The encrypted link: the Noise protocol `NNpsk0` (X25519, ChaCha20-Poly1305, SHA-256) over a stream of bytes. Both
//! gateways have the same key of 32 bytes. Each connection has keys of its own, so what was recorded cannot be read later,
//! nor played again.
//!
//! The link knows no socket: [`Link::take`] gets what has come, [`Link::outgoing`] has what is to be sent.

use snow::{Builder, HandshakeState, TransportState};
use std::collections::VecDeque;

/// Bytes of the key.
pub const KEY_BYTES: usize = 32;
/// The most that a frame holds.
pub const MAX_FRAME: usize = 60_000;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";
/// Both sides hash it: another protocol with the same key is refused.
const PROLOGUE: &[u8] = b"sag-vcpe session synchronisation 1";
/// Bytes of a frame's length in front of it.
const LENGTH: usize = 2;
/// Bytes that encryption adds.
const TAG: usize = 16;
/// Bytes of a handshake message: a public key and a tag.
const HANDSHAKE: usize = 48;

/// Why a link ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The peer proves another key.
    #[error("the peer has another key: both gateways need the same one in [ha]")]
    WrongKey,
    /// A frame does not decrypt: it was changed on its way.
    #[error("a frame was changed on its way")]
    Forged,
    /// A frame is longer than any.
    #[error("a frame is too long")]
    TooLong,
    /// The cipher fails, as after 2^64 frames.
    #[error("the cipher fails")]
    Cipher,
}

enum State {
    Handshake(Box<HandshakeState>),
    Transport(Box<TransportState>),
    Ended,
}

/// One end of the link.
pub struct Link {
    state: State,
    received: VecDeque<u8>,
    outgoing: VecDeque<u8>,
    buffer: Vec<u8>,
    plain: Vec<u8>,
    /// The peer has proved the key for this connection.
    proved: bool,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("proved", &self.proved).finish_non_exhaustive()
    }
}

impl Link {
    /// The end that has connected.
    ///
    /// # Errors
    ///
    /// The cipher does not work.
    pub fn connecting(key: &[u8; KEY_BYTES]) -> Result<Link, LinkError> {
        let state = builder(key)?.build_initiator().map_err(|_| LinkError::Cipher)?;
        let mut link = Link::new(state);
        link.write_handshake()?;
        Ok(link)
    }

    /// The end that was connected to.
    ///
    /// # Errors
    ///
    /// The cipher does not work.
    pub fn accepting(key: &[u8; KEY_BYTES]) -> Result<Link, LinkError> {
        let state = builder(key)?.build_responder().map_err(|_| LinkError::Cipher)?;
        Ok(Link::new(state))
    }

    fn new(state: HandshakeState) -> Link {
        Link {
            state: State::Handshake(Box::new(state)),
            received: VecDeque::new(),
            outgoing: VecDeque::new(),
            buffer: vec![0; usize::from(u16::MAX)],
            plain: vec![0; usize::from(u16::MAX)],
            proved: false,
        }
    }

    /// Whether frames may be sent.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Transport(_))
    }

    /// Whether the peer has proved that it has the key, in this connection: a handshake that was recorded proves nothing.
    pub fn is_proved(&self) -> bool {
        self.proved
    }

    /// Bytes that wait to be sent.
    pub fn outgoing(&mut self) -> &mut VecDeque<u8> {
        &mut self.outgoing
    }

    /// Bytes that have come.
    pub fn take(&mut self, bytes: &[u8]) {
        self.received.extend(bytes);
    }

    /// The next frame that has come whole, decrypted.
    ///
    /// # Errors
    ///
    /// Why the link cannot go on.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, LinkError> {
        loop {
            let (Some(&low), Some(&high)) = (self.received.front(), self.received.get(1)) else {
                return Ok(None);
            };
            let len = usize::from(u16::from_le_bytes([low, high]));
            let most = if self.is_ready() { MAX_FRAME + TAG } else { HANDSHAKE };
            if len > most {
                // Of the first message nothing else is known of a peer that speaks another protocol.
                return Err(if self.is_ready() { LinkError::TooLong } else { LinkError::WrongKey });
            }
            if self.received.len() < LENGTH + len {
                return Ok(None);
            }
            self.received.drain(..LENGTH);
            for (to, from) in self.buffer.iter_mut().zip(self.received.drain(..len)) {
                *to = from;
            }
            match &mut self.state {
                State::Handshake(h) => {
                    let message = &self.buffer[..len];
                    h.read_message(message, &mut self.plain).map_err(|_| LinkError::WrongKey)?;
                    self.advance()?;
                }
                State::Transport(t) => {
                    let message = &self.buffer[..len];
                    let wrong = if self.proved { LinkError::Forged } else { LinkError::WrongKey };
                    let n = t.read_message(message, &mut self.plain).map_err(|_| wrong)?;
                    self.proved = true;
                    return Ok(self.plain.get(..n));
                }
                State::Ended => return Err(LinkError::Cipher),
            }
        }
    }

    /// Sends a frame of at most [`MAX_FRAME`] bytes.
    ///
    /// # Errors
    ///
    /// The link is not ready, the frame too long, or the cipher fails.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), LinkError> {
        if frame.len() > MAX_FRAME {
            return Err(LinkError::TooLong);
        }
        let State::Transport(t) = &mut self.state else { return Err(LinkError::Cipher) };
        let n = t.write_message(frame, &mut self.buffer).map_err(|_| LinkError::Cipher)?;
        queue(&mut self.outgoing, &self.buffer[..n]);
        Ok(())
    }

    /// Takes the handshake on.
    fn advance(&mut self) -> Result<(), LinkError> {
        match &self.state {
            State::Handshake(h) if h.is_handshake_finished() => {}
            State::Handshake(h) if h.is_my_turn() => self.write_handshake()?,
            _ => return Ok(()),
        }
        let finished = matches!(&self.state, State::Handshake(h) if h.is_handshake_finished());
        if finished && let State::Handshake(h) = std::mem::replace(&mut self.state, State::Ended) {
            // Who has connected has read an answer that only the key can make.
            self.proved = h.is_initiator();
            let transport = h.into_transport_mode().map_err(|_| LinkError::Cipher)?;
            self.state = State::Transport(Box::new(transport));
        }
        Ok(())
    }

    fn write_handshake(&mut self) -> Result<(), LinkError> {
        let State::Handshake(h) = &mut self.state else { return Ok(()) };
        let n = h.write_message(&[], &mut self.buffer).map_err(|_| LinkError::Cipher)?;
        queue(&mut self.outgoing, &self.buffer[..n]);
        Ok(())
    }
}

fn queue(outgoing: &mut VecDeque<u8>, message: &[u8]) {
    outgoing.extend((message.len() as u16).to_le_bytes());
    outgoing.extend(message);
}

fn builder(key: &[u8; KEY_BYTES]) -> Result<Builder<'_>, LinkError> {
    let params = PATTERN.parse().map_err(|_| LinkError::Cipher)?;
    Builder::new(params).psk(0, key).and_then(|b| b.prologue(PROLOGUE)).map_err(|_| LinkError::Cipher)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Carries what waits from one end to the other, a few bytes at a time.
    fn carry(from: &mut Link, to: &mut Link) {
        let bytes: Vec<u8> = from.outgoing().drain(..).collect();
        bytes.chunks(7).for_each(|c| to.take(c));
    }

    fn connected(a: &[u8; 32], b: &[u8; 32]) -> Result<(Link, Link), LinkError> {
        let (mut one, mut other) = (Link::connecting(a)?, Link::accepting(b)?);
        carry(&mut one, &mut other);
        other.next_frame()?;
        carry(&mut other, &mut one);
        one.next_frame()?;
        Ok((one, other))
    }

    #[test]
    fn frames_arrive_as_they_were_sent() {
        let (mut a, mut b) = connected(&[7; 32], &[7; 32]).unwrap();
        assert!(a.is_ready() && b.is_ready() && a.is_proved());
        assert!(!b.is_proved(), "the first message may have been recorded");
        for len in [0, 1, 1000, MAX_FRAME] {
            let frame: Vec<u8> = (0..len).map(|i| i as u8).collect();
            a.send(&frame).unwrap();
            carry(&mut a, &mut b);
            assert_eq!(b.next_frame().unwrap(), Some(&frame[..]));
            assert!(b.is_proved());
            b.send(&frame).unwrap();
            carry(&mut b, &mut a);
            assert_eq!(a.next_frame().unwrap(), Some(&frame[..]));
            assert_eq!(a.next_frame().unwrap(), None);
        }
        assert_eq!(a.send(&vec![0; MAX_FRAME + 1]), Err(LinkError::TooLong));
    }

    #[test]
    fn another_key_is_refused_by_name() {
        assert_eq!(connected(&[7; 32], &[8; 32]).err(), Some(LinkError::WrongKey));
        let mut b = Link::accepting(&[7; 32]).unwrap();
        b.take(b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(b.next_frame(), Err(LinkError::WrongKey));
    }

    #[test]
    fn what_was_changed_or_recorded_is_not_taken() {
        let (mut a, mut b) = connected(&[7; 32], &[7; 32]).unwrap();
        a.send(b"one").unwrap();
        let recorded: Vec<u8> = a.outgoing().iter().copied().collect();
        let mut changed = recorded.clone();
        *changed.last_mut().unwrap() ^= 1;
        carry(&mut a, &mut b);
        b.next_frame().unwrap();
        b.take(&recorded);
        assert_eq!(b.next_frame(), Err(LinkError::Forged), "a second time");
        let (_, mut c) = connected(&[7; 32], &[7; 32]).unwrap();
        c.take(&recorded);
        assert_eq!(c.next_frame(), Err(LinkError::WrongKey), "in another connection");
        assert!(!c.is_proved());
        let (_, mut d) = connected(&[7; 32], &[7; 32]).unwrap();
        d.take(&changed);
        assert!(d.next_frame().is_err());
    }
}
