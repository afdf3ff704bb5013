//! Daemons that end, hang, or were left behind.

use super::*;
use std::path::Path;

/// A shell that writes its process identifier, makes a file and sleeps.
fn shell(dir: &Path, script: &str) -> Unit {
    let mark = dir.as_os_str().to_owned();
    Unit {
        name: "shell",
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into(), mark.clone()],
        ready: vec![dir.join("ready")],
        pid_file: dir.join("pid"),
        mark,
    }
}

const RUNS: &str = "echo $$ > $0/pid; > $0/ready; while :; do sleep 0.05; done";

fn within(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(STEP);
    }
}

#[test]
fn pauses_grow_to_a_limit() {
    let mut slot = Slot::default();
    let mut last = Duration::ZERO;
    for _ in 0..20 {
        slot.pause();
        let pause = slot.not_before.expect("a time").saturating_duration_since(Instant::now());
        assert!(pause + Duration::from_millis(50) >= last && pause <= LONGEST_PAUSE);
        last = pause;
    }
    assert!(last > LONGEST_PAUSE - Duration::from_secs(1));
}

#[test]
fn one_that_ends_starts_again_after_a_pause() {
    let dir = tempfile::tempdir().expect("dir");
    let unit = shell(dir.path(), RUNS);
    let mut daemons = Supervisor::default();
    assert!(daemons.start_if_due(&unit) && !daemons.start_if_due(&unit));
    let first = daemons.state("shell");
    assert!(first.pid.is_some() && first.problem.is_empty() && !daemons.notice_end("shell"));
    assert!(daemons.signal("shell", Signal::KILL));
    within("its end is noticed", || daemons.notice_end("shell"));
    assert!(!daemons.runs("shell") && !daemons.start_if_due(&unit), "there is a pause");
    within("it starts again", || daemons.start_if_due(&unit));
    let second = daemons.state("shell");
    assert!(second.pid != first.pid && second.restarts == 1);
    assert!(second.problem.contains("signal 9"), "{second:?}");
    daemons.end("shell");
    assert!(!daemons.signal("shell", Signal::TERM));
    assert_eq!(daemons.state("shell"), State { name: "shell".to_owned(), ..State::default() });
}

#[test]
fn one_that_ends_at_its_start_is_named() {
    let dir = tempfile::tempdir().expect("dir");
    let unit = shell(dir.path(), "exit 3");
    let mut daemons = Supervisor::default();
    assert!(!daemons.start_if_due(&unit));
    let state = daemons.state("shell");
    assert!(state.pid.is_none() && state.problem.contains("ended at its start (code 3)"), "{state:?}");
    assert!(daemons.slots["shell"].not_before.is_some_and(|at| at > Instant::now()));
}

#[test]
fn the_code_of_an_end_is_known() {
    let dir = tempfile::tempdir().expect("dir");
    let unit = shell(dir.path(), "> $0/ready; sleep 0.1; exit 19");
    let mut daemons = Supervisor::default();
    assert!(daemons.start_if_due(&unit) && daemons.exit_code("shell").is_none());
    within("its end is noticed", || daemons.notice_end("shell"));
    assert_eq!(daemons.exit_code("shell"), Some(19));
}

/// One that was left behind is ended; a process that has its number by chance is not.
#[test]
fn what_was_left_behind_is_ended() {
    let dir = tempfile::tempdir().expect("dir");
    let unit = shell(dir.path(), RUNS);
    let mut left = unit.spawn().expect("started");
    within("its pid", || unit.leftover() == pid_of(&left));
    let other = Unit { mark: "/another/place".into(), ..unit.clone() };
    other.end_leftover();
    assert!(matches!(left.try_wait(), Ok(None)), "another service's");
    // Somebody has to wait for it, as init does.
    let waiter = std::thread::spawn(move || left.wait());
    unit.end_leftover();
    assert!(!waiter.join().expect("thread").expect("status").success());
    assert_eq!(unit.leftover(), None);
}

/// Of a daemon that was killed; the number is another process's, and daemons do not start beside one that seems to run.
#[test]
fn an_old_pid_file_is_removed() {
    let dir = tempfile::tempdir().expect("dir");
    let unit = shell(dir.path(), "[ -e $0/pid ] && exit 0; > $0/ready; sleep 60");
    fs::write(&unit.pid_file, std::process::id().to_string()).expect("written");
    let mut daemons = Supervisor::default();
    assert!(daemons.start_if_due(&unit), "{:?}", daemons.state("shell"));
}

