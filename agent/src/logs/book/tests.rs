//! Whose turn it is, and what the server has in the end, whatever breaks.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

fn key(task: u64) -> Key {
    Key { tenant: "t".into(), job: 1, step: 0, task, attempt: 1, epoch: 1, rank: 0 }
}
fn out(task: u64) -> StreamKey {
    (key(task), Side::Out)
}
fn chunk(task: u64, offset: u64, len: u64, end: bool) -> Option<Chunk> {
    Some(Chunk { stream: out(task), offset, dropped: 0, len, end })
}

#[test]
fn a_stream_is_sent_in_order_and_removed_once_done_and_forgotten() {
    let mut book = LogBook::default();
    book.opened(key(1), false);
    book.grew(&out(1), 10);
    assert_eq!(book.next_chunk(0), chunk(1, 0, 10, false));
    assert_eq!(book.next_chunk(0), None);
    book.ended(&key(1), 15, 0);
    assert_eq!(book.next_chunk(0), chunk(1, 10, 5, true));
    book.forgotten(&key(1));
    book.receipt(&out(1), 10, false, 1);
    assert_eq!(book.spool_bytes(), 5);
    assert!(book.take_removable().is_empty());
    book.receipt(&out(1), 15, true, 1);
    assert_eq!((book.take_removable(), book.spool_bytes()), (vec![key(1)], 0));
    assert!(!book.is_waiting());
}

#[test]
fn an_end_that_comes_late_is_a_shipment_of_its_own() {
    let mut book = LogBook::default();
    book.opened(key(1), false);
    book.grew(&out(1), 4);
    assert_eq!(book.next_chunk(0), chunk(1, 0, 4, false));
    book.receipt(&out(1), 4, false, 1);
    book.ended(&key(1), 4, 0);
    assert_eq!(book.next_chunk(0), chunk(1, 4, 0, true));
    assert_eq!(book.next_chunk(0), None);
}

#[test]
fn empty_streams_are_never_shipped() {
    let mut book = LogBook::default();
    book.opened(key(1), false);
    book.ended(&key(1), 0, 0);
    assert_eq!(book.next_chunk(0), None);
    book.forgotten(&key(1));
    assert_eq!(book.take_removable(), vec![key(1)]);
}

#[test]
fn a_flood_does_not_hold_up_a_trickle() {
    let mut book = LogBook::default();
    book.opened(key(1), false);
    book.opened(key(2), false);
    book.grew(&out(1), 100 << 20);
    book.grew(&out(2), 5);
    assert_eq!(book.next_chunk(0), chunk(1, 0, limits::LOG_CHUNK_BYTES_MAX, false));
    assert_eq!(book.next_chunk(0), chunk(2, 0, 5, false));
    let mut sent = limits::LOG_CHUNK_BYTES_MAX + 5;
    while let Some(next) = book.next_chunk(0) {
        sent += next.len;
    }
    assert!(sent <= limits::LOG_UNACKED_BYTES_MAX, "the window holds");
}

/// Chunks of a tenant's tasks, in the order in which they go.
fn sent(book: &mut LogBook) -> Vec<(String, u64, u64)> {
    let chunks = std::iter::from_fn(|| book.next_chunk(0));
    chunks.map(|chunk| (chunk.stream.0.tenant.to_string(), chunk.stream.0.task, chunk.len)).collect()
}

#[test]
fn many_streams_of_a_tenant_hold_up_no_other() {
    let mut book = LogBook::default();
    for task in 0..500 {
        book.opened(key(task), false);
        book.grew(&out(task), 1 << 20);
    }
    let quiet = Key { tenant: "quiet".into(), ..key(7) };
    book.opened(quiet.clone(), false);
    book.grew(&(quiet.clone(), Side::Out), 5);
    let first = sent(&mut book);
    let flood: Vec<u64> =
        first.iter().filter(|(tenant, ..)| tenant == "t").map(|(_, task, _)| *task).collect();
    assert_eq!(first[1], ("quiet".into(), 7, 5), "after one turn of the other");
    assert_eq!(flood, (0..flood.len() as u64).collect::<Vec<_>>(), "streams of a tenant take turns too");
    // The server has not answered, and is said so much more: there is room for who had little.
    let flood = limits::LOG_CHUNK_BYTES_MAX * flood.len() as u64;
    assert!(flood <= limits::LOG_UNACKED_BYTES_MAX / 2 + limits::LOG_CHUNK_BYTES_MAX, "{flood}");
    book.grew(&(quiet, Side::Out), 9);
    assert_eq!(sent(&mut book), [("quiet".into(), 7, 4)]);
}

