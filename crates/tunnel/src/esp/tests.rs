//! Vectors of the RFCs, and what no packet may do.

use super::*;
use proptest::prelude::*;
use std::sync::Arc;

fn hex(s: &str) -> Vec<u8> {
    let s: String = s.split_whitespace().collect();
    (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
}

struct Vector {
    cipher: Cipher,
    keymat: &'static str,
    spi: u32,
    sequence: u64,
    extended: bool,
    iv: u64,
    /// With padding and trailer.
    plain: &'static str,
    sealed: &'static str,
}

const VECTORS: &[Vector] = &[
    // draft-mcgrew-gcm-test-01, which RFC 4106 refers to: with an extended sequence number.
    Vector {
        cipher: Cipher::Aes128Gcm,
        keymat: "4c80cdefbb5d10da906ac73c3613a634 2e443b68",
        spi: 0x4321,
        sequence: 0x8765_4321_0000_0000,
        extended: true,
        iv: 0x4956_ed7e_3b24_4cfe,
        plain: "45000048699a000080114db7c0a80102c0a801010a9bf15638d3010000010000
                00000000045f736970045f756470037369700963796265726369747902646b00
                0021000101020201",
        sealed: "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34
                 cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce
                 61bc17d768fd9732 459018148f6cbe722fd04796562dfdb4",
    },
    Vector {
        cipher: Cipher::Aes256Gcm,
        keymat: "abbccddef00112233445566778899aababbccddef00112233445566778899aab 11223344",
        spi: 0x4a2c_bfe3,
        sequence: 2,
        extended: false,
        iv: 0x0102_0304_0506_0708,
        plain: "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee000000000
                7002400020bf0000020405b40101040201020201",
        sealed: "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763
                 748a637985771d347f0545659f14e99def842d8e b335f4eecfdbf831824b4c4915956c96",
    },
    // RFC 7634, appendix A.
    Vector {
        cipher: Cipher::ChaCha20Poly1305,
        keymat: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f a0a1a2a3",
        spi: 0x0102_0304,
        sequence: 5,
        extended: false,
        iv: 0x1011_1213_1415_1617,
        plain: "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10
                0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223
                2425262728292a2b2c2d2e2f3031323334353637 01020204",
        sealed: "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6
                 14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3
                 cbec163fac469b502773f6fb94e664da9165b82829f641e0
                 76aaa8266b7fb0f7b11b369907e1ad43",
    },
];

impl Vector {
    fn suite(&self) -> Suite {
        Suite::new(self.cipher, &hex(self.keymat)).unwrap()
    }

    fn packet(&self) -> Vec<u8> {
        let mut p = self.spi.to_be_bytes().to_vec();
        p.extend((self.sequence as u32).to_be_bytes());
        p.extend(self.iv.to_be_bytes());
        p.extend(hex(self.sealed));
        p
    }
}

#[test]
fn the_vectors_are_sealed_and_opened() {
    for v in VECTORS {
        let plain = hex(v.plain);
        let (pad, next_header) = (usize::from(plain[plain.len() - 2]), plain[plain.len() - 1]);
        let inner = plain.len() - 2 - pad;
        let mut buf = vec![0; HEADROOM + inner + TAILROOM];
        buf[HEADROOM..HEADROOM + inner].copy_from_slice(&plain[..inner]);
        let out = Outbound::new(v.spi, v.suite(), v.extended, 1, 0);
        let sealed =
            out.seal_with(&mut buf, HEADROOM..HEADROOM + inner, next_header, v.sequence, v.iv).unwrap();
        assert_eq!(buf[sealed.at.clone()], v.packet());
        assert_eq!(sealed.at.len(), sealed_len(inner));

        let mut packet = v.packet();
        let before = v.sequence - 1;
        let opened = Inbound::new(v.spi, v.suite(), v.extended, 64, before).open(&mut packet);
        if next_header == 4 {
            let o = opened.unwrap();
            assert_eq!(packet[o.at.clone()], plain[..inner]);
            assert_eq!((o.inner, o.sequence, o.newest), (Inner::V4, v.sequence, true));
        } else {
            // Transport mode: authentic, and not for a tunnel.
            assert_eq!(opened, Err(OpenError::BadNextHeader));
            assert_eq!(packet[HEADROOM..packet.len() - ICV], plain);
        }
    }
}

const CIPHERS: [Cipher; 3] = [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];

fn suite(cipher: Cipher) -> Suite {
    Suite::new(cipher, &vec![0x42; cipher.keymat_len()]).unwrap()
}

fn pair(extended: bool) -> (Outbound, Inbound) {
    let c = Cipher::Aes128Gcm;
    (Outbound::new(300, suite(c), extended, 1, 7), Inbound::new(300, suite(c), extended, 1024, 0))
}

/// An IPv4 packet of `len` bytes, or an IPv6 one.
fn inner(kind: Inner, len: usize) -> Vec<u8> {
    let mut p: Vec<u8> = (0..len).map(|i| i as u8).collect();
    match kind {
        Inner::V4 => {
            p[0] = 0x45;
            p[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        }
        Inner::V6 => {
            p[0] = 0x60;
            p[4..6].copy_from_slice(&(len as u16 - 40).to_be_bytes());
        }
        // Whatever it is.
        Inner::Fec => {}
    }
    p
}

fn sealed(sa: &Outbound, kind: Inner, len: usize) -> Vec<u8> {
    let mut buf = vec![0; HEADROOM];
    buf.extend(inner(kind, len));
    buf.resize(buf.len() + TAILROOM, 0xEE);
    let s = sa.seal(&mut buf, HEADROOM..HEADROOM + len, kind).unwrap();
    buf[s.at].to_vec()
}

/// A packet whose text is given whole: padding and trailer too.
fn raw(sa: &Outbound, text: &[u8], sequence: u64) -> Vec<u8> {
    let suite = suite(sa.cipher());
    let mut p = sa.spi().to_be_bytes().to_vec();
    p.extend((sequence as u32).to_be_bytes());
    p.extend([9; IV]);
    let mut text = text.to_vec();
    let aad = suite::AadBytes::new(sa.spi(), sequence, sa.extended());
    let mut tag = [0; ICV];
    assert!(suite.seal([9; IV], aad, &mut text, &mut tag));
    p.extend(text);
    p.extend(tag);
    p
}

#[test]
fn each_fault_has_its_name() {
    let (tx, rx) = pair(true);
    let good = sealed(&tx, Inner::V4, 101);
    assert_eq!(rx.open(&mut good.clone()).unwrap().at, HEADROOM..HEADROOM + 101);
    assert_eq!(rx.open(&mut good.clone()), Err(OpenError::Replay));
    let good = sealed(&tx, Inner::V6, 77);
    for at in [0, 4, 8, HEADROOM, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert_eq!(rx.open(&mut bad), Err(OpenError::BadIcv), "byte {at}");
    }
    for len in [0, 7, 8, HEADROOM, HEADROOM + ICV, HEADROOM + ICV + 3, good.len() - 1, good.len() - 2] {
        assert_eq!(rx.open(&mut good[..len].to_vec()), Err(OpenError::Truncated), "{len} bytes");
    }
    assert_eq!(rx.open(&mut good[..good.len() - 4].to_vec()), Err(OpenError::BadIcv));
    // None of them has cost the good one its number.
    assert_eq!(rx.open(&mut good.clone()).unwrap().inner, Inner::V6);

    let text = |trailer: &[u8]| [&inner(Inner::V4, 24)[..], trailer].concat();
    let open = |n, text: &[u8]| rx.open(&mut raw(&tx, text, n));
    assert_eq!(open(10, &text(&[1, 2, 2, 4])).unwrap().at.len(), 24);
    assert_eq!(open(11, &text(&[1, 3, 2, 4])), Err(OpenError::BadPadding));
    assert_eq!(open(12, &text(&[1, 2, 200, 4])), Err(OpenError::BadPadding));
    assert_eq!(open(13, &text(&[1, 2, 2, 6])), Err(OpenError::BadNextHeader));
    assert_eq!(open(14, &text(&[1, 2, 2, 41])), Err(OpenError::BadNextHeader));
    assert_eq!(open(15, &text(&[1, 2, 2, 59])), Err(OpenError::Dummy));
    // Filling behind the inner packet is cut off.
    assert_eq!(open(16, &text(&[0xAA, 0xBB, 0xCC, 0xDD, 0, 0, 0, 4])).unwrap().at.len(), 24);
    let mut longer = text(&[1, 2, 2, 4]);
    longer[3] = 200;
    assert_eq!(open(17, &longer), Err(OpenError::BadNextHeader));
    // What error correction has sent is taken whole, whatever it says.
    let taken = open(18, &text(&[0xAA, 0xBB, 0xCC, 0xDD, 0, 0, 0, 253])).unwrap();
    assert_eq!((taken.inner, taken.at.len()), (Inner::Fec, 30));
    // Authentic packets have used their numbers up.
    assert_eq!(open(11, &text(&[1, 2, 2, 4])), Err(OpenError::Replay));
}

/// Workers send by queues of their own, and one queue may be long while another is empty.
#[test]
fn a_packet_that_was_overtaken_is_taken_or_late_by_name() {
    for extended in [true, false] {
        let (tx, rx) = pair(extended);
        let packets: Vec<_> = (0..2100).map(|_| sealed(&tx, Inner::V4, 60)).collect();
        let size = rx.window().size() as usize;
        assert!(rx.open(&mut packets[2099].clone()).is_ok());
        for (n, packet) in packets.iter().enumerate().take(2099).skip(2100 - size) {
            assert!(rx.open(&mut packet.clone()).is_ok(), "{n}");
        }
        for n in [0, 1, 2099 - size] {
            assert_eq!(rx.open(&mut packets[n].clone()), Err(OpenError::Replay), "{n}");
        }
        let mut altered = sealed(&tx, Inner::V4, 60);
        altered[30] ^= 1;
        assert_eq!(rx.open(&mut altered), Err(OpenError::BadIcv));
    }
}

#[test]
fn a_dummy_is_sent_and_recognized() {
    let (tx, rx) = pair(false);
    let mut buf = [0; HEADROOM + 40 + TAILROOM];
    let s = tx.dummy(&mut buf, HEADROOM..HEADROOM + 40).unwrap();
    assert_eq!(rx.open(&mut buf[s.at]), Err(OpenError::Dummy));
}

#[test]
fn numbers_end_and_are_not_used_again() {
    let c = Cipher::Aes128Gcm;
    let tx = Outbound::new(300, suite(c), false, u64::from(u32::MAX), 0);
    let mut buf = [0; HEADROOM + 20 + TAILROOM];
    let at = HEADROOM..HEADROOM + 20;
    assert_eq!(tx.seal(&mut buf, at.clone(), Inner::V4).unwrap().sequence, u64::from(u32::MAX));
    assert_eq!(tx.seal(&mut buf, at.clone(), Inner::V4), Err(SealError::Exhausted));
    let tx = Outbound::new(300, suite(c), true, u64::from(u32::MAX), 0);
    assert!(tx.seal(&mut buf, at.clone(), Inner::V4).is_ok() && tx.seal(&mut buf, at, Inner::V4).is_ok());
    assert_eq!(tx.next_sequence(), (1 << 32) + 1);
}

#[test]
fn a_buffer_without_room_is_not_written() {
    let (tx, _) = pair(true);
    let mut buf = [0xEE; HEADROOM + 20 + TAILROOM - 4];
    for at in [HEADROOM..HEADROOM + 20, HEADROOM - 1..20, HEADROOM..900] {
        assert_eq!(tx.seal(&mut buf, at, Inner::V4), Err(SealError::NoRoom));
    }
    assert_eq!(buf, [0xEE; HEADROOM + 20 + TAILROOM - 4]);
}

#[test]
fn the_high_half_is_recovered_over_the_turn_and_authenticated() {
    let start = (3u64 << 32) - 5;
    let c = Cipher::ChaCha20Poly1305;
    let tx = Outbound::new(300, suite(c), true, start, 1);
    let rx = Inbound::new(300, suite(c), true, 1024, start - 1);
    let mut packets: Vec<_> = (0..10).map(|_| sealed(&tx, Inner::V4, 60)).collect();
    packets.swap(2, 7);
    for (i, p) in packets.iter().enumerate() {
        let n = match i {
            2 => 7,
            7 => 2,
            i => i as u64,
        };
        let mut p = p.clone();
        assert_eq!(rx.open(&mut p).unwrap().sequence, start + n);
    }
    // The same packet for a receiver that is elsewhere.
    let far = Inbound::new(300, suite(c), true, 1024, 1 << 32);
    assert_eq!(far.open(&mut packets[8].clone()), Err(OpenError::BadIcv));
}

#[test]
fn batches_do_not_share_numbers() {
    let (tx, rx) = pair(true);
    let mut buf = [0; HEADROOM + 60 + TAILROOM];
    buf[HEADROOM..HEADROOM + 60].copy_from_slice(&inner(Inner::V4, 60));
    let plain = buf;
    {
        let (mut a, mut b) = (tx.reserve(3), tx.reserve(2));
        let mut numbers = Vec::new();
        for i in [0, 1, 0, 1, 0] {
            let batch = if i == 0 { &mut a } else { &mut b };
            buf = plain;
            let s = batch.seal(&mut buf, HEADROOM..HEADROOM + 60, Inner::V4).unwrap();
            numbers.push(s.sequence);
            assert!(rx.open(&mut buf[s.at]).is_ok());
        }
        assert_eq!(numbers, [1, 4, 2, 5, 3]);
        assert_eq!(a.seal(&mut buf, HEADROOM..HEADROOM + 60, Inner::V4), Err(SealError::Exhausted));
    }
    assert_eq!(tx.bytes(), 5 * sealed_len(60) as u64);
    assert!(rx.used());
}

#[test]
fn workers_share_an_association() {
    let (tx, rx) = pair(true);
    let opened: usize = std::thread::scope(|s| {
        let work = || (0..2000).filter(|_| rx.open(&mut sealed(&tx, Inner::V4, 64)).is_ok()).count();
        let threads: Vec<_> = (0..3).map(|_| s.spawn(work)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(tx.next_sequence(), 6001);
    // A worker that was put to sleep for a thousand packets of the others is behind the window.
    assert!(opened > 5000, "{opened}");
}

#[test]
fn debug_shows_no_key() {
    let (tx, rx) = pair(true);
    let shown = format!("{tx:?} {rx:?} {:?}", suite(Cipher::Aes256Gcm));
    assert!(shown.contains("Suite(aes-256-gcm)") && !shown.contains("66, 66") && !shown.contains("4242"));
}

#[test]
fn keys_of_another_length_are_refused() {
    for c in CIPHERS {
        for len in [0, 16, 19, 21, 32, 35, 37] {
            assert_eq!(Suite::new(c, &vec![0; len]).unwrap_err(), KeyError { cipher: c, got: len });
        }
    }
}

#[test]
fn datagrams_are_classified() {
    assert_eq!(classify(&[0xFF]), Datagram::Keepalive);
    assert_eq!(classify(&[0, 0, 0, 0, 1, 2]), Datagram::NonEsp);
    assert_eq!(classify(&[0, 0, 1, 0, 1, 2]), Datagram::Esp);
    assert_eq!(classify(&[]), Datagram::Short);
    assert_eq!(classify(&[0xFE]), Datagram::Short);
    let mut buf = [0xEE; 40];
    assert!(write_udp(&mut buf, 4500, 4501));
    assert_eq!(buf[..8], [0x11, 0x94, 0x11, 0x95, 0, 40, 0, 0]);
    assert!(!write_udp(&mut vec![0; 70_000], 1, 2) && !write_udp(&mut [0; 7], 1, 2));
}

#[test]
fn room_and_length_agree() {
    for room in 36..3000 {
        let most = inner_room(room);
        assert!(most == 0 || sealed_len(most) <= room, "{room}");
        assert!(sealed_len(most + 1) > room, "{room}");
    }
}

const SECOND: u64 = 1_000_000_000;

fn sa(spi: u32) -> (Arc<Outbound>, Arc<Inbound>) {
    let c = Cipher::Aes128Gcm;
    let out = Outbound::new(spi, suite(c), true, 1, 7);
    (Arc::new(out), Arc::new(Inbound::new(spi, suite(c), true, 1024, 0)))
}

/// Two ends that get the new pair one after the other, with packets in flight all the time.
#[test]
fn rekeying_loses_nothing_whoever_is_first() {
    for (first, second) in [(0, 1), (1, 0)] {
        // (towards end 1, towards end 0), old and new.
        let (old01, old10, new01, new10) = (sa(1000), sa(1001), sa(1002), sa(1003));
        let mut ends = [
            SaSet::new(old10.1.clone(), old01.0.clone(), 0),
            SaSet::new(old01.1.clone(), old10.0.clone(), 0),
        ];
        let mut flight: Vec<(usize, Vec<u8>)> = Vec::new();
        for step in 0..200u64 {
            let now = step * SECOND / 10;
            for (at, end) in [(20, first), (60, second)] {
                if step == at {
                    let (i, o) = if end == 0 { (&new10.1, &new01.0) } else { (&new01.1, &new10.0) };
                    ends[end]
                        .install(i.clone(), o.clone(), Switchover::PeerOr(now + 10 * SECOND), now)
                        .unwrap();
                }
            }
            for (end, set) in ends.iter_mut().enumerate() {
                set.poll(now);
                flight.push((1 - end, sealed(set.outbound(), Inner::V4, 60)));
            }
            // Five steps under way.
            if flight.len() > 10 {
                for (to, mut p) in flight.drain(..2).collect::<Vec<_>>() {
                    let spi = u32::from_be_bytes(p[..4].try_into().unwrap());
                    let sa = ends[to].inbound().find(|sa| sa.spi() == spi).expect("it is received by");
                    assert!(sa.open(&mut p).is_ok());
                }
            }
        }
        for end in &mut ends {
            end.poll(400 * SECOND);
            assert!(end.inbound().len() == 1 && !end.is_waiting());
            assert!(end.outbound().spi() >= 1002);
        }
    }
}

#[test]
fn a_set_refuses_what_it_cannot_keep_apart() {
    let (o, i) = sa(500);
    let mut set = SaSet::new(i.clone(), o.clone(), 0);
    assert_eq!(set.install(i, o, Switchover::Now, 1), Err(InstallError::SpiInUse(500)));
    let wait = Switchover::PeerOr(100 * SECOND);
    let (o, i) = sa(501);
    set.install(i, o, wait, 1).unwrap();
    assert_eq!(set.outbound().spi(), 500);
    let (o, i) = sa(502);
    assert_eq!(set.install(i.clone(), o.clone(), wait, 1), Err(InstallError::Waiting));
    assert!(set.poll(100 * SECOND));
    assert_eq!(set.outbound().spi(), 501);
    set.install(i, o, Switchover::Now, 1).unwrap();
    for spi in 503..508 {
        let (o, i) = sa(spi);
        set.install(i, o, Switchover::Now, 1).unwrap();
    }
    let (o, i) = sa(508);
    assert_eq!(set.install(i, o, Switchover::Now, 1), Err(InstallError::TooMany));
    assert_eq!(set.inbound().len(), MAX_INBOUND);
    // The peer never moves: patience ends.
    assert!(set.poll(4000 * SECOND));
    assert_eq!(set.inbound().map(|s| s.spi()).collect::<Vec<_>>(), [507]);
}

fn spis(set: &SaSet) -> Vec<u32> {
    set.inbound().map(|s| s.spi()).collect()
}

/// The peer is away for as long as it likes: what it sends by is received by, and what it never had makes room.
#[test]
fn a_pair_that_waits_gives_way_to_a_newer_one() {
    let (peers, i) = sa(500);
    let (o, _) = sa(600);
    let mut set = SaSet::new(i.clone(), o, 0);
    assert!(i.open(&mut sealed(&peers, Inner::V4, 60)).is_ok());
    for n in 1..20u32 {
        let (o, i) = (sa(600 + n).0, sa(500 + n).1);
        let now = u64::from(n) * 3000 * SECOND;
        set.supersede(i, o, Switchover::AFTER_PEER, now).unwrap();
        set.poll(now);
        assert!(set.is_waiting() && set.outbound().spi() == 600, "it is sent by what the peer has");
        assert!(set.inbound().len() <= MAX_INBOUND);
        assert_eq!((spis(&set)[0], *spis(&set).last().unwrap()), (500, 500 + n));
    }
    let (o, i) = (sa(619).0, sa(519).1);
    assert_eq!(
        set.supersede(i, o, Switchover::AFTER_PEER, 60_000 * SECOND),
        Err(InstallError::SpiInUse(519))
    );
    // The peer moves: so do we, and the old one ends ten seconds later.
    let newest = set.inbound().next_back().unwrap().clone();
    assert!(newest.open(&mut sealed(&sa(519).0, Inner::V4, 60)).is_ok());
    assert!(set.poll(60_000 * SECOND));
    assert_eq!(set.outbound().spi(), 619);
    assert!(spis(&set).contains(&500));
    assert!(set.poll(60_010 * SECOND));
    assert_eq!(spis(&set), [519]);
}

/// Many in a row, small and in use: none of those is given up for a newer one.
#[test]
fn what_is_in_use_is_not_given_up() {
    let (peers, i) = sa(500);
    let mut set = SaSet::new(i.clone(), sa(600).0, 0);
    assert!(i.open(&mut sealed(&peers, Inner::V4, 60)).is_ok());
    for n in 1..MAX_INBOUND as u32 {
        let (peers, i) = sa(500 + n);
        set.supersede(i.clone(), sa(600 + n).0, Switchover::AFTER_PEER, 1).unwrap();
        assert!(i.open(&mut sealed(&peers, Inner::V4, 60)).is_ok());
        set.poll(1);
        assert_eq!(set.outbound().spi(), 600 + n);
    }
    let refused = set.supersede(sa(550).1, sa(650).0, Switchover::AFTER_PEER, 2);
    assert_eq!(refused, Err(InstallError::TooMany));
    assert_eq!(set.inbound().len(), MAX_INBOUND);
}

proptest! {
    #[test]
    fn anything_that_is_sealed_is_opened(
        cipher in prop::sample::select(&CIPHERS[..]),
        v6: bool,
        len in 40usize..2000,
        extended: bool,
        front in 0usize..40,
        first in 1u64..1 << 33,
    ) {
        let kind = if v6 { Inner::V6 } else { Inner::V4 };
        let first = if extended { first } else { first & 0xffff_ffff | 1 };
        let tx = Outbound::new(7777, suite(cipher), extended, first, first);
        let rx = Inbound::new(7777, suite(cipher), extended, 1024, first - 1);
        let packet = inner(kind, len);
        let mut buf = vec![0xEE; front + HEADROOM];
        buf.extend(&packet);
        buf.resize(buf.len() + TAILROOM + 3, 0xEE);
        let at = front + HEADROOM..front + HEADROOM + len;
        let s = tx.seal(&mut buf, at, kind).unwrap();
        prop_assert_eq!(s.at.clone(), front..front + sealed_len(len));
        prop_assert!(buf[..front].iter().chain(&buf[s.at.end..]).all(|b| *b == 0xEE));
        let o = rx.open(&mut buf[s.at.clone()]).unwrap();
        prop_assert_eq!(&buf[s.at][o.at], &packet[..]);
        prop_assert_eq!(o.sequence, first);
    }

    #[test]
    fn no_bytes_are_taken_for_a_packet(bytes in proptest::collection::vec(any::<u8>(), 0..200), extended: bool) {
        let (_, rx) = pair(extended);
        prop_assert!(rx.open(&mut bytes.clone()).is_err());
        prop_assert_eq!(rx.window().top(), 0);
        prop_assert!(!rx.used());
    }
}
