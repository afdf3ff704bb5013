//! The socket's file: made with the right permissions, replaced when stale, removed at the end.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Owner and group may connect.
const MODE: u32 = 0o660;
/// Everybody may connect, and is asked who he is.
const MODE_OPEN: u32 = 0o666;

/// Removes the file on drop, if it is still the one that was made.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.inode);
        if ours {
            // Nothing is left to do about a failure; the next start replaces a stale socket.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// With `open`, users of other groups have a role.
pub(super) fn listen(path: &Path, open: bool) -> io::Result<(UnixListener, SocketFile)> {
    let at = |what: &str, e: io::Error| {
        io::Error::new(e.kind(), format!("control socket {}: {what}: {e}", path.display()))
    };
    let Some(name) = path.file_name() else {
        let text =
            format!("control socket {}: not a file name; set dataplane.control to one", path.display());
        return Err(io::Error::new(ErrorKind::InvalidInput, text));
    };
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(|e| at("cannot make its directory", e))?;
    refuse_if_taken(path)?;

    // Made under another name and renamed when its permissions are right, so that no one connects
    // in between and a stale file is replaced in one step.
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", std::process::id()));
    let temporary = dir.join(temporary);
    let _ = fs::remove_file(&temporary);
    let made = (|| {
        let listener = UnixListener::bind(&temporary)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(if open { MODE_OPEN } else { MODE }))?;
        listener.set_nonblocking(true)?;
        let meta = fs::symlink_metadata(&temporary)?;
        fs::rename(&temporary, path)?;
        Ok((listener, SocketFile { path: path.to_owned(), inode: (meta.dev(), meta.ino()) }))
    })();
    made.map_err(|e| {
        let _ = fs::remove_file(&temporary);
        at("cannot listen", e)
    })
}

fn refuse_if_taken(path: &Path) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let refuse =
        |kind, text: &str| Err(io::Error::new(kind, format!("control socket {}: {text}", path.display())));
    if !meta.file_type().is_socket() {
        return refuse(
            ErrorKind::AlreadyExists,
            "a file that is no socket is in the way; move it or set dataplane.control",
        );
    }
    match UnixStream::connect(path) {
        Ok(_) => refuse(
            ErrorKind::AddrInUse,
            "another sag-vcpe answers on it; stop that one or set dataplane.control and dataplane.pin_dir",
        ),
        Err(e) if matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(()),
        Err(e) => refuse(e.kind(), &format!("cannot tell whether somebody answers on it: {e}")),
    }
}
