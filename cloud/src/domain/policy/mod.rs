//! RAM-like policies: which actions of a user on which resources are allowed.
//!
//! Whatever cannot be understood refuses: a statement that denies applies in doubt, one that allows does not.

mod condition;
mod document;
mod glob;
mod resource;

use std::sync::Arc;

use serde_json::Value;

pub use condition::Context;
pub use document::check;
pub use resource::{Resource, ResourceType, everything, everything_of, is_part, type_of};

use condition::{Condition, Outcome};
use glob::Pattern;

/// A policy document, ready to be evaluated.
#[derive(Clone, Debug)]
pub struct Policy(Vec<Arc<Statement>>);

#[derive(Debug)]
struct Statement {
    allow: bool,
    actions: Matcher,
    resources: Matcher,
    conditions: Vec<Condition>,
}

/// An element of a statement, or its opposite (`NotAction`, `NotResource`).
#[derive(Debug)]
struct Matcher {
    patterns: Vec<Pattern>,
    negated: bool,
}

impl Matcher {
    /// Whether the element covers one of the names of a thing; `exact` minds the case of letters.
    fn covers<S: AsRef<str>>(&self, names: &[S], exact: bool) -> bool {
        let hit = self.patterns.iter().any(|p| names.iter().any(|name| p.matches(name.as_ref(), exact)));
        hit != self.negated
    }
}

impl Statement {
    /// A statement that allows covers what is written as its pattern is; one that denies does not mind the case of
    /// letters. With the opposite of an element it is the other way round, so that doubt always refuses.
    fn covers<S: AsRef<str>>(&self, names: &[S]) -> bool {
        self.resources.covers(names, self.allow != self.resources.negated)
    }

    fn is_about(&self, action: &str) -> bool {
        self.actions.covers(&[action], false)
    }

    /// Whether the conditions let the statement apply to a call.
    fn applies(&self, call: &Context) -> bool {
        let outcomes: Vec<Outcome> = self.conditions.iter().map(|c| c.evaluate(call)).collect();
        if outcomes.contains(&Outcome::Fails) {
            return false;
        }
        // A condition that nobody here can judge: whoever is denied stays denied, and nobody is allowed by it.
        !outcomes.contains(&Outcome::Unknown) || !self.allow
    }
}

impl Policy {
    pub fn new(document: &Value) -> Policy {
        Policy(document::statements(document).map(Arc::new).collect())
    }
}

/// The statements of a user's policies that are about one call.
#[derive(Clone, Debug)]
pub struct Rules(Vec<Arc<Statement>>);

impl Rules {
    /// `action` is without the `smartag:` in front.
    pub fn of(policies: &[Policy], action: &str, call: &Context) -> Rules {
        let action = format!("smartag:{action}");
        let all = policies.iter().flat_map(|p| &p.0);
        Rules(all.filter(|s| s.is_about(&action) && s.applies(call)).cloned().collect())
    }

    fn any<S: AsRef<str>>(&self, allow: bool, names: &[S]) -> bool {
        self.0.iter().any(|s| s.allow == allow && s.covers(names))
    }

    /// Whether the call is allowed on a thing with these names. Deny wins.
    pub fn permit<S: AsRef<str>>(&self, names: &[S]) -> bool {
        self.any(true, names) && !self.any(false, names)
    }

    /// Whether a statement denies all things that such a name (`smartag/*`) stands for. One that spares some does not.
    pub fn deny_all<S: AsRef<str>>(&self, names: &[S]) -> bool {
        self.0.iter().any(|s| !s.allow && !s.resources.negated && s.covers(names))
    }

    /// Whether there can be a thing whose name begins like this and on which a statement allows the call.
    pub fn may_permit(&self, beginning: &str) -> bool {
        let possible = |s: &Statement| {
            s.resources.negated || s.resources.patterns.iter().any(|p| p.may_match(beginning))
        };
        self.0.iter().any(|s| s.allow && possible(s))
    }

    /// Whether no thing is refused: then lists need no filter.
    pub fn permit_everything(&self) -> bool {
        let whole = |s: &Statement| !s.resources.negated && s.resources.patterns.iter().any(Pattern::is_any);
        self.0.iter().all(|s| s.allow) && self.0.iter().any(|s| whole(s))
    }

    /// Whether nothing at all is allowed.
    pub fn permit_nothing(&self) -> bool {
        self.0.iter().all(|s| !s.allow)
    }
}

#[cfg(test)]
mod tests;
