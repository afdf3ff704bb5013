//! Why a packet is not forwarded. One exhaustive list for XDP, workers, metrics and the operator.
//!
//! The numbers are shared with the XDP program (`enum gw_drop` in `bpf/include/gw_abi.h`; a test of
//! the `bpf` crate compares the two lists). Numbers are never reused; add at the end of the list.

use std::fmt;

macro_rules! drop_reasons {
    ($($(#[$m:meta])* $variant:ident = $num:literal, $name:literal, $text:literal;)*) => {
        /// The one reason of a drop.
        // The texts are the operator's too, where a bracket is a bracket.
        #[allow(rustdoc::broken_intra_doc_links)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason { $( #[doc = $text] $(#[$m])* $variant = $num, )* }

        impl DropReason {
            /// Every reason, in the order of the numbers.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)*];

            /// The name in metrics, JSON and tables.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }

            /// One line for the operator: what happened, and where to look.
            pub const fn text(self) -> &'static str {
                match self { $(DropReason::$variant => $text,)* }
            }

            /// The reason of a number.
            pub const fn from_u8(n: u8) -> Option<DropReason> {
                match n { $($num => Some(DropReason::$variant),)* _ => None }
            }
        }
    };
}

drop_reasons! {
    EthTruncated = 1, "eth-truncated", "frame shorter than its Ethernet or VLAN header";
    VlanUnknown = 2, "vlan-unknown", "802.1Q tag for which no port is configured on this device, or a priority tag among two";
    Ip4Truncated = 3, "ip4-truncated", "frame shorter than its IPv4 header";
    Ip4BadVersion = 4, "ip4-bad-version", "EtherType says IPv4, version field does not";
    Ip4BadIhl = 5, "ip4-bad-ihl", "IPv4 header length below 20 bytes or beyond the packet";
    Ip4BadTotalLength = 6, "ip4-bad-total-length", "IPv4 total length below the header or beyond the frame";
    Ip4BadChecksum = 7, "ip4-bad-checksum", "IPv4 header checksum is wrong";
    Ip4SourceRoute = 8, "ip4-source-route", "IPv4 source-route option (RFC 7126: dropped by default)";
    Ip4BadOptions = 9, "ip4-bad-options", "IPv4 options do not parse";
    Ip6Truncated = 10, "ip6-truncated", "frame shorter than its IPv6 header";
    Ip6BadVersion = 11, "ip6-bad-version", "EtherType says IPv6, version field does not";
    Ip6BadPayloadLength = 12, "ip6-bad-payload-length", "IPv6 payload length beyond the frame";
    Ip6BadExtHeaders = 13, "ip6-bad-ext-headers", "IPv6 extension headers truncated, too many, or out of place";
    Ip6RoutingHeader0 = 14, "ip6-routing-header-0", "IPv6 type 0 routing header (deprecated by RFC 5095)";
    L4Truncated = 15, "l4-truncated", "TCP, UDP or ICMP header cut short";
    TcpBadOffset = 16, "tcp-bad-offset", "TCP data offset below 20 bytes or beyond the packet";
    UdpBadLength = 17, "udp-bad-length", "UDP length below 8 or beyond the packet";
    SourceMartian = 18, "source-martian", "source address that no host may send from (RFC 1812 5.3.7)";
    DestMartian = 19, "dest-martian", "destination that is never forwarded (loopback, link-local, 0/8, 240/4)";
    SourceIsOurs = 20, "source-is-ours", "source address belongs to this gateway";
    TtlExpired = 21, "ttl-expired", "TTL or hop limit reached zero here (time exceeded was sent)";
    NoRoute = 22, "no-route", "no route to the destination (net unreachable was sent)";
    RouteBlackhole = 23, "route-blackhole", "a blackhole route covers the destination";
    RouteUnreachable = 24, "route-unreachable", "an unreachable route covers the destination (host unreachable was sent)";
    RouteProhibit = 25, "route-prohibit", "a prohibit route covers the destination (admin prohibited was sent)";
    EgressNotOurs = 26, "egress-not-ours", "the route leaves by a device that is no [[port]] of the gateway";
    EgressDown = 27, "egress-down", "the egress port has no link";
    NeighborFailed = 28, "neighbor-failed", "the next hop does not answer ARP/ND (host unreachable was sent)";
    NeighborQueueFull = 29, "neighbor-queue-full", "too many packets wait for the next hop's ARP/ND answer";
    MtuExceeded = 30, "mtu-exceeded", "larger than the egress MTU and not to be fragmented (ICMP was sent)";
    AclDenied = 31, "acl-denied", "an ACL rule with policy drop matched";
    AclDefaultDenied = 32, "acl-default-denied", "no ACL rule matched and acl_default is drop";
    SessionTableFull = 33, "session-table-full", "no room for another session (raise dataplane.flows)";
    FragmentNoFirst = 34, "fragment-no-first", "later fragment whose first fragment was not seen";
    FragmentOverlap = 35, "fragment-overlap", "fragment overlaps another of its datagram (RFC 5722)";
    FragmentTableFull = 36, "fragment-table-full", "too many datagrams in fragments at once";
    FragmentTiny = 37, "fragment-tiny", "first fragment too short to hold its transport header (RFC 1858)";
    TxRingFull = 38, "tx-ring-full", "the egress port's transmit ring is full";
    NoFrame = 39, "no-frame", "no free UMEM frame for the packet";
    RxRingFull = 40, "rx-ring-full", "worker too slow: AF_XDP receive ring full or fill ring empty";
    NoWorker = 41, "no-worker", "no worker attached to this queue (daemon stopped) and fail_action is drop";
    FrameTooBig = 42, "frame-too-big", "frame does not fit a UMEM chunk";
    LinkLocalScope = 43, "link-local-scope", "link-local address crosses the gateway (RFC 4291 2.5.6)";
    PortNotReady = 44, "port-not-ready", "arrived on a port that the current configuration does not know";
    SnatExhausted = 45, "snat-exhausted", "no free port or identifier on the SNAT address";
    SnatHostLimit = 46, "snat-host-limit", "the inside host is at its session limit";
    NatFiltered = 47, "nat-filtered", "the NAT entry's filtering behaviour does not admit the sender";
    TcpOutOfWindow = 48, "tcp-out-of-window", "TCP reset, or ICMP error about a TCP segment, outside the session's window";
    CarExceeded = 49, "car-exceeded", "over the peak rate (PIR) of its CAR";
    LinkExceeded = 50, "link-exceeded", "over the bandwidth of the link";
    FloodGuard = 51, "flood-guard", "new-flow rate over the port's share";
    IcmpUnmatched = 52, "icmp-unmatched", "ICMP error that quotes no session of this gateway";
    NatNoAddress = 53, "nat-no-address", "the egress port has no address to translate to";
    SendFailed = 54, "send-failed", "the kernel refused the frame";
    NoKernelPath = 55, "no-kernel-path", "for the gateway itself, but already past the hand-over to the kernel";
    IcmpBadChecksum = 56, "icmp-bad-checksum", "ICMP error to be translated whose checksum, or that of its quote, is wrong (RFC 5508 REQ-3)";
    NatNoSession = 57, "nat-no-session", "needs translation and begins no session (RST, ICMP reply, or the middle of a connection)";
    NatProtocol = 58, "nat-protocol", "protocol that NAT cannot translate (DCCP, UDP-Lite)";
    TunnelUnknown = 59, "tunnel-unknown", "from a tunnel's peer, but with the VNI or key of no tunnel";
    TunnelBadHeader = 60, "tunnel-bad-header", "tunnel header that does not parse, or whose checksum is wrong";
    TunnelEcn = 61, "tunnel-ecn", "congestion marked on the way, but the packet inside does not know ECN (RFC 6040 4.2)";
    TunnelDown = 62, "tunnel-down", "the tunnel is down, or no port leads to its remote address";
    TunnelLocal = 63, "tunnel-local", "came for the gateway itself through a tunnel without a device, where it answers only echo requests";
    EspUnknownSpi = 64, "esp-unknown-spi", "ESP packet of no association of this gateway (RFC 4303 3.4.2)";
    EspTruncated = 65, "esp-truncated", "ESP packet too short, or not a multiple of four bytes";
    EspReplay = 66, "esp-replay", "ESP packet received before, or too old for the replay window (RFC 4303 3.4.3)";
    EspBadIcv = 67, "esp-bad-icv", "ESP integrity check failed: altered, or another key, salt, cipher or esn at the peer";
    EspBadPadding = 68, "esp-bad-padding", "ESP padding longer than the packet or not 1, 2, 3, ... (RFC 4303 2.4)";
    EspBadNextHeader = 69, "esp-bad-next-header", "what an ESP packet carries is neither IPv4 nor IPv6 in tunnel mode, nor error correction";
    EspDummy = 70, "esp-dummy", "ESP packet with nothing inside (RFC 4303 2.6): no fault";
    EspKeepalive = 71, "esp-keepalive", "NAT keepalive to the port of ESP in UDP (RFC 3948 2.3): no fault";
    EspNoKeys = 72, "esp-no-keys", "the ESP tunnel has no keys yet (keying is agreed, and the peer's key has not come)";
    EspExhausted = 73, "esp-exhausted", "the ESP association has used all its sequence numbers: rekey the tunnel";
    FecBadHeader = 74, "fec-bad-header", "error correction header of another version, or one that contradicts itself or its window";
    FecDuplicate = 75, "fec-duplicate", "came after it had been recovered: no fault";
    NeighborRateLimit = 76, "neighbor-rate-limit", "its next hop is not resolved, and its source or port has asked for as many as it may in a second (a scan)";
    EspUnreserved = 77, "esp-unreserved", "no numbers are reserved on disk for the static key of the ESP tunnel: sagctl tunnels says why";
    HostShare = 78, "host-share", "the host (IPv4 address, IPv6 /64) has its share of a table of sessions or NAT ports that runs short (dataplane.host_share)";
    HostHalfOpen = 79, "host-half-open", "the host (IPv4 address, IPv6 /64) has as many unanswered sessions as it may (dataplane.host_half_open)";
    ReversePath = 80, "reverse-path", "the route to its source does not lead back the way it came (reverse_path; RFC 3704)";
    TunnelSource = 81, "tunnel-source", "source inside the tunnel that its sources do not have; sent by its device: no address of this machine";
    IcmpRedirect = 82, "icmp-redirect", "ICMP redirect from beyond the link: only the next router may send one";
    SynCookie = 83, "syn-cookie", "SYN that the gateway has answered itself, with a SYN cookie";
    SynCookieInvalid = 84, "syn-cookie-invalid", "of no session, for a service under a flood of SYNs, and acknowledges no valid SYN cookie";
    SynProxyWait = 85, "syn-proxy-wait", "of a connection that waits for its server, or for room to be opened; it will be repeated";
    AclMaxSessions = 86, "acl-max-sessions", "the rule that admits it has as many sessions as it may (max_sessions)";
    AclMaxSessionsPerSource = 87, "acl-max-sessions-per-source", "its source has as many sessions by the rule that admits it as it may (max_sessions_per_source)";
    AclSourcesFull = 88, "acl-sources-full", "the rule that admits it counts sessions of as many sources as it can (max_sessions_per_source)";
    TxLost = 89, "tx-lost", "sent by XDP, but the device by which it left has not taken it; counted at that device's first port, beside forwarded";
    Nat64Refused = 90, "nat64-refused", "IPv4 address behind a NAT64 prefix that is not reached so: private behind 64:ff9b::/96, a martian, the gateway's own; or called from a WAN";
    Nat64Untranslatable = 91, "nat64-untranslatable", "the other IP version has no such packet (RFC 7915): ICMP of one link or in fragments, UDP fragment without checksum, routing header in use";
    TunnelLocalRate = 92, "tunnel-local-rate", "came for the gateway itself through a tunnel faster than its device takes (device_rate)";
    NatWanChanged = 93, "nat-wan-changed", "its session has an address of a WAN port by which it cannot leave any more; the session was ended by TCP reset or ICMP port unreachable";
}

impl DropReason {
    /// One more than the largest number: the size of a counter array.
    pub const COUNT: usize = 128;

    /// As an index of a table of counters.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_and_names_are_unique_and_fit() {
        let names: BTreeSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        let nums: BTreeSet<_> = DropReason::ALL.iter().map(|r| *r as u8).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        assert_eq!(nums.len(), DropReason::ALL.len());
        for r in DropReason::ALL {
            assert!(r.index() > 0 && r.index() < DropReason::COUNT);
            assert_eq!(DropReason::from_u8(*r as u8), Some(*r));
        }
        assert_eq!(DropReason::from_u8(0), None);
    }
}
