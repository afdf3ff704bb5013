//! Traffic for a gateway that translates sources, and the count of what comes out behind it:
//!
//! ```text
//! source ─► lan device ═ [gateway] ═ wan device [sink]
//! ```
//!
//! `nat_load KEY=VALUE…`, one run; prints a line of JSON. Of the two devices the far ends from the
//! gateway are meant, each in its network namespace. `nat_load flush=NAMESPACE` forgets the kernel's
//! connections there instead. Needs root; `benches/nat-bench.sh` calls it.
//!
//! | key | |
//! |---|---|
//! | `lan`, `wan` | `NAMESPACE:DEVICE` |
//! | `mac`, `outside` | the gateway's address on the LAN, the one that sources become |
//! | `sink` | what counts at the far end: `xdp` or `tcx`, whichever is cheaper for what is sent there |
//! | `endpoints`, `flows` | inside endpoints; flows in all, at most 64 of an endpoint |
//! | `order` | `ascending`: flow after flow; `shuffled` |
//! | `frames` | to send at most; as many as `flows` makes every frame a new flow |
//! | `window` | frames under way at most: what keeps the load from overrunning the gateway |
//! | `ms` | the run ends then at the latest |
mod kit;

use anyhow::{Context, Result, bail};
use kit::{ifindex, map, program, restart_below};
use libbpf_rs::{MapCore, MapFlags, MapHandle, ObjectBuilder};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sag_bpf::{LiveFrames, attach_tcx, attach_xdp};
use sag_model::MacAddr;
use sag_pktgen::place::keep_to_core;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::Duration;

/// Core of the source and of what the kernel does for the LAN device.
const CORE: usize = 1;
/// Frames that are made at a time by the kernel.
const BATCH: u32 = 64;

fn main() -> Result<()> {
    let args: HashMap<String, String> = std::env::args()
        .skip(1)
        .map(|a| a.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).context(a.clone()))
        .collect::<Result<_>>()
        .context("arguments are KEY=VALUE")?;
    if let Some(ns) = args.get("flush") {
        enter(ns)?;
        return flush_connections();
    }
    let get = |key: &str| args.get(key).with_context(|| format!("{key}=… is missing"));
    let number = |key: &str| -> Result<u64> { get(key)?.parse().with_context(|| key.to_owned()) };
    let mac: MacAddr = get("mac")?.parse().map_err(|_| anyhow::anyhow!("mac={}", args["mac"]))?;
    let outside: Ipv4Addr = get("outside")?.parse().context("outside")?;
    let (endpoints, flows) = (number("endpoints")?, number("flows")?);
    if endpoints == 0 || endpoints > 60_000 || flows == 0 || flows > endpoints * 64 {
        bail!("endpoints: 1 to 60000; flows: 1 to 64 of each");
    }
    let stride = match get("order")?.as_str() {
        "ascending" => 1,
        "shuffled" if flows % 7919 != 0 => 7919 % flows,
        _ => bail!("order: ascending or shuffled"),
    };

    // One core, before what else runs there.
    restart_below(&["chrt", "-f", "10"])?;
    keep_to_core(CORE)?;
    let object = include_bytes!(concat!(env!("OUT_DIR"), "/lab.bpf.o"));
    let lab = ObjectBuilder::default().name("lab")?.open_memory(object)?.load()?;
    let run = Words { map: map(&lab, ".data.nat")? };
    let [a, b, c, d, e, f] = mac.0;
    run.store(&[
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0]),
        endpoints | flows << 32,
        stride | u64::from(u32::from_le_bytes(outside.octets())) << 32,
        number("frames")?,
        number("window")?,
    ])?;

    let (ns, dev) = get("wan")?.split_once(':').context("wan=NAMESPACE:DEVICE")?;
    enter(ns)?;
    let _sink = match get("sink")?.as_str() {
        "xdp" => attach_xdp(program(&lab, "nat_sink_xdp")?.as_fd(), ifindex(dev)?)?,
        "tcx" => attach_tcx(program(&lab, "nat_sink_tcx")?.as_fd(), ifindex(dev)?)?,
        _ => bail!("sink: xdp or tcx"),
    };
    let (ns, dev) = get("lan")?.split_once(':').context("lan=NAMESPACE:DEVICE")?;
    enter(ns)?;
    map(&lab, "lab_devs")?.update(&0u32.to_ne_bytes(), &ifindex(dev)?.to_ne_bytes(), MapFlags::ANY)?;

    let limit = Some(Duration::from_millis(number("ms")?));
    let frames = LiveFrames { frame: &[0; 60], runs: i32::MAX as u32, batch: BATCH, limit };
    frames.send(program(&lab, "nat_source")?.as_fd())?;
    // What is under way arrives.
    std::thread::sleep(Duration::from_millis(30));
    let w = run.load()?;
    let [sent, started, received, distinct, foreign, last] =
        [SENT, STARTED, RECEIVED, DISTINCT, FOREIGN, LAST].map(|i| w.get(i).copied().unwrap_or(0));
    println!(
        "{{\"sent\":{sent},\"received\":{received},\"distinct\":{distinct},\"foreign\":{foreign},\"ns\":{}}}",
        last.saturating_sub(started)
    );
    Ok(())
}

// Words of `struct nat_lab`.
const SENT: usize = 6;
const STARTED: usize = 8;
const RECEIVED: usize = 16;
const DISTINCT: usize = 17;
const FOREIGN: usize = 18;
const LAST: usize = 19;

/// The variables of the programs.
struct Words {
    map: MapHandle,
}

impl Words {
    fn load(&self) -> Result<Vec<u64>> {
        let v = self.map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?.context("empty")?;
        Ok(v.chunks_exact(8).map(|c| u64::from_ne_bytes(c.try_into().unwrap_or([0; 8]))).collect())
    }

    /// The first words; the others become 0.
    fn store(&self, words: &[u64]) -> Result<()> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        bytes.resize(self.map.value_size() as usize, 0);
        Ok(self.map.update(&0u32.to_ne_bytes(), &bytes, MapFlags::ANY)?)
    }
}

/// Forgets all connections of the namespace (`IPCTNL_MSG_CT_DELETE` without a tuple).
fn flush_connections() -> Result<()> {
    // Length, type (subsystem 1, message 2), flags (request, acknowledge), sequence, port; family,
    // version, resource.
    let mut message = Vec::new();
    message.extend(20u32.to_ne_bytes());
    message.extend((1u16 << 8 | 2).to_ne_bytes());
    message.extend(5u16.to_ne_bytes());
    message.extend([1u32, 0].map(u32::to_ne_bytes).concat());
    message.extend([0; 4]);
    let mut answer = [0u8; 64];
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?;
    send(&socket, &message, SendFlags::empty())?;
    let (got, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    let error = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    if got < 20 || error != 0 {
        bail!("the kernel does not forget connections: {}", std::io::Error::from_raw_os_error(-error));
    }
    Ok(())
}

/// Into a named network namespace.
fn enter(ns: &str) -> Result<()> {
    let f = std::fs::File::open(format!("/run/netns/{ns}")).with_context(|| format!("namespace {ns}"))?;
    move_into_link_name_space(f.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("namespace {ns}"))
}
