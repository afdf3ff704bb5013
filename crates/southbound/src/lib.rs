//! The southbound protocol: what the cloud API and the control agent of a device say to each other.
//!
//! `sag-cloud` writes a [`DeviceDocument`], the agent reads it; the agent writes a [`StateReport`] and a
//! [`ResultReport`], the cloud reads them. Both programs compile against the types of this crate, so a member or a word
//! exists once. `docs/protocol.md` describes the protocol for people; the files in `tests/golden` are its messages.
//!
//! Three rules keep different versions of the two programs apart:
//!
//! - Members that a reader does not know are ignored, and members that are absent have a default.
//! - A word that a reader does not know becomes the variant `Unknown` of its type with its text, is written again as
//!   the same text, and is never taken for another word. So does a [`Command`]; its result is
//!   [`CommandOutcome::UnknownCommand`].
//! - Every message has a [`Version`]. A newer minor version is read; a newer major version is refused with an error
//!   that names both. A message without a version is [`Version::UNVERSIONED`].
//!
//! ```
//! use sag_southbound::{Capability, Command, DeviceDocument, StateReport, Version, read};
//!
//! let message = serde_json::json!({
//!     "Revision": 7,
//!     "Ports": [{"PortName": "0", "Role": "WAN"}],
//!     "Commands": [{"Name": "Dance", "Args": {}, "Revision": 7}],
//! });
//! let document: DeviceDocument = read(message)?;
//! assert_eq!(document.version, Version::UNVERSIONED);
//! assert!(matches!(document.commands[0].command, Command::Unknown { .. }));
//!
//! let report = StateReport { capabilities: Some(vec![Capability::Acl]), ..StateReport::default() };
//! assert_eq!(serde_json::to_value(&report).unwrap()["Capabilities"], serde_json::json!(["Acl"]));
//!
//! let newer = serde_json::json!({"ProtocolVersion": "2.0"});
//! assert!(read::<DeviceDocument>(newer).is_err());
//! # Ok::<(), sag_southbound::ReadError>(())
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod address;
mod announcement;
mod capability;
mod command;
mod document;
mod exchange;
mod lines;
mod report;
mod session_link;
mod version;
mod wire;
mod words;

pub use announcement::{AnnouncementError, EPOCH_AHEAD, Endpoint, Identity, IdentityKey, is_fingerprint};
pub use capability::Capability;
pub use command::{
    AccessPoint, Command, CommandOutcome, CommandResult, DiagnoseArgs, IssuedCommand, ProbeArgs, UpgradeArgs,
};
pub use document::{
    Acl, AclRule, AnnouncedLine, Announcement, Bgp, CloudConnectNetwork, DeviceDocument, DistributionRule,
    DnatEntry, Dns, DnsForward, FlowLog, GatewaySettings, HealthCheck, HighAvailability, Lan, LeasedLine,
    Management, NetworkMember, Ospf, PeerDevice, PortEntry, PortProtocol, ProbeTask, Qos, QosCar, QosPolicy,
    SessionLink, SessionPeer, SnatEntry, StaticRoute, UpgradePolicy, Wan,
};
pub use exchange::{
    Acceptance, Action, MAX_REPORT, MAX_WAIT, ParameterError, Parameters, PullAnswer, PullRequest,
    ReportAnswer, ResultReport,
};
pub use lines::{Line, LinesError, MAX_LINES};
pub use report::{
    AccessPointQuality, AppClient, ClientAppReport, Deviation, Diagnosis, DiagnosisItem, DiagnosisText,
    DropCount, Effect, HealthState, HealthStatus, LinkBackup, PortState, ProbeTaskState, RouteNeighbor,
    RouteState, SessionCount, StateReport, Talker, TunnelState, WanState,
};
pub use session_link::SessionEnd;
pub use version::{ReadError, VERSION_MEMBER, Version, read};
pub use wire::{Secret, Wire, WireError, member, object, wire_field};
pub use words::{
    AddressMode, HaMode, PortRole, ProbeKind, ProbeProtocol, PublishStrategy, RouteOrigin, RouteProtocol,
    Switch,
};
