//! `[[tunnel]]`.

use super::dataplane::flag;
use super::scope::Scope;
use super::{Names, Seen};
use crate::config::raw::RawTunnel;
use crate::config::read::Opt;
use crate::config::report::{Path, Report};
use crate::config::types::{
    Encap, EspCipher, Fec, FragmentAt, Keying, MAX_TUNNELS, ManualKeys, OuterDf, OuterDscp, Probing, Secret,
    Tunnel,
};
use crate::config::value::{self, fault};
use std::net::IpAddr;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Vxlan,
    Gre,
    Ipip,
    Esp,
}

const KINDS: &[(&str, Kind)] =
    &[("vxlan", Kind::Vxlan), ("gre", Kind::Gre), ("ipip", Kind::Ipip), ("esp", Kind::Esp)];

/// What tells a received packet's tunnel: two tunnels must differ in it.
type Endpoint = (Kind, IpAddr, Option<IpAddr>, Option<u32>, Option<u16>);

#[derive(Default)]
struct Tables {
    endpoints: Option<Seen<Endpoint>>,
    keys: Option<Seen<Vec<u8>>>,
}

pub(super) fn tunnels(raw: &[RawTunnel], names: &Names, report: &mut Report<'_>) -> Vec<Tunnel> {
    const MAX: usize = MAX_TUNNELS;
    if let Some(extra) = raw.get(MAX) {
        let problem = format!("{} tunnels, which is above the limit of {MAX}", raw.len());
        report.error(&extra.span, &Path::ROOT.item("tunnel", MAX), problem, "remove some", "");
    }
    let mut tables = Tables::default();
    let mut out = Vec::with_capacity(raw.len());
    for (i, t) in raw.iter().enumerate() {
        let mut s = Scope::new(report, Path::ROOT.item("tunnel", i), &t.span);
        out.extend(tunnel(t, &mut s, names, &mut tables));
    }
    out
}

fn tunnel(raw: &RawTunnel, s: &mut Scope<'_, '_>, names: &Names, tables: &mut Tables) -> Option<Tunnel> {
    let name = s.need("name", &raw.name, "name the tunnel, as in name = \"pop1\"", "");
    let name = name.and_then(|v| s.identifier("name", v));
    let kind = s.word("kind", &raw.kind, KINDS, None, "");
    let local_at = s.need("local", &raw.local, "write the gateway's outer address", "");
    let local = local_at.and_then(|v| s.parse("local", v, "", |t| value::unicast(t)));
    let remote_at = s.need("remote", &raw.remote, "write the peer's outer address", "");
    let remote = remote_at.and_then(|v| s.parse("remote", v, "", |t| value::unicast(t)));
    if let (Some(local), Some(remote), Some(at)) = (local, remote, remote_at) {
        if local == remote {
            s.error(
                &at.span(),
                "remote",
                format!("{remote} is also the local end"),
                "write the peer's address",
                "",
            );
        } else if local.is_ipv4() != remote.is_ipv4() {
            let problem = format!("{remote} is of another IP version than local");
            s.error(&at.span(), "remote", problem, "write both ends in one version", "");
        } else if let Some(own) = names.addresses.0.get(&remote) {
            let problem = format!("{remote} is the gateway's own address, see {own}");
            s.error(&at.span(), "remote", problem, "write the peer's address", "");
        }
    }
    let mtu = s.maybe("mtu", &raw.mtu, "", |n| match u16::try_from(*n) {
        Ok(0) => Ok(None),
        Ok(m) if m >= 576 => Ok(Some(m)),
        _ => fault(format!("{n} is out of range"), "write a number from 576 to 65535, or 0 for the path's"),
    });
    let ttl = s.number("ttl", &raw.ttl, 1..=255, 64, "");
    let df = s.word("df", &raw.df, OuterDf::WORDS, Some(OuterDf::Set), "");
    let fragment = s.word("fragment", &raw.fragment, FragmentAt::WORDS, Some(FragmentAt::Inner), "");
    let dscp = s.maybe("dscp", &raw.dscp, "", |t| dscp(&t.0));
    let addresses = addresses(&raw.addresses, s, names);
    if let (Some(FragmentAt::Outer), Some(OuterDf::Set), Some(at)) = (fragment, df, &raw.df) {
        let problem = "forbids the fragments that fragment = \"outer\" asks for";
        s.error(&at.span(), "df", problem, "remove it, or fragment inside", "");
    }
    let encap = kind.and_then(|k| {
        foreign_keys(raw, k, s);
        encap(raw, k, local.is_some_and(|a| a.is_ipv6()), s, tables)
    });
    if let (Some(kind), Some(local), Some(remote), Some(encap)) = (kind, local, remote, &encap) {
        let endpoint = match encap {
            Encap::Vxlan { vni, port, .. } => (kind, local, Some(remote), Some(*vni), Some(*port)),
            Encap::Gre { key, .. } => (kind, local, Some(remote), *key, None),
            Encap::Ipip => (kind, local, Some(remote), None, None),
            // The SPI alone names the association at its receiver (RFC 4301, 4.1).
            Encap::Esp { manual: Some(k), .. } => (kind, local, None, Some(k.spi_in), None),
            Encap::Esp { .. } => (kind, local, Some(remote), None, None),
        };
        let at = s.span.clone();
        let place = s.place(&at, "local");
        if let Some(first) = tables.endpoints.get_or_insert_with(Seen::new).repeated(endpoint, place) {
            let problem = format!("received packets could belong to this tunnel or to that of {first}");
            let remedy = "let the two differ in local, remote, vni, key or spi_in";
            let at = local_at.map_or(at, |v| v.span());
            s.error(&at, "local", problem, remedy, "");
        }
    }
    let probing = probing(raw, s);
    let keepalive = keepalive(raw, kind, s);
    let fec = fec(raw, fragment, s);
    let fragment = fragment?;
    Some(Tunnel {
        name: name?,
        local: local?,
        remote: remote?,
        mtu: mtu?.flatten(),
        addresses: addresses?,
        ttl: ttl?,
        df: if fragment == FragmentAt::Outer { OuterDf::Clear } else { df? },
        dscp: dscp?.unwrap_or(OuterDscp::Copy),
        fragment,
        mss_clamp: flag(&raw.mss_clamp, true),
        probing: probing?,
        keepalive: keepalive?,
        fec: fec?,
        encap: encap?,
    })
}

