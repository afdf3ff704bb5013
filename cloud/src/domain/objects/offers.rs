//! What the operator offers to every account. It is no object of an account, so no policy is about it.

use super::Objects;
use crate::error::Result;
use crate::store::offers::{self, AccessPoint, Version};

impl Objects {
    /// The access points of a region, by number.
    pub async fn access_points(&mut self, region: &str) -> Result<Vec<AccessPoint>> {
        Ok(offers::access_points(&mut self.tx, Some(region)).await?)
    }

    /// The versions of a kind (`Device`, `Dpi`) that are not retired, the oldest first.
    pub async fn versions(&mut self, kind: &str) -> Result<Vec<Version>> {
        let mut all = offers::versions(&mut self.tx).await?;
        all.retain(|v| v.kind == kind && !v.retired);
        Ok(all)
    }
}
