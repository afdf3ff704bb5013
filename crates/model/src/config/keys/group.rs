//! Keys of `[[group]]`: named sets of networks or of ports.

use crate::config::schema::{Identifier, Label, List, PortList, key, table};
use crate::config::types::{GroupMembers, MAX_GROUP_NETWORKS, MAX_GROUP_PORTS, PortRange};
use ipnet::IpNet;

const _: () = assert!(MAX_GROUP_NETWORKS == 4096 && MAX_GROUP_PORTS == 256, "as the reference says below");

table! {
    /// A named set of networks or of ports, which ACL rules and QoS policies name as `@id`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Group as RawGroup, GroupKeys, ReadGroup {
        /// The name.
        id: String as Identifier => key().allowed("unique").missing("name the group, as in id = \"servers\"", "");
        /// For people.
        pub name: Option<String> as Label<128> => key().allowed("1..128 characters").absent("none");
        /// Networks, all of one IP version.
        networks: Vec<IpNet> as List => key().allowed("1..4096").absent("required without `ports`");
        /// Ports of TCP and UDP: `first/last`, or one port.
        ports: Vec<PortRange> as PortList => key().allowed("1..256").absent("required without `networks`");
    }
    parts {
        /// The name, without `@`.
        id: String,
        /// What is in it.
        members: GroupMembers,
    }
}
