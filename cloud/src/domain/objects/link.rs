//! Links between gateways and other objects.

use std::collections::{HashMap, HashSet};

use super::{Authorised, Linked, Objects};
use crate::domain::ccn::Ccn;
use crate::domain::gateway::Gateway;
use crate::error::Result;
use crate::store::links::Links;
use crate::store::objects::{self, Entity};
use crate::store::{Kind, Link, links};
use crate::time::now_us;

/// What a gateway links to.
fn target(link: Link) -> Option<Kind> {
    match link {
        Link::Acl => Some(Kind::Acl),
        Link::Qos => Some(Kind::Qos),
        Link::Ccn | Link::GrantedCcn => Some(Kind::Ccn),
        Link::FlowLog => Some(Kind::FlowLog),
        Link::Vbr => None,
    }
}

impl Objects {
    pub async fn link<T: Entity>(
        &mut self,
        link: Link,
        gw: &Authorised<Gateway>,
        to: &Authorised<T>,
    ) -> Result<()> {
        Ok(links::add(&mut self.tx, link, &gw.id, &to.id, now_us()).await?)
    }

    /// Gives the gateway a leased line to a border router.
    pub async fn link_router(&mut self, gw: &Authorised<Gateway>, vbr: &str) -> Result<()> {
        Ok(links::add(&mut self.tx, Link::Vbr, &gw.id, vbr, now_us()).await?)
    }

    /// False if there was no such link.
    pub async fn unlink(&mut self, link: Link, gw: &Authorised<Gateway>, to: &str) -> Result<bool> {
        Ok(links::remove(&mut self.tx, link, &gw.id, to).await?)
    }

    pub async fn remove_links(&mut self, gw: &Authorised<Gateway>) -> Result<()> {
        Ok(links::remove_from(&mut self.tx, &gw.id).await?)
    }

    /// Withdraws every gateway that was granted to a network.
    pub async fn remove_grants_to(&mut self, ccn: &Authorised<Ccn>) -> Result<()> {
        for gw in links::to(&mut self.tx, Link::GrantedCcn, &ccn.id).await? {
            links::remove(&mut self.tx, Link::GrantedCcn, &gw, &ccn.id).await?;
            objects::delete(&mut self.tx, Kind::CcnGrant, &format!("{gw}/{}", ccn.id)).await?;
        }
        Ok(())
    }

    /// What the gateway links to, oldest first.
    pub async fn links_from(&mut self, link: Link, gw: &Authorised<Gateway>) -> Result<Linked> {
        Ok(Linked { kind: target(link), ids: links::from(&mut self.tx, link, &gw.id).await? })
    }

    /// The gateways that link to the object, oldest first.
    pub async fn links_to(&mut self, link: Link, id: &str) -> Result<Linked> {
        Ok(Linked { kind: Some(Kind::Gateway), ids: links::to(&mut self.tx, link, id).await? })
    }

    /// The other members of the gateway's networks.
    pub async fn neighbours(&mut self, gw: &Authorised<Gateway>) -> Result<Linked> {
        let mut ids = Vec::new();
        for ccn in links::from(&mut self.tx, Link::Ccn, &gw.id).await? {
            ids.extend(links::to(&mut self.tx, Link::Ccn, &ccn).await?);
        }
        ids.retain(|id| *id != gw.id);
        Ok(Linked { kind: Some(Kind::Gateway), ids })
    }

    /// Those of the identifiers that the caller may see; nothing if he may see all.
    async fn visible_among(&mut self, kind: Kind, ids: &[&str]) -> Result<Option<HashSet<String>>> {
        if !self.access.filters() {
            return Ok(None);
        }
        let found = objects::identities_of(&mut self.tx, kind, ids).await?;
        let seen = found.into_iter().filter(|o| self.access.permits(&o.resource(kind)));
        Ok(Some(seen.map(|o| o.id).collect()))
    }

    /// Those of the linked objects that the caller may see.
    pub async fn visible(&mut self, linked: Linked) -> Result<Vec<String>> {
        match linked.kind {
            Some(kind) => self.visible_of(kind, linked.ids).await,
            None => Ok(linked.ids),
        }
    }

    /// Those of the objects that the caller may see.
    pub async fn visible_of(&mut self, kind: Kind, mut ids: Vec<String>) -> Result<Vec<String>> {
        let all: Vec<&str> = ids.iter().map(String::as_str).collect();
        if let Some(seen) = self.visible_among(kind, &all).await? {
            ids.retain(|id| seen.contains(id));
        }
        Ok(ids)
    }

    /// Those of the linked objects that the caller may see, themselves.
    pub async fn visible_objects<T: Entity>(&mut self, linked: &Linked) -> Result<Vec<Authorised<T>>> {
        let mut out = Vec::new();
        for id in &linked.ids {
            let found = objects::get::<T>(&mut self.tx, id).await?;
            out.extend(found.filter(|o| self.access.permits(&o.resource())).map(Authorised));
        }
        Ok(out)
    }

    /// The visible gateways that link to each of the objects, oldest first; none has no entry.
    pub async fn visible_links_to<T: Entity>(
        &mut self,
        link: Link,
        to: &[Authorised<T>],
    ) -> Result<HashMap<String, Vec<String>>> {
        let to: Vec<&str> = to.iter().map(|o| o.id.as_str()).collect();
        let mut found = links::to_each(&mut self.tx, link, &to).await?;
        let all: Vec<&str> = found.values().flatten().map(String::as_str).collect();
        if let Some(seen) = self.visible_among(Kind::Gateway, &all).await? {
            found.values_mut().for_each(|ids| ids.retain(|id| seen.contains(id)));
        }
        Ok(found)
    }

    /// How many visible gateways link to each of the objects; none may have no entry.
    pub async fn count_visible_links_to<T: Entity>(
        &mut self,
        link: Link,
        to: &[Authorised<T>],
    ) -> Result<HashMap<String, i64>> {
        if self.access.filters() {
            let found = self.visible_links_to(link, to).await?;
            return Ok(found.into_iter().map(|(id, of)| (id, of.len() as i64)).collect());
        }
        let to: Vec<&str> = to.iter().map(|o| o.id.as_str()).collect();
        Ok(links::count_to_each(&mut self.tx, link, &to).await?)
    }

    /// The visible links of each of the gateways.
    pub async fn visible_links_from(
        &mut self,
        gws: &[Authorised<Gateway>],
    ) -> Result<HashMap<String, Links>> {
        let of: Vec<&str> = gws.iter().map(|gw| gw.id.as_str()).collect();
        let mut found = links::from_each(&mut self.tx, &of).await?;
        if !self.access.filters() {
            return Ok(found);
        }
        for link in [Link::Acl, Link::Qos, Link::Ccn, Link::FlowLog] {
            let Some(kind) = target(link) else { continue };
            let all: HashSet<&str> = found.values().flat_map(|links| links.ids(link)).collect();
            let all: Vec<&str> = all.into_iter().collect();
            if let Some(seen) = self.visible_among(kind, &all).await? {
                found.values_mut().for_each(|links| links.retain(|l, id| l != link || seen.contains(id)));
            }
        }
        Ok(found)
    }

    /// The network that a gateway with these links is in, if the caller may see it.
    pub async fn network_of(&mut self, links: &Links) -> Result<Option<Authorised<Ccn>>> {
        let Some(id) = links.first(Link::Ccn) else { return Ok(None) };
        let found = objects::get::<Ccn>(&mut self.tx, id).await?;
        Ok(found.filter(|ccn| self.access.permits(&ccn.resource())).map(Authorised))
    }
}
