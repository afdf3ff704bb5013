//! What the objects of the cloud are made of. Each type is the body of one kind of object: the fields have the names that
//! they have in the API, and those are the names in the stored document.

pub mod access;
pub mod acl;
pub mod app;
pub mod caller;
pub mod ccn;
pub mod device;
pub mod device_config;
pub mod diagnosis;
pub mod distribution;
pub mod flow_log;
pub mod gateway;
pub mod grants;
pub mod health;
pub mod lock;
pub mod membership;
pub mod nat;
pub mod net;
pub mod network;
pub mod objects;
pub mod orders;
pub mod policy;
pub mod probe;
pub mod qos;
pub mod regions;

#[cfg(test)]
mod tests;