#[test]
fn they_end_with_their_service() {
    let dir = tempfile::tempdir().expect("dir");
    let unit = shell(dir.path(), RUNS);
    let mut daemons = Supervisor::default();
    assert!(daemons.start_if_due(&unit));
    drop(daemons);
    assert_eq!(unit.leftover(), None);
}

fn slot_of(dir: &Path, script: &str) -> (Supervisor, Unit) {
    let (mut daemons, unit) = (Supervisor::default(), shell(dir, script));
    assert!(daemons.start_if_due(&unit));
    (daemons, unit)
}

/// The time at which `seconds` have passed.
fn later(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

/// Of a daemon and of one that it has made: both are ended, and what it has made does not stay behind.
#[test]
fn one_that_is_stopped_is_named_and_ended() {
    let dir = tempfile::tempdir().expect("dir");
    let (mut daemons, _) =
        slot_of(dir.path(), "echo $$ > $0/pid; sleep 60 & echo $! > $0/made; > $0/ready; wait");
    let made: i32 = fs::read_to_string(dir.path().join("made")).expect("pid").trim().parse().expect("pid");
    let made = Pid::from_raw(made).expect("pid");
    kill_process(made, Signal::STOP).expect("stopped");
    within("it is seen", || {
        assert!(!daemons.notice_end("shell"));
        daemons.slots["shell"].silence.is_some()
    });
    assert!(daemons.state("shell").is_well(), "not for a moment");
    let silence = |d: &mut Supervisor, ago: u64| {
        let silence = d.slots.get_mut("shell").and_then(|s| s.silence.as_mut()).expect("silence");
        silence.since = Instant::now().checked_sub(Duration::from_secs(ago)).expect("a time");
        silence.worked_at = silence.since;
    };
    silence(&mut daemons, 4);
    let state = daemons.state("shell");
    assert!(state.hangs && state.pid.is_some() && !state.is_well(), "{state:?}");
    assert_eq!(state.problem, "it is stopped by a signal");
    silence(&mut daemons, 16);
    assert!(daemons.notice_end("shell"));
    let state = daemons.state("shell");
    assert!(!state.hangs && state.pid.is_none() && state.restarts == 1, "{state:?}");
    assert_eq!(state.problem, "it is stopped by a signal, for 16 s; it is started again");
    within("nothing of it is left", || process::look(made).is_none_or(|l| l.is_dead()));
    within("it starts again", || daemons.start_if_due(&shell(dir.path(), RUNS)));
    assert!(daemons.state("shell").is_well());
}

/// One that goes on when somebody lets it, is as before.
#[test]
fn one_that_goes_on_is_left_alone() {
    let dir = tempfile::tempdir().expect("dir");
    let (mut daemons, unit) = slot_of(dir.path(), RUNS);
    assert!(daemons.signal("shell", Signal::STOP));
    within("it is seen", || {
        assert!(!daemons.notice_end("shell"));
        daemons.slots["shell"].silence.is_some()
    });
    assert!(daemons.signal("shell", Signal::CONT));
    within("it goes on", || {
        assert!(!daemons.notice_end("shell"));
        daemons.slots["shell"].silence.is_none()
    });
    // A stopped one ends as soon as it should.
    assert!(daemons.signal("shell", Signal::STOP));
    let begun = Instant::now();
    daemons.end("shell");
    assert!(begun.elapsed() < END && unit.leftover().is_none());
}

#[test]
fn one_that_does_not_answer_has_longer_while_it_works() {
    let dir = tempfile::tempdir().expect("dir");
    let (mut daemons, _) = slot_of(dir.path(), "echo $$ > $0/pid; > $0/ready; while :; do :; done");
    daemons.heard("shell", false);
    assert!(!daemons.notice_end("shell"));
    let slot = daemons.slots.get_mut("shell").expect("slot");
    within("it works", || {
        assert_eq!(slot.hangs_for_good(later(2)), None);
        slot.silence.as_ref().is_some_and(|s| s.worked_at > Instant::now())
    });
    assert_eq!(slot.hangs_for_good(later(16)), None, "it works");
    assert!(slot.hangs_for_good(later(40)).is_some_and(|why| why.contains("does not answer")), "it idles");
    slot.silence.as_mut().expect("silence").worked = 0;
    assert!(slot.hangs_for_good(later(121)).is_some(), "there is an end to everything");
    daemons.heard("shell", true);
    assert!(!daemons.notice_end("shell") && !daemons.hangs("shell"));
}
