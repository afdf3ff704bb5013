//! Three tiny XDP programs, assembled by hand and loaded by the bare `bpf` system call, so that this
//! crate's tests need neither a compiler nor a loader.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP: libc::c_int = 1;
const MAP_UPDATE: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const LINK_CREATE: libc::c_int = 28;

const TYPE_ARRAY: u32 = 2;
const TYPE_XSKMAP: u32 = 17;
const PROG_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const NATIVE: u32 = 1 << 2;
const LIVE_FRAMES: u32 = 1 << 1;

/// One instruction.
#[repr(C)]
#[derive(Clone, Copy)]
struct Insn {
    code: u8,
    regs: u8,
    off: i16,
    imm: i32,
}

const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    Insn { code, regs: dst | src << 4, off, imm }
}

/// `dst = imm`
const fn mov(dst: u8, imm: i32) -> Insn {
    insn(0xb7, dst, 0, 0, imm)
}

/// `dst = src`
const fn mov_reg(dst: u8, src: u8) -> Insn {
    insn(0xbf, dst, src, 0, 0)
}

/// `dst = *(u32 *)(src + off)`
const fn load32(dst: u8, src: u8, off: i16) -> Insn {
    insn(0x61, dst, src, off, 0)
}

/// `*(u32 *)(dst + off) = imm`
const fn store32(dst: u8, off: i16, imm: i32) -> Insn {
    insn(0x62, dst, 0, off, imm)
}

const fn call(function: i32) -> Insn {
    insn(0x85, 0, 0, 0, function)
}

const EXIT: Insn = insn(0x95, 0, 0, 0, 0);

/// `dst = map`, two slots.
fn load_map(dst: u8, map: &OwnedFd) -> [Insn; 2] {
    [insn(0x18, dst, 1, 0, map.as_raw_fd()), insn(0, 0, 0, 0, 0)]
}

