//! `coreway demo`: something to try in the first minute.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::harness::{Client, Coreway, eventually};

/// The word between two pieces of text.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    Some(text.split_once(before)?.1.split_once(after)?.0)
}

#[test]
fn the_demo_serves_reloads_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["demo".to_owned(), "--reactor.pin=false".to_owned()];
    let coreway = Coreway::spawn(folder, &arguments, None);
    coreway.await_reloads(1);
    let text = coreway.log();
    let address: SocketAddr = between(&text, "curl http://", "/")
        .expect("a call to try")
        .parse()
        .unwrap();
    let rules =
        PathBuf::from(between(&text, "The rules are in ", ".\n").expect("where the rules are"));
    let response = Client::connect(address).get("/");
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(
        response.text().contains("Hostname"),
        "it answers like whoami: {}",
        response.text()
    );

    let asked = text
        .split("curl http://")
        .find_map(|call| call.split_once("/api/providers"))
        .expect("where to ask what is loaded");
    let about = Client::connect(asked.0.parse().unwrap()).get("/api/providers");
    assert!(
        about.text().contains("second.localhost"),
        "{}",
        about.text()
    );

    std::fs::write(&rules, "").unwrap();
    eventually("the edited file is served", || {
        Client::connect(address).get("/").status == 404
    });
    coreway.signal("INT");
    assert_eq!(coreway.exit_code(), 0);
}
