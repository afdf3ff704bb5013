//! Which system calls a program makes, by seccomp.
//!
//! Others fail, and the program goes on: a call that was forgotten costs one operation, where ending the process would cost
//! all traffic that needs it, at the same packet again after each restart. They fail with `EPERM`; those that are newer than
//! this list fail with `ENOSYS`, at which the C library makes the older call instead, as on the kernels that it knows without
//! them. The kernel logs each refusal, so that it does not stay unnoticed.

use crate::profile::{Mode, Program};
use crate::sys;
use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};
use std::collections::BTreeMap;

/// Numbers of system calls by their names.
macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

/// What every program makes: files, memory, waiting, sockets, threads, signals, time.
const COMMON: &[c_long] = calls! {
    SYS_read SYS_write SYS_readv SYS_writev SYS_pread64 SYS_pwrite64 SYS_preadv SYS_pwritev SYS_preadv2 SYS_pwritev2
    SYS_lseek SYS_close SYS_close_range SYS_openat SYS_openat2 SYS_fstat SYS_newfstatat SYS_statx SYS_statfs SYS_fstatfs
    SYS_fsync SYS_fdatasync SYS_sync_file_range SYS_ftruncate SYS_truncate SYS_fallocate SYS_fcntl SYS_flock SYS_ioctl
    SYS_getdents64 SYS_getcwd SYS_chdir SYS_fchdir SYS_mkdirat SYS_unlinkat SYS_renameat SYS_renameat2 SYS_linkat
    SYS_symlinkat SYS_readlinkat SYS_faccessat SYS_faccessat2 SYS_fchmod SYS_fchmodat SYS_fchmodat2 SYS_fchown SYS_fchownat SYS_umask
    SYS_utimensat SYS_fadvise64 SYS_copy_file_range SYS_sendfile SYS_splice SYS_getxattr SYS_fgetxattr SYS_lgetxattr
    SYS_mmap SYS_munmap SYS_mprotect SYS_mremap SYS_madvise SYS_brk SYS_msync SYS_mincore SYS_mlock SYS_mlock2
    SYS_munlock SYS_mlockall SYS_munlockall SYS_membarrier SYS_get_mempolicy SYS_mbind SYS_memfd_create
    SYS_ppoll SYS_pselect6 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2
    SYS_timerfd_create SYS_timerfd_settime SYS_timerfd_gettime SYS_signalfd4 SYS_inotify_init1 SYS_inotify_add_watch
    SYS_inotify_rm_watch SYS_pipe2 SYS_dup SYS_dup3
    SYS_socketpair SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_connect SYS_getsockname SYS_getpeername
    SYS_getsockopt SYS_setsockopt SYS_shutdown SYS_sendto SYS_sendmsg SYS_sendmmsg SYS_recvfrom SYS_recvmsg SYS_recvmmsg
    SYS_clone SYS_clone3 SYS_exit SYS_exit_group SYS_futex SYS_futex_waitv SYS_set_robust_list SYS_get_robust_list
    SYS_rseq SYS_set_tid_address SYS_gettid SYS_getpid SYS_getppid SYS_getuid SYS_geteuid SYS_getgid SYS_getegid
    SYS_getgroups SYS_getresuid SYS_getresgid SYS_getpgid SYS_getsid SYS_sched_yield SYS_sched_getaffinity
    SYS_sched_setaffinity SYS_sched_getparam SYS_sched_getscheduler SYS_sched_get_priority_max
    SYS_sched_get_priority_min SYS_sched_getattr SYS_getpriority SYS_getrusage SYS_times SYS_prctl SYS_prlimit64
    SYS_getrlimit SYS_setrlimit SYS_uname SYS_sysinfo SYS_getrandom SYS_getcpu SYS_wait4 SYS_waitid SYS_kill SYS_tkill
    SYS_tgkill SYS_pidfd_open SYS_pidfd_send_signal SYS_restart_syscall SYS_capget
    SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigtimedwait SYS_rt_sigsuspend SYS_rt_sigpending
    SYS_rt_sigqueueinfo SYS_sigaltstack
    SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_nanosleep SYS_gettimeofday SYS_timer_create
    SYS_timer_settime SYS_timer_delete SYS_timer_gettime SYS_timer_getoverrun SYS_getitimer SYS_setitimer
    SYS_seccomp SYS_landlock_create_ruleset SYS_landlock_add_rule SYS_landlock_restrict_self
};