fn probing(raw: &RawTunnel, s: &mut Scope<'_, '_>) -> Option<Probing> {
    let interval = s.maybe("probe_interval", &raw.probe_interval, "", |n| match u32::try_from(*n) {
        Ok(0) => Ok(0),
        Ok(n) if (20..=60_000).contains(&n) => Ok(n),
        _ => fault(format!("{n} is out of range"), "write 20 to 60000 milliseconds, or 0 for no probes"),
    });
    let loss = s.number("probe_loss", &raw.probe_loss, 1..=20, 3, "");
    let target = s.maybe("probe_target", &raw.probe_target, "", |t| value::unicast(t));
    Some(Probing { interval: interval?.unwrap_or(1000), loss: loss?, target: target? })
}

/// RFC 3948, 4: 20 s unless told otherwise, and only in UDP.
fn keepalive(raw: &RawTunnel, kind: Option<Kind>, s: &mut Scope<'_, '_>) -> Option<u16> {
    let seconds = s.number("keepalive", &raw.keepalive, 0..=3600, 20, "");
    if flag(&raw.udp_encap, false) {
        return seconds;
    }
    // Of another kind it is an error already.
    if let (Some(Kind::Esp), Some(at)) = (kind, &raw.keepalive) {
        let remedy = "set udp_encap = true or remove it";
        s.warn(&at.span(), "keepalive", "has no effect without udp_encap", remedy);
    }
    seconds.map(|_| 0)
}

fn fec(raw: &RawTunnel, fragment: Option<FragmentAt>, s: &mut Scope<'_, '_>) -> Option<Option<Fec>> {
    let window = s.number("fec_window", &raw.fec_window, 2..=32, 20, "");
    let repairs = s.number("fec_repairs", &raw.fec_repairs, 1..=8, 4, "");
    let delay = s.number("fec_delay", &raw.fec_delay, 1..=1000, 20, "");
    if !flag(&raw.fec, false) {
        let idle = [
            ("fec_window", &raw.fec_window),
            ("fec_repairs", &raw.fec_repairs),
            ("fec_delay", &raw.fec_delay),
        ];
        for (key, v) in idle.into_iter().filter_map(|(key, v)| v.as_ref().map(|v| (key, v))) {
            s.warn(&v.span(), key, "has no effect without fec", "set fec = true or remove it");
        }
        return Some(None);
    }
    if let (Some(FragmentAt::Outer), Some(at)) = (fragment, &raw.fec) {
        let problem = "repairs packets one by one, and fragment = \"outer\" splits them";
        s.error(&at.span(), "fec", problem, "remove it, or fragment inside", "");
    }
    let (window, repairs): (u8, u8) = (window?, repairs?);
    // Not said, they are as many as fit.
    let repairs = if raw.fec_repairs.is_some() { repairs } else { repairs.min(window) };
    if let (true, Some(at)) = (repairs > window, &raw.fec_repairs) {
        let problem = format!("{repairs} repairs for a window of {window} packets are more than it has");
        s.error(&at.span(), "fec_repairs", problem, "write at most fec_window", "");
    }
    Some(Some(Fec { window, repairs, delay: delay? }))
}

