//! `agent.toml`, validated as a whole: place and remedy for every refusal.

mod ipv6;
mod lan;
mod routing;

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sag_model::Role;
use sag_sandbox::{Mode, UnknownMode};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::trust::Trust;
use ipv6::RawIpv6;
pub use ipv6::{Ipv6Config, Wan6, Wan6Address};
use lan::RawLan;
pub use lan::{LanConfig, LanMode, Relay};
use routing::RawRouting;
pub use routing::{LocalNeighbor, Routing, RoutingMode};

pub const KEY_ID_VAR: &str = "ALIBABA_CLOUD_ACCESS_KEY_ID";
pub const KEY_SECRET_VAR: &str = "ALIBABA_CLOUD_ACCESS_KEY_SECRET";

#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}; {remedy}")]
pub struct ConfigError {
    place: String,
    problem: String,
    remedy: String,
}

fn wrong(place: impl fmt::Display, problem: impl Into<String>, remedy: impl Into<String>) -> ConfigError {
    ConfigError { place: place.to_string(), problem: problem.into(), remedy: remedy.into() }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    endpoint: String,
    region_id: String,
    smart_ag_id: String,
    smart_ag_sn: String,
    access_key_id: Option<String>,
    access_key_secret: Option<String>,
    access_key_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    extension: Option<Extension>,
    poll_interval: Option<f64>,
    report_interval: Option<f64>,
    access_point_interval: Option<f64>,
    retry_max: Option<f64>,
    vcpe_socket: Option<PathBuf>,
    vcpe_config: Option<PathBuf>,
    base_config: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    resolv_conf: Option<PathBuf>,
    dhcp_client: Option<Dhcp>,
    on_reboot: Option<OnReboot>,
    point_of_presence: Option<bool>,
    peer_trust: Option<PeerTrust>,
    optimization: Option<bool>,
    sandbox: Option<String>,
    log: Option<String>,
    #[serde(default)]
    routing: RawRouting,
    #[serde(default)]
    lan: RawLan,
    #[serde(default)]
    ipv6: RawIpv6,
    #[serde(default)]
    ports: BTreeMap<String, RawPort>,
    #[serde(default)]
    peers: BTreeMap<String, String>,
}