#[test]
fn many_small_shipments_of_a_tenant_leave_room_as_well() {
    let mut book = LogBook::default();
    for task in 0..1_000 {
        book.opened(key(task), false);
        book.grew(&out(task), 1);
    }
    let quiet = Key { tenant: "quiet".into(), ..key(7) };
    let stream = (quiet.clone(), Side::Out);
    book.opened(quiet, false);
    book.grew(&stream, 5);
    let first = sent(&mut book);
    assert_eq!(first[limits::LOG_TURN_SHIPMENTS], ("quiet".into(), 7, 5));
    assert!(first.len() <= limits::LOG_SHIPMENTS_UNACKED_MAX / 2 + 2, "{}", first.len());
    book.grew(&stream, 9);
    assert_eq!(sent(&mut book), [("quiet".into(), 7, 4)]);
    // Answered, all of it goes in the end.
    let mut all = first.len() - 1;
    let mut due: Vec<u64> = first.iter().filter(|(tenant, ..)| tenant == "t").map(|sent| sent.1).collect();
    while !due.is_empty() {
        for task in std::mem::take(&mut due) {
            book.receipt(&out(task), 1, false, 1);
        }
        due.extend(sent(&mut book).iter().map(|sent| sent.1));
        all += due.len();
    }
    assert_eq!(all, 1_000);
}

#[test]
fn an_adopted_stream_asks_where_to_go_on() {
    let mut book = LogBook::default();
    book.opened(key(1), true);
    book.ended(&key(1), 30, 0);
    assert_eq!(book.next_chunk(0), chunk(1, 0, 0, false));
    assert_eq!(book.next_chunk(0), None);
    book.receipt(&out(1), 20, false, 1);
    assert_eq!(book.next_chunk(0), chunk(1, 20, 10, true));
    book.receipt(&out(1), 30, true, 1);
    book.forgotten(&key(1));
    assert_eq!(book.take_removable(), vec![key(1)]);
}

#[test]
fn files_over_their_bound_lose_what_the_server_has_and_nothing_else() {
    const UNIT: u64 = limits::SPOOL_CUT_BYTES;
    let mut book = LogBook::default();
    book.opened(key(1), false);
    book.opened(key(2), false);
    book.grew(&out(1), 3 * UNIT);
    book.grew(&out(2), 7 * UNIT);
    sent(&mut book);
    assert_eq!(book.take_spare(0), [], "the server has not said that it has anything");
    book.receipt(&out(1), 2 * UNIT + 5, false, 1);
    book.receipt(&out(2), UNIT - 1, false, 1);
    assert_eq!(book.take_spare(10 * UNIT), [], "they are not over it");
    assert_eq!(book.take_spare(10 * UNIT - 1), [(out(1), 0..2 * UNIT)], "whole units");
    assert_eq!(book.take_spare(8 * UNIT), [], "what is gone does not count");
    book.receipt(&out(1), 3 * UNIT, false, 1);
    book.receipt(&out(2), UNIT, false, 1);
    assert_eq!(book.take_spare(0), [(out(1), 2 * UNIT..3 * UNIT), (out(2), 0..UNIT)]);
    assert_eq!(book.take_spare(0), [], "told once");
    // What goes on its way again is still there.
    book.rewind_all();
    let next = std::iter::from_fn(|| book.next_chunk(2)).map(|chunk| (chunk.stream, chunk.offset));
    assert_eq!(next.take(1).collect::<Vec<_>>(), [(out(2), UNIT)]);
}

