//! SYN cookies (RFC 4987 3.6) as XDP makes them (`bpf/include/gw_syn.h`), and what the gateway remembers of a connection
//! that it has opened for a client with one.

use sag_model::flow::SynCookieControl;
use sag_packet::segment::Offer;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::Ordering;

/// The window scale that SYN-ACKs with a cookie announce (`GW_SYN_WINDOW_SCALE`).
pub const WINDOW_SCALE: u8 = 7;
/// In a cookie: no window scale was offered.
const NO_SCALE: u8 = 15;

/// Segment sizes that a cookie can say, of IPv4 and of IPv6: the largest that the client takes.
const MSS: [[u16; 4]; 2] = [[536, 1220, 1440, 1460], [1220, 1360, 1420, 1440]];

/// Services that are protected, and what their cookies are made by.
#[derive(Debug, Clone, Default)]
pub struct SynCookies {
    control: Option<&'static SynCookieControl>,
    services: HashMap<(IpAddr, u16), u8>,
}

/// Who wants to connect to what, and its first sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The client.
    pub from: (IpAddr, u16),
    /// The service, as the client addresses it.
    pub to: (IpAddr, u16),
    /// The sequence number of the SYN.
    pub isn: u32,
}

impl SynCookies {
    /// Of these services: address and port as clients know them, and number.
    pub fn new(
        control: &'static SynCookieControl,
        services: impl IntoIterator<Item = (IpAddr, u16, u8)>,
    ) -> SynCookies {
        let services = services.into_iter().map(|(addr, port, no)| ((addr, port), no)).collect();
        SynCookies { control: Some(control), services }
    }

    /// Whether nothing is protected.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Every service: address, port, number.
    pub fn services(&self) -> impl Iterator<Item = (IpAddr, u16, u8)> + '_ {
        self.services.iter().map(|((addr, port), no)| (*addr, *port, *no))
    }

    /// The number of a protected service.
    pub fn service(&self, to: (IpAddr, u16)) -> Option<u8> {
        self.services.get(&to).copied()
    }

    /// Whether the SYNs of a service are answered with cookies.
    pub fn is_active(&self, service: u8) -> bool {
        self.control.is_some_and(|c| c.is_active(service))
    }

    /// The cookie for a client that offers this.
    pub fn make(&self, client: &Client, offer: &Offer) -> Option<u32> {
        let control = self.control?;
        let sizes = &MSS[usize::from(client.to.0.is_ipv6())];
        let mss = sizes.iter().rposition(|m| *m <= offer.mss).unwrap_or(0) as u8;
        let scale = offer.window_scale.map_or(NO_SCALE, |s| s.min(14));
        let slot = control.slot.load(Ordering::Relaxed) as u8 & 1;
        Some(sign(control, client, slot << 7 | mss << 5 | u8::from(offer.sack) << 4 | scale))
    }

    /// What a client has offered, if the cookie is one for it.
    pub fn check(&self, client: &Client, cookie: u32) -> Option<Offer> {
        let options = cookie as u8;
        if sign(self.control?, client, options) != cookie {
            return None;
        }
        let scale = options & 15;
        Some(Offer {
            mss: MSS[usize::from(client.to.0.is_ipv6())][usize::from(options >> 5 & 3)],
            window_scale: (scale != NO_SCALE).then_some(scale),
            sack: options & 1 << 4 != 0,
        })
    }
}

