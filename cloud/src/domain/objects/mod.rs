//! The objects of one call: found, decided about, read and changed.
//!
//! Handlers have no other way to the database. An [`Authorised`] object is made in this module alone, after the policies
//! of the caller have allowed it; what changes an object takes one of these. Identifiers that other objects lead to are
//! [`Linked`] until it is clear who may see them.

mod change;
mod device;
mod find;
mod link;
mod network;
mod offers;

use std::ops::Deref;

use super::access::Access;
use super::policy::Resource;
use crate::store::objects::{Entity, Identity, Stored};
use crate::store::{Kind, Tx};

/// An object that the call may use. Its fields are those of the object; they are changed through [`Authorised::edit`].
#[derive(Clone, Debug)]
pub struct Authorised<T>(Stored<T>);

impl<T> Deref for Authorised<T> {
    type Target = Stored<T>;

    fn deref(&self) -> &Stored<T> {
        &self.0
    }
}

impl<T> Authorised<T> {
    /// The object's own fields; who owns it and where it is does not change.
    pub fn edit(&mut self) -> &mut T {
        &mut self.0.body
    }

    /// The object, to be shown.
    pub fn into_inner(self) -> Stored<T> {
        self.0
    }
}

impl<T: Entity> Stored<T> {
    fn resource(&self) -> Resource<'_> {
        Resource { kind: T::KIND, id: &self.id, uid: self.uid, region: &self.region, parent: &self.parent }
    }
}

impl Identity {
    fn resource(&self, kind: Kind) -> Resource<'_> {
        Resource { kind, id: &self.id, uid: self.uid, region: &self.region, parent: &self.parent }
    }
}

/// Identifiers of linked objects, which the caller may not know of.
#[derive(Clone, Debug)]
pub struct Linked {
    /// Nothing for border routers, which are no objects here.
    kind: Option<Kind>,
    ids: Vec<String>,
}

impl Linked {
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn contains(&self, id: &str) -> bool {
        self.ids.iter().any(|i| i == id)
    }
}

pub struct Objects {
    tx: Tx,
    access: Access,
    sequence: i64,
}

impl Objects {
    pub fn new(tx: Tx, access: Access) -> Objects {
        Objects { tx, access, sequence: 0 }
    }

    /// The transaction and the permissions after the end of the call.
    pub fn into_parts(self) -> (Tx, Access) {
        (self.tx, self.access)
    }

    pub fn access(&mut self) -> &mut Access {
        &mut self.access
    }
}
