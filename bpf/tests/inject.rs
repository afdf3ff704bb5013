//! Frames that a worker returns to the kernel: the kernel takes them as received on the device, whatever mode the
//! gateway is attached in.

mod common;

use common::netns::*;
use common::packet::*;
use common::*;
use sag_bpf::{AttachMode, Gateway, Injector, LocalAddr};
use sag_model::MacAddr;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

const BOX: [u8; 4] = [10, 9, 0, 1];
const PEER: [u8; 4] = [10, 9, 0, 2];
const VB_MAC: MacAddr = MacAddr([2, 0, 0x5e, 0, 0, 0x0B]);

/// Device va is the box's with its address, and everything to it is mapped inside: a packet that the
/// gateway's program sees goes to a socket that nobody reads.
struct Lab {
    gw: Gateway,
    injector: Injector,
    _socket: std::os::fd::OwnedFd,
    _fs: Bpffs,
    _ns: Netns,
}

fn lab() -> Option<Lab> {
    let (fs, ns) = (root()?, Netns::new()?);
    let gw = Gateway::open(&fs.options()).unwrap();
    let injector = gw.injector();
    if !injector.available() {
        skip(&injector.why_not().unwrap());
        return None;
    }
    ip(&["link", "set", "va", "address", &GW_MAC.to_string()]).unwrap();
    ip(&["link", "set", "vb", "address", &VB_MAC.to_string()]).unwrap();
    ip(&["addr", "add", &format!("{}/24", Ipv4Addr::from(BOX)), "dev", "va"]).unwrap();
    know_peer();
    gw.set_port(ifindex("va"), &port_entry()).unwrap();
    let socket = af_xdp_socket();
    gw.set_xsk(0, 0, socket.as_fd()).unwrap();
    gw.control().fail_action.store(1, std::sync::atomic::Ordering::Relaxed);
    gw.control().seed.store(0x1234_5678_9ABC_DEF0, std::sync::atomic::Ordering::Relaxed);
    gw.replace_local4(&[LocalAddr { any: true, ..LocalAddr::plain(BOX.into()) }]).unwrap();
    Some(Lab { gw, injector, _socket: socket, _fs: fs, _ns: ns })
}

/// The peer answers no ARP.
fn know_peer() {
    let peer = Ipv4Addr::from(PEER).to_string();
    ip(&["neigh", "replace", &peer, "lladdr", &HOST_MAC.to_string(), "dev", "va"]).unwrap();
}

fn ping(id: u16, payload: &[u8]) -> Vec<u8> {
    v4(PEER, BOX, 1, icmp(8, id, payload)).frame(None)
}

/// The answer to a ping on the wire.
fn pong(ear: &Ear, id: u16, payload: &[u8]) -> bool {
    let answer = ear.hear(|f| f.len() > 40 && f[23] == 1 && f[34] == 0 && f[38..40] == id.to_be_bytes());
    answer.is_some_and(|f| {
        assert_eq!(f[..12], [HOST_MAC.0, GW_MAC.0].concat());
        assert_eq!((&f[26..30], &f[30..34], &f[42..42 + payload.len()]), (&BOX[..], &PEER[..], payload));
        true
    })
}

#[test]
fn the_kernel_answers_what_it_is_given_in_every_mode() {
    let Some(l) = lab() else { return };
    let (va, ear) = (ifindex("va"), Ear::new("vb"));
    for (n, mode) in [None, Some(AttachMode::Native), Some(AttachMode::Generic)].into_iter().enumerate() {
        if let Some(mode) = mode {
            l.gw.detach("va").unwrap();
            l.gw.attach(va, "va", mode).unwrap();
            // From the wire it goes to the worker's socket: the program is at work.
            let before = l.gw.stats(LAN).unwrap();
            send_raw("vb", &ping(1, b"from the wire"));
            let wait = std::time::Instant::now();
            while l.gw.stats(LAN).unwrap().punted == before.punted && wait.elapsed() < Duration::from_secs(1)
            {
            }
            assert_eq!(l.gw.stats(LAN).unwrap().punted, before.punted + 1, "{mode:?}");
        }
        let before = l.gw.stats(LAN).unwrap();
        let id = 100 + n as u16;
        l.injector.inject(va, &ping(id, b"given")).unwrap();
        assert!(pong(&ear, id, b"given"), "{mode:?}");
        let after = l.gw.stats(LAN).unwrap();
        // The generic program of the device sees the frame again, and knows it: it is not counted twice.
        assert_eq!(after, before, "{mode:?}");
        // The same frame from the wire, where it cannot have the mark: priority tags are taken off, and it is a worker's.
        if mode.is_some() {
            let tagged = cat(&[&ping(1, b"")[..12], &[0x81, 0, 0, 0], &ping(1, b"from the wire")[12..]]);
            send_raw("vb", &tagged);
            let wait = std::time::Instant::now();
            while l.gw.stats(LAN).unwrap().punted == before.punted && wait.elapsed() < Duration::from_secs(1)
            {
            }
            assert_eq!(l.gw.stats(LAN).unwrap().punted, before.punted + 1, "{mode:?}");
        }
    }
}

