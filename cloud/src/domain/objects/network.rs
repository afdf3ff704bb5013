//! Networks, whose members may be of other accounts: a change of one concerns the others.

use super::{Authorised, Objects};
use crate::domain::ccn::Ccn;
use crate::domain::gateway::Gateway;
use crate::domain::membership::{Announced, CcnMember};
use crate::domain::network::{self, Network};
use crate::error::Result;

impl Objects {
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
}
