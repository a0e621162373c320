//! Redirects: to another entry point and by regular expression, on a frontend and on a whole entry point.

use std::net::TcpListener;

use crate::harness::{Client, Coreway, Origin, Response, Start, backend};

fn frontend(name: &str, rule: &str, lines: &str) -> String {
    format!(
        "[frontends.{name}]\nbackend = \"b\"\nentryPoints = [\"http\", \"other\"]\n{lines}\n\
         [frontends.{name}.routes.r]\nrule = \"{rule}\"\n"
    )
}

/// A port that was free a moment ago: ports of redirects are those that are written.
fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[track_caller]
fn check(response: &Response, status: u16, location: &str, body: &str) {
    assert_eq!(
        (
            response.status,
            response.field("Location"),
            response.text().as_str()
        ),
        (status, Some(location), body)
    );
    assert_eq!(
        response.field("Content-Type"),
        Some("text/plain; charset=utf-8")
    );
}

#[test]
fn a_frontend_redirects() {
    let origin = Origin::text("served");
    let other = port();
    // A rule file is a template itself: its own braces are written as text.
    let rules = backend("b", &origin)
        + &frontend("ep", "Path:/ep", "redirect.entryPoint = \"other\"")
        + &frontend(
            "perm",
            "Path:/perm",
            "redirect.entryPoint = \"other\"\nredirect.permanent = true",
        )
        + &frontend(
            "re",
            "PathPrefix:/re",
            "redirect.regex = \"^http://([^/]+)/re/(.+)$\"\nredirect.replacement = \"https://new.$1/{{`{{`}}.Request.Method}}/$2\"",
        )
        + &frontend(
            "strip",
            "PathPrefixStrip:/strip",
            "redirect.entryPoint = \"other\"",
        )
        + &frontend(
            "add",
            "Path:/add;AddPrefix:/x",
            "redirect.entryPoint = \"other\"",
        )
        + &frontend(
            "replace",
            "Path:/replace;ReplacePath:/y",
            "redirect.regex = \"^http://([^/]*)/y\"\nredirect.replacement = \"http://moved/z\"",
        )
        + &frontend("wrong", "Path:/wrong", "redirect.entryPoint = \"nowhere\"");
    let coreway = Start::new()
        .table(&format!(
            "[entryPoints.other]\naddress = \"127.0.0.1:{other}\""
        ))
        .serve(&rules);
    let get = |target: &str| coreway.get(target);

    check(
        &get("/ep?a=b"),
        302,
        &format!("http://test:{other}/ep?a=b"),
        "Found",
    );
    check(
        &get("/perm"),
        301,
        &format!("http://test:{other}/perm"),
        "Moved Permanently",
    );
    let mut client = coreway.client();
    let posted =
        client.exchange("POST /ep HTTP/1.1\r\nHost: h.test:99\r\nContent-Length: 2\r\n\r\nhi");
    check(
        &posted,
        307,
        &format!("http://h.test:{other}/ep"),
        "Temporary Redirect",
    );
    client.send("HEAD /perm HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.head_response().status, 308);

    check(
        &get("/re/a{{.Request.Host}}"),
        302,
        "https://new.test/GET/a%7B%7B.Request.Host%7D%7D",
        "Found",
    );
    assert_eq!(get("/re").text(), "served", "no match");
    check(
        &get("/strip/a%2fb?q"),
        302,
        &format!("http://test:{other}/strip/a%2fb?q"),
        "Found",
    );
    check(
        &get("/add?q"),
        302,
        &format!("http://test:{other}/add?q"),
        "Found",
    );
    check(&get("/replace?q"), 302, "http://moved/replace?q", "Found");
    assert_eq!(get("/wrong").status, 404, "left out");
    coreway.await_log("redirect: there is no entry point 'nowhere'. Skipping frontend wrong...");

    // On the entry point that it redirects to, a frontend serves.
    let mut there = Client::connect(coreway.address_of("other"));
    assert_eq!(there.get("/ep").text(), "served");
    assert_eq!(origin.targets(), ["/re", "/ep"]);
}

#[test]
fn an_entry_point_redirects_everything() {
    let origin = Origin::text("served");
    let other = port();
    let rules = backend("b", &origin) + &frontend("f", "Path:/", "");
    let coreway = Start::new()
        .entry_point("[entryPoints.http.redirect]\nentryPoint = \"other\"")
        .table(&format!(
            "[entryPoints.other]\naddress = \"127.0.0.1:{other}\""
        ))
        .serve(&rules);
    check(
        &coreway.get("/"),
        302,
        &format!("http://test:{other}/"),
        "Found",
    );
    check(
        &coreway.get("/none"),
        302,
        &format!("http://test:{other}/none"),
        "Found",
    );
    let response = coreway.exchange("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(
        (response.status, response.text().as_str()),
        (400, "Bad Request")
    );
    assert!(origin.requests().is_empty());
    let mut there = Client::connect(coreway.address_of("other"));
    assert_eq!(there.get("/").text(), "served");
}

#[test]
fn an_entry_point_that_redirects_to_itself_or_nowhere_ends_the_start() {
    for (target, why) in [
        ("http", "redirects to itself"),
        ("none", "unknown target entrypoint"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let flag =
            format!("--entryPoints=Name:http Address:127.0.0.1:0 Redirect.EntryPoint:{target}");
        let coreway = Coreway::spawn(folder, &[flag], None);
        assert_eq!(coreway.exit_code(), 1);
        coreway.await_log(why);
    }
}
