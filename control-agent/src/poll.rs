//! The configuration read by documented operations only, for endpoints without the extension.

use std::time::Duration;

use serde_json::Value;

use crate::client::{CallError, Client, Result};
use crate::config::Config;
use crate::desired::{self, Acl, Desired, Qos};
use crate::json::{int, list, text};

const PAGE: i64 = 50;
/// Pages of one list; far beyond the quotas.
const MAX_PAGES: i64 = 200;

pub struct Poller<'a> {
    client: &'a Client,
    config: &'a Config,
}

impl<'a> Poller<'a> {
    pub fn new(client: &'a Client, config: &'a Config) -> Poller<'a> {
        Poller { client, config }
    }

    /// Everything, read anew. What the endpoint does not tell stays as in `last`.
    pub fn read(&self, last: &Desired) -> Result<Desired> {
        let gateway = self.gateway("DescribeSmartAccessGatewayAttribute", &[])?;
        let mut d = Desired {
            bandwidth: int(&gateway, "MaxBandwidth"),
            up_bandwidth: int(&gateway, "UpBandwidthWan"),
            ..last.clone()
        };
        d.ignored.clear();
        for id in ids(&list(&gateway, "AclIds", "AclId"), &mut d.acls, |a| &a.id) {
            let rules = self.pages("DescribeACLAttribute", &[("AclId", &id)], "Acrs", "Acr")?;
            if let Some(rows) = rules {
                let mut rules: Vec<_> = rows.iter().map(desired::rule).collect();
                rules.sort_by_key(|r| r.priority);
                put(&mut d.acls, Acl { id, rules }, |a| &a.id);
            }
        }
        for id in ids(&list(&gateway, "QosIds", "QosId"), &mut d.qos, |q| &q.id) {
            let policies =
                self.pages("DescribeQosPolicies", &[("QosId", &id)], "QosPolicies", "QosPolicy")?;
            let cars = self.pages("DescribeQosCars", &[("QosId", &id)], "QosCars", "QosCar")?;
            if let (Some(policies), Some(cars)) = (policies, cars) {
                let policies = policies.iter().map(desired::policy).collect();
                let cars = cars.iter().map(desired::car).collect();
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
        if let Some(rows) =
            self.pages("DescribeSnatEntries", &[("SmartAGId", id)], "SnatEntries", "SnatEntry")?
        {
            d.snat = rows.iter().map(desired::snat).collect();
        }
        // The one operation that calls the gateway SagId, and that tells of one type at a time.
        let mut dnat = Vec::new();
        for kind in ["Internet", "Intranet"] {
            let params = [("SagId", id), ("Type", kind)];
            let Some(rows) = self.pages("DescribeDnatEntries", &params, "DnatEntries", "DnatEntry")? else {
                return Ok(());
            };
            dnat.extend(rows.iter().map(desired::dnat));
        }
        d.dnat = dnat;
        Ok(())
    }

    fn device(&self, d: &mut Desired) -> Result<()> {
        if let Some(v) = self.of_device("DescribeSagPortList", &[])? {
            d.roles = desired::roles(&list(&v, "Ports", "Port"));
        }
        if let Some(v) = self.of_device("DescribeSagWanSnat", &[])? {
            d.wan_snat = desired::wan_snat(&v);
        }
        if let Some(v) = self.of_device("DescribeSagWanList", &[])? {
            d.wans = named(&list(&v, "Wans", "Wan")).map(|(n, v)| (n, desired::wan(v))).collect();
        }
        if let Some(v) = self.of_device("DescribeSagLanList", &[])? {
            d.lans = named(&list(&v, "Lans", "Lan")).map(|(n, v)| (n, desired::lan(v))).collect();
        }
        if let Some(v) = self.of_device("DescribeSagStaticRouteList", &[])? {
            d.routes = list(&v, "StaticRoutes", "StaticRoute").iter().map(desired::route).collect();
        }
        let leased: Vec<String> =
            d.roles.iter().filter(|(_, r)| *r == "ECC").map(|(n, _)| n.clone()).collect();
        d.eccs.retain(|name, _| leased.contains(name));
        for name in leased {
            let op = "DescribeSagExpressConnectInterfaceList";
            if let Some(v) = self.of_device(op, &[("PortName", &name)])? {
                d.eccs.insert(name, list(&v, "Interfaces", "Interface").iter().map(desired::ecc).collect());
            }
        }
        Ok(())
    }

    fn health(&self, d: &mut Desired) -> Result<()> {
        let id = self.config.smart_ag_id.as_str();
        if let Some(rows) =
            self.pages("DescribeHealthChecks", &[("SmartAGId", id)], "HealthChecks", "HealthCheck")?
        {
            d.health_checks = rows.iter().map(desired::health_check).collect();
        }
        if d.health_checks.is_empty() {
            d.distributions.clear();
            return Ok(());
        }
        let op = "DescribeRouteDistributionStrategies";
        let params = [("SmartAGId", id), ("SourceType", "local")];
        if let Some(rows) = self.pages(op, &params, "Strategies", "Strategy")? {
            d.distributions = rows.iter().map(desired::distribution).filter(|d| d.check.is_some()).collect();
        }
        Ok(())
    }

    fn gateway(&self, op: &str, more: &[(&str, &str)]) -> Result<Value> {
        let mut params = vec![("SmartAGId", self.config.smart_ag_id.as_str())];
        params.extend(more);
        self.client.call(op, &params, &[], Duration::ZERO)
    }

    /// `None`: the endpoint has no such operation, or nothing to say now.
    fn of_device(&self, op: &str, more: &[(&str, &str)]) -> Result<Option<Value>> {
        let mut params = vec![("SmartAGSn", self.config.smart_ag_sn.as_str())];
        params.extend(more);
        told(op, self.gateway(op, &params))
    }

    /// All pages of a list.
    fn pages(
        &self,
        op: &str,
        params: &[(&str, &str)],
        container: &str,
        item: &str,
    ) -> Result<Option<Vec<Value>>> {
        let mut out = Vec::new();
        for number in 1..=MAX_PAGES {
            let (number, size) = (number.to_string(), PAGE.to_string());
            let mut params = params.to_vec();
            params.extend([("PageNumber", number.as_str()), ("PageSize", size.as_str())]);
            let Some(v) = told(op, self.client.call(op, &params, &[], Duration::ZERO))? else {
                return Ok(None);
            };
            let rows = list(&v, container, item);
            let (got, total) = (rows.len(), int(&v, "TotalCount").unwrap_or(0));
            out.extend(rows);
            if got == 0 || out.len() as i64 >= total {
                break;
            }
        }
        Ok(Some(out))
    }
}

fn told(op: &str, answer: Result<Value>) -> Result<Option<Value>> {
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

fn named(rows: &[Value]) -> impl Iterator<Item = (String, &Value)> {
    rows.iter().filter_map(|v| Some((text(v, "PortName")?, v)))
}

/// The identifiers of what is bound, in the order of the answer; what is not bound goes.
fn ids<T>(rows: &[Value], have: &mut Vec<T>, id: impl Fn(&T) -> &String) -> Vec<String> {
    let bound: Vec<String> = rows.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
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
