//! What the control socket and the metrics show, read from a [`View`](super::view::View) of the daemon.

mod acl;
pub mod explain;
mod ha;
mod nat;
mod ports;
mod qos;
mod routes;
pub mod sessions;
mod status;
mod tunnels;
