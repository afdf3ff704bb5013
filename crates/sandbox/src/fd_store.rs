//! Descriptors that the service manager keeps while the program is not there (`FileDescriptorStoreMax=`,
//! sd_pid_notify_with_fds(3)): what they stand for goes on meanwhile.

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, sendmsg_addr, socket_with,
};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// The store of the service manager that has started the program (`NOTIFY_SOCKET`); without one nothing is kept, and a
/// manager that gives the program no room keeps nothing either.
#[derive(Debug, Clone, Default)]
pub struct FdStore {
    socket: Option<OsString>,
}

impl FdStore {
    /// That of the environment.
    pub fn new() -> FdStore {
        FdStore { socket: std::env::var_os("NOTIFY_SOCKET") }
    }

    /// Has a descriptor kept until the next start, or until it is removed. The name is of printable ASCII without colons.
    pub fn put(&self, name: &str, fd: BorrowedFd<'_>) {
        self.send(&format!("FDSTORE=1\nFDNAME={name}"), &[fd]);
    }

    /// Has what is kept under a name let go.
    pub fn remove(&self, name: &str) {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]);
    }

    fn send(&self, state: &str, fds: &[BorrowedFd<'_>]) {
        let Some(path) = &self.socket else { return };
        if let Err(error) = send(path.as_bytes(), state, fds) {
            tracing::warn!(%error, "the service manager keeps no descriptor: {state:?}");
        }
    }
}

fn send(path: &[u8], state: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let manager = match path {
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
        path => SocketAddrUnix::new(path)?,
    };
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg_addr(&socket, &manager, &[IoSlice::new(state.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Copies of the descriptors that the service manager has kept for this process (`LISTEN_FDS`). The numbers under which it
/// has handed them over stay open as long as the process lives. To be called at the start, before there are other threads.
pub fn stored_descriptors() -> Vec<OwnedFd> {
    copies().unwrap_or_else(|error| {
        tracing::warn!(%error, "what the service manager has kept cannot be used");
        Vec::new()
    })
}

fn copies() -> io::Result<Vec<OwnedFd>> {
    let numbers = sd_notify::listen_fds()?;
    if numbers.len() == 0 {
        return Ok(Vec::new());
    }
    let this = pidfd_open(getpid(), PidfdFlags::empty())?;
    numbers.map(|fd| Ok(pidfd_getfd(&this, fd, PidfdGetfdFlags::empty())?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use std::fs::File;
    use std::io::{IoSliceMut, Read, Seek, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    /// What the manager hears, with the descriptor that came along.
    fn heard(manager: &UnixDatagram) -> (String, Option<OwnedFd>) {
        let (mut text, mut space) = ([0; 256], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got =
            recvmsg(manager, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::empty()).unwrap();
        let fd = control.drain().find_map(|m| match m {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        (String::from_utf8(text[..got.bytes].to_vec()).unwrap(), fd)
    }

    #[test]
    fn a_descriptor_goes_to_the_manager_and_is_let_go_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let store = FdStore { socket: Some(path.into()) };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"kept").unwrap();
        store.put("pop1", file.as_fd());
        drop(file);
        let (text, fd) = heard(&manager);
        assert_eq!(text, "FDSTORE=1\nFDNAME=pop1");
        let (mut kept, mut content) = (File::from(fd.unwrap()), String::new());
        kept.rewind().unwrap();
        kept.read_to_string(&mut content).unwrap();
        assert_eq!(content, "kept");
        store.remove("pop1");
        let (text, fd) = heard(&manager);
        assert!(text == "FDSTOREREMOVE=1\nFDNAME=pop1" && fd.is_none(), "{text}");
    }

    #[test]
    fn without_a_manager_nothing_is_kept_and_nothing_fails() {
        FdStore::default().remove("pop1");
        FdStore { socket: Some("/no/such/socket".into()) }.remove("pop1");
        assert!(stored_descriptors().is_empty());
    }
}
