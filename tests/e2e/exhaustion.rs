//! Running out of file descriptors: the listener survives, no core spins, and it recovers by itself.

use std::time::Duration;

use crate::harness::{Client, Origin, Start, eventually, heavy, site};

#[test]
fn running_out_of_descriptors_is_survived() {
    let _alone = heavy();
    let origin = Origin::text("ok");
    let coreway = Start::new().files_max(96).serve(&site(&origin));
    assert_eq!(coreway.get("/").status, 200);
    // More connections than descriptors: those beyond wait in the kernel's queue.
    let crowd: Vec<Client> = (0..200).map(|_| coreway.client()).collect();
    let used = coreway.cpu_time_during(Duration::from_secs(2));
    assert!(
        used < Duration::from_millis(500),
        "a core spins: {used:?} of processor time in two seconds"
    );
    coreway.assert_runs();
    drop(crowd);
    eventually("it serves again", || {
        let mut client = coreway.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client
            .try_response()
            .is_ok_and(|response| response.status == 200)
    });
}

#[test]
fn connections_in_use_survive_the_shortage() {
    let _alone = heavy();
    // Each request needs a connection of its own to the server: what is set aside for them must not go to clients.
    let origin = Origin::new(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok".to_vec()
    });
    let coreway = Start::new().files_max(96).serve(&site(&origin));
    let mut client = coreway.client();
    assert_eq!(client.get("/").status, 200);
    let _crowd: Vec<Client> = (0..200).map(|_| coreway.client()).collect();
    coreway.await_log("no more connections are accepted for now");
    for _ in 0..10 {
        assert_eq!(client.get("/").status, 200);
    }
    coreway.assert_runs();
}
