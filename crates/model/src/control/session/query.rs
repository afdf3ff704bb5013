//! Requests for sessions, and their answers.

use super::facts::Session;
use super::filter::SessionFilter;
use serde::{Deserialize, Serialize};

/// Sessions listed unless the request says otherwise.
pub const DEFAULT_LIMIT: u32 = 100;
/// Most sessions in one answer.
pub const MAX_LIMIT: u32 = 100_000;

/// Answer to `sessions`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sessions {
    /// The sessions that were selected, at most `limit`.
    pub sessions: Vec<Session>,
    /// Number of sessions that the filter admits, listed or not.
    pub total: u64,
}

/// Order of a listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionSort {
    /// Most bytes (both directions) first.
    #[default]
    Bytes,
    /// Most packets (both directions) first.
    Packets,
    /// Oldest first.
    Age,
    /// Longest idle first.
    Idle,
}

/// Arguments of `sessions`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionQuery {
    /// What is selected.
    pub filter: SessionFilter,
    /// Order.
    pub sort: SessionSort,
    /// Absent: [`DEFAULT_LIMIT`]; at most [`MAX_LIMIT`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only the number.
    pub count: bool,
}

impl SessionQuery {
    /// How many sessions to list.
    pub fn wanted(&self) -> usize {
        if self.count { 0 } else { self.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT) as usize }
    }
}

/// Arguments of `sessions-flush`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionFlush {
    /// What is selected.
    pub filter: SessionFilter,
    /// Must be set if the filter is empty: flushing everything is never a slip.
    pub all: bool,
}

/// Answer to `sessions-flush`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Flushed {
    /// Sessions that were removed.
    pub flushed: u64,
}
