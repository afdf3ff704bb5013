//! The DNS servers that this machine uses, and whether they answer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where systemd-resolved writes the servers behind its own.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
/// As many as the C library asks.
const MAX_SERVERS: usize = 3;
/// A file that is larger is none of a resolver.
const MAX_FILE: u64 = 64 * 1024;

/// The servers of a file in the form of resolv.conf(5), in their order. Those with a zone are left out.
pub fn parse(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") { None } else { words.next()?.parse().ok() }
    };
    text.lines().filter_map(server).take(MAX_SERVERS).collect()
}

fn read(path: &Path) -> io::Result<Vec<IpAddr>> {
    let size = std::fs::metadata(path)?.len();
    if size > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{size} bytes")));
    }
    Ok(parse(&std::fs::read_to_string(path)?))
}

/// The servers in use.
///
/// # Errors
/// The file of the resolver cannot be read.
pub fn servers(resolv_conf: &Path) -> io::Result<Vec<IpAddr>> {
    read(&file(resolv_conf))
}

/// The file with the servers in use: where systemd-resolved answers itself, that of the servers that it asks.
pub fn file(resolv_conf: &Path) -> PathBuf {
    let behind = Path::new(RESOLVED);
    let is_stub = read(resolv_conf).is_ok_and(|servers| servers == [STUB]);
    let is_known = is_stub && read(behind).is_ok_and(|servers| !servers.is_empty());
    if is_known { behind } else { resolv_conf }.to_owned()
}

/// What a server answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    pub rtt: Duration,
    /// RFC 1035, section 4.1.1; 0 is no error.
    pub rcode: u8,
}

const HEADER: usize = 12;
/// Flags of a query that wants recursion (RFC 1035).
const RECURSION: u16 = 0x0100;
const TYPE_A: u16 = 1;
const TYPE_NS: u16 = 2;
const CLASS_IN: u16 = 1;

/// A query for the address of a name, or for the servers of the root if there is none.
fn query(id: u16, name: Option<&str>) -> Vec<u8> {
    let mut q = Vec::new();
    for word in [id, RECURSION, 1, 0, 0, 0] {
        q.extend(word.to_be_bytes());
    }
    for label in name.into_iter().flat_map(|n| n.split('.')).filter(|l| !l.is_empty() && l.len() < 64) {
        q.push(label.len() as u8);
        q.extend(label.bytes());
    }
    q.push(0);
    for word in [if name.is_some() { TYPE_A } else { TYPE_NS }, CLASS_IN] {
        q.extend(word.to_be_bytes());
    }
    q
}

/// The result code, if this answers the query.
fn rcode(answer: &[u8], id: u16) -> Option<u8> {
    let is_answer = answer.len() >= HEADER && answer[..2] == id.to_be_bytes() && answer[2] & 0x80 != 0;
    is_answer.then(|| answer[3] & 0x0f)
}

/// Asks a server, again for each of the timeouts.
///
/// # Errors
/// It cannot be reached, or does not answer.
pub fn ask(server: SocketAddr, name: Option<&str>, timeouts: &[Duration]) -> io::Result<Answer> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    // What others send is not received.
    socket.connect(server)?;
    let mut last = io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
    for (n, timeout) in timeouts.iter().enumerate() {
        let id = (std::process::id() as u16).wrapping_add(n as u16);
        let sent = Instant::now();
        socket.send(&query(id, name))?;
        let mut buf = [0; 1500];
        loop {
            let left = timeout.saturating_sub(sent.elapsed());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut buf) {
                Ok(len) => {
                    if let Some(rcode) = rcode(&buf[..len], id) {
                        return Ok(Answer { rtt: sent.elapsed(), rcode });
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::TimedOut => {
                    break;
                }
                // The host says that nothing listens there.
                Err(e) => {
                    last = e;
                    break;
                }
            }
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_the_file() {
        let text = "# one\nsearch example.com\nnameserver 192.0.2.53\nnameserver\t2001:db8::53 # two\n;nameserver 1.1.1.1\n\
            nameserver fe80::1%eth0\nnameserver\nnameservers 1.2.3.4\n";
        let wanted: Vec<IpAddr> =
            ["192.0.2.53", "2001:db8::53"].iter().map(|a| a.parse().expect("one")).collect();
        assert_eq!(parse(text), wanted);
        assert_eq!(parse(&"nameserver 192.0.2.1\n".repeat(9)).len(), MAX_SERVERS);
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("resolv.conf");
        assert!(servers(&file).is_err(), "there is none");
        std::fs::write(&file, text).expect("written");
        assert_eq!(servers(&file).expect("read"), wanted);
    }

    #[test]
    fn a_query_is_that_of_rfc_1035() {
        let q = query(0x1234, Some("a.example."));
        assert_eq!(q[..HEADER], [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(q[HEADER..], *b"\x01a\x07example\0\0\x01\0\x01");
        assert_eq!(query(1, None)[HEADER..], [0, 0, 2, 0, 1]);
        assert_eq!(rcode(&q, 0x1234), None, "the query itself");
        let mut a = q.clone();
        (a[2], a[3]) = (0x81, 0x83);
        assert_eq!((rcode(&a, 0x1234), rcode(&a, 1), rcode(&a[..11], 0x1234)), (Some(3), None, None));
    }

    #[test]
    fn a_server_that_answers_and_one_that_does_not() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(server) = UdpSocket::bind(address) else { continue };
            let at = server.local_addr().expect("address");
            let short = [Duration::from_millis(50), Duration::from_millis(2_000)];
            let asked = std::thread::spawn(move || ask(at, Some("example.com"), &short));
            // The first query is lost; what is no answer is passed over.
            let mut buf = [0; 512];
            let _ = server.recv_from(&mut buf).expect("a query");
            let (len, from) = server.recv_from(&mut buf).expect("again");
            server.send_to(&buf[..len], from).expect("no answer");
            (buf[2], buf[3]) = (0x81, 0x82);
            server.send_to(&buf[..len], from).expect("answered");
            assert_eq!(asked.join().expect("ended").expect("an answer").rcode, 2);
            drop(server);
            assert!(ask(at, None, &[Duration::from_millis(50)]).is_err());
        }
    }
}
