//! Groups: sets of networks and of ports with a name.

use super::PortRange;
use ipnet::IpNet;
use std::fmt;
use std::sync::Arc;

/// Networks of one group.
pub const MAX_GROUP_NETWORKS: usize = 4096;

/// Port ranges of one group.
pub const MAX_GROUP_PORTS: usize = 256;

/// Rules without groups that one rule with groups may stand for.
pub const MAX_RULE_PARTS: usize = 4096;

/// The same of all ACL rules together, and of all QoS policies.
pub const MAX_PARTS: usize = 100_000;

/// What is in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupMembers {
    /// Networks.
    Networks(Arc<NetworkGroup>),
    /// Ports.
    Ports(Arc<PortGroup>),
}

/// A group of networks, all of one IP version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NetworkGroup {
    /// The name, without `@`.
    pub id: String,
    /// As written, without host bits; at least one.
    pub networks: Vec<IpNet>,
    /// The fewest networks that hold the same addresses.
    pub merged: Vec<IpNet>,
}

impl NetworkGroup {
    /// Of at least one network.
    pub fn new(id: String, networks: Vec<IpNet>) -> NetworkGroup {
        let merged = IpNet::aggregate(&networks);
        NetworkGroup { id, networks, merged }
    }
}

/// A group of ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PortGroup {
    /// The name, without `@`.
    pub id: String,
    /// As written; at least one.
    pub ports: Vec<PortRange>,
    /// The fewest ranges that hold the same ports.
    pub merged: Vec<PortRange>,
}

impl PortGroup {
    /// Of at least one range.
    pub fn new(id: String, ports: Vec<PortRange>) -> PortGroup {
        let mut sorted = ports.clone();
        sorted.sort_unstable();
        let mut merged: Vec<PortRange> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                    last.last = last.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        PortGroup { id, ports, merged }
    }
}

/// Source or destination addresses of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NetworkMatch {
    /// One network, without host bits.
    One(IpNet),
    /// Those of a group.
    Group(Arc<NetworkGroup>),
}

impl NetworkMatch {
    /// The networks, the fewest that hold the addresses.
    pub fn networks(&self) -> &[IpNet] {
        match self {
            NetworkMatch::One(net) => std::slice::from_ref(net),
            NetworkMatch::Group(group) => &group.merged,
        }
    }

    /// Whether the addresses are IPv6.
    pub fn is_ipv6(&self) -> bool {
        matches!(self.networks().first(), Some(IpNet::V6(_)))
    }

    /// Whether the file says the same here, whatever is in a group.
    pub fn is_written_as(&self, other: &NetworkMatch) -> bool {
        match (self, other) {
            (NetworkMatch::Group(a), NetworkMatch::Group(b)) => a.id == b.id,
            _ => self == other,
        }
    }
}

/// As in the file.
impl fmt::Display for NetworkMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkMatch::One(net) => net.fmt(f),
            NetworkMatch::Group(group) => write!(f, "@{}", group.id),
        }
    }
}

/// Source or destination ports of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PortMatch {
    /// One range.
    Range(PortRange),
    /// Those of a group.
    Group(Arc<PortGroup>),
}

impl PortMatch {
    /// Any port, and packets without ports.
    pub const ANY: PortMatch = PortMatch::Range(PortRange::ANY);

    /// The ranges, the fewest that hold the ports.
    pub fn ranges(&self) -> &[PortRange] {
        match self {
            PortMatch::Range(range) => std::slice::from_ref(range),
            PortMatch::Group(group) => &group.merged,
        }
    }

    /// Whether the file says the same here, whatever is in a group.
    pub fn is_written_as(&self, other: &PortMatch) -> bool {
        match (self, other) {
            (PortMatch::Group(a), PortMatch::Group(b)) => a.id == b.id,
            _ => self == other,
        }
    }
}

/// As in the file.
impl fmt::Display for PortMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortMatch::Range(range) => range.fmt(f),
            PortMatch::Group(group) => write!(f, "@{}", group.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_merged() {
        let nets = ["10.0.0.0/25", "10.0.0.128/25", "10.0.0.7/32", "10.1.0.0/16"]
            .map(|n| n.parse().expect("network"));
        let group = NetworkGroup::new("g".into(), nets.to_vec());
        assert_eq!(
            NetworkMatch::Group(group.into()).networks().iter().map(IpNet::to_string).collect::<Vec<_>>(),
            ["10.0.0.0/24", "10.1.0.0/16"]
        );
        let range = |first, last| PortRange { first, last };
        let ports =
            vec![range(443, 443), range(80, 90), range(85, 100), range(101, 101), range(65_535, 65_535)];
        let group = PortGroup::new("p".into(), ports);
        assert_eq!(group.merged, [range(80, 101), range(443, 443), range(65_535, 65_535)]);
    }
}
