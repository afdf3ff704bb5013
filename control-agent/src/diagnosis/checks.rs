//! The checks of a diagnosis: their names and advice for people, and the form of what they find.

use sag_southbound::{DiagnosisItem, DiagnosisText};

use crate::clock::unix_ms;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Info,
    Warning,
    Error,
}

impl Level {
    pub(super) fn word(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// What a check saw, line by line in both languages.
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) en: Vec<String>,
    pub(super) cn: Vec<String>,
}

impl Finding {
    pub(super) fn new(level: Level, en: impl Into<String>, cn: impl Into<String>) -> Finding {
        Finding { level, en: vec![en.into()], cn: vec![cn.into()] }
    }

    /// Several findings of one check; the worst level counts.
    pub(super) fn all(parts: impl IntoIterator<Item = Finding>) -> Option<Finding> {
        parts.into_iter().reduce(|mut all, part| {
            all.level = all.level.max(part.level);
            all.en.extend(part.en);
            all.cn.extend(part.cn);
            all
        })
    }
}

/// A check: its group, its name for programs and for people, and what to do if it is not good.
pub(super) struct Check {
    kind: &'static str,
    name: &'static str,
    names: [&'static str; 2],
    advice: [&'static str; 2],
}

impl Check {
    pub(super) fn run(&self, measure: impl FnOnce() -> Finding) -> DiagnosisItem {
        let start_time = unix_ms();
        let finding = measure();
        let advice = |n: usize| if finding.level == Level::Info { "N/A" } else { self.advice[n] }.to_owned();
        let text = |n: usize, details: &[String]| DiagnosisText {
            name: self.names[n].to_owned(),
            details: details.to_vec(),
            advice: vec![advice(n)],
        };
        DiagnosisItem {
            kind: self.kind.to_owned(),
            name: self.name.to_owned(),
            level: finding.level.word().to_owned(),
            start_time,
            end_time: unix_ms(),
            en: text(0, &finding.en),
            cn: text(1, &finding.cn),
        }
    }
}

pub(super) const GATEWAY: Check = Check {
    kind: "biz",
    name: "gatewayState",
    names: ["Gateway Process", "网关进程"],
    advice: ["Start sag-vcpe and look at its log.", "请启动sag-vcpe并查看其日志。"],
};
pub(super) const TUNNELS: Check = Check {
    kind: "biz",
    name: "tunnelState",
    names: ["Tunnels", "隧道"],
    advice: ["Check that UDP port 4500 reaches the other devices.", "请检查UDP 4500端口能否到达对端设备。"],
};
pub(super) const CONTROLLER: Check = Check {
    kind: "biz",
    name: "ctrlReachable",
    names: ["Path to the Controller", "管控可达性"],
    advice: [
        "Check routes, firewalls and the endpoint of agent.toml.",
        "请检查路由、防火墙和agent.toml中的endpoint。",
    ],
};
pub(super) const CLOCK: Check = Check {
    kind: "biz",
    name: "clockOffset",
    names: ["Clock", "时钟"],
    advice: ["Run an NTP client.", "请运行NTP客户端。"],
};
pub(super) const NOTICES: Check = Check {
    kind: "config",
    name: "configInForce",
    names: ["Settings in Force", "配置生效情况"],
    advice: ["Correct what is named, or take it back.", "请修改或撤销所列配置。"],
};
pub(super) const WAN_LINKS: Check = Check {
    kind: "internet",
    name: "wanLinkState",
    names: ["WAN Links", "WAN口链路"],
    advice: ["Check the cables of the WAN ports.", "请检查WAN口接线。"],
};
pub(super) const WAN_ADDRESSES: Check = Check {
    kind: "internet",
    name: "wanAddress",
    names: ["WAN Addresses", "WAN口地址"],
    advice: ["Set an address or check the DHCP server.", "请设置地址或检查DHCP服务器。"],
};
pub(super) const NEXT_HOPS: Check = Check {
    kind: "internet",
    name: "defaultRoute",
    names: ["Default Routes", "默认路由"],
    advice: ["Check the router and the link to it.", "请检查路由器及其链路。"],
};
pub(super) const DNS: Check = Check {
    kind: "internet",
    name: "dnsServer",
    names: ["DNS Servers", "DNS服务器"],
    advice: ["Set DNS servers that answer.", "请设置可用的DNS服务器。"],
};
pub(super) const MTU: Check = Check {
    kind: "internet",
    name: "pathMtu",
    names: ["Path MTU", "路径MTU"],
    advice: ["Find the link with the small MTU.", "请找出MTU过小的链路。"],
};
