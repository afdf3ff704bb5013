//! `[[tunnel]]`.

use super::{Names, Seen};
use crate::config::keys::{RawTunnel, Tunnel};
use crate::config::report::{Path, Report, Span};
use crate::config::schema::RawTable;
use crate::config::scope::{Opt, Scope};
use crate::config::types::{
    Encap, EspCipher, Fec, FragmentAt, Keying, MAX_TUNNELS, ManualKeys, OuterDf, Probing, Secret, TunnelKind,
};
use crate::config::value::{self, fault};
use std::net::IpAddr;

/// What identifies the tunnel of a received packet: two tunnels must differ in it.
type Endpoint = (TunnelKind, IpAddr, Option<IpAddr>, Option<u32>, Option<u16>);

#[derive(Default)]
struct Tables {
    endpoints: Option<Seen<Endpoint>>,
    keys: Option<Seen<Vec<u8>>>,
    devices: Option<Seen<String>>,
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
    // Its place among missing keys is behind the name.
    let mut read = raw.read(s);
    let vrf = names.check_vrf(s, &raw.vrf);
    let kind = Tunnel::KEYS.kind.read(s, &raw.kind);
    let (local, remote, fragment) = (read.local, read.remote, read.fragment);
    if let (Some(local), Some(remote), Some(at)) = (local, remote, &raw.remote) {
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
        } else if let Some(own) = names.addresses.0.get(&(None, remote)) {
            let problem = format!("{remote} is the gateway's own address, see {own}");
            s.error(&at.span(), "remote", problem, "write the peer's address", "");
        }
    }
    let addresses = addresses(&raw.addresses, read.vrf.as_ref(), s, names);
    if let (Some(FragmentAt::Outer), Some(OuterDf::Set), Some(at)) = (fragment, read.df, &raw.df) {
        let problem = "forbids the fragments that fragment = \"outer\" makes";
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
            let at = raw.local.as_ref().map_or(at, |v| v.span());
            s.error(&at, "local", problem, remedy, "");
        }
    }
    if let (Some(Some(device)), Some(at)) = (&read.device, &raw.device) {
        check_device(device, &at.span(), (raw.vrf.is_some(), names), s, tables);
    }
    let device_sources = match &raw.device_sources {
        None => Some(Vec::new()),
        Some(list) => networks("device_sources", list, s),
    };
    if let (None, Some(at)) = (&raw.device, &raw.device_sources) {
        s.warn(&at.span(), "device_sources", "has no effect without device", "name a device or remove it");
    }
    let probing = probing(raw, s);
    let fec = fec(raw, fragment, s);
    if !flag(&raw.udp_encap) {
        // Of another kind it is an error already.
        if let (Some(TunnelKind::Esp), Some(at)) = (kind, &raw.keepalive) {
            let remedy = "set udp_encap = true or remove it";
            s.warn(&at.span(), "keepalive", "has no effect without udp_encap", remedy);
        }
        read.keepalive = read.keepalive.map(|_| 0);
    }
    if fragment == Some(FragmentAt::Outer) {
        read.df = read.df.map(|_| OuterDf::Clear);
    }
    let sources = sources(&raw.sources, &raw.reverse_path, s);
    vrf?;
    read.finish(addresses?, device_sources?, sources?, probing?, fec?, encap?)
}

/// The kernel's device of a tunnel is nobody else's.
fn check_device(
    device: &str,
    at: &Span,
    (in_vrf, names): (bool, &Names),
    s: &mut Scope<'_, '_>,
    tables: &mut Tables,
) {
    // Directories beside those of devices in /proc/sys/net/ipv4/conf, and the loopback device.
    if matches!(device, "all" | "default" | "lo") {
        let problem = format!("{} is a name of the kernel's own", value::quote(device));
        s.error(at, "device", problem, "write another name", "");
    } else if names.devices.contains(device) {
        let problem = format!("{} is the device of a port", value::quote(device));
        s.error(at, "device", problem, "write a name that no device has", "");
    } else if let Some(first) =
        tables.devices.get_or_insert_with(Seen::new).repeated(device.to_owned(), s.place(at, "device"))
    {
        let problem = format!("{} is already {first}", value::quote(device));
        s.error(at, "device", problem, "give each tunnel a device of its own", "");
    }
    if in_vrf {
        let problem = "is for the default VRF: the kernel has one table for all that is the machine's own";
        s.error(at, "device", problem, "remove it, or vrf", "");
    }
}

