//! Addresses and default routes of ports, by netlink. The plan is a pure function of the present and the desired state.
//! What the agent has set is written to disk, and only that is removed again.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};
use sag_rtnl::{Editor, Mirror, RouteKind, Scope, Table, Tables};
use serde::{Deserialize, Serialize};

use crate::compile::{LOOPBACK, PortAddress};
use crate::files::{self, Unwritten};

#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    #[error("port {port}: no network device {device}; correct [ports] of agent.toml")]
    NoDevice { port: String, device: String },
    #[error("{0}")]
    Kernel(#[from] sag_rtnl::Error),
}

/// An IPv4 address or default route of a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Item {
    Address { device: String, address: Ipv4Net },
    Default { device: String, gateway: Ipv4Addr, metric: u32 },
}

impl Item {
    fn device(&self) -> &str {
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
    let remove = |items: Vec<&Item>| items.into_iter().map(|i| Edit::Remove(i.clone())).collect::<Vec<_>>();
    // The old goes first: with the first address of a subnet the kernel takes all others of it.
    let gone = remove(routes).into_iter().chain(remove(addresses));
    gone.chain(add(false)).chain(add(true)).collect()
}

/// Rounds of comparing and editing.
const ROUNDS: usize = 3;

pub struct System {
    mirror: Mirror,
    editor: Editor,
    account: PathBuf,
    owned: Vec<Item>,
    /// The account lacks something of `owned`, or has more.
    unsaved: bool,
    unwritten: Unwritten,
}

impl System {
    pub fn open(state_dir: &Path) -> Result<System, SystemError> {
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
        })
    }

    /// The kernel's tables as they are now.
    pub fn tables(&mut self) -> Result<&Tables, SystemError> {
        while self.mirror.poll()?.more {}
        Ok(self.mirror.tables())
    }

    /// Gives the devices the desired addresses and routes; returns whether anything had to be done. After an error they
    /// are as before.
    pub fn reconcile(&mut self, desired: &[PortAddress]) -> Result<bool, SystemError> {
        let tables = self.tables()?;
        for w in desired {
            if tables.link_named(&w.device).is_none() {
                return Err(SystemError::NoDevice { port: w.port.clone(), device: w.device.clone() });
            }
        }
        if self.unsaved {
            self.save();
        }
        let mut changed = false;
        // What the kernel removed together with something else is missing in the next round.
        for _ in 0..ROUNDS {
            let now = present(self.tables()?);
            // What was there already is the agent's from now on, too.
            let there: Vec<Item> = goal(desired).into_iter().filter(|i| now.contains(i)).collect();
            self.own(there);
            let edits = plan(&now, desired, &self.owned);
            if edits.is_empty() {
                break;
            }
            changed = true;
            self.perform(&edits)?;
        }
        Ok(changed)
    }

    fn perform(&mut self, edits: &[Edit]) -> Result<(), SystemError> {
        // Written down before it is set, so that a crash forgets nothing, as far as it can be written.
        let added = edits.iter().filter_map(|e| if let Edit::Add(i) = e { Some(i.clone()) } else { None });
        let before = self.owned.clone();
        self.own(added);
        for (n, edit) in edits.iter().enumerate() {
            if let Err(e) = self.execute(edit) {
                self.undo(&edits[..n]);
                self.owned = before;
                self.save();
                return Err(e);
            }
        }
        self.owned.retain(|i| !edits.contains(&Edit::Remove(i.clone())));
        self.save();
        Ok(())
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

    fn undo(&mut self, done: &[Edit]) {
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

    fn execute(&mut self, edit: &Edit) -> Result<(), SystemError> {
        let (Edit::Add(item) | Edit::Remove(item)) = edit;
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
