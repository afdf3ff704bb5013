//! Messages of PCP (RFC 6887).

use crate::MAX_MESSAGE;
use crate::bytes::{address_at, array, mapped, u16_at, u32_at};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

/// The version of RFC 6887.
pub(crate) const VERSION: u8 = 2;
/// The bit of a response.
pub(crate) const RESPONSE: u8 = 0x80;
/// Bytes of the header of requests and responses.
const HEADER: usize = 24;
/// Bytes of the body of MAP (section 11.1).
const MAP: usize = 36;
/// And of PEER (section 12.1).
const PEER: usize = 56;

/// What an answer says of a request (section 7.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ResultCode {
    /// It is done.
    Success = 0,
    /// Another version than 2.
    UnsuppVersion = 1,
    /// The host may not do this.
    NotAuthorized = 2,
    /// It cannot be read.
    MalformedRequest = 3,
    /// Another opcode than ANNOUNCE, MAP and PEER.
    UnsuppOpcode = 4,
    /// An option that must be processed, and that is not known or not allowed.
    UnsuppOption = 5,
    /// An option that has another length than it should, or is there too often.
    MalformedOption = 6,
    /// There is no external address at the moment.
    NetworkFailure = 7,
    /// There is no room for another mapping.
    NoResources = 8,
    /// Another protocol than TCP and UDP.
    UnsuppProtocol = 9,
    /// The host has as many mappings as it may.
    UserExQuota = 10,
    /// The external address or port that alone would do is not to be had.
    CannotProvideExternal = 11,
    /// The request was translated on its way.
    AddressMismatch = 12,
    /// More filters than a mapping may have.
    ExcessiveRemotePeers = 13,
}

impl ResultCode {
    /// How long the same request would get the same answer, in seconds: half a minute where others may give
    /// something back meanwhile, else half an hour (section 7.4).
    pub const fn lifetime(self) -> u32 {
        match self {
            ResultCode::Success => 0,
            ResultCode::NetworkFailure
            | ResultCode::NoResources
            | ResultCode::UserExQuota
            | ResultCode::CannotProvideExternal => 30,
            _ => 1800,
        }
    }
}

/// Remote endpoints that a host admits (section 13.3), or with which it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Address of the network.
    pub address: Ipv4Addr,
    /// Bits of the address that count.
    pub prefix_len: u8,
    /// `None`: every port.
    pub port: Option<u16>,
}

/// The header of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub opcode: u8,
    /// In seconds.
    pub lifetime: u32,
    /// Whom the client takes itself for.
    pub client: IpAddr,
}

impl Header {
    /// Of a message of this version.
    pub(crate) fn read(message: &[u8]) -> Result<Header, ResultCode> {
        if message.len() > MAX_MESSAGE || !message.len().is_multiple_of(4) {
            return Err(ResultCode::MalformedRequest);
        }
        let header = || {
            let (opcode, lifetime) = (message.get(1)? & !RESPONSE, u32_at(message, 4)?);
            Some(Header { opcode, lifetime, client: address_at(message, 8)? })
        };
        header().ok_or(ResultCode::MalformedRequest)
    }
}

/// A port that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapBody {
    /// By which the client proves that a mapping is its own.
    pub nonce: [u8; 12],
    pub protocol: u8,
    /// 0: all.
    pub port: u16,
    /// 0: any.
    pub wanted_port: u16,
    pub wanted_address: IpAddr,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    Announce,
    Map(MapBody),
    /// With the remote endpoint.
    Peer(MapBody, (IpAddr, u16)),
}

/// The options of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// The host for which is asked.
    pub third_party: Option<IpAddr>,
    pub prefer_failure: bool,
    /// In their order; `None` removes those before it.
    pub filters: Vec<Option<Filter>>,
    /// As they were, for the answer.
    pub processed: Vec<u8>,
}

impl Body {
    /// What follows the header.
    pub(crate) fn read(header: &Header, message: &[u8]) -> Result<(Body, Options), ResultCode> {
        let map = || {
            Some(MapBody {
                nonce: array(message, HEADER)?,
                protocol: *message.get(HEADER + 12)?,
                port: u16_at(message, HEADER + 16)?,
                wanted_port: u16_at(message, HEADER + 18)?,
                wanted_address: address_at(message, HEADER + 20)?,
            })
        };
        let peer = || Some((address_at(message, HEADER + 40)?, u16_at(message, HEADER + 36)?));
        let (body, len) = match header.opcode {
            0 => (Some(Body::Announce), 0),
            1 => (map().map(Body::Map), MAP),
            2 => (map().and_then(|m| Some(Body::Peer(m, peer()?))), PEER),
            _ => return Err(ResultCode::UnsuppOpcode),
        };
        let (Some(body), Some(options)) = (body, message.get(HEADER + len..)) else {
            return Err(ResultCode::MalformedRequest);
        };
        let options = Options::read(options, &body)?;
        Ok((body, options))
    }
}

