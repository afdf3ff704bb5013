//! Where a part of the routes ends, and the next one begins.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A place among the routes: a destination, as `10.0.0.0/8`, or one of a VRF, as `10.0.0.0/8@branch-a`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RoutePlace {
    /// The destination.
    pub destination: IpNet,
    /// The name of the VRF; `None`: the default one.
    pub vrf: Option<String>,
}

/// A text that is no place among the routes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no place among the routes; write a network, as 10.0.0.0/8, or network@VRF")]
pub struct RoutePlaceError(String);

impl fmt::Display for RoutePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.vrf {
            Some(vrf) => write!(f, "{}@{vrf}", self.destination),
            None => write!(f, "{}", self.destination),
        }
    }
}

impl From<RoutePlace> for String {
    fn from(place: RoutePlace) -> String {
        place.to_string()
    }
}

impl TryFrom<String> for RoutePlace {
    type Error = RoutePlaceError;

    fn try_from(text: String) -> Result<RoutePlace, RoutePlaceError> {
        text.parse()
    }
}

impl FromStr for RoutePlace {
    type Err = RoutePlaceError;

    fn from_str(text: &str) -> Result<RoutePlace, RoutePlaceError> {
        let (net, vrf) = match text.split_once('@') {
            Some((net, vrf)) => (net, Some(vrf)),
            None => (text, None),
        };
        match (net.parse::<IpNet>(), vrf) {
            (Ok(destination), None) => Ok(RoutePlace { destination, vrf: None }),
            (Ok(destination), Some(vrf)) if !vrf.is_empty() => {
                Ok(RoutePlace { destination, vrf: Some(vrf.to_owned()) })
            }
            _ => Err(RoutePlaceError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_as_it_is_read() {
        for (text, vrf) in
            [("10.0.0.0/8", None), ("2001:db8::/32@a.b", Some("a.b")), ("::/0@x@y", Some("x@y"))]
        {
            let place: RoutePlace = text.parse().unwrap();
            assert_eq!((place.to_string().as_str(), place.vrf.as_deref()), (text, vrf));
            let json = serde_json::to_string(&place).unwrap();
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<RoutePlace>(&json).unwrap(), place);
        }
        for bad in ["", "10.0.0.1", "10.0.0.0/33", "10.0.0.0/8@", "@a"] {
            let error = bad.parse::<RoutePlace>().unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
            assert!(serde_json::from_str::<RoutePlace>(&format!("{bad:?}")).is_err());
        }
    }
}
