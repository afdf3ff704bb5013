//! The sockets of this machine's TCP and UDP, by `sock_diag(7)`. The kernel announces only that one is destroyed, not
//! that one is opened, so whoever follows them reads them again.

use crate::error::{Error, Result};
use crate::socket::Requester;
use crate::wire::{ip, u8_at};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use std::net::{IpAddr, SocketAddr};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;

// States as in `include/net/tcp_states.h`; UDP has the first and `TCP_CLOSE`.
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const NEW_SYN_RECV: u8 = 12;

/// A socket of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnSocket {
    /// IP protocol: TCP or UDP.
    pub protocol: u8,
    /// Its own end. Of an IPv6 socket that speaks IPv4, the IPv4 address; unspecified: any address.
    pub local: SocketAddr,
    /// The other end, if it is connected.
    pub remote: Option<SocketAddr>,
}

impl OwnSocket {
    /// From the ends as the kernel has them, an IPv4 address in IPv6's clothes included; 0 is no port of the other end.
    pub fn new(protocol: u8, local: (IpAddr, u16), remote: (IpAddr, u16)) -> OwnSocket {
        let end = |(addr, port): (IpAddr, u16)| SocketAddr::new(addr.to_canonical(), port);
        let connected = !remote.0.is_unspecified() || remote.1 != 0;
        OwnSocket { protocol, local: end(local), remote: connected.then(|| end(remote)) }
    }
}

/// Reads the sockets of the network namespace.
pub struct SocketReader {
    requester: Requester,
}

impl SocketReader {
    /// Opens the netlink socket.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<SocketReader> {
        Ok(SocketReader { requester: Requester::open(NETLINK_SOCK_DIAG)? })
    }

    /// Calls `each` with every socket of a protocol that holds its port: those that wait out a closed connection, and
    /// those that are not bound, are left out.
    ///
    /// # Errors
    /// [`Error::Dump`]: the kernel cannot tell, for one because it has no `inet_diag`; [`Error::Timeout`].
    pub fn read(&mut self, protocol: u8, mut each: impl FnMut(OwnSocket)) -> Result<()> {
        let states = match i32::from(protocol) {
            libc::IPPROTO_TCP => !(1u32 << TIME_WAIT | 1 << CLOSE | 1 << NEW_SYN_RECV),
            _ => u32::MAX,
        };
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            let what = "sockets";
            let answer = self.requester.request(
                what,
                |seq| request(family, protocol, states, seq),
                |message| {
                    if let Some(socket) = decode(protocol, message.payload).filter(|s| s.local.port() != 0) {
                        each(socket);
                    }
                },
            )?;
            answer.map_err(|source| Error::Dump { what, source })?;
        }
        Ok(())
    }
}

/// `struct nlmsghdr`, `struct inet_diag_req_v2`: all sockets whatever their ends.
fn request(family: u8, protocol: u8, states: u32, seq: u32) -> Vec<u8> {
    const SOCKET_ID: [u8; 48] = [0; 48];
    let len = 16 + 8 + SOCKET_ID.len() as u32;
    let mut out = Vec::with_capacity(len as usize);
    out.extend(len.to_ne_bytes());
    out.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    out.extend(seq.to_ne_bytes());
    out.extend(0u32.to_ne_bytes());
    out.extend([family, protocol, 0, 0]);
    out.extend(states.to_ne_bytes());
    out.extend(SOCKET_ID);
    out
}

/// `struct inet_diag_msg`: family, state, timer, retransmissions, then ports and addresses in network order.
fn decode(protocol: u8, bytes: &[u8]) -> Option<OwnSocket> {
    let len = match i32::from(u8_at(bytes, 0)?) {
        libc::AF_INET => 4,
        libc::AF_INET6 => 16,
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes([u8_at(bytes, at)?, u8_at(bytes, at + 1)?]));
    let addr = |at: usize| ip(bytes.get(at..at + len)?);
    Some(OwnSocket::new(protocol, (addr(8)?, port(4)?), (addr(24)?, port(6)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn all(protocol: i32) -> Vec<OwnSocket> {
        let mut out = Vec::new();
        SocketReader::open().unwrap().read(protocol as u8, |s| out.push(s)).unwrap();
        out
    }

    #[test]
    fn sockets_of_all_kinds_are_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let six = TcpListener::bind("[::]:0").unwrap();
        let mapped = TcpStream::connect(("::ffff:127.0.0.1", six.local_addr().unwrap().port())).unwrap();
        let tcp = all(libc::IPPROTO_TCP);
        let has = |local: SocketAddr, remote: Option<SocketAddr>| {
            tcp.iter().any(|s| s.local == local && s.remote == remote)
        };
        assert!(has(listener.local_addr().unwrap(), None));
        assert!(has(client.local_addr().unwrap(), Some(client.peer_addr().unwrap())));
        assert!(has(six.local_addr().unwrap(), None));
        let own = mapped.local_addr().unwrap();
        assert!(tcp.iter().any(|s| s.local == SocketAddr::new(own.ip().to_canonical(), own.port())));
        let bound = UdpSocket::bind("127.0.0.1:0").unwrap();
        let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
        connected.connect(bound.local_addr().unwrap()).unwrap();
        let udp = all(libc::IPPROTO_UDP);
        let find = |local| udp.iter().find(|s| s.local == local).unwrap().remote;
        assert_eq!(find(bound.local_addr().unwrap()), None);
        assert_eq!(find(connected.local_addr().unwrap()), Some(bound.local_addr().unwrap()));
        drop(client);
    }

    #[test]
    fn short_and_foreign_messages_are_passed_over() {
        assert_eq!(decode(6, &[]), None);
        assert_eq!(decode(6, &[libc::AF_INET6 as u8; 30]), None);
        assert_eq!(decode(6, &[libc::AF_UNIX as u8; 72]), None);
    }
}