fn dscp(text: &str) -> Result<OuterDscp, value::Fault> {
    match (text, text.parse()) {
        ("copy", _) => Ok(OuterDscp::Copy),
        ("uniform", _) => Ok(OuterDscp::Uniform),
        (_, Ok(n)) if n < 64u8 => Ok(OuterDscp::Fixed(n)),
        _ => fault(
            format!("{}: is no code point", value::quote(text)),
            "write \"copy\", \"uniform\" or a number from 0 to 63",
        ),
    }
}

/// The gateway's addresses inside; no port has them.
fn addresses(
    raw: &Opt<Vec<toml::Spanned<String>>>,
    s: &mut Scope<'_, '_>,
    names: &Names,
) -> Option<Vec<ipnet::IpNet>> {
    let mut out = Vec::new();
    for a in raw.iter().flat_map(|l| l.get_ref()) {
        let net = s.parse("addresses", a, "", |t| {
            let net = value::network(t)?;
            value::unicast(&net.addr().to_string()).map(|_| net)
        })?;
        if let Some(own) = names.addresses.0.get(&net.addr()) {
            let problem = format!("{} is already an address of the gateway, see {own}", net.addr());
            s.error(&a.span(), "addresses", problem, "give the tunnel an address of its own", "");
            return None;
        }
        out.push(net);
    }
    Some(out)
}

/// Keys that mean nothing for a kind point at a mistaken kind.
fn foreign_keys(raw: &RawTunnel, kind: Kind, s: &mut Scope<'_, '_>) {
    let at = |key, v: &Opt<i64>, of| v.as_ref().map(|v| (key, v.span(), of));
    let text = |key, v: &Opt<String>, of| v.as_ref().map(|v| (key, v.span(), of));
    let given = [
        at("vni", &raw.vni, Kind::Vxlan),
        at("port", &raw.port, Kind::Vxlan),
        raw.udp_checksum.as_ref().map(|v| ("udp_checksum", v.span(), Kind::Vxlan)),
        text("mac", &raw.mac, Kind::Vxlan),
        text("remote_mac", &raw.remote_mac, Kind::Vxlan),
        at("key", &raw.key, Kind::Gre),
        raw.checksum.as_ref().map(|v| ("checksum", v.span(), Kind::Gre)),
        raw.sequence.as_ref().map(|v| ("sequence", v.span(), Kind::Gre)),
        at("spi_in", &raw.spi_in, Kind::Esp),
        at("spi_out", &raw.spi_out, Kind::Esp),
        text("key_in", &raw.key_in, Kind::Esp),
        text("key_out", &raw.key_out, Kind::Esp),
        raw.udp_encap.as_ref().map(|v| ("udp_encap", v.span(), Kind::Esp)),
        at("udp_port", &raw.udp_port, Kind::Esp),
        at("keepalive", &raw.keepalive, Kind::Esp),
        text("cipher", &raw.cipher, Kind::Esp),
        text("keying", &raw.keying, Kind::Esp),
        raw.esn.as_ref().map(|v| ("esn", v.span(), Kind::Esp)),
        at("replay_window", &raw.replay_window, Kind::Esp),
        raw.fec.as_ref().map(|v| ("fec", v.span(), Kind::Esp)),
        at("fec_window", &raw.fec_window, Kind::Esp),
        at("fec_repairs", &raw.fec_repairs, Kind::Esp),
        at("fec_delay", &raw.fec_delay, Kind::Esp),
    ];
    let word = |k: Kind| KINDS.iter().find(|(_, other)| *other == k).map_or("", |(w, _)| w);
    for (key, span, of) in given.into_iter().flatten().filter(|(_, _, of)| *of != kind) {
        let problem = format!("is a key of kind \"{}\", not of \"{}\"", word(of), word(kind));
        s.error(&span, key, problem, "remove it or change the kind", "");
    }
}

