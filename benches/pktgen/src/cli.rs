//! The command line.

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use sag_pktgen::place::Place;
use sag_pktgen::plan::{Order, Traffic};
use sag_pktgen::rig::{Devices, Trial};
use sag_pktgen::rules::{Family, Spared};
use sag_pktgen::units::{percent, rate};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// Traffic for measuring a gateway (XDP live frames), and the count of what comes out behind it.
///
/// Rates are frames a second (250000, 250k, 1.5M, max), sizes bytes with FCS, times seconds, latencies
/// nanoseconds. Needs root and Linux 5.18. The receiving end of a veth pair takes frames only with an XDP
/// program or GRO on (`ethtool -K DEV gro on`).
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub struct RigArgs {
    #[command(flatten)]
    pub devices: Devices,
    #[command(flatten)]
    pub traffic: Traffic,
}

#[derive(Debug, Args)]
pub struct TrialArgs {
    /// Frames to send; 0: until the time is over
    #[arg(long, default_value_t = 0)]
    pub frames: u64,
    /// Seconds after which the trial ends at the latest; 0: when the frames are sent
    #[arg(long, default_value_t = 0.0)]
    pub seconds: f64,
    /// Frames a second
    #[arg(long, value_parser = rate, default_value = "max")]
    pub rate: f64,
    /// Frames under way at most; 0: any number
    #[arg(long, default_value_t = 0)]
    pub window: u64,
    /// Order of the flows
    #[arg(long, value_enum, default_value = "shuffled")]
    pub order: Order,
}

impl TrialArgs {
    pub fn trial(&self) -> Trial {
        let &TrialArgs { frames, seconds, rate, window, order } = self;
        Trial { frames, seconds, rate, window, order, ..Trial::default() }
    }
}

#[derive(Debug, Args)]
pub struct SearchArgs {
    /// Loss that is allowed, percent of the frames: 0, or 0.5 for the partial drop rate
    #[arg(long, value_parser = percent, default_value = "0")]
    pub loss: f64,
    /// Lowest rate
    #[arg(long, value_parser = rate, default_value = "1000")]
    pub min: f64,
    /// Highest rate; max: what the source sends when it is not held back
    #[arg(long, value_parser = rate, default_value = "max")]
    pub max: f64,
    /// Width of the result, percent of it
    #[arg(long, value_parser = percent, default_value = "1")]
    pub precision: f64,
    /// Seconds of a trial
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
}

/// Addresses that rules let pass.
#[derive(Debug, Args)]
pub struct SparedArgs {
    #[arg(long, default_value = "10.0.1.0")]
    src: IpAddr,
    /// Source addresses from there
    #[arg(long, default_value_t = 256)]
    sources: u32,
    #[arg(long, default_value = "198.51.100.1")]
    dst: IpAddr,
    /// Destination addresses from there
    #[arg(long, default_value_t = 64)]
    remotes: u32,
    #[arg(long, default_value_t = 53)]
    dport: u16,
}

impl SparedArgs {
    pub fn spared(&self) -> Result<Spared> {
        let range = |first: IpAddr, n: u32| {
            let more = n.saturating_sub(1);
            let last = match first {
                IpAddr::V4(a) => u32::from(a).checked_add(more).map(|a| IpAddr::V4(Ipv4Addr::from(a))),
                IpAddr::V6(a) => {
                    u128::from(a).checked_add(more.into()).map(|a| IpAddr::V6(Ipv6Addr::from(a)))
                }
            };
            match last {
                Some(last) => Ok((first, last)),
                None => bail!("{n} addresses from {first} are beyond the last one"),
            }
        };
        Ok(Spared {
            src: range(self.src, self.sources)?,
            dst: range(self.dst, self.remotes)?,
            dport: self.dport,
        })
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// One trial
    Run {
        #[command(flatten)]
        rig: RigArgs,
        #[command(flatten)]
        trial: TrialArgs,
    },
    /// The highest rate at which no more is lost than allowed (RFC 2544 section 26.1: binary search)
    Throughput {
        #[command(flatten)]
        rig: RigArgs,
        #[command(flatten)]
        search: SearchArgs,
    },
    /// Latencies at shares of a rate (RFC 2544 section 26.2)
    Latency {
        #[command(flatten)]
        rig: RigArgs,
        /// The rate; max: what the source sends when it is not held back
        #[arg(long, value_parser = rate, default_value = "max")]
        of: f64,
        /// Shares of it, percent
        #[arg(long, value_parser = percent, value_delimiter = ',', default_value = "10,50,90")]
        load: Vec<f64>,
        /// Seconds of a trial
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
    /// Loss by offered load, from a rate down (RFC 2544 section 26.3)
    Loss {
        #[command(flatten)]
        rig: RigArgs,
        /// The rate; max: what the source sends when it is not held back
        #[arg(long, value_parser = rate, default_value = "max")]
        of: f64,
        /// Steps from it down to nothing
        #[arg(long, default_value_t = 10)]
        steps: u32,
        /// Seconds of a trial
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
    /// The longest burst of which nothing is lost (RFC 2544 section 26.4)
    BackToBack {
        #[command(flatten)]
        rig: RigArgs,
        /// Frames at most
        #[arg(long, default_value_t = 1_000_000)]
        max: u64,
    },
    /// Every frame a new flow, as fast as they come through
    NewFlows {
        #[command(flatten)]
        rig: RigArgs,
        /// Frames under way at most
        #[arg(long, default_value_t = 512)]
        window: u64,
    },
    /// Frames of a pcap or pcapng file, in turns (65536 frames at most)
    Replay {
        #[command(flatten)]
        rig: RigArgs,
        file: PathBuf,
        /// Keep the distances between the frames (4 s at most)
        #[arg(long)]
        timed: bool,
        #[command(flatten)]
        trial: TrialArgs,
    },
    /// Trials as they come on standard input, JSON, one a line: keys frames, seconds, rate (0: max),
    /// window, flows, order, resume, settle_ms; answers on standard output
    Serve {
        #[command(flatten)]
        rig: RigArgs,
    },
    /// A bare XDP redirect from one device to another, until standard input ends: the limit of what a
    /// gateway can reach
    Bare {
        /// Device that frames come in by, NAMESPACE:DEVICE
        #[arg(long)]
        from: Place,
        /// Device that they leave by
        #[arg(long)]
        to: Place,
        /// Looks at memory for every frame, each at a line that the one before names: what a flow table
        /// costs at least. Frames of this generator, IPv4
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=2))]
        looks: u32,
        /// Flows with lines of their own, for --looks
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
        flows: u32,
        /// The devices may be in the network namespace that this is called in
        #[arg(long)]
        dev: bool,
    },
    /// A rule set in the style of a ClassBench family, JSON, one rule a line; rules that may match the
    /// traffic given accept, the others drop
    Rules {
        #[arg(long, value_enum, default_value = "acl")]
        family: Family,
        #[arg(long, default_value_t = 1000)]
        count: usize,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        traffic: SparedArgs,
    },
}
