use super::*;
use crate::limits::Limits;
use crate::slot::{Protocol, write_deadline};
use std::time::Duration;

fn peer(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 1000))
}

fn gate(connections: usize, per_source: usize, buffered: usize) -> Arc<Gate> {
    Gate::new(Limits { connections, per_source, buffered, ..Limits::default() })
}

/// A connection as the server drives it: gone once it is cut off.
async fn opened(gate: &Arc<Gate>, host: u8) -> Result<Conn, Reason> {
    let conn = gate.admit(peer(host)).await?;
    tokio::time::sleep(Duration::from_millis(2)).await;
    Ok(conn)
}

fn driven(conn: Conn) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move { conn.cut().await })
}

fn count(gate: &Gate, reason: Reason) -> u64 {
    gate.ended().find(|(r, _)| *r == reason).map_or(0, |(_, n)| n)
}

#[test]
fn sources() {
    let of = |text: &str| Source::of(text.parse().unwrap());
    assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:ffff:ffff:ffff"));
    assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
}

#[tokio::test]
async fn a_source_displaces_its_own_and_the_largest_makes_room_for_others() {
    let gate = gate(4, 3, 0);
    let mut of_one = Vec::new();
    for _ in 0..3 {
        of_one.push(driven(opened(&gate, 1).await.unwrap()));
    }
    let other = driven(opened(&gate, 2).await.unwrap());
    // The bound of the source: its oldest goes.
    of_one.push(driven(opened(&gate, 1).await.unwrap()));
    assert!(of_one[0].is_finished() && !of_one[1].is_finished() && !other.is_finished());
    assert_eq!((gate.open(), count(&gate, Reason::Source)), (4, 1));
    // The bound of all: the source with most gives one.
    let third = driven(opened(&gate, 3).await.unwrap());
    assert!(of_one[1].is_finished() && !of_one[2].is_finished() && !other.is_finished());
    let more = driven(opened(&gate, 3).await.unwrap());
    assert_eq!((gate.open(), count(&gate, Reason::Connections)), (4, 2));
    assert!(!other.is_finished(), "who has one keeps it");
    for task in [other, third, more].into_iter().chain(of_one) {
        task.abort();
    }
}

#[tokio::test]
async fn calls_that_run_are_not_cut_off() {
    let gate = gate(2, 2, 0);
    let conns = [opened(&gate, 1).await.unwrap(), opened(&gate, 1).await.unwrap()];
    let calls: Vec<_> = conns.iter().filter_map(Conn::call).collect();
    assert_eq!(gate.admit(peer(1)).await.unwrap_err(), Reason::Source);
    assert_eq!(gate.admit(peer(2)).await.unwrap_err(), Reason::Connections);
    drop((conns, calls));
    assert_eq!(gate.open(), 0);
    assert!(gate.admit(peer(2)).await.is_ok());
}

