//! What a handler works with: the validated request, the caller, one transaction.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::api::request::Request;
use crate::api::{Op, any_error};
use crate::proto::error::{ApiError, Result};
use crate::proto::params::Params;
use crate::proto::time::{now_ms, now_us};
use crate::store::Tx;
use crate::store::accounts::Caller;
use crate::store::objects::{self, Filter, Object};
use crate::store::secrets::{Cipher, DIGITS, LOWER};

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
    pub fn list(&self, name: &str) -> Vec<String> {
        self.params.texts(name)
    }

    /// The whole request as its type.
    pub fn request<R: Request>(&self) -> R {
        debug_assert_eq!(R::OP, self.op, "the request of another operation");
        R::read(&self.params)
    }

    /// The given parameters that the request has, as fields of a body.
    pub fn fields(&self, names: &[&str]) -> Map<String, Value> {
        let spec = self.op.spec();
        let mut out = Map::new();
        for name in names {
            let Some(v) = self.params.get(name) else { continue };
            let kind = spec.params.iter().find(|p| p.name == *name).map(|p| p.kind);
            let value = match kind {
                Some(crate::api::Kind::Int) => v.parse::<i64>().map_or(Value::Null, Value::from),
                Some(crate::api::Kind::Bool) => json!(self.flag(name)),
                _ => Value::from(v),
            };
            out.insert((*name).to_owned(), value);
        }
        out
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

    pub fn seal(&self, secret: &str) -> Result<String> {
        self.cipher.seal(secret).map_err(ApiError::internal)
    }

    // Resources.

    /// A new resource of the caller; `id_field` names the identifier in the API.
    pub fn object(
        &mut self,
        kind: &str,
        id: String,
        id_field: &str,
        parent: &str,
        mut body: Map<String, Value>,
    ) -> Object {
        self.sequence += 1;
        body.insert(id_field.to_owned(), Value::from(id.as_str()));
        body.entry("RegionId").or_insert_with(|| Value::from(self.region()));
        Object {
            kind: kind.to_owned(),
            id,
            uid: self.uid(),
            region: self.region(),
            parent: parent.to_owned(),
            name: body.get("Name").and_then(Value::as_str).unwrap_or_default().to_owned(),
            seq: now_us() + self.sequence,
            body,
        }
    }

    pub async fn put(&mut self, o: &Object) -> Result<()> {
        objects::put(self.conn(), o).await
    }

    pub async fn remove(&mut self, o: &Object) -> Result<()> {
        objects::delete(self.conn(), &o.kind, &o.id).await
    }

    pub async fn any(&mut self, kind: &str, id: &str) -> Result<Option<Object>> {
        objects::get(self.conn(), kind, id).await
    }

    /// The caller's resource in the region of the request.
    pub async fn find(&mut self, kind: &str, id: &str) -> Result<Option<Object>> {
        let found = self.any(kind, id).await?;
        let region = self.opt("RegionId");
        Ok(found.filter(|o| o.uid == self.uid() && region.is_none_or(|r| r == o.region)))
    }

    /// The resource that the parameter names, or the documented error.
    pub async fn need(&mut self, kind: &str, param: &str, codes: &[&str]) -> Result<Object> {
        let id = self.text(param);
        self.find(kind, &id).await?.ok_or_else(|| self.err(codes))
    }

    pub async fn children(&mut self, kind: &str, parent: &str) -> Result<Vec<Object>> {
        let filter = Filter { parent: Some(parent.to_owned()), ..Filter::default() };
        objects::list(self.conn(), kind, &filter, None).await
    }

    pub async fn count(&mut self, kind: &str, filter: Filter) -> Result<i64> {
        objects::count(self.conn(), kind, &filter).await
    }

    pub async fn list_all(&mut self, kind: &str, filter: &Filter) -> Result<Vec<Object>> {
        objects::list(self.conn(), kind, filter, None).await
    }

    /// The caller's resources in the region of the request.
    pub fn mine(&self) -> Filter {
        Filter { uid: Some(self.uid()), region: self.opt("RegionId"), ..Filter::default() }
    }

    pub fn under(&self, parent: &str) -> Filter {
        Filter { parent: Some(parent.to_owned()), ..Filter::default() }
    }

    pub async fn link(&mut self, kind: &str, a: &str, b: &str) -> Result<()> {
        let at = now_us();
        objects::link(self.conn(), kind, a, b, at).await
    }

    pub async fn unlink(&mut self, kind: &str, a: &str, b: &str) -> Result<bool> {
        objects::unlink(self.conn(), kind, a, b).await
    }

    pub async fn links_from(&mut self, kind: &str, a: &str) -> Result<Vec<String>> {
        objects::links_from(self.conn(), kind, a).await
    }

    pub async fn links_to(&mut self, kind: &str, b: &str) -> Result<Vec<String>> {
        objects::links_to(self.conn(), kind, b).await
    }

    /// How many link to each of the resources; none has no entry.
    pub async fn count_links_to(&mut self, kind: &str, of: &[Object]) -> Result<HashMap<String, i64>> {
        let ids: Vec<&str> = of.iter().map(|o| o.id.as_str()).collect();
        objects::count_links_to(self.conn(), kind, &ids).await
    }

    /// What links to each of the resources, oldest first; nothing has no entry.
    pub async fn all_links_to(&mut self, kind: &str, of: &[Object]) -> Result<HashMap<String, Vec<String>>> {
        let ids: Vec<&str> = of.iter().map(|o| o.id.as_str()).collect();
        objects::all_links_to(self.conn(), kind, &ids).await
    }

    // Pages.

    pub fn page(&self) -> (i64, i64) {
        let number = self.int("PageNumber").unwrap_or(1).max(1);
        let size = self.int("PageSize").unwrap_or(10).clamp(1, 100);
        (number, size)
    }

    /// A page straight from the database.
    pub async fn paged(&mut self, kind: &str, filter: &Filter) -> Result<(i64, Vec<Object>)> {
        let (number, size) = self.page();
        let total = objects::count(self.conn(), kind, filter).await?;
        let offset = (number - 1).saturating_mul(size);
        let rows = objects::list(self.conn(), kind, filter, Some((size, offset))).await?;
        Ok((total, rows))
    }

    /// A page of a list that had to be filtered here.
    pub fn cut<T>(&self, items: Vec<T>) -> (i64, Vec<T>) {
        let (number, size) = self.page();
        let total = items.len() as i64;
        let skip = usize::try_from((number - 1).saturating_mul(size)).unwrap_or(usize::MAX);
        (total, items.into_iter().skip(skip).take(size as usize).collect())
    }

    /// `TotalCount`, `PageNumber`, `PageSize` and the list under its documented name.
    pub fn listing(&self, field: &str, total: i64, items: Vec<Value>) -> Value {
        let (number, size) = self.page();
        let mut out = json!({"TotalCount": total, "PageNumber": number, "PageSize": size});
        out[field] = Value::Array(items);
        out
    }

    /// `MaxResults` and `NextToken`: the token is the position, opaque to clients.
    pub fn slice<T>(&self, items: Vec<T>, default: i64) -> Result<(i64, Option<String>, Vec<T>)> {
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

pub fn empty() -> Value {
    json!({})
}