/// `dst = &map[0]`, two slots.
fn load_value(dst: u8, map: &OwnedFd) -> [Insn; 2] {
    [insn(0x18, dst, 2, 0, map.as_raw_fd()), insn(0, 0, 0, 0, 0)]
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: every caller passes the attributes of its command, zero beyond what it sets.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn bpf_fd<T>(command: libc::c_int, attr: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the commands used with this return a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn create_map(kind: u32, value: u32, entries: u32) -> io::Result<OwnedFd> {
    let mut attr = [0u32; 16];
    attr[..4].copy_from_slice(&[kind, 4, value, entries]);
    bpf_fd(MAP_CREATE, &mut attr)
}

/// Whether this kernel has AF_XDP and this process may use it.
pub fn probe() -> io::Result<()> {
    // SAFETY: takes integers only; a descriptor it returns is new and belongs to nobody else.
    unsafe {
        let fd = libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        drop(OwnedFd::from_raw_fd(fd));
    }
    create_map(TYPE_XSKMAP, 4, 1).map(drop)
}

#[repr(C)]
struct MapElement {
    map: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn element<V>(command: libc::c_int, map: &OwnedFd, key: u32, value: &mut V) -> io::Result<()> {
    let (key, value) = (&raw const key as u64, &raw mut *value as u64);
    let mut attr = MapElement { map: map.as_raw_fd() as u32, _pad: 0, key, value, flags: 0 };
    bpf(command, &mut attr).map(drop)
}

fn load(program: &[Insn]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        program: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        rest: [u64; 10],
    }
    let mut log = vec![0u8; 65536];
    let mut attr = Load {
        kind: PROG_XDP,
        count: program.len() as u32,
        program: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log: log.as_mut_ptr() as u64,
        rest: [0; 10],
    };
    bpf_fd(PROG_LOAD, &mut attr).map_err(|error| {
        let text = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
        io::Error::other(format!("{error}: {text}"))
    })
}

/// An XDP program attached to a device until dropped.
pub struct Attached {
    _program: OwnedFd,
    _link: OwnedFd,
}

fn attach(program: OwnedFd, ifindex: u32) -> io::Result<Attached> {
    let mut attr = [0u32; 16];
    attr[..4].copy_from_slice(&[program.as_raw_fd() as u32, ifindex, ATTACH_XDP, NATIVE]);
    let link = bpf_fd(LINK_CREATE, &mut attr)?;
    Ok(Attached { _program: program, _link: link })
}

/// Redirects every packet to the socket of its queue; without one, packets go to the kernel.
pub struct Redirect {
    sockets: OwnedFd,
    _attached: Attached,
}

impl Redirect {
    pub fn attach(ifindex: u32) -> io::Result<Redirect> {
        const REDIRECT_MAP: i32 = 51;
        const RX_QUEUE: i16 = 16;
        let sockets = create_map(TYPE_XSKMAP, 4, 64)?;
        let [map, rest] = load_map(1, &sockets);
        let program = [load32(2, 1, RX_QUEUE), map, rest, mov(3, 2), call(REDIRECT_MAP), EXIT];
        let attached = attach(load(&program)?, ifindex)?;
        Ok(Redirect { sockets, _attached: attached })
    }

    pub fn set(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        element(MAP_UPDATE, &self.sockets, queue, &mut socket.as_raw_fd())
    }
}

/// Counts and drops every packet.
pub struct Sink {
    count: OwnedFd,
    _attached: Attached,
}

impl Sink {
    pub fn attach(ifindex: u32) -> io::Result<Sink> {
        const XDP_DROP: i32 = 1;
        let count = create_map(TYPE_ARRAY, 8, 1)?;
        let [value, rest] = load_value(1, &count);
        let add = insn(0xdb, 1, 2, 0, 0);
        let program = [value, rest, mov(2, 1), add, mov(0, XDP_DROP), EXIT];
        let attached = attach(load(&program)?, ifindex)?;
        Ok(Sink { count, _attached: attached })
    }

    pub fn count(&self) -> io::Result<u64> {
        let mut count = 0u64;
        element(MAP_LOOKUP, &self.count, 0, &mut count)?;
        Ok(count)
    }
}

/// Sends packets out of a device from within the kernel, as fast as one core can.
pub struct Generator {
    program: OwnedFd,
    count: OwnedFd,
    packet: Vec<u8>,
}

impl Generator {
    /// Packets start with `packet`'s bytes, of which there must be a multiple of 4 (up to 64). They
    /// are written again for every frame: frames are reused with whatever was done to them.
    pub fn new(packet: &[u8], out: u32) -> io::Result<Generator> {
        const REDIRECT: i32 = 23;
        let len = packet.len();
        assert!(len.is_multiple_of(4) && len <= 64);
        let words: Vec<Insn> = packet
            .chunks_exact(4)
            .enumerate()
            .map(|(i, w)| store32(2, 4 * i as i16, i32::from_ne_bytes([w[0], w[1], w[2], w[3]])))
            .collect();
        let mut program = vec![
            load32(2, 1, 0),
            load32(3, 1, 4),
            mov_reg(4, 2),
            insn(0x07, 4, 0, 0, len as i32),
            // if r4 > r3, skip the writes: the verifier wants to be shown.
            insn(0x2d, 4, 3, words.len() as i16, 0),
        ];
        program.extend(words);
        let count = create_map(TYPE_ARRAY, 8, 1)?;
        let [value, rest] = load_value(1, &count);
        program.extend([value, rest, mov(2, 1), insn(0xdb, 1, 2, 0, 0)]);
        program.extend([mov(1, out as i32), mov(2, 0), call(REDIRECT), EXIT]);
        Ok(Generator { program: load(&program)?, count, packet: packet.to_vec() })
    }

    /// Packets sent so far.
    pub fn count(&self) -> io::Result<u64> {
        let mut count = 0u64;
        element(MAP_LOOKUP, &self.count, 0, &mut count)?;
        Ok(count)
    }

    /// Sends `count` packets, `batch` at a time. Beginning and ending take tens of milliseconds.
    pub fn run(&self, count: u32, batch: u32) -> io::Result<()> {
        #[repr(C)]
        #[derive(Default)]
        struct TestRun {
            program: u32,
            result: u32,
            size_in: u32,
            size_out: u32,
            data_in: u64,
            data_out: u64,
            repeat: u32,
            duration: u32,
            context_in_size: u32,
            context_out_size: u32,
            context_in: u64,
            context_out: u64,
            flags: u32,
            cpu: u32,
            batch_size: u32,
            _pad: u32,
        }
        let mut attr = TestRun {
            program: self.program.as_raw_fd() as u32,
            size_in: self.packet.len() as u32,
            data_in: self.packet.as_ptr() as u64,
            repeat: count,
            flags: LIVE_FRAMES,
            batch_size: batch,
            ..TestRun::default()
        };
        bpf(PROG_TEST_RUN, &mut attr).map(drop)
    }
}
