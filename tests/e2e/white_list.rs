//! White lists: who may pass, by address, on a frontend and on a whole entry point.

use std::net::TcpListener;

use crate::harness::{Coreway, Origin, Start, site};

fn with(origin: &Origin, lines: &str) -> String {
    format!("{}{lines}\n", site(origin))
}

fn ask(coreway: &Coreway, fields: &str) -> (u16, String) {
    let response = coreway.exchange(format!(
        "GET / HTTP/1.1\r\nHost: test\r\n{fields}Connection: close\r\n\r\n"
    ));
    (response.status, response.text())
}

#[test]
fn a_frontend_lets_in_whom_its_white_list_names() {
    let origin = Origin::text("in");
    let coreway = Coreway::serve(&with(
        &origin,
        "whiteList.sourceRange = [\"127.0.0.0/8\", \"::1\"]",
    ));
    assert_eq!(ask(&coreway, ""), (200, "in".to_owned()));

    coreway.reload(&with(&origin, "whiteList.sourceRange = [\"10.0.0.0/8\"]"));
    let response = coreway.get("/");
    assert_eq!(
        (response.status, response.text().as_str()),
        (403, "Forbidden")
    );
    assert_eq!(
        response.field("Content-Type"),
        Some("text/plain; charset=utf-8")
    );
    // What a client writes itself does not count unless asked for.
    assert_eq!(ask(&coreway, "X-Forwarded-For: 10.1.1.1\r\n").0, 403);
    assert_eq!(origin.requests().len(), 1, "nobody else came through");

    coreway.reload(&with(
        &origin,
        "whiteList.sourceRange = [\"10.0.0.0/8\"]\nwhiteList.useXForwardedFor = true",
    ));
    assert_eq!(
        ask(&coreway, "X-Forwarded-For: 2.2.2.2, 10.1.1.1\r\n").0,
        200
    );
    assert_eq!(ask(&coreway, "X-Forwarded-For: junk, 10.1.1.1\r\n").0, 403);

    coreway.reload(&with(&origin, "whitelistSourceRange = [\"10.0.0.0/8\"]"));
    assert_eq!(ask(&coreway, "").0, 403, "the old form");
    coreway.reload(&with(&origin, "whiteList.sourceRange = []"));
    assert_eq!(ask(&coreway, "").0, 200, "an empty list checks nothing");
}

#[test]
fn a_connection_goes_on_after_a_refusal() {
    let origin = Origin::text("in");
    let coreway = Coreway::serve(&with(&origin, "whiteList.sourceRange = [\"10.0.0.0/8\"]"));
    let mut client = coreway.client();
    for _ in 0..3 {
        let response =
            client.exchange("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(response.status, 403);
        assert_eq!(response.field("Connection"), None);
    }
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n");
    let response = client.head_response();
    assert_eq!(
        (response.status, response.field("Content-Length")),
        (403, Some("9"))
    );
    assert_eq!(client.get("/").status, 403);
}

#[test]
fn an_invalid_entry_leaves_the_frontend_out_and_the_others_in() {
    let origin = Origin::text("in");
    let rules = with(
        &origin,
        "whiteList.sourceRange = [\"10.0.0.0/33\"]\npriority = 10",
    ) + "[frontends.g]\nbackend = \"b\"\n[frontends.g.routes.r]\nrule = \"Path:/g\"\n";
    let coreway = Coreway::serve(&rules);
    assert_eq!(coreway.get("/").status, 404);
    assert_eq!(coreway.get("/g").status, 200);
    let line = coreway.await_log("Skipping frontend f...");
    assert!(
        line.contains("10.0.0.0/33\\\" is neither an IP address nor a network"),
        "{line}"
    );
}

#[test]
fn an_entry_point_has_one_for_all_its_frontends_and_the_rest() {
    let origin = Origin::text("in");
    let coreway = Start::new()
        .entry_point(
            "[entryPoints.http.whiteList]\nsourceRange = [\"10.0.0.0/8\"]\nuseXForwardedFor = true",
        )
        .serve("");
    assert_eq!(
        ask(&coreway, ""),
        (403, "Forbidden".to_owned()),
        "even where no frontend is"
    );
    assert_eq!(ask(&coreway, "X-Forwarded-For: 10.1.1.1\r\n").0, 404);
    coreway.reload(&site(&origin));
    assert_eq!(ask(&coreway, "").0, 403);
    assert_eq!(ask(&coreway, "X-Forwarded-For: 10.1.1.1\r\n").0, 200);
}

#[test]
fn an_invalid_entry_of_an_entry_point_ends_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let flag = format!("--entryPoints=Name:http Address:{address} WhiteList.SourceRange:junk");
    let coreway = Coreway::spawn(folder, &[flag], None);
    assert_eq!(coreway.exit_code(), 1);
    coreway.await_log("entry point http: whiteList: \\\"junk\\\" is neither an IP address");
}
