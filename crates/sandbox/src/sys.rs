//! The one call of the kernel that no crate makes: a filter of system calls whose refusals are logged.
#![allow(unsafe_code)]

use seccompiler::sock_filter;
use std::io;

/// Installs a filter for the calling thread; with it the kernel logs each call that the filter does not let through (to
/// the audit log, or the kernel's log without an audit daemon). The thread has no new privileges already.
pub(crate) fn filter_with_log(filter: &[sock_filter]) -> io::Result<()> {
    let len = filter.len().try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // The instructions of both crates are the kernel's `struct sock_filter`.
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut().cast() };
    // SAFETY: `program` and the instructions that it points to live until the call returns; the kernel copies them and
    // writes to neither.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_LOG,
            &raw const program,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
pub(crate) mod tests {
    /// The error of a system call without arguments.
    pub(crate) fn error_of(number: libc::c_long) -> Option<i32> {
        // SAFETY: the tests make calls that no kernel has.
        let done = unsafe { libc::syscall(number) };
        (done < 0).then(std::io::Error::last_os_error)?.raw_os_error()
    }
}
