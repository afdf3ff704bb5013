//! Network namespaces with veth pairs, and XDP programs to put on them; for tests and examples.

#![allow(dead_code, unsafe_code)]

pub mod bpf;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process::Command;

/// A network namespace that is deleted when dropped, with the devices in it.
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace, replacing one that a crashed predecessor left. `None`, after saying why,
    /// where this process may not.
    pub fn new(name: &str) -> Option<Netns> {
        if let Err(error) = bpf::probe() {
            println!("SKIP: XDP maps and sockets are not to be had: {error}");
            return None;
        }
        let _ = Command::new("ip").args(["netns", "del", name]).output();
        match Command::new("ip").args(["netns", "add", name]).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                println!("SKIP: ip netns add: {}", String::from_utf8_lossy(&output.stderr).trim());
                return None;
            }
            Err(error) => {
                println!("SKIP: no ip command (iproute2): {error}");
                return None;
            }
        }
        let netns = Netns { name: name.to_owned() };
        netns.ip("link set dev lo up");
        Some(netns)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip -n NAME ...`.
    pub fn ip(&self, arguments: &str) {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]).args(arguments.split_whitespace());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A veth pair: `here` in this namespace, `there` in the other one, both up.
    pub fn veth(&self, here: &str, other: &Netns, there: &str, queues: u32) {
        let q = format!("numrxqueues {queues} numtxqueues {queues}");
        self.ip(&format!("link add name {here} {q} type veth peer name {there} {q} netns {}", other.name));
        for (netns, device) in [(self, here), (other, there)] {
            // Router solicitations and the like would disturb the counting.
            netns.write_sysctl(&format!("net/ipv6/conf/{device}/disable_ipv6"), "1");
            netns.ip(&format!("link set dev {device} up"));
        }
    }

    fn write_sysctl(&self, path: &str, value: &str) {
        self.enter(|| {
            let _ = std::fs::write(format!("/proc/sys/{path}"), value);
        });
    }

    /// Runs `f` on a thread of its own within the namespace.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.join_thread().unwrap();
                    f()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace.
    pub fn join_thread(&self) -> io::Result<()> {
        let file = File::open(format!("/run/netns/{}", self.name))?;
        // SAFETY: changes the namespace of the calling thread only.
        let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// A packet socket on a device of the calling thread's namespace.
pub struct Raw(File);

impl Raw {
    pub fn open(device: &str) -> io::Result<Raw> {
        use std::os::fd::FromRawFd;
        let name = std::ffi::CString::new(device)?;
        // SAFETY: the name is terminated; the descriptor is new and checked before it is owned.
        unsafe {
            let protocol = (libc::ETH_P_ALL as u16).to_be();
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol.into());
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            let socket = File::from_raw_fd(fd);
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = protocol;
            address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
            let size = size_of_val(&address) as libc::socklen_t;
            if libc::bind(fd, (&raw const address).cast(), size) < 0 {
                return Err(io::Error::last_os_error());
            }
            let (buffer, timeout) = (16 << 20, libc::timeval { tv_sec: 0, tv_usec: 300_000 });
            let int = size_of::<libc::c_int>() as libc::socklen_t;
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const buffer).cast(), int);
            let time = size_of_val(&timeout) as libc::socklen_t;
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const timeout).cast(), time);
            Ok(Raw(socket))
        }
    }

    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut &self.0, packet)
    }

    /// The next packet, or an error if none comes for a while.
    pub fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 4096];
        let len = io::Read::read(&mut &self.0, &mut buffer)?;
        buffer.truncate(len);
        Ok(buffer)
    }
}

/// A UDP packet of `len` bytes whose payload is made from `seed`, with addresses from documentation ranges.
pub fn udp_packet(len: usize, seed: u64) -> Vec<u8> {
    let mut packet = vec![0; len];
    packet[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    let total = (len - 14) as u16;
    packet[14..34].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1]);
    packet[16..18].copy_from_slice(&total.to_be_bytes());
    let sum: u32 = packet[14..34].chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    packet[24..26].copy_from_slice(&(!((folded + (folded >> 16)) as u16)).to_be_bytes());
    packet[34..42].copy_from_slice(&[0x13, 0x88, 0x13, 0x89, 0, 0, 0, 0]);
    packet[38..40].copy_from_slice(&(total - 20).to_be_bytes());
    packet[42..50].copy_from_slice(&seed.to_be_bytes());
    let mut state = seed | 1;
    for byte in &mut packet[50..] {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        *byte = (state >> 56) as u8;
    }
    packet
}