/// Which devices of a network get tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PeerTrust {
    /// Each is recognised by the identity that it had first, unless `[peers]` names another.
    FirstUse,
    /// Only those of `[peers]`.
    Listed,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawPort {
    Device(String),
    Full(RawPortTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPortTable {
    #[serde(alias = "netdev")]
    device: String,
    role: Option<String>,
}

/// How the agent learns of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Extension {
    /// By long poll where the endpoint has it, else by the documented operations.
    Auto,
    /// Documented operations only.
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dhcp {
    /// An installed client, on WAN ports of IPType DHCP that have no address.
    Auto,
    Off,
    /// This one.
    Udhcpc,
    Dhcpcd,
    Dhclient,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnReboot {
    /// The gateway process gets SIGTERM, then the agent ends; their supervisor starts both.
    Gateway,
    /// Only the agent.
    Agent,
}

#[derive(Clone)]
pub struct AccessKey {
    pub id: String,
    /// Wiped at the end.
    pub secret: Zeroizing<String>,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessKey({})", self.id)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    pub device: String,
    /// Wins over the cloud's where it is given.
    pub role: Option<Role>,
}

#[derive(Debug, Clone)]
pub struct Config {
    /// With scheme, without a path.
    pub endpoint: String,
    pub region_id: String,
    pub smart_ag_id: String,
    pub smart_ag_sn: String,
    pub key: AccessKey,
    pub ca_file: Option<PathBuf>,
    pub extension: Extension,
    pub poll_interval: Duration,
    pub report_interval: Duration,
    /// Between two measurements of the paths to access points; none: when the cloud asks for it.
    pub access_point_interval: Option<Duration>,
    pub retry_max: Duration,
    pub vcpe_socket: PathBuf,
    pub vcpe_config: Option<PathBuf>,
    pub base_config: Option<PathBuf>,
    pub state_dir: PathBuf,
    /// Which DNS servers the machine uses, as resolv.conf(5) has them.
    pub resolv_conf: PathBuf,
    pub dhcp_client: Dhcp,
    pub on_reboot: OnReboot,
    /// May be made the hub of its cloud connect network.
    pub point_of_presence: bool,
    /// Which devices of its network get tunnels.
    pub trust: Trust,
    /// Its tunnels send with forward error correction.
    pub optimization: bool,
    /// How far the agent is confined once it has started.
    pub sandbox: Mode,
    /// The file itself.
    pub file: PathBuf,
    pub log: String,
    pub ports: BTreeMap<String, Wiring>,
    pub routing: Routing,
    pub lan: LanConfig,
    pub ipv6: Ipv6Config,
}

impl Config {
    pub fn load(path: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        let place = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|e| wrong(&place, e.to_string(), "name the file with --config"))?;
        let raw: Raw = toml::from_str(&text).map_err(|e| {
            let before = e.span().map_or("", |s| text.get(..s.start).unwrap_or_default());
            let (line, column) = (
                before.matches('\n').count() + 1,
                before.chars().rev().take_while(|c| *c != '\n').count() + 1,
            );
            wrong(
                format_args!("{place}:{line}:{column}"),
                e.message().trim().replace('\n', " "),
                "docs/agent.md lists the keys",
            )
        })?;
        let key = access_key(&raw, path, env)?;
        raw.validate(&place.to_string(), key)
    }
}

impl Raw {
    fn validate(self, place: &str, key: AccessKey) -> Result<Config, ConfigError> {
        let at = |key: &str| format!("{place}: {key}");
        for (name, value) in [
            ("region_id", &self.region_id),
            ("smart_ag_id", &self.smart_ag_id),
            ("smart_ag_sn", &self.smart_ag_sn),
        ] {
            if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
                return Err(wrong(at(name), format!("{value:?} is no identifier"), "copy it from the cloud"));
            }
        }
        if self.smart_ag_sn.contains(',') {
            return Err(wrong(at("smart_ag_sn"), "more than one serial number", "name this device's own"));
        }
        let seconds = |name: &str, value: Option<f64>, default: f64, least: f64| {
            let v = value.unwrap_or(default);
            if (least..=3600.0).contains(&v) {
                Ok(Duration::from_secs_f64(v))
            } else {
                Err(wrong(at(name), format!("{v} is out of range"), format!("use {least}..3600 seconds")))
            }
        };
        let mut ports = BTreeMap::new();
        for (name, port) in self.ports {
            let here = at(&format!("ports.{name}"));
            let (device, role) = match port {
                RawPort::Device(device) => (device, None),
                RawPort::Full(t) => (t.device, t.role),
            };
            if device.is_empty() || device.len() > 15 || device.contains(['/', ' ']) {
                return Err(wrong(here, format!("{device:?} is no network device"), "see `ip link`"));
            }
            let role = role.map(|r| role_word(&r).ok_or_else(|| wrong(&here, format!("role {r:?}"), ROLES)));
            ports.insert(name, Wiring { device, role: role.transpose()? });
        }
        let mut listed = BTreeMap::new();
        for (sn, fingerprint) in self.peers {
            let text = fingerprint.trim().to_ascii_lowercase();
            if !sag_southbound::is_fingerprint(&text) {
                let problem = format!("{fingerprint:?} is no fingerprint");
                let remedy =
                    "copy what `sag-agent status` prints on that device: eight groups of four hex digits";
                return Err(wrong(at(&format!("peers.{sn}")), problem, remedy));
            }
            listed.insert(sn, text);
        }
        let routing = self.routing.validate(place, &self.smart_ag_sn)?;
        let lan = self.lan.validate(place, &self.smart_ag_sn)?;
        let ipv6 = self.ipv6.validate(place, &ports)?;
        let only_listed = self.peer_trust == Some(PeerTrust::Listed);
        Ok(Config {
            endpoint: endpoint(&self.endpoint).map_err(|p| wrong(at("endpoint"), p, ENDPOINT))?,
            key,
            ca_file: self.ca_file,
            extension: self.extension.unwrap_or(Extension::Auto),
            poll_interval: seconds("poll_interval", self.poll_interval, 5.0, 0.1)?,
            report_interval: seconds("report_interval", self.report_interval, 10.0, 0.1)?,
            access_point_interval: match self.access_point_interval {
                Some(0.0) => None,
                other => Some(seconds("access_point_interval", other, 300.0, 10.0)?),
            },
            retry_max: seconds("retry_max", self.retry_max, 30.0, 0.5)?,
            vcpe_socket: self.vcpe_socket.unwrap_or_else(|| sag_model::control::DEFAULT_SOCKET.into()),
            vcpe_config: self.vcpe_config,
            base_config: self.base_config,
            state_dir: self.state_dir.unwrap_or_else(|| "/var/lib/sag-agent".into()),
            resolv_conf: self.resolv_conf.unwrap_or_else(|| "/etc/resolv.conf".into()),
            dhcp_client: self.dhcp_client.unwrap_or(Dhcp::Auto),
            point_of_presence: self.point_of_presence.unwrap_or(false),
            optimization: self.optimization.unwrap_or(false),
            trust: Trust { listed, only_listed },
            sandbox: match self.sandbox.as_deref().map(str::parse) {
                None => Mode::default(),
                Some(Ok(mode)) => mode,
                Some(Err(e)) => {
                    return Err(wrong(at("sandbox"), UnknownMode::to_string(&e), "take one of them"));
                }
            },
            file: PathBuf::from(place),
            on_reboot: self.on_reboot.unwrap_or(OnReboot::Gateway),
            log: self.log.unwrap_or_else(|| "info".into()),
            region_id: self.region_id,
            smart_ag_id: self.smart_ag_id,
            smart_ag_sn: self.smart_ag_sn,
            ports,
            routing,
            lan,
            ipv6,
        })
    }
}

const ROLES: &str = "use \"lan\", \"wan\", \"express\" or \"mgmt\", or leave it out for the cloud's";
const ENDPOINT: &str = "use a host, host:port, or https://host[:port]";

/// The configuration's words and the API's.
pub fn role_word(word: &str) -> Option<Role> {
    match word {
        "lan" | "LAN" => Some(Role::Lan),
        "wan" | "WAN" => Some(Role::Wan),
        "express" | "ECC" => Some(Role::Express),
        "mgmt" | "MGT" => Some(Role::Mgmt),
        _ => None,
    }
}

/// Completes the scheme: TLS, except on the machine itself.
fn endpoint(text: &str) -> Result<String, String> {
    let (scheme, rest) = match text.split_once("://") {
        Some((s @ ("http" | "https"), rest)) => (s, rest),
        Some((s, _)) => return Err(format!("scheme {s:?}")),
        None if is_local(text.trim_end_matches('/')) => ("http", text),
        None => ("https", text),
    };
    let rest = rest.trim_end_matches('/');
    let plausible = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if rest.is_empty() || !rest.bytes().all(plausible) {
        return Err(format!("{text:?} is no endpoint"));
    }
    Ok(format!("{scheme}://{rest}"))
}

pub fn is_local(authority: &str) -> bool {
    let host = authority.rsplit_once(':').map_or(authority, |(h, _)| h);
    host == "localhost"
        || host == "[::1]"
        || host.parse::<std::net::Ipv4Addr>().is_ok_and(|a| a.is_loopback())
}

fn access_key(
    raw: &Raw,
    path: &Path,
    env: impl Fn(&str) -> Option<String>,
) -> Result<AccessKey, ConfigError> {
    if let (Some(id), Some(secret)) = (&raw.access_key_id, &raw.access_key_secret) {
        private(path)?;
        return Ok(AccessKey { id: id.clone(), secret: secret.clone().into() });
    }
    if raw.access_key_secret.is_some() {
        return Err(wrong(path.display(), "access_key_secret without access_key_id", "set both"));
    }
    if let Some(file) = &raw.access_key_file {
        return key_file(file);
    }
    let get = |name| env(name).filter(|v| !v.is_empty());
    match (raw.access_key_id.clone().or_else(|| get(KEY_ID_VAR)), get(KEY_SECRET_VAR)) {
        (Some(id), Some(secret)) => Ok(AccessKey { id, secret: secret.into() }),
        _ => Err(wrong(
            path.display(),
            "no access key",
            format!(
                "set access_key_file, access_key_id and access_key_secret, or {KEY_ID_VAR} and {KEY_SECRET_VAR}"
            ),
        )),
    }
}

/// What `sag-cloud access-key create` prints.
fn key_file(file: &Path) -> Result<AccessKey, ConfigError> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| wrong(file.display(), e.to_string(), "access_key_file must be readable"))?;
    private(file)?;
    let field = |name: &str| {
        let mut lines = text.lines().filter_map(|l| l.split_once(':'));
        lines.find(|(k, _)| k.trim() == name).map(|(_, v)| v.trim().to_owned()).filter(|v| !v.is_empty())
    };
    match (field("AccessKeyId"), field("AccessKeySecret")) {
        (Some(id), Some(secret)) => Ok(AccessKey { id, secret: secret.into() }),
        _ => Err(wrong(
            file.display(),
            "no key in it",
            "it needs the lines `AccessKeyId: …` and `AccessKeySecret: …` that sag-cloud access-key create prints",
        )),
    }
}

