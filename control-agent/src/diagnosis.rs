//! The diagnosis of the device (DiagnoseSmartAccessGateway): each check measures something now, and says in English and
//! Chinese what it saw.

mod checks;

use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use sag_model::Role;
use sag_model::control::Ports;
use sag_rtnl::{RouteKind, Table, Tables};
use sag_southbound::DiagnosisItem;

use crate::dns;
use crate::ping::{self, Plan, Target};
use crate::vcpe::Vcpe;
use checks::{
    CLOCK, CONTROLLER, DNS, Finding, GATEWAY, Level, MTU, NEXT_HOPS, NOTICES, TUNNELS, WAN_ADDRESSES,
    WAN_LINKS,
};

/// What the main loop knows.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// With its scheme.
    pub endpoint: String,
    /// Seconds that the device's clock is behind the cloud's.
    pub clock_offset: i64,
    /// What is set and has no effect.
    pub notices: Vec<String>,
    /// Routers of the default routes, with their devices.
    pub routers: Vec<(String, Target)>,
    pub resolv_conf: PathBuf,
    pub vcpe_socket: PathBuf,
}

/// The routers of the default routes of both families.
pub fn routers(tables: &Tables) -> Vec<(String, Target)> {
    let mut out = Vec::new();
    for route in tables.routes_sorted() {
        let default = match route.dst {
            IpNet::V4(net) => net.prefix_len() == 0,
            IpNet::V6(net) => net.prefix_len() == 0,
        };
        if !default || route.table != Table::Main || route.kind != RouteKind::Unicast {
            continue;
        }
        for hop in tables.nexthops_of(route).iter() {
            let Some(address) = hop.gateway else { continue };
            let device = tables.link(hop.ifindex).map(|l| l.name.clone()).unwrap_or_default();
            let target = Target { address, scope: hop.ifindex };
            if !out.contains(&(device.clone(), target)) {
                out.push((device, target));
            }
        }
    }
    out
}

/// Runs all checks, one after the other.
pub fn run(facts: &Facts) -> Vec<DiagnosisItem> {
    let vcpe = Vcpe::new(&facts.vcpe_socket);
    let mut items = vec![NOTICES.run(|| notices(&facts.notices)), GATEWAY.run(|| gateway(&vcpe))];
    items.push(TUNNELS.run(|| tunnels(&vcpe)));
    let mut controller = None;
    items.push(CONTROLLER.run(|| {
        let (found, finding) = reach(&facts.endpoint);
        controller = found;
        finding
    }));
    items.push(CLOCK.run(|| clock(facts.clock_offset)));
    let ports = vcpe.ports();
    items.push(WAN_LINKS.run(|| of_ports(&ports, links)));
    items.push(WAN_ADDRESSES.run(|| of_ports(&ports, addresses)));
    items.push(NEXT_HOPS.run(|| next_hops(&facts.routers)));
    items.push(DNS.run(|| resolvers(facts)));
    items.push(MTU.run(|| path_mtu(controller)));
    items
}

fn notices(notices: &[String]) -> Finding {
    const SHOWN: usize = 10;
    if notices.is_empty() {
        return Finding::new(Level::Info, "Everything that is set is in force.", "所有配置均已生效。");
    }
    let shown: Vec<String> =
        notices.iter().take(SHOWN).map(|n| n.chars().take(300).collect::<String>()).collect();
    let count = notices.len();
    let mut finding = Finding::new(
        Level::Warning,
        format!("{count} settings are not in force as they are set."),
        format!("{count}项配置未按设置生效。"),
    );
    finding.en.extend(shown.iter().cloned());
    finding.cn.extend(shown);
    finding
}

fn gateway(vcpe: &Vcpe) -> Finding {
    match vcpe.status() {
        Ok(s) => Finding::new(
            Level::Info,
            format!("sag-vcpe {} has run for {} s.", s.version, s.uptime_s),
            format!("sag-vcpe {}已运行{}秒。", s.version, s.uptime_s),
        ),
        Err(e) => Finding::new(Level::Error, e.to_string(), format!("网关无应答：{e}")),
    }
}