fn probing(raw: &RawTunnel, s: &mut Scope<'_, '_>) -> Option<Probing> {
    let interval = Tunnel::KEYS.probe_interval.read(s, &raw.probe_interval);
    let loss = Tunnel::KEYS.probe_loss.read(s, &raw.probe_loss);
    let target = Tunnel::KEYS.probe_target.read(s, &raw.probe_target);
    Some(Probing { interval: interval?, loss: loss?, target: target? })
}

/// A boolean key that is off by default.
fn flag(v: &Opt<bool>) -> bool {
    v.as_ref().is_some_and(|v| *v.get_ref())
}

fn fec(raw: &RawTunnel, fragment: Option<FragmentAt>, s: &mut Scope<'_, '_>) -> Option<Option<Fec>> {
    let window = Tunnel::KEYS.fec_window.read(s, &raw.fec_window);
    let repairs = Tunnel::KEYS.fec_repairs.read(s, &raw.fec_repairs);
    let delay = Tunnel::KEYS.fec_delay.read(s, &raw.fec_delay);
    if !flag(&raw.fec) {
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
    let (window, repairs) = (window?, repairs?);
    // The default is as many as fit.
    let repairs = if raw.fec_repairs.is_some() { repairs } else { repairs.min(window) };
    if let (true, Some(at)) = (repairs > window, &raw.fec_repairs) {
        let problem = format!("{repairs} repairs for a window of {window} packets are more than it has");
        s.error(&at.span(), "fec_repairs", problem, "write at most fec_window", "");
    }
    Some(Some(Fec { window, repairs, delay: delay? }))
}

/// The gateway's addresses inside; no port has them.
fn addresses(
    raw: &Opt<Vec<toml::Spanned<String>>>,
    vrf: Option<&Option<String>>,
    s: &mut Scope<'_, '_>,
    names: &Names,
) -> Option<Vec<ipnet::IpNet>> {
    let mut out = Vec::new();
    for a in raw.iter().flat_map(|l| l.get_ref()) {
        let net = s.parse("addresses", a, "", |t| {
            let net = value::network(t)?;
            value::unicast(&net.addr().to_string()).map(|_| net)
        })?;
        if let Some(own) = names.addresses.0.get(&(vrf.cloned().flatten(), net.addr())) {
            let problem = format!("{} is already an address of the gateway, see {own}", net.addr());
            s.error(&a.span(), "addresses", problem, "give the tunnel an address of its own", "");
            return None;
        }
        out.push(net);
    }
    Some(out)
}

/// The networks behind the peer.
fn sources<T>(
    raw: &Opt<Vec<toml::Spanned<String>>>,
    reverse_path: &Opt<T>,
    s: &mut Scope<'_, '_>,
) -> Option<Vec<ipnet::IpNet>> {
    let Some(list) = raw else { return Some(Vec::new()) };
    if list.get_ref().is_empty() {
        let problem = "is empty: nothing could come out of the tunnel";
        s.error(&list.span(), "sources", problem, "write the networks behind the peer, or remove it", "");
        return None;
    }
    if let Some(at) = reverse_path {
        let problem = "has no effect beside sources";
        s.warn(&at.span(), "reverse_path", problem, "remove one of the two");
    }
    networks("sources", list, s)
}

fn networks(
    key: &str,
    list: &toml::Spanned<Vec<toml::Spanned<String>>>,
    s: &mut Scope<'_, '_>,
) -> Option<Vec<ipnet::IpNet>> {
    let mut out = Vec::with_capacity(list.get_ref().len());
    for (i, item) in list.get_ref().iter().enumerate() {
        out.push(s.parse(&format!("{key}[{i}]"), item, "", |t| value::network(t))?.trunc());
    }
    Some(out)
}

/// Keys that mean nothing for a kind point at a mistaken kind.
fn foreign_keys(raw: &RawTunnel, kind: TunnelKind, s: &mut Scope<'_, '_>) {
    for (info, span) in
        raw.present().into_iter().filter(|(k, _)| !k.kinds.is_empty() && k.kinds != kind.as_str())
    {
        let problem = format!("is a key of kind \"{}\", not of \"{kind}\"", info.kinds);
        s.error(&span, info.name, problem, "remove it or change the kind", "");
    }
}

fn encap(
    raw: &RawTunnel,
    kind: TunnelKind,
    v6: bool,
    s: &mut Scope<'_, '_>,
    tables: &mut Tables,
) -> Option<Encap> {
    const KEYS: crate::config::keys::TunnelKeys = Tunnel::KEYS;
    match kind {
        TunnelKind::Vxlan => {
            let vni = KEYS.vni.read(s, &raw.vni);
            let port = KEYS.port.read(s, &raw.port);
            let mac = KEYS.mac.read(s, &raw.mac);
            let remote_mac = KEYS.remote_mac.read(s, &raw.remote_mac);
            Some(Encap::Vxlan {
                vni: vni?,
                port: port?,
                udp_checksum: KEYS.udp_checksum.read(s, &raw.udp_checksum)?.unwrap_or(v6),
                mac: mac?,
                remote_mac: remote_mac?,
            })
        }
        TunnelKind::Gre => Some(Encap::Gre {
            key: KEYS.key.read(s, &raw.key)?,
            checksum: KEYS.checksum.read(s, &raw.checksum)?,
            sequence: KEYS.sequence.read(s, &raw.sequence)?,
        }),
        TunnelKind::Ipip => Some(Encap::Ipip),
        TunnelKind::Esp => esp(raw, s, tables),
    }
}

fn esp(raw: &RawTunnel, s: &mut Scope<'_, '_>, tables: &mut Tables) -> Option<Encap> {
    let cipher = Tunnel::KEYS.cipher.read(s, &raw.cipher);
    let keying = Tunnel::KEYS.keying.read(s, &raw.keying);
    let manual = match keying? {
        Keying::Manual => Some(manual(raw, cipher?, s, tables)?),
        Keying::Agreed => {
            no_keys(raw, s);
            None
        }
    };
    let replay_window = Tunnel::KEYS.replay_window.read(s, &raw.replay_window);
    let udp_port = Tunnel::KEYS.udp_port.read(s, &raw.udp_port);
    let udp_encap = flag(&raw.udp_encap);
    if let (false, Some(at)) = (udp_encap, &raw.udp_port) {
        let remedy = "set udp_encap = true or remove it";
        s.warn(&at.span(), "udp_port", "has no effect without udp_encap", remedy);
    }
    let esn = Tunnel::KEYS.esn.read(s, &raw.esn)?;
    if let (true, None, Some(at)) = (!esn, &manual, &raw.esn) {
        s.error(&at.span(), "esn", "agreed keys come with extended sequence numbers", "remove it", "");
    }
    Some(Encap::Esp {
        cipher: cipher?,
        manual,
        esn,
        replay_window: replay_window?,
        udp_port: udp_encap.then_some(udp_port?),
    })
}

fn manual(
    raw: &RawTunnel,
    cipher: EspCipher,
    s: &mut Scope<'_, '_>,
    tables: &mut Tables,
) -> Option<ManualKeys> {
    let spi_in = Tunnel::KEYS.spi_in.read(s, &raw.spi_in);
    let spi_out = Tunnel::KEYS.spi_out.read(s, &raw.spi_out);
    let key_in = key(s, "key_in", &raw.key_in, cipher, tables);
    let key_out = key(s, "key_out", &raw.key_out, cipher, tables);
    Some(ManualKeys { spi_in: spi_in?, spi_out: spi_out?, key_in: key_in?, key_out: key_out? })
}

/// Keys that are agreed are not written down.
fn no_keys(raw: &RawTunnel, s: &mut Scope<'_, '_>) {
    let given: [(&str, Option<Span>); 4] = [
        ("spi_in", raw.spi_in.as_ref().map(|v| v.span())),
        ("spi_out", raw.spi_out.as_ref().map(|v| v.span())),
        ("key_in", raw.key_in.as_ref().map(|v| v.span())),
        ("key_out", raw.key_out.as_ref().map(|v| v.span())),
    ];
    for (key, span) in given.into_iter().filter_map(|(key, span)| Some((key, span?))) {
        let problem = "means nothing with keying = \"agreed\"";
        s.error(&span, key, problem, "remove it, or set keying = \"manual\"", "");
    }
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
    if v.is_none() {
        s.missing(name, form, "");
    }
    let v = v.as_ref()?;
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
        s.error(&v.span(), name, problem, remedy, "");
    }
    Some(Secret::new(bytes))
}
