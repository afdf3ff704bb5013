//! Addresses and default routes of ports, by netlink. The plan is a pure function of the present and the desired state.
//! What the agent has set is written to disk, and only that is removed again. What the kernel refuses of one device costs
//! that device alone.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use sag_rtnl::{Editor, Mirror, RouteKind, Scope, Table, Tables};
use serde::{Deserialize, Serialize};

use crate::compile::{LOOPBACK, PortAddress};
use crate::files::{self, Unwritten};

type Result<T> = std::result::Result<T, sag_rtnl::Error>;

/// An IPv4 address or default route of a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Item {
    Address { device: String, address: Ipv4Net },
    Default { device: String, gateway: Ipv4Addr, metric: u32 },
}

impl Item {
    pub fn device(&self) -> &str {
        match self {
            Item::Address { device, .. } | Item::Default { device, .. } => device,
        }
    }
}

/// What is done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    Add(Item),
    Remove(Item),
}

/// IPv4 addresses and default routes of the devices, as the kernel has them.
pub fn present(tables: &Tables) -> Vec<Item> {
    let name = |ifindex| tables.link(ifindex).map(|l| l.name.clone());
    let mut out = Vec::new();
    for a in tables.addresses().filter(|a| a.scope == Scope::Global) {
        let (Some(device), IpAddr::V4(ip)) = (name(a.ifindex), a.addr) else { continue };
        if let Ok(address) = Ipv4Net::new(ip, a.prefix_len) {
            out.push(Item::Address { device, address });
        }
    }
    for r in tables.routes_sorted() {
        if !matches!(r.dst, IpNet::V4(n) if n.prefix_len() == 0)
            || r.table != Table::Main
            || r.kind != RouteKind::Unicast
        {
            continue;
        }
        for hop in tables.nexthops_of(r).iter() {
            let Some(device) = name(hop.ifindex) else { continue };
            if let Some(IpAddr::V4(gateway)) = hop.gateway {
                out.push(Item::Default { device, gateway, metric: r.priority });
            }
        }
    }
    out
}

/// The items that the ports shall have.
fn goal(desired: &[PortAddress]) -> Vec<Item> {
    let mut goal = Vec::new();
    for w in desired {
        goal.push(Item::Address { device: w.device.clone(), address: w.address });
        if let Some((gateway, metric)) = w.gateway {
            goal.push(Item::Default { device: w.device.clone(), gateway, metric });
        }
    }
    goal
}

fn goal_of(desired: &[PortAddress], device: &str) -> Vec<Item> {
    let mut all = goal(desired);
    all.retain(|i| i.device() == device);
    all
}

/// Devices whose address the cloud sets have that address and, where it names a gateway, that
/// default route, and no other. Of other devices, what was set earlier goes.
pub fn plan(present: &[Item], desired: &[PortAddress], owned: &[Item]) -> Vec<Edit> {
    let goal = goal(desired);
    let ours = |item: &Item| match item {
        Item::Address { device, .. } => *device != LOOPBACK && desired.iter().any(|w| w.device == *device),
        Item::Default { device, .. } => desired.iter().any(|w| w.device == *device && w.gateway.is_some()),
    };
    let gone = present.iter().filter(|i| !goal.contains(i) && (ours(i) || owned.contains(i)));
    let (routes, addresses): (Vec<&Item>, Vec<&Item>) = gone.partition(|i| matches!(i, Item::Default { .. }));
    let missing: Vec<&Item> = goal.iter().filter(|i| !present.contains(i)).collect();
    let add = |route: bool| {
        missing
            .iter()
            .filter(move |i| matches!(i, Item::Default { .. }) == route)
            .map(|i| Edit::Add((*i).clone()))
    };
    let remove =
        |items: &[&Item]| items.iter().map(|i| Edit::Remove((*i).clone())).collect::<Vec<_>>().into_iter();
    // A route that has another metric is there twice for a moment, and never missing, if that metric is free.
    let stays = |device: &str| {
        let of_device = |i: &&Item| matches!(i, Item::Address { device: d, .. } if d == device);
        !missing.iter().copied().chain(addresses.iter().copied()).any(|i| of_device(&i))
    };
    let has_metric =
        |m: u32| present.iter().any(|i| matches!(i, Item::Default { metric, .. } if *metric == m));
    let moves = |edit: &Edit| match edit.item() {
        Item::Default { device, gateway, metric } => {
            let same = |i: &&Item| matches!(i, Item::Default { device: d, gateway: g, .. } if (d, g) == (device, gateway));
            stays(device) && !has_metric(*metric) && routes.iter().copied().any(|i| same(&i))
        }
        Item::Address { .. } => false,
    };
    let (moved, added): (Vec<Edit>, Vec<Edit>) = add(true).partition(moves);
    // Of the rest the old goes first: with the first address of a subnet the kernel takes all others of it.
    let gone: Vec<Edit> = remove(&routes).chain(remove(&addresses)).collect();
    moved.into_iter().chain(gone).chain(add(false)).chain(added).collect()
}

