//! Requests and their answers, and the mappings that they make, renew and end.

use crate::announce::{Announcing, messages};
use crate::nat::{Admission, Host, Inside, Nat, Protocol, Refusal, Want};
use crate::nat_pmp::{self, Request};
use crate::pcp::{Answer, Body, Filter, Header, MapBody, Options, RESPONSE, ResultCode, VERSION};
use crate::pcp::{assigned, assigned_peer, refusal};
use crate::table::{Key, Mapping, Table};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::time::Duration;

/// What hosts may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// NAT-PMP is spoken too.
    pub nat_pmp: bool,
    /// Hosts may ask for others.
    pub third_party: bool,
    /// Mappings of one host.
    pub of_host: usize,
    /// Mappings of all.
    pub total: usize,
    /// Lifetimes, in seconds.
    pub lifetime: RangeInclusive<u32>,
    /// How long a TCP connection may be idle, in seconds: longer than that PEER promises nothing.
    pub tcp_idle: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            nat_pmp: true,
            third_party: false,
            of_host: 32,
            total: 1024,
            lifetime: 120..=86_400,
            tcp_idle: 7440,
        }
    }
}

/// A mapping that is asked for, by whichever protocol.
struct Asked {
    key: Key,
    nonce: Option<[u8; 12]>,
    wanted: (Option<Ipv4Addr>, Option<u16>),
    only: bool,
    filters: Vec<Option<Filter>>,
    lifetime: u32,
}

/// The mappings, and the time since which they are complete.
#[derive(Debug)]
pub struct Server {
    table: Table,
    /// Mappings that were made before are lost (RFC 6887 section 8.5).
    epoch: Duration,
    external: Option<Ipv4Addr>,
    announcing: Announcing,
    /// Mappings were lost of which hosts have not been told.
    lost: bool,
}

impl Server {
    /// Without mappings; hosts are told so.
    pub fn new(now: Duration) -> Server {
        let table = Table::default();
        Server { table, epoch: now, external: None, announcing: Announcing::begin(now), lost: false }
    }

    fn seconds(&self, now: Duration) -> u32 {
        u32::try_from(now.saturating_sub(self.epoch).as_secs()).unwrap_or(u32::MAX)
    }

    /// All mappings.
    pub fn mappings(&self) -> impl Iterator<Item = &Mapping> {
        self.table.iter()
    }

    /// How often a port is held, for each that is.
    pub fn holds(&self) -> impl Iterator<Item = u32> {
        self.table.iter().filter_map(|m| m.hold)
    }

    /// The answer to a datagram; `None`: it gets none.
    pub fn answer(
        &mut self,
        nat: &mut dyn Nat,
        limits: &Limits,
        from: Host,
        message: &[u8],
        now: Duration,
    ) -> Option<Vec<u8>> {
        let epoch = self.seconds(now);
        let (version, opcode) = (*message.first()?, *message.get(1)?);
        if opcode & RESPONSE != 0 {
            return None;
        }
        let code = match version {
            0 if limits.nat_pmp => return self.nat_pmp(nat, limits, from, message, now),
            // A host that speaks only that would take no notice of anything else.
            0 => {
                let code = nat_pmp::ResultCode::UnsupportedVersion;
                return Some(nat_pmp::unsupported(opcode, code, epoch));
            }
            VERSION => match self.pcp(nat, limits, from, message, now) {
                Ok(answer) => return Some(answer),
                Err(refused) => refused,
            },
            _ => Refused { code: ResultCode::UnsuppVersion, lifetime: None },
        };
        let lifetime = code.lifetime.unwrap_or(code.code.lifetime());
        Some(refusal(message, code.code, lifetime, epoch))
    }

