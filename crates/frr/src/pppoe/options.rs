//! What pppd is told, and what it means by its end.

use std::time::Duration;

use crate::settings::{PppoeDevices, PppoeLine};

/// Bytes of IP in a frame of 1,500 (RFC 2516 section 7).
const MTU: u16 = 1492;
/// Seconds between echo requests (RFC 1661 section 5.8), and how many of them stay unanswered until the line counts as dead.
const ECHO: (u16, u16) = (5, 3);
/// Seconds until the first PADI is repeated, each time after twice as long, and how many there are (RFC 2516 section 8).
const DISCOVERY: (u16, u16) = (1, 3);
/// Longest name or password: PAP has a byte for the length (RFC 1334), pppd's buffers have room for so many.
const MAX_WORD: usize = 255;

/// What is wrong with the settings themselves.
pub(super) fn fault(line: &PppoeLine) -> Option<String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b"._-@:".contains(&b);
    if line.device.starts_with('-') || !line.device.bytes().all(word) {
        return Some(format!("{:?} is no network device", line.device));
    }
    if PppoeDevices::of(&line.device).is_none() {
        return Some(format!(
            "the name of the network device {:?} is longer than 11 characters; rename the device",
            line.device
        ));
    }
    for (what, text) in [("Username", line.user.as_str()), ("Password", line.password.expose())] {
        let wrong = match text {
            "" => "is missing",
            t if t.len() > MAX_WORD => "is longer than 255 bytes",
            t if t.chars().any(char::is_control) => "has a control character",
            _ => continue,
        };
        return Some(format!("{what} {wrong}; call ModifySagWan"));
    }
    None
}

/// The whole file: for one session, after which pppd ends. Addresses and routes are not its business, but for asking the
/// other end for them; nor are the machine's own options of `/etc/ppp/options`.
pub(super) fn render(line: &PppoeLine, devices: &PppoeDevices) -> String {
    let (user, password) = (quoted(&line.user), quoted(line.password.expose()));
    let (interval, failures) = ECHO;
    let (first, attempts) = DISCOVERY;
    format!(
        "plugin pppoe.so\nnic-{}\nifname {}\nuser {user}\npassword {password}\n\
         noauth\nnodetach\nnopersist\nmaxfail 1\n\
         mtu {MTU}\nmru {MTU}\n\
         pppoe-padi-timeout {first}\npppoe-padi-attempts {attempts}\n\
         lcp-echo-interval {interval}\nlcp-echo-failure {failures}\n\
         noipdefault\nipcp-accept-local\nipcp-accept-remote\nnodefaultroute\nnoproxyarp\n+ipv6\n\
         noccp\nnovj\nnoaccomp\nnopcomp\n\
         ip-up-script /bin/true\nip-down-script /bin/true\n",
        line.device, devices.session
    )
}

/// A word of pppd's options, whatever is in it.
fn quoted(word: &str) -> String {
    let mut out = String::from("\"");
    for c in word.chars() {
        if c == '"' || c == '\\' {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// What an end of pppd means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// In words.
    pub(super) why: &'static str,
    /// The next attempts would fail likewise, and the other end counts them.
    pub(super) lasts: bool,
}

/// By pppd's exit status (pppd(8)); `None`: a signal.
pub(super) fn end(code: Option<i32>) -> End {
    let (why, lasts) = match code {
        None => ("pppd was killed", false),
        Some(0) => ("the access concentrator has ended the session", false),
        Some(2) => ("pppd refuses its options: a version older than 2.4.9?", true),
        Some(4) => ("the kernel has no PPP: modules ppp_generic and pppoe", true),
        Some(5) => ("pppd was ended by a signal", false),
        Some(8) => ("no access concentrator has opened a session", false),
        Some(10) => ("no agreement on options or addresses (LCP, IPCP)", false),
        Some(11) => ("the access concentrator does not authenticate itself", true),
        Some(15) => ("the access concentrator does not answer any more", false),
        Some(16) => ("the access concentrator has closed the session", false),
        Some(17) => ("the line is a loop: what is sent comes back", false),
        Some(19) => ("the access concentrator refuses user name and password", true),
        Some(_) => {
            ("pppd has ended with an error, which is in its lines in the log of the routing service", false)
        }
    };
    End { why, lasts }
}

/// How long is waited after so many attempts without a session: for who counts them, longer.
pub(super) fn pause(attempts: u32, lasts: bool) -> Duration {
    let (first, longest) = if lasts { (15, 600) } else { (1, 30) };
    Duration::from_secs((first << attempts.saturating_sub(1).min(16)).min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Key;

    fn line() -> PppoeLine {
        PppoeLine {
            port: "1".to_owned(),
            device: "eth0".to_owned(),
            user: "p12@isp.example".to_owned(),
            password: Key::new("hunter2 hunter2"),
            metric: Some(10),
        }
    }

    #[test]
    fn the_file_is_made_of_the_settings_alone() {
        let line = line();
        let text = render(&line, &PppoeDevices::of("eth0").expect("names"));
        for want in [
            "nic-eth0",
            "ifname pps-eth0",
            "user \"p12@isp.example\"",
            "password \"hunter2 hunter2\"",
            "mtu 1492",
            "mru 1492",
            "nodefaultroute",
            "nopersist",
        ] {
            assert!(text.lines().any(|l| l == want), "{want} in {text}");
        }
        assert_eq!(fault(&line), None);
        assert!(!format!("{line:?}").contains("hunter2"));
    }

    /// Whatever a password has in it, it stays one word of one line.
    #[test]
    fn words_are_quoted() {
        assert_eq!(quoted(r#"a"b\c d#e'"#), r#""a\"b\\c d#e'""#);
        let wrong = |user: &str, password: &str| {
            fault(&PppoeLine { user: user.to_owned(), password: Key::new(password), ..line() })
        };
        assert!(wrong("", "x").is_some_and(|w| w.starts_with("Username is missing")));
        assert!(wrong("x", "a\nplugin evil.so").is_some_and(|w| w.contains("control character")));
        assert!(wrong("x", &"y".repeat(256)).is_some_and(|w| w.contains("255 bytes")));
        assert_eq!(wrong("ü", &"y".repeat(255)), None);
        let device = |device: &str| fault(&PppoeLine { device: device.to_owned(), ..line() });
        assert!(device("eth0 persist").is_some_and(|w| w.contains("no network device")));
        assert!(device("enp130s0f0np0").is_some_and(|w| w.contains("11 characters")));
        assert_eq!(device("enp130s0.77"), None);
    }

    #[test]
    fn pauses_grow_and_are_long_for_a_wrong_password() {
        let seconds = |lasts: bool| [1, 2, 3, 9, 99].map(|n| pause(n, lasts).as_secs());
        assert_eq!(seconds(false), [1, 2, 4, 30, 30]);
        assert_eq!(seconds(true), [15, 30, 60, 600, 600]);
        assert!(end(Some(19)).lasts && end(Some(19)).why.contains("password"));
        assert!(!end(Some(16)).lasts && !end(None).lasts);
    }
}
