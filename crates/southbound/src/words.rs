//! Words with a fixed set of values, each with a place for a word that this version does not know.

/// Declares an enumeration of words. A word that is not listed becomes `Unknown` with its text, is written as the same
/// text again, and is never taken for one of the others.
macro_rules! words {
    ($($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$doc:meta])* $variant:ident = $word:literal,)*
    })*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$doc])* #[doc = concat!("\n\nOn the wire: `", $word, "`.")] $variant,)*
            /// A word that this version does not know, as it was written.
            Unknown(String),
        }

        impl $name {
            /// Every word that this version knows.
            pub const KNOWN: &'static [$name] = &[$($name::$variant,)*];

            /// The word on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $($name::$variant => $word,)*
                    $name::Unknown(word) => word,
                }
            }

            /// Whether this version does not know the word.
            pub fn is_unknown(&self) -> bool {
                matches!(self, $name::Unknown(_))
            }
        }

        /// Upper and lower case do not matter.
        impl From<&str> for $name {
            fn from(word: &str) -> $name {
                $(if word.eq_ignore_ascii_case($word) {
                    return $name::$variant;
                })*
                $name::Unknown(word.to_owned())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }

        impl $crate::wire::Wire for $name {
            fn from_json(value: serde_json::Value) -> Result<$name, $crate::wire::WireError> {
                match <String as $crate::wire::Wire>::from_json(value)?.as_str() {
                    "" => Err($crate::wire::WireError::new("is missing")),
                    word => Ok($name::from(word)),
                }
            }
        }

        $crate::wire::deserialize_by_wire!($name);
    )* };
}

pub(crate) use words;

words! {
    /// What a port is for (ModifySagPortRole).
    pub enum PortRole {
        /// The Internet.
        Wan = "WAN",
        /// The branch's own network.
        Lan = "LAN",
        /// A leased line (express connect).
        Ecc = "ECC",
        /// Management of the device; the gateway does not forward through it.
        Mgt = "MGT",
        /// The port is not used.
        None = "NONE",
    }

    /// How a port gets its address (ModifySagWan, ModifySagLan).
    pub enum AddressMode {
        /// By DHCP; on a LAN port: the device serves DHCP there.
        Dhcp = "DHCP",
        /// The address is given.
        Static = "STATIC",
        /// By PPPoE with user name and password.
        Pppoe = "PPPOE",
    }

    /// How a device learns routes (ModifySagGlobalRouteProtocol, ModifySagPortRouteProtocol).
    pub enum RouteProtocol {
        /// Routes are configured.
        Static = "STATIC",
        /// OSPF version 2.
        Ospf = "OSPF",
        /// BGP version 4.
        Bgp = "BGP",
    }

    /// High availability of two devices (ModifySagHa).
    pub enum HaMode {
        /// None.
        None = "NONE",
        /// A virtual address of a LAN port moves from one device to the other.
        Static = "STATIC",
        /// Routes move by a routing protocol.
        Dynamic = "DYNAMIC",
    }

    /// A switch (ModifySagWanSnat).
    pub enum Switch {
        /// On.
        Enable = "ENABLE",
        /// Off.
        Disable = "DISABLE",
    }

    /// How a health check probes (CreateHealthCheck).
    pub enum ProbeKind {
        /// ICMP echo requests.
        IcmpEcho = "ICMP_ECHO",
    }

    /// How a probe task probes (CreateProbeTask).
    pub enum ProbeProtocol {
        /// ICMP echo requests.
        Icmp = "ICMP",
        /// Connections to a port.
        Tcp = "TCP",
        /// Requests of a URL.
        Http = "HTTP",
    }

    /// Where a route comes from (ModifyRouteDistributionStrategy).
    pub enum RouteOrigin {
        /// From the device: configured or learned.
        Local = "local",
        /// From another member of the cloud connect network.
        Cloud = "cloud",
    }

    /// When a route is published (ModifyRouteDistributionStrategy).
    pub enum PublishStrategy {
        /// Always.
        Publish = "publish",
        /// Never.
        NoPublish = "no_publish",
        /// While the health check is good.
        OnHealthSuccess = "no_publish_and_publish_on_health_success",
        /// While the health check fails.
        OnHealthFail = "no_publish_and_publish_on_health_fail",
        /// Unless the health check is good.
        RevokeOnHealthSuccess = "publish_and_revoke_on_health_success",
        /// Unless the health check fails.
        RevokeOnHealthFail = "publish_and_revoke_on_health_fail",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Wire;

    #[test]
    fn unknown_words_stay_what_they_are() {
        for text in ["publish_sometimes", "Publish "] {
            let word = PublishStrategy::from(text);
            assert_eq!(word, PublishStrategy::Unknown(text.to_owned()));
            assert_eq!(serde_json::to_value(&word).expect("written"), text);
        }
        assert_eq!(AddressMode::from("dhcp"), AddressMode::Dhcp);
        assert_eq!(AddressMode::Dhcp.as_str(), "DHCP");
        assert!(PortRole::from_json(serde_json::json!({})).is_err());
    }

    #[test]
    fn every_word_is_read_as_itself() {
        for role in PortRole::KNOWN {
            assert_eq!(PortRole::from(role.as_str()), *role);
        }
        for strategy in PublishStrategy::KNOWN {
            assert_eq!(PublishStrategy::from(strategy.as_str()), *strategy);
        }
    }
}
