//! FRR's own tools: its checker, and its reload, which changes what differs and leaves sessions alone. The programs have
//! fixed places and fixed arguments.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::render::{Owner, Rendered};
use crate::status::Installed;

/// Where Debian and Ubuntu have the daemons.
pub(crate) const FRR_DIR: &str = "/usr/lib/frr";
pub(crate) const KEEPALIVED: &str = "/usr/sbin/keepalived";
pub(crate) const PPPD: &str = "/usr/sbin/pppd";
const VTYSH: &str = "/usr/bin/vtysh";
const RELOAD: &str = "/usr/lib/frr/frr-reload.py";
/// A tool that takes longer is ended; with a full table the reload takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks for the programs of the packages `frr` and `frr-pythontools`.
pub(crate) fn installed(frr_dir: &Path) -> Installed {
    let has = |name: &str| frr_dir.join(name).exists();
    let base = has("zebra") && Path::new(VTYSH).exists();
    let tools = Path::new(RELOAD).exists();
    let mut missing = Vec::new();
    if !(base && has("bgpd") && has("ospfd")) {
        missing.push("frr".to_owned());
    }
    if !tools {
        missing.push("frr-pythontools".to_owned());
    }
    let vrrp = Path::new(KEEPALIVED).exists();
    Installed {
        bgp: base && tools && has("bgpd"),
        ospf: base && tools && has("ospfd"),
        vrrp,
        missing,
        ..Installed::default()
    }
}

/// The folders of one set of daemons.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Root's own: the configuration, with its keys.
    pub(crate) own: PathBuf,
    /// FRR's: sockets and process identifiers.
    pub(crate) run: PathBuf,
}

impl Places {
    pub(crate) fn new(dir: &Path) -> Places {
        Places { own: dir.to_owned(), run: dir.join("run") }
    }

    fn file(&self) -> PathBuf {
        self.own.join("frr.conf")
    }

    pub(crate) fn vty(&self, daemon: &str) -> PathBuf {
        self.run.join(format!("{daemon}.vty"))
    }
}

/// What a tool could not do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// It cannot be run.
    #[error("{0}: {1}")]
    Run(&'static str, io::Error),
    /// It says so.
    #[error("{0}: {1}")]
    Refused(&'static str, String),
    /// A daemon refuses lines that the checker has taken: whose they are, and what is said of them.
    #[error("{}", .0.first().map_or("", |(_, why)| why.as_str()))]
    Lines(Vec<(Owner, String)>),
}

/// Lines that FRR's checker refuses.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Refused {
    /// Owners of the lines, and what is said of them.
    pub(crate) owned: Vec<(Owner, String)>,
    /// What is said of lines without an owner.
    pub(crate) other: Vec<String>,
}

/// Writes the file; only root reads it.
fn write(places: &Places, rendered: &Rendered) -> Result<(), ToolError> {
    let path = places.file();
    let write = || -> io::Result<()> {
        let new = path.with_extension("new");
        // What a crash left there may have another mode.
        let _ = std::fs::remove_file(&new);
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(rendered.text().as_bytes())?;
        std::fs::rename(&new, &path)
    };
    write().map_err(|e| ToolError::Run("frr.conf", e))
}

/// Has FRR's checker read the configuration, without a daemon.
pub(crate) fn check(places: &Places, rendered: &Rendered) -> Result<Refused, ToolError> {
    write(places, rendered)?;
    let done = run(VTYSH, &["-C".as_ref(), "-f".as_ref(), places.file().as_os_str()])?;
    let refused = refusals(&String::from_utf8_lossy(&done.stderr), rendered);
    let said_nothing = refused.owned.is_empty() && refused.other.is_empty();
    if !done.status.success() && said_nothing {
        return Err(ToolError::Refused("vtysh", last_line(&done)));
    }
    Ok(refused)
}

/// Reads `line 21: % Unknown command[25]:  bogus line here`.
fn refusals(said: &str, rendered: &Rendered) -> Refused {
    let mut out = Refused::default();
    for line in said.lines() {
        let Some((number, why)) = line.strip_prefix("line ").and_then(|l| l.split_once(": ")) else {
            continue;
        };
        let why = format!("FRR refuses it: {}", without_keys(why.trim()));
        match number.trim().parse().ok().and_then(|n| rendered.owner(n)) {
            Some(owner) => out.owned.push((owner.clone(), why)),
            None => out.other.push(why),
        }
    }
    out
}

/// Messages quote the line, and it may have a key in it.
fn without_keys(line: &str) -> String {
    let secret = ["password ", "authentication-key ", " md5 "];
    match secret.iter().filter_map(|w| Some(line.find(w)? + w.len())).min() {
        Some(at) => format!("{}***", &line[..at]),
        None => line.to_owned(),
    }
}

