//! Ejection: a server that fails again and again is left alone, without a health check.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::harness::{Coreway, Origin, answer, eventually};

/// A server that answers its name with the status in the other hand.
fn server(name: &'static str, status: u16) -> (Origin, Arc<AtomicU16>) {
    let mood = Arc::new(AtomicU16::new(status));
    let told = Arc::clone(&mood);
    let origin = Origin::new(move |_| answer(told.load(Ordering::SeqCst), name));
    (origin, mood)
}

fn rules(origins: &[&Origin], ejection: &str) -> String {
    let servers: String = origins
        .iter()
        .zip(["A", "B", "C"])
        .map(|(origin, name)| format!("[backends.b.servers.{name}]\nurl = \"{}\"\n", origin.url()))
        .collect();
    servers + ejection + "[frontends.f]\nbackend = \"b\"\n"
}

const FOR_LONG: &str = "[backends.b.ejection]\nfailures = 3\ntime = \"1h\"\n";

/// Who answers the next requests, on connections that reach every core.
fn answers(coreway: &Coreway) -> String {
    (0..6).map(|_| coreway.get("/").text()).collect()
}

#[test]
fn a_server_that_fails_is_left_alone_on_every_core() {
    let ((a, mood), (b, _)) = (server("A", 503), server("B", 200));
    let coreway = Coreway::serve(&rules(&[&a, &b], FOR_LONG));
    eventually("A is left alone", || answers(&coreway) == "BBBBBB");
    // The next request may come before the end of the third has been counted.
    assert!(
        (3..=4).contains(&a.requests().len()),
        "after the third failure"
    );
    coreway.await_log(&format!(
        "Server {} of backend b failed 3 times in a row, leaving it alone for 3600s",
        a.url()
    ));
    // Another backend's matter changes nothing; without the option it is a server like the others.
    coreway.reload(&(rules(&[&a, &b], FOR_LONG) + "[frontends.g]\nbackend = \"b\"\n"));
    assert_eq!(answers(&coreway), "BBBBBB");
    mood.store(200, Ordering::SeqCst);
    coreway.reload(&rules(&[&a, &b], ""));
    assert!(answers(&coreway).contains('A'));
}

#[test]
fn a_server_comes_back_when_its_time_is_over() {
    let ((a, mood), (b, _)) = (server("A", 502), server("B", 200));
    let ejection = FOR_LONG.replace("1h", "500ms");
    let coreway = Coreway::serve(&rules(&[&a, &b], &ejection));
    eventually("A is left alone", || {
        coreway.get("/");
        coreway.log().contains("leaving it alone for 500ms")
    });
    mood.store(200, Ordering::SeqCst);
    eventually("A is asked again", || answers(&coreway).contains('A'));
    coreway.await_log(&format!("Server {} of backend b is asked again", a.url()));
}

#[test]
fn a_server_that_cannot_be_reached_fails() {
    let (dead, (b, _)) = (Origin::refusing(), server("B", 200));
    let coreway = Coreway::serve(&rules(&[&dead, &b], FOR_LONG));
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    let mut failed = 0;
    eventually("it is left alone", || {
        failed += usize::from(coreway.exchange(post).status == 502);
        coreway.log().contains("leaving it alone")
    });
    assert_eq!(failed, 3);
    for _ in 0..6 {
        assert_eq!(coreway.exchange(post).text(), "B");
    }
}

#[test]
fn somebody_is_always_asked() {
    let ((a, _), (b, _)) = (server("A", 503), server("B", 503));
    let coreway = Coreway::serve(&rules(&[&a, &b], FOR_LONG));
    eventually("one is left alone", || {
        let asked = answers(&coreway);
        asked == "AAAAAA" || asked == "BBBBBB"
    });
    coreway.reload(&rules(&[&a], FOR_LONG));
    assert_eq!(answers(&coreway), "AAAAAA", "an only server is asked");
    coreway.reload(&rules(&[&a], "[backends.b.ejection]\nfailures = 0\n"));
    assert_eq!(coreway.get("/").status, 404);
    coreway.await_log("ejection: failures should be > 0. Skipping frontend f...");
}
