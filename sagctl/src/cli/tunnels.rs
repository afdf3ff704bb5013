//! `sagctl tunnels`.

use super::Watch;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct TunnelsArgs {
    #[command(flatten)]
    pub watch: Watch,
    #[command(subcommand)]
    pub command: Option<TunnelsCommand>,
}

#[derive(Debug, Subcommand)]
pub enum TunnelsCommand {
    /// Install a new pair of ESP associations while traffic flows
    ///
    /// The file has spi_in, spi_out, key_in and key_out as the tunnel's table of the configuration.
    /// Call it at both ends; the end that was called first waits for the other.
    Rekey {
        /// Tunnel
        name: String,
        /// File with the keys, or - for standard input
        #[arg(value_name = "FILE")]
        keys: PathBuf,
        /// The peer has the pair already: send by it at once
        #[arg(long)]
        now: bool,
        /// Send by it after so many seconds, if the peer does not before
        #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=3600))]
        wait: u32,
    },
    /// Use a tunnel's static keys although the record of their numbers is lost
    ///
    /// Only if nothing was ever sent under them, as on a new gateway with the files of another one: packets with
    /// the same number under one key disclose what they carry. New keys at both ends (rekey) are always safe.
    Confirm {
        /// Tunnel
        name: String,
    },
    /// The gateway's public key for keys by agreement
    Key {
        /// What the controller calls this gateway
        gateway: String,
        /// Make a new one
        #[arg(long)]
        renew: bool,
    },
    /// Install peers' public keys: a JSON list of tunnel, gateway, epoch, public_key and link
    Peers {
        /// File, or - for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}
