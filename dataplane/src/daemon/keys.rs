//! Control calls about the keys of ESP tunnels.

use crate::esp::{EspKeys, InstallError, KeyMaterial};
use sag_model::control::{self, Error, ErrorCode};
use sag_tunnel::esp::Switchover;
use sag_tunnel::keys::Announcement;
use sag_xsk::sys;

/// `tunnels-rekey`: installs a pair of associations.
pub fn rekey(keys: &mut EspKeys, q: &control::TunnelRekey) -> Result<control::Rekeyed, Error> {
    let bytes = |what: &str, k: &control::KeyText| {
        let text = format!("{what} is not made of pairs of hex digits");
        k.bytes().ok_or_else(|| Error::new(ErrorCode::BadRequest, text, "write key and 4-byte salt in hex"))
    };
    let (key_in, key_out) = (bytes("key_in", &q.key_in)?, bytes("key_out", &q.key_out)?);
    if key_in == key_out {
        let text = "key_in and key_out are the same: two senders under one key disclose the traffic";
        return Err(Error::new(ErrorCode::BadRequest, text, "make a key for each direction"));
    }
    let switch = match q.now {
        true => Switchover::Now,
        false => Switchover::PeerOr(sys::now().saturating_add(u64::from(q.wait) * 1_000_000_000)),
    };
    let inbound = KeyMaterial { spi: q.spi_in, bytes: &key_in };
    let outbound = KeyMaterial { spi: q.spi_out, bytes: &key_out };
    keys.install(&q.tunnel, &inbound, &outbound, switch).map_err(refusal)?;
    tracing::info!(
        tunnel = q.tunnel,
        spi_in = format_args!("{:#x}", q.spi_in),
        spi_out = format_args!("{:#x}", q.spi_out),
        "new keys: received by from now on"
    );
    Ok(control::Rekeyed { tunnels: vec![q.tunnel.clone()] })
}

/// `tunnels-confirm`: an operator answers for keys whose numbers are lost.
pub fn confirm(keys: &mut EspKeys, q: &control::TunnelConfirm) -> Result<control::Rekeyed, Error> {
    keys.confirm(&q.tunnel).map_err(refusal)?;
    tracing::warn!(tunnel = q.tunnel, "an operator has confirmed keys whose record is lost");
    Ok(control::Rekeyed { tunnels: vec![q.tunnel.clone()] })
}

/// `tunnels-key`: the gateway's public key.
pub fn public_key(keys: &mut EspKeys, q: &control::TunnelKeyQuery) -> Result<control::PublicKey, Error> {
    let a = keys.announce_with(&q.gateway, q.renew, q.epoch).map_err(refusal)?;
    let public_key = a.public.iter().map(|b| format!("{b:02x}")).collect();
    Ok(control::PublicKey { gateway: a.gateway, epoch: a.epoch, public_key })
}

