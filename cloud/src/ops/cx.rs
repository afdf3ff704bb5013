//! What a handler works with: the validated request, the caller, one transaction.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::api::params::Params;
use crate::api::{Op, any_error};
use crate::domain::caller::Caller;
use crate::error::{ApiError, Result};
use crate::store::objects::{self, Entity, Filter, Stored};
use crate::store::secrets::{Cipher, DIGITS, LOWER, MIXED};
use crate::store::{Kind, Link, Tx, links};
use crate::time::{now_ms, now_us};

pub struct Cx {
    pub op: Op,
    pub params: Params,
    pub caller: Arc<Caller>,
    /// Milliseconds since 1970.
    pub now: i64,
    pub cipher: Arc<Cipher>,
    /// Devices whose configuration changed; their agents are woken after the commit.
    pub changed: BTreeSet<String>,
    tx: Tx,
    sequence: i64,
}

pub const RESOURCE_GROUP: &str = "rg-default";

impl Cx {
    pub fn new(op: Op, params: Params, caller: Arc<Caller>, cipher: Arc<Cipher>, tx: Tx) -> Cx {
        Cx { op, params, caller, now: now_ms(), cipher, changed: BTreeSet::new(), tx, sequence: 0 }
    }

    pub fn into_parts(self) -> (Tx, BTreeSet<String>) {
        (self.tx, self.changed)
    }

    pub fn conn(&mut self) -> &mut Tx {
        &mut self.tx
    }

    // The request.

    pub fn opt(&self, name: &str) -> Option<String> {
        self.params.get(name).map(str::to_owned)
    }

    /// The value, or an empty text.
    pub fn text(&self, name: &str) -> String {
        self.opt(name).unwrap_or_default()
    }

    pub fn int(&self, name: &str) -> Option<i64> {
        self.params.get(name)?.parse().ok()
    }

    pub fn flag(&self, name: &str) -> Option<bool> {
        crate::api::validate::parse_bool(self.params.get(name)?)
    }

    /// A repeat list, or the same thing separated by commas in one value.
    pub fn list_param(&self, name: &str) -> Vec<String> {
        self.params.texts(name)
    }

    pub fn region(&self) -> String {
        self.opt("RegionId").unwrap_or_else(|| crate::ops::regions::DEFAULT.to_owned())
    }

