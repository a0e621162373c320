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
    let origin = Origin::text("ok");
    let coreway = Start::new().files_max(96).serve(&site(&origin));
    let mut client = coreway.client();
    assert_eq!(client.get("/").status, 200);
    let crowd: Vec<Client> = (0..200).map(|_| coreway.client()).collect();
    // Its server connection is in the pool, so mostly nothing new is needed. The kernel may have accepted more than there
    // was room for before a core looked, though, and then what the pool kept was closed.
    assert!(matches!(client.get("/").status, 200 | 502));
    drop(crowd);
    eventually("it is served again, on the connection it had", || {
        client.get("/").status == 200
    });
    coreway.assert_runs();
}
