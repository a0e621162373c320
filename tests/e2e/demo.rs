//! `coreway demo`: something to try in the first minute.

use std::path::PathBuf;

use crate::harness::{Client, Coreway, eventually};

/// The first word of the output with this beginning and this end.
fn word(text: &str, begin: &str, end: &str) -> Option<String> {
    let start = text.find(begin)?;
    let rest = &text[start..];
    let stop = rest
        .find(|c: char| c.is_whitespace() || "\"'`".contains(c))
        .unwrap_or(rest.len());
    let word = rest[..stop].trim_end_matches(['.', ',', ')']);
    word.ends_with(end).then(|| word.to_owned())
}

#[test]
fn the_demo_serves_reloads_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    // Port 0, so that demos run side by side; without it the demo has a fixed port that its output shows.
    let coreway = Coreway::spawn(
        folder,
        &["demo".to_owned(), "--reactor.pin=false".to_owned()],
        None,
    );
    eventually("it prints sample calls", || {
        coreway.assert_runs();
        coreway.log().contains("curl") && word(&coreway.log(), "/", ".toml").is_some()
    });
    let text = coreway.log();
    eprintln!("{text}");
    let rules = PathBuf::from(word(&text, "/", ".toml").unwrap());
    let port = text
        .split("127.0.0.1:")
        .nth(1)
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next())
        .unwrap();
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    let response = Client::connect(address).get("/");
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(
        response.text().contains("Hostname"),
        "it answers like whoami: {}",
        response.text()
    );

    std::fs::write(&rules, "").unwrap();
    eventually("the edited file is served", || {
        Client::connect(address).get("/").status == 404
    });
    coreway.signal("INT");
    assert_eq!(coreway.exit_code(), 0);
}
