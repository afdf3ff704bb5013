//! What one call may see and change.
//!
//! An account may do everything with its own objects. What a user of it may do is decided object by object, when the
//! object has been found: by its own identifier, region and owner, whatever the request called it.

use super::caller::Caller;
use super::policy::{Context, Resource, Rules, everything, everything_of, is_part, type_of};
use super::regions::REGIONS;
use crate::api::{Op, any_error};
use crate::error::{ApiError, Result};
use crate::store::Kind;

/// Names that one audit entry holds, and the characters of each.
const RECORDED: usize = 50;
const LONGEST: usize = 256;

/// The permissions of one call.
#[derive(Clone, Debug)]
pub struct Access {
    uid: i64,
    /// Nothing for an account itself.
    rules: Option<Rules>,
    /// The region of the request.
    region: Option<String>,
    op: Option<Op>,
    /// Whether an object, or a list of objects, was decided about.
    decided: bool,
    /// The names of the objects that the call is about, if they are recorded.
    record: Option<Vec<String>>,
}

/// What a user may not do.
fn forbidden(op: Option<Op>) -> ApiError {
    let spec = op.and_then(|o| o.error("Forbbiden.SubUser").or_else(|| o.error("Forbidden")));
    match spec.or_else(|| any_error("Forbidden")) {
        Some(e) => ApiError::documented(e),
        None => ApiError::new(403, "Forbidden", "User not authorized."),
    }
    .with_hint("The policies of this user do not allow the action on the resource.")
}

/// This region, or every one.
fn regions(region: Option<&str>) -> impl Iterator<Item = &str> {
    let all = REGIONS.iter().map(|r| r.0).filter(move |_| region.is_none());
    region.into_iter().chain(all)
}

impl Access {
    /// The permissions for an action, an operation or a call of agents.
    ///
    /// # Errors
    /// The policies of the user do not allow the action on anything.
    pub fn new(
        caller: &Caller,
        (action, op): (&str, Option<Op>),
        call: &Context,
        region: Option<&str>,
    ) -> Result<Access> {
        let user = !caller.user.is_empty();
        let rules = user.then(|| Rules::of(&caller.policies, action, call));
        if rules.as_ref().is_some_and(Rules::permit_nothing) {
            return Err(forbidden(op));
        }
        // The names are for the audit log, which has calls that change something.
        let record = op.is_some_and(|op| !op.reads()).then(Vec::new);
        Ok(Access { uid: caller.uid, rules, region: region.map(str::to_owned), op, decided: false, record })
    }

    /// The account of the caller.
    pub fn uid(&self) -> i64 {
        self.uid
    }

    /// The region of the request.
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// The error for what the policies do not allow.
    pub fn refusal(&self) -> ApiError {
        forbidden(self.op)
    }

    /// The names of the objects that the call was about.
    pub fn into_resources(self) -> Vec<String> {
        self.record.unwrap_or_default()
    }

    fn note(&mut self, name: impl FnOnce() -> String) {
        if let Some(record) = &mut self.record
            && record.len() < RECORDED
        {
            // An identifier of a request may be anything: nothing in the log is to look like another name.
            let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.@:/*".contains(c) { c } else { '?' };
            let name: String = name().chars().take(LONGEST).map(plain).collect();
            if !record.contains(&name) {
                record.push(name);
            }
        }
    }

    /// Whether the call is allowed on the object.
    pub fn permits(&self, resource: &Resource<'_>) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.permit(&resource.names()))
    }

    /// Whether the call is allowed on the object, which it is about.
    pub fn decide(&mut self, resource: &Resource<'_>) -> bool {
        self.decided = true;
        self.note(|| resource.name());
        self.permits(resource)
    }

    /// The call is about an object that does not exist, or not for this account, or not in this region. Whoever may
    /// not use an object with this identifier gets the same refusal as for one that exists.
    ///
    /// # Errors
    /// The policies refuse it.
    pub fn absent(&mut self, kind: Kind, id: &str, region: Option<&str>, uid: i64) -> Result<()> {
        self.decided = true;
        let absent = Resource { kind, id, uid, region: region.unwrap_or("*"), parent: "" };
        // A part of another object is refused as absent, too.
        if is_part(kind) {
            return Ok(());
        }
        self.note(|| absent.name());
        // It might be in any region, so a user who may not use it in one of them learns nothing.
        if regions(region).all(|region| self.permits(&Resource { region, ..absent })) {
            return Ok(());
        }
        Err(self.refusal())
    }

    /// The call makes an object of this kind, or is about all of them.
    ///
    /// # Errors
    /// The policies refuse it.
    pub fn whole(&mut self, kind: Kind, region: Option<&str>) -> Result<()> {
        self.decided = true;
        let names = everything_of(type_of(kind), region.unwrap_or("*"), self.uid);
        self.note(|| names[0].clone());
        match &self.rules {
            Some(rules) if !rules.permit(&names) => Err(self.refusal()),
            _ => Ok(()),
        }
    }

    /// The call lists objects of this kind. True if each row must be decided about.
    ///
    /// # Errors
    /// No such object can be allowed.
    pub fn listing(&mut self, kind: Kind) -> Result<bool> {
        let Some(rules) = &self.rules else {
            self.decided = true;
            return Ok(false);
        };
        // Parts are listed for an object that was decided about.
        if !(self.decided && is_part(kind)) {
            let of = type_of(kind);
            let beginnings = |region: &str| {
                let mut names = everything_of(of, region, self.uid);
                names.iter_mut().for_each(|name| name.truncate(name.len() - 1));
                names
            };
            let region = self.region.as_deref();
            let possible = regions(region).any(|r| beginnings(r).iter().any(|b| rules.may_permit(b)));
            if !possible || rules.deny_all(&everything_of(of, region.unwrap_or("*"), self.uid)) {
                return Err(self.refusal());
            }
        }
        let filter = !rules.permit_everything();
        self.decided = true;
        Ok(filter)
    }

    /// Whether what a result shows beside its own rows must be decided about.
    pub fn filters(&self) -> bool {
        self.rules.as_ref().is_some_and(|rules| !rules.permit_everything())
    }

    /// The end of a call: one that was about no object needs the permission for everything, so that nothing is done
    /// that nobody has decided about.
    ///
    /// # Errors
    /// The policies refuse it.
    pub fn finish(&mut self) -> Result<()> {
        if self.decided {
            return Ok(());
        }
        let name = everything(self.region().unwrap_or("*"), self.uid);
        match &self.rules {
            Some(rules) if !rules.permit(&[name]) => Err(self.refusal()),
            _ => Ok(()),
        }
    }
}
