//! System calls that libbpf-rs has no safe form of. Everything here takes and gives owned or
//! borrowed descriptors and plain values, and is safe to call.

use libbpf_rs::libbpf_sys as raw;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xCAFE_4A11;

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "path contains a NUL byte"))
}

/// libbpf gives `-errno`, libc gives -1 and sets errno; both are negative.
fn check(ret: i32) -> io::Result<i32> {
    match ret {
        r if r >= 0 => Ok(r),
        -1 => Err(io::Error::last_os_error()),
        r => Err(io::Error::from_raw_os_error(-r)),
    }
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    let fd = check(fd)?;
    // SAFETY: the kernel has just returned this descriptor to us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let p = c_path(path)?;
    // SAFETY: `p` is a NUL-terminated string that lives through the call.
    owned(unsafe { raw::bpf_obj_get(p.as_ptr()) })
}

pub(crate) fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let p = c_path(path)?;
    // SAFETY: as in `obj_get`; the descriptor is borrowed and so open.
    check(unsafe { raw::bpf_obj_pin(fd.as_raw_fd(), p.as_ptr()) }).map(drop)
}

/// Attaches `prog` to a device. `flags` are `XDP_FLAGS_*`.
pub(crate) fn xdp_link_create(prog: BorrowedFd<'_>, ifindex: u32, flags: u32) -> io::Result<OwnedFd> {
    let opts = raw::bpf_link_create_opts {
        sz: size_of::<raw::bpf_link_create_opts>() as raw::size_t,
        flags,
        ..Default::default()
    };
    // SAFETY: `opts` is initialised, says its size, and lives through the call.
    owned(unsafe { raw::bpf_link_create(prog.as_raw_fd(), ifindex as i32, raw::BPF_XDP, &opts) })
}

/// Attaches `prog` to the tracepoint that it was loaded for, as long as the descriptor is open.
pub(crate) fn tracepoint_open(prog: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: an open descriptor; the name is that of the program's own section if it is null.
    owned(unsafe { raw::bpf_raw_tracepoint_open(std::ptr::null(), prog.as_raw_fd()) })
}

/// Puts `prog` in the place of the link's program, atomically.
pub(crate) fn link_update(link: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: two open descriptors; a null option pointer is allowed.
    check(unsafe { raw::bpf_link_update(link.as_raw_fd(), prog.as_raw_fd(), std::ptr::null()) }).map(drop)
}

pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: an open descriptor, no memory is passed.
    check(unsafe { raw::bpf_link_detach(link.as_raw_fd()) }).map(drop)
}

/// What an XDP or tcx link is on: the device in the caller's network namespace (0 once the device is gone or the link was
/// detached), and the number of its program.
pub(crate) fn xdp_link_info(link: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let mut info = raw::bpf_link_info::default();
    let mut len = size_of::<raw::bpf_link_info>() as u32;
    // SAFETY: `info` is writable and `len` is its size.
    check(unsafe { raw::bpf_link_get_info_by_fd(link.as_raw_fd(), &mut info, &mut len) })?;
    // SAFETY: the union was zeroed, and every one of its members is plain data. That of tcx begins with the same number.
    Ok((unsafe { info.__bindgen_anon_1.xdp.ifindex }, info.prog_id))
}

/// Takes whatever program netlink has attached off a device. `flags` are `XDP_FLAGS_*`.
pub(crate) fn xdp_detach(ifindex: u32, flags: u32) -> io::Result<()> {
    // SAFETY: no memory is passed but a null option pointer, which is allowed.
    check(unsafe { raw::bpf_xdp_detach(ifindex as i32, flags, std::ptr::null()) }).map(drop)
}

pub(crate) fn prog_info(prog: BorrowedFd<'_>) -> io::Result<raw::bpf_prog_info> {
    let mut info = raw::bpf_prog_info::default();
    let mut len = size_of::<raw::bpf_prog_info>() as u32;
    // SAFETY: `info` is writable, `len` is its size, and its pointers are null with zero counts.
    check(unsafe { raw::bpf_prog_get_info_by_fd(prog.as_raw_fd(), &mut info, &mut len) })?;
    Ok(info)
}

/// XDP state of a device: attach mode (`XDP_ATTACHED_*`), program, features (0 before Linux 6.3).
pub(crate) fn xdp_query(ifindex: u32) -> io::Result<raw::bpf_xdp_query_opts> {
    let mut opts = raw::bpf_xdp_query_opts {
        sz: size_of::<raw::bpf_xdp_query_opts>() as raw::size_t,
        ..Default::default()
    };
    // SAFETY: `opts` is writable and says its size.
    check(unsafe { raw::bpf_xdp_query(ifindex as i32, 0, &mut opts) })?;
    Ok(opts)
}

