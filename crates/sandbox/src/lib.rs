//! What a program gives up once it has started: capabilities, system calls, files. A fault in it that somebody exploits is
//! then worth less.
//!
//! - Capabilities: all sets are reduced to what [`Profile::capabilities`] names, and no program that it runs gets more.
//! - Files: Landlock (Linux 5.13) leaves the system's own files to read, and the program's directories to write.
//! - System calls: seccomp leaves those that the program uses. Others fail, and the kernel logs them.
//!
//! The calling thread and those that it starts later are confined; so [`confine`] is called before there are others. A
//! program with threads whose files are only known later calls [`confine_process`], starts these, and then calls
//! [`confine_files`].
//!
//! ```no_run
//! use sag_sandbox::{CapabilitySet, Mode, Profile, Program, confine};
//!
//! let profile = Profile {
//!     program: Program::Cloud,
//!     capabilities: CapabilitySet::empty(),
//!     read: vec!["/etc/sag".into()],
//!     write: vec!["/var/lib/sag-cloud".into()],
//!     entries: Vec::new(),
//! };
//! confine(Mode::Enforce, &profile);
//! ```

#![deny(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod capabilities;
mod fd_store;
mod files;
mod profile;
mod supervisor;
mod sys;
mod syscalls;

pub use fd_store::{FdStore, stored_descriptors};
pub use files::directories_to;
pub use profile::{Mode, Profile, Program, UnknownMode};
pub use rustix::thread::CapabilitySet;
pub use supervisor::Supervisor;

/// Confines the calling thread and all that it starts from now on. What the kernel lacks is a warning in the log, and the
/// program goes on with what there is.
pub fn confine(mode: Mode, profile: &Profile) {
    confine_process(mode, profile.program, profile.capabilities);
    confine_files(mode, profile);
}

/// The part of [`confine`] that is not about files: capabilities and system calls.
pub fn confine_process(mode: Mode, program: Program, keep: CapabilitySet) {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        tracing::warn!(threads, "sandbox: threads that run already keep what they have");
    }
    match capabilities::keep_only(keep) {
        Ok(kept) => tracing::info!(capabilities = %capabilities::names(kept), "sandbox: privileges dropped"),
        Err(error) => tracing::warn!(%error, "sandbox: cannot drop privileges"),
    }
    match mode {
        Mode::Off => tracing::warn!("sandbox: system calls and files are not confined (sandbox = \"off\")"),
        Mode::Log => {
            tracing::warn!("sandbox: unexpected system calls are logged by the kernel and let through");
            syscalls::apply(program, mode);
        }
        Mode::Enforce => syscalls::apply(program, mode),
    }
}

/// The part of [`confine`] that is about files.
pub fn confine_files(mode: Mode, profile: &Profile) {
    if mode == Mode::Enforce {
        files::apply(profile);
    }
}

/// The capabilities that the calling thread can use.
pub fn permitted() -> CapabilitySet {
    rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |c| c.permitted)
}

/// Memory of this process is neither written to a core file nor read by other processes of its user.
pub fn protect_memory() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let done = setrlimit(Resource::Core, none).and(set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = done {
        tracing::warn!(%error, "a core file of this process would have its keys in it");
    }
}
