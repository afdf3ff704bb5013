//! Checks the parameters of a request against the catalogue, before anything else happens.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::params::{Params, separated};
use super::{Kind, Op, ParamSpec, Pattern};
use crate::error::ApiError;
use crate::time;

/// Refuses a request that the catalogue does not allow and fills in documented defaults.
pub fn validate(op: Op, params: &mut Params) -> Result<(), ApiError> {
    let changes = op.name().starts_with("Modify") || op.name().starts_with("Update");
    for p in op.spec().params {
        normalize(p, params);
        if p.list {
            check_list(op, p, params)?;
        } else if p.name.contains(".N.") {
            check_rows(op, p, params)?;
        } else {
            if let (None, Some(d), false) = (params.get(p.name), p.default, changes)
                && default_applies(p, d)
            {
                params.set(p.name, d);
            }
            match params.get(p.name) {
                Some(v) => check_value(op, p, v)?,
                None if p.required => return Err(missing(op, p.name)),
                None => {}
            }
        }
    }
    for p in op.spec().params {
        let Some((other, values)) = p.required_when else { continue };
        let holds = params.get(other).is_some_and(|v| values.contains(&v));
        if holds && params.get(p.name).is_none() {
            return Err(missing(op, p.name));
        }
    }
    Ok(())
}

/// Rows of a page; whoever wants more gets so many, in every list, and the answer says how many it has.
pub const LARGEST_PAGE: i64 = 100;

/// Brings what clients write in several ways into one.
fn normalize(p: &ParamSpec, params: &mut Params) {
    if p.list && params.list(p.name).is_empty() {
        // `Names=a,b` or `Names=["a","b"]` in the place of `Names.1=a&Names.2=b`.
        if let Some(values) = params.get(p.name).map(separated) {
            params.remove(p.name);
            for (n, value) in values.iter().enumerate() {
                params.set(&format!("{}.{}", p.name, n + 1), value);
            }
        }
        return;
    }
    let Some(value) = params.get(p.name) else { return };
    let other = match p.name {
        "PageSize" | "MaxResults" if value.parse::<i64>().is_ok_and(|n| n > LARGEST_PAGE) => {
            LARGEST_PAGE.to_string()
        }
        // The spelling of the documents.
        _ if p.kind == Kind::Text && !p.as_sent && !p.list => match choice(p, value) {
            Some(documented) if documented != value => documented.to_owned(),
            _ => return,
        },
        _ => return,
    };
    params.set(p.name, &other);
}

/// The value among those that are documented, whatever the case of its letters.
fn choice(p: &ParamSpec, value: &str) -> Option<&'static str> {
    p.choices.iter().find(|c| c.eq_ignore_ascii_case(value)).copied()
}

/// Defaults in words ("the current month") and defaults of search filters are not filled in.
fn default_applies(p: &ParamSpec, default: &str) -> bool {
    match p.kind {
        Kind::Int => default.parse::<i64>().is_ok(),
        Kind::Bool => false,
        Kind::Text => p.choices.contains(&default),
    }
}

fn check_list(op: Op, p: &ParamSpec, params: &Params) -> Result<(), ApiError> {
    let values = params.list(p.name);
    if values.is_empty() && p.required {
        return Err(missing(op, p.name));
    }
    if p.max_items.is_some_and(|max| values.len() as u64 > max) {
        return Err(invalid(op, p.name));
    }
    values.iter().try_for_each(|v| check_value(op, p, v))
}

/// `Tag.N.Key`: the numbered rows of a structured list.
fn check_rows(op: Op, p: &ParamSpec, params: &Params) -> Result<(), ApiError> {
    let Some((head, tail)) = p.name.split_once(".N.") else { return Ok(()) };
    for n in 1..=MAX_ROWS {
        if let Some(v) = params.get(&format!("{head}.{n}.{tail}")) {
            check_value(op, p, v)?;
        }
    }
    Ok(())
}

const MAX_ROWS: usize = 20;

