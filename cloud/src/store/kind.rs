//! The kinds of objects, and of links between them.

use super::{Error, Result};

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$case_doc:meta])* $case:ident => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$case_doc])* $case,)*
        }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$case,)*];

            /// As it is stored.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$case => $text,)*
                }
            }

            /// # Errors
            /// A name that no version of this program has stored.
            pub fn from_stored(text: &str) -> Result<$name> {
                let found = $name::ALL.iter().find(|k| k.as_str() == text).copied();
                found.ok_or(Error::Column(0))
            }
        }
    };
}

names! {
    /// What an object is.
    Kind {
        /// A gateway instance.
        Gateway => "gateway",
        /// An access control list.
        Acl => "acl",
        /// A rule of an access control list, its parent.
        AclRule => "acl_rule",
        /// A container of traffic classes and rate limits.
        Qos => "qos",
        /// A traffic class of a QoS container, its parent.
        QosPolicy => "qos_policy",
        /// A rate limit of a QoS container, its parent.
        QosCar => "qos_car",
        /// An SNAT entry of a gateway, its parent.
        SnatEntry => "snat",
        /// A DNAT entry of a gateway, its parent.
        DnatEntry => "dnat",
        /// A health check of a gateway, its parent.
        HealthCheck => "health",
        /// A probe task of a gateway, its parent.
        ProbeTask => "probe_task",
        /// A route publication strategy of a gateway, its parent.
        RouteStrategy => "distribution",
        /// A cloud connect network.
        Ccn => "ccn",
        /// A flow log.
        FlowLog => "flowlog",
        /// A client account of a client-app instance, its parent.
        AppUser => "app_user",
        /// What the access point of a client-app instance reported.
        AppState => "app_state",
        /// The code that client apps log in with.
        EnterpriseCode => "enterprise_code",
        /// A gateway, its parent, granted to a network of another account.
        CcnGrant => "grant_ccn",
        /// A network, its parent, granted to an enterprise network of another account.
        CenGrant => "grant_cen",
        /// A gateway, its parent, granted to a border router of another account.
        VbrGrant => "grant_vbr",
        /// An order for a gateway, its parent.
        Order => "order",
        /// What the owner of a network, its parent, has granted to a gateway of another account.
        CcnMember => "ccn_member",
        /// What a device of a gateway, its parent, has announced to the other members of its network.
        Announcement => "announcement",
    }
}

names! {
    /// How a gateway is connected with another object.
    Link {
        /// The access control list is in force on the gateway.
        Acl => "acl",
        /// The QoS container is in force on the gateway.
        Qos => "qos",
        /// The gateway is a member of the network.
        Ccn => "ccn",
        /// The gateway writes to the flow log.
        FlowLog => "flowlog",
        /// The gateway has a leased line to the border router.
        Vbr => "vbr",
        /// The gateway may be bound to the network of another account.
        GrantedCcn => "granted_ccn",
    }
}