/// Refuses a file with a secret that others may read.
fn private(file: &Path) -> Result<(), ConfigError> {
    let meta = std::fs::metadata(file).map_err(|e| wrong(file.display(), e.to_string(), "check the path"))?;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(wrong(
            file.display(),
            format!("it holds a secret and others may read it (mode {mode:04o})"),
            format!("chmod 600 {}", file.display()),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const BASE: &str = "endpoint = \"127.0.0.1:8180\"\nregion_id = \"cn-shanghai\"\nsmart_ag_id = \"sag-1\"\nsmart_ag_sn = \"sn1\"\n";

    pub(super) fn load(text: &str, mode: u32, env: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("agent.toml");
        std::fs::write(&file, text).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("mode");
        let get = |name: &str| env.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
        Config::load(&file, get).map_err(|e| e.to_string())
    }

    pub(super) const INLINE: &str = "access_key_id = \"id\"\naccess_key_secret = \"secret\"\n";

    #[test]
    fn keys_come_from_a_private_file_or_the_environment() {
        let c = load(&format!("{BASE}{INLINE}"), 0o600, &[]).expect("private");
        assert_eq!((c.key.id.as_str(), c.key.secret.as_str()), ("id", "secret"));
        assert!(!format!("{c:?}").contains("secret\""), "secrets are not printed");
        for mode in [0o640, 0o604, 0o644] {
            let e = load(&format!("{BASE}{INLINE}"), mode, &[]).expect_err("readable by others");
            assert!(e.contains("chmod 600") && e.contains(&format!("{mode:04o}")), "{e}");
        }
        let env = [(KEY_ID_VAR, "a"), (KEY_SECRET_VAR, "b")];
        assert_eq!(load(BASE, 0o644, &env).expect("environment").key.id, "a");
        assert!(load(BASE, 0o644, &env[..1]).expect_err("half").contains("no access key"));
    }

    #[test]
    fn key_files_are_what_the_cloud_prints() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("key");
        std::fs::write(&file, "AccessKeyId: one\nAccessKeySecret: two\n").expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("mode");
        let text = format!("{BASE}access_key_file = {file:?}\n");
        assert_eq!(load(&text, 0o644, &[]).expect("key").key.secret.as_str(), "two");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("mode");
        assert!(load(&text, 0o644, &[]).expect_err("open").contains("chmod 600"));
    }

    #[test]
    fn mistakes_name_place_and_remedy() {
        let env = [(KEY_ID_VAR, "a"), (KEY_SECRET_VAR, "b")];
        for (more, said) in [
            ("pol_interval = 3\n", "agent.toml:5:1"),
            ("poll_interval = 0\n", "poll_interval"),
            ("extension = \"on\"\n", "agent.toml:5:13"),
            ("[ports]\n\"0\" = { device = \"eth0\", role = \"both\" }\n", "ports.0"),
            ("[ports]\n\"0\" = \"a/b\"\n", "ports.0"),
        ] {
            let e = load(&format!("{BASE}{more}"), 0o600, &env).expect_err(more);
            assert!(e.contains(said) && e.contains("; "), "{more}: {e}");
        }
        let ok = "[ports]\n\"0\" = { netdev = \"eth0\", role = \"wan\" }\n\"1\" = \"eth1\"\n";
        let c = load(&format!("{BASE}{ok}"), 0o600, &env).expect("ports");
        assert_eq!(c.ports["0"], Wiring { device: "eth0".into(), role: Some(Role::Wan) });
        assert_eq!(c.ports["1"].role, None);
    }

    #[test]
    fn the_example_is_right() {
        let example = include_str!("../../configs/agent.toml");
        let text: String = example
            .lines()
            .filter(|l| !l.starts_with("access_key_file"))
            .fold(String::new(), |t, l| t + l + "\n");
        let c = load(&text, 0o600, &[(KEY_ID_VAR, "a"), (KEY_SECRET_VAR, "b")]).expect("right");
        assert_eq!(c.ports["0"], Wiring { device: "eth0".into(), role: Some(Role::Wan) });
        let documented = include_str!("../../docs/agent.md");
        let keys = text
            .lines()
            .filter_map(|l| l.split_once(" = "))
            .map(|(k, _)| k.trim_start_matches("# "))
            .filter(|k| !k.starts_with('"'));
        for key in keys {
            assert!(documented.contains(&format!("`{key}`")), "{key} is not in docs/agent.md");
        }
    }

    #[test]
    fn tls_unless_it_is_this_machine() {
        for (text, want) in [
            ("127.0.0.1:8180", "http://127.0.0.1:8180"),
            ("localhost", "http://localhost"),
            ("smartag.cn-shanghai.aliyuncs.com", "https://smartag.cn-shanghai.aliyuncs.com"),
            ("http://203.0.113.10:8180/", "http://203.0.113.10:8180"),
        ] {
            assert_eq!(endpoint(text).as_deref(), Ok(want));
        }
        for bad in ["", "ftp://x", "https://a b", "https://"] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }
}