/// The newest call that the lists here take a stand on (Linux 6.10). Numbers of new ones are the same on all processors.
const NEWEST: c_long = libc::SYS_mseal;

/// The older forms, which the C library makes on this processor only.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = calls! {
    SYS_open SYS_stat SYS_lstat SYS_access SYS_pipe SYS_poll SYS_select SYS_epoll_create SYS_epoll_wait SYS_eventfd
    SYS_dup2 SYS_mkdir SYS_rmdir SYS_rename SYS_unlink SYS_readlink SYS_chmod SYS_chown SYS_lchown SYS_link SYS_symlink
    SYS_getdents SYS_creat SYS_utimes SYS_arch_prctl SYS_getpgrp SYS_pause SYS_alarm SYS_time
};
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Running other programs.
const EXECUTE: &[c_long] = calls! { SYS_execve SYS_execveat };
/// What DHCP clients, FRR's daemons and pppd do: other users and groups, a root of their own, sessions.
const CHILDREN: &[c_long] = calls! {
    SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid SYS_setgroups SYS_setpgid SYS_setsid
    SYS_capset SYS_chroot SYS_sethostname SYS_setpriority SYS_setfsuid SYS_setfsgid SYS_personality
    SYS_sync SYS_syncfs SYS_fchmodat SYS_mknodat
};
#[cfg(target_arch = "x86_64")]
const CHILDREN_OLDER: &[c_long] = calls! { SYS_fork SYS_vfork SYS_mknod };
#[cfg(not(target_arch = "x86_64"))]
const CHILDREN_OLDER: &[c_long] = &[];

/// PPP over something, as PPPoE.
const AF_PPPOX: i32 = 24;

/// Kinds of sockets.
fn domains(program: Program) -> &'static [i32] {
    match program {
        Program::Gateway => {
            &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET, libc::AF_XDP]
        }
        Program::Agent { .. } => {
            &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET]
        }
        // PPPoX is pppd's, for PPPoE.
        Program::Routing => {
            &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET, AF_PPPOX]
        }
        // The C library looks for the addresses of the machine by netlink before it resolves a name.
        Program::Cloud => &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK],
    }
}

/// System calls that a program makes. Sockets are a matter of their kind.
fn allowed(program: Program) -> Vec<c_long> {
    let more = match program {
        Program::Gateway => vec![libc::SYS_bpf],
        Program::Agent { children: true } | Program::Routing => [EXECUTE, CHILDREN, CHILDREN_OLDER].concat(),
        Program::Agent { children: false } | Program::Cloud => Vec::new(),
    };
    [COMMON, OLDER, &more].concat()
}

fn filter(program: Program, mode: Mode) -> Result<BpfProgram, seccompiler::Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> =
        allowed(program).into_iter().map(|n| (n, Vec::new())).collect();
    let domain = |d: &i32| -> Result<SeccompRule, seccompiler::BackendError> {
        let is = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *d as u64)?;
        SeccompRule::new(vec![is])
    };
    let domains: Result<Vec<_>, _> = domains(program).iter().map(domain).collect();
    rules.insert(libc::SYS_socket, domains?);
    let unexpected = match mode {
        Mode::Log => SeccompAction::Log,
        _ => SeccompAction::Errno(libc::EPERM as u32),
    };
    let known: BpfProgram = SeccompFilter::new(rules, unexpected, SeccompAction::Allow, arch)?.try_into()?;
    let mut whole = newer_than_known(mode);
    whole.extend(known);
    Ok(whole)
}

