//! Which associations are in use while keys change.

use super::*;
use sag_model::config;
use sag_pipeline::ids::TunnelNo;

/// The first tunnel of a configuration, with number 1.
fn plan(config: Config) -> EspPlan {
    EspPlan {
        lifetime: Lifetime::default(),
        tunnels: vec![(TunnelNo::new(1).unwrap(), config.tunnels[0].clone())],
    }
}

fn config(tunnel: &str) -> Config {
    let ports = "[[port]]\nname = \"0\"\ndevice = \"eth0\"\nrole = \"wan\"\n";
    config::parse(&format!("{ports}{tunnel}"), "test.toml").unwrap().config
}

#[test]
fn the_configurations_keys_are_in_force_after_a_reload_whatever_their_spis() {
    let keyed = |spi: u32, key_in: char, key_out: char| {
        let key = |c: char| c.to_string().repeat(40);
        config(&format!(
            "[[tunnel]]\nname = \"t\"\nkind = \"esp\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n\
             spi_in = {spi}\nspi_out = {}\nkey_in = \"{}\"\nkey_out = \"{}\"\n",
            spi + 1,
            key(key_in),
            key(key_out)
        ))
    };
    let mut esp = EspKeys::default();
    let mut load = |config: Config| {
        esp.configure(&plan(config));
        let facts = esp.facts("t").unwrap();
        let sas = esp.associations.load();
        let _ = sas.outbound(TunnelNo::new(1).unwrap()).unwrap().reserve(5);
        (facts.spi_in, facts.spi_out, facts.sequence, facts.waits)
    };
    assert_eq!(load(keyed(0x1001, 'a', 'b')), (vec![0x1001], 0x1002, 1, false));
    // Other SPIs: both are received by, and sending waits for the peer.
    assert_eq!(load(keyed(0x2001, 'c', 'd')), (vec![0x1001, 0x2001], 0x1002, 6, true));
    // While that waits the file changes again.
    assert_eq!(load(keyed(0x3001, 'e', 'f')), (vec![0x3001], 0x3002, 1, false));
    // The same SPIs with one other key: the other direction's numbers go on.
    assert_eq!(load(keyed(0x3001, 'a', 'f')), (vec![0x3001], 0x3002, 6, false));
    assert_eq!(load(keyed(0x3001, 'a', 'b')), (vec![0x3001], 0x3002, 1, false));
}

/// The keys of two gateways with one tunnel between them whose keys are agreed.
fn agreeing() -> [EspKeys; 2] {
    let text = "[[tunnel]]\nname = \"t\"\nkind = \"esp\"\nkeying = \"agreed\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n";
    std::array::from_fn(|_| {
        let mut esp = EspKeys::default();
        esp.configure(&plan(config(text)));
        esp
    })
}

/// One packet by the association that one gateway sends by; whether the other can open it.
fn carries(from: &EspKeys, to: &EspKeys) -> bool {
    use sag_tunnel::esp::{HEADROOM, Inner, TAILROOM};
    let mut buf = vec![0u8; HEADROOM + 20 + TAILROOM];
    buf[HEADROOM] = 0x45;
    buf[HEADROOM + 3] = 20;
    let out = from.associations.load();
    let sealed = out
        .outbound(TunnelNo::new(1).unwrap())
        .unwrap()
        .seal(&mut buf, HEADROOM..HEADROOM + 20, Inner::V4)
        .unwrap();
    let spi = u32::from_be_bytes(buf[sealed.at.start..sealed.at.start + 4].try_into().unwrap());
    let known = to.facts("t").unwrap().spi_in.contains(&spi);
    known && to.opens(&mut buf[sealed.at.clone()], spi)
}

#[test]
fn keys_that_cross_on_their_way_leave_the_old_ones_in_use() {
    let [mut a, mut b] = agreeing();
    let (a1, b1) = (a.announce("a", false).unwrap(), b.announce("b", false).unwrap());
    assert!(a.accept_peer_key("t", &b1, "").unwrap() && b.accept_peer_key("t", &a1, "").unwrap());
    assert!(carries(&a, &b) && carries(&b, &a));
    // Both make new keys, and each learns the other's old one again before it hears of the new.
    let (a2, b2) = (a.announce("a", true).unwrap(), b.announce("b", true).unwrap());
    assert!(!a.accept_peer_key("t", &b1, "").unwrap() && !b.accept_peer_key("t", &a1, "").unwrap());
    let before = (a.facts("t").unwrap().spi_out, b.facts("t").unwrap().spi_out);
    for (who, news) in [(0, &b2), (1, &a2)] {
        let end = if who == 0 { &mut a } else { &mut b };
        assert!(end.accept_peer_key("t", news, "").unwrap());
        assert!(carries(&a, &b) && carries(&b, &a), "by the keys before");
        a.poll();
        b.poll();
    }
    assert_eq!((a.facts("t").unwrap().spi_out, b.facts("t").unwrap().spi_out), before);
    let (fa, fb) = (a.facts("t").unwrap(), b.facts("t").unwrap());
    assert!(fa.waits && fb.waits && fa.spi_in.len() == 3 && fb.spi_in.len() == 3);
}

#[test]
fn who_has_made_a_new_key_receives_by_it_before_the_peer_has_heard() {
    let [mut a, mut b] = agreeing();
    let (a1, b1) = (a.announce("a", false).unwrap(), b.announce("b", false).unwrap());
    assert!(a.accept_peer_key("t", &b1, "").unwrap() && b.accept_peer_key("t", &a1, "").unwrap());
    assert!(carries(&a, &b) && carries(&b, &a));
    let before = a.facts("t").unwrap().spi_out;
    let b2 = b.announce("b", true).unwrap();
    assert!(carries(&b, &a), "still by the keys before");
    assert!(a.accept_peer_key("t", &b2, "").unwrap());
    assert_ne!(a.facts("t").unwrap().spi_out, before, "the peer has the pair");
    assert!(carries(&a, &b));
    b.poll();
    assert!(carries(&b, &a) && !b.facts("t").unwrap().waits);
}

#[test]
fn a_new_key_is_made_after_half_of_the_bytes_and_not_again_before_it_is_used() {
    use sag_tunnel::keys::Lifetime;
    let [mut a, mut b] = agreeing();
    a.set_lifetime(Lifetime { time: u64::MAX, bytes: 2_000 });
    let (a1, b1) = (a.announce("a", false).unwrap(), b.announce("b", false).unwrap());
    assert!(a.accept_peer_key("t", &b1, "").unwrap() && b.accept_peer_key("t", &a1, "").unwrap());
    while a.facts("t").unwrap().bytes < 1_000 {
        assert_eq!(a.announce("a", false).unwrap(), a1);
        assert!(carries(&a, &b) && carries(&b, &a));
    }
    let a2 = a.announce("a", false).unwrap();
    assert_eq!(a2.epoch, a1.epoch + 1);
    // It is on its way to the peer: asked again and again, the gateway does not make another.
    assert_eq!(a.announce("a", false).unwrap(), a2);
    assert!(!a.accept_peer_key("t", &b1, "").unwrap());
    assert_eq!(a.announce("a", false).unwrap(), a2);
    assert!(carries(&a, &b) && a.facts("t").unwrap().waits);
    // The peer hears, and sends by it at once; then so do we.
    assert!(b.accept_peer_key("t", &a2, "").unwrap());
    assert!(carries(&b, &a));
    a.poll();
    let f = a.facts("t").unwrap();
    assert!(!f.waits && f.bytes == 0 && carries(&a, &b));
    assert_eq!(a.announce("a", false).unwrap(), a2);
}
