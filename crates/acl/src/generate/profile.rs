//! The statistics behind the styles: weights of address reaches, port classes and protocols.

use super::rng::Rng;
use crate::rule::PortRange;

/// Family of rule sets, after the seed files of ClassBench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Style {
    /// Access lists: specific addresses, exact destination ports.
    Acl = 1,
    /// Firewalls: one address often open, many port ranges, much overlap.
    Fw = 2,
    /// IP chains: between the two.
    Ipc = 3,
}

impl Style {
    /// All styles.
    pub const ALL: [Style; 3] = [Style::Acl, Style::Fw, Style::Ipc];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Style::Acl => "acl",
            Style::Fw => "fw",
            Style::Ipc => "ipc",
        }
    }
}

/// How many addresses a prefix holds.
#[derive(Debug, Clone, Copy)]
pub enum Reach {
    Any,
    Wide,
    Net,
    Part,
    Host,
}

#[derive(Debug, Clone, Copy)]
pub enum Ports {
    Any,
    /// Below 1024.
    Low,
    /// From 1024.
    High,
    Exact,
    Range,
}

const WELL_KNOWN: [u16; 24] = [
    80, 443, 25, 53, 22, 21, 23, 110, 143, 161, 389, 445, 993, 995, 1433, 1521, 3306, 3389, 5060, 5432, 8080,
    8443, 123, 514,
];

impl Ports {
    pub fn range(self, rng: &mut Rng) -> PortRange {
        let between = |lo: u16, hi: u16| PortRange::new(lo, hi).unwrap_or(PortRange::ANY);
        match self {
            Ports::Any => PortRange::ANY,
            Ports::Low => between(0, 1023),
            Ports::High => between(1024, u16::MAX),
            Ports::Exact if rng.below(4) > 0 => PortRange::single(WELL_KNOWN[rng.skewed(WELL_KNOWN.len())]),
            Ports::Exact => PortRange::single(1024 + 7 * rng.below(600) as u16),
            Ports::Range => {
                let lo = 100 * (1 + rng.below(300) as u16);
                between(lo, lo + [1, 4, 9, 99, 255, 999, 4999][rng.below(7)])
            }
        }
    }
}

pub struct Profile {
    /// Source and destination.
    pub reach: &'static [(u32, (Reach, Reach))],
    /// Source and destination.
    pub ports: &'static [(u32, (Ports, Ports))],
    pub protos: &'static [(u32, Option<u8>)],
}

impl Profile {
    pub fn of(style: Style) -> &'static Profile {
        match style {
            Style::Acl => &ACL,
            Style::Fw => &FW,
            Style::Ipc => &IPC,
        }
    }
}

use Reach::{Any as A, Host as H, Net as N, Part as P, Wide as W};

static ACL: Profile = Profile {
    reach: &[
        (22, (N, H)),
        (20, (H, H)),
        (16, (P, H)),
        (12, (H, N)),
        (8, (N, N)),
        (6, (P, N)),
        (4, (W, H)),
        (4, (W, N)),
        (3, (P, P)),
        (3, (A, H)),
        (1, (A, N)),
        (1, (H, A)),
    ],
    ports: &[
        (52, (Ports::Any, Ports::Exact)),
        (24, (Ports::Any, Ports::Any)),
        (15, (Ports::Any, Ports::Range)),
        (5, (Ports::Any, Ports::High)),
        (2, (Ports::High, Ports::Exact)),
        (2, (Ports::Exact, Ports::Any)),
    ],
    protos: &[(76, Some(6)), (13, Some(17)), (5, Some(1)), (6, None)],
};

static FW: Profile = Profile {
    reach: &[
        (20, (A, H)),
        (12, (A, N)),
        (4, (A, P)),
        (14, (H, A)),
        (8, (N, A)),
        (2, (P, A)),
        (14, (H, H)),
        (8, (N, H)),
        (6, (H, N)),
        (4, (N, N)),
        (3, (W, H)),
        (3, (H, W)),
        (2, (W, W)),
    ],
    ports: &[
        (26, (Ports::Any, Ports::Any)),
        (26, (Ports::Any, Ports::Exact)),
        (14, (Ports::High, Ports::Exact)),
        (8, (Ports::Any, Ports::Range)),
        (6, (Ports::High, Ports::Any)),
        (6, (Ports::High, Ports::High)),
        (6, (Ports::Exact, Ports::Any)),
        (4, (Ports::Exact, Ports::High)),
        (2, (Ports::Low, Ports::Any)),
        (2, (Ports::Any, Ports::High)),
    ],
    protos: &[(58, Some(6)), (24, Some(17)), (6, Some(1)), (3, Some(47)), (2, Some(50)), (7, None)],
};

static IPC: Profile = Profile {
    reach: &[
        (26, (H, H)),
        (14, (N, H)),
        (14, (H, N)),
        (12, (N, N)),
        (6, (A, H)),
        (5, (H, A)),
        (6, (P, H)),
        (5, (A, N)),
        (4, (N, A)),
        (3, (W, N)),
        (3, (N, W)),
        (2, (W, W)),
    ],
    ports: &[
        (46, (Ports::Any, Ports::Any)),
        (22, (Ports::Any, Ports::Exact)),
        (10, (Ports::Exact, Ports::Any)),
        (8, (Ports::Any, Ports::Range)),
        (5, (Ports::Exact, Ports::Exact)),
        (5, (Ports::High, Ports::Exact)),
        (4, (Ports::Any, Ports::High)),
    ],
    protos: &[(52, Some(6)), (26, Some(17)), (8, Some(1)), (3, Some(50)), (11, None)],
};
