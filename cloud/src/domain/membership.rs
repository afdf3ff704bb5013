//! What the members of a cloud connect network may do, and what their devices have announced to each other.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::Ipv4Net;
use sag_southbound::{Announcement, EPOCH_AHEAD, Endpoint, Identity};
use serde::{Deserialize, Serialize};

use crate::store::Kind;
use crate::store::objects::{Columns, Entity};

/// A gateway in the network of another account, with what the owner of the network has granted to it. Its identifier is
/// `gateway/network`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CcnMember {
    #[serde(rename = "SmartAGId")]
    pub smart_ag_id: String,
    pub ccn_id: String,
    /// Blocks that it may announce, separated by commas.
    pub cidr_block: String,
}

impl Entity for CcnMember {
    const KIND: Kind = Kind::CcnMember;

    fn columns(&self) -> Columns<'_> {
        Columns::default()
    }
}

impl CcnMember {
    pub fn id(gateway: &str, ccn: &str) -> String {
        format!("{gateway}/{ccn}")
    }

    /// The blocks that it may announce, host bits cleared.
    pub fn granted(&self) -> Vec<Ipv4Net> {
        super::net::cidr_list(&self.cidr_block).unwrap_or_default()
    }
}

/// What a device, its identifier the serial number, has announced to the other members of its network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Announced {
    /// The last announcement that was in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announcement: Option<Announcement>,
    /// Since when it has the address, in milliseconds since 1970.
    pub since: i64,
    /// The identity whose signature alone is accepted, in hexadecimal digits; empty: the device has never signed.
    pub identity: String,
    /// Whether the device may be made the hub.
    pub hub_capable: bool,
    /// Why the last report was not accepted, or empty.
    pub problem: String,
    /// Why the other members do not get the announcement although it is in order, or empty.
    pub conflict: String,
    pub changes: Budget,
}

impl Entity for Announced {
    const KIND: Kind = Kind::Announcement;

    fn columns(&self) -> Columns<'_> {
        Columns::default()
    }
}

/// How often a device may change its announcement: each change wakes every other member of the network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Budget {
    left: i64,
    /// When it was refilled, in milliseconds since 1970.
    at: i64,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { left: Budget::MOST, at: 0 }
    }
}

impl Budget {
    /// Changes at once.
    const MOST: i64 = 10;
    /// Milliseconds after which there may be one more.
    const EACH_MS: i64 = 10_000;

    /// False: it has to wait.
    fn take(&mut self, now: i64) -> bool {
        let gained = now.saturating_sub(self.at) / Self::EACH_MS;
        if gained >= Self::MOST || self.at > now {
            *self = Budget { left: Self::MOST, at: now };
        } else {
            self.left = (self.left + gained).min(Self::MOST);
            self.at += gained * Self::EACH_MS;
        }
        let some = self.left > 0;
        self.left -= i64::from(some);
        some
    }
}

impl Announced {
    /// Takes what the device `sn` of `gateway` reports at `now`. True: it is another announcement than before. What is not
    /// in order leaves the one before, and is named in `problem`.
    pub fn report(&mut self, reported: &Announcement, gateway: &str, sn: &str, now: i64) -> bool {
        self.hub_capable = reported.pop == Some(true);
        match self.judge(reported, gateway, sn, now) {
            Ok(changed) => {
                self.problem.clear();
                changed
            }
            Err(problem) => {
                self.problem = problem;
                false
            }
        }
    }

