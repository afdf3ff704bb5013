//! Connections to a daemon's socket that a daemon which hangs cannot hold up.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as connect_to, socket_with,
};

/// Connects; neither that, nor a read or write afterwards takes longer than `timeout`.
///
/// Nobody accepts connections for a process that hangs, and when its queue is full a connection waits for as long as the
/// process hangs, unless there is a limit from the beginning.
///
/// # Errors
/// Of the socket; [`io::ErrorKind::WouldBlock`]: the time is over ([`is_timeout`]).
pub fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(timeout))?;
    connect_to(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// Whether it says that a time limit of [`connect`] is over.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// The error in words of its own: of a time limit the kernel says "resource temporarily unavailable".
pub fn named(error: io::Error, timeout: Duration) -> io::Error {
    match is_timeout(&error) {
        true => {
            let text = format!("no answer within {:?}", timeout);
            io::Error::new(io::ErrorKind::TimedOut, text)
        }
        false => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    /// A process that hangs accepts nothing: connections stand in its queue, and then none gets in.
    #[test]
    fn a_full_queue_does_not_hold_anybody_up() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).expect("listener");
        rustix::net::listen(&listener, 1).expect("a short queue");
        let short = Duration::from_millis(20);
        let mut waiting = Vec::new();
        let refused = loop {
            match connect(&path, short) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 10, "the queue takes more than it should");
        };
        assert!(is_timeout(&refused), "{refused:?}");
        assert_eq!(named(refused, short).to_string(), "no answer within 20ms");
        let silent = waiting[0].read(&mut [0; 1]).expect_err("nobody answers");
        assert!(is_timeout(&silent), "{silent:?}");
        drop(listener);
        let gone = connect(&path, short).expect_err("nobody is there");
        assert!(!is_timeout(&gone) && named(gone, short).kind() == io::ErrorKind::ConnectionRefused);
    }
}
