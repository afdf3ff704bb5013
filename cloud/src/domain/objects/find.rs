//! Objects that are found, listed and counted.

use super::{Authorised, Linked, Objects};
use crate::domain::device::Device;
use crate::domain::policy::{Resource, is_part};
use crate::error::Result;
use crate::store::Kind;
use crate::store::gateways::{self, Ranked, Rate};
use crate::store::objects::{self, Entity, Filter, Stored};

impl Objects {
    // One object.

    /// The object if the call may use it. A part of another object that it may not use is absent.
    fn authorise<T: Entity>(&mut self, found: Stored<T>) -> Result<Option<Authorised<T>>> {
        if self.access.decide(&found.resource()) {
            return Ok(Some(Authorised(found)));
        }
        if is_part(T::KIND) { Ok(None) } else { Err(self.access.refusal()) }
    }

    /// The caller's object in the region of the request.
    ///
    /// # Errors
    /// The caller may not use an object with this identifier, whether it exists or not.
    pub async fn find<T: Entity>(&mut self, id: &str) -> Result<Option<Authorised<T>>> {
        let region = self.access.region().map(str::to_owned);
        self.find_in(id, region.as_deref()).await
    }

    /// The caller's object in a region, or in any.
    ///
    /// # Errors
    /// As for [`Objects::find`].
    pub async fn find_in<T: Entity>(
        &mut self,
        id: &str,
        region: Option<&str>,
    ) -> Result<Option<Authorised<T>>> {
        let found = objects::get::<T>(&mut self.tx, id).await?;
        let uid = self.access.uid();
        match found.filter(|o| o.uid == uid && region.is_none_or(|r| r == o.region)) {
            Some(found) => self.authorise(found),
            None => self.access.absent(T::KIND, id, region, uid).map(|()| None),
        }
    }

    /// An object of this account, which need not be the caller's: what it may be used for is the business of grants.
    ///
    /// # Errors
    /// As for [`Objects::find`].
    pub async fn find_of<T: Entity>(&mut self, id: &str, owner: i64) -> Result<Option<Authorised<T>>> {
        match objects::get::<T>(&mut self.tx, id).await?.filter(|o| o.uid == owner) {
            Some(found) => self.authorise(found),
            None => self.access.absent(T::KIND, id, None, owner).map(|()| None),
        }
    }

    /// Refuses a call that names an object without using more of it than its identifier. Another account's object
    /// counts if it is `related` to one that the call may use; else its existence would show.
    ///
    /// # Errors
    /// As for [`Objects::find`].
    pub async fn require_named(&mut self, kind: Kind, id: &str, related: bool) -> Result<()> {
        // An account may name everything; the log has the identifier among the parameters.
        if !self.access.filters() {
            return Ok(());
        }
        let uid = self.access.uid();
        let found = objects::identities_of(&mut self.tx, kind, &[id]).await?.pop();
        match found.filter(|o| related || o.uid == uid) {
            Some(found) if self.access.decide(&found.resource(kind)) => Ok(()),
            Some(_) => Err(self.access.refusal()),
            None => {
                let region = self.access.region().map(str::to_owned);
                self.access.absent(kind, id, region.as_deref(), uid)
            }
        }
    }

    /// A part of an object.
    pub async fn part<P: Entity, T: Entity>(
        &mut self,
        parent: &Authorised<P>,
        id: &str,
    ) -> Result<Option<Authorised<T>>> {
        let found = objects::get::<T>(&mut self.tx, id).await?.filter(|o| o.parent == parent.id);
        Ok(found.map(|o| self.parts_of(parent, vec![o])).and_then(|mut o| o.pop()))
    }

    /// The parts of an object in the order of their creation.
    pub async fn children<P: Entity, T: Entity>(
        &mut self,
        parent: &Authorised<P>,
    ) -> Result<Vec<Authorised<T>>> {
        let rows = objects::list_of::<T>(&mut self.tx, &Filter::under(&parent.id), None).await?;
        Ok(self.parts_of(parent, rows))
    }

    /// A part belongs to the account and the region of its parent, whatever its row says.
    fn parts_of<P, T: Entity>(&self, parent: &Authorised<P>, rows: Vec<Stored<T>>) -> Vec<Authorised<T>> {
        let of = |o: &Stored<T>| -> bool {
            let resource = Resource {
                kind: T::KIND,
                id: &o.id,
                uid: parent.uid,
                region: &parent.region,
                parent: &parent.id,
            };
            self.access.permits(&resource)
        };
        rows.into_iter().filter(of).map(Authorised).collect()
    }

    // Lists.

    /// Those objects of the filter that the call may use.
    ///
    /// # Errors
    /// The caller may use no such object.
    pub async fn list<T: Entity>(&mut self, filter: &Filter) -> Result<Vec<Authorised<T>>> {
        let filtered = self.access.listing(T::KIND)?;
        let rows = objects::list_of::<T>(&mut self.tx, filter, None).await?;
        let seen = rows.into_iter().filter(|o| !filtered || self.access.permits(&o.resource()));
        Ok(seen.map(Authorised).collect())
    }