fn encap(raw: &RawTunnel, kind: Kind, v6: bool, s: &mut Scope<'_, '_>, tables: &mut Tables) -> Option<Encap> {
    match kind {
        Kind::Vxlan => {
            s.need("vni", &raw.vni, "write the VXLAN network identifier", "");
            let vni = s.number_opt("vni", &raw.vni, 0..=0xff_ffff, "");
            let port = s.number("port", &raw.port, 1..=65_535, 4789, "");
            let mut mac = |key, v: &Opt<String>| s.maybe(key, v, "", |t| super::port::unicast_mac(t));
            let (mac, remote_mac) = (mac("mac", &raw.mac), mac("remote_mac", &raw.remote_mac));
            Some(Encap::Vxlan {
                vni: vni??,
                port: port?,
                udp_checksum: flag(&raw.udp_checksum, v6),
                mac: mac?,
                remote_mac: remote_mac?,
            })
        }
        Kind::Gre => Some(Encap::Gre {
            key: s.number_opt("key", &raw.key, 0..=i64::from(u32::MAX), "")?,
            checksum: flag(&raw.checksum, false),
            sequence: flag(&raw.sequence, false),
        }),
        Kind::Ipip => Some(Encap::Ipip),
        Kind::Esp => {
            let cipher = s.word("cipher", &raw.cipher, EspCipher::WORDS, Some(EspCipher::AesGcm), "");
            let keying = s.word("keying", &raw.keying, Keying::WORDS, Some(Keying::Manual), "");
            let manual = match keying? {
                Keying::Manual => Some(manual(raw, cipher?, s, tables)?),
                Keying::Agreed => {
                    no_keys(raw, s);
                    None
                }
            };
            let replay_window = s.number("replay_window", &raw.replay_window, 64..=1 << 20, 16_384, "");
            let udp_port = s.number("udp_port", &raw.udp_port, 1..=65_535, 4500, "");
            let encap = flag(&raw.udp_encap, false);
            if let (false, Some(at)) = (encap, &raw.udp_port) {
                s.warn(
                    &at.span(),
                    "udp_port",
                    "has no effect without udp_encap",
                    "set udp_encap = true or remove it",
                );
            }
            let esn = flag(&raw.esn, true);
            if let (true, None, Some(at)) = (!esn, &manual, &raw.esn) {
                let problem = "agreed keys come with extended sequence numbers";
                s.error(&at.span(), "esn", problem, "remove it", "");
            }
            Some(Encap::Esp {
                cipher: cipher?,
                manual,
                esn,
                replay_window: replay_window?,
                udp_port: encap.then_some(udp_port?),
            })
        }
    }
}

fn manual(
    raw: &RawTunnel,
    cipher: EspCipher,
    s: &mut Scope<'_, '_>,
    tables: &mut Tables,
) -> Option<ManualKeys> {
    let spi_in = spi(s, "spi_in", &raw.spi_in);
    let spi_out = spi(s, "spi_out", &raw.spi_out);
    let key_in = key(s, "key_in", &raw.key_in, cipher, tables);
    let key_out = key(s, "key_out", &raw.key_out, cipher, tables);
    Some(ManualKeys { spi_in: spi_in?, spi_out: spi_out?, key_in: key_in?, key_out: key_out? })
}

/// Keys that are agreed are not written down.
fn no_keys(raw: &RawTunnel, s: &mut Scope<'_, '_>) {
    let number = |key, v: &Opt<i64>| v.as_ref().map(|v| (key, v.span()));
    let text = |key, v: &Opt<String>| v.as_ref().map(|v| (key, v.span()));
    let given = [
        number("spi_in", &raw.spi_in),
        number("spi_out", &raw.spi_out),
        text("key_in", &raw.key_in),
        text("key_out", &raw.key_out),
    ];
    for (key, span) in given.into_iter().flatten() {
        let problem = "means nothing with keying = \"agreed\"";
        s.error(&span, key, problem, "remove it, or set keying = \"manual\"", "");
    }
}

/// RFC 4303, 2.1: 0 is for local use and 1..=255 are reserved.
fn spi(s: &mut Scope<'_, '_>, key: &str, v: &Opt<i64>) -> Option<u32> {
    s.need(key, v, "write the security parameters index", "")?;
    s.number_opt(key, v, 256..=i64::from(u32::MAX), "")?
}

fn key(
    s: &mut Scope<'_, '_>,
    name: &str,
    v: &Opt<String>,
    cipher: EspCipher,
    tables: &mut Tables,
) -> Option<Secret> {
    const AES: &str =
        "write 40 hex digits (AES-128-GCM) or 72 (AES-256-GCM): the key followed by the 4-byte salt";
    const CHACHA: &str = "write 72 hex digits: the key followed by the 4-byte salt";
    let (form, lengths): (_, &[usize]) = match cipher {
        EspCipher::AesGcm => (AES, &[20, 36]),
        EspCipher::ChaCha20Poly1305 => (CHACHA, &[36]),
    };
    let v = s.need(name, v, form, "")?;
    // Not even a wrong key is repeated in a message.
    let bytes = s.parse(name, v, "", |t| match value::hex(t) {
        Some(bytes) if lengths.contains(&bytes.len()) => Ok(bytes),
        Some(bytes) => fault(format!("has {} hex digits", bytes.len() * 2), form),
        None => fault("is not made of pairs of hex digits", form),
    })?;
    let place = s.place(&v.span(), name);
    if let Some(first) = tables.keys.get_or_insert_with(Seen::new).repeated(bytes.clone(), place) {
        let problem = format!("is the same key and salt as {first}");
        let remedy =
            "two senders under one key repeat nonces, which discloses the traffic: make a key for each";
        s.warn(&v.span(), name, problem, remedy);
    }
    Some(Secret::new(bytes))
}
