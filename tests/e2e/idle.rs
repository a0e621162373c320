//! Ten thousand idle keep-alive connections: what they cost.

use std::time::Duration;

use crate::harness::{Client, Coreway, DEADLINE, Origin, eventually_within, heavy};

const CONNECTIONS: usize = 10_000;

/// The bound of the project: HAProxy needs 1.1 KiB for one, nginx 0.5 KiB, Traefik 24 KiB. On epoll, where a wait can only
/// be called off through an object of its own, twice as much.
fn bytes_each_max() -> usize {
    match std::env::var("COREWAY_TEST_DRIVER").as_deref() {
        Ok("epoll") => 4 * 1024,
        _ => 2 * 1024,
    }
}

/// File descriptors this process and the program may have, as the kernel tells.
fn files_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|l| l.starts_with("Max open files"))
        .expect("the kernel tells the limit");
    line.split_whitespace()
        .nth(3)
        .unwrap()
        .parse()
        .unwrap_or(usize::MAX)
}

#[test]
fn ten_thousand_idle_connections_are_cheap() {
    if files_max() < CONNECTIONS + 500 {
        let reason = format!("only {} file descriptors are allowed here", files_max());
        assert!(
            std::env::var("CI").is_err(),
            "cannot be skipped in CI: {reason}"
        );
        eprintln!("skipped: {reason}");
        return;
    }
    let _alone = heavy();
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    // The first ones pay for buffers and tables that all share.
    let mut warm: Vec<Client> = (0..64).map(|_| coreway.client()).collect();
    for client in &mut warm {
        assert_eq!(client.get("/").status, 200);
    }
    let before = coreway.memory_kib();
    let mut crowd = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let mut client = coreway.client();
        assert_eq!(client.get("/").status, 200);
        crowd.push(client);
    }
    // A connection gives its buffer back once it has been quiet for a second. How long it takes until all are quiet is the
    // machine's affair.
    eventually_within(2 * DEADLINE, "nothing costs next to nothing", || {
        let used = coreway.cpu_time_during(Duration::from_secs(2));
        eprintln!("{used:?} of processor time for doing nothing");
        used <= Duration::from_millis(30)
    });
    let grown = coreway.memory_kib().saturating_sub(before);
    let each = grown * 1024 / CONNECTIONS;
    eprintln!("{each} bytes for each of {CONNECTIONS} idle connections");
    assert!(
        each <= bytes_each_max(),
        "{each} bytes for each idle connection"
    );
    for client in crowd.iter_mut().step_by(100) {
        assert_eq!(client.get("/").status, 200, "they are all still there");
    }
}