#[tokio::test]
async fn descriptors_are_left_to_others_when_they_run_out() {
    let gate = gate(100, 100, 0);
    let mut tasks = Vec::new();
    for _ in 0..8 {
        tasks.push(driven(opened(&gate, 1).await.unwrap()));
    }
    gate.out_of_descriptors();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!((gate.open(), count(&gate, Reason::Descriptors)), (6, 1));
    tasks.push(driven(opened(&gate, 2).await.unwrap()));
    assert_eq!(gate.open(), 6, "no more than then");
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn bytes_are_counted_and_given_back() {
    let gate = gate(10, 10, 100);
    let conn = opened(&gate, 1).await.unwrap();
    let small = conn.hold(Limits::FREE).await.unwrap();
    assert_eq!(gate.buffered(), 0, "the number of connections bounds these");
    let mut more = conn.hold(60).await.unwrap();
    more.grow(40).await.unwrap();
    assert_eq!(gate.buffered(), 100);
    assert_eq!(more.grow(1).await.unwrap_err(), Reason::Buffers);
    drop(small);
    assert_eq!(gate.buffered(), 0);
    drop(more);
    let hold = conn.hold(Limits::FREE + 50).await.unwrap();
    let call = conn.call().expect("the only one");
    call.answering(hold);
    drop(call);
    assert_eq!((gate.buffered(), conn.slot().idle_since()), (50, None));
    conn.answered();
    assert!(gate.buffered() == 0 && conn.slot().idle_since().is_some());
}

#[tokio::test]
async fn the_source_that_keeps_most_gives_back() {
    let gate = gate(10, 10, 100);
    let mut tasks = Vec::new();
    for _ in 0..2 {
        let conn = opened(&gate, 1).await.unwrap();
        let hold = conn.hold(Limits::FREE + 50).await.unwrap();
        tasks.push(tokio::spawn(async move {
            conn.cut().await;
            drop((hold, conn));
        }));
    }
    let conn = opened(&gate, 2).await.unwrap();
    let hold = conn.hold(Limits::FREE + 30).await.unwrap();
    assert_eq!(gate.buffered(), 80);
    // More than the other keeps: no fair exchange.
    assert_eq!(conn.hold(60).await.unwrap_err(), Reason::Buffers);
    assert_eq!(tasks.iter().filter(|t| t.is_finished()).count(), 1);
    drop((hold, conn));
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn calls_beside_the_first_of_a_connection_count_like_connections() {
    let gate = gate(4, 3, 0);
    let (conn, other) = (opened(&gate, 1).await.unwrap(), opened(&gate, 2).await.unwrap());
    conn.slot().speaks(Protocol::Http2);
    let mut calls: Vec<_> = (0..3).map(|_| conn.call().expect("the source may have three")).collect();
    assert!(conn.call().is_none() && count(&gate, Reason::Source) == 1);
    // The other one always gets its first, and more while there are fewer than four of all.
    let first = other.call().expect("its first");
    assert!(other.call().is_none() && count(&gate, Reason::Connections) == 1);
    calls.pop();
    let second = other.call().expect("there is room");
    drop((first, calls));
    let third = other.call().expect("there is room");
    drop((second, third));
    assert_eq!(other.slot().calls(), 0);
    assert!((0..3).map(|_| conn.call()).filter(Option::is_some).count() == 3, "nothing is left behind");
}

#[tokio::test]
async fn who_takes_calls_back_all_the_time_is_known() {
    let gate = gate(4, 3, 0);
    let conn = opened(&gate, 1).await.unwrap();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        conn.slot().speaks(protocol);
        for _ in 0..60 {
            drop(conn.call());
        }
    }
    assert!(conn.slot().takes_back());
    for _ in 0..30 {
        let call = conn.call().expect("the only one");
        drop(call.answer_of(call.hold(1).await.unwrap()));
    }
    assert!(!conn.slot().takes_back(), "it lets many end");
}

#[tokio::test]
async fn an_answer_has_as_much_time_as_it_is_long_if_some_is_taken() {
    let patience = Duration::from_secs(10);
    let began = Instant::now();
    let due = |last, taken| {
        (write_deadline(began, began + Duration::from_secs(last), taken, patience) - began).as_secs()
    };
    assert_eq!(
        (due(0, 0), due(8, 16 * 1024), due(16, 32 * 1024)),
        (10, 18, 24),
        "8 KiB a second in the long run"
    );
    let conn = opened(&gate(4, 3, 1 << 21), 1).await.unwrap();
    let call = conn.call().expect("the only one");
    let deadline = || conn.slot().outgoing.deadline(patience);
    assert_eq!(deadline(), None);
    let slow = call.answer_of(call.hold(1 << 20).await.unwrap());
    let first = deadline().expect("an answer");
    tokio::time::sleep(Duration::from_millis(5)).await;
    let quick = call.answer_of(call.hold(1).await.unwrap());
    assert_eq!(deadline(), Some(first), "the first one counts");
    slow.taken(16 * 1024);
    assert!(deadline() > Some(first), "it was taken up");
    drop((slow, quick));
    assert_eq!(deadline(), None);
}
