//! HTTP: signatures, policies, limits, metrics, and the way of one call through the layers below.

pub mod admin;
mod audit;
mod body;
mod call;
mod callers;
mod cors;
pub mod devices;
mod limit;
mod metrics;
mod nonces;
pub mod offers;
mod server;
pub mod sign;

pub use cors::Origins;
pub use server::{App, Settings, Tls, clean, serve};
