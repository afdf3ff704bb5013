//! Keys of the program and of the device as a whole: `[dataplane]`, `[timeouts]`, `[bandwidth]`.

use crate::config::schema::{Identifier, LogFilter, MetricsAddress, SocketPath, ZeroIsNone, key, table};
use crate::config::types::{FailAction, KernelSettings, MAX_MBPS, Mbps, Policy, Sandbox, XdpMode, ZeroCopy};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The smallest flow table in which others connect as before while one host floods: below it, what rests after its end and
/// what one busy host has of closed connections leave too little.
const MIN_FLOWS: u32 = 1_024;

/// Longest time without traffic, in seconds.
const WEEK: i64 = 604_800;

table! {
    /// The program.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Dataplane: Default as RawDataplane, DataplaneKeys, ReadDataplane {
        /// Worker threads.
        pub workers: Option<u8> = None =>
            key().range(1, 64).absent("one per core, at most one per queue").example("2").at_start();
        /// How XDP attaches; `auto`: native where the driver can; `tc`: for TCP between hosts and guests that leave
        /// segmentation to offloads ([network cards](nics.md#tc-mode)).
        pub mode: XdpMode = XdpMode::Auto => key();
        /// How AF_XDP sockets bind; `auto`: zero-copy where the driver can.
        pub zero_copy: ZeroCopy = ZeroCopy::Auto => key();
        /// Poll the sockets instead of waiting for interrupts: a busy core for latency.
        pub busy_poll: bool = false => key();
        /// XDP forwards established flows; `false`: the workers do, for comparison and diagnosis.
        pub fast_path: bool = true => key();
        /// IPv4 sessions; IPv6 has an eighth of it in addition, 1,024 at least. A session takes 290 bytes of the kernel's
        /// memory, used or not.
        pub flows: Option<u32> = None =>
            key()
                .range(MIN_FLOWS as i64, 8_388_608)
                .absent("what an eighth of the machine's memory has room for, as a power of two from 16384 to 1048576")
                .example("1048576")
                .at_start();
        /// What one host (IPv4 address, IPv6 /64) may have of a session table, and of the ports of an outside address,
        /// while nobody else wants much; several that do have equal parts, and some stay free for others
        /// ([nat.md](nat.md#limits-and-their-names)); 100: no share.
        pub host_share: u8 = 80 => key().range(1, 100).unit("%");
        /// Sessions of one host that nobody has answered; more of them end the oldest.
        pub host_half_open: Option<u32> as ZeroIsNone<u32> = None =>
            key().range(0, 8_388_608).unit("sessions").absent("0 = a quarter of the table").example("4096");
        /// Keeps the last good configuration.
        pub state_dir: PathBuf = "/var/lib/sag".into() => key().at_start();
        /// Pinned maps and links; must be on a bpffs.
        pub pin_dir: PathBuf = "/sys/fs/bpf/sag".into() => key().at_start();
        /// Unix socket of the control interface.
        pub control: PathBuf as SocketPath = "/run/sag/vcpe.sock".into() =>
            key().allowed("up to 107 bytes").source("unix(7)").at_start();
        /// Members of this group may do everything on the control socket, as root and the daemon's own user and group
        /// may ([who may do what](control.md#who-may-do-what)).
        pub control_admin_group: String as Identifier = "sag-admin".to_owned() => key().at_start();
        /// Members of this group may read on the control socket.
        pub control_read_group: String as Identifier = "sag-read".to_owned() => key().at_start();
        /// Listener for Prometheus, `/metrics`; `""`: none.
        pub metrics: Option<SocketAddr> as MetricsAddress = Some(([127, 0, 0, 1], 9477).into()) =>
            key().allowed("`address:port` or `\"\"`").at_start();
        /// What is logged to stderr.
        pub log: String as LogFilter = "info".to_owned() =>
            key()
                .allowed("`error`, `warn`, `info`, `debug`, `trace`, `off`, or `target=level` joined by commas")
                .at_start();
        /// Whether the daemon, once started, is kept to the files and system calls that it needs (Landlock, seccomp);
        /// `log`: unexpected system calls are only logged by the kernel ([sandbox](running.md#sandbox)).
        pub sandbox: Sandbox = Sandbox::Enforce => key().at_start();
        /// `router`: the kernel's settings of the ports (forwarding, router advertisements, redirects, `rp_filter`) are
        /// set as a router needs them and put back by `sag-vcpe unload`; `keep`: they are left as they are
        /// ([kernel.md](kernel.md#settings)).
        pub kernel_settings: KernelSettings = KernelSettings::Router => key();
        /// The kernel has the routes of this file too, [for what the machine itself
        /// sends](kernel.md#what-the-gateway-writes-into-the-kernels-tables).
        pub kernel_routes: bool = true => key();
        /// Verdict when ACLs exist and no rule matches.
        pub acl_default: Policy = Policy::Accept => key();
        /// Hosts behind LAN ports get an ICMP error (administratively prohibited) about a packet that an ACL drops; all
        /// others never do, so that scanners learn nothing. `false`: nobody does.
        pub acl_reject: bool = true => key().source("RFC 5508 REQ-8, RFC 4443 3.1");
        /// Replies of an accepted session pass.
        pub acl_stateful: bool = true => key();
        /// Packets that need the daemon while it is away; established flows are forwarded in either case.
        pub fail_action: FailAction = FailAction::Drop => key().formerly("on_daemon_loss");
        /// ICMP errors that the gateway sends, per port; 0: none.
        pub icmp_rate: u32 = 1_000 =>
            key().range(0, 1_000_000).unit("1/s").source("RFC 1812 4.3.2.8, RFC 4443 2.4(f)");
        /// Next hops that may be requested (ARP, neighbor discovery) for packets that come by one port in one family from
        /// its neighbors, and as many for all others; after a rest twice as many at once
        /// ([limits.md](limits.md#neighbors)).
        pub neighbor_rate: u32 = 128 => key().range(16, 10_000).unit("1/s").source("RFC 6583 6.4");
        /// The same for the packets of one sender.
        pub neighbor_host_rate: u32 = 32 => key().range(4, 10_000).unit("1/s").source("RFC 6583 6.4");
        /// Flood guard: packets of no known flow that each receive queue of a port hands to its worker; XDP drops
        /// what is more (`flood-guard`); up to 20 ms worth may come at once; 0: no limit.
        pub new_flow_rate: u32 = 250_000 => key().range(0, 10_000_000).unit("1/s");
        /// After a commit: packets of a receive queue that may be on their way to a worker to revalidate their flows;
        /// the others use the stale action meanwhile, for 4 s at the most ([0008](decisions/0008-revalidation.md));
        /// 0: every packet of a flow that is not revalidated goes to its worker.
        pub revalidation_credit: u32 = 256 => key().range(0, 1_024).unit("packets").formerly("rejudge_window");
        /// Age at which the gateway makes a new key for its tunnels with `keying = "agreed"`
        /// ([tunnels-keys.md](tunnels-keys.md#when-keys-change)).
        pub rekey_time: u32 = 3_600 => key().range(10, 86_400).unit("s").source("RFC 9061");
        /// ESP bytes that one such association may send; a new key is made after half of them.
        pub rekey_bytes: i64 = 1 << 40 => key().range(1 << 20, 1 << 40).unit("bytes").source("RFC 9061");
    }
}

