//! The cloud API: `smartag` of version 2018-03-13, over SQLite or PostgreSQL.
//!
//! `api` is the catalogue, `proto` the wire, `store` the database, `ops` the operations and
//! `south` the side of the agents.

pub mod api;
pub mod ops;
pub mod proto;
pub mod south;
pub mod store;