fn tunnels(vcpe: &Vcpe) -> Finding {
    let tunnels = match vcpe.tunnels() {
        Ok(answer) => answer.tunnels,
        Err(e) => return Finding::new(Level::Error, e.to_string(), format!("网关无应答：{e}")),
    };
    let each = tunnels.into_iter().map(|t| {
        let level = if t.state == "up" { Level::Info } else { Level::Error };
        let rtt = t.rtt_us.map_or_else(String::new, |us| format!(", {:.1} ms", us as f64 / 1000.0));
        let (name, state, remote) = (t.name, t.state, t.remote);
        let text = format!("{name} to {remote}: {state}{rtt}");
        Finding::new(level, text.clone(), text)
    });
    Finding::all(each).unwrap_or_else(|| Finding::new(Level::Info, "There is no tunnel.", "没有隧道。"))
}

/// Host and port of an endpoint.
fn authority(endpoint: &str) -> (&str, u16) {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("https", endpoint));
    let standard = if scheme == "http" { 80 } else { 443 };
    let (host, port) = match rest.rsplit_once(':') {
        // A colon of an IPv6 address in brackets is none before a port.
        Some((host, port)) if !port.contains(']') => (host, port.parse().unwrap_or(standard)),
        _ => (rest, standard),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

/// For one connection.
const CONNECT: Duration = Duration::from_secs(3);
const MAX_ADDRESSES: usize = 4;

/// Connects to the controller; the address that answered, or the first that did not.
fn reach(endpoint: &str) -> (Option<IpAddr>, Finding) {
    let (host, port) = authority(endpoint);
    let found: Vec<SocketAddr> = match (host, port).to_socket_addrs() {
        Ok(all) => all.take(MAX_ADDRESSES).collect(),
        Err(e) => {
            return (
                None,
                Finding::new(
                    Level::Error,
                    format!("{host} has no address: {e}"),
                    format!("无法解析{host}：{e}"),
                ),
            );
        }
    };
    let mut last = String::new();
    for at in &found {
        let begun = Instant::now();
        match TcpStream::connect_timeout(at, CONNECT) {
            Ok(_) => {
                let ms = begun.elapsed().as_secs_f64() * 1000.0;
                let finding = Finding::new(
                    Level::Info,
                    format!("{at} accepts connections, after {ms:.1} ms."),
                    format!("{at}可连接，耗时{ms:.1}毫秒。"),
                );
                return (Some(at.ip()), finding);
            }
            Err(e) => last = format!("{at}: {e}"),
        }
    }
    let first = found.first().map(SocketAddr::ip);
    (first, Finding::new(Level::Error, format!("{last}."), format!("无法连接{last}。")))
}

/// Seconds that do not matter, and those from which a certificate may seem to be of another time.
const CLOCK_OK: u64 = 5;
const CLOCK_WRONG: u64 = 60;

fn clock(offset: i64) -> Finding {
    let level = match offset.unsigned_abs() {
        ..=CLOCK_OK => Level::Info,
        s if s <= CLOCK_WRONG => Level::Warning,
        _ => Level::Error,
    };
    Finding::new(
        level,
        format!("The clock is {offset} s behind the cloud's."),
        format!("本机时钟比云端慢{offset}秒。"),
    )
}

fn of_ports(ports: &crate::vcpe::Result<Ports>, look: impl Fn(&Ports) -> Option<Finding>) -> Finding {
    match ports {
        Ok(ports) => {
            look(ports).unwrap_or_else(|| Finding::new(Level::Error, "There is no WAN port.", "没有WAN口。"))
        }
        Err(e) => Finding::new(Level::Error, e.to_string(), format!("网关无应答：{e}")),
    }
}

fn links(ports: &Ports) -> Option<Finding> {
    let wan: Vec<_> = ports.ports.iter().filter(|p| p.role == Role::Wan).collect();
    let any = wan.iter().any(|p| p.up);
    Finding::all(wan.iter().map(|p| {
        let level = match (p.up, any) {
            (true, _) => Level::Info,
            (false, true) => Level::Warning,
            (false, false) => Level::Error,
        };
        let (en, cn) = if p.up { ("up", "正常") } else { ("down", "断开") };
        Finding::new(
            level,
            format!("port {} ({}) is {en}", p.name, p.device),
            format!("端口{}（{}）{cn}", p.name, p.device),
        )
    }))
}

fn addresses(ports: &Ports) -> Option<Finding> {
    let wan: Vec<_> = ports.ports.iter().filter(|p| p.role == Role::Wan).collect();
    let any = wan.iter().any(|p| !p.addresses.is_empty());
    Finding::all(wan.iter().map(|p| {
        let level = match (p.addresses.is_empty(), any) {
            (false, _) => Level::Info,
            (true, true) => Level::Warning,
            (true, false) => Level::Error,
        };
        let all = p.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (en, cn) = if all.is_empty() { ("none", "无") } else { (all.as_str(), all.as_str()) };
        Finding::new(
            level,
            format!("addresses of port {}: {en}", p.name),
            format!("端口{}的地址：{cn}", p.name),
        )
    }))
}

const ECHO: Plan = Plan { count: 3, timeout: Duration::from_millis(700) };
const MAX_ROUTERS: usize = 6;

fn next_hops(routers: &[(String, Target)]) -> Finding {
    let each = routers.iter().take(MAX_ROUTERS).map(|(device, to)| {
        let at = format!("{} ({device})", to.address);
        match ping::round(*to, &ECHO) {
            Ok(round) => {
                let loss = round.loss_percent();
                let ms = round.rtt_ms.map_or_else(String::new, |ms| format!(", {ms:.1} ms"));
                // A router need not answer echo requests.
                let level = if round.answered < round.sent { Level::Warning } else { Level::Info };
                Finding::new(
                    level,
                    format!("router {at}: {loss:.0} % of the echo requests lost{ms}"),
                    format!("路由器{at}：回显请求丢失{loss:.0}%{ms}"),
                )
            }
            Err(e) => Finding::new(Level::Warning, format!("{at}: {e}"), format!("{at}：{e}")),
        }
    });
    Finding::all(each).unwrap_or_else(|| {
        Finding::new(Level::Error, "There is no default route with a router.", "没有经路由器的默认路由。")
    })
}

const DNS_PORT: u16 = 53;
const DNS_TIMEOUTS: [Duration; 2] = [Duration::from_secs(1), Duration::from_millis(1500)];

fn resolvers(facts: &Facts) -> Finding {
    let servers = match dns::servers(&facts.resolv_conf) {
        Ok(servers) => servers,
        Err(e) => {
            let file = facts.resolv_conf.display();
            return Finding::new(Level::Error, format!("{file}: {e}"), format!("{file}：{e}"));
        }
    };
    let (host, _) = authority(&facts.endpoint);
    let name = Some(host).filter(|h| h.parse::<IpAddr>().is_err());
    let asked: Vec<_> = servers
        .iter()
        .map(|server| (server, dns::ask(SocketAddr::new(*server, DNS_PORT), name, &DNS_TIMEOUTS)))
        .collect();
    let any = asked.iter().any(|(_, answer)| answer.is_ok());
    let each = asked.into_iter().map(|(server, answer)| match answer {
        Ok(a) => {
            let ms = a.rtt.as_secs_f64() * 1000.0;
            let level = if a.rcode == 0 { Level::Info } else { Level::Warning };
            Finding::new(
                level,
                format!("{server} answers after {ms:.1} ms, with result {}", a.rcode),
                format!("{server}在{ms:.1}毫秒后应答，结果码{}", a.rcode),
            )
        }
        Err(e) => {
            let level = if any { Level::Warning } else { Level::Error };
            Finding::new(level, format!("{server} does not answer: {e}"), format!("{server}无应答：{e}"))
        }
    });
    Finding::all(each)
        .unwrap_or_else(|| Finding::new(Level::Error, "There is no DNS server.", "没有DNS服务器。"))
}

/// What every IPv6 link carries (RFC 8200, section 5), and tunnels with less room for what is inside.
const LEAST_MTU: u32 = 1280;

fn path_mtu(controller: Option<IpAddr>) -> Finding {
    let Some(controller) = controller else {
        return Finding::new(
            Level::Warning,
            "Not measured: the controller has no address.",
            "未测量：管控地址未知。",
        );
    };
    match ping::path_mtu(controller) {
        Ok(mtu) => Finding::new(
            if mtu < LEAST_MTU { Level::Warning } else { Level::Info },
            format!("{mtu} bytes to {controller}"),
            format!("到{controller}为{mtu}字节"),
        ),
        Err(e) => Finding::new(Level::Error, format!("{controller}: {e}"), format!("{controller}：{e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_of_endpoints() {
        for (endpoint, host, port) in [
            ("https://cloud.example", "cloud.example", 443),
            ("http://127.0.0.1:8180", "127.0.0.1", 8180),
            ("https://[2001:db8::1]", "2001:db8::1", 443),
            ("http://[::1]:8180", "::1", 8180),
        ] {
            assert_eq!(authority(endpoint), (host, port), "{endpoint}");
        }
    }

    #[test]
    fn the_controller_is_reached_or_not() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(address) else { continue };
            let at = listener.local_addr().expect("address");
            let (found, finding) = reach(&format!("http://{at}"));
            assert_eq!((found, finding.level), (Some(at.ip()), Level::Info));
            drop(listener);
            let (found, finding) = reach(&format!("http://{at}"));
            assert_eq!((found, finding.level), (Some(at.ip()), Level::Error));
        }
    }

    #[test]
    fn levels() {
        use Level::{Error, Info, Warning};
        assert_eq!([0, -5, 6, -60, 61].map(|s| clock(s).level), [Info, Info, Warning, Warning, Error]);
        assert_eq!(notices(&[]).level, Info);
        let many: Vec<String> = (0..50).map(|n| format!("rule {n}")).collect();
        let finding = notices(&many);
        assert_eq!((finding.level, finding.en.len()), (Warning, 11));
        assert_eq!(next_hops(&[]).level, Error);
        assert_eq!(path_mtu(None).level, Warning);
    }

    /// A device whose gateway does not run and whose DNS server is dead: every check has its result, and says what it saw.
    #[test]
    fn a_broken_device_says_what_is_broken() {
        let dir = tempfile::tempdir().expect("dir");
        let resolv_conf = dir.path().join("resolv.conf");
        // Nothing listens there.
        std::fs::write(&resolv_conf, "nameserver 127.0.0.99\n").expect("written");
        let facts = Facts {
            endpoint: "http://127.0.0.1:9".into(),
            resolv_conf,
            vcpe_socket: dir.path().join("none.sock"),
            ..Facts::default()
        };
        let items = run(&facts);
        let level = |name: &str| {
            let item = items.iter().find(|i| i.name == name).unwrap_or_else(|| panic!("{name} is missing"));
            assert!(!item.en.details.is_empty() && !item.cn.details.is_empty(), "{name}");
            assert_eq!(item.en.advice == ["N/A"], item.level == "info", "{name}");
            item.level.as_str()
        };
        for name in
            ["gatewayState", "tunnelState", "ctrlReachable", "wanLinkState", "defaultRoute", "dnsServer"]
        {
            assert_eq!(level(name), "error", "{name}");
        }
        for name in ["configInForce", "clockOffset", "pathMtu"] {
            assert_eq!(level(name), "info", "{name}");
        }
        let dns = items.iter().find(|i| i.name == "dnsServer").expect("checked");
        assert!(dns.en.details[0].contains("127.0.0.99 does not answer"), "{:?}", dns.en);
    }
}