/// The cookie with these options under the secret of their slot.
fn sign(control: &SynCookieControl, client: &Client, options: u8) -> u32 {
    let secret = &control.secret[usize::from(options >> 7)];
    let key = [0, 1].map(|i| secret[i].load(Ordering::Relaxed));
    let octets = |a: IpAddr| -> Ipv6Addr {
        match a {
            IpAddr::V4(a) => a.to_ipv6_mapped(),
            IpAddr::V6(a) => a,
        }
    };
    let mut text = [0; 48];
    text[..16].copy_from_slice(&octets(client.from.0).octets());
    text[16..32].copy_from_slice(&octets(client.to.0).octets());
    text[32..34].copy_from_slice(&client.from.1.to_be_bytes());
    text[34..36].copy_from_slice(&client.to.1.to_be_bytes());
    text[36..40].copy_from_slice(&client.isn.to_le_bytes());
    text[40] = options;
    siphash(key, &text) as u32 & !0xFF | u32::from(options)
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012). XDP has the same for 48 bytes.
fn siphash(key: [u64; 2], text: &[u8]) -> u64 {
    let mut v = [
        key[0] ^ 0x736F_6D65_7073_6575,
        key[1] ^ 0x646F_7261_6E64_6F6D,
        key[0] ^ 0x6C79_6765_6E65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let mut absorb = |word: u64| {
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    };
    let (words, rest) = text.as_chunks::<8>();
    words.iter().for_each(|w| absorb(u64::from_le_bytes(*w)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = text.len() as u8;
    absorb(u64::from_le_bytes(last));
    v[2] ^= 0xFF;
    (0..4).for_each(|_| round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

const fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

/// What the table remembers of a session that was opened for a client with a cookie, in a word that outlives the daemon:
///
/// cookie, or server's numbers to client's (32 bits) | client's window (16) | client's scale (4) | server's scale (4) |
/// phase (8)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxied(u64);

const WAITING: u64 = 1 << 56;
const OPEN: u64 = 2 << 56;

impl Proxied {
    /// From the word of a session; `None`: its numbers are its own.
    #[inline]
    pub const fn from_word(word: u64) -> Option<Proxied> {
        if word == 0 { None } else { Some(Proxied(word)) }
    }

    /// As the table has it.
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// A session whose server has not answered yet.
    pub fn waiting(cookie: u32, window: u16, client_scale: Option<u8>) -> Proxied {
        let scale = client_scale.unwrap_or(NO_SCALE);
        Proxied(u64::from(cookie) | u64::from(window) << 32 | u64::from(scale) << 48 | WAITING)
    }

    /// The same once the server has, with its first sequence number.
    pub fn open(self, server_isn: u32, server_scale: Option<u8>) -> Proxied {
        let by = (self.0 as u32).wrapping_sub(server_isn);
        let scale = server_scale.unwrap_or(NO_SCALE);
        Proxied(u64::from(by) | self.0 & 0x000F_FFFF << 32 | u64::from(scale) << 52 | OPEN)
    }

    /// The cookie, while the server has not answered.
    pub fn cookie(self) -> Option<u32> {
        (self.0 >> 56 << 56 == WAITING).then_some(self.0 as u32)
    }

    /// What the server's sequence numbers are raised by for the client; 0 while it has not answered.
    #[inline]
    pub const fn by(self) -> u32 {
        if self.0 >> 56 << 56 == OPEN { self.0 as u32 } else { 0 }
    }

    /// The client's window in the packet that has brought the cookie.
    pub const fn window(self) -> u16 {
        (self.0 >> 32) as u16
    }

    const fn scale(self, at: u32) -> Option<u8> {
        let scale = (self.0 >> at) as u8 & 15;
        if scale == NO_SCALE { None } else { Some(scale) }
    }

    /// The client's window scale.
    pub const fn client_scale(self) -> Option<u8> {
        self.scale(48)
    }

    /// The server's.
    pub const fn server_scale(self) -> Option<u8> {
        self.scale(52)
    }

    /// From what scale to what scale a side's windows go; `None`: they stay. If the client scales, it was told
    /// [`WINDOW_SCALE`], whatever the server does.
    pub fn rescaling(self, reply: bool) -> Option<(u8, u8)> {
        let (client, server) = (self.client_scale()?, self.server_scale());
        match (reply, server) {
            (true, server) => Some((server.unwrap_or(0), WINDOW_SCALE)).filter(|(a, b)| a != b),
            // The server scales nothing, neither way (RFC 7323 2.2).
            (false, None) if client != 0 => Some((client, 0)),
            (false, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_siphash_2_4() {
        // The vectors of the reference implementation: key 00 01 .. 0f, text 00 01 ...
        let key = [0x0706_0504_0302_0100, 0x0F0E_0D0C_0B0A_0908];
        let text: Vec<u8> = (0..48).collect();
        assert_eq!(siphash(key, &text[..0]), 0x726F_DB47_DD0E_0E31);
        assert_eq!(siphash(key, &text[..8]), 0x93F5_F579_9A93_2462);
        assert_eq!(siphash(key, &text[..15]), 0xA129_CA61_49BE_45E5);
    }

    fn cookies() -> (SynCookies, &'static SynCookieControl) {
        let control: &'static SynCookieControl = Box::leak(Box::default());
        for (n, word) in control.secret.as_flattened().iter().enumerate() {
            word.store(0x0123_4567_89AB_CDEF ^ (n as u64) << 17, Ordering::Relaxed);
        }
        let to = "192.0.2.1".parse().unwrap();
        (SynCookies::new(control, [(to, 443, 0)]), control)
    }

    fn client() -> Client {
        let from = ("198.51.100.7".parse().unwrap(), 4242);
        Client { from, to: ("192.0.2.1".parse().unwrap(), 443), isn: 0xFFFF_FFFF }
    }

    #[test]
    fn a_cookie_is_good_for_its_client_alone() {
        let (c, _) = cookies();
        let offer = Offer { mss: 1460, window_scale: Some(9), sack: true };
        let cookie = c.make(&client(), &offer).unwrap();
        assert_eq!(c.check(&client(), cookie), Some(offer));
        assert_eq!(c.check(&client(), cookie), Some(offer), "as often as it comes");
        let v4 = |s: &str| -> IpAddr { s.parse().unwrap() };
        for other in [
            Client { from: (v4("198.51.100.8"), 4242), ..client() },
            Client { from: (v4("198.51.100.7"), 4243), ..client() },
            Client { to: (v4("192.0.2.2"), 443), ..client() },
            Client { to: (v4("192.0.2.1"), 444), ..client() },
            Client { isn: 0, ..client() },
            // Not the same by the same bytes elsewhere.
            Client { from: client().to, to: client().from, ..client() },
        ] {
            assert_eq!(c.check(&other, cookie), None, "{other:?}");
        }
        for bit in 0..32 {
            assert_eq!(c.check(&client(), cookie ^ 1 << bit), None, "bit {bit}");
        }
    }

    #[test]
    fn a_cookie_lives_as_long_as_its_secret() {
        let (c, control) = cookies();
        let offer = Offer { mss: 536, window_scale: None, sack: false };
        let old = c.make(&client(), &offer).unwrap();
        control.secret[1][0].store(77, Ordering::Relaxed);
        control.slot.store(1, Ordering::Relaxed);
        let new = c.make(&client(), &offer).unwrap();
        assert_ne!(old, new);
        assert!(c.check(&client(), old).is_some() && c.check(&client(), new).is_some());
        control.secret[0][0].store(78, Ordering::Relaxed);
        control.slot.store(0, Ordering::Relaxed);
        assert_eq!(c.check(&client(), old), None, "expired");
        assert!(c.check(&client(), new).is_some());
    }

    #[test]
    fn a_cookie_says_what_the_client_takes() {
        let (c, _) = cookies();
        let v6 = Client {
            from: ("2001:db8::7".parse().unwrap(), 1),
            to: ("2001:db8:1::10".parse().unwrap(), 443),
            isn: 5,
        };
        for (client, sizes) in [
            (client(), [(0, 536), (536, 536), (1300, 1220), (1452, 1440), (9000, 1460)]),
            (v6, [(0, 1220), (1220, 1220), (1400, 1360), (1432, 1420), (9000, 1440)]),
        ] {
            for (mss, told) in sizes {
                for window_scale in [None, Some(0), Some(14)] {
                    let offer = Offer { mss, window_scale, sack: mss == 0 };
                    let cookie = c.make(&client, &offer).unwrap();
                    assert_eq!(c.check(&client, cookie), Some(Offer { mss: told, ..offer }));
                }
            }
        }
    }

    #[test]
    fn numbers_of_the_server_become_those_of_the_client() {
        let p = Proxied::waiting(5, 300, Some(9));
        assert_eq!((p.cookie(), p.by(), p.window(), p.client_scale()), (Some(5), 0, 300, Some(9)));
        let open = p.open(u32::MAX, Some(7));
        assert_eq!((open.cookie(), open.by(), open.window()), (None, 6, 300));
        assert_eq!((open.client_scale(), open.server_scale()), (Some(9), Some(7)));
        assert_eq!(Proxied::from_word(open.to_word()), Some(open));
        assert_eq!(Proxied::from_word(0), None);
        assert_eq!([false, true].map(|r| open.rescaling(r)), [None, None], "both scale, the server by seven");
        let with = |client, server| Proxied::waiting(5, 1, client).open(9, server);
        assert_eq!([false, true].map(|r| with(Some(9), Some(2)).rescaling(r)), [None, Some((2, 7))]);
        assert_eq!([false, true].map(|r| with(Some(9), None).rescaling(r)), [Some((9, 0)), Some((0, 7))]);
        assert_eq!([false, true].map(|r| with(None, None).rescaling(r)), [None, None]);
    }
}
