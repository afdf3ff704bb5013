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
#![allow(unsafe_code)]

mod kit;

use anyhow::{Context, Result, bail};
use kit::{attach, ifindex, keep_to_core, program};
use libbpf_rs::{MapCore, MapFlags, MapHandle, ObjectBuilder, libbpf_sys};
use sag_model::MacAddr;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Core of the source and of what the kernel does for the LAN device.
const CORE: usize = 1;
/// Frames that are made anew at a time by the kernel.
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

    keep_to_core(CORE)?;
    let object = include_bytes!(concat!(env!("OUT_DIR"), "/lab.bpf.o"));
    let lab = ObjectBuilder::default().name("lab")?.open_memory(object)?.load()?;
    let run = Words {
        map: MapHandle::try_from(&lab.maps().find(|m| m.name() == ".data.nat").context(".data.nat")?)?,
    };
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
        "xdp" => attach(program(&lab, "nat_sink_xdp")?, dev, libbpf_sys::BPF_XDP)?,
        "tcx" => attach(program(&lab, "nat_sink_tcx")?, dev, libbpf_sys::BPF_TCX_INGRESS)?,
        _ => bail!("sink: xdp or tcx"),
    };
    let (ns, dev) = get("lan")?.split_once(':').context("lan=NAMESPACE:DEVICE")?;
    enter(ns)?;
    let devs = lab.maps().find(|m| m.name() == "lab_devs").context("lab_devs")?;
    devs.update(&0u32.to_ne_bytes(), &ifindex(dev)?.to_ne_bytes(), MapFlags::ANY)?;

    source(program(&lab, "nat_source")?, Duration::from_millis(number("ms")?))?;
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

/// Runs the source until the time is over.
fn source(prog: BorrowedFd<'_>, time: Duration) -> Result<()> {
    let frame = [0u8; 60];
    let mut opts = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        repeat: i32::MAX,
        flags: libbpf_sys::BPF_F_TEST_XDP_LIVE_FRAMES,
        batch_size: BATCH,
        ..Default::default()
    };
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: plain structures that live through the calls; the handler does nothing. `opts` says
    // its size and points at a frame of the size given. The signal is what ends the run.
    let r = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
        let after = libc::itimerval {
            it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
            it_value: libc::timeval {
                tv_sec: time.as_secs() as libc::time_t,
                tv_usec: libc::suseconds_t::from(time.subsec_micros()),
            },
        };
        libc::setitimer(libc::ITIMER_REAL, &after, std::ptr::null_mut());
        libbpf_sys::bpf_prog_test_run_opts(prog.as_raw_fd(), &mut opts)
    };
    match r {
        0 => Ok(()),
        r if -r == libc::EINTR => Ok(()),
        r => bail!("live frames: {}", std::io::Error::from_raw_os_error(-r)),
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
    // SAFETY: buffers of the sizes given that live through the calls; our own descriptor.
    let got = unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER);
        if fd < 0 || libc::send(fd, message.as_ptr().cast(), message.len(), 0) < 0 {
            bail!("netlink: {}", std::io::Error::last_os_error());
        }
        let got = libc::recv(fd, answer.as_mut_ptr().cast(), answer.len(), 0);
        libc::close(fd);
        got
    };
    let error = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    if got < 20 || error != 0 {
        bail!("the kernel does not forget connections: {}", std::io::Error::from_raw_os_error(-error));
    }
    Ok(())
}

/// Into a named network namespace.
fn enter(ns: &str) -> Result<()> {
    let f = std::fs::File::open(format!("/run/netns/{ns}")).with_context(|| format!("namespace {ns}"))?;
    // SAFETY: no memory is passed; the process has a single thread.
    if unsafe { libc::setns(f.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        bail!("namespace {ns}: {}", std::io::Error::last_os_error());
    }
    Ok(())
}
