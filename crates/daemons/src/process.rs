//! What the kernel says of a process: whether it is stopped, how much it has worked, and its children.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// Generations of children that are looked at.
const GENERATIONS: usize = 4;

/// A process, which another one with its number is not mistaken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pid: Pid,
    /// When it began, in ticks since the machine started.
    began: u64,
}

/// A look at a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    began: u64,
    /// `S` sleeps, `R` runs, `T` is stopped by a signal, ….
    state: u8,
    /// Time on a processor, in ticks.
    pub(crate) worked: u64,
}

impl Look {
    /// Whether it has ended, and its parent has not noticed.
    #[cfg(test)]
    pub(crate) fn is_dead(self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

impl Process {
    fn of(pid: Pid) -> Option<Process> {
        Some(Process { pid, began: look(pid)?.began })
    }

    /// Ends it.
    pub(crate) fn kill(self) {
        self.signal(Signal::KILL);
    }

    /// Has it go on, if it is stopped.
    pub(crate) fn go_on(self) {
        self.signal(Signal::CONT);
    }

    /// Only if it is still the same.
    fn signal(self, signal: Signal) {
        if Process::of(self.pid) == Some(self) {
            let _ = kill_process(self.pid, signal);
        }
    }
}

/// A process, its children and theirs, itself first.
pub(crate) fn tree(pid: Pid) -> Vec<Process> {
    let mut all: Vec<Process> = Process::of(pid).into_iter().collect();
    let mut parents = vec![pid];
    for _ in 0..GENERATIONS {
        let next: Vec<Pid> = parents.iter().flat_map(|p| children(*p)).collect();
        all.extend(next.iter().filter_map(|p| Process::of(*p)));
        parents = next;
    }
    all
}

/// Whether one of them is stopped by a signal. Under a debugger (`t`) is something else: somebody looks at it.
pub(crate) fn is_stopped(all: &[Process]) -> bool {
    all.iter().any(|p| look(p.pid).is_some_and(|l| l.state == b'T'))
}

/// Those that one thread has made: daemons have no more threads that do.
fn children(pid: Pid) -> Vec<Pid> {
    let number = pid.as_raw_nonzero();
    let text = fs::read_to_string(format!("/proc/{number}/task/{number}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|w| w.parse().ok().and_then(Pid::from_raw)).collect()
}

/// Reads `/proc/PID/stat`.
pub(crate) fn look(pid: Pid) -> Option<Look> {
    parse(&fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?)
}

/// Fields behind the name, which may have blanks and parentheses in it (proc(5)).
fn parse(stat: &str) -> Option<Look> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
    let state = *fields.first()?.as_bytes().first()?;
    Some(Look { state, worked: number(11)?.saturating_add(number(12)?), began: number(19)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_the_name() {
        let stat = "42 (a) b (c) T 1 42 42 0 -1 4194560 1 2 3 4 70 8 9 10 20 0 1 0 123456 7 8\n";
        assert_eq!(parse(stat), Some(Look { state: b'T', worked: 78, began: 123_456 }));
        assert_eq!(parse("42 (cut"), None);
        assert_eq!(parse("42 (cut) S 1"), None);
    }

    #[test]
    fn a_process_has_children() {
        let mut shell =
            std::process::Command::new("/bin/sh").args(["-c", "sleep 60 & wait"]).spawn().expect("a shell");
        let pid = Pid::from_child(&shell);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while tree(pid).len() < 2 {
            assert!(std::time::Instant::now() < until, "no child is seen");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let all = tree(pid);
        assert!(!is_stopped(&all));
        // Another process that has got the number is left alone.
        Process { began: all[0].began + 1, ..all[0] }.kill();
        assert!(matches!(shell.try_wait(), Ok(None)));
        for process in all {
            process.kill();
        }
        assert!(!shell.wait().expect("status").success());
    }
}
