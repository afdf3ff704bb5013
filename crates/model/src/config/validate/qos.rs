//! `[[qos]]` with its CARs and policies.

use super::acl::{FiveTupleKeys, FiveTupleRaw, count_parts, five_tuple, unique_id};
use super::group::Groups;
use super::{Names, Seen};
use crate::config::keys::{Bandwidth, Port, Qos, QosCar, QosPolicy, RawQos, RawQosCar, RawQosPolicy};
use crate::config::report::{Path, Report};
use crate::config::schema::Key;
use crate::config::scope::{Opt, Scope};
use crate::config::types::{BURST_MS, CarLimit, LimitType, Mbps, PercentSource, TCP_WAIT_MS};
use crate::ids::Role;
use std::collections::HashMap;

pub(super) fn qos(
    raw: &[RawQos],
    bandwidth: Option<Bandwidth>,
    (names, groups): (&Names, &Groups),
    report: &mut Report<'_>,
) -> Vec<Qos> {
    let mut ids = Ids { qos: Seen::new(), cars: Seen::new(), policies: Seen::new() };
    let (mut cars_before, mut policies_before, mut parts) = (0, 0, 0);
    let mut out = Vec::with_capacity(raw.len());
    for (i, q) in raw.iter().enumerate() {
        let path = Path::ROOT.item("qos", i);
        let mut s = Scope::new(report, path, &q.span);
        let id = s.id(&q.id, "qos", i);
        if let Some(id) = &id {
            unique_id(&mut s, &q.id, id, &mut ids.qos);
        }
        let read = q.read(&mut s);
        let mut priorities = Seen::new();
        let mut cars = Vec::with_capacity(q.car.len());
        for (j, c) in q.car.iter().enumerate() {
            let mut s = Scope::new(s.report, path.item("car", j), &c.span);
            cars.extend(car(c, &mut s, cars_before + j, &mut ids, &mut priorities, bandwidth));
        }
        let known: Vec<i64> =
            q.car.iter().filter_map(|c| c.priority.as_ref()).map(|p| *p.get_ref()).collect();
        let mut policies = Vec::with_capacity(q.policy.len());
        for (j, p) in q.policy.iter().enumerate() {
            let mut s = Scope::new(s.report, path.item("policy", j), &p.span);
            let policy = policy(p, &mut s, policies_before + j, &mut ids, (&known, names, groups));
            count_parts(&mut s, &mut parts, policy.as_ref().map(|p| &p.tuple));
            policies.extend(policy);
        }
        cars_before += q.car.len();
        policies_before += q.policy.len();
        out.extend(id.and_then(|id| read.finish(id, cars, policies)));
    }
    out
}

const FLOORS_REMEDY: &str =
    "lower the committed rates (min_bandwidth_*): they are guaranteed, so their sum must be there";
const FLOORS_CODE: &str = "Sag.QosFloorsExceedLink";

/// A CAR and where it stands: the indexes of its QoS and of itself.
type Placed<'a> = (usize, usize, &'a QosCar);

/// The committed rates must fit the links: in percent of each source, and all of them together. The error is at the CARs
/// that do not fit beside those of higher priority.
pub(super) fn committed_rates(
    raw: &[RawQos],
    qos: &[Qos],
    bandwidth: Option<Bandwidth>,
    ports: &[Port],
    report: &mut Report<'_>,
) {
    let cars = placed(raw, qos);
    let (Some(bandwidth), false) = (bandwidth, cars.is_empty()) else { return };
    for (_, source) in PercentSource::WORDS {
        let of_source = |c: &QosCar| match c.limit {
            CarLimit::Percent { min, of, .. } if of == *source => u64::from(min),
            _ => 0,
        };
        let (sum, over) = beyond(&cars, 100, of_source);
        for car in over {
            does_not_fit(raw, car, format!("the committed rates add up to {sum} % of {source}"), report);
        }
    }
    let links = links(bandwidth, ports);
    // In hundredths of Mbit/s, which percentages come to.
    let rate = |c: &QosCar| c.limit.hundredths(&bandwidth).0;
    let sum: u64 = cars.iter().map(|(.., c)| rate(c)).sum();
    let over: Vec<_> = links.iter().filter_map(|(name, most)| Some((name, (*most)?))).collect();
    let over: Vec<_> = over.into_iter().filter(|(_, most)| sum > *most).collect();
    let text = |name: &String, most: u64| {
        format!(
            "the committed rates add up to {} Mbit/s, more than {name} = {}",
            sum.div_ceil(100),
            most / 100
        )
    };
    if let (Some((name, most)), true) = (over.first(), over.len() == links.len()) {
        let largest = over.iter().map(|(_, most)| *most).max().unwrap_or(0);
        for car in beyond(&cars, largest, rate).1 {
            does_not_fit(raw, car, text(name, *most), report);
        }
        return;
    }
    for (name, most) in over {
        let Some((i, _, _)) = cars.first() else { continue };
        let problem = format!("{}: not all of them can use that link", text(name, most));
        let mut s = Scope::new(report, Path::ROOT.item("qos", *i), &raw[*i].span);
        let at = raw[*i].car.first().map_or_else(|| raw[*i].span.clone(), |c| c.span.clone());
        s.warn(&at, "car", problem, "see that the policies keep below it there");
    }
}