impl Edit {
    fn item(&self) -> &Item {
        let (Edit::Add(item) | Edit::Remove(item)) = self;
        item
    }

    fn device(&self) -> &str {
        self.item().device()
    }
}

/// Rounds of comparing and editing.
const ROUNDS: usize = 3;

/// How long a device is left alone whose address the kernel has refused: each attempt takes the old one away for a moment.
const PAUSE: Duration = Duration::from_secs(60);

/// What the kernel has refused of a device.
struct Refusal {
    /// What the device should have had, and whether its link was there: with something else it is tried again at once.
    goal: Vec<Item>,
    running: bool,
    why: String,
    at: Instant,
}

/// What became of the addresses.
#[derive(Debug, Default, PartialEq)]
pub struct Reconciled {
    /// Whether addresses or routes are others than before.
    pub changed: bool,
    /// Ports whose address could not be set, and why.
    pub problems: BTreeMap<String, String>,
}

pub struct System {
    mirror: Mirror,
    editor: Editor,
    account: PathBuf,
    owned: Vec<Item>,
    /// The account lacks something of `owned`, or has more.
    unsaved: bool,
    unwritten: Unwritten,
    /// By device.
    refusals: BTreeMap<String, Refusal>,
}

impl System {
    pub fn open(state_dir: &Path) -> Result<System> {
        let account = state_dir.join("addresses.json");
        let owned =
            std::fs::read(&account).ok().and_then(|t| serde_json::from_slice(&t).ok()).unwrap_or_default();
        Ok(System {
            mirror: Mirror::with_receive_buffer(1 << 20)?,
            editor: Editor::open()?,
            account,
            owned,
            unsaved: false,
            unwritten: Unwritten::default(),
            refusals: BTreeMap::new(),
        })
    }

    /// The kernel's tables as they are now.
    pub fn tables(&mut self) -> Result<&Tables> {
        while self.mirror.poll()?.more {}
        Ok(self.mirror.tables())
    }

    /// Gives the devices the desired addresses and routes. A device of which the kernel refuses something is as before.
    ///
    /// # Errors
    /// The kernel's tables cannot be read.
    pub fn reconcile(&mut self, desired: &[PortAddress]) -> Result<Reconciled> {
        let mut out = Reconciled::default();
        let before = present(self.tables()?);
        let able = self.able(desired, &mut out.problems);
        if self.unsaved {
            self.save();
        }
        let mut now = before.clone();
        // What the kernel removed together with something else is missing in the next round.
        for _ in 0..ROUNDS {
            // What was there already is the agent's from now on, too.
            let there: Vec<Item> = goal(&able).into_iter().filter(|i| now.contains(i)).collect();
            self.own(there);
            let edits = self.pending(&now, desired, &able);
            if edits.is_empty() {
                break;
            }
            for (device, why) in self.perform(&edits) {
                self.refuse(&device, desired, why);
            }
            now = present(self.tables()?);
        }
        // The kernel has taken what it does not have, as a second route where there may be one.
        let left: Vec<Edit> = self.pending(&now, desired, &able);
        for edit in left {
            self.refuse(edit.device(), desired, format!("the kernel does not keep {:?}", edit.item()));
        }
        for w in desired {
            if let Some(refusal) = self.refusals.get(&w.device) {
                out.problems.entry(w.port.clone()).or_insert_with(|| refusal.why.clone());
            }
        }
        out.changed = now != before;
        Ok(out)
    }

    /// What there is to do, but for devices that are to be left alone.
    fn pending(&self, now: &[Item], desired: &[PortAddress], able: &[PortAddress]) -> Vec<Edit> {
        let mut edits = plan(now, able, &self.owned);
        // A device that waits keeps what it has.
        let waits = |device: &str| {
            self.refusals.contains_key(device)
                || desired.iter().any(|w| w.device == device) && !able.iter().any(|w| w.device == device)
        };
        edits.retain(|e| !waits(e.device()));
        edits
    }

