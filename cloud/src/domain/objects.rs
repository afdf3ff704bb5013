//! The objects of one call: found, decided about, read and changed.
//!
//! Handlers have no other way to the database. An [`Authorised`] object is made here alone, after the policies of the
//! caller have allowed it; what changes an object takes one of these. Identifiers that other objects lead to are
//! [`Linked`] until it is clear who may see them.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;

use super::access::Access;
use super::ccn::Ccn;
use super::device::Device;
use super::gateway::Gateway;
use super::membership::{Announced, CcnMember};
use super::network::{self, Network};
use super::policy::{Resource, is_part};
use crate::error::Result;
use crate::store::devices::Summary;
use crate::store::gateways::{self, Ranked, Rate};
use crate::store::links::Links;
use crate::store::objects::{self, Entity, Filter, Identity, Stored};
use crate::store::{Kind, Link, Tx, devices, links};
use crate::time::now_us;

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

    // Changes.

    /// A new object of the caller in this region; `put` stores it.
    ///
    /// # Errors
    /// The caller may not make one.
    pub fn create<T: Entity>(&mut self, id: String, region: String, body: T) -> Result<Authorised<T>> {
        self.access.whole(T::KIND, Some(&region))?;
        let seq = self.next_place();
        Ok(Authorised(Stored { id, uid: self.access.uid(), region, parent: String::new(), seq, body }))
    }

    /// A new part of an object; `put` stores it.
    pub fn create_part<P, T: Entity>(
        &mut self,
        parent: &Authorised<P>,
        id: String,
        body: T,
    ) -> Authorised<T> {
        let seq = self.next_place();
        let (region, parent) = (parent.region.clone(), parent.id.clone());
        Authorised(Stored { id, uid: self.access.uid(), region, parent, seq, body })
    }

    fn next_place(&mut self) -> i64 {
        self.sequence += 1;
        now_us() + self.sequence
    }

    pub async fn put<T: Entity>(&mut self, o: &Authorised<T>) -> Result<()> {
        Ok(objects::put(&mut self.tx, o).await?)
    }

    pub async fn remove<T: Entity>(&mut self, o: &Authorised<T>) -> Result<()> {
        Ok(objects::delete(&mut self.tx, T::KIND, &o.id).await?)
    }

    pub async fn remove_children<P>(&mut self, kind: Kind, parent: &Authorised<P>) -> Result<()> {
        Ok(objects::delete_children(&mut self.tx, kind, &parent.id).await?)
    }

    // Links.

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

    // Networks, whose members may be of other accounts: a change of one concerns the others.

    /// The members of a network, and what they announce.
    pub async fn network(&mut self, ccn: &Authorised<Ccn>) -> Result<Network> {
        Ok(Network::load(&mut self.tx, (**ccn).clone()).await?)
    }

    /// What `look` makes of the network that the gateway is in, whoever may see it.
    pub async fn inspect_network<R>(
        &mut self,
        gw: &Authorised<Gateway>,
        look: impl FnOnce(&Network) -> R,
    ) -> Result<Option<R>> {
        Ok(Network::of_gateway(&mut self.tx, &gw.id).await?.map(|network| look(&network)))
    }

    /// Writes down whose announcements are handed out, and gives the devices of all members a new revision; returns
    /// their serial numbers.
    pub async fn settle_network(&mut self, ccn: &str) -> Result<Vec<String>> {
        let Some(network) = Network::by_id(&mut self.tx, ccn).await? else { return Ok(Vec::new()) };
        network.settle(&mut self.tx).await?;
        Ok(network.renew(&mut self.tx).await?)
    }

    /// The blocks of a gateway have changed. The members of its network have a new configuration; returns the serial
    /// numbers of their devices. Another account than the network's wakes nobody: the members have the change with
    /// their next complete fetch.
    pub async fn blocks_changed(&mut self, gw: &Authorised<Gateway>) -> Result<Vec<String>> {
        let Some(network) = Network::of_gateway(&mut self.tx, &gw.id).await? else { return Ok(Vec::new()) };
        network.settle(&mut self.tx).await?;
        if network.ccn.uid != gw.uid {
            return Ok(Vec::new());
        }
        Ok(network.renew(&mut self.tx).await?)
    }

    /// Grants blocks, separated by commas, to a member of another account.
    pub async fn grant_blocks(&mut self, ccn: &Authorised<Ccn>, gw: &str, blocks: &str) -> Result<()> {
        let body =
            CcnMember { smart_ag_id: gw.to_owned(), ccn_id: ccn.id.clone(), cidr_block: blocks.to_owned() };
        let member = self.create_part(ccn, CcnMember::id(gw, &ccn.id), body);
        self.put(&member).await
    }

    /// The gateway has left the network, which may be another account's.
    pub async fn forget_member(&mut self, ccn: &str, gw: &Authorised<Gateway>) -> Result<()> {
        Ok(network::forget_member(&mut self.tx, ccn, &gw.id).await?)
    }

    /// Stores what a device has announced; returns the serial numbers of the devices for which that changes something.
    pub async fn put_announced(
        &mut self,
        gw: &Authorised<Gateway>,
        announced: &Authorised<Announced>,
    ) -> Result<Vec<String>> {
        Ok(network::put_announced(&mut self.tx, &gw.id, announced).await?)
    }

    // Devices, which are parts of gateways.

    /// The devices of a gateway, the first one of a pair in front.
    pub async fn devices_of(&mut self, gw: &Authorised<Gateway>) -> Result<Vec<Device>> {
        Ok(Device::of_gateway(&mut self.tx, &gw.id).await?)
    }

    /// The device of the gateway with this serial number.
    pub async fn device_of(&mut self, gw: &Authorised<Gateway>, sn: &str) -> Result<Option<Device>> {
        Ok(Device::by_sn(&mut self.tx, sn).await?.filter(|d| d.sag == gw.id))
    }

    /// Whether any account has a device with this serial number.
    pub async fn is_serial_number_taken(&mut self, sn: &str) -> Result<bool> {
        Ok(Device::by_sn(&mut self.tx, sn).await?.is_some())
    }

    /// The devices of each of the gateways without their documents.
    pub async fn device_summaries(
        &mut self,
        gws: &[Authorised<Gateway>],
    ) -> Result<HashMap<String, Vec<Summary>>> {
        let ids: Vec<&str> = gws.iter().map(|gw| gw.id.as_str()).collect();
        Ok(devices::summaries(&mut self.tx, &ids).await?)
    }

    /// How many of the gateways have a connected device.
    pub async fn count_online(&mut self, gws: &[String], now: i64) -> Result<usize> {
        let ids: Vec<&str> = gws.iter().map(String::as_str).collect();
        let devices = devices::summaries(&mut self.tx, &ids).await?;
        Ok(devices.values().filter(|of| of.iter().any(|d| d.online(now))).count())
    }

    pub async fn add_device(
        &mut self,
        gw: &Authorised<Gateway>,
        mut device: Summary,
        config: String,
    ) -> Result<()> {
        device.uid = gw.uid;
        device.sag.clone_from(&gw.id);
        Ok(devices::insert(&mut self.tx, &device, config, now_us()).await?)
    }

    /// Stores a changed configuration with its revision.
    pub async fn put_config(&mut self, d: &Device) -> Result<()> {
        Ok(devices::put_config(&mut self.tx, d, d.config_text()?, now_us()).await?)
    }

    /// Stores how far the agent has come.
    pub async fn put_result(&mut self, d: &Device) -> Result<()> {
        Ok(devices::put_result(&mut self.tx, d, d.config_text()?).await?)
    }

    /// Stores what the agent reported.
    pub async fn put_report(
        &mut self,
        d: &Device,
        report: &sag_southbound::StateReport,
        seen: i64,
    ) -> Result<()> {
        Ok(devices::put_report(&mut self.tx, &d.sn, report, seen).await?)
    }

    /// Gives each device of the gateways a new revision; returns their serial numbers.
    pub async fn bump_revisions(&mut self, gws: &Linked) -> Result<Vec<String>> {
        let mut out = Vec::new();
        for gw in &gws.ids {
            out.extend(devices::bump_revision(&mut self.tx, gw, now_us()).await?);
        }
        Ok(out)
    }

    /// Gives each device of the gateway a new revision; returns their serial numbers.
    pub async fn bump_revision(&mut self, gw: &Authorised<Gateway>) -> Result<Vec<String>> {
        Ok(devices::bump_revision(&mut self.tx, &gw.id, now_us()).await?)
    }

    /// Gives each device of the gateway of a part a new revision; returns their serial numbers.
    pub async fn bump_revision_of_parent<T>(&mut self, part: &Authorised<T>) -> Result<Vec<String>> {
        Ok(devices::bump_revision(&mut self.tx, &part.parent, now_us()).await?)
    }

    pub async fn delete_device(&mut self, d: &Device) -> Result<()> {
        objects::delete(&mut self.tx, Kind::Announcement, &d.sn).await?;
        Ok(devices::delete(&mut self.tx, &d.sn).await?)
    }

    /// Removes the devices of a gateway; returns their serial numbers.
    pub async fn delete_devices(&mut self, gw: &Authorised<Gateway>) -> Result<Vec<String>> {
        Ok(devices::delete_of_gateway(&mut self.tx, &gw.id).await?)
    }
}
