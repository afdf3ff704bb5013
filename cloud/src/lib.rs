//! The cloud API: `smartag` of version 2018-03-13, over SQLite or PostgreSQL.
//!
//! The layers, each of which knows those before it alone: `error` and `time`; `api`, the catalogue with the types of
//! requests and answers; `store`, the database; `domain`, the types of the objects; `ops`, the operations; `south`, the
//! side of the agents; `service`, HTTP.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

pub mod api;
pub mod domain;
pub mod error;
pub mod ops;
pub mod service;
pub mod south;
pub mod store;
pub mod time;
