//! The configuration read by documented operations only, for endpoints without the extension.

mod answers;

use std::time::Duration;

use sag_southbound::{
    AclRule, DistributionRule, DnatEntry, Dns, HealthCheck, PortRole, PublishStrategy, QosCar, QosPolicy,
    SnatEntry, Wire,
};

use crate::client::{CallError, Client, Result};
use crate::config::Config;
use crate::desired::{self, Acl, Desired, Qos, converted};

use answers::{
    GatewayAttribute, LanList, LeasedLineList, Listed, Page, PortList, RouteList, WanList, WanSnat,
};

const PAGE: i64 = 50;
/// Pages of one list; far beyond the quotas.
const MAX_PAGES: i64 = 200;
/// Entries of one list, whatever an endpoint puts on a page.
const MAX_ROWS: usize = 10_000;
/// Lists of rules, or leased lines, each of which takes a call; far beyond the quotas too.
const MAX_LISTS: usize = 200;

/// Reads the configuration of one device.
pub struct Poller<'a> {
    client: &'a Client,
    config: &'a Config,
}

impl<'a> Poller<'a> {
    pub fn new(client: &'a Client, config: &'a Config) -> Poller<'a> {
        Poller { client, config }
    }

    /// Reads everything. What the endpoint does not answer stays as in `last`.
    pub fn read(&self, last: &Desired) -> Result<Desired> {
        let gateway: GatewayAttribute = self.gateway("DescribeSmartAccessGatewayAttribute", &[])?;
        let mut d = Desired {
            bandwidth: gateway.max_bandwidth,
            up_bandwidth: gateway.up_bandwidth_wan,
            ..last.clone()
        };
        d.ignored.clear();
        let lists = gateway.acl_ids.len() + gateway.qos_ids.len();
        at_most(MAX_LISTS, lists, "DescribeSmartAccessGatewayAttribute")?;
        for id in retain_bound(gateway.acl_ids, &mut d.acls, |a| &a.id) {
            if let Some(rules) = self.pages::<AclRule>(&[("AclId", &id)])? {
                let mut rules: Vec<desired::Rule> = converted(rules);
                rules.sort_by_key(|r| r.priority);
                put(&mut d.acls, Acl { id, rules }, |a| &a.id);
            }
        }
        for id in retain_bound(gateway.qos_ids, &mut d.qos, |q| &q.id) {
            let policies = self.pages::<QosPolicy>(&[("QosId", &id)])?;
            let cars = self.pages::<QosCar>(&[("QosId", &id)])?;
            if let (Some(policies), Some(cars)) = (policies, cars) {
                let (policies, cars) = (converted(policies), converted(cars));
                put(&mut d.qos, Qos { id, cars, policies }, |q| &q.id);
            }
        }
        self.nat(&mut d)?;
        self.device(&mut d)?;
        self.health(&mut d)?;
        Ok(d)
    }

    fn nat(&self, d: &mut Desired) -> Result<()> {
        let id = self.config.smart_ag_id.as_str();
        if let Some(rows) = self.pages::<SnatEntry>(&[("SmartAGId", id)])? {
            d.snat = converted(rows);
        }
        // The one operation that calls the gateway SagId, and that lists one type at a time.
        let mut dnat = Vec::new();
        for kind in ["Internet", "Intranet"] {
            let Some(rows) = self.pages::<DnatEntry>(&[("SagId", id), ("Type", kind)])? else {
                return Ok(());
            };
            dnat.extend(rows.into_iter().map(desired::DnatEntry::from));
        }
        d.dnat = dnat;
        Ok(())
    }

    fn device(&self, d: &mut Desired) -> Result<()> {
        if let Some(answer) = self.of_device::<PortList>("DescribeSagPortList", &[])? {
            d.roles = desired::roles(answer.ports);
        }
        if let Some(answer) = self.of_device::<WanSnat>("DescribeSagWanSnat", &[])? {
            d.wan_snat = answer.snat;
        }
        if let Some(answer) = self.of_device::<WanList>("DescribeSagWanList", &[])? {
            d.wans = answer.wans.into_iter().filter_map(|w| w.named()).collect();
        }
        if let Some(answer) = self.of_device::<LanList>("DescribeSagLanList", &[])? {
            d.lans = answer.lans.into_iter().filter_map(|l| l.named()).collect();
        }
        if let Some(answer) = self.of_device::<Dns>("DescribeSagUserDns", &[])? {
            d.dns = Some(answer.into());
        }
        if let Some(answer) = self.of_device::<RouteList>("DescribeSagStaticRouteList", &[])? {
            d.routes = converted(answer.routes);
        }
        let leased: Vec<String> =
            d.roles.iter().filter(|(_, r)| **r == PortRole::Ecc).map(|(n, _)| n.clone()).collect();
        at_most(MAX_LISTS, leased.len(), "DescribeSagPortList")?;
        d.eccs.retain(|name, _| leased.contains(name));
        for name in leased {
            let op = "DescribeSagExpressConnectInterfaceList";
            if let Some(answer) = self.of_device::<LeasedLineList>(op, &[("PortName", &name)])? {
                d.eccs.insert(name, converted(answer.interfaces));
            }
        }
        Ok(())
    }

    fn health(&self, d: &mut Desired) -> Result<()> {
        let id = self.config.smart_ag_id.as_str();
        if let Some(rows) = self.pages::<HealthCheck>(&[("SmartAGId", id)])? {
            d.health_checks = converted(rows);
        }
        // What the gateway itself publishes is not its own business.
        let params = [("SmartAGId", id), ("SourceType", "cloud")];
        if let Some(rows) = self.pages::<DistributionRule>(&params)? {
            let rows: Vec<desired::Distribution> = converted(rows);
            let always = |d: &desired::Distribution| matches!(d.mode, None | Some(PublishStrategy::Publish));
            d.distributions = rows.into_iter().filter(|d| !always(d)).collect();
        }
        Ok(())
    }

    fn gateway<T: Wire>(&self, op: &str, more: &[(&str, &str)]) -> Result<T> {
        let mut params = vec![("SmartAGId", self.config.smart_ag_id.as_str())];
        params.extend(more);
        self.client.call(op, &params, &[], Duration::ZERO)
    }

    /// `None`: the endpoint has no such operation, or nothing to say now.
    fn of_device<T: Wire>(&self, op: &str, more: &[(&str, &str)]) -> Result<Option<T>> {
        let mut params = vec![("SmartAGSn", self.config.smart_ag_sn.as_str())];
        params.extend(more);
        if_answered(op, self.gateway(op, &params))
    }

    /// All pages of a list.
    fn pages<T: Listed>(&self, params: &[(&str, &str)]) -> Result<Option<Vec<T>>> {
        let mut out = Vec::new();
        for number in 1..=MAX_PAGES {
            let (number, size) = (number.to_string(), PAGE.to_string());
            let mut params = params.to_vec();
            params.extend([("PageNumber", number.as_str()), ("PageSize", size.as_str())]);
            let answer = self.client.call(T::OPERATION, &params, &[], Duration::ZERO);
            let Some(page) = if_answered::<Page<T>>(T::OPERATION, answer)? else { return Ok(None) };
            let last = page.rows.is_empty();
            out.extend(page.rows);
            at_most(MAX_ROWS, out.len(), T::OPERATION)?;
            if last || out.len() as i64 >= page.total {
                break;
            }
        }
        Ok(Some(out))
    }
}

