//! Options that say which sessions are meant.

use clap::Args;
use ipnet::IpNet;
use sag_model::control::{IpProto, SessionFilter, parse_cidr};

#[derive(Debug, Args)]
#[command(next_help_heading = "Filter")]
pub struct FilterArgs {
    /// IPv4 only
    #[arg(short = '4', long = "ipv4", conflicts_with = "ipv6")]
    ipv4: bool,
    /// IPv6 only
    #[arg(short = '6', long = "ipv6")]
    ipv6: bool,
    /// Protocol, by name or number
    #[arg(long)]
    proto: Option<IpProto>,
    /// Source address of the first packet
    #[arg(long, value_name = "CIDR", value_parser = parse_cidr)]
    src: Option<IpNet>,
    /// Destination address of the first packet
    #[arg(long, value_name = "CIDR", value_parser = parse_cidr)]
    dst: Option<IpNet>,
    /// Either address, before or after translation
    #[arg(long, value_name = "CIDR", value_parser = parse_cidr)]
    host: Option<IpNet>,
    /// Source port
    #[arg(long, value_name = "N")]
    sport: Option<u16>,
    /// Destination port
    #[arg(long, value_name = "N")]
    dport: Option<u16>,
    /// Translated only
    #[arg(long, conflicts_with = "no_nat")]
    nat: bool,
    /// Not translated only
    #[arg(long)]
    no_nat: bool,
    /// Source address after translation
    #[arg(long, value_name = "CIDR", value_parser = parse_cidr)]
    nat_src: Option<IpNet>,
    /// Source port after translation
    #[arg(long, value_name = "N")]
    nat_sport: Option<u16>,
    /// Destination address after translation
    #[arg(long, value_name = "CIDR", value_parser = parse_cidr)]
    nat_dst: Option<IpNet>,
    /// Destination port after translation
    #[arg(long, value_name = "N")]
    nat_dport: Option<u16>,
    /// Port of the gateway, in or out
    #[arg(long, value_name = "NAME")]
    port: Option<String>,
    /// Port of the gateway that the first packet came in by
    #[arg(long, value_name = "NAME")]
    in_port: Option<String>,
    /// Port of the gateway that it went out by
    #[arg(long, value_name = "NAME")]
    out_port: Option<String>,
    /// State, as the listing shows it
    #[arg(long)]
    state: Option<String>,
    /// ACL rule that let it in
    #[arg(long, value_name = "ID")]
    rule: Option<String>,
    /// VRF that it comes from or goes to; "default" is the one without a name
    #[arg(long, value_name = "NAME")]
    vrf: Option<String>,
    /// VRF that it goes to, likewise
    #[arg(long, value_name = "NAME")]
    to_vrf: Option<String>,
    /// At least so old: seconds, or as in 5m, 2h, 1d
    #[arg(long, value_name = "TIME", value_parser = span)]
    min_age: Option<u64>,
    /// At least so long without a packet, likewise
    #[arg(long, value_name = "TIME", value_parser = span)]
    min_idle: Option<u64>,
    /// At least so many packets, both directions
    #[arg(long, value_name = "N")]
    min_packets: Option<u64>,
    /// At least so many bytes, both directions
    #[arg(long, value_name = "N")]
    min_bytes: Option<u64>,
}

impl FilterArgs {
    pub fn filter(&self) -> SessionFilter {
        let one_of = |yes: bool, no: bool| if yes || no { Some(yes) } else { None };
        SessionFilter {
            family: one_of(self.ipv4, self.ipv6).map(|v4| if v4 { 4 } else { 6 }),
            proto: self.proto,
            src: self.src,
            dst: self.dst,
            host: self.host,
            sport: self.sport,
            dport: self.dport,
            nat: one_of(self.nat, self.no_nat),
            nat_src: self.nat_src,
            nat_sport: self.nat_sport,
            nat_dst: self.nat_dst,
            nat_dport: self.nat_dport,
            port: self.port.clone(),
            in_port: self.in_port.clone(),
            out_port: self.out_port.clone(),
            state: self.state.clone(),
            rule: self.rule.clone(),
            vrf: self.vrf.clone(),
            to_vrf: self.to_vrf.clone(),
            min_age_s: self.min_age,
            min_idle_s: self.min_idle,
            min_packets: self.min_packets,
            min_bytes: self.min_bytes,
        }
    }
}

/// Seconds, or a number of seconds, minutes, hours or days.
fn span(text: &str) -> Result<u64, String> {
    const UNITS: &[(char, u64)] = &[('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    let with_unit = UNITS.iter().find_map(|(unit, s)| Some((text.strip_suffix(*unit)?, *s)));
    let (number, seconds) = with_unit.unwrap_or((text, 1));
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let value = number.parse::<u64>().ok().filter(|_| digits).and_then(|n| n.checked_mul(seconds));
    value.ok_or_else(|| "expected a number of seconds, or as in 90s, 5m, 2h or 1d".to_owned())
}