/// Instructions ahead of a filter: what is newer than [`NEWEST`].
fn newer_than_known(mode: Mode) -> BpfProgram {
    let result = match mode {
        Mode::Log => libc::SECCOMP_RET_LOG,
        _ => libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
    };
    let instruction = |code: u32, jf: u8, k: u32| sock_filter { code: code as u16, jt: 0, jf, k };
    vec![
        // The number of the call is the first word of what a filter sees.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 1, NEWEST as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, result),
    ]
}

fn install(filter: &BpfProgram) -> Result<(), seccompiler::Error> {
    match sys::filter_with_log(filter) {
        Ok(()) => Ok(()),
        // Linux before 4.14 logs no refusals.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => seccompiler::apply_filter(filter),
        Err(e) => Err(seccompiler::Error::Seccomp(e)),
    }
}

/// Confines the calling thread; a kernel without seccomp is a warning.
pub fn apply(program: Program, mode: Mode) {
    match filter(program, mode).and_then(|f| install(&f)) {
        Ok(()) if mode == Mode::Enforce => tracing::info!("sandbox: system calls confined (seccomp)"),
        Ok(()) => {}
        Err(error) => {
            tracing::warn!(%error, "sandbox: system calls not confined: the kernel refuses the filter")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_filter_for_every_program() {
        let programs = [
            Program::Gateway,
            Program::Agent { children: true },
            Program::Agent { children: false },
            Program::Cloud,
            Program::Routing,
        ];
        for program in programs {
            for mode in [Mode::Enforce, Mode::Log] {
                assert!(!filter(program, mode).unwrap().is_empty());
            }
            let runs_others = EXECUTE.iter().any(|n| allowed(program).contains(n));
            let may = [Program::Agent { children: true }, Program::Routing].contains(&program);
            assert_eq!(runs_others, may);
        }
    }

    /// Each in a process of its own, which is this test again.
    #[test]
    fn unexpected_calls_fail_and_the_process_goes_on() {
        const ROLE: &str = "SAG_SANDBOX_TEST";
        if let Ok(role) = std::env::var(ROLE) {
            let mode = if role == "log" { Mode::Log } else { Mode::Enforce };
            // Without the capability the kernel itself refuses them.
            let refused_anyway = rustix_socket(libc::AF_PACKET).is_some();
            apply(Program::Cloud, mode);
            if role == "execute" {
                use std::os::unix::process::CommandExt;
                let refused = std::process::Command::new("/bin/true").exec();
                assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
            }
            // An address family that it does not use; a file, a thread and a socket, which it does.
            let packet = rustix_socket(libc::AF_PACKET);
            // Calls of kernels that are still to come: this one does not know it, or the filter says so.
            assert_eq!(sys::tests::error_of(NEWEST + 1000), Some(libc::ENOSYS));
            assert_eq!(packet == Some(libc::EPERM), mode == Mode::Enforce || refused_anyway);
            std::fs::read("/proc/self/status").unwrap();
            std::thread::spawn(|| ()).join().unwrap();
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            return;
        }
        let run = |role: &str| {
            let me = std::env::current_exe().unwrap();
            let name = "syscalls::tests::unexpected_calls_fail_and_the_process_goes_on";
            std::process::Command::new(me).args(["--exact", name]).env(ROLE, role).output().unwrap()
        };
        for role in ["unexpected", "execute", "log"] {
            let done = run(role);
            assert!(done.status.success(), "{role}: {done:?}");
        }
    }

    /// The error of opening a socket of a family.
    fn rustix_socket(family: i32) -> Option<i32> {
        use rustix::net::{AddressFamily, SocketType, socket};
        let made = socket(AddressFamily::from_raw(family as u16), SocketType::DGRAM, None);
        made.err().map(|e| e.raw_os_error())
    }
}
