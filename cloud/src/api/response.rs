//! The answers as types, generated from the catalogue: `build.rs` makes a struct for each operation, named like it, and
//! a module with the structs inside of it.
//!
//! A field that the printed example always shows is there in every answer; any other is an option. A list that the
//! documents wrap into an object of its own (`{"Acls": {"Acl": [...]}}`) is a plain vector here.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::Op;

/// The members of a JSON object.
pub trait Fields {
    /// Writes each member.
    fn fields<M: SerializeMap>(&self, out: &mut M) -> Result<(), M::Error>;
}

/// The answer of one operation.
pub trait Response: Fields {
    const OP: Op;
    /// The identifier of the request is documented with a small first letter too.
    const SMALL_ID: bool;
}

/// A list inside an object that has nothing else.
struct Wrapped<'a, T>(&'static str, &'a [T]);

impl<T: Serialize> Serialize for Wrapped<'_, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut out = to.serialize_map(Some(1))?;
        out.serialize_entry(self.0, self.1)?;
        out.end()
    }
}

/// An answer with the identifier of its request, as it goes out.
pub struct Answer<'a, R> {
    pub request_id: &'a str,
    pub response: &'a R,
}

impl<R: Response> Serialize for Answer<'_, R> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut out = to.serialize_map(None)?;
        out.serialize_entry("RequestId", self.request_id)?;
        if R::SMALL_ID {
            out.serialize_entry("requestId", self.request_id)?;
        }
        self.response.fields(&mut out)?;
        out.end()
    }
}

macro_rules! as_map {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let mut out = to.serialize_map(None)?;
                self.fields(&mut out)?;
                out.end()
            }
        }
    };
}

include!(concat!(env!("OUT_DIR"), "/responses.rs"));