    fn pcp(
        &mut self,
        nat: &mut dyn Nat,
        limits: &Limits,
        from: Host,
        message: &[u8],
        now: Duration,
    ) -> Result<Vec<u8>, Refused> {
        let header = Header::read(message)?;
        if header.client != IpAddr::V4(from.address) {
            return Err(ResultCode::AddressMismatch.into());
        }
        let (body, options) = Body::read(&header, message)?;
        let host = host(limits, from, &options)?;
        let epoch = self.seconds(now);
        let processed = &options.processed;
        let answer = |lifetime| Answer { opcode: header.opcode, lifetime, epoch, options: processed };
        let (asked, peer) = match body {
            Body::Announce => return Ok(answer(0).write(&[])),
            Body::Map(m) => (m, None),
            Body::Peer(m, (address, port)) => match address {
                IpAddr::V4(a) if port != 0 && m.port != 0 && m.protocol != 0 => {
                    (m, Some(SocketAddrV4::new(a, port)))
                }
                _ => return Err(ResultCode::MalformedRequest.into()),
            },
        };
        if asked.protocol == 0 && asked.port != 0 {
            return Err(ResultCode::MalformedRequest.into());
        }
        if options.prefer_failure && header.lifetime == 0 {
            return Err(ResultCode::MalformedOption.into());
        }
        if !nat.permits(host) {
            return Err(ResultCode::NotAuthorized.into());
        }
        let none = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let Some(protocol) = Protocol::of(asked.protocol).filter(|_| asked.port != 0) else {
            // All ports of a host at once are not to be had, but to be given back.
            if header.lifetime > 0 || (asked.protocol != 0 && Protocol::of(asked.protocol).is_none()) {
                return Err(ResultCode::UnsuppProtocol.into());
            }
            self.end_all(nat, host, Protocol::of(asked.protocol), Some(asked.nonce), now)?;
            return Ok(answer(0).write(&assigned(&asked, none)));
        };
        let key = Key { inside: Inside { host, protocol, port: asked.port }, peer };
        let body = |external| match peer {
            None => assigned(&asked, external),
            Some(remote) => assigned_peer(&asked, external, remote),
        };
        if header.lifetime == 0 {
            let ended = self.end(nat, &key, Some(asked.nonce), now)?;
            return Ok(answer(0).write(&body(ended.unwrap_or(wanted(&asked)))));
        }
        let asked_for = Asked {
            key,
            nonce: Some(asked.nonce),
            wanted: wanted_parts(&asked),
            only: options.prefer_failure,
            filters: options.filters.clone(),
            lifetime: header.lifetime,
        };
        let (external, lifetime) = self.map(nat, limits, asked_for, now)?;
        Ok(answer(lifetime).write(&body(external)))
    }

    fn nat_pmp(
        &mut self,
        nat: &mut dyn Nat,
        limits: &Limits,
        from: Host,
        message: &[u8],
        now: Duration,
    ) -> Option<Vec<u8>> {
        use nat_pmp::ResultCode as Code;
        let epoch = self.seconds(now);
        let asked = match Request::read(message)? {
            Request::Address => return Some(nat_pmp::address(nat.external(from), epoch)),
            Request::Unknown(opcode) => {
                return Some(nat_pmp::unsupported(opcode, Code::UnsupportedOpcode, epoch));
            }
            Request::Map(m) => m,
        };
        let done = if !nat.permits(from) {
            Err(ResultCode::NotAuthorized.into())
        } else if asked.lifetime == 0 {
            let inside = Inside { host: from, protocol: asked.protocol, port: asked.port };
            let ended = match asked.port {
                0 => self.end_all(nat, from, Some(asked.protocol), None, now),
                _ => self.end(nat, &Key { inside, peer: None }, None, now).map(|_| ()),
            };
            ended.map(|()| (0, 0))
        } else if asked.port == 0 {
            Err(ResultCode::NotAuthorized.into())
        } else {
            let inside = Inside { host: from, protocol: asked.protocol, port: asked.port };
            let asked_for = Asked {
                key: Key { inside, peer: None },
                nonce: None,
                wanted: (None, (asked.wanted != 0).then_some(asked.wanted)),
                only: false,
                filters: Vec::new(),
                lifetime: asked.lifetime,
            };
            self.map(nat, limits, asked_for, now).map(|(e, lifetime)| (e.port(), lifetime))
        };
        let (code, given) = match done {
            Ok(given) => (Code::Success, given),
            Err(Refused { code, .. }) => match code {
                ResultCode::NetworkFailure => (Code::NetworkFailure, (0, 0)),
                ResultCode::NoResources | ResultCode::UserExQuota => (Code::OutOfResources, (0, 0)),
                _ => (Code::Refused, (0, 0)),
            },
        };
        Some(nat_pmp::map(&asked, code, given, epoch))
    }