    pub fn uid(&self) -> i64 {
        self.caller.uid
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

    // Objects.

    /// A new object of the caller, in the region of the request.
    pub fn create<T: Entity>(&mut self, id: String, parent: &str, body: T) -> Stored<T> {
        self.sequence += 1;
        Stored {
            id,
            uid: self.uid(),
            region: self.region(),
            parent: parent.to_owned(),
            seq: now_us() + self.sequence,
            body,
        }
    }

    pub async fn put<T: Entity>(&mut self, o: &Stored<T>) -> Result<()> {
        Ok(objects::put(self.conn(), o).await?)
    }

    pub async fn remove<T: Entity>(&mut self, o: &Stored<T>) -> Result<()> {
        self.remove_by_id(T::KIND, &o.id).await
    }

    pub async fn remove_by_id(&mut self, kind: Kind, id: &str) -> Result<()> {
        Ok(objects::delete(self.conn(), kind, id).await?)
    }

    pub async fn remove_children(&mut self, kind: Kind, parent: &str) -> Result<()> {
        Ok(objects::delete_children(self.conn(), kind, parent).await?)
    }

    /// The object, whoever owns it.
    pub async fn get<T: Entity>(&mut self, id: &str) -> Result<Option<Stored<T>>> {
        Ok(objects::get(self.conn(), id).await?)
    }

    /// The caller's object in the region of the request.
    pub async fn find<T: Entity>(&mut self, id: &str) -> Result<Option<Stored<T>>> {
        let found = self.get(id).await?;
        Ok(found.filter(|o| self.is_mine(o.uid, &o.region)))
    }

    /// The caller's object, or the documented error.
    pub async fn require<T: Entity>(&mut self, id: &str, codes: &[&str]) -> Result<Stored<T>> {
        self.find(id).await?.ok_or_else(|| self.err(codes))
    }

    fn is_mine(&self, uid: i64, region: &str) -> bool {
        uid == self.uid() && self.params.get("RegionId").is_none_or(|r| r == region)
    }

    /// The parts of an object in the order of their creation.
    pub async fn children<T: Entity>(&mut self, parent: &str) -> Result<Vec<Stored<T>>> {
        self.list(&Filter::under(parent)).await
    }

    pub async fn list<T: Entity>(&mut self, filter: &Filter) -> Result<Vec<Stored<T>>> {
        Ok(objects::list_of(self.conn(), filter, None).await?)
    }

    pub async fn count(&mut self, kind: Kind, filter: &Filter) -> Result<i64> {
        Ok(objects::count(self.conn(), kind, filter).await?)
    }

    /// The page that the request names, cut out by the database.
    pub async fn list_page<T: Entity>(&mut self, filter: &Filter) -> Result<Page<Stored<T>>> {
        let (number, size) = self.page();
        let offset = (number - 1).saturating_mul(size);
        let (total, rows) = objects::page_of(self.conn(), filter, (size, offset)).await?;
        Ok(Page { total, number, size, rows })
    }

    /// The caller's objects in the region of the request.
    pub fn mine(&self) -> Filter {
        Filter::of(self.uid()).in_region(self.opt("RegionId"))
    }

    // Links.

    pub async fn link(&mut self, link: Link, a: &str, b: &str) -> Result<()> {
        Ok(links::add(self.conn(), link, a, b, now_us()).await?)
    }

    /// False if there was no such link.
    pub async fn unlink(&mut self, link: Link, a: &str, b: &str) -> Result<bool> {
        Ok(links::remove(self.conn(), link, a, b).await?)
    }

    /// What the gateway links to, oldest first.
    pub async fn links_from(&mut self, link: Link, a: &str) -> Result<Vec<String>> {
        Ok(links::from(self.conn(), link, a).await?)
    }

    /// The gateways that link to the object, oldest first.
    pub async fn links_to(&mut self, link: Link, b: &str) -> Result<Vec<String>> {
        Ok(links::to(self.conn(), link, b).await?)
    }

    /// How many link to each of the objects; none has no entry.
    pub async fn count_links_to(&mut self, link: Link, ids: &[&str]) -> Result<HashMap<String, i64>> {
        Ok(links::count_to_each(self.conn(), link, ids).await?)
    }

    /// What links to each of the objects, oldest first; nothing has no entry.
    pub async fn all_links_to(&mut self, link: Link, ids: &[&str]) -> Result<HashMap<String, Vec<String>>> {
        Ok(links::to_each(self.conn(), link, ids).await?)
    }

    // Pages.

    /// Number and size of the page that the request names.
    pub fn page(&self) -> (i64, i64) {
        let number = self.int("PageNumber").unwrap_or(1).max(1);
        let size = self.int("PageSize").unwrap_or(10).clamp(1, 100);
        (number, size)
    }

    /// The page that the request names, of a list that no statement can cut.
    pub fn paginate<T>(&self, items: Vec<T>) -> Page<T> {
        let (number, size) = self.page();
        let total = items.len() as i64;
        let skip = usize::try_from((number - 1).saturating_mul(size)).unwrap_or(usize::MAX);
        let rows = items.into_iter().skip(skip).take(size as usize).collect();
        Page { total, number, size, rows }
    }

    /// `MaxResults` and `NextToken`: the token is the position, opaque to clients.
    pub fn page_by_token<T>(&self, items: Vec<T>, default: i64) -> Result<(i64, Option<String>, Vec<T>)> {
        let max = self.int("MaxResults").unwrap_or(default).clamp(1, 100) as usize;
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
