//! Client accounts, enterprise codes and state of client-app instances.

use std::collections::BTreeMap;

use sag_southbound::ClientAppReport;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::store::Kind;
use crate::store::objects::{Columns, Entity};

/// A client account of an instance. Its identifier is `instance/name`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AppUser {
    pub region_id: String,
    pub user_name: String,
    pub user_mail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<String>,
    pub bandwidth: i64,
    /// 1 is enabled.
    pub state: i64,
    pub is_static_ip: i64,
    pub accelerate_bandwidth: i64,
    pub sealed_password: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roamed_from: Option<String>,
}

impl Entity for AppUser {
    const KIND: Kind = Kind::AppUser;

    fn columns(&self) -> Columns<'_> {
        Columns { name: &self.user_name, code: &self.user_mail, ..Columns::default() }
    }
}

/// The code that client apps log in with; its identifier.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EnterpriseCode {
    pub enterprise_code: String,
    pub region_id: String,
    pub is_default: bool,
}

impl Entity for EnterpriseCode {
    const KIND: Kind = Kind::EnterpriseCode;

    fn columns(&self) -> Columns<'_> {
        Columns { variant: if self.is_default { "default" } else { "" }, ..Columns::default() }
    }
}

/// What the access point of an instance reported. Its identifier is that of the instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AppState {
    pub clients: Vec<AppClient>,
    /// Bytes of each user in each month (`202611`).
    pub flow: BTreeMap<String, BTreeMap<String, i64>>,
}

/// A client that is connected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AppClient {
    pub user_name: String,
    pub client_ip: String,
    /// Since when, as it was reported: a text or a number.
    #[serde(deserialize_with = "text_or_number")]
    pub online_time: String,
}

fn text_or_number<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::String(text) => text,
        other => other.to_string(),
    })
}

impl Entity for AppState {
    const KIND: Kind = Kind::AppState;

    fn columns(&self) -> Columns<'_> {
        Columns::default()
    }
}

impl From<ClientAppReport> for AppState {
    fn from(report: ClientAppReport) -> AppState {
        let client = |c: sag_southbound::AppClient| AppClient {
            user_name: c.user_name,
            client_ip: c.client_ip,
            online_time: c.online_time,
        };
        AppState { clients: report.clients.into_iter().map(client).collect(), flow: report.flow }
    }
}

impl AppState {
    /// The connected clients of a user.
    pub fn clients_of(&self, user: &str) -> impl Iterator<Item = &AppClient> {
        self.clients.iter().filter(move |c| c.user_name == user)
    }

    /// What a user transferred in a month.
    pub fn bytes(&self, month: &str, user: &str) -> i64 {
        self.flow.get(month).and_then(|of| of.get(user)).copied().unwrap_or_default()
    }
}
