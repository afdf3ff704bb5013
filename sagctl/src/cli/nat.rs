//! `sagctl nat`.

use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;
use sag_model::config::NatBehavior;
use sag_model::control::{IpProto, NatBindingFilter, NatBindingQuery, Op, parse_cidr};

#[derive(Debug, Args)]
pub struct NatArgs {
    #[command(subcommand)]
    pub command: Option<NatCommand>,
}

#[derive(Debug, Subcommand)]
pub enum NatCommand {
    /// Outside ports and who holds them, most sessions first
    Bindings(BindingsArgs),
    /// Ports that hosts have asked for by PCP and NAT-PMP
    Mappings,
}

#[derive(Debug, Args)]
pub struct BindingsArgs {
    /// At most so many [default: 100]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Only their number
    #[arg(long)]
    count: bool,
    /// Protocol, by name or number
    #[arg(long, help_heading = "Filter")]
    proto: Option<IpProto>,
    /// Inside address
    #[arg(long, value_name = "CIDR", value_parser = parse_cidr, help_heading = "Filter")]
    inside: Option<IpNet>,
    /// Inside port, or identifier of ICMP queries
    #[arg(long, value_name = "N", help_heading = "Filter")]
    inside_port: Option<u16>,
    /// Outside address
    #[arg(long, value_name = "CIDR", value_parser = parse_cidr, help_heading = "Filter")]
    outside: Option<IpNet>,
    /// Outside port or identifier
    #[arg(long, value_name = "N", help_heading = "Filter")]
    outside_port: Option<u16>,
    /// Mapping
    #[arg(long, value_enum, help_heading = "Filter")]
    mapping: Option<MappingArg>,
    /// At least so many sessions
    #[arg(long, value_name = "N", help_heading = "Filter")]
    min_sessions: Option<u64>,
    /// VRF of the inside address; "default" is the one without a name
    #[arg(long, value_name = "NAME", help_heading = "Filter")]
    vrf: Option<String>,
}

/// The words of the configuration.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum MappingArg {
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
}

impl NatArgs {
    pub fn op(&self) -> Op {
        match &self.command {
            Some(NatCommand::Bindings(b)) => Op::NatBindings(b.query()),
            Some(NatCommand::Mappings) => Op::NatMappings,
            None => Op::Nat,
        }
    }
}

impl BindingsArgs {
    fn query(&self) -> NatBindingQuery {
        let mapping = self.mapping.map(|m| match m {
            MappingArg::EndpointIndependent => NatBehavior::EndpointIndependent,
            MappingArg::AddressDependent => NatBehavior::AddressDependent,
            MappingArg::AddressAndPortDependent => NatBehavior::AddressAndPortDependent,
        });
        let filter = NatBindingFilter {
            protocol: self.proto,
            inside: self.inside,
            inside_port: self.inside_port,
            outside: self.outside,
            outside_port: self.outside_port,
            mapping,
            min_sessions: self.min_sessions,
            vrf: self.vrf.clone(),
        };
        NatBindingQuery { filter, limit: self.limit, count: self.count }
    }
}
