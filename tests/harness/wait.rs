//! Waiting for conditions, and keeping heavy tests apart.
//!
//! Owns the poll loops of the tests and the lock of the heavy ones. Never decides what a test waits for.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long any single wait may take. Far longer than anything takes, also on a machine that has much else to do, so that
/// only a fault meets it.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Waits until the condition holds.
///
/// # Panics
/// It did not within [`DEADLINE`]; `what` completes the sentence "waited in vain until ...".
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    eventually_within(DEADLINE, what, condition);
}

/// [`eventually`] with a deadline of its own.
pub fn eventually_within(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition() {
        assert!(
            Instant::now() < end,
            "waited in vain ({deadline:?}) until {what}"
        );
        thread::sleep(POLL);
    }
}

/// [`eventually`] beside other work of the same thread; the deadline is the caller's.
pub async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(POLL).await;
    }
}

/// Watches for a while that a condition keeps holding: the only way to see that something does not happen.
pub fn holds_for(time: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        assert!(condition(), "no longer true: {what}");
        thread::sleep(POLL);
    }
}

/// Lets time pass, where a time limit is itself what is tested.
pub fn pass(time: Duration) {
    thread::sleep(time);
}

/// Does something at a fixed pace for a while; passes the number of the round.
pub fn at_a_pace(pace: Duration, time: Duration, mut act: impl FnMut(usize)) {
    let start = Instant::now();
    for round in 0.. {
        let due = start + pace * u32::try_from(round).unwrap();
        if due >= start + time {
            return;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        act(round);
    }
}

/// Holds back whoever waits until somebody opens it. Open gates stay open.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits for [`Gate::open`]; gives up silently after a minute, since the test is over then.
    pub fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        drop(
            self.0
                .1
                .wait_timeout_while(open, Duration::from_secs(60), |open| !*open)
                .unwrap(),
        );
    }
}

/// Held by a test that uses much memory, processor time or many sockets: one of them at a time, over all test processes.
pub fn heavy() -> File {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("heavy.lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .unwrap();
    lock.lock().unwrap();
    lock
}
