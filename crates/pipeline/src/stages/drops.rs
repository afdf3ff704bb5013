//! At which stage a drop happens.

use super::Stage;
use sag_model::DropReason;

impl Stage {
    /// The stages at which packets are dropped for a reason, in order. What XDP drops is listed at the stage whose
    /// work it does there.
    pub const fn of(reason: DropReason) -> &'static [Stage] {
        use DropReason as R;
        match reason {
            R::EthTruncated
            | R::VlanUnknown
            | R::PortNotReady
            | R::Ip4Truncated
            | R::Ip4BadVersion
            | R::Ip4BadIhl
            | R::Ip4BadTotalLength
            | R::Ip4BadChecksum
            | R::Ip4SourceRoute
            | R::Ip4BadOptions
            | R::Ip6Truncated
            | R::Ip6BadVersion
            | R::Ip6BadPayloadLength
            | R::Ip6BadExtHeaders
            | R::Ip6RoutingHeader0
            | R::L4Truncated
            | R::TcpBadOffset
            | R::UdpBadLength
            | R::FragmentTiny => &[Stage::Parse],
            R::TunnelUnknown
            | R::TunnelBadHeader
            | R::TunnelEcn
            | R::EspUnknownSpi
            | R::EspTruncated
            | R::EspReplay
            | R::EspBadIcv
            | R::EspBadPadding
            | R::EspBadNextHeader
            | R::EspDummy
            | R::EspKeepalive
            | R::FecBadHeader
            | R::FecDuplicate => &[Stage::Decap],
            // The outer packet of a tunnel is put together before the tunnel's header is read.
            R::FragmentNoFirst | R::FragmentOverlap => &[Stage::Decap, Stage::Session],
            // XDP hands packets without a record to a worker at this stage.
            R::FragmentTableFull
            | R::TcpOutOfWindow
            | R::FloodGuard
            | R::NoWorker
            | R::RxRingFull
            | R::SynCookie
            | R::SynCookieInvalid
            | R::SynProxyWait => &[Stage::Session],
            R::NatFiltered | R::NatNoSession | R::NatProtocol => &[Stage::Dnat, Stage::Snat],
            R::Nat64Refused => &[Stage::Dnat, Stage::Snat],
            R::Nat64Untranslatable => &[Stage::Dnat, Stage::Rewrite],
            R::IcmpUnmatched => &[Stage::Dnat, Stage::Snat, Stage::Rewrite],
            R::TunnelLocal | R::TunnelLocalRate | R::NoKernelPath => &[Stage::Local],
            R::SourceMartian | R::DestMartian | R::SourceIsOurs | R::LinkLocalScope | R::IcmpRedirect => {
                &[Stage::Sanity]
            }
            // Of an outer packet too, and of what is inside for the gateway itself.
            R::ReversePath | R::TunnelSource => &[Stage::Decap, Stage::Local, Stage::Sanity],
            R::NoRoute | R::RouteBlackhole | R::RouteUnreachable | R::RouteProhibit | R::EgressNotOurs => {
                &[Stage::Route]
            }
            // The tunnel may go down between the decision and the header.
            R::TunnelDown => &[Stage::Route, Stage::Encap],
            // Sessions of a rule are counted when they are made.
            R::AclDenied
            | R::AclDefaultDenied
            | R::AclMaxSessions
            | R::AclMaxSessionsPerSource
            | R::AclSourcesFull => &[Stage::Acl],
            R::CarExceeded | R::LinkExceeded => &[Stage::Qos],
            // Ports are taken, and records written, when the session is made.
            R::SnatExhausted
            | R::SnatHostLimit
            | R::NatNoAddress
            | R::NatWanChanged
            | R::SessionTableFull
            | R::HostShare
            | R::HostHalfOpen => &[Stage::Snat],
            R::TtlExpired => &[Stage::Ttl],
            R::EgressDown | R::MtuExceeded => &[Stage::Mtu],
            R::NeighborFailed | R::NeighborQueueFull | R::NeighborRateLimit => &[Stage::Neighbor],
            R::IcmpBadChecksum => &[Stage::Rewrite],
            R::FrameTooBig => &[Stage::Decap, Stage::Encap],
            R::EspNoKeys
            | R::EspExhausted
            | R::EspUnreserved
            | R::TxRingFull
            | R::TxLost
            | R::NoFrame
            | R::SendFailed => &[Stage::Encap],
        }
    }
}