    /// The addresses that can be tried: of devices that are there and that the kernel has not refused just now.
    fn able(&mut self, desired: &[PortAddress], problems: &mut BTreeMap<String, String>) -> Vec<PortAddress> {
        let tables = self.mirror.tables();
        let running = |device: &str| tables.link_named(device).is_some_and(|l| l.running);
        self.refusals.retain(|device, r| {
            let same = goal_of(desired, device) == r.goal && running(device) == r.running;
            same && r.at.elapsed() < PAUSE
        });
        let mut able = Vec::new();
        for w in desired {
            if tables.link_named(&w.device).is_none() {
                let why = format!("no network device {}; correct [ports] of agent.toml", w.device);
                problems.insert(w.port.clone(), why);
            } else if !self.refusals.contains_key(&w.device) {
                able.push(w.clone());
            }
        }
        able
    }

    fn refuse(&mut self, device: &str, desired: &[PortAddress], why: String) {
        let running = self.mirror.tables().link_named(device).is_some_and(|l| l.running);
        let refusal = Refusal { goal: goal_of(desired, device), running, why, at: Instant::now() };
        self.refusals.insert(device.to_owned(), refusal);
    }

    /// Carries the edits out; returns the devices of which the kernel has refused one, which are as before.
    fn perform(&mut self, edits: &[Edit]) -> BTreeMap<String, String> {
        // Written down before it is set, so that a crash forgets nothing, as far as it can be written.
        let added = edits.iter().filter_map(|e| if let Edit::Add(i) = e { Some(i.clone()) } else { None });
        let before = self.owned.clone();
        self.own(added);
        let mut failed: BTreeMap<String, String> = BTreeMap::new();
        for (n, edit) in edits.iter().enumerate() {
            if failed.contains_key(edit.device()) {
                continue;
            }
            if let Err(e) = self.execute(edit) {
                let done: Vec<&Edit> = edits[..n].iter().filter(|e| e.device() == edit.device()).collect();
                self.undo(&done);
                failed.insert(edit.device().to_owned(), e.to_string());
            }
        }
        self.owned.retain(|i| match failed.contains_key(i.device()) {
            true => before.contains(i),
            false => !edits.contains(&Edit::Remove(i.clone())),
        });
        self.save();
        failed
    }

    fn own(&mut self, items: impl IntoIterator<Item = Item>) {
        let before = self.owned.len();
        self.owned.extend(items);
        self.owned.sort();
        self.owned.dedup();
        if self.owned.len() != before {
            self.save();
        }
    }

    fn undo(&mut self, done: &[&Edit]) {
        for edit in done.iter().rev() {
            let inverse = match edit {
                Edit::Add(i) => Edit::Remove(i.clone()),
                Edit::Remove(i) => Edit::Add(i.clone()),
            };
            if let Err(error) = self.execute(&inverse) {
                tracing::error!(%error, "cannot undo");
            }
        }
    }

    /// The addresses do not wait for the disk.
    fn save(&mut self) {
        let text = serde_json::to_vec(&self.owned).unwrap_or_default();
        let written = files::replace(&self.account, &text);
        self.unsaved = !self.unwritten.note("list of addresses", &self.account, written);
    }