pub(super) fn check_value(op: Op, p: &ParamSpec, v: &str) -> Result<(), ApiError> {
    let ok = v.len() <= MAX_VALUE
        && match p.kind {
            Kind::Int => v.parse::<i64>().is_ok_and(|n| in_range(p, n)),
            Kind::Bool => parse_bool(v).is_some(),
            Kind::Text => text_ok(p, v),
        };
    if ok { Ok(()) } else { Err(invalid(op, p.name)) }
}

/// No documented value comes near; longer ones are refused before they reach the store.
const MAX_VALUE: usize = 4096;

pub fn parse_bool(v: &str) -> Option<bool> {
    match v {
        "1" => Some(true),
        "0" => Some(false),
        v if v.eq_ignore_ascii_case("true") => Some(true),
        v if v.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn in_range(p: &ParamSpec, n: i64) -> bool {
    let listed = p.choices.is_empty() || p.choices.iter().any(|c| c.parse() == Ok(n));
    listed && (p.range.is_none_or(|(min, max)| (min..=max).contains(&n)) || p.also == Some(n))
}

fn text_ok(p: &ParamSpec, v: &str) -> bool {
    let count = v.chars().count() as i64;
    if p.length.is_some_and(|(min, max)| count < min || count > max) {
        return false;
    }
    if !p.choices.is_empty() && choice(p, v).is_none() {
        return false;
    }
    if p.range.is_some() && !v.parse::<i64>().is_ok_and(|n| in_range(p, n)) {
        return false;
    }
    if p.no_url && (v.starts_with("http://") || v.starts_with("https://")) {
        return false;
    }
    matches_pattern(p.pattern, v)
}

pub fn matches_pattern(pattern: Pattern, v: &str) -> bool {
    let first = v.chars().next();
    match pattern {
        Pattern::Any => true,
        Pattern::Alphanumeric => v.chars().all(|c| c.is_ascii_alphanumeric()),
        Pattern::Word => v.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)),
        Pattern::Label => v.chars().all(name_char),
        Pattern::Name => first.is_some_and(letter) && v.chars().all(name_char),
        Pattern::Text => first.is_some_and(letter),
        Pattern::Password => first.is_some_and(|c| c.is_ascii_alphanumeric()),
        Pattern::EnterpriseCode => {
            v.chars().all(|c| c.is_ascii_alphanumeric())
                && v.chars().any(|c| c.is_ascii_digit())
                && v.chars().any(|c| c.is_ascii_alphabetic())
        }
        Pattern::Cidr => parse_cidr(v).is_some(),
        Pattern::Ipv4 => v.parse::<Ipv4Addr>().is_ok(),
        Pattern::Port => v.eq_ignore_ascii_case(ANY_PORT) || v.parse::<u16>().is_ok_and(|n| n > 0),
        Pattern::PortRange => port_range(v).is_some(),
        Pattern::Month => month(v),
        Pattern::Time => time::parse(v).is_some(),
    }
}

/// In the place of a port: all of them.
pub const ANY_PORT: &str = "any";

/// Letters of any script: the documents name those of English and Chinese.
fn letter(c: char) -> bool {
    c.is_alphabetic()
}

fn name_char(c: char) -> bool {
    c.is_alphanumeric() || "._-".contains(c)
}

/// A CIDR block; host bits may be set (`192.168.0.1/24`), as the documents print them.
pub fn parse_cidr(v: &str) -> Option<Ipv4Net> {
    v.contains('/').then(|| v.parse::<Ipv4Net>().ok())?
}

/// `first/last`; `-1/-1` is any port.
pub fn port_range(v: &str) -> Option<(i32, i32)> {
    let (a, b) = v.split_once('/')?;
    let (a, b): (i32, i32) = (a.parse().ok()?, b.parse().ok()?);
    let any = a == -1 && b == -1;
    (any || ((1..=65535).contains(&a) && (a..=65535).contains(&b))).then_some((a, b))
}

fn month(v: &str) -> bool {
    v.len() == 6
        && v.bytes().all(|b| b.is_ascii_digit())
        && v[4..].parse().is_ok_and(|m: u32| (1..=12).contains(&m))
}

