//! ICMP echo over IPv4 and IPv6: one socket for one destination, a request at a time.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with};
use socket2::SockRef;

/// Types of the request and of the answer.
const V4: (u8, u8) = (8, 0);
const V6: (u8, u8) = (128, 129);
const HEADER: usize = 8;
const TOKEN: usize = 16;

/// Echo requests to one destination.
#[derive(Debug)]
pub struct Echo {
    socket: UdpSocket,
    /// What is received begins with the header of IPv4.
    has_header: bool,
    dst: IpAddr,
    /// The link of a link-local address.
    scope: u32,
    token: [u8; TOKEN],
}

impl Echo {
    /// # Errors
    /// There is no ICMP socket for this process, or the source is not an address of this machine.
    pub fn open(dst: IpAddr, src: Option<IpAddr>) -> io::Result<Echo> {
        let (socket, raw) = socket(dst)?;
        if let Some(src) = src {
            bind(&socket, &SocketAddr::new(src, 0)).map_err(|e| {
                let e = io::Error::from(e);
                io::Error::new(e.kind(), format!("source {src} is not this device's: {e}"))
            })?;
        }
        let mut token = [0; TOKEN];
        SystemRandom::new().fill(&mut token).map_err(|_| io::Error::other("no random numbers"))?;
        Ok(Echo { socket, has_header: raw && dst.is_ipv4(), dst, scope: 0, token })
    }

    /// The same by this link, which a link-local destination needs.
    #[must_use]
    pub fn on_link(self, scope: u32) -> Echo {
        Echo { scope, ..self }
    }

    /// The same by this device alone.
    ///
    /// # Errors
    /// There is no such device.
    pub fn by_device(self, name: &str) -> io::Result<Echo> {
        let bound = SockRef::from(&self.socket).bind_device(Some(name.as_bytes()));
        bound.map_err(|e| io::Error::new(e.kind(), format!("device {name}: {e}")))?;
        Ok(self)
    }

    fn destination(&self) -> SocketAddr {
        match self.dst {
            IpAddr::V4(v4) => SocketAddr::from((v4, 0)),
            IpAddr::V6(v6) => SocketAddr::V6(SocketAddrV6::new(v6, 0, 0, self.scope)),
        }
    }

    fn types(&self) -> (u8, u8) {
        if self.dst.is_ipv4() { V4 } else { V6 }
    }

    /// The time of the round trip; none if it was not answered in time, or could not be sent for want of a route.
    ///
    /// # Errors
    /// The socket fails.
    pub fn round_trip(&self, seq: u16, timeout: Duration) -> io::Result<Option<Duration>> {
        let packet = request(self.types().0, self.token, seq);
        if let Err(error) = self.socket.send_to(&packet, self.destination()) {
            tracing::debug!(%error, dst = %self.dst, "probe not sent");
            return Ok(None);
        }
        let sent = Instant::now();
        let mut buf = [0; 512];
        loop {
            let left = timeout.saturating_sub(sent.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.recv(&mut buf) {
                Ok(len) if answers(&buf[..len], self.has_header, self.types().1, self.token, seq) => {
                    return Ok(Some(sent.elapsed()));
                }
                // Somebody else's answer, or an ICMP error about a packet of ours: wait on.
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::TimedOut => {
                    return Ok(None);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

/// Unprivileged where `net.ipv4.ping_group_range` allows, else raw (CAP_NET_RAW).
fn socket(dst: IpAddr) -> io::Result<(UdpSocket, bool)> {
    let (family, protocol) = match dst {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let open = |kind| socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol));
    match open(SocketType::DGRAM) {
        Ok(fd) => Ok((UdpSocket::from(fd), false)),
        Err(refused) => match open(SocketType::RAW) {
            Ok(fd) => Ok((UdpSocket::from(fd), true)),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("no ICMP socket: {refused}; widen net.ipv4.ping_group_range or give CAP_NET_RAW"),
            )),
        },
    }
}

fn checksum(data: &[u8]) -> u16 {
    let sum: u32 =
        data.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// Of IPv6 the kernel writes the checksum, which covers addresses too.
fn request(kind: u8, token: [u8; TOKEN], seq: u16) -> Vec<u8> {
    let mut p = vec![kind, 0, 0, 0, token[0], token[1]];
    p.extend(seq.to_be_bytes());
    p.extend(token);
    let sum = checksum(&p).to_be_bytes();
    p[2..4].copy_from_slice(&sum);
    p
}

/// Whether this is the answer to our request of that number.
fn answers(data: &[u8], has_header: bool, kind: u8, token: [u8; TOKEN], seq: u16) -> bool {
    let start = if has_header { data.first().map_or(0, |b| usize::from(b & 15) * 4) } else { 0 };
    let Some(icmp) = data.get(start..) else { return false };
    icmp.first() == Some(&kind)
        && icmp.get(6..HEADER) == Some(&seq.to_be_bytes()[..])
        && icmp.get(HEADER..HEADER + TOKEN) == Some(&token[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&request(V4.0, [7; 16], 3)), 0);
    }

    #[test]
    fn answers_are_told_from_others() {
        for (_, answer) in [V4, V6] {
            let a = request(answer, [9; 16], 4);
            assert!(answers(&a, false, answer, [9; 16], 4));
            assert!(
                !answers(&a, false, answer, [9; 16], 5)
                    && !answers(&a, false, answer, [8; 16], 4)
                    && !answers(&a, false, 3, [9; 16], 4)
                    && !answers(&[], false, answer, [0; 16], 0)
            );
        }
        let mut with_header = vec![0x45; 20];
        with_header.extend(request(0, [9; 16], 4));
        assert!(answers(&with_header, true, 0, [9; 16], 4) && !answers(&[0x4f; 10], true, 0, [9; 16], 4));
    }

    #[test]
    fn this_machine_answers_over_both_families() {
        for dst in ["127.0.0.1", "::1"] {
            let dst: IpAddr = dst.parse().expect("an address");
            match Echo::open(dst, Some(dst)) {
                Ok(echo) => {
                    let rtt = echo.round_trip(7, Duration::from_secs(2)).expect("sends");
                    assert!(rtt.is_some(), "{dst}");
                }
                Err(e) => println!("SKIP this_machine_answers_over_both_families: {dst}: {e}"),
            }
        }
    }
}