    fn judge(&mut self, reported: &Announcement, gateway: &str, sn: &str, now: i64) -> Result<bool, String> {
        let new = reported.check(gateway, sn).map_err(|e| e.to_string())?;
        let known = (!self.identity.is_empty()).then(|| self.identity.parse::<Identity>());
        match (known, new.identity) {
            (None, _) => {}
            (Some(Ok(known)), Some(identity)) if known == identity => {}
            (Some(_), Some(identity)) => {
                return Err(format!(
                    "it is signed by the identity {identity}, and the device has another one; if the device was \
                     replaced or has lost its key, call ClearSagCipher"
                ));
            }
            (Some(_), None) => return Err("it is not signed, and the device has signed before".to_owned()),
        }
        let old = self.announcement.as_ref().and_then(|a| Some((a, a.check(gateway, sn).ok()?)));
        if let Some((_, old)) = &old {
            if *old == new {
                return Ok(false);
            }
            // Epochs of another identity count anew.
            if old.identity.is_none() || old.identity == new.identity {
                newer(old, &new)?;
            }
        }
        let clock = now.div_euclid(1000).unsigned_abs();
        if new.epoch > clock.saturating_add(EPOCH_AHEAD) {
            return Err(format!(
                "the epoch {} is more than a day ahead of the cloud's clock; an epoch begins with the time of the \
                 gateway's start in seconds since 1970: set its clock and make a new key",
                new.epoch
            ));
        }
        if !self.changes.take(now) {
            return Err("it changes too often; it is accepted later".to_owned());
        }
        if old.is_none_or(|(_, old)| old.address != new.address) {
            self.since = now;
        }
        if let Some(identity) = new.identity {
            self.identity = identity.to_hex();
        }
        // Whether it is the hub is the word of the network's owner.
        self.announcement = Some(Announcement { pop: None, ..reported.clone() });
        Ok(true)
    }

    /// Why the other members do not get what the device reported last, or empty.
    pub fn refusal(&self) -> &str {
        if self.problem.is_empty() { &self.conflict } else { &self.problem }
    }

    pub fn epoch(&self) -> Option<u64> {
        self.announcement.as_ref()?.epoch
    }
}

/// A new key has a larger epoch, and the same key the same.
fn newer(old: &Endpoint, new: &Endpoint) -> Result<(), String> {
    let same_key = old.public_key == new.public_key;
    match new.epoch.cmp(&old.epoch) {
        std::cmp::Ordering::Less => {
            Err(format!("the epoch {} is behind {}, which the device has announced", new.epoch, old.epoch))
        }
        std::cmp::Ordering::Equal if !same_key => {
            Err(format!("another key with the same epoch {}; a new key needs a larger one", new.epoch))
        }
        _ => Ok(()),
    }
}

/// One device as a member of a network.
#[derive(Clone, Debug, Default)]
pub struct MemberDevice {
    pub sn: String,
    pub announced: Announced,
    /// Why the others do not get its announcement although it is in order, or empty.
    pub conflict: String,
}

impl MemberDevice {
    /// What the other members get.
    pub fn endpoint(&self) -> Option<&Announcement> {
        self.announced.announcement.as_ref().filter(|_| self.conflict.is_empty())
    }
}

/// A gateway in a network.
#[derive(Clone, Debug, Default)]
pub struct Member {
    pub gateway: String,
    /// The account that owns the gateway.
    pub uid: i64,
    /// It is locked out: the others do not get it.
    pub locked: bool,
    /// What another account's gateway may announce; `None`: it is of the network's own account.
    pub granted: Option<Vec<Ipv4Net>>,
    /// Blocks that the others reach through it.
    pub blocks: Vec<Ipv4Net>,
    /// Blocks of the gateway that were not granted to it.
    pub not_granted: Vec<Ipv4Net>,
    /// Those of `blocks` that its strategies do not publish now.
    pub withdrawn: Vec<Ipv4Net>,
    /// Addresses of the network's SNAT block to which it translates its own.
    pub translated: Vec<Ipv4Net>,
    pub devices: Vec<MemberDevice>,
}

impl Member {
    /// A member with these blocks of its own.
    pub fn new(gateway: &str, uid: i64, own: Vec<Ipv4Net>, granted: Option<Vec<Ipv4Net>>) -> Member {
        let allowed = |b: &Ipv4Net| granted.as_ref().is_none_or(|g| g.iter().any(|g| g.contains(b)));
        let (blocks, not_granted) = own.into_iter().partition(allowed);
        Member { gateway: gateway.to_owned(), uid, granted, blocks, not_granted, ..Member::default() }
    }

    /// The blocks that the other members get.
    pub fn announced(&self) -> Vec<Ipv4Net> {
        if self.locked {
            return Vec::new();
        }
        let published = self.blocks.iter().filter(|b| !self.withdrawn.contains(b));
        published.chain(&self.translated).copied().collect()
    }
}

