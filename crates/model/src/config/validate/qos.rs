//! `[[qos]]` with its CARs and policies.

use super::Seen;
use super::acl::{TupleCodes, TupleFields, five_tuple, unique_id};
use super::dataplane::MAX_MBPS;
use super::scope::Scope;
use crate::config::raw::{RawQos, RawQosCar, RawQosPolicy};
use crate::config::read::Opt;
use crate::config::report::{Path, Report};
use crate::config::types::{
    BURST_MS, Bandwidth, CarLimit, PercentSource, Port, Qos, QosCar, QosPolicy, TCP_WAIT_MS,
};
use crate::config::value;
use crate::ids::Role;

pub(super) fn qos(raw: &[RawQos], bandwidth: Option<Bandwidth>, report: &mut Report<'_>) -> Vec<Qos> {
    let mut ids = Ids { qos: Seen::new(), cars: Seen::new(), policies: Seen::new() };
    let (mut cars_before, mut policies_before) = (0, 0);
    let mut out = Vec::with_capacity(raw.len());
    for (i, q) in raw.iter().enumerate() {
        let path = Path::ROOT.item("qos", i);
        let mut s = Scope::new(report, path, &q.span);
        let id = s.id(&q.id, "qos", i);
        if let Some(id) = &id {
            unique_id(&mut s, &q.id, id, &mut ids.qos);
        }
        let name = s.label("name", &q.name, 128, "InvalidParameter.Name");
        let description = s.label("description", &q.description, 512, "InvalidParameter.Description");
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
            policies.extend(policy(p, &mut s, policies_before + j, &mut ids, &known));
        }
        cars_before += q.car.len();
        policies_before += q.policy.len();
        if let (Some(id), Some(name), Some(description)) = (id, name, description) {
            out.push(Qos { id, name, description, cars, policies });
        }
    }
    out
}

/// What the floors promise together must be there: per source of percentages, and for all of them on
/// the links.
pub(super) fn floors(
    raw: &[RawQos],
    qos: &[Qos],
    bandwidth: Option<Bandwidth>,
    ports: &[Port],
    report: &mut Report<'_>,
) {
    let (Some(bandwidth), Some((i, first))) =
        (bandwidth, raw.iter().enumerate().find(|(_, q)| !q.car.is_empty()))
    else {
        return;
    };
    let path = Path::ROOT.item("qos", i);
    let mut s = Scope::new(report, path, &first.span);
    let at = first.car.first().map_or_else(|| first.span.clone(), |c| c.span.clone());
    let cars = || qos.iter().flat_map(|q| &q.cars);
    const REMEDY: &str = "lower the floors; a floor is guaranteed, so their sum must be there";
    const CODE: &str = "Sag.QosFloorsExceedLink";
    for (_, source) in PercentSource::WORDS {
        let of_source = |c: &QosCar| match c.limit {
            CarLimit::Percent { min, of, .. } if of == *source => u32::from(min),
            _ => 0,
        };
        let sum: u32 = cars().map(of_source).sum();
        if sum > 100 {
            s.error(&at, "car", format!("the floors add up to {sum} % of {source}"), REMEDY, CODE);
        }
    }
    // In hundredths of Mbit/s, which percentages come to.
    let sum: u64 = cars().map(|c| c.limit.hundredths(&bandwidth).0).sum();
    let links = [("bandwidth.ccn", bandwidth.ccn), ("bandwidth.internet_up", bandwidth.internet_up)];
    let of_ports = ports
        .iter()
        .filter(|p| matches!(p.role, Role::Wan | Role::Express))
        .map(|p| (format!("the bandwidth of port {}", p.name), p.bandwidth));
    let links: Vec<(String, u64)> = links
        .map(|(name, mbps)| (name.to_owned(), mbps))
        .into_iter()
        .chain(of_ports)
        .filter_map(|(name, mbps)| Some((name, u64::from(mbps?.0) * 100)))
        .collect();
    let over: Vec<_> = links.iter().filter(|(_, most)| sum > *most).collect();
    if let (Some((name, most)), true) = (over.first(), over.len() == links.len()) {
        let problem =
            format!("the floors add up to {} Mbit/s, more than {name} = {}", sum.div_ceil(100), most / 100);
        s.error(&at, "car", problem, REMEDY, CODE);
    } else {
        for (name, most) in over {
            let problem = format!(
                "the floors add up to {} Mbit/s, more than {name} = {}: not all of them can use that link",
                sum.div_ceil(100),
                most / 100
            );
            s.warn(&at, "car", problem, "see that the policies keep below it there");
        }
    }
}

