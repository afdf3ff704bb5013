//! What `serve` gives up once it has read its options: capabilities, files, system calls.

use sag_cloud::store::sqlite_file;
use sag_sandbox::{CapabilitySet, Mode, Profile, Program, directories_to};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What the PostgreSQL client reads beside its URL: passwords, certificates.
const POSTGRES_VARIABLES: [&str; 4] = ["PGPASSFILE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"];
const POSTGRES_PARAMETERS: [&str; 6] =
    ["sslrootcert", "ssl-root-cert", "ssl-ca", "sslcert", "ssl-cert", "sslkey"];
const POSTGRES_HOME: [&str; 2] = [".pgpass", ".postgresql"];
/// SQLite's files for large transactions.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// What decides about the files and ports that `serve` uses.
pub struct Needs<'a> {
    pub listen: SocketAddr,
    /// URL of the database.
    pub db: &'a str,
    pub key_file: Option<&'a str>,
    /// Certificate and key of TLS.
    pub tls: [Option<&'a str>; 2],
}

/// Confines the process, which has no other threads yet.
pub fn confine(mode: Mode, needs: &Needs<'_>) {
    sag_sandbox::protect_memory();
    let profile = Profile {
        program: Program::Cloud,
        capabilities: capabilities(needs),
        read: read(needs),
        write: write(needs),
        entries: Vec::new(),
    };
    sag_sandbox::confine(mode, &profile);
}

fn capabilities(needs: &Needs<'_>) -> CapabilitySet {
    let mut keep = CapabilitySet::empty();
    if needs.listen.port() < 1024 {
        keep |= CapabilitySet::NET_BIND_SERVICE;
    }
    // Root who serves the files of another user needs a privilege to write beside them, and to narrow their modes.
    let owned_by_others = |p: &PathBuf| std::fs::metadata(p).is_ok_and(|m| m.uid() != 0);
    let files = own_files(needs).chain(certificates(needs));
    if files.flat_map(|f| [parent(&f), f]).any(|p| owned_by_others(&p)) {
        keep |= CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER;
    }
    keep
}

/// The database, if it is a file, and the key of what is sealed in it.
fn own_files(needs: &Needs<'_>) -> impl Iterator<Item = PathBuf> {
    let named = [sqlite_file(needs.db), needs.key_file];
    named.into_iter().flatten().map(PathBuf::from)
}

fn certificates(needs: &Needs<'_>) -> impl Iterator<Item = PathBuf> {
    needs.tls.into_iter().flatten().map(PathBuf::from)
}

/// Directories in which files are made: those of the database, of its real place, and of the key.
fn write(needs: &Needs<'_>) -> Vec<PathBuf> {
    let real = |f: PathBuf| [Some(parent(&f)), f.canonicalize().ok().map(|f| parent(&f))];
    own_files(needs).flat_map(real).flatten().chain(TEMPORARY.map(PathBuf::from)).collect()
}

fn read(needs: &Needs<'_>) -> Vec<PathBuf> {
    let mut read: Vec<PathBuf> = certificates(needs).flat_map(|f| directories_to(&f)).collect();
    if sqlite_file(needs.db).is_none() {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        read.extend(home.iter().flat_map(|home| POSTGRES_HOME.map(|name| home.join(name))));
        read.extend(POSTGRES_VARIABLES.iter().filter_map(std::env::var_os).map(PathBuf::from));
        read.extend(postgres_files(needs.db));
        // What is not there permits nothing, rather than the directory that it is not in.
        read.retain(|p| p.exists());
    }
    read
}

/// Files that the parameters of a URL name.
fn postgres_files(url: &str) -> impl Iterator<Item = PathBuf> {
    let parameters = url.split_once('?').map_or("", |(_, p)| p).split('&');
    let pairs = parameters.filter_map(|p| p.split_once('='));
    pairs
        .filter(|(name, _)| POSTGRES_PARAMETERS.contains(name))
        .map(|(_, file)| PathBuf::from(file.replace("%2F", "/")))
}

fn parent(file: &Path) -> PathBuf {
    file.parent().filter(|dir| !dir.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_url() {
        let url = "postgres://u:p@h/db?sslmode=verify-full&sslrootcert=%2Fsrv%2Fca.pem&sslkey=k.pem";
        let files: Vec<_> = postgres_files(url).collect();
        assert_eq!(files, [PathBuf::from("/srv/ca.pem"), PathBuf::from("k.pem")]);
        assert_eq!(postgres_files("postgres://u@h/db").count(), 0);
        assert_eq!((parent(Path::new("a.db")), parent(Path::new("/x/a.db"))), (".".into(), "/x".into()));
    }
}