/// Takes the lock of an open file; false if somebody else has it.
pub(crate) fn try_lock(file: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: an open descriptor, no memory is passed.
    match check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e),
    }
}

/// Lets go of the lock, whoever else has the same open file.
pub(crate) fn unlock(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: an open descriptor, no memory is passed.
    check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) }).map(drop)
}

pub(crate) fn is_bpffs(path: &Path) -> io::Result<bool> {
    let p = c_path(path)?;
    // SAFETY: all-zero bytes are a value of this plain C structure.
    let mut fs: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `p` is NUL-terminated and `fs` writable, both through the call.
    check(unsafe { libc::statfs(p.as_ptr(), &mut fs) })?;
    Ok(fs.f_type as u64 == BPF_FS_MAGIC)
}

/// Mounts a BPF file system whose root only root can write to, as systemd does.
pub(crate) fn mount_bpffs(at: &Path) -> io::Result<()> {
    let p = c_path(at)?;
    let options = c"mode=700".as_ptr().cast();
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: four NUL-terminated strings that live through the call.
    check(unsafe { libc::mount(c"bpf".as_ptr(), p.as_ptr(), c"bpf".as_ptr(), flags, options) }).map(drop)
}

/// Whether the kernel gives out AF_XDP sockets.
pub(crate) fn af_xdp_socket() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    owned(unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })
}

pub(crate) fn kernel_release() -> io::Result<String> {
    // SAFETY: all-zero bytes are a value of this plain C structure.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is writable.
    check(unsafe { libc::uname(&mut name) })?;
    let bytes: Vec<u8> = name.release.iter().map(|c| *c as u8).take_while(|b| *b != 0).collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Shared, writable mapping of the first `len` bytes of a memory-mappable map. Never unmapped.
pub(crate) fn map_forever(fd: BorrowedFd<'_>, len: usize) -> io::Result<*mut libc::c_void> {
    // SAFETY: a fresh mapping at an address of the kernel's choice disturbs no memory of ours.
    let p = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            0,
        )
    };
    if p == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(p) }
}

