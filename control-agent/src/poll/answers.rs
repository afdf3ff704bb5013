//! Answers of the documented operations that the agent reads.

use sag_southbound::{
    AclRule, DistributionRule, DnatEntry, HealthCheck, Lan, LeasedLine, PortEntry, QosCar, QosPolicy,
    SnatEntry, StaticRoute, Switch, Wan, Wire, WireError, member, object,
};
use serde_json::Value;

/// An answer with its members.
macro_rules! answers {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $kind:ty = $wire:literal,)* })*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name { $(pub $field: $kind,)* }

        impl Wire for $name {
            fn from_json(value: Value) -> Result<Self, WireError> {
                let mut map = object(value)?;
                Ok(Self { $($field: member(&mut map, $wire)?,)* })
            }
        }
    )* };
}

answers! {
    /// DescribeSmartAccessGatewayAttribute.
    GatewayAttribute {
        max_bandwidth: Option<i64> = "MaxBandwidth",
        up_bandwidth_wan: Option<i64> = "UpBandwidthWan",
        acl_ids: Vec<String> = "AclIds",
        qos_ids: Vec<String> = "QosIds",
    }
    /// DescribeSagPortList.
    PortList { ports: Vec<PortEntry> = "Ports", }
    /// DescribeSagWanSnat.
    WanSnat { snat: Option<Switch> = "Snat", }
    /// DescribeSagWanList.
    WanList { wans: Vec<OfPort<Wan>> = "Wans", }
    /// DescribeSagLanList.
    LanList { lans: Vec<OfPort<Lan>> = "Lans", }
    /// DescribeSagStaticRouteList.
    RouteList { routes: Vec<StaticRoute> = "StaticRoutes", }
    /// DescribeSagExpressConnectInterfaceList.
    LeasedLineList { interfaces: Vec<LeasedLine> = "Interfaces", }
}

/// Settings of a port that stand beside its name.
#[derive(Debug, Clone, PartialEq)]
pub struct OfPort<T> {
    port_name: Option<String>,
    settings: T,
}

impl<T> OfPort<T> {
    /// Name and settings; `None`: the entry has no name.
    pub fn named<U: From<T>>(self) -> Option<(String, U)> {
        Some((self.port_name?, self.settings.into()))
    }
}

impl<T: Wire> Wire for OfPort<T> {
    fn from_json(value: Value) -> Result<OfPort<T>, WireError> {
        let mut map = object(value)?;
        let port_name = member(&mut map, "PortName")?;
        // The documents have two spellings.
        if !map.contains_key("Bandwidth")
            && let Some(bandwidth) = map.remove("BandWidth")
        {
            map.insert("Bandwidth".to_owned(), bandwidth);
        }
        Ok(OfPort { port_name, settings: T::from_json(Value::Object(map))? })
    }
}

/// An entry of a list that comes in pages.
pub trait Listed: Wire {
    /// The operation that lists it.
    const OPERATION: &'static str;
    /// The member of the answer that holds the entries.
    const LIST: &'static str;
}

macro_rules! listed {
    ($($kind:ty: $operation:literal, $list:literal;)*) => { $(
        impl Listed for $kind {
            const OPERATION: &'static str = $operation;
            const LIST: &'static str = $list;
        }
    )* };
}

listed! {
    AclRule: "DescribeACLAttribute", "Acrs";
    QosPolicy: "DescribeQosPolicies", "QosPolicies";
    QosCar: "DescribeQosCars", "QosCars";
    SnatEntry: "DescribeSnatEntries", "SnatEntries";
    DnatEntry: "DescribeDnatEntries", "DnatEntries";
    HealthCheck: "DescribeHealthChecks", "HealthChecks";
    DistributionRule: "DescribeRouteDistributionStrategies", "Strategies";
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// Entries on all pages.
    pub total: i64,
}

impl<T: Listed> Wire for Page<T> {
    fn from_json(value: Value) -> Result<Page<T>, WireError> {
        let mut map = object(value)?;
        let total: Option<i64> = member(&mut map, "TotalCount")?;
        Ok(Page { rows: member(&mut map, T::LIST)?, total: total.unwrap_or(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pages_and_ports_in_their_wrappings() {
        let answer = json!({"TotalCount": 1, "SnatEntries": {"SnatEntry": [{"InstanceId": "snat-1"}]}});
        let page = Page::<SnatEntry>::from_json(answer).expect("a page");
        assert_eq!((page.total, page.rows[0].id.as_str()), (1, "snat-1"));
        let answer = json!({"Wans": {"Wan": [{"PortName": "0", "IPType": "DHCP", "BandWidth": "50M"}, {}]}});
        let list = WanList::from_json(answer).expect("a list");
        let named: Vec<(String, Wan)> = list.wans.into_iter().filter_map(|w| w.named()).collect();
        assert_eq!((named.len(), named[0].0.as_str(), named[0].1.bandwidth), (1, "0", Some(50)));
        let attribute =
            GatewayAttribute::from_json(json!({"MaxBandwidth": "50M", "AclIds": {"AclId": ["a"]}}));
        let attribute = attribute.expect("an answer");
        assert_eq!((attribute.max_bandwidth, attribute.acl_ids), (Some(50), vec!["a".to_owned()]));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let e = Page::<SnatEntry>::from_json(json!({"SnatEntries": [7]})).expect_err("no entry");
        assert_eq!(e.to_string(), "SnatEntries[0]: 7 is not an object");
    }
}