fn at_most(most: usize, have: usize, op: &str) -> Result<()> {
    if have > most {
        return Err(CallError::Transport(format!("{op}: {have} entries are more than {most}")));
    }
    Ok(())
}

/// `None` where the endpoint lacks the operation or has nothing to say about the device now.
fn if_answered<T>(op: &str, answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(v) => Ok(Some(v)),
        Err(e) if e.unknown_action() || e.not_now() => {
            tracing::debug!(op, "left as it was: {e}");
            Ok(None)
        }
        Err(CallError::Api { status, code, message }) => {
            Err(CallError::Api { status, code, message: format!("{op}: {message}") })
        }
        Err(e) => Err(e),
    }
}

/// Drops what is not bound any more and orders the rest as in the answer; returns the identifiers of what is bound.
fn retain_bound<T>(bound: Vec<String>, have: &mut Vec<T>, id: impl Fn(&T) -> &String) -> Vec<String> {
    have.retain(|x| bound.contains(id(x)));
    have.sort_by_key(|x| bound.iter().position(|b| b == id(x)));
    bound
}

fn put<T>(have: &mut Vec<T>, new: T, id: impl Fn(&T) -> &String) {
    match have.iter().position(|x| id(x) == id(&new)) {
        Some(at) => have[at] = new,
        None => have.push(new),
    }
}
