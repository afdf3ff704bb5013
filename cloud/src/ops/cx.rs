//! What a handler works with: the validated request, the caller, one transaction.

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::api::params::Params;
use crate::api::validate::LARGEST_PAGE;
use crate::api::{Op, any_error};
use crate::domain::access::Access;
use crate::domain::objects::{Authorised, Objects};
use crate::domain::regions;
use crate::error::{ApiError, Result};
use crate::store::objects::{Entity, Filter};
use crate::store::secrets::{Cipher, DIGITS, LOWER, MIXED};
use crate::store::{Kind, Tx};
use crate::time::now_ms;

pub struct Cx {
    pub op: Op,
    pub params: Params,
    /// The account of the caller.
    uid: i64,
    /// Where the caller reached this server, as his request says.
    pub host: String,
    /// The address that the request came from; empty if from no network.
    pub source: String,
    /// Milliseconds since 1970.
    pub now: i64,
    pub cipher: Arc<Cipher>,
    /// Devices whose configuration changed; their agents are woken after the commit.
    pub changed: BTreeSet<String>,
    objects: Objects,
}

/// What is left of a call.
pub struct Finished {
    pub tx: Tx,
    pub changed: BTreeSet<String>,
    /// The names of the objects that a changing call was about, for the audit log.
    pub resources: Vec<String>,
}

pub const RESOURCE_GROUP: &str = "rg-default";

impl Deref for Cx {
    type Target = Objects;

    fn deref(&self) -> &Objects {
        &self.objects
    }
}

impl DerefMut for Cx {
    fn deref_mut(&mut self) -> &mut Objects {
        &mut self.objects
    }
}

impl Cx {
    pub fn new(op: Op, params: Params, access: Access, cipher: Arc<Cipher>, tx: Tx) -> Cx {
        let uid = access.uid();
        let objects = Objects::new(tx, access);
        let (host, source) = (String::new(), String::new());
        Cx { op, params, uid, host, source, now: now_ms(), cipher, changed: BTreeSet::new(), objects }
    }

    pub fn into_parts(self) -> Finished {
        let (tx, access) = self.objects.into_parts();
        Finished { tx, changed: self.changed, resources: access.into_resources() }
    }

    // The request.

    pub fn opt(&self, name: &str) -> Option<String> {
        self.params.get(name).map(str::to_owned)
    }

    fn int(&self, name: &str) -> Option<i64> {
        self.params.get(name)?.parse().ok()
    }

    /// The first of these parameters that the operation documents and the request has. What is not documented for the
    /// operation names nothing.
    pub fn named(&self, names: &[&str]) -> String {
        let documented = |name: &&&str| self.op.spec().params.iter().any(|p| p.name == **name);
        names.iter().filter(documented).find_map(|name| self.opt(name)).unwrap_or_default()
    }

    pub fn region(&self) -> String {
        self.opt("RegionId").unwrap_or_else(|| regions::DEFAULT.to_owned())
    }

    pub fn uid(&self) -> i64 {
        self.uid
    }

    // Errors.

    /// The first of the codes that this operation documents, else the first that any documents.
    pub fn err(&self, codes: &[&str]) -> ApiError {
        let own = codes.iter().find_map(|c| self.op.error(c));
        match own.or_else(|| codes.iter().find_map(|c| any_error(c))) {
            Some(spec) => ApiError::documented(spec),
            None => ApiError::internal(format!("no documented error among {codes:?}")),
        }
    }

    /// Fails with the code if this operation documents it.
    pub fn refuse_if(&self, condition: bool, codes: &[&str]) -> Result<()> {
        if !condition {
            return Ok(());
        }
        match codes.iter().find_map(|c| self.op.error(c)) {
            Some(spec) => Err(ApiError::documented(spec)),
            None => Ok(()),
        }
    }

    pub fn missing(&self, name: &str) -> ApiError {
        crate::api::validate::missing(self.op, name)
    }

    pub fn invalid(&self, name: &str) -> ApiError {
        crate::api::validate::invalid(self.op, name)
    }

    // Identifiers.

