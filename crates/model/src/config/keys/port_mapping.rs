//! Keys of what hosts may ask of the NAT: `[port_mapping]`.

use crate::config::schema::{NatPortRange, key, table};
use crate::config::types::{MIN_NAT_PORT, PortRange};

table! {
    /// Ports outside that hosts ask for by PCP and NAT-PMP, behind LAN ports with `port_mapping = true`;
    /// see [NAT](nat.md#ports-on-request).
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct PortMapping: Default as RawPortMapping, PortMappingKeys, ReadPortMapping {
        /// NAT-PMP is answered too, which has no nonces: whoever can send with a host's address can end its mappings.
        pub nat_pmp: bool = true => key().source("RFC 6886; RFC 6887 appendix A");
        /// Hosts may ask for ports of others behind the same LAN port.
        pub third_party: bool = false => key().source("RFC 6887 section 13.1");
        /// Ports that hosts may get by asking.
        pub external_ports: PortRange as NatPortRange = PortRange { first: MIN_NAT_PORT, last: u16::MAX } =>
            key().allowed("within `1024/65535`");
        /// Mappings of one host.
        pub host_mappings: u16 = 32 => key().range(1, 1_024).source("RFC 6887 section 17.2");
        /// Mappings of all hosts.
        pub mappings: u16 = 1_024 => key().range(1, 16_384);
        /// A mapping lives so long at least, unless it is given back.
        pub min_lifetime: u32 = 120 => key().range(1, 86_400).unit("s").source("RFC 6887 section 15");
        /// And so long at most, unless it is asked for again.
        pub max_lifetime: u32 = 86_400 => key().range(1, 604_800).unit("s").source("RFC 6887 section 15");
    }
}
