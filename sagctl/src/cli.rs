//! The command line.

mod filter;
mod nat;
mod tunnels;

use crate::page::Page;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use filter::FilterArgs;
use ipnet::IpNet;
use nat::NatArgs;
use sag_manual::Manual;
use sag_model::Dscp;
use sag_model::config;
use sag_model::control::{
    AclQuery, DEFAULT_SOCKET, ExplainQuery, IpProto, RoutePlace, RouteQuery, SessionQuery, SessionSort,
    TopBy, TopGroup, TopQuery,
};
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
pub use tunnels::{TunnelsArgs, TunnelsCommand};

/// See and change a running sag-vcpe gateway.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// Control socket of the gateway (dataplane.control of its configuration)
    #[arg(long, global = true, env = "SAG_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub socket: PathBuf,
    /// Print the gateway's answer as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Do not fit tables to the terminal
    #[arg(long, global = true)]
    pub wide: bool,
    /// Colours
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
    #[command(subcommand)]
    pub task: Task,
}

#[derive(Debug, Subcommand)]
pub enum Task {
    #[command(flatten)]
    Ask(Command),
    #[command(flatten)]
    Local(Local),
}

/// What needs no gateway.
#[derive(Debug, Subcommand)]
pub enum Local {
    /// BGP and OSPF: FRR's daemons, their neighbors, and routes by source; no gateway is asked
    Routing {
        /// Directory of the routing service [default: the only one in /run/sag-routing]
        #[arg(long, value_name = "PATH")]
        dir: Option<PathBuf>,
    },
    /// DHCP on LAN ports: ranges, relays and leases; no gateway is asked
    Dhcp(LanArgs),
    /// DNS forwarder of LAN ports: servers, and domains with their own; no gateway is asked
    Dns(LanArgs),
    /// Completions for a shell, as in `source <(sagctl completions bash)`
    Completions { shell: Shell },
    /// Man pages and completions, for packages
    #[command(hide = true)]
    Manual(Manual),
}

#[derive(Debug, Args)]
pub struct LanArgs {
    /// Directory of the agent's services of LAN ports [default: the only one in /run/sag-lan]
    #[arg(long, value_name = "PATH")]
    pub dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// If the output is a terminal and NO_COLOR is not set
    Auto,
    Always,
    Never,
}

/// What a gateway is asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Version, configuration, sessions, workers, warnings
    Status(Watch),
    /// Ports, their capabilities and their packet counters
    Ports(Watch),
    /// Packets dropped, by port and reason
    Drops(Watch),
    /// ACL rules in force, their hits, and findings about them
    Acl(AclArgs),
    /// QoS: bandwidths and CARs against what is measured, and policies
    Qos(Watch),
    /// NAT: entries, pools of ports, and who holds which
    Nat(NatArgs),
    /// Routes that the gateway forwards by
    Routes(RouteArgs),
    /// Live sessions
    Sessions(Box<SessionsArgs>),
    /// Tunnels: state, ends, MTU, and what they have carried; keys
    Tunnels(TunnelsArgs),
    /// The peer to which sessions follow
    Ha(HaArgs),
    /// Who uses most
    Top(Box<TopArgs>),
    /// What would become of a packet, stage by stage
    Explain(ExplainArgs),
    /// The running configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make the gateway read its configuration file again
    Reload,
}

#[derive(Debug, Args)]
pub struct Watch {
    /// Repeat every so many seconds and show rates
    #[arg(long, short, value_name = "SECONDS", value_parser = seconds)]
    pub watch: Option<Duration>,
    /// Stop after so many repetitions
    #[arg(long, value_name = "N", requires = "watch")]
    pub rounds: Option<u64>,
}

#[derive(Debug, Args)]
pub struct HaArgs {
    /// Print no report; the exit code is 0 if the gateway may get the traffic: it has the peer's sessions, or
    /// has had no peer for 5 s
    #[arg(long)]
    pub check: bool,
}

#[derive(Debug, Args)]
pub struct AclArgs {
    /// Only this ACL
    id: Option<String>,
    /// What rules with log = true have judged last, in place of the rules
    #[arg(long)]
    pub log: bool,
}

