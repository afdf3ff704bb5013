//! The lines to the Internet of a device: the tunnels to it end at each of them.

use std::net::IpAddr;

use crate::address::{AddressError, endpoint_address};
use crate::document::AnnouncedLine;

/// Lines of one device at most.
pub const MAX_LINES: usize = 4;
/// Characters of a line's name at most.
const MAX_NAME: usize = 16;
/// Of a line without one.
const WEIGHT: i64 = 100;

/// A line that is well formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What the device calls it: 1 to 16 letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Where its tunnels end.
    pub address: IpAddr,
    /// The lower, the better.
    pub priority: u16,
    /// Share among lines of one priority, 1 to 100.
    pub weight: u8,
}

/// Why lines cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinesError {
    /// More than [`MAX_LINES`].
    #[error("there are {0}; {MAX_LINES} are the limit")]
    TooMany(usize),
    /// A name is not made as it should be.
    #[error("{0:?} is no name of 1 to {MAX_NAME} letters, digits, \"-\", \"_\" and \".\"")]
    Name(String),
    /// An address is none, or none that others can reach.
    #[error("the address of line {0} is {1}")]
    Address(String, String),
    /// Two have one name or address.
    #[error("{0} is there twice")]
    Twice(String),
    /// A priority below 0 or above 65535, or a weight below 1 or above 100.
    #[error("priority or weight of line {0} is out of range")]
    Range(String),
}

/// Reads the lines of an announcement.
pub(crate) fn read(announced: &[AnnouncedLine]) -> Result<Vec<Line>, LinesError> {
    if announced.len() > MAX_LINES {
        return Err(LinesError::TooMany(announced.len()));
    }
    let mut out: Vec<Line> = Vec::with_capacity(announced.len());
    for a in announced {
        let address = endpoint_address(&a.address);
        let line = line(&a.name, address, a.priority.unwrap_or(0), a.weight.unwrap_or(WEIGHT))?;
        if out.iter().any(|other| other.name == line.name) {
            return Err(LinesError::Twice(line.name));
        }
        if out.iter().any(|other| other.address == line.address) {
            return Err(LinesError::Twice(line.address.to_string()));
        }
        out.push(line);
    }
    Ok(out)
}

impl Line {
    /// A line as a device may announce it.
    ///
    /// # Errors
    /// What others would not accept.
    pub fn new(name: &str, address: IpAddr, priority: i64, weight: i64) -> Result<Line, LinesError> {
        line(name, endpoint_address(&address.to_string()), priority, weight)
    }
}

fn line(
    name: &str,
    address: Result<IpAddr, AddressError>,
    priority: i64,
    weight: i64,
) -> Result<Line, LinesError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(plain) {
        return Err(LinesError::Name(name.chars().take(40).collect()));
    }
    let name = name.to_owned();
    let address = match address {
        Ok(address) => address,
        Err(AddressError::None(text)) => {
            return Err(LinesError::Address(name, format!("{text:?}, which is no IP address")));
        }
        Err(AddressError::Unreachable(address, what)) => {
            return Err(LinesError::Address(name, format!("{address}, {what}")));
        }
    };
    let weight = u8::try_from(weight).ok().filter(|w| (1..=100).contains(w));
    match (u16::try_from(priority), weight) {
        (Ok(priority), Some(weight)) => Ok(Line { name, address, priority, weight }),
        _ => Err(LinesError::Range(name)),
    }
}

impl From<&Line> for AnnouncedLine {
    fn from(l: &Line) -> AnnouncedLine {
        AnnouncedLine {
            name: l.name.clone(),
            address: l.address.to_string(),
            priority: Some(l.priority.into()),
            weight: Some(l.weight.into()),
        }
    }
}