impl Options {
    /// Those that an answer repeats are the ones that were processed; of the others only those that need not be may be
    /// there (section 7.3).
    fn read(mut rest: &[u8], body: &Body) -> Result<Options, ResultCode> {
        let mut out = Options::default();
        while let Some(&code) = rest.first() {
            let len = usize::from(u16_at(rest, 2).ok_or(ResultCode::MalformedOption)?);
            let padded = len.next_multiple_of(4);
            let whole = rest.get(..4 + padded).ok_or(ResultCode::MalformedOption)?;
            let data = &whole[4..4 + len];
            let only_map = || match body {
                Body::Map(_) => Ok(()),
                _ => Err(ResultCode::MalformedRequest),
            };
            match code {
                1 => {
                    let host = address_at(data, 0).filter(|_| len == 16 && out.third_party.is_none());
                    out.third_party = Some(host.ok_or(ResultCode::MalformedOption)?);
                    if matches!(body, Body::Announce) {
                        return Err(ResultCode::MalformedRequest);
                    }
                }
                2 => {
                    only_map()?;
                    if len != 0 || out.prefer_failure {
                        return Err(ResultCode::MalformedOption);
                    }
                    out.prefer_failure = true;
                }
                3 => {
                    only_map()?;
                    out.filters.push(filter(data).ok_or(ResultCode::MalformedOption)?);
                }
                0..128 => return Err(ResultCode::UnsuppOption),
                _ => {
                    rest = &rest[4 + padded..];
                    continue;
                }
            }
            out.processed.extend_from_slice(whole);
            rest = &rest[4 + padded..];
        }
        Ok(out)
    }
}

/// The data of a filter option; `Some(None)` removes the filters that there are.
fn filter(data: &[u8]) -> Option<Option<Filter>> {
    let (len, port) = (*data.get(1)?, u16_at(data, 2)?);
    let address = address_at(data, 4).filter(|_| data.len() == 20)?;
    if len == 0 {
        return Some(None);
    }
    // Lengths are those of IPv6 addresses.
    let (IpAddr::V4(address), Some(prefix_len)) = (address, len.checked_sub(96)) else { return None };
    (prefix_len <= 32).then_some(Some(Filter { address, prefix_len, port: (port != 0).then_some(port) }))
}

/// A success.
pub(crate) struct Answer<'a> {
    pub opcode: u8,
    pub lifetime: u32,
    pub epoch: u32,
    pub options: &'a [u8],
}

impl Answer<'_> {
    /// With a body.
    pub(crate) fn write(&self, body: &[u8]) -> Vec<u8> {
        let mut out = vec![VERSION, RESPONSE | self.opcode, 0, ResultCode::Success as u8];
        out.extend(self.lifetime.to_be_bytes());
        out.extend(self.epoch.to_be_bytes());
        out.extend([0; 12]);
        out.extend_from_slice(body);
        out.extend_from_slice(self.options);
        out
    }
}

/// The body of an answer to MAP, and the first part of one to PEER.
pub(crate) fn assigned(asked: &MapBody, external: SocketAddrV4) -> Vec<u8> {
    let mut out = asked.nonce.to_vec();
    out.extend([asked.protocol, 0, 0, 0]);
    out.extend(asked.port.to_be_bytes());
    out.extend(external.port().to_be_bytes());
    out.extend(mapped(*external.ip()));
    out
}

/// The body of an answer to PEER.
pub(crate) fn assigned_peer(asked: &MapBody, external: SocketAddrV4, remote: SocketAddrV4) -> Vec<u8> {
    let mut out = assigned(asked, external);
    out.extend(remote.port().to_be_bytes());
    out.extend([0; 2]);
    out.extend(mapped(*remote.ip()));
    out
}

/// A refusal: the request, with another header (section 8.3).
pub(crate) fn refusal(request: &[u8], code: ResultCode, lifetime: u32, epoch: u32) -> Vec<u8> {
    let mut out = request[..request.len().min(MAX_MESSAGE)].to_vec();
    out.resize(out.len().next_multiple_of(4).max(HEADER), 0);
    out[0] = VERSION;
    out[1] |= RESPONSE;
    out[2] = 0;
    out[3] = code as u8;
    out[4..8].copy_from_slice(&lifetime.to_be_bytes());
    out[8..12].copy_from_slice(&epoch.to_be_bytes());
    out[12..24].fill(0);
    out
}