#[derive(Debug, Args)]
pub struct RouteArgs {
    /// Only routes that cover this address
    #[arg(value_name = "ADDRESS", conflicts_with_all = ["within", "after"])]
    covers: Option<IpAddr>,
    /// Only routes to networks within this one
    #[arg(long, value_name = "NETWORK")]
    within: Option<IpNet>,
    /// Only routes behind this one, as the answer before has it at its end
    #[arg(long, value_name = "NETWORK[@VRF]")]
    after: Option<RoutePlace>,
    /// At most so many, no more than 20000 [default: 10000]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SessionsArgs {
    /// Order
    #[arg(long, value_enum, default_value_t = SortArg::Bytes)]
    sort: SortArg,
    /// At most so many [default: 100]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Only their number
    #[arg(long)]
    count: bool,
    // Last, because its heading goes on.
    #[command(flatten)]
    filter: FilterArgs,
    #[command(subcommand)]
    pub command: Option<SessionsCommand>,
}

#[derive(Debug, Subcommand)]
pub enum SessionsCommand {
    /// Forget the sessions that agree with every option; their next packets are checked by the rules again
    Flush {
        /// Every session
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        filter: FilterArgs,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SortArg {
    Bytes,
    Packets,
    Age,
    Idle,
}

#[derive(Debug, Args)]
pub struct TopArgs {
    /// What one line stands for
    #[arg(long, value_enum, default_value_t = GroupArg::Src)]
    group: GroupArg,
    /// What the order goes by
    #[arg(long, value_enum, default_value_t = ByArg::Bytes)]
    by: ByArg,
    /// At most so many lines [default: 20]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    #[command(flatten)]
    pub watch: Watch,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum GroupArg {
    /// Source address
    Src,
    /// Destination address
    Dst,
    /// Protocol and destination port
    Service,
    /// One session
    Session,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ByArg {
    Bytes,
    Packets,
    Sessions,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Port of the gateway on which the packet arrives
    #[arg(long, value_name = "NAME", required_unless_present = "vrf")]
    port: Option<String>,
    /// VRF from which it comes ("default" is the one without a name), in place of the port by which its source is reached
    #[arg(long, value_name = "NAME")]
    vrf: Option<String>,
    /// Protocol, by name or number
    #[arg(long, default_value = "tcp")]
    proto: IpProto,
    #[arg(long, help = "Source: 192.0.2.1, 192.0.2.1:5000 or [2001:db8::1]:5000", value_name = "ADDRESS[:PORT]", value_parser = endpoint)]
    src: Endpoint,
    /// Destination, likewise
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = endpoint)]
    dst: Endpoint,
    /// Source port, or identifier of an echo request
    #[arg(long, value_name = "N")]
    sport: Option<u16>,
    /// Destination port
    #[arg(long, value_name = "N")]
    dport: Option<u16>,
    /// Length of the IP packet
    #[arg(long, value_name = "BYTES")]
    length: Option<u16>,
    /// TTL or hop limit
    #[arg(long, value_name = "N")]
    ttl: Option<u8>,
    /// DSCP of the packet: 0..63, or a name such as EF
    #[arg(long, value_name = "DSCP")]
    dscp: Option<Dscp>,
    /// Flags of the TCP segment, such as syn or syn,ack; ack if absent
    #[arg(long, value_name = "FLAGS", value_parser = tcp_flags)]
    tcp_flags: Option<u8>,
    /// Type of the ICMP message, by name or number; echo-request if absent
    #[arg(long, value_name = "TYPE")]
    icmp_type: Option<String>,
    /// Code of the ICMP message, by name or number
    #[arg(long, value_name = "CODE", requires = "icmp_type")]
    icmp_code: Option<String>,
}

fn tcp_flags(text: &str) -> Result<u8, String> {
    config::tcp_flags(text).ok_or_else(|| "not a list of fin, syn, rst, psh, ack, urg, ece, cwr".into())
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the running document
    Show,
    /// Validate a document and make it the running one
    Apply {
        /// TOML file, or - for standard input
        file: PathBuf,
    },
    /// Validate a document and show what applying it would change
    Diff {
        /// TOML file, or - for standard input
        file: PathBuf,
    },
}

#[derive(Debug, Clone, Copy)]
pub struct Endpoint(IpAddr, Option<u16>);

fn endpoint(text: &str) -> Result<Endpoint, String> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(Endpoint(address, None));
    }
    let with_port = text.parse::<SocketAddr>();
    with_port
        .map(|a| Endpoint(a.ip(), Some(a.port())))
        .map_err(|_| "expected an address, or address:port (IPv6 as in [2001:db8::1]:80)".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(s) if (0.1..=86_400.0).contains(&s) => Ok(Duration::from_secs_f64(s)),
        _ => Err("expected a number of seconds from 0.1 to 86400".to_owned()),
    }
}

