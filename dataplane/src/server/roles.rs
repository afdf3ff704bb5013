//! Who may do what on the control socket, by the kernel's word about the process at its other end.

use sag_model::control::{Access, Error, ErrorCode};
use std::collections::BTreeSet;
use std::os::fd::AsFd;

/// The database of groups. Groups that are elsewhere (LDAP) are named by their number.
const GROUPS: &str = "/etc/group";

/// Groups and users by their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    admin_users: BTreeSet<u32>,
    admin_groups: BTreeSet<u32>,
    read_groups: BTreeSet<u32>,
    /// Names of the two groups, and whether they exist, for refusals.
    names: [(String, bool); 2],
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub user: u32,
    /// With the main one.
    pub groups: Vec<u32>,
}

impl Roles {
    /// Root, the daemon's own user and group, and members of the two groups, as far as they exist.
    pub fn new(admin_group: &str, read_group: &str) -> Roles {
        let database = std::fs::read_to_string(GROUPS).unwrap_or_default();
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Roles::of(admin_group, read_group, &database, own)
    }

    fn of(admin_group: &str, read_group: &str, database: &str, own: (u32, u32)) -> Roles {
        let number = |name: &str| group_number(database, name);
        Roles {
            admin_users: BTreeSet::from([0, own.0]),
            admin_groups: number(admin_group).into_iter().chain([own.1]).collect(),
            read_groups: number(read_group).into_iter().collect(),
            names: [admin_group, read_group].map(|name| (name.to_owned(), number(name).is_some())),
        }
    }

    /// Whether others than root and the daemon's own group have a role, so that they must be able to connect.
    pub fn has_others(&self) -> bool {
        self.admin_groups.len() > 1 || !self.read_groups.is_empty()
    }

    /// What a process may do.
    ///
    /// # Errors
    /// A refusal for one that may do nothing.
    pub fn access_of(&self, peer: &Peer) -> Result<Access, Error> {
        let is_in = |groups: &BTreeSet<u32>| peer.groups.iter().any(|g| groups.contains(g));
        if self.admin_users.contains(&peer.user) || is_in(&self.admin_groups) {
            return Ok(Access::Admin);
        }
        if is_in(&self.read_groups) {
            return Ok(Access::Read);
        }
        let text = format!(
            "user {} may not use the control socket: the mode or an ACL of its file alone gives no role",
            peer.user
        );
        let [admin, read] = &self.names;
        let mut remedy = format!(
            "run sagctl as root, or make the user a member of group {} (dataplane.control_admin_group: everything) or {} \
             (dataplane.control_read_group: reading)",
            admin.0, read.0
        );
        for (name, _) in self.names.iter().filter(|(_, exists)| !exists) {
            remedy += &format!(
                "; there was no group {name} when the gateway started: groupadd {name}, and restart it"
            );
        }
        Err(Error::new(ErrorCode::Forbidden, text, remedy))
    }
}

/// The refusal of an operation that takes more than the client has.
pub fn refusal(op: &str) -> Error {
    Error::new(
        ErrorCode::Forbidden,
        format!("{op} is for administrators; this client may only read"),
        "run sagctl as root or as a member of dataplane.control_admin_group",
    )
}

/// The process at the other end when it connected.
pub fn peer_of(socket: impl AsFd) -> std::io::Result<Peer> {
    let cred = rustix::net::sockopt::socket_peercred(&socket)?;
    // Without the list its user and main group still count.
    let mut groups = sag_xsk::sys::peer_groups(socket.as_fd()).unwrap_or_default();
    groups.push(cred.gid.as_raw());
    Ok(Peer { user: cred.uid.as_raw(), groups })
}

/// The number of a group: its own, or that of its name in the database.
fn group_number(database: &str, name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let mut lines = database.lines().map(|l| l.split(':'));
    lines.find_map(|mut l| (l.next() == Some(name)).then(|| l.nth(1)?.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_follow_users_and_groups() {
        let database = "root:x:0:\nsag:x:990:\nsag-read:x:991:alice,bob\nsag-admin:x:992:\nbroken\n";
        let roles = Roles::of("sag-admin", "sag-read", database, (990, 990));
        assert!(roles.has_others());
        let access = |user, groups: &[u32]| roles.access_of(&Peer { user, groups: groups.to_vec() });
        assert_eq!(access(0, &[0]), Ok(Access::Admin));
        assert_eq!(access(990, &[5]), Ok(Access::Admin));
        assert_eq!(access(1000, &[1000, 990]), Ok(Access::Admin));
        assert_eq!(access(1000, &[1000, 992]), Ok(Access::Admin));
        assert_eq!(access(1000, &[1000, 991]), Ok(Access::Read));
        assert_eq!(access(1000, &[991, 992]), Ok(Access::Admin));
        let e = access(1000, &[1000]).unwrap_err();
        assert_eq!(e.code, ErrorCode::Forbidden);
        assert!(e.message.contains("1000") && e.remedy.contains("sag-read"), "{e:?}");
        assert!(!e.remedy.contains("groupadd"), "{e:?}");
        let none = Roles::of("sag-admin", "sag-read", "sag-admin:x:992:\n", (0, 0));
        let e = none.access_of(&Peer { user: 1000, groups: vec![1000] }).unwrap_err();
        assert!(e.remedy.contains("groupadd sag-read") && !e.remedy.contains("groupadd sag-admin"), "{e:?}");
    }

    #[test]
    fn groups_that_do_not_exist_have_no_members() {
        let roles = Roles::of("sag-admin", "77", "root:x:0:\nsag-admin-too:x:5:\n", (0, 0));
        assert_eq!(roles.read_groups, BTreeSet::from([77]));
        assert_eq!(roles.admin_groups, BTreeSet::from([0]));
        assert!(!Roles::of("a", "b", "", (0, 0)).has_others());
    }

    #[test]
    fn the_kernel_says_who_connects() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        let peer = peer_of(&a).unwrap();
        assert_eq!(peer.user, rustix::process::geteuid().as_raw());
        assert!(peer.groups.contains(&rustix::process::getegid().as_raw()));
    }
}
