//! Messages of the control socket: requests of `sagctl` and the agent, answers of the gateway.
//!
//! A Unix stream socket carries one JSON document a line. A request is
//! `{"v":1,"id":N,"op":"…", …arguments}`, its answer `{"v":1,"id":N,"ok":…}` or
//! `{"v":1,"id":N,"err":{"code","message","remedy"}}`. Answers come in the order of the requests.
//! Keys may be added to answers within a version; unknown keys of a request are refused, because a
//! misspelt filter must not widen what it selects. The reference is `docs/control.md`.

mod acl;
mod cidr;
mod deviation;
mod explain;
mod ha;
mod keys;
mod largest;
mod nat;
mod qos;
mod report;
mod route_place;
mod session;
mod tunnel;

pub use crate::config::Change;
pub use acl::{Acl, AclLogEntry, AclQuery, AclReport, AclRule, Finding};
pub use cidr::{CidrError, parse_cidr};
pub use deviation::{ConfigDeviations, Deviation, DeviationsKept, MAX_DEVIATIONS};
pub use explain::{Explain, ExplainQuery, Rewritten, StageTrace};
pub use ha::{Ha, HaQuery, HaTotals};
pub use keys::{
    KeyText, PublicKey, Rekeyed, TunnelConfirm, TunnelKeyQuery, TunnelPeer, TunnelPeers, TunnelRekey,
};
pub use nat::{
    Nat, NatBinding, NatBindingFilter, NatBindingPicker, NatBindingQuery, NatBindings, NatEntry, NatKind,
    NatMapping, NatMappingKind, NatMappings, NatPool, NatTotals, PortUse,
};
pub use qos::{Qos, QosCar, QosCounters, QosLink, QosPolicy};
pub use report::{
    CarCounters, ConfigApplied, ConfigDiff, ConfigShow, ConfigText, DropRow, Drops, FileState, HeaviestHost,
    KernelSetting, NextHop, Port, PortPunt, Ports, PuntRow, RepairCount, Route, RouteQuery, Routes,
    SessionTotals, Status, SynCookieRow, Worker,
};
pub use route_place::{RoutePlace, RoutePlaceError};
pub use session::{
    DEFAULT_LIMIT, Flushed, IpProto, MAX_LIMIT, Picker, ProtoError, Session, SessionFacts, SessionFilter,
    SessionFlush, SessionQuery, SessionSort, Sessions, Top, TopBy, TopCollector, TopGroup, TopQuery, TopRow,
};
pub use tunnel::{Tunnel, TunnelDevice, TunnelDeviceDrop, TunnelFec, TunnelKeys, Tunnels};

use serde::{Deserialize, Serialize};
use std::fmt;

/// Version of the protocol, the `v` of every message.
pub const VERSION: u32 = 1;

/// Where the gateway listens unless its configuration says otherwise (`dataplane.control`).
pub const DEFAULT_SOCKET: &str = "/run/sag/vcpe.sock";

/// Longest request line, unless it carries a configuration.
pub const MAX_REQUEST: usize = 1 << 20;

/// Longest request line that carries a configuration (`config-apply`, `config-diff`). Such a
/// request names its `op` within the first [`OP_WITHIN`] bytes.
pub const MAX_CONFIG_REQUEST: usize = 64 << 20;

/// See [`MAX_CONFIG_REQUEST`].
pub const OP_WITHIN: usize = 256;

/// One line from the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Version of the protocol, [`VERSION`].
    pub v: u32,
    /// Chosen by the client; the answer has the same.
    pub id: u64,
    /// The operation with its arguments.
    #[serde(flatten)]
    pub op: Op,
}

impl Request {
    /// A request of this version.
    pub fn new(id: u64, op: Op) -> Request {
        Request { v: VERSION, id, op }
    }
}

/// What is readable of a request whatever its version and operation: enough to answer it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Envelope {
    /// Version of the protocol, [`VERSION`].
    pub v: u32,
    /// Chosen by the client; the answer has the same.
    pub id: u64,
    /// Name of the operation.
    pub op: String,
}

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Look at everything; secrets are masked.
    Read,
    /// Everything.
    Admin,
}