#[test]
fn a_gap_at_the_server_is_filled_once() {
    let mut book = LogBook::default();
    book.opened(key(1), false);
    book.grew(&out(1), 10);
    assert_eq!(book.next_chunk(0), chunk(1, 0, 10, false));
    book.grew(&out(1), 20);
    assert_eq!(book.next_chunk(0), chunk(1, 10, 10, false));
    // The first never arrived; the second met a gap.
    book.receipt(&out(1), 0, false, 1);
    assert_eq!(book.next_chunk(1), chunk(1, 0, 20, false));
    // A straggler's answer does not send it all again.
    book.receipt(&out(1), 0, false, 1);
    assert_eq!(book.next_chunk(1), None);
    book.receipt(&out(1), 20, false, 1);
    assert_eq!(book.spool_bytes(), 0);
}

#[test]
fn a_new_connection_sends_the_unconfirmed_again() {
    let mut book = LogBook::default();
    book.opened(key(1), false);
    book.grew(&out(1), 10);
    assert!(book.next_chunk(0).is_some());
    assert!(book.is_overdue(limits::LOG_RECEIPT_MS_MAX + 1));
    book.rewind_all();
    assert_eq!(book.next_chunk(0), chunk(1, 0, 10, false));
}

/// Gives up what is too much; how many bytes.
fn give_up(book: &mut LogBook, bytes_max: u64) -> u64 {
    book.surplus(bytes_max).into_iter().map(|(stream, floor)| book.give_up(&stream, floor)).sum()
}

#[test]
fn of_what_is_too_much_the_oldest_goes_of_whoever_has_most() {
    let mut book = LogBook::default();
    for task in 1..=3 {
        book.opened(key(task), false);
    }
    let mut other = key(4);
    other.tenant = "u".into();
    book.opened(other.clone(), false);
    book.grew(&out(1), 10);
    book.grew(&out(2), 500);
    book.grew(&out(3), 700);
    book.grew(&(other.clone(), Side::Out), 300);
    assert_eq!(book.surplus(1_510), []);
    // 700 bytes are room for 800: 300 are another's, so 400 for the flood of one.
    assert_eq!(book.surplus(800), [(out(2), 305), (out(3), 505)]);
    assert_eq!(give_up(&mut book, 800), 810);
    assert_eq!((book.spool_bytes(), book.surplus(800)), (700, Vec::new()));
}

#[test]
fn what_was_given_up_is_told_and_what_is_behind_it_comes() {
    let mut book = LogBook::default();
    book.opened(key(1), false);
    book.grew(&out(1), 100);
    assert_eq!(book.next_chunk(0), chunk(1, 0, 100, false));
    book.grew(&out(1), 1_000);
    assert_eq!(give_up(&mut book, 800), 300);
    // What was on its way has arrived; how much is missing the server knows.
    let gap = |offset, dropped, len, end| Some(Chunk { stream: out(1), offset, dropped, len, end });
    assert_eq!(book.next_chunk(1), gap(300, 300, 700, false));
    book.receipt(&out(1), 100, false, 1);
    assert_eq!(book.next_chunk(1), None);
    // The stream to the server breaks before it is told.
    book.rewind_all();
    assert_eq!(book.next_chunk(2), gap(300, 200, 700, false));
    book.receipt(&out(1), 1_000, false, 2);
    assert_eq!(book.spool_bytes(), 0);
    book.ended(&key(1), 1_000, 0);
    assert_eq!(book.next_chunk(3), chunk(1, 1_000, 0, true));
}

#[test]
fn a_new_agent_tells_what_the_one_before_gave_up() {
    let mut book = LogBook::with_floors(BTreeMap::from([(out(1), 300), (out(2), 300)]));
    book.opened(key(1), true);
    book.grew(&out(1), 400);
    assert_eq!(book.next_chunk(0), chunk(1, 0, 0, false), "it asks first");
    book.receipt(&out(1), 120, false, 1);
    let told = Chunk { stream: out(1), offset: 300, dropped: 180, len: 100, end: false };
    assert_eq!(book.next_chunk(1), Some(told));
    // Power was lost and with it the end of the file: the stream ends behind what is gone.
    book.opened(key(2), true);
    book.ended(&key(2), 250, 0);
    assert_eq!(book.next_chunk(2), chunk(2, 0, 0, false));
    book.receipt(&out(2), 0, false, 2);
    let told = Chunk { stream: out(2), offset: 300, dropped: 300, len: 0, end: true };
    assert_eq!(book.next_chunk(2), Some(told));
}