struct Ids {
    qos: Seen<String>,
    cars: Seen<String>,
    policies: Seen<String>,
}

/// The `priority` of CARs and policies.
fn priority(s: &mut Scope<'_, '_>, v: &Opt<i64>) -> Option<u8> {
    s.need("priority", v, "write a number from 1 to 7", "MissParameter.Priority")?;
    s.number("priority", v, 1..=7, 1, "InvalidParameter.Priority")
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
    let name = s.label("name", &raw.name, 128, "InvalidParameter.Name");
    let description = s.label("description", &raw.description, 512, "InvalidParameter.Description");
    let priority = priority(s, &raw.priority);
    if let (Some(priority), Some(at)) = (priority, &raw.priority)
        && let Some(first) = priorities.repeated(priority, s.place(&at.span(), "priority"))
    {
        s.repeated(&at.span(), "priority", priority, &first, "Invalid.QosCar.Priority");
    }
    let limit = limit(raw, s, bandwidth);
    let burst_ms = s.number("burst_ms", &raw.burst_ms, 1..=10_000, BURST_MS, "");
    if let (Some(ms), Some(at)) = (burst_ms, &raw.burst_ms)
        && ms < TCP_WAIT_MS
    {
        let problem = format!("{ms} ms of the rate: TCP may not fill the ceiling");
        s.warn(
            &at.span(),
            "burst_ms",
            problem,
            format!("write {TCP_WAIT_MS} at least; {BURST_MS} is the default"),
        );
    }
    let remark_dscp = s.maybe("remark_dscp", &raw.remark_dscp, "InvalidParameter", |t| value::dscp(&t.0));
    Some(QosCar {
        id: id?,
        name: name?,
        description: description?,
        priority: priority?,
        limit: limit?,
        burst_ms: burst_ms?,
        remark_dscp: remark_dscp?,
    })
}

/// What one way of stating the limit consists of.
struct Bounds<'r> {
    min: (&'static str, &'r Opt<i64>),
    max: (&'static str, &'r Opt<i64>),
    least: (i64, i64),
    most: i64,
    missing: (&'static str, &'static str),
}