macro_rules! ops {
    ($($(#[$m:meta])* $variant:ident $(($arg:ty))? = $name:literal;)*) => {
        /// An operation with its arguments, which stand beside `op` in the request.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "op")]
        pub enum Op { $($(#[$m])* #[doc = concat!("`", $name, "`")] #[serde(rename = $name)] $variant $(($arg))?,)* }

        impl Op {
            /// Every name of an operation.
            pub const NAMES: &'static [&'static str] = &[$($name,)*];
        }
    };
}

ops! {
    Status = "status";
    Ports = "ports";
    Drops = "drops";
    Acl(AclQuery) = "acl";
    Routes(RouteQuery) = "routes";
    Sessions(SessionQuery) = "sessions";
    SessionsFlush(SessionFlush) = "sessions-flush";
    Top(TopQuery) = "top";
    Explain(ExplainQuery) = "explain";
    Nat = "nat";
    NatBindings(NatBindingQuery) = "nat-bindings";
    /// Ports that hosts have asked for by PCP and NAT-PMP.
    NatMappings = "nat-mappings";
    Qos = "qos";
    Tunnels = "tunnels";
    /// The peer to which sessions follow.
    Ha(HaQuery) = "ha";
    /// The next four are about keys of ESP tunnels (docs/tunnels-keys.md).
    TunnelsRekey(TunnelRekey) = "tunnels-rekey";
    TunnelsConfirm(TunnelConfirm) = "tunnels-confirm";
    TunnelsKey(TunnelKeyQuery) = "tunnels-key";
    TunnelsPeers(TunnelPeers) = "tunnels-peers";
    ConfigShow = "config-show";
    ConfigApply(ConfigText) = "config-apply";
    ConfigDiff(ConfigText) = "config-diff";
    /// What of the controller's configuration the document in force does not have; `status` shows it.
    ConfigDeviations(ConfigDeviations) = "config-deviations";
    /// Reads the configuration file again, as SIGHUP does.
    Reload = "reload";
}

impl Op {
    /// What a client must be allowed to call the operation.
    pub const fn access(&self) -> Access {
        match self {
            Op::Status
            | Op::Ports
            | Op::Drops
            | Op::Acl(_)
            | Op::Routes(_)
            | Op::Sessions(_)
            | Op::Top(_)
            | Op::Explain(_)
            | Op::Nat
            | Op::NatBindings(_)
            | Op::NatMappings
            | Op::Qos
            | Op::Tunnels
            | Op::Ha(_)
            | Op::ConfigShow => Access::Read,
            // A difference names values, and a document to compare with may be as large as one to apply.
            Op::ConfigDiff(_)
            | Op::ConfigApply(_)
            | Op::ConfigDeviations(_)
            | Op::Reload
            | Op::SessionsFlush(_)
            | Op::TunnelsRekey(_)
            // It makes a key if there is none.
            | Op::TunnelsKey(_)
            | Op::TunnelsPeers(_)
            | Op::TunnelsConfirm(_) => Access::Admin,
        }
    }
}

/// One line to the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response<T> {
    /// Version of the protocol, [`VERSION`].
    pub v: u32,
    /// Chosen by the client; the answer has the same.
    pub id: u64,
    /// The answer or the refusal.
    #[serde(flatten)]
    pub outcome: Outcome<T>,
}

/// `"ok":…` or `"err":…` of a response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome<T> {
    /// The answer.
    Ok(T),
    /// The refusal.
    Err(Error),
}

impl<T> Response<T> {
    /// A response of this version.
    pub fn new(id: u64, result: Result<T, Error>) -> Response<T> {
        let outcome = match result {
            Ok(v) => Outcome::Ok(v),
            Err(e) => Outcome::Err(e),
        };
        Response { v: VERSION, id, outcome }
    }

    /// The answer.
    ///
    /// # Errors
    ///
    /// The refusal of the gateway.
    pub fn into_result(self) -> Result<T, Error> {
        match self.outcome {
            Outcome::Ok(v) => Ok(v),
            Outcome::Err(e) => Err(e),
        }
    }
}

/// Kind of a refusal, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorCode {
    /// Not JSON, or arguments that the operation does not know.
    BadRequest,
    /// The request's `v` is not the gateway's.
    VersionMismatch,
    /// The gateway has no such operation.
    UnknownOp,
    /// The client's user and groups may not do this.
    Forbidden,
    /// Line over [`MAX_REQUEST`], or an answer too large to send.
    TooLarge,
    /// A port, ACL or other thing of that name does not exist.
    NotFound,
    /// The configuration is not valid; nothing was changed.
    InvalidConfig,
    /// This version of the gateway has no such feature.
    NotSupported,
    /// Cannot be done at this moment; the same request may succeed later.
    Busy,
    /// The gateway failed; its log has more.
    Internal,
    /// A code of a newer gateway.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A refusal: what is wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Kind of the refusal.
    pub code: ErrorCode,
    /// What is wrong, and where.
    pub message: String,
    /// What to do about it; may be empty.
    #[serde(default)]
    pub remedy: String,
}

impl Error {
    /// A refusal.
    pub fn new(code: ErrorCode, message: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error { code, message: message.into(), remedy: remedy.into() }
    }

    /// For a failure of the gateway itself.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(ErrorCode::Internal, message, "see the log of sag-vcpe")
    }

    /// For a configuration that does not validate; `message` names the place.
    pub fn invalid_config(message: impl Into<String>) -> Error {
        Error::new(
            ErrorCode::InvalidConfig,
            message,
            "correct the file and apply it again; the running configuration is unchanged",
        )
    }

    /// For a section of the configuration that is read but not acted upon yet.
    pub fn not_enforced(what: &str) -> Error {
        Error::new(
            ErrorCode::NotSupported,
            format!("{what} is not enforced by this version of sag-vcpe"),
            "sagctl status lists what this version does not act upon",
        )
    }
}

#[cfg(test)]
mod tests;