/// The documented code for a missing parameter of this operation.
pub fn missing(op: Op, name: &str) -> ApiError {
    // The two that the command line documents for every operation that takes them.
    let own = match name {
        "SmartAGSn" => Some("MissingSmartAGSn"),
        "SagId" => Some("MissingSagId"),
        _ => None,
    };
    if let Some(code) = own {
        return ApiError::new(400, code, format!("{name} is mandatory for this action."));
    }
    let bare = bare_name(name);
    let special: &[&str] = match name {
        "SmartAGId" | "SagId" | "InstanceId" => &["SAG.InstanceIdEmpty"],
        "UserName" | "Username" | "UserNames" => &["ClientUser.NameEmpty"],
        "UserMail" => &["ClientUser.EmailEmpty"],
        "ClientIp" => &["ClientUser.IpEmpty"],
        "CcnId" | "CcnInstanceId" => &["CCN.InvalidId"],
        "CcnUid" => &["CCN.InvalidUid"],
        _ => &[],
    };
    let mut codes = vec![
        format!("MissParameter.{name}"),
        format!("MissParameter.{bare}"),
        format!("MissingParam.{name}"),
    ];
    codes.extend(special.iter().map(|s| (*s).to_owned()));
    codes.extend(["MissingParameter".to_owned(), "MissingParam".to_owned()]);
    pick(op, &codes, "MissingParameter", &format!("The parameter {name} is missing."))
}

/// The documented code for a parameter whose value is not allowed.
pub fn invalid(op: Op, name: &str) -> ApiError {
    let bare = bare_name(name);
    let special: &[&str] = match name {
        "RegionId" => &["InvalidRegionID"],
        "SourcePortRange" | "DestPortRange" => &["InvalidPortRange"],
        "SourceCidr" | "DestCidr" => &["InvalidCidr"],
        "CidrBlock" => &["SAG.InvalidCidrFormat", "CCN.InvalidCidr", "InvalidCidr"],
        "SnatCidrBlock" => &["CCN.InvalidSnatCidr"],
        "DestCidrBlock" => &["RD.InvalidDestCidrBlock"],
        "Bandwidth" => &["ClientUser.BandwidthInvalid"],
        "UserName" | "Username" => &["ClientUser.NameInvalid"],
        "Password" => &["ClientUser.PasswordInvalid"],
        "UserMail" | "Email" => &["ClientUser.EmailInvalid"],
        "UserCount" => &["SAG.InvalidUserCount"],
        "DataPlan" => &["SAG.InvalidDataPlan"],
        "RoutingStrategy" => &["SAG.InvalidRoutingStrategy"],
        "InterworkingStatus" => &["CCN.InvalidInterworkingStatus"],
        "VersionComparator" => &["Param.InvalidVersionComparator"],
        "SerialNumber" => &["SAG.InvalidSerialNumber"],
        _ => &[],
    };
    let mut codes = vec![
        format!("InvalidParameter.{name}"),
        format!("InvalidParameter.{bare}"),
        format!("IllegalParam.{name}"),
        format!("HC.Invalid{name}"),
        format!("RD.Invalid{name}"),
        format!("Invalid{name}"),
    ];
    // An ACL rule's type has its own code.
    if name == "Type" {
        codes.push("ACL.InvalidType".to_owned());
    }
    codes.extend(special.iter().map(|s| (*s).to_owned()));
    codes.extend(["InvalidParameter".to_owned(), "IllegalParam".to_owned()]);
    pick(op, &codes, "InvalidParameter", &format!("The value of the parameter {name} is not allowed."))
}

/// `QosName` is documented as `Name` in the error tables, and so on.
fn bare_name(name: &str) -> &str {
    name.strip_prefix("Qos").filter(|s| *s == "Name" || *s == "Description").unwrap_or(name)
}

fn pick(op: Op, codes: &[String], fallback: &'static str, hint: &str) -> ApiError {
    let found = codes.iter().find_map(|c| op.error(c)).or_else(|| super::any_error(fallback));
    match found {
        Some(e) => ApiError::documented(e).with_hint(hint),
        None => ApiError::new(400, fallback, hint),
    }
}