#[test]
fn sockets_get_datagrams_from_the_device_named() {
    let Some(l) = lab() else { return };
    l.gw.attach(ifindex("va"), "va", AttachMode::Native).unwrap();
    // The same address and port on both devices.
    let bind = |dev| {
        let s = UdpSocket::bind("0.0.0.0:0").unwrap();
        bind_to_device(&s, dev);
        s.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        s
    };
    let (a, b) = (bind("va"), bind("vb"));
    let injector = l.injector.clone();
    let to = |s: &UdpSocket, mac: MacAddr, text: &[u8]| {
        let p = v4(PEER, BOX, 17, udp(5000, s.local_addr().unwrap().port(), text));
        cat(&[&eth_to(mac, HOST_MAC, None, 0x0800), &p.build()])
    };
    let got = |s: &UdpSocket| {
        let mut buffer = [0; 4096];
        s.recv(&mut buffer).map(|n| buffer[..n].to_vec()).ok()
    };
    let (va, vb) = (ifindex("va"), ifindex("vb"));
    let text: Vec<u8> = (0..=255).cycle().take(1400).collect();
    // Worker threads are in the daemon's namespace, as a thread that starts here is.
    std::thread::scope(|s| {
        s.spawn(|| injector.inject(va, &to(&a, GW_MAC, &text)).unwrap());
    });
    assert_eq!(got(&a), Some(text.clone()));
    injector.inject(vb, &to(&a, VB_MAC, b"other device")).unwrap();
    assert_eq!(got(&a), None, "received on vb");
    injector.inject(va, &to(&b, GW_MAC, b"other device")).unwrap();
    assert_eq!(got(&b), None, "received on va");
    ip(&["addr", "add", "10.9.0.3/32", "dev", "vb"]).unwrap();
    injector.inject(vb, &to(&b, VB_MAC, b"this device")).unwrap();
    assert_eq!(got(&b), Some(b"this device".to_vec()));

    // What the stack refuses of anybody it refuses here.
    injector.inject(va, &to(&a, VB_MAC, b"another address")).unwrap();
    assert_eq!(got(&a), None);
    let mut wrong = to(&a, GW_MAC, b"wrong sum");
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    injector.inject(va, &wrong).unwrap();
    assert_eq!(got(&a), None);
    injector.inject(va, &to(&a, GW_MAC, b"alive")).unwrap();
    assert_eq!(got(&a), Some(b"alive".to_vec()));
}

#[test]
fn the_longest_frame_and_what_is_refused_by_name() {
    let Some(l) = lab() else { return };
    let (va, max) = (ifindex("va"), l.injector.max_frame());
    println!("longest frame: {max}");
    assert!((3000..4096).contains(&max) || max > 4096, "{max}");
    for dev in ["va", "vb"] {
        ip(&["link", "set", dev, "mtu", "9000"]).unwrap();
    }
    let ear = Ear::new("vb");
    let payload = vec![7; max - 14 - 20 - 8];
    let frame = ping(1, &payload);
    assert_eq!(frame.len(), max);
    l.injector.inject(va, &frame).unwrap();
    assert!(pong(&ear, 1, &payload), "a frame of {max} bytes");

    let e = l.injector.inject(va, &vec![0; max + 1]).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidInput);
    assert!(e.to_string().contains(&format!("{} bytes is too long", max + 1)), "{e}");
    let e = l.injector.inject(va, &[0; 13]).unwrap_err();
    assert!(e.to_string().contains("no link header"), "{e}");
    for nobody in [0, 4_000_000] {
        let e = l.injector.inject(nobody, &ping(2, b"")).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ENODEV), "{e}");
    }
    // The link header alone is nothing to the stack, and no error.
    l.injector.inject(va, &frame[..14]).unwrap();

    // While the device is down the stack has no use for the frame, and says nothing either.
    ip(&["link", "set", "va", "down"]).unwrap();
    l.injector.inject(va, &ping(3, b"down")).unwrap();
    ip(&["link", "set", "va", "up"]).unwrap();
    know_peer();
    l.injector.inject(va, &ping(4, b"up")).unwrap();
    assert!(!pong(&ear, 3, b"down"), "while down");
    l.injector.inject(va, &ping(4, b"up")).unwrap();
    assert!(pong(&ear, 4, b"up"));
}

#[test]
fn frame_after_frame_arrives_in_order() {
    let Some(l) = lab() else { return };
    let va = ifindex("va");
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let port = socket.local_addr().unwrap().port();
    let start = std::time::Instant::now();
    const N: u32 = 2000;
    for n in 0..N {
        let frame = v4(PEER, BOX, 17, udp(5000, port, &n.to_be_bytes())).frame(None);
        l.injector.inject(va, &frame).unwrap();
        let mut got = [0; 8];
        assert_eq!(socket.recv(&mut got).unwrap(), 4);
        assert_eq!(got[..4], n.to_be_bytes());
    }
    println!("{:.1} us a frame, received", start.elapsed().as_secs_f64() * 1e6 / f64::from(N));
}