    fn execute(&mut self, edit: &Edit) -> Result<()> {
        let item = edit.item();
        let Some(ifindex) = self.mirror.tables().link_named(item.device()).map(|l| l.ifindex) else {
            return Ok(());
        };
        tracing::info!(?edit, "address");
        match (edit, item) {
            (Edit::Add(_), Item::Address { address, .. }) => self.editor.add_address(ifindex, *address)?,
            (Edit::Remove(_), Item::Address { address, .. }) => {
                self.editor.remove_address(ifindex, *address)?
            }
            (Edit::Add(_), Item::Default { gateway, metric, .. }) => {
                self.editor.add_default(ifindex, *gateway, *metric)?
            }
            (Edit::Remove(_), Item::Default { gateway, metric, .. }) => {
                self.editor.remove_default(ifindex, *gateway, *metric)?
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(device: &str, net: &str) -> Item {
        Item::Address { device: device.into(), address: net.parse().expect("net") }
    }

    fn default_by(device: &str, gateway: &str, metric: u32) -> Item {
        Item::Default { device: device.into(), gateway: gateway.parse().expect("ip"), metric }
    }

    fn desired(device: &str, net: &str, gateway: Option<&str>) -> PortAddress {
        PortAddress {
            port: "0".into(),
            device: device.into(),
            address: net.parse().expect("net"),
            gateway: gateway.map(|g| (g.parse().expect("ip"), 10)),
        }
    }

    #[test]
    fn the_port_has_what_the_cloud_says_and_nothing_else() {
        let now = [
            address("wan", "198.51.100.2/24"),
            default_by("wan", "198.51.100.1", 0),
            address("lan", "192.0.2.1/26"),
        ];
        let edits = plan(&now, &[desired("wan", "198.51.100.7/24", Some("198.51.100.1"))], &[]);
        assert_eq!(
            edits,
            [
                Edit::Remove(default_by("wan", "198.51.100.1", 0)),
                Edit::Remove(address("wan", "198.51.100.2/24")),
                Edit::Add(address("wan", "198.51.100.7/24")),
                Edit::Add(default_by("wan", "198.51.100.1", 10)),
            ]
        );
    }

    /// Sessions and connections by a line whose metric alone changes find it all the time.
    #[test]
    fn a_route_with_another_metric_is_never_missing() {
        let now = [address("wan", "198.51.100.2/24"), default_by("wan", "198.51.100.1", 5)];
        let want = desired("wan", "198.51.100.2/24", Some("198.51.100.1"));
        let (old, new) = (default_by("wan", "198.51.100.1", 5), default_by("wan", "198.51.100.1", 10));
        assert_eq!(
            plan(&now, std::slice::from_ref(&want), &[]),
            [Edit::Add(new.clone()), Edit::Remove(old.clone())]
        );
        // There may be one of a metric.
        let other = default_by("lan", "192.0.2.9", 10);
        let now = [&now[..], std::slice::from_ref(&other)].concat();
        let edits = plan(&now, std::slice::from_ref(&want), std::slice::from_ref(&other));
        assert_eq!(edits, [Edit::Remove(old), Edit::Remove(other), Edit::Add(new)]);
    }

    #[test]
    fn what_was_set_earlier_goes_and_what_others_set_stays() {
        let (old, foreign) = (address("lan", "10.1.0.1/24"), address("lan", "10.2.0.1/24"));
        let now = [old.clone(), foreign];
        assert_eq!(plan(&now, &[], std::slice::from_ref(&old)), [Edit::Remove(old)]);
        assert!(plan(&now, &[], &[]).is_empty());
    }

    #[test]
    fn addresses_of_no_port_stand_beside_those_of_others() {
        let (ours, foreign) = (address(LOOPBACK, "10.9.0.1/32"), address(LOOPBACK, "10.9.0.9/32"));
        let want = [desired(LOOPBACK, "10.9.0.2/32", None)];
        let edits = plan(&[ours.clone(), foreign], &want, std::slice::from_ref(&ours));
        assert_eq!(edits, [Edit::Remove(ours), Edit::Add(address(LOOPBACK, "10.9.0.2/32"))]);
    }

    fn item() -> impl Strategy<Value = Item> {
        let device = prop::sample::select(vec!["a", "b"]);
        prop_oneof![
            (device.clone(), 0..4u8).prop_map(|(d, n)| address(d, &format!("10.0.{n}.1/24"))),
            (device, 0..4u8, 0..2u32).prop_map(|(d, n, m)| default_by(d, &format!("10.0.{n}.9"), m * 10)),
        ]
    }

    fn apply(mut now: Vec<Item>, edits: &[Edit]) -> Vec<Item> {
        for e in edits {
            match e {
                Edit::Add(i) => now.push(i.clone()),
                Edit::Remove(i) => now.retain(|x| x != i),
            }
        }
        now
    }

    proptest! {
        /// After the edits there is nothing left to do, whatever was there.
        #[test]
        fn one_pass_is_enough(
            now in prop::collection::btree_set(item(), 0..6),
            owned in prop::collection::vec(item(), 0..4),
            n in 0..4u8, gateway in any::<bool>(),
        ) {
            let now: Vec<Item> = now.into_iter().collect();
            let want = [desired("a", &format!("10.0.{n}.1/24"), gateway.then_some("10.0.0.9"))];
            let then = apply(now.clone(), &plan(&now, &want, &owned));
            prop_assert!(plan(&then, &want, &owned).is_empty());
            // Of the other device only what was ours is touched.
            for i in now.iter().filter(|i| i.device() == "b" && !owned.contains(i)) {
                prop_assert!(then.contains(i));
            }
        }
    }
}