/// `tunnels-peers`: takes the public keys of peers.
pub fn accept_peers(keys: &mut EspKeys, q: &control::TunnelPeers) -> Result<control::Rekeyed, Error> {
    let (mut tunnels, mut failed) = (Vec::new(), None);
    for p in &q.peers {
        let accepted = announced(p).and_then(|peer| {
            keys.accept_peer_key(&p.tunnel, &peer, &p.link).map_err(|error| {
                let refused = refusal(error);
                let message = format!("tunnel {:?}, peer {:?}: {}", p.tunnel, p.gateway, refused.message);
                Error { message, ..refused }
            })
        });
        match accepted {
            Ok(true) => {
                tracing::info!(tunnel = p.tunnel, peer = p.gateway, epoch = p.epoch, "keys agreed");
                tunnels.push(p.tunnel.clone());
            }
            Ok(false) => {}
            // One bad key does not hold up the others.
            Err(error) => {
                tracing::warn!(tunnel = p.tunnel, peer = p.gateway, error = error.message, "no keys agreed");
                failed.get_or_insert(error);
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(control::Rekeyed { tunnels }),
    }
}

fn announced(p: &control::TunnelPeer) -> Result<Announcement, Error> {
    let bytes = control::KeyText::new(p.public_key.clone()).bytes();
    let public = bytes.and_then(|b| <[u8; 32]>::try_from(&b[..]).ok()).ok_or_else(|| {
        let text = format!("the public key of {:?} is not 64 hex digits", p.gateway);
        Error::new(ErrorCode::BadRequest, text, "docs/tunnels-keys.md has the form")
    })?;
    Ok(Announcement { gateway: p.gateway.clone(), epoch: p.epoch, public })
}

fn refusal(e: InstallError) -> Error {
    let (code, remedy) = match &e {
        InstallError::NoTunnel(_) => (ErrorCode::NotFound, "sagctl tunnels lists them"),
        InstallError::ReservedSpi(_) => (ErrorCode::BadRequest, "take another SPI"),
        InstallError::SpiTaken { .. } => (ErrorCode::BadRequest, "take another SPI, or another key pair"),
        InstallError::Key(_) => (ErrorCode::BadRequest, "make keys of the tunnel's cipher"),
        InstallError::Refused(_) => (ErrorCode::Busy, "sagctl tunnels shows the associations"),
        InstallError::Agree(_) => (ErrorCode::BadRequest, "docs/tunnels-keys.md has the form"),
        InstallError::Withheld(..) | InstallError::KeyInUse => {
            (ErrorCode::BadRequest, "make new keys for both ends")
        }
        InstallError::Superseded(_) => {
            (ErrorCode::BadRequest, "let the peer make a new key, or this gateway: tunnels-key with renew")
        }
        InstallError::SameLink(_) => {
            (ErrorCode::BadRequest, "give each tunnel between two gateways a link of its own")
        }
        InstallError::TooManyKeys(_) => (ErrorCode::Busy, "make a new key: tunnels-key with renew"),
        InstallError::NothingWithheld(_) => (ErrorCode::BadRequest, "sagctl tunnels shows what is withheld"),
        InstallError::NoRing => (ErrorCode::BadRequest, "call tunnels-key first"),
    };
    Error::new(code, e.to_string(), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sag_compile::EspPlan;
    use sag_pipeline::tunnel::TunnelNo;

    /// Two tunnels with agreed keys, `bad` and `good`.
    fn keys() -> EspKeys {
        let mut text = "[[port]]\nname = \"0\"\ndevice = \"eth0\"\nrole = \"wan\"\n".to_owned();
        for (name, last) in [("bad", 2), ("good", 3)] {
            text += &format!(
                "[[tunnel]]\nname = \"{name}\"\nkind = \"esp\"\nkeying = \"agreed\"\n\
                 local = \"192.0.2.1\"\nremote = \"192.0.2.{last}\"\n"
            );
        }
        let config = sag_model::config::parse(&text, "test.toml").unwrap().config;
        let numbered = (1..).filter_map(TunnelNo::new).zip(config.tunnels).collect();
        let mut keys = EspKeys::default();
        keys.configure(&EspPlan { tunnels: numbered, ..EspPlan::default() });
        keys
    }

    #[test]
    fn one_bad_key_does_not_hold_up_the_others_and_is_named() {
        let own = control::TunnelKeyQuery { gateway: "own".into(), renew: false, epoch: Some(12) };
        let good = hex(&sag_tunnel::keys::KeyPair::generate("b", 1).unwrap());
        for bad in ["", "xyz", "ab", &"00".repeat(32)] {
            let mut keys = keys();
            assert_eq!(public_key(&mut keys, &own).unwrap().epoch, 12);
            let peer = |tunnel: &str, gateway: &str, key: &str| control::TunnelPeer {
                tunnel: tunnel.into(),
                gateway: gateway.into(),
                epoch: 1,
                public_key: key.into(),
                link: String::new(),
            };
            let peers = vec![peer("bad", "a", bad), peer("gone", "c", &good), peer("good", "b", &good)];
            let refused = accept_peers(&mut keys, &control::TunnelPeers { peers }).unwrap_err();
            assert!(refused.message.contains("\"a\""), "{bad}: {}", refused.message);
            assert!(keys.facts("good").is_some() && keys.facts("bad").is_none(), "{bad}");
        }
    }

    #[test]
    fn the_epoch_of_a_new_key_can_be_given() {
        let mut keys = keys();
        let mut make = |renew, epoch| {
            let q = control::TunnelKeyQuery { gateway: "own".into(), renew, epoch };
            public_key(&mut keys, &q).unwrap().epoch
        };
        assert_eq!(make(false, Some(1 << 60)), 1 << 60);
        assert_eq!(make(false, Some(5)), 1 << 60, "the key stays as long as it is good");
        assert_eq!((make(true, Some(500)), make(true, None)), (500, 501));
    }

    fn hex(pair: &sag_tunnel::keys::KeyPair) -> String {
        pair.announcement().public.iter().map(|b| format!("{b:02x}")).collect()
    }
}