    /// `prefix-` and 18 characters, as the documents print them.
    pub fn new_id(&self, prefix: &str) -> Result<String> {
        let tail = self.cipher.token(LOWER, 18).map_err(ApiError::internal)?;
        Ok(format!("{prefix}-{tail}"))
    }

    pub fn new_order(&self) -> Result<String> {
        let tail = self.cipher.token(DIGITS, 13).map_err(ApiError::internal)?;
        Ok(format!("20{tail}"))
    }

    /// A random password or key of so many letters and digits.
    pub fn new_secret(&self, length: usize) -> Result<String> {
        self.cipher.token(MIXED, length).map_err(ApiError::internal)
    }

    pub fn seal(&self, secret: &str) -> Result<String> {
        self.cipher.seal(secret).map_err(ApiError::internal)
    }

    // Objects; those methods that are not here are of `Objects`.

    /// A new object of the caller, in the region of the request.
    ///
    /// # Errors
    /// The caller may not make one.
    pub fn create<T: Entity>(&mut self, id: String, body: T) -> Result<Authorised<T>> {
        let region = self.region();
        self.objects.create(id, region, body)
    }

    /// The caller's object in the region of the request, or the documented error.
    ///
    /// # Errors
    /// Also the refusal of the caller's policies.
    pub async fn require<T: Entity>(&mut self, id: &str, codes: &[&str]) -> Result<Authorised<T>> {
        self.find(id).await?.ok_or_else(|| self.err(codes))
    }

    /// The page that the request names, cut out by the database.
    ///
    /// # Errors
    /// The caller may use no such object.
    pub async fn list_page<T: Entity>(&mut self, filter: &Filter) -> Result<Page<Authorised<T>>> {
        let (number, size) = self.page_named();
        let offset = (number - 1).saturating_mul(size);
        let (total, rows) = self.objects.page(filter, (size, offset)).await?;
        Ok(Page { total, number, size, rows })
    }

    /// The caller's objects in the region of the request.
    pub fn mine(&self) -> Filter {
        Filter::of(self.uid()).in_region(self.opt("RegionId"))
    }

    /// The call is about all objects of this kind in the region of the request.
    ///
    /// # Errors
    /// The caller's policies refuse it.
    pub fn require_all(&mut self, kind: Kind) -> Result<()> {
        let region = self.opt("RegionId");
        self.access().whole(kind, region.as_deref())
    }

    // Pages.

    /// Number and size of the page that the request names.
    fn page_named(&self) -> (i64, i64) {
        let number = self.int("PageNumber").unwrap_or(1).max(1);
        let size = self.int("PageSize").unwrap_or(10).clamp(1, LARGEST_PAGE);
        (number, size)
    }

    /// The page that the request names, of a list that no statement can cut.
    pub fn paginate<T>(&self, items: Vec<T>) -> Page<T> {
        let (number, size) = self.page_named();
        let total = items.len() as i64;
        let skip = usize::try_from((number - 1).saturating_mul(size)).unwrap_or(usize::MAX);
        let rows = items.into_iter().skip(skip).take(size as usize).collect();
        Page { total, number, size, rows }
    }

    /// `MaxResults` and `NextToken`: the token is the position, opaque to clients.
    pub fn page_by_token<T>(&self, items: Vec<T>, default: i64) -> Result<(i64, Option<String>, Vec<T>)> {
        let max = self.int("MaxResults").unwrap_or(default).clamp(1, LARGEST_PAGE) as usize;
        let from = match self.opt("NextToken") {
            Some(t) => t
                .strip_prefix("caeba0")
                .and_then(|n| usize::from_str_radix(n, 16).ok())
                .ok_or_else(|| self.invalid("NextToken"))?,
            None => 0,
        };
        let total = items.len();
        let next = from.saturating_add(max);
        let token = (next < total).then(|| format!("caeba0{next:08x}"));
        Ok((total as i64, token, items.into_iter().skip(from).take(max).collect()))
    }
}

/// A page of a list.
pub struct Page<T> {
    /// Rows of the whole list.
    pub total: i64,
    /// From 1.
    pub number: i64,
    pub size: i64,
    pub rows: Vec<T>,
}