    /// Makes or renews a mapping: its port outside and its lifetime.
    fn map(
        &mut self,
        nat: &mut dyn Nat,
        limits: &Limits,
        asked: Asked,
        now: Duration,
    ) -> Result<(SocketAddrV4, u32), Refused> {
        let inside = asked.key.inside;
        let mut most = *limits.lifetime.end();
        if asked.key.peer.is_some() && inside.protocol == Protocol::Tcp {
            most = most.min(limits.tcp_idle);
        }
        let lifetime = asked.lifetime.clamp((*limits.lifetime.start()).min(most), most);
        let expires = now + Duration::from_secs(lifetime.into());
        let suits = |external: &SocketAddrV4| {
            let (address, port) = asked.wanted;
            !asked.only
                || (address.is_none_or(|a| a == *external.ip()) && port.is_none_or(|p| p == external.port()))
        };
        if let Some(known) = self.table.get_mut(&asked.key) {
            if !known.is_of(asked.nonce) {
                return Err(Refused::for_another(known, now));
            }
            if !suits(&known.external) {
                return Err(ResultCode::CannotProvideExternal.into());
            }
            let (external, hold) = (known.external, known.hold);
            let before = std::mem::take(&mut known.filters);
            known.filters = filters(before.clone(), &asked.filters);
            if known.filters != before
                && let (Some(hold), Some(who)) = (hold, self.table.admission(inside))
                && let Err(why) = nat.admit(hold, &who)
            {
                self.table.get_mut(&asked.key).into_iter().for_each(|m| m.filters = before.clone());
                return Err(why.code().into());
            }
            if let Some(known) = self.table.get_mut(&asked.key) {
                (known.expires, known.nonce, known.nat_pmp) = (expires, asked.nonce, asked.nonce.is_none());
            }
            return Ok((external, lifetime));
        }
        if self.table.len() >= limits.total {
            return Err(ResultCode::NoResources.into());
        }
        if self.table.of_host(inside.host).count() >= limits.of_host {
            return Err(ResultCode::UserExQuota.into());
        }
        let want = Want { inside, port: asked.wanted.1, only: asked.only };
        let held = nat.hold(&want).map_err(Refusal::code)?;
        let mapping = Mapping {
            inside,
            peer: asked.key.peer,
            external: held.external,
            filters: filters(Vec::new(), &asked.filters),
            nat_pmp: asked.nonce.is_none(),
            expires,
            hold: held.hold,
            nonce: asked.nonce,
        };
        self.table.insert(mapping);
        let refused = match (held.hold, self.table.admission(inside)) {
            _ if !suits(&held.external) => Some(ResultCode::CannotProvideExternal),
            (Some(hold), Some(who)) => nat.admit(hold, &who).err().map(Refusal::code),
            _ => None,
        };
        match refused {
            Some(code) => {
                self.remove(nat, &asked.key);
                Err(code.into())
            }
            None => Ok((held.external, lifetime)),
        }
    }

    /// Ends a mapping; where it was reached, if there was one.
    fn end(
        &mut self,
        nat: &mut dyn Nat,
        key: &Key,
        nonce: Option<[u8; 12]>,
        now: Duration,
    ) -> Result<Option<SocketAddrV4>, Refused> {
        match self.table.get(key) {
            Some(known) if !known.is_of(nonce) => Err(Refused::for_another(known, now)),
            Some(known) => {
                let external = known.external;
                self.remove(nat, key);
                Ok(Some(external))
            }
            None => Ok(None),
        }
    }

    /// Ends those of a host, of one protocol or all, that this nonce may end; refuses if that is none of several.
    fn end_all(
        &mut self,
        nat: &mut dyn Nat,
        host: Host,
        protocol: Option<Protocol>,
        nonce: Option<[u8; 12]>,
        now: Duration,
    ) -> Result<(), Refused> {
        let of = |m: &&Mapping| m.peer.is_none() && protocol.is_none_or(|p| m.inside.protocol == p);
        let (own, others): (Vec<_>, Vec<_>) =
            self.table.of_host(host).filter(of).partition(|m: &&Mapping| m.is_of(nonce));
        if let (true, Some(other)) = (own.is_empty(), others.first()) {
            return Err(Refused::for_another(other, now));
        }
        let keys: Vec<_> = own.into_iter().map(Mapping::key).collect();
        keys.iter().for_each(|k| self.remove(nat, k));
        Ok(())
    }