    /// A page of those objects, and how many there are.
    ///
    /// # Errors
    /// As for [`Objects::list`].
    pub async fn page<T: Entity>(
        &mut self,
        filter: &Filter,
        (limit, offset): (i64, i64),
    ) -> Result<(i64, Vec<Authorised<T>>)> {
        let (total, rows) = if self.access.listing(T::KIND)? {
            let all = objects::identities(&mut self.tx, T::KIND, filter).await?;
            let seen: Vec<String> =
                all.into_iter().filter(|o| self.access.permits(&o.resource(T::KIND))).map(|o| o.id).collect();
            let (skip, take) = (usize::try_from(offset), usize::try_from(limit));
            let (skip, take) = (skip.unwrap_or(usize::MAX), take.unwrap_or_default());
            let page = seen.iter().skip(skip).take(take).cloned().collect();
            let rows = objects::list_of::<T>(&mut self.tx, &filter.only(page), None).await?;
            (seen.len() as i64, rows)
        } else {
            objects::page_of::<T>(&mut self.tx, filter, (limit, offset)).await?
        };
        Ok((total, rows.into_iter().map(Authorised).collect()))
    }

    /// How many objects of the filter the call may use.
    ///
    /// # Errors
    /// As for [`Objects::list`].
    pub async fn visible_count(&mut self, kind: Kind, filter: &Filter) -> Result<i64> {
        if !self.access.filters() {
            return self.count(kind, filter).await;
        }
        let all = objects::identities(&mut self.tx, kind, filter).await?;
        Ok(all.iter().filter(|o| self.access.permits(&o.resource(kind))).count() as i64)
    }

    /// The gateways with the highest rates among those that the call may use.
    ///
    /// # Errors
    /// As for [`Objects::list`].
    pub async fn ranking(&mut self, region: &str, rate: Rate, since: i64, limit: i64) -> Result<Vec<Ranked>> {
        let uid = self.access.uid();
        if !self.access.listing(Kind::Gateway)? {
            return Ok(gateways::ranking(&mut self.tx, uid, region, rate, since, limit).await?);
        }
        let mut rows = gateways::ranking(&mut self.tx, uid, region, rate, since, i64::MAX).await?;
        rows.retain(|gw| {
            let resource = Resource { kind: Kind::Gateway, id: &gw.id, uid, region: &gw.region, parent: "" };
            self.access.permits(&resource)
        });
        rows.truncate(usize::try_from(limit).unwrap_or_default());
        Ok(rows)
    }

    // What holds for an account as a whole (quotas, overlaps, dependencies) is checked against everything that there
    // is. These return numbers and what a closure makes of an object, never the object.

    /// How many objects of the filter there are, whoever may see them.
    pub async fn count(&mut self, kind: Kind, filter: &Filter) -> Result<i64> {
        Ok(objects::count(&mut self.tx, kind, filter).await?)
    }

    /// What `look` makes of an object, whoever may see it.
    pub async fn inspect<T: Entity, R>(
        &mut self,
        id: &str,
        look: impl FnOnce(&Stored<T>) -> R,
    ) -> Result<Option<R>> {
        Ok(objects::get::<T>(&mut self.tx, id).await?.map(|o| look(&o)))
    }

    /// What `look` makes of each object of the filter, whoever may see it.
    pub async fn inspect_list<T: Entity, R>(
        &mut self,
        filter: &Filter,
        look: impl FnMut(&Stored<T>) -> R,
    ) -> Result<Vec<R>> {
        Ok(objects::list_of::<T>(&mut self.tx, filter, None).await?.iter().map(look).collect())
    }

    /// What `look` makes of each linked object, whoever may see it.
    pub async fn inspect_linked<T: Entity, R>(
        &mut self,
        linked: &Linked,
        mut look: impl FnMut(&Stored<T>) -> R,
    ) -> Result<Vec<R>> {
        let mut out = Vec::new();
        for id in &linked.ids {
            out.extend(objects::get::<T>(&mut self.tx, id).await?.map(|o| look(&o)));
        }
        Ok(out)
    }

    /// What `look` makes of each device of the gateways of the filter, whoever may see them.
    pub async fn inspect_devices<R>(
        &mut self,
        filter: &Filter,
        mut look: impl FnMut(&Device) -> R,
    ) -> Result<Vec<R>> {
        let mut out = Vec::new();
        for gw in objects::identities(&mut self.tx, Kind::Gateway, filter).await? {
            out.extend(Device::of_gateway(&mut self.tx, &gw.id).await?.iter().map(&mut look));
        }
        Ok(out)
    }

    /// What `look` makes of each device of the linked gateways, whoever may see them.
    pub async fn inspect_devices_of<R>(
        &mut self,
        gws: &Linked,
        mut look: impl FnMut(&Device) -> R,
    ) -> Result<Vec<R>> {
        let mut out = Vec::new();
        for gw in &gws.ids {
            out.extend(Device::of_gateway(&mut self.tx, gw).await?.iter().map(&mut look));
        }
        Ok(out)
    }
}
