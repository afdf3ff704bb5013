//! Objects that are made, changed and removed.

use super::{Authorised, Objects};
use crate::error::Result;
use crate::store::Kind;
use crate::store::objects::{self, Entity, Stored};
use crate::time::now_us;

impl Objects {
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

    /// Removes the oldest parts of this kind, so that no more than so many are left.
    pub async fn keep_newest<P>(&mut self, kind: Kind, parent: &Authorised<P>, most: i64) -> Result<()> {
        Ok(objects::keep_newest(&mut self.tx, kind, &parent.id, most).await?)
    }

    pub async fn remove_children<P>(&mut self, kind: Kind, parent: &Authorised<P>) -> Result<()> {
        Ok(objects::delete_children(&mut self.tx, kind, &parent.id).await?)
    }
}