impl Cli {
    /// The page that tables are written on.
    pub fn page(&self) -> Page {
        let terminal = std::io::stdout().is_terminal();
        let color = match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        };
        let width = match self.wide {
            true => usize::MAX,
            false => width(terminal),
        };
        Page { width, color }
    }
}

/// What COLUMNS says, else the terminal's width, else 100.
fn width(terminal: bool) -> usize {
    let said = std::env::var("COLUMNS").ok().and_then(|c| c.parse::<usize>().ok());
    let seen = || terminal_size::terminal_size().filter(|_| terminal).map(|(w, _)| usize::from(w.0));
    said.or_else(seen).filter(|w| *w >= 40).unwrap_or(100)
}

impl AclArgs {
    pub fn query(&self) -> AclQuery {
        AclQuery { acl: self.id.clone(), log: self.log }
    }
}

impl RouteArgs {
    pub fn query(&self) -> RouteQuery {
        let RouteArgs { covers, within, limit, .. } = *self;
        RouteQuery { covers, within, after: self.after.clone(), limit }
    }
}

impl SessionsArgs {
    pub fn query(&self) -> SessionQuery {
        let sort = match self.sort {
            SortArg::Bytes => SessionSort::Bytes,
            SortArg::Packets => SessionSort::Packets,
            SortArg::Age => SessionSort::Age,
            SortArg::Idle => SessionSort::Idle,
        };
        SessionQuery { filter: self.filter.filter(), sort, limit: self.limit, count: self.count }
    }
}

impl TopArgs {
    pub fn query(&self) -> TopQuery {
        let group = match self.group {
            GroupArg::Src => TopGroup::Src,
            GroupArg::Dst => TopGroup::Dst,
            GroupArg::Service => TopGroup::Service,
            GroupArg::Session => TopGroup::Session,
        };
        let by = match self.by {
            ByArg::Bytes => TopBy::Bytes,
            ByArg::Packets => TopBy::Packets,
            ByArg::Sessions => TopBy::Sessions,
        };
        TopQuery { group, by, filter: self.filter.filter(), limit: self.limit }
    }
}

impl ExplainArgs {
    pub fn query(&self) -> Result<ExplainQuery, String> {
        let (Endpoint(src, sport), Endpoint(dst, dport)) = (self.src, self.dst);
        if src.is_ipv4() != dst.is_ipv4() {
            return Err(format!("--src {src} and --dst {dst} are not of one family"));
        }
        let port = |option: Option<u16>, endpoint: Option<u16>, name: &str| match (option, endpoint) {
            (Some(a), Some(b)) if a != b => Err(format!("two values for the {name}: {a} and {b}")),
            (a, b) => Ok(a.or(b).unwrap_or(0)),
        };
        let v6 = src.is_ipv6();
        let kind = self.icmp_type.as_deref().map(|t| {
            config::icmp_type(t, v6).ok_or_else(|| format!("{t:?} is no ICMP type of this IP version"))
        });
        let kind = kind.transpose()?;
        let code = self.icmp_code.as_deref().map(|c| {
            config::icmp_code(c, kind.unwrap_or(0), v6)
                .ok_or_else(|| format!("{c:?} is no code of this ICMP type"))
        });
        Ok(ExplainQuery {
            port: self.port.clone(),
            vrf: self.vrf.clone(),
            proto: self.proto,
            src,
            dst,
            sport: port(self.sport, sport, "source port")?,
            dport: port(self.dport, dport, "destination port")?,
            length: self.length,
            ttl: self.ttl,
            dscp: self.dscp,
            tcp_flags: self.tcp_flags,
            icmp_type: kind,
            icmp_code: code.transpose()?,
        })
    }
}

#[cfg(test)]
mod tests;