fn limit(raw: &RawQosCar, s: &mut Scope<'_, '_>, bandwidth: Option<Bandwidth>) -> Option<CarLimit> {
    const TYPES: &[(&str, bool)] = &[("Absolute", true), ("Percent", false)];
    let code =
        if raw.limit_type.is_some() { "InvalidParameter.LimitType" } else { "MissParameter.LimitType" };
    let is_absolute = s.word("limit_type", &raw.limit_type, TYPES, None, code)?;
    let absolute = Bounds {
        min: ("min_bandwidth_abs", &raw.min_bandwidth_abs),
        max: ("max_bandwidth_abs", &raw.max_bandwidth_abs),
        least: (0, 1),
        most: MAX_MBPS,
        missing: ("MissParameter.MinBandwidthAbs", "MissParameter.MaxBandwidthAbs"),
    };
    let percent = Bounds {
        min: ("min_bandwidth_percent", &raw.min_bandwidth_percent),
        max: ("max_bandwidth_percent", &raw.max_bandwidth_percent),
        least: (1, 1),
        most: 100,
        missing: ("MissParameter.MinBandwidthPercent", "MissParameter.MaxBandwidthPercent"),
    };
    let (used, unused) = if is_absolute { (absolute, percent) } else { (percent, absolute) };
    for (key, v) in [unused.min, unused.max] {
        if let Some(v) = v {
            s.warn(&v.span(), key, "has no meaning with this limit_type", "remove it");
        }
    }
    let bounds = bounds(s, &used);
    if is_absolute {
        if let Some(v) = &raw.percent_source_type {
            s.warn(&v.span(), "percent_source_type", "has no meaning with this limit_type", "remove it");
        }
        let (min, max) = bounds?;
        return Some(CarLimit::Absolute { min, max });
    }
    let code = match raw.percent_source_type {
        Some(_) => "InvalidParameter.PercentSourceType",
        None => "MissParameter.PercentSourceType",
    };
    let of = s.word("percent_source_type", &raw.percent_source_type, PercentSource::WORDS, None, code);
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
    let mut one = |(key, v): (&str, &Opt<i64>), least: i64, missing: &str| -> Option<u32> {
        s.need(key, v, &format!("write a number from {least} to {}", b.most), missing)?;
        s.number(key, v, least..=b.most, 0, "InvalidParameter")
    };
    let min = one(b.min, b.least.0, b.missing.0);
    let max = one(b.max, b.least.1, b.missing.1);
    let (min, max) = (min?, max?);
    if let (true, Some(at)) = (min > max, b.max.1) {
        let problem = format!("{max} is below {} = {min}", b.min.0);
        s.error(
            &at.span(),
            b.max.0,
            problem,
            "write a ceiling of at least the floor",
            "InvalidBandwidthCompare",
        );
        return None;
    }
    Some((min, max))
}

const POLICY_CODES: TupleCodes = TupleCodes {
    protocol: ("MissParameter.IpProtocol", "NotSupportedProtocol"),
    source: ("MissParameter.SourceCidr", "InvalidParameter.SourceCidr"),
    dest: ("MissParameter.DestCidr", "InvalidParameter.DestCidr"),
    source_ports: "InvalidParameter.SourcePortRange",
    dest_ports: "InvalidParameter.DestPortRange",
};

fn policy(
    raw: &RawQosPolicy,
    s: &mut Scope<'_, '_>,
    n: usize,
    ids: &mut Ids,
    cars: &[i64],
) -> Option<QosPolicy> {
    let id = s.id(&raw.id, "qospy", n);
    if let Some(id) = &id {
        unique_id(s, &raw.id, id, &mut ids.policies);
    }
    let name = s.label("name", &raw.name, 128, "InvalidParameter.Name");
    let description = s.label("description", &raw.description, 512, "InvalidParameter.Description");
    let priority = priority(s, &raw.priority).filter(|p| {
        let known = cars.contains(&i64::from(*p));
        if let (false, Some(at)) = (known, &raw.priority) {
            let problem = format!("no CAR of this QoS has priority {p}");
            let remedy = "write the priority of one of its [[qos.car]]";
            s.error(&at.span(), "priority", problem, remedy, "InvalidParameter.Priority");
        }
        known
    });
    let fields = TupleFields {
        protocol: &raw.ip_protocol,
        source: &raw.source_cidr,
        dest: &raw.dest_cidr,
        source_ports: &raw.source_port_range,
        dest_ports: &raw.dest_port_range,
    };
    let tuple = five_tuple(s, &fields, &POLICY_CODES);
    let dscp = s.maybe("dscp", &raw.dscp, "InvalidParameter", |t| value::dscp(&t.0));
    let start =
        s.maybe("start_time", &raw.start_time, "InvalidParameter.StartTime", |t| value::timestamp(&t.0));
    let end = s.maybe("end_time", &raw.end_time, "InvalidParameter.EndTime", |t| value::timestamp(&t.0));
    if let (Some(Some(start)), Some(Some(end)), Some(at)) = (start, end, &raw.end_time)
        && end <= start
    {
        let problem = format!("{end} is not after start_time, {start}");
        s.error(&at.span(), "end_time", problem, "write a later time", "InvalidTimeRangeCompare");
    }
    Some(QosPolicy {
        id: id?,
        name: name?,
        description: description?,
        priority: priority?,
        tuple: tuple?,
        dscp: dscp?,
        start: start?,
        end: end?,
    })
}