/// Sessions that the two flow tables have room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowCapacity {
    /// Of IPv4.
    pub v4: u32,
    /// Of IPv6.
    pub v6: u32,
}

impl Dataplane {
    /// The capacity of the flow tables on a machine with `memory` bytes: [`flows`](Self::flows), or what fits.
    pub fn flow_capacity(&self, memory: u64) -> FlowCapacity {
        /// Bytes that the kernel sets aside for a session of IPv4 and the part of one of IPv6 that comes with it: two
        /// records, their share of the index, the sequence numbers (304 MB with 1,048,576).
        const SESSION: u64 = 290;
        let fits = || {
            let sessions = (memory / 8 / SESSION).clamp(1 << 14, 1 << 20) as u32;
            1 << sessions.ilog2()
        };
        let v4 = self.flows.unwrap_or_else(fits);
        FlowCapacity { v4, v6: (v4 / 8).max(MIN_FLOWS) }
    }
}

table! {
    /// How long a session lives without traffic, in seconds.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Timeouts: Default as RawTimeouts, TimeoutsKeys, ReadTimeouts {
        /// Handshake complete.
        pub tcp_established: u32 = 7_440 =>
            key()
                .range(1, WEEK)
                .unit("s")
                .advised(7_440, "RFC 5382 REQ-5")
                .source("RFC 5382 section 5, REQ-5: 2 hours 4 minutes at least");
        /// Closed, or reset after the handshake.
        pub tcp_transitory: u32 = 240 =>
            key().range(1, WEEK).unit("s").advised(240, "RFC 5382 REQ-5").source(
                "RFC 5382 section 5, REQ-5: 4 minutes at least; RFC 7857 section 2.2: likewise after a reset",
            );
        /// Handshake not complete, or picked up in the middle and not confirmed by the other side.
        pub tcp_syn: u32 = 240 =>
            key()
                .range(1, WEEK)
                .unit("s")
                .source("RFC 7857 section 2.1: separate from closing, 4 minutes by default, may be shorter");
        /// Refused: RST before the handshake was complete. Sooner where ports or sessions are short, 30 s at least.
        pub tcp_refused: u32 = 240 => key().range(1, WEEK).unit("s").source("RFC 7857 section 2.2: 4 minutes after a reset");
        /// UDP.
        pub udp: u32 = 300 =>
            key()
                .range(1, WEEK)
                .unit("s")
                .advised(120, "RFC 4787 REQ-5")
                .source("RFC 4787 section 4.3, REQ-5: 2 minutes at least, 5 recommended");
        /// ICMP queries.
        pub icmp: u32 = 60 =>
            key()
                .range(1, WEEK)
                .unit("s")
                .advised(60, "RFC 5508 REQ-2")
                .source("RFC 5508 section 3.2, REQ-2: 60 seconds at least");
        /// All other protocols.
        pub other: u32 = 600 => key().range(1, WEEK).unit("s");
    }
}

table! {
    /// Bandwidth of the device: metered in any case, and what the percentages of CARs refer to. `None`: unlimited.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Bandwidth: Default as RawBandwidth, BandwidthKeys, ReadBandwidth {
        /// Overlay, each direction.
        pub ccn: Option<Mbps> = None =>
            key()
                .range(0, MAX_MBPS)
                .unit("Mbit/s")
                .absent("0 = unlimited")
                .source("CreateQosCar `CcnBandwidth`")
                .example("100");
        /// Internet uplink: what leaves by WAN ports.
        pub internet_up: Option<Mbps> = None =>
            key()
                .range(0, MAX_MBPS)
                .unit("Mbit/s")
                .absent("0 = unlimited")
                .source("CreateQosCar `InternetUpBandwidth`")
                .example("50");
        /// Added to the IP length of every packet that is metered, as 18 for an Ethernet frame or 38 for Ethernet on
        /// the wire.
        pub overhead: u16 = 0 => key().range(0, 256).unit("bytes");
    }
}
