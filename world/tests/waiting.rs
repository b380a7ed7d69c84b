//! Waiting wakes whoever waits, once, and nobody else.

use std::future::{Future, poll_fn};
use std::pin::pin;
use world::time::{Alarm, Instant, ms, sleep, sleep_until, timeout};

#[cfg(not(madsim))]
fn run<F: Future>(story: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(story)
}

#[cfg(madsim)]
fn run<F: Future>(story: F) -> F::Output {
    madsim::runtime::Runtime::new().block_on(story)
}

/// Waits for a future; how often it had to be polled for it.
async fn polls<F: Future>(future: F) -> u32 {
    let mut future = pin!(future);
    let mut polls = 0;
    poll_fn(|context| {
        polls += 1;
        future.as_mut().poll(context)
    })
    .await;
    polls
}

#[test]
fn a_deadline_looked_at_often_wakes_once() {
    run(async {
        let begun = Instant::now();
        let mut far = pin!(sleep(ms(200)));
        for _ in 0..20 {
            world::select! { biased;
                () = &mut far => panic!("200 ms are not over yet"),
                () = sleep(ms(2)) => {}
            }
        }
        assert_eq!(polls(far).await, 2, "once to begin with, once when it is over");
        assert!(begun.elapsed() >= ms(200));
    });
}

#[test]
fn what_is_waited_for_no_longer_wakes_nobody() {
    run(async {
        for _ in 0..20 {
            assert!(timeout(ms(50), std::future::ready(())).await.is_ok());
            world::select! { biased;
                () = sleep(ms(1)) => {}
                () = sleep(ms(50)) => panic!("a millisecond comes before fifty"),
            }
        }
        assert_eq!(polls(sleep(ms(150))).await, 2);
    });
}

#[test]
fn a_timeout_counts_from_its_call_and_prefers_the_answer() {
    run(async {
        let late = timeout(ms(20), std::future::pending::<()>());
        sleep(ms(30)).await;
        let begun = Instant::now();
        assert!(late.await.is_err());
        assert!(begun.elapsed() < ms(20), "its time was over before it was waited for");
        assert_eq!(timeout(ms(0), async { 7 }).await.ok(), Some(7));
        let begun = Instant::now();
        sleep_until(begun + ms(10)).await;
        assert!(begun.elapsed() >= ms(10));
    });
}

#[test]
fn an_alarm_rings_at_the_last_time_it_was_set_to() {
    run(async {
        let mut alarm = Alarm::default();
        for _ in 0..20 {
            world::select! { biased;
                () = alarm.after(ms(200)) => panic!("it was put off each time"),
                () = sleep(ms(2)) => {}
            }
        }
        let set = Instant::now();
        alarm.after(ms(300)).await;
        assert!(set.elapsed() >= ms(300), "a timer set earlier fired meanwhile");
        world::select! { biased;
            () = alarm.after(ms(60_000)) => panic!("a minute comes after a millisecond"),
            () = sleep(ms(1)) => {}
        }
        let set = Instant::now();
        alarm.after(ms(20)).await;
        assert!(set.elapsed() >= ms(20) && set.elapsed() < ms(30_000), "it was brought forward");
    });
}

#[test]
fn an_alarm_for_the_past_rings_however_often_it_is_set() {
    run(async {
        let mut alarm = Alarm::default();
        let past = Instant::now();
        let begun = Instant::now();
        loop {
            world::select! { biased;
                () = alarm.at(past) => break,
                () = tokio::task::yield_now() => {}
            }
            assert!(begun.elapsed() < ms(10_000), "put off for ever");
        }
    });
}