/// Runs `prog` on `data` with a context of its kind (`xdp_md`, `__sk_buff`); returns the action, what is left of the frame
/// with its metadata in front, and the context afterwards.
pub(crate) fn test_run<C: TestContext>(
    prog: BorrowedFd<'_>,
    data: &[u8],
    ctx: C,
) -> io::Result<(u32, Vec<u8>, C)> {
    let mut out = vec![0u8; data.len() + 512];
    let mut ctx_out = C::default();
    let ctx_size = size_of::<C>() as u32;
    let mut opts = raw::bpf_test_run_opts {
        sz: size_of::<raw::bpf_test_run_opts>() as raw::size_t,
        data_in: data.as_ptr().cast(),
        data_size_in: data.len() as u32,
        data_out: out.as_mut_ptr().cast(),
        data_size_out: out.len() as u32,
        ctx_in: (&raw const ctx).cast(),
        ctx_size_in: ctx_size,
        ctx_out: (&raw mut ctx_out).cast(),
        ctx_size_out: ctx_size,
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: every pointer of `opts` is to a live buffer of the size given beside it.
    check(unsafe { raw::bpf_prog_test_run_opts(prog.as_raw_fd(), &mut opts) })?;
    out.truncate(opts.data_size_out as usize);
    Ok((opts.retval, out, ctx_out))
}

/// What a program is called with: a plain structure of the kernel.
pub(crate) trait TestContext: Default {}

impl TestContext for raw::xdp_md {}
impl TestContext for SkBuff {}

/// `struct __sk_buff` of linux/bpf.h as its words of 32 bits.
#[repr(C)]
pub(crate) struct SkBuff([u32; 48]);

impl Default for SkBuff {
    fn default() -> SkBuff {
        SkBuff([0; 48])
    }
}

impl SkBuff {
    const IFINDEX: usize = 10;
    const GSO_SEGS: usize = 41;
    const GSO_SIZE: usize = 44;

    /// A buffer that a device has received, of so many segments with so many bytes each.
    pub(crate) fn received(ifindex: u32, gso_segs: u32, gso_size: u32) -> SkBuff {
        let mut words = [0; 48];
        words[Self::IFINDEX] = ifindex;
        words[Self::GSO_SEGS] = gso_segs;
        words[Self::GSO_SIZE] = gso_size;
        SkBuff(words)
    }
}

/// Runs `prog` once on a live frame: what it passes, the stack receives.
pub(crate) fn live_run(prog: BorrowedFd<'_>, frame: &[u8], ctx: raw::xdp_md) -> io::Result<()> {
    let mut opts = raw::bpf_test_run_opts {
        sz: size_of::<raw::bpf_test_run_opts>() as raw::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        ctx_in: (&raw const ctx).cast(),
        ctx_size_in: size_of::<raw::xdp_md>() as u32,
        flags: raw::BPF_F_TEST_XDP_LIVE_FRAMES,
        // The kernel sets up as many frames as this.
        batch_size: 1,
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: every pointer of `opts` is to a live buffer of the size given beside it.
    check(unsafe { raw::bpf_prog_test_run_opts(prog.as_raw_fd(), &mut opts) }).map(drop)
}

/// Runs `prog`, of the type of traffic control's classifiers, once on a buffer that is made of `frame`.
pub(crate) fn skb_run(prog: BorrowedFd<'_>, frame: &[u8]) -> io::Result<()> {
    let mut opts = raw::bpf_test_run_opts {
        sz: size_of::<raw::bpf_test_run_opts>() as raw::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: every pointer of `opts` is to a live buffer of the size given beside it.
    check(unsafe { raw::bpf_prog_test_run_opts(prog.as_raw_fd(), &mut opts) }).map(drop)
}

/// What [`live_frames`] is to do: frames are `frame` as the program leaves it, made again `batch` at a
/// time.
pub(crate) struct LiveRun<'a> {
    pub frame: &'a [u8],
    pub runs: u32,
    pub batch: u32,
    pub limit: Option<Duration>,
}

/// Runs `prog` on live frames, `runs` times or until the time is over. Nanoseconds of a run on average;
/// none if the time ended it.
pub(crate) fn live_frames(prog: BorrowedFd<'_>, run: &LiveRun<'_>) -> io::Result<Option<u32>> {
    let mut opts = raw::bpf_test_run_opts {
        sz: size_of::<raw::bpf_test_run_opts>() as raw::size_t,
        data_in: run.frame.as_ptr().cast(),
        data_size_in: run.frame.len() as u32,
        flags: raw::BPF_F_TEST_XDP_LIVE_FRAMES,
        batch_size: run.batch,
        repeat: i32::try_from(run.runs).unwrap_or(i32::MAX),
        ..Default::default()
    };
    let _alarm = run.limit.map(Alarm::after).transpose()?;
    // SAFETY: `opts` says its size and points at a live frame of the size given.
    match check(unsafe { raw::bpf_prog_test_run_opts(prog.as_raw_fd(), &mut opts) }) {
        Ok(_) => Ok(Some(opts.duration)),
        Err(e) if e.kind() == io::ErrorKind::Interrupted && run.limit.is_some() => Ok(None),
        Err(e) => Err(e),
    }
}

/// A signal to the calling thread after some time: what ends a system call. Until this is dropped.
struct Alarm(libc::timer_t);

impl Alarm {
    fn after(time: Duration) -> io::Result<Alarm> {
        extern "C" fn nothing(_: libc::c_int) {}
        // SAFETY: plain structures that live through the calls; the handler does nothing, and the
        // timer's number is ours.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as *const () as usize;
            check(libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()))?;
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGALRM;
            event.sigev_notify_thread_id = libc::gettid();
            let mut timer: libc::timer_t = std::ptr::null_mut();
            check(libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer))?;
            let alarm = Alarm(timer);
            let time = time.max(Duration::from_nanos(1));
            let spec = libc::itimerspec {
                // Again and again: the first one may come before the system call.
                it_interval: libc::timespec { tv_sec: 0, tv_nsec: 5_000_000 },
                it_value: libc::timespec {
                    tv_sec: time.as_secs() as libc::time_t,
                    tv_nsec: i64::from(time.subsec_nanos()),
                },
            };
            check(libc::timer_settime(alarm.0, 0, &spec, std::ptr::null_mut()))?;
            Ok(alarm)
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: our own timer, deleted once.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// Attaches `prog` to the ingress of a device (tcx, Linux 6.6).
pub(crate) fn tcx_link_create(prog: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    let opts = raw::bpf_link_create_opts {
        sz: size_of::<raw::bpf_link_create_opts>() as raw::size_t,
        ..Default::default()
    };
    // SAFETY: `opts` is initialised, says its size, and lives through the call.
    owned(unsafe { raw::bpf_link_create(prog.as_raw_fd(), ifindex as i32, raw::BPF_TCX_INGRESS, &opts) })
}

pub(crate) fn page_size() -> usize {
    // SAFETY: no memory is passed.
    let n = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(n).unwrap_or(4096)
}