/// The CARs that are right in other respects, by priority.
fn placed<'a>(raw: &[RawQos], qos: &'a [Qos]) -> Vec<Placed<'a>> {
    let known: HashMap<&str, &QosCar> =
        qos.iter().flat_map(|q| &q.cars).map(|c| (c.id.as_str(), c)).collect();
    let (mut n, mut out) = (0, Vec::new());
    for (i, q) in raw.iter().enumerate() {
        for (j, c) in q.car.iter().enumerate() {
            n += 1;
            let implied = format!("qoscar-{n}");
            let id = c.id.as_ref().map_or(implied.as_str(), |id| id.get_ref());
            out.extend(known.get(id).map(|car| (i, j, *car)));
        }
    }
    out.sort_by_key(|(.., c)| c.priority);
    out
}

/// The sum, and the CARs that go beyond `most` beside those before them.
fn beyond<'a>(cars: &[Placed<'a>], most: u64, rate: impl Fn(&QosCar) -> u64) -> (u64, Vec<Placed<'a>>) {
    let (mut sum, mut fits, mut over) = (0, 0, Vec::new());
    for car in cars {
        let rate = rate(car.2);
        sum += rate;
        if fits + rate <= most {
            fits += rate;
        } else {
            over.push(*car);
        }
    }
    (sum, over)
}

fn does_not_fit(raw: &[RawQos], (i, j, car): Placed<'_>, problem: String, report: &mut Report<'_>) {
    let at = &raw[i].car[j];
    let (key, value) = match car.limit {
        CarLimit::Absolute { .. } => ("min_bandwidth_abs", &at.min_bandwidth_abs),
        CarLimit::Percent { .. } => ("min_bandwidth_percent", &at.min_bandwidth_percent),
    };
    let span = value.as_ref().map_or_else(|| at.span.clone(), |v| v.span());
    let of = Path::ROOT.item("qos", i);
    Scope::new(report, of.item("car", j), &at.span).error(&span, key, problem, FLOORS_REMEDY, FLOORS_CODE);
}

/// The links of the gateway with what they carry, in hundredths of Mbit/s; none: without a bound.
fn links(bandwidth: Bandwidth, ports: &[Port]) -> Vec<(String, Option<u64>)> {
    let bound = |mbps: Option<Mbps>| mbps.map(|m| u64::from(m.0) * 100);
    let mut out = Vec::new();
    for (name, mbps) in [("bandwidth.ccn", bandwidth.ccn), ("bandwidth.internet_up", bandwidth.internet_up)] {
        out.extend(mbps.map(|m| (name.to_owned(), bound(Some(m)))));
    }
    for p in ports.iter().filter(|p| matches!(p.role, Role::Wan | Role::Express)) {
        let whole = if p.role == Role::Wan { bandwidth.internet_up } else { bandwidth.ccn };
        // What leaves by a port without a bound of its own is bounded by that of all such ports together.
        if p.bandwidth.is_some() || whole.is_none() {
            out.push((format!("the bandwidth of port {}", p.name), bound(p.bandwidth)));
        }
    }
    // A gateway of which nothing is bounded has no link that could be too small.
    if out.iter().all(|(_, most)| most.is_none()) {
        out.push(("the bandwidth".to_owned(), None));
    }
    out
}

struct Ids {
    qos: Seen<String>,
    cars: Seen<String>,
    policies: Seen<String>,
}

fn car(
    raw: &RawQosCar,
    s: &mut Scope<'_, '_>,
    n: usize,
    ids: &mut Ids,
    priorities: &mut Seen<u8>,
    bandwidth: Option<Bandwidth>,
) -> Option<QosCar> {
    let id = s.id(&raw.id, "qoscar", n);
    if let Some(id) = &id {
        unique_id(s, &raw.id, id, &mut ids.cars);
    }
    let read = raw.read(s);
    if let (Some(priority), Some(at)) = (read.priority, &raw.priority)
        && let Some(first) = priorities.repeated(priority, s.place(&at.span(), "priority"))
    {
        s.repeated(&at.span(), "priority", priority, &first, "Invalid.QosCar.Priority");
    }
    let limit = limit(raw, s, bandwidth);
    if let (Some(ms), Some(at)) = (read.burst_ms, &raw.burst_ms)
        && ms < TCP_WAIT_MS
    {
        let problem = format!("{ms} ms of the rate: TCP may not fill the peak rate");
        s.warn(
            &at.span(),
            "burst_ms",
            problem,
            format!("write {TCP_WAIT_MS} at least; {BURST_MS} is the default"),
        );
    }
    read.finish(id?, limit?)
}

