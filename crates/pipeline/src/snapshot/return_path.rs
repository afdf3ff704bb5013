//! Answers leave by the line by which the question came.
//!
//! A gateway with several lines to the Internet has an address of each provider's, and none of them carries packets from
//! addresses of another (RFC 2827). So what answers a question to such an address goes back by its line, whichever has the
//! better metric: by the route's member at that port, or by that of a route which is not in use.

use super::{Member, Route, Snapshot};
use sag_model::{MacAddr, PortIdx, VrfNo, Zone};
use std::net::IpAddr;

impl Snapshot {
    /// The member of a route of a VRF to `to` by which answers to a question leave that came by port `asked`; `usual`: the member that
    /// packets to `to` go by. It is another one only among the lines to the Internet, and while that port is up and a route
    /// leads out by it.
    pub fn return_member<'s>(
        &'s self,
        usual: &'s Member,
        (vrf, to): (VrfNo, IpAddr),
        asked: PortIdx,
    ) -> &'s Member {
        let elsewhere = usual.tunnel.is_none() && usual.port != asked;
        if !elsewhere || !self.is_line(asked) || !self.is_line(usual.port) {
            return usual;
        }
        self.member_by((vrf, to), asked).unwrap_or(usual)
    }

    /// Whether sessions that are translated to addresses of a port stay with it when the routes prefer another one.
    #[inline]
    pub fn may_hold(&self, port: PortIdx) -> bool {
        self.nat.limits.sticky_lines && self.port(port).is_some_and(|p| !p.failed)
    }

    /// Whether a port is a line to the Internet.
    pub(crate) fn is_line(&self, port: PortIdx) -> bool {
        self.port(port).is_some_and(|p| p.zone == Zone::Wan)
    }

    /// The link address of the next hop to an address by a port, in use or not.
    pub(crate) fn next_hop_by(&self, (vrf, to): (VrfNo, IpAddr), port: PortIdx) -> Option<MacAddr> {
        let member = self.member_by((vrf, to), port)?;
        self.resolved(port, member.via.unwrap_or(to)).map(|nh| nh.dmac)
    }

    /// A way to an address by a port that is up, in use or not: of the longest prefix, else of the default route.
    fn member_by(&self, (vrf, to): (VrfNo, IpAddr), port: PortIdx) -> Option<&Member> {
        self.port(port).filter(|p| p.up)?;
        let routes = [self.route_no(vrf, to), self.default_route_no(vrf, to)].into_iter().flatten();
        routes.filter_map(|no| self.member_of(no, port)).next()
    }

    /// The first way of a route by a port, one whose router is resolved before others.
    fn member_of(&self, no: u32, port: PortIdx) -> Option<&Member> {
        let Some(Route::Via(used)) = self.routes.get(no) else { return None };
        let unused = self.routes.unused(no);
        let by_port = || used.iter().chain(unused).filter(|m| m.tunnel.is_none() && m.port == port);
        let is_ready = |m: &&Member| m.via.is_none_or(|via| self.resolved(port, via).is_some());
        by_port().find(is_ready).or_else(|| by_port().next())
    }
}
