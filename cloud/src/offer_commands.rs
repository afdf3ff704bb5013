//! `sag-cloud access-points` and `sag-cloud versions`: what the operator offers to every account.

use clap::{Subcommand, ValueEnum};
use sag_cloud::service::offers;
use sag_cloud::store::Store;
use sag_cloud::store::offers::AccessPoint;
use serde_json::Value;

use crate::shared::{Database, json_line, open, open_existing, print_lines};

#[derive(Subcommand)]
pub enum AccessPointCommand {
    /// Add an access point, or replace the one of its number
    Add {
        /// Its number, AccessPointId
        #[arg(long)]
        id: i64,
        /// An IPv4 or IPv6 address of it that answers echo requests: devices measure the path to it
        #[arg(long)]
        address: String,
        /// In degrees
        #[arg(long, allow_hyphen_values = true)]
        latitude: String,
        /// In degrees
        #[arg(long, allow_hyphen_values = true)]
        longitude: String,
        /// Offer it in this region alone
        #[arg(long, default_value = "")]
        region: String,
        #[command(flatten)]
        db: Database,
    },
    /// Print the access points
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        db: Database,
    },
    /// Remove an access point
    Remove {
        /// Its number, AccessPointId
        #[arg(long)]
        id: i64,
        #[command(flatten)]
        db: Database,
    },
}

/// What has versions.
#[derive(Clone, Copy, ValueEnum)]
pub enum VersionType {
    /// The software of devices
    Device,
    /// Signatures for deep packet inspection
    Dpi,
}

impl VersionType {
    fn word(self) -> &'static str {
        match self {
            VersionType::Device => "Device",
            VersionType::Dpi => "Dpi",
        }
    }
}

#[derive(Subcommand)]
pub enum VersionCommand {
    /// Offer a version (DescribeSmartAccessGatewayVersions, UpdateSmartAccessGatewayVersion)
    Add {
        #[arg(long = "type", value_enum, default_value = "device")]
        kind: VersionType,
        /// VersionCode, such as 0.2.0
        #[arg(long)]
        code: String,
        /// VersionName, such as sag-vcpe-0.2.0
        #[arg(long)]
        name: String,
        #[command(flatten)]
        db: Database,
    },
    /// Print all versions, retired ones included
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        db: Database,
    },
    /// No longer offer a version
    Retire {
        #[arg(long = "type", value_enum, default_value = "device")]
        kind: VersionType,
        /// VersionCode
        #[arg(long)]
        code: String,
        #[command(flatten)]
        db: Database,
    },
}

fn print<T>(rows: &[T], json: bool, line: fn(&T) -> String, object: fn(&T) -> Value) -> anyhow::Result<()> {
    print_lines(rows.iter().map(|row| if json { json_line(&object(row)) } else { line(row) }))
}

pub async fn access_points(command: AccessPointCommand) -> anyhow::Result<()> {
    match command {
        AccessPointCommand::Add { id, address, latitude, longitude, region, db } => {
            let point = AccessPoint { id, region, address, latitude, longitude };
            offers::add_access_point(&open(&db, 1).await?, &point).await
        }
        AccessPointCommand::List { json, db } => {
            let store: Store = open_existing(&db).await?;
            let rows = offers::access_points(&store).await?;
            print(&rows, json, offers::point_line, offers::point_json)
        }
        AccessPointCommand::Remove { id, db } => {
            offers::remove_access_point(&open_existing(&db).await?, id).await
        }
    }
}

pub async fn versions(command: VersionCommand) -> anyhow::Result<()> {
    match command {
        VersionCommand::Add { kind, code, name, db } => {
            offers::add_version(&open(&db, 1).await?, kind.word(), &code, &name).await
        }
        VersionCommand::List { json, db } => {
            let rows = offers::versions(&open_existing(&db).await?).await?;
            print(&rows, json, offers::version_line, offers::version_json)
        }
        VersionCommand::Retire { kind, code, db } => {
            offers::retire_version(&open_existing(&db).await?, kind.word(), &code).await
        }
    }
}