/// The two keys of one form of the limit.
struct Bounds<'r> {
    min: (Key<u32>, &'r Opt<i64>),
    max: (Key<u32>, &'r Opt<i64>),
}

fn limit(raw: &RawQosCar, s: &mut Scope<'_, '_>, bandwidth: Option<Bandwidth>) -> Option<CarLimit> {
    let limit_type = QosCar::KEYS.limit_type.read(s, &raw.limit_type)?;
    let absolute = Bounds {
        min: (QosCar::KEYS.min_bandwidth_abs, &raw.min_bandwidth_abs),
        max: (QosCar::KEYS.max_bandwidth_abs, &raw.max_bandwidth_abs),
    };
    let percent = Bounds {
        min: (QosCar::KEYS.min_bandwidth_percent, &raw.min_bandwidth_percent),
        max: (QosCar::KEYS.max_bandwidth_percent, &raw.max_bandwidth_percent),
    };
    let (used, unused) = match limit_type {
        LimitType::Absolute => (absolute, percent),
        LimitType::Percent => (percent, absolute),
    };
    for (key, v) in [unused.min, unused.max] {
        if let Some(v) = v {
            s.warn(&v.span(), key.info.name, "has no meaning with this limit_type", "remove it");
        }
    }
    let bounds = bounds(s, &used);
    if limit_type == LimitType::Absolute {
        if let Some(v) = &raw.percent_source_type {
            s.warn(&v.span(), "percent_source_type", "has no meaning with this limit_type", "remove it");
        }
        let (min, max) = bounds?;
        return Some(CarLimit::Absolute { min, max });
    }
    let of = QosCar::KEYS.percent_source_type.read(s, &raw.percent_source_type);
    let ((min, max), of, bandwidth) = (bounds?, of?, bandwidth?);
    let (base, key) = match of {
        PercentSource::Ccn => (bandwidth.ccn, "bandwidth.ccn"),
        PercentSource::InternetUp => (bandwidth.internet_up, "bandwidth.internet_up"),
    };
    if let (None, Some(v)) = (base, &raw.percent_source_type) {
        let problem = format!("refers to {key}, which is unlimited, so this CAR limits nothing");
        s.warn(&v.span(), "percent_source_type", problem, format!("set {key}"));
    }
    Some(CarLimit::Percent { min: u8::try_from(min).ok()?, max: u8::try_from(max).ok()?, of })
}

fn bounds(s: &mut Scope<'_, '_>, b: &Bounds<'_>) -> Option<(u32, u32)> {
    let min = b.min.0.read(s, b.min.1);
    let max = b.max.0.read(s, b.max.1);
    let (min, max) = (min?, max?);
    if let (true, Some(at)) = (min > max, b.max.1) {
        let problem = format!("{max} is below {} = {min}", b.min.0.info.name);
        let remedy = "write a peak rate of at least the committed rate";
        s.error(&at.span(), b.max.0.info.name, problem, remedy, "InvalidBandwidthCompare");
        return None;
    }
    Some((min, max))
}

fn policy(
    raw: &RawQosPolicy,
    s: &mut Scope<'_, '_>,
    n: usize,
    ids: &mut Ids,
    (cars, names, groups): (&[i64], &Names, &Groups),
) -> Option<QosPolicy> {
    let id = s.id(&raw.id, "qospy", n);
    if let Some(id) = &id {
        unique_id(s, &raw.id, id, &mut ids.policies);
    }
    let mut read = raw.read(s);
    let vrf = names.check_rule_vrf(s, &raw.vrf);
    read.priority = read.priority.filter(|p| {
        let known = cars.contains(&i64::from(*p));
        if let (false, Some(at)) = (known, &raw.priority) {
            let problem = format!("no CAR of this QoS has priority {p}");
            let remedy = "write the priority of one of its [[qos.car]]";
            s.error(&at.span(), "priority", problem, remedy, "InvalidParameter.Priority");
        }
        known
    });
    const KEYS: FiveTupleKeys = FiveTupleKeys {
        protocol: QosPolicy::KEYS.ip_protocol,
        source: QosPolicy::KEYS.source_cidr,
        dest: QosPolicy::KEYS.dest_cidr,
        source_ports: QosPolicy::KEYS.source_port_range,
        dest_ports: QosPolicy::KEYS.dest_port_range,
    };
    let fields = FiveTupleRaw {
        protocol: &raw.ip_protocol,
        source: &raw.source_cidr,
        dest: &raw.dest_cidr,
        source_ports: &raw.source_port_range,
        dest_ports: &raw.dest_port_range,
    };
    let tuple = five_tuple(s, &fields, &KEYS, groups);
    let start = QosPolicy::KEYS.start_time.read(s, &raw.start_time);
    let end = QosPolicy::KEYS.end_time.read(s, &raw.end_time);
    if let (Some(Some(start)), Some(Some(end)), Some(at)) = (start, end, &raw.end_time)
        && end <= start
    {
        let problem = format!("{end} is not after start_time, {start}");
        s.error(&at.span(), "end_time", problem, "write a later time", "InvalidTimeRangeCompare");
    }
    vrf?;
    read.finish(id?, tuple?, start?, end?)
}