/// Gives a daemon that has just started its part of the configuration, in the order of the file: what filters routes comes
/// before the neighbors that they come from.
pub(crate) fn load(places: &Places, rendered: &Rendered, daemon: &str) -> Result<(), ToolError> {
    write(places, rendered)?;
    let file = places.file();
    let args: [&std::ffi::OsStr; 6] = [
        "--vty_socket".as_ref(),
        places.run.as_os_str(),
        "-d".as_ref(),
        daemon.as_ref(),
        "-f".as_ref(),
        file.as_os_str(),
    ];
    let done = run(VTYSH, &args)?;
    // What is for other daemons vtysh leaves out; its result depends on that.
    let mut refused = refusals(&String::from_utf8_lossy(&done.stderr), rendered);
    if let Some(why) = refused.other.first() {
        return Err(ToolError::Refused("vtysh", why.clone()));
    }
    if refused.owned.is_empty() {
        return Ok(());
    }
    // The daemon's own words; of the other lines of an owner it says only that the first one is missing.
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let words = said.lines().map(str::trim).filter(|line| line.starts_with("% "));
    for ((_, why), word) in refused.owned.iter_mut().zip(words) {
        *why = format!("FRR refuses it: {}", without_keys(&word[2..]));
    }
    Err(ToolError::Lines(refused.owned))
}

/// Changes running daemons to the configuration: what is as it was is not touched.
pub(crate) fn reload(places: &Places, rendered: &Rendered) -> Result<(), ToolError> {
    write(places, rendered)?;
    let (own, vty, file) = (places.own.as_os_str(), places.run.as_os_str(), places.file());
    let args: [&std::ffi::OsStr; 10] = [
        "--reload".as_ref(),
        "--stdout".as_ref(),
        "--confdir".as_ref(),
        own,
        "--rundir".as_ref(),
        own,
        "--vty_socket".as_ref(),
        vty,
        "--bindir=/usr/bin".as_ref(),
        file.as_os_str(),
    ];
    let done = run(RELOAD, &args)?;
    if !done.status.success() {
        return Err(ToolError::Refused("frr-reload.py", last_line(&done)));
    }
    Ok(())
}

/// Has keepalived's checker read a configuration.
pub(crate) fn check_keepalived(file: &Path) -> Result<(), ToolError> {
    let done = run(KEEPALIVED, &["-t".as_ref(), "-l".as_ref(), "-f".as_ref(), file.as_os_str()])?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|l| !l.is_empty()).take(4).collect();
    Err(ToolError::Refused("keepalived", lines.join("; ")))
}

fn last_line(done: &Output) -> String {
    let said = [&done.stderr, &done.stdout].map(|s| String::from_utf8_lossy(s).into_owned());
    let line =
        said.iter().flat_map(|s| s.lines()).rfind(|l| !l.trim().is_empty() && !l.starts_with("% Can't open"));
    without_keys(line.unwrap_or("it says nothing").trim())
}

/// Runs a tool to its end.
fn run(program: &'static str, args: &[&std::ffi::OsStr]) -> Result<Output, ToolError> {
    let name = program.rsplit('/').next().unwrap_or(program);
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("VTYSH_PAGER", "cat")
        .spawn()
        .map_err(|e| ToolError::Run(name, e))?;
    finish(child, Instant::now() + PATIENCE).map_err(|e| ToolError::Run(name, e))
}

/// What it has said when it has ended. One that takes too long is ended.
fn finish(mut child: Child, until: Instant) -> io::Result<Output> {
    use std::io::Read;
    // Both pipes are read all the while: a full one would stop it.
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(pipe) = pipe {
                let _ = pipe.take(1 << 20).read_to_end(&mut text);
            }
            text
        })
    };
    let stdout = read(child.stdout.take().map(|p| Box::new(p) as Box<dyn Read + Send>));
    let stderr = read(child.stderr.take().map(|p| Box::new(p) as Box<dyn Read + Send>));
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not end in time"));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = |t: std::thread::JoinHandle<Vec<u8>>| t.join().unwrap_or_default();
    Ok(Output { status, stdout: text(stdout), stderr: text(stderr) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{Forwarding, render};
    use crate::settings::{Bgp, Settings};

    #[test]
    fn what_the_checker_refuses_is_its_owners() {
        let bgp = Bgp {
            router_id: "192.0.2.1".parse().expect("address"),
            local_as: 65001,
            hold_time: 9,
            keepalive: 3,
            max_prefixes: 10,
            neighbors: Vec::new(),
            branch: Vec::new(),
            beyond: Vec::new(),
        };
        let rendered = render(&Settings { bgp: Some(bgp), ..Settings::default() }, Forwarding::default());
        let text = rendered.text();
        let line = 1 + text.lines().position(|l| l.starts_with("router bgp")).expect("BGP");
        let said = format!(
            "% Can't open configuration file /etc/frr/vtysh.conf\nline {line}: % Unknown command[25]: router bgp 65001\n\
             line 1: % Unknown command: neighbor 192.0.2.9 password secret\n"
        );
        let refused = refusals(&said, &rendered);
        assert_eq!(refused.owned.len(), 1);
        assert_eq!(refused.owned[0].0, Owner::Bgp);
        assert_eq!(refused.other, ["FRR refuses it: % Unknown command: neighbor 192.0.2.9 password ***"]);
    }

    #[test]
    fn a_tool_that_does_not_end_is_ended() {
        let child = Command::new("sleep")
            .arg("60")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sleep");
        let done = finish(child, Instant::now() + Duration::from_millis(30));
        assert_eq!(done.expect_err("too long").kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn what_is_missing_is_named_by_its_package() {
        let dir = tempfile::tempdir().expect("dir");
        let none = installed(dir.path());
        assert!(!none.bgp && !none.ospf && none.missing.contains(&"frr".to_owned()));
    }
}