/// Finds out which devices have an address that is another member's. The devices of the network's own account come first,
/// and among equals who had the address first; an address inside of a block of the network is nobody's.
pub fn find_conflicts(members: &mut [Member]) {
    let mut order: Vec<(bool, i64, String, usize, usize)> = Vec::new();
    for (m, member) in members.iter().enumerate() {
        for (n, d) in member.devices.iter().enumerate() {
            let key = (member.granted.is_some(), d.announced.since, d.sn.clone());
            order.push((key.0, key.1, key.2, m, n));
        }
    }
    order.sort();
    let mut taken: HashMap<IpAddr, String> = HashMap::new();
    for (_, _, sn, m, n) in order {
        let found = conflict(members, m, n, &taken);
        if let (None, Some(address)) = (&found, address(&members[m].devices[n])) {
            taken.insert(address, sn);
        }
        members[m].devices[n].conflict = found.unwrap_or_default();
    }
}

fn address(d: &MemberDevice) -> Option<IpAddr> {
    d.announced.announcement.as_ref()?.address.parse().ok()
}

fn conflict(members: &[Member], m: usize, n: usize, taken: &HashMap<IpAddr, String>) -> Option<String> {
    let address = address(&members[m].devices[n])?;
    if let Some(other) = taken.get(&address) {
        return Some(format!("the address {address} is that of device {other}"));
    }
    let IpAddr::V4(v4) = address else { return None };
    members.iter().find_map(|other| {
        let block = other.blocks.iter().find(|b| b.contains(&v4))?;
        Some(format!("the address {address} is inside of the block {block} of gateway {}", other.gateway))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sag_southbound::{AnnouncedLine, IdentityKey};

    const NOW: i64 = 1_800_000_000_000;
    const EPOCH: u64 = 1_799_999_000;

    fn key() -> IdentityKey {
        IdentityKey::from_pkcs8(&IdentityKey::generate().expect("made")).expect("a key")
    }

    fn announcement(address: &str, epoch: u64, key: u8) -> Announcement {
        Announcement {
            address: address.into(),
            epoch: Some(epoch),
            public_key: format!("{key:02x}").repeat(32),
            ..Announcement::default()
        }
    }

    fn signed(by: &IdentityKey, mut a: Announcement) -> Announcement {
        by.sign(&mut a, "sag-1", "sn1").expect("signed");
        a
    }

    /// What a hostile device reports leaves what it had announced before, and says why.
    #[test]
    fn what_is_not_in_order_leaves_the_one_before() {
        let owner = key();
        let mut it = Announced::default();
        let good = signed(&owner, announcement("198.51.100.7", EPOCH, 9));
        assert!(it.report(&good, "sag-1", "sn1", NOW) && it.problem.is_empty());
        assert!(!it.report(&good, "sag-1", "sn1", NOW), "the same again is no news");
        let forged = Announcement { epoch: Some(EPOCH + 1), ..good.clone() };
        let bad = [
            (announcement("198.51.100.7", EPOCH + 1, 9), "not signed"),
            (signed(&key(), announcement("198.51.100.7", EPOCH + 1, 9)), "ClearSagCipher"),
            (forged, "signature"),
            (signed(&owner, announcement("198.51.100.7", EPOCH - 1, 8)), "behind"),
            (signed(&owner, announcement("198.51.100.7", EPOCH - 1, 9)), "behind"),
            (signed(&owner, announcement("198.51.100.7", EPOCH, 8)), "same epoch"),
            (signed(&owner, announcement("198.51.100.7", u64::MAX, 8)), "ahead of the cloud's clock"),
            (announcement("127.0.0.1", EPOCH + 1, 8), "loopback"),
            (announcement("0.0.0.0", EPOCH + 1, 8), "unspecified"),
            (announcement("224.0.0.5", EPOCH + 1, 8), "multicast"),
            (announcement("169.254.0.5", EPOCH + 1, 8), "link-local"),
            (announcement("255.255.255.255", EPOCH + 1, 8), "broadcast"),
            (announcement("::1", EPOCH + 1, 8), "loopback"),
            (announcement("fe80::1", EPOCH + 1, 8), "link-local"),
            (announcement("far away", EPOCH + 1, 8), "not an IP address"),
            (Announcement { public_key: "ab".into(), ..good.clone() }, "64 hexadecimal digits"),
            (announcement("198.51.100.7", EPOCH + 1, 0), "low order"),
            (Announcement { epoch: None, ..good.clone() }, "no epoch"),
        ];
        for (report, why) in bad {
            assert!(!it.report(&report, "sag-1", "sn1", NOW), "{report:?}");
            assert!(it.problem.contains(why), "{why}: {}", it.problem);
            assert_eq!(it.announcement.as_ref(), Some(&good));
            assert_eq!(it.refusal(), it.problem);
        }
        // The next good one is accepted, and a moved device keeps its key.
        assert!(it.report(&signed(&owner, announcement("198.51.100.8", EPOCH, 9)), "sag-1", "sn1", NOW + 1));
        assert!(it.problem.is_empty() && it.since == NOW + 1);
        assert!(it.report(
            &signed(&owner, announcement("198.51.100.8", EPOCH + 5, 8)),
            "sag-1",
            "sn1",
            NOW + 2
        ));
        assert_eq!((it.since, it.epoch()), (NOW + 1, Some(EPOCH + 5)));
    }

    #[test]
    fn lines_are_part_of_what_is_signed_and_announced() {
        let owner = key();
        let with = |lines: &[(&str, &str)]| {
            let line = |(name, address): &(&str, &str)| AnnouncedLine {
                name: (*name).to_owned(),
                address: (*address).to_owned(),
                ..AnnouncedLine::default()
            };
            let lines = lines.iter().map(line).collect();
            signed(&owner, Announcement { lines, ..announcement("198.51.100.7", EPOCH, 9) })
        };
        let mut it = Announced::default();
        let both = with(&[("0", "198.51.100.7"), ("3", "203.0.113.7")]);
        assert!(it.report(&both, "sag-1", "sn1", NOW) && !it.report(&both, "sag-1", "sn1", NOW));
        assert_eq!(it.announcement.as_ref(), Some(&both));
        let forged = Announcement { lines: with(&[("0", "198.51.100.8")]).lines, ..both.clone() };
        assert!(
            !it.report(&forged, "sag-1", "sn1", NOW) && it.problem.contains("signature"),
            "{}",
            it.problem
        );
        assert_eq!(it.announcement.as_ref(), Some(&both));
        let one = with(&[("0", "198.51.100.7")]);
        assert!(it.report(&one, "sag-1", "sn1", NOW + 1), "the other members learn which lines there are");
        assert_eq!((it.since, it.problem.as_str()), (NOW, ""));
    }

    #[test]
    fn to_be_a_hub_is_nothing_that_a_device_announces() {
        let mut it = Announced::default();
        let able = Announcement { pop: Some(true), ..announcement("198.51.100.7", EPOCH, 9) };
        assert!(it.report(&able, "sag-1", "sn1", NOW) && it.hub_capable);
        assert_eq!(it.announcement.as_ref().and_then(|a| a.pop), None);
        let not_able = Announcement { pop: Some(false), ..able };
        assert!(!it.report(&not_able, "sag-1", "sn1", NOW), "the other members need not know");
        assert!(!it.hub_capable);
    }

    #[test]
    fn a_device_that_has_never_signed_may_begin_to_and_cannot_stop() {
        let mut it = Announced::default();
        assert!(it.report(&announcement("198.51.100.7", EPOCH, 9), "sag-1", "sn1", NOW));
        assert!(it.identity.is_empty());
        let owner = key();
        assert!(it.report(&signed(&owner, announcement("198.51.100.7", EPOCH, 9)), "sag-1", "sn1", NOW));
        assert_eq!(it.identity, owner.identity().to_hex());
        assert!(!it.report(&announcement("198.51.100.7", EPOCH + 1, 8), "sag-1", "sn1", NOW));
        // ClearSagCipher: the next identity is accepted, whatever the epochs of the last one were.
        it.identity.clear();
        let next = key();
        assert!(it.report(&signed(&next, announcement("198.51.100.7", EPOCH - 50, 7)), "sag-1", "sn1", NOW));
        assert_eq!(it.identity, next.identity().to_hex());
    }

    #[test]
    fn changes_are_bounded_and_go_on_later() {
        let mut it = Announced::default();
        let mut accepted = |now: i64, n: u64| {
            let address = format!("198.51.100.{}", 1 + n % 2);
            it.report(&announcement(&address, EPOCH, 9), "sag-1", "sn1", now)
        };
        let at_once = (0..1000).filter(|n| accepted(NOW, *n)).count();
        assert_eq!(at_once, 10);
        let in_an_hour = (0..3600u64).filter(|n| accepted(NOW + 1000 * *n as i64, *n)).count();
        assert!((300..=361).contains(&in_an_hour), "{in_an_hour}");
        // A clock that was set back does not hold it up for ever.
        assert!(accepted(NOW - 1_000_000, 0) || accepted(NOW - 1_000_000, 1));
    }

    fn member(gateway: &str, block: &str, granted: Option<&str>, devices: &[(&str, &str, i64)]) -> Member {
        let nets = |text: &str| crate::domain::net::cidr_list(text).expect("blocks");
        let mut m = Member::new(gateway, 1, nets(block), granted.map(nets));
        for (sn, address, since) in devices {
            let announced = Announced {
                announcement: Some(announcement(address, EPOCH, 9)),
                since: *since,
                ..Announced::default()
            };
            m.devices.push(MemberDevice { sn: (*sn).to_owned(), announced, conflict: String::new() });
        }
        m
    }

    fn handed_out(members: &mut [Member]) -> Vec<String> {
        find_conflicts(members);
        let all = members.iter().flat_map(|m| &m.devices);
        all.filter(|d| d.endpoint().is_some()).map(|d| d.sn.clone()).collect()
    }

    #[test]
    fn an_address_is_of_one_device_alone() {
        // Another account's device takes the address of one that had it before, and of one that comes later.
        let all = |stolen_at: i64| {
            [
                member("sag-x", "10.9.0.0/16", Some("10.9.0.0/16"), &[("snx", "198.51.100.1", stolen_at)]),
                member("sag-1", "10.1.0.0/16", None, &[("sn1", "198.51.100.1", 50)]),
            ]
        };
        for stolen_at in [10, 90] {
            let mut members = all(stolen_at);
            assert_eq!(handed_out(&mut members), ["sn1"]);
            assert!(members[0].devices[0].conflict.contains("sn1"), "{}", members[0].devices[0].conflict);
        }
        // Among members of other accounts: who had it first.
        let mut both = [
            member("sag-x", "", Some(""), &[("snx", "198.51.100.1", 60)]),
            member("sag-y", "", Some(""), &[("sny", "198.51.100.1", 50)]),
        ];
        assert_eq!(handed_out(&mut both), ["sny"]);
        // Both devices of a pair with one address: one of them.
        let mut pair = [member("sag-1", "", None, &[("a", "198.51.100.1", 5), ("b", "198.51.100.1", 5)])];
        assert_eq!(handed_out(&mut pair), ["a"]);
    }

    #[test]
    fn an_address_inside_of_a_block_costs_the_device_that_announces_it() {
        let mut members = [
            member("sag-1", "10.1.0.0/16", None, &[("sn1", "198.51.100.1", 1)]),
            member("sag-x", "10.9.0.0/16", Some("10.9.0.0/16"), &[("snx", "10.1.0.5", 1)]),
        ];
        assert_eq!(handed_out(&mut members), ["sn1"]);
        assert!(members[1].devices[0].conflict.contains("10.1.0.0/16 of gateway sag-1"));
    }

    #[test]
    fn only_granted_blocks_are_announced() {
        let m = member("sag-x", "10.9.1.0/24,10.8.0.0/16,10.9.0.0/25", Some("10.9.0.0/16"), &[]);
        let text = |b: &[Ipv4Net]| b.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(&m.blocks), ["10.9.1.0/24", "10.9.0.0/25"]);
        assert_eq!(text(&m.not_granted), ["10.8.0.0/16"]);
        assert_eq!(
            member("sag-x", "10.9.0.0/16", Some("10.9.1.0/24"), &[]).blocks,
            [],
            "not more than granted"
        );
        assert!(member("sag-x", "10.9.0.0/16", Some(""), &[]).blocks.is_empty());
        assert_eq!(member("sag-1", "10.9.0.0/16", None, &[]).blocks.len(), 1);
    }
}
