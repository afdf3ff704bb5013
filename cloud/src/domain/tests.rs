//! A database that an older version made: nothing in it is lost.

use serde_json::Value;

use super::acl::{Acl, AclRule};
use super::app::{AppState, AppUser, EnterpriseCode};
use super::ccn::Ccn;
use super::distribution::RouteStrategy;
use super::flow_log::FlowLog;
use super::gateway::Gateway;
use super::grants::{CcnGrant, CenGrant, VbrGrant};
use super::health::HealthCheck;
use super::nat::{DnatEntry, SnatEntry};
use super::orders::Order;
use super::qos::{Qos, QosCar, QosPolicy};
use crate::store::Kind;
use crate::store::objects::Entity;

const DUMP: &str = include_str!("../../tests/data/version-2.sql");

fn same<T: Entity>(text: &str) -> (Value, Value) {
    let before: Value = serde_json::from_str(text).expect("a document");
    let body: T = serde_json::from_str(text).expect("of this type");
    (before, serde_json::to_value(&body).expect("a document"))
}

#[test]
fn no_field_of_a_stored_document_is_lost() {
    let db = rusqlite::Connection::open_in_memory().expect("opens");
    db.execute_batch(DUMP).expect("fills");
    let mut rows = db.prepare("SELECT kind, body FROM objects").expect("prepares");
    let rows = rows.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?))).expect("reads");
    let mut kinds = std::collections::BTreeSet::new();
    for row in rows {
        let (kind, text) = row.expect("a row");
        let (before, after) = match Kind::from_stored(&kind).expect("a kind") {
            Kind::Gateway => same::<Gateway>(&text),
            Kind::Acl => same::<Acl>(&text),
            Kind::AclRule => same::<AclRule>(&text),
            Kind::Qos => same::<Qos>(&text),
            Kind::QosPolicy => same::<QosPolicy>(&text),
            Kind::QosCar => same::<QosCar>(&text),
            Kind::SnatEntry => same::<SnatEntry>(&text),
            Kind::DnatEntry => same::<DnatEntry>(&text),
            Kind::HealthCheck => same::<HealthCheck>(&text),
            Kind::RouteStrategy => same::<RouteStrategy>(&text),
            Kind::Ccn => same::<Ccn>(&text),
            Kind::FlowLog => same::<FlowLog>(&text),
            Kind::AppUser => same::<AppUser>(&text),
            Kind::AppState => same::<AppState>(&text),
            Kind::EnterpriseCode => same::<EnterpriseCode>(&text),
            Kind::CcnGrant => same::<CcnGrant>(&text),
            Kind::CenGrant => same::<CenGrant>(&text),
            Kind::VbrGrant => same::<VbrGrant>(&text),
            Kind::Order => same::<Order>(&text),
        };
        for (field, value) in before.as_object().expect("an object") {
            // Identifiers that are columns too.
            let column = ["Key", "RegionId"].contains(&field.as_str())
                || (kind == "app_state" && field == "SmartAGId");
            assert!(column || after[field] == *value, "{kind} loses {field}: {value} is {}", after[field]);
        }
        kinds.insert(kind);
    }
    assert!(kinds.len() >= 17, "{kinds:?}");
}
