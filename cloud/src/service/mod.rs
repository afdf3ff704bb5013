//! HTTP: signatures, policies, limits, metrics, and the way of one call through the layers below.

pub mod admin;
mod audit;
mod call;
mod callers;
pub mod devices;
mod limit;
mod metrics;
mod nonces;
mod server;
pub mod sign;

pub use server::{App, Settings, Tls, clean, serve};