    fn remove(&mut self, nat: &mut dyn Nat, key: &Key) {
        let Some(hold) = self.table.remove(key).and_then(|m| m.hold) else { return };
        nat.release(hold);
        if let Some(who) = self.table.admission(key.inside)
            && nat.admit(hold, &who).is_err()
        {
            // Rather too few than too many; nobody in particular can always be written down.
            let _ = nat.admit(hold, &Admission::default());
        }
    }

    /// Ends what has outlived its lifetime.
    pub fn expire(&mut self, nat: &mut dyn Nat, now: Duration) {
        let over = self.table.keys_where(|m| m.expires <= now);
        over.iter().for_each(|k| self.remove(nat, k));
    }

    /// Ends what the NAT would map otherwise now: its addresses have changed, or hosts may not ask any more. Hosts are
    /// told if any mapping is lost by that, or their external address is another one; if there is none at the moment, as
    /// soon as there is.
    pub fn revise(&mut self, nat: &mut dyn Nat, now: Duration) {
        let mut last = None;
        while let Some(m) = self.table.after(last) {
            let key = m.key();
            last = Some(key);
            if !nat.may_keep(m.inside.host) || !nat.is_current(&m.inside, &m.held()) {
                self.remove(nat, &key);
                self.lost = true;
            }
        }
        let external = nat.external(Host::ANY);
        if external.is_none() || (external == self.external && !self.lost) {
            return;
        }
        if self.external.is_some() || self.lost {
            self.epoch = now;
        }
        (self.external, self.lost) = (external, false);
        self.announcing = Announcing::begin(now);
    }

    /// Ends everything.
    pub fn clear(&mut self, nat: &mut dyn Nat) {
        let all = self.table.keys_where(|_| true);
        all.iter().for_each(|k| self.remove(nat, k));
    }

    /// What hosts are to be told now, at [`crate::CLIENT_PORT`] of all of them.
    pub fn announcements(&mut self, limits: &Limits, now: Duration) -> Vec<Vec<u8>> {
        match self.announcing.is_due(now) {
            true => messages(self.external, self.seconds(now), limits.nat_pmp),
            false => Vec::new(),
        }
    }
}

/// A refusal, and how long it holds if that is not the code's own time.
#[derive(Debug)]
struct Refused {
    code: ResultCode,
    lifetime: Option<u32>,
}

impl From<ResultCode> for Refused {
    fn from(code: ResultCode) -> Refused {
        Refused { code, lifetime: None }
    }
}

impl Refused {
    /// Somebody with another nonce has the mapping, for that time still (section 11.3).
    fn for_another(m: &Mapping, now: Duration) -> Refused {
        let left = m.expires.saturating_sub(now).as_secs();
        Refused { code: ResultCode::NotAuthorized, lifetime: u32::try_from(left).ok() }
    }
}

/// The host for which is asked, which is of the realm of who asks.
fn host(limits: &Limits, from: Host, options: &Options) -> Result<Host, ResultCode> {
    match options.third_party {
        None => Ok(from),
        Some(_) if !limits.third_party => Err(ResultCode::UnsuppOption),
        Some(IpAddr::V4(address)) if address != from.address => Ok(Host { address, ..from }),
        Some(_) => Err(ResultCode::MalformedRequest),
    }
}

/// Address and port outside that are wanted, as far as they are said.
fn wanted_parts(asked: &MapBody) -> (Option<Ipv4Addr>, Option<u16>) {
    let address = match asked.wanted_address {
        IpAddr::V4(a) if !a.is_unspecified() => Some(a),
        _ => None,
    };
    (address, (asked.wanted_port != 0).then_some(asked.wanted_port))
}

fn wanted(asked: &MapBody) -> SocketAddrV4 {
    let (address, port) = wanted_parts(asked);
    SocketAddrV4::new(address.unwrap_or(Ipv4Addr::UNSPECIFIED), port.unwrap_or(0))
}

/// Filters of a mapping after those of a request: they are added, unless it removes what was before (section 13.3).
fn filters(mut list: Vec<Filter>, asked: &[Option<Filter>]) -> Vec<Filter> {
    for f in asked {
        match f {
            None => list.clear(),
            Some(f) if !list.contains(f) => list.push(*f),
            Some(_) => {}
        }
    }
    list
}

#[cfg(test)]
mod tests;
