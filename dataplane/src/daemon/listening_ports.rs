//! Ports on which the gateway itself listens: NAT must not give them to sessions on an address that it shares
//! with the gateway. Read from /proc/net, as the kernel does not notify of sockets.

use sag_pipeline::nat::POOL_WORDS;
use std::path::Path;

/// TCP's state LISTEN and UDP's only state, as the files spell them.
const LISTEN: &str = "0A";
const UDP_OPEN: &str = "07";

/// One bit a port, TCP then UDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListeningPorts(pub Box<[u64]>);

impl Default for ListeningPorts {
    fn default() -> ListeningPorts {
        ListeningPorts(vec![0; POOL_WORDS].into())
    }
}

impl ListeningPorts {
    /// Those of this process's network namespace. A file that cannot be read adds nothing.
    pub fn now() -> ListeningPorts {
        ListeningPorts::read(Path::new("/proc/self/net"))
    }

    fn read(dir: &Path) -> ListeningPorts {
        let mut out = ListeningPorts::default();
        for (name, state, base) in
            [("tcp", LISTEN, 0), ("tcp6", LISTEN, 0), ("udp", UDP_OPEN, 1), ("udp6", UDP_OPEN, 1)]
        {
            let Ok(text) = std::fs::read_to_string(dir.join(name)) else { continue };
            for port in text.lines().skip(1).filter_map(|l| local_port(l, state)) {
                out.0[base * POOL_WORDS / 2 + usize::from(port) / 64] |= 1 << (port % 64);
            }
        }
        out
    }

    /// UDP ports that are also among `other`.
    pub fn udp_ports_of(&self, other: &[u64]) -> Vec<u16> {
        let half = POOL_WORDS / 2;
        let both = self.0.iter().zip(other).skip(half).enumerate();
        both.flat_map(|(i, (a, b))| {
            (0..64).filter(move |bit| (a & b) >> bit & 1 == 1).map(move |bit| (i * 64 + bit) as u16)
        })
        .collect()
    }
}

/// The port of a line `  0: 0100007F:0016 00000000:0000 0A ...`, if its socket has this state.
fn local_port(line: &str, state: &str) -> Option<u16> {
    let mut f = line.split_ascii_whitespace().skip(1);
    let local = f.next()?;
    let found = f.nth(1)?;
    if found != state {
        return None;
    }
    u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        let dir = std::env::temp_dir().join(format!("sag-listeners-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let tcp = "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1\n   \
                      1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000 0 0 1";
        std::fs::write(dir.join("tcp"), format!("{head}\n{tcp}\n")).unwrap();
        let udp = " 100: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 07 0:0 00:0 0 0 0 1";
        std::fs::write(dir.join("udp6"), format!("{head}\n{udp}\nnonsense\n")).unwrap();
        let l = ListeningPorts::read(&dir);
        let ones: u32 = l.0.iter().map(|w| w.count_ones()).sum();
        assert_eq!(ones, 2, "a connected socket is no listener");
        assert_eq!((l.0[0], l.0[POOL_WORDS / 2]), (1 << 22, 1 << 53));
        let mut forwards = vec![0u64; POOL_WORDS];
        forwards[POOL_WORDS / 2] = 1 << 53 | 1 << 54;
        assert_eq!(l.udp_ports_of(&forwards), [53]);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_real_listener_is_seen() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = usize::from(tcp.local_addr().unwrap().port());
        assert_eq!(ListeningPorts::now().0[port / 64] >> (port % 64) & 1, 1);
    }
}
