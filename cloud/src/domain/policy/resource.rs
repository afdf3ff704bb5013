//! The names that policies have for resources: `acs:smartag:REGION:ACCOUNT:TYPE/ID`.

use crate::store::Kind;

/// What a name is about. Parts of a resource (the rules of an ACL, the entries and devices of a gateway) go by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceType {
    Gateway,
    Ccn,
    Acl,
    Qos,
    FlowLog,
    HealthCheck,
    EnterpriseCode,
}

impl ResourceType {
    pub const ALL: [ResourceType; 7] = [
        ResourceType::Gateway,
        ResourceType::Ccn,
        ResourceType::Acl,
        ResourceType::Qos,
        ResourceType::FlowLog,
        ResourceType::HealthCheck,
        ResourceType::EnterpriseCode,
    ];

    /// The words for it in a name. The first one is that of the documents, where they have one; the second one is
    /// what policies were written with before.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            ResourceType::Gateway => &["smartag", "smartaccessgateway"],
            ResourceType::Ccn => &["ccn", "cloudconnectnetwork"],
            ResourceType::Acl => &["acl"],
            ResourceType::Qos => &["qos"],
            ResourceType::FlowLog => &["flowlog"],
            ResourceType::HealthCheck => &["healthcheck"],
            ResourceType::EnterpriseCode => &["enterprisecode"],
        }
    }

    pub fn all_names() -> impl Iterator<Item = &'static str> {
        ResourceType::ALL.into_iter().flat_map(|t| t.names().iter().copied())
    }

    pub fn by_name(name: &str) -> Option<ResourceType> {
        ResourceType::ALL.into_iter().find(|t| t.names().iter().any(|n| n.eq_ignore_ascii_case(name)))
    }
}

/// An object as policies see it.
#[derive(Clone, Copy, Debug)]
pub struct Resource<'a> {
    pub kind: Kind,
    pub id: &'a str,
    /// The account that owns it.
    pub uid: i64,
    pub region: &'a str,
    /// The object that it is part of, or empty.
    pub parent: &'a str,
}

/// The type of an object of this kind, or of the object that it is part of.
pub fn type_of(kind: Kind) -> ResourceType {
    match kind {
        Kind::Gateway
        | Kind::SnatEntry
        | Kind::DnatEntry
        | Kind::RouteStrategy
        | Kind::ProbeTask
        | Kind::AppUser
        | Kind::AppState
        | Kind::CcnGrant
        | Kind::VbrGrant
        | Kind::Announcement
        | Kind::Order => ResourceType::Gateway,
        Kind::Acl | Kind::AclRule => ResourceType::Acl,
        Kind::Qos | Kind::QosPolicy | Kind::QosCar => ResourceType::Qos,
        Kind::Ccn | Kind::CenGrant | Kind::CcnMember => ResourceType::Ccn,
        Kind::FlowLog => ResourceType::FlowLog,
        Kind::HealthCheck => ResourceType::HealthCheck,
        Kind::EnterpriseCode => ResourceType::EnterpriseCode,
    }
}

/// Whether objects of this kind are parts of others.
pub fn is_part(kind: Kind) -> bool {
    !matches!(kind, Kind::Gateway | Kind::Acl | Kind::Qos | Kind::Ccn | Kind::FlowLog | Kind::EnterpriseCode)
}

fn name(region: &str, uid: i64, word: &str, id: &str) -> String {
    format!("acs:smartag:{region}:{uid}:{word}/{id}")
}

impl Resource<'_> {
    fn named(&self, of: ResourceType, id: &str) -> impl Iterator<Item = String> {
        of.names().iter().map(move |word| name(self.region, self.uid, word, id))
    }

    /// All its names, the documented one first. What allows one of them allows the object, and what denies one of them
    /// denies it.
    pub fn names(&self) -> Vec<String> {
        if !is_part(self.kind) {
            return self.named(type_of(self.kind), self.id).collect();
        }
        match self.kind {
            Kind::HealthCheck => self
                .named(ResourceType::HealthCheck, self.id)
                .chain(self.named(ResourceType::Gateway, self.parent).filter(|_| !self.parent.is_empty()))
                .collect(),
            _ => self.named(type_of(self.kind), self.parent).collect(),
        }
    }

    /// The documented name.
    pub fn name(&self) -> String {
        self.names().swap_remove(0)
    }
}

/// The names of all resources of a type in a region (`*` for every region) as the documents write them: `smartag/*`.
pub fn everything_of(of: ResourceType, region: &str, uid: i64) -> Vec<String> {
    of.names().iter().map(|word| name(region, uid, word, "*")).collect()
}

/// The name for calls that are about no resource.
pub fn everything(region: &str, uid: i64) -> String {
    format!("acs:smartag:{region}:{uid}:*")
}
