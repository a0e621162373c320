//! A real browser before the example's edge: pages and WebSockets, with TLS and without.
//!
//! `tests/install-servers` installs Chromium; without it the tests say that they were skipped, and fail where `CI=true`.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::examples;
use crate::harness::origin::Request;
use crate::harness::{Origin, answer, eventually_within, heavy, websocket};

const CHROMIUM: &str = "/usr/bin/chromium";

/// A browser starts dozens of processes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Opens a WebSocket to where it came from, and asks for `/heard/<what came back>` or `/failed`.
const PAGE: &str = "<!doctype html><title>test</title><script>
const socket = new WebSocket(location.href.replace('http', 'ws') + 'socket');
socket.onopen = () => socket.send('hello from ' + location.protocol.replace(':', ''));
socket.onmessage = message => fetch('/heard/' + encodeURIComponent(message.data));
socket.onerror = () => fetch('/failed');
</script>";

fn is_here() -> bool {
    let is_here = Path::new(CHROMIUM).exists();
    if !is_here {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "{CHROMIUM} is missing: tests/install-servers installs it"
        );
        eprintln!("SKIPPED: chromium is not installed (tests/install-servers, as root)");
    }
    is_here
}

/// A browser with a profile of its own, until it is dropped.
struct Browser {
    child: Child,
    _profile: TempDir,
    _alone: File,
}

impl Browser {
    fn open(url: &str) -> Self {
        let alone = heavy();
        let profile = tempfile::tempdir().unwrap();
        let child = Command::new(CHROMIUM)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
                "--no-proxy-server",
                // The example's certificate is nobody's.
                "--ignore-certificate-errors",
                // Keeps it running, and asks nothing of it.
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            _profile: profile,
            _alone: alone,
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its other processes end with the first.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn web() -> Origin {
    Origin::wire(|exchange| {
        if exchange.head.field("Upgrade").is_some() {
            return websocket::echo(exchange);
        }
        let page = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{PAGE}",
            PAGE.len()
        );
        match exchange.head.target() {
            "/" => exchange.send(page),
            _ => exchange.send(answer(200, "")),
        }
    })
}

/// The opening of the WebSocket of the page at this entry point, once its message is back at the page.
#[track_caller]
fn opening(entry_point: &str, scheme: &str) -> Request {
    let web = web();
    let edge = examples::edge(&web.url(), "h2c://127.0.0.1:1");
    let url = format!("{scheme}://{}/", edge.address_of(entry_point));
    let _browser = Browser::open(&url);
    let heard = format!("/heard/hello%20from%20{scheme}");
    eventually_within(PATIENCE, "the page has heard the echo", || {
        let targets = web.targets();
        assert!(
            !targets.iter().any(|target| target == "/failed"),
            "{targets:?}"
        );
        targets.contains(&heard)
    });
    let opening = web
        .requests()
        .into_iter()
        .find(|one| one.head.target() == "/socket");
    opening.expect("a WebSocket was opened")
}

/// HTTP/1.1 clients write names as they like; over HTTP/2 they are in lower case.
fn was_over_http2(request: &Request) -> bool {
    let mut names = request.head.fields.iter().map(|(name, _)| name);
    names.any(|name| name == "sec-websocket-version")
}

#[test]
fn a_browser_opens_a_websocket() {
    if !is_here() {
        return;
    }
    let opening = opening("http", "http");
    assert!(!was_over_http2(&opening), "{opening:?}");
    assert_eq!(opening.field("X-Forwarded-Proto"), Some("http"));
}

#[test]
fn a_browser_opens_a_websocket_within_http2() {
    if !is_here() {
        return;
    }
    let opening = opening("https", "https");
    assert!(
        was_over_http2(&opening),
        "on the page's own connection: {opening:?}"
    );
    assert_eq!(opening.field("X-Forwarded-Proto"), Some("https"));
}