/// A server that keeps what fits behind what it has, over a connection that
/// breaks: what it has in the end is what was written.
#[derive(Default)]
struct Relay {
    len: BTreeMap<StreamKey, (u64, bool)>,
    in_flight: VecDeque<Chunk>,
    dropped: u64,
}

impl Relay {
    fn take(&mut self, chunk: &Chunk) -> (u64, bool) {
        let (len, done) = self.len.entry(chunk.stream.clone()).or_default();
        if *len < chunk.offset && chunk.offset - chunk.dropped <= *len {
            self.dropped += chunk.offset - *len;
            *len = chunk.offset;
        }
        if chunk.offset <= *len {
            *len = (*len).max(chunk.offset + chunk.len);
            *done |= chunk.end && chunk.offset + chunk.len == *len;
        }
        (*len, *done)
    }
}

proptest! {
    #[test]
    fn the_server_gets_every_byte_whatever_breaks(
        moves in prop::collection::vec((0..7u8, 0..4u64, 1..200_000u64), 1..200),
    ) {
        let (mut book, mut relay, mut now_ms) = (LogBook::default(), Relay::default(), 0);
        let mut given_up = 0;
        let mut written: BTreeMap<u64, u64> = BTreeMap::new();
        let mut ended: BTreeMap<u64, bool> = BTreeMap::new();
        for (kind, task, bytes) in moves {
            now_ms += 10;
            match kind {
                0 if !written.contains_key(&task) => {
                    written.insert(task, 0);
                    book.opened(key(task), task % 2 == 1);
                }
                1 if !ended.contains_key(&task) && written.contains_key(&task) => {
                    *written.get_mut(&task).unwrap() += bytes;
                    book.grew(&out(task), written[&task]);
                }
                2 => relay.in_flight.extend(book.next_chunk(now_ms)),
                3 => {
                    if let Some(chunk) = relay.in_flight.pop_front() {
                        let (offset, done) = relay.take(&chunk);
                        book.receipt(&chunk.stream, offset, done, now_ms);
                    }
                }
                4 if task == 0 => {
                    // Some arrived, and nobody heard of it.
                    if let Some(chunk) = relay.in_flight.pop_front() {
                        relay.take(&chunk);
                    }
                    relay.in_flight.clear();
                    book.rewind_all();
                }
                5 if written.contains_key(&task) && ended.insert(task, true).is_none() => {
                    book.ended(&key(task), written[&task], 0);
                }
                6 if task == 0 => {
                    given_up += give_up(&mut book, bytes);
                    prop_assert!(book.spool_bytes() <= bytes);
                }
                _ => {}
            }
            let sent: u64 = relay.in_flight.iter().map(|chunk| chunk.len).sum();
            prop_assert!(sent <= limits::LOG_UNACKED_BYTES_MAX);
        }
        for (task, bytes) in &written {
            if !ended.contains_key(task) {
                book.ended(&key(*task), *bytes, 0);
            }
            book.forgotten(&key(*task));
        }
        for _ in 0..10_000 {
            relay.in_flight.extend(book.next_chunk(now_ms));
            if let Some(chunk) = relay.in_flight.pop_front() {
                let (offset, done) = relay.take(&chunk);
                book.receipt(&chunk.stream, offset, done, now_ms);
            }
        }
        prop_assert_eq!(book.spool_bytes(), 0);
        prop_assert!(relay.dropped <= given_up, "{} of {}", relay.dropped, given_up);
        prop_assert_eq!(book.take_removable().len(), written.len());
        for (task, bytes) in written.into_iter().filter(|(_, bytes)| *bytes > 0) {
            prop_assert_eq!(relay.len.get(&out(task)), Some(&(bytes, true)));
        }
    }
}
