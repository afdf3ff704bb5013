//! Messages of NAT-PMP (RFC 6886).

use crate::bytes::{u16_at, u32_at};
use crate::nat::Protocol;
use std::net::Ipv4Addr;

/// The bit of a response.
pub(crate) const RESPONSE: u8 = 0x80;

/// What an answer says of a request (section 3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum ResultCode {
    Success = 0,
    UnsupportedVersion = 1,
    Refused = 2,
    NetworkFailure = 3,
    OutOfResources = 4,
    UnsupportedOpcode = 5,
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// For the external address.
    Address,
    /// For a port.
    Map(Map),
    /// Something else.
    Unknown(u8),
}

/// A port that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Map {
    pub protocol: Protocol,
    /// 0 with a lifetime of 0: all.
    pub port: u16,
    /// 0: any.
    pub wanted: u16,
    /// In seconds; 0 ends the mapping.
    pub lifetime: u32,
}

impl Map {
    const fn opcode(&self) -> u8 {
        match self.protocol {
            Protocol::Udp => 1,
            Protocol::Tcp => 2,
        }
    }
}

impl Request {
    /// `None`: it is too short to be answered, or is an answer.
    pub(crate) fn read(message: &[u8]) -> Option<Request> {
        let opcode = *message.get(1)?;
        let protocol = match opcode {
            0 => return Some(Request::Address),
            1 => Protocol::Udp,
            2 => Protocol::Tcp,
            3..RESPONSE => return Some(Request::Unknown(opcode)),
            _ => return None,
        };
        let (port, wanted) = (u16_at(message, 4)?, u16_at(message, 6)?);
        Some(Request::Map(Map { protocol, port, wanted, lifetime: u32_at(message, 8)? }))
    }
}

fn head(opcode: u8, code: ResultCode, epoch: u32) -> Vec<u8> {
    let mut out = vec![0, RESPONSE | opcode];
    out.extend((code as u16).to_be_bytes());
    out.extend(epoch.to_be_bytes());
    out
}

/// The external address; without one a network failure.
pub(crate) fn address(external: Option<Ipv4Addr>, epoch: u32) -> Vec<u8> {
    let code = if external.is_some() { ResultCode::Success } else { ResultCode::NetworkFailure };
    let mut out = head(0, code, epoch);
    out.extend(external.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    out
}

/// An answer about a port.
pub(crate) fn map(asked: &Map, code: ResultCode, (port, lifetime): (u16, u32), epoch: u32) -> Vec<u8> {
    let mut out = head(asked.opcode(), code, epoch);
    out.extend(asked.port.to_be_bytes());
    out.extend(port.to_be_bytes());
    out.extend(lifetime.to_be_bytes());
    out
}

/// The answer to an opcode that there is not, or to one of a protocol that is not spoken.
pub(crate) fn unsupported(opcode: u8, code: ResultCode, epoch: u32) -> Vec<u8> {
    head(opcode, code, epoch)
}
