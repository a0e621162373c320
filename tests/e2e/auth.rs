//! Authentication: who may pass, on a frontend and on a whole entry point.

use std::fs;
use std::net::TcpListener;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::harness::{Client, Coreway, Origin, Response, Start, backend, site};

/// A user whose password is `test`.
const APR1: &str = "apr1:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/";
/// A user whose password is `hello`.
const SHA: &str = "sha:{SHA}qvTGHdzF6KLavt4PO0gs2a6pQ00=";

fn with(origin: &Origin, lines: &str) -> String {
    format!("{}{lines}\n", site(origin))
}

/// The frontend lets these users in; `bcrypt` among them has the password `secret`.
fn users(origin: &Origin, lines: &str) -> String {
    let bcrypt = bcrypt::hash("secret", 4).unwrap();
    let users = format!("auth.basic.users = ['{APR1}', '{SHA}', 'bcrypt:{bcrypt}', 'plain:plain']");
    with(origin, &format!("{users}\n{lines}"))
}

fn as_user(pair: &str) -> String {
    format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(pair))
}

fn ask(coreway: &Coreway, fields: &str) -> Response {
    coreway.exchange(format!(
        "GET / HTTP/1.1\r\nHost: test\r\n{fields}Connection: close\r\n\r\n"
    ))
}

fn status(coreway: &Coreway, pair: &str) -> u16 {
    ask(coreway, &as_user(pair)).status
}

#[test]
fn who_knows_the_password_passes() {
    let origin = Origin::text("in");
    let coreway = Coreway::serve(&users(&origin, ""));
    let refused = coreway.get("/");
    assert_eq!(
        (refused.status, refused.reason.as_str(), refused.text()),
        (401, "Unauthorized", "401 Unauthorized\n".to_owned())
    );
    for (field, value) in [
        ("WWW-Authenticate", "Basic realm=\"traefik\""),
        ("Content-Type", "text/plain"),
        ("Content-Length", "17"),
    ] {
        assert_eq!(refused.field(field), Some(value), "{field}");
    }
    for _ in 0..2 {
        for good in ["apr1:test", "sha:hello", "bcrypt:secret"] {
            assert_eq!(status(&coreway, good), 200, "{good}");
        }
        for bad in [
            "apr1:Test",
            "apr1:",
            "sha:hellO",
            "bcrypt:secreT",
            "plain:plain",
            "nobody:test",
            ":",
            "",
        ] {
            assert_eq!(status(&coreway, bad), 401, "{bad}");
        }
    }
    let passed = origin.last();
    assert!(
        passed.field("Authorization").unwrap().starts_with("Basic "),
        "the server sees it too"
    );
    let good = as_user("sha:hello");
    assert_eq!(ask(&coreway, &format!("{good}{good}")).status, 401, "twice");
    assert_eq!(ask(&coreway, "Authorization: Basic !\r\n").status, 401);
    let long = "x".repeat(100_000);
    assert_eq!(status(&coreway, &format!("apr1:{long}")), 401);
}

#[test]
fn the_server_is_told_the_name_and_nothing_a_client_made_up() {
    let origin = Origin::text("in");
    let coreway = Coreway::serve(&users(
        &origin,
        "auth.headerField = 'x-user'\nauth.basic.removeHeader = true",
    ));
    let good = as_user("bcrypt:secret");
    for _ in 0..2 {
        let fields = format!("X-User: admin\r\n{good}x-uSER: root\r\n");
        assert_eq!(ask(&coreway, &fields).status, 200);
        let seen = origin.last();
        assert_eq!(seen.head.all("X-User"), ["bcrypt"]);
        assert_eq!(seen.field("Authorization"), None);
    }
    // A client that has the field taken off on the way would be nobody to the server.
    let request =
        format!("GET / HTTP/1.1\r\nHost: test\r\n{good}Connection: close, X-User\r\n\r\n");
    assert_eq!(coreway.exchange(request).status, 200);
    assert_eq!(origin.last().head.all("X-User"), ["bcrypt"]);
}

#[test]
fn a_connection_goes_on_after_a_refusal() {
    let origin = Origin::text("in");
    let coreway = Coreway::serve(&users(&origin, ""));
    let mut client = coreway.client();
    for pair in ["apr1:x", "apr1:test", "bcrypt:x", "bcrypt:secret", "sha:x"] {
        let good = pair.ends_with("test") || pair.ends_with("secret");
        let response = client.exchange(format!(
            "POST / HTTP/1.1\r\nHost: test\r\n{}Content-Length: 5\r\n\r\nhello",
            as_user(pair)
        ));
        assert_eq!(response.status, if good { 200 } else { 401 }, "{pair}");
        assert_eq!(response.field("Connection"), None);
    }
    assert_eq!(origin.last().text(), "hello");
}

#[test]
fn a_file_has_users_too_and_its_changes_are_seen() {
    let origin = Origin::text("in");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    fs::write(&file, format!("# who may pass\n\n {APR1} \n")).unwrap();
    let coreway = Coreway::serve(&with(
        &origin,
        &format!(
            "auth.basic.users = ['{SHA}', 'apr1:{{SHA}}x']\nauth.basic.usersFile = '{}'",
            file.display()
        ),
    ));
    assert_eq!(status(&coreway, "apr1:test"), 200, "the file counts first");
    assert_eq!(status(&coreway, "sha:hello"), 200);

    let reloads = coreway.reloads();
    fs::write(&file, "new:{SHA}qvTGHdzF6KLavt4PO0gs2a6pQ00=\n").unwrap();
    coreway.await_reloads(reloads + 1);
    assert_eq!(status(&coreway, "new:hello"), 200);
    assert_eq!(status(&coreway, "apr1:test"), 401, "and not from memory");

    let reloads = coreway.reloads();
    fs::remove_file(&file).unwrap();
    coreway.await_reloads(reloads + 1);
    coreway.await_log("no such file. Skipping frontend f...");
    assert_eq!(status(&coreway, "sha:hello"), 404);
}

#[test]
fn a_user_that_cannot_be_read_leaves_the_frontend_out_and_the_others_in() {
    let origin = Origin::text("in");
    let others = "[frontends.g]\nbackend = \"b\"\n[frontends.g.routes.r]\nrule = \"Path:/g\"\n";
    let rules = with(&origin, "auth.basic.users = ['a:secret:x']\npriority = 10") + others;
    let coreway = Coreway::serve(&rules);
    assert_eq!(coreway.get("/").status, 404);
    assert_eq!(coreway.get("/g").status, 200);
    let line = coreway.await_log("Skipping frontend f...");
    assert!(
        line.contains("error parsing Authenticator user: entry 1 of users: expected name:hash"),
        "{line}"
    );
    assert!(
        !coreway.log().contains("secret"),
        "nobody reads it in a log"
    );
    coreway.reload(&(with(&origin, "auth.headerField = 'X-User'") + others));
    assert_eq!(
        coreway.get("/").status,
        404,
        "a section that lets nobody in lets nobody in"
    );
}

#[test]
fn the_old_list_is_asked_before_the_new_one() {
    let origin = Origin::text("in");
    let coreway = Coreway::serve(&with(
        &origin,
        &format!("basicAuth = ['{SHA}']\nauth.basic.users = ['{APR1}', '{SHA}']"),
    ));
    assert_eq!(status(&coreway, "sha:hello"), 200);
    assert_eq!(status(&coreway, "apr1:test"), 401);
}

#[test]
fn an_entry_point_has_users_for_all_its_frontends_and_the_rest() {
    let origin = Origin::text("in");
    let coreway = Start::new()
        .entry_point(&format!(
            "[entryPoints.http.auth.basic]\nusers = ['{SHA}']\n\
             [entryPoints.http.whiteList]\nsourceRange = ['10.0.0.0/8']"
        ))
        .serve("");
    assert_eq!(coreway.get("/").status, 401, "before the white list");
    assert_eq!(status(&coreway, "sha:hello"), 403);

    let flag = format!("--entryPoints=Name:http Address:127.0.0.1:0 Auth.Basic.Users:{SHA}");
    let coreway = Start::new().flag(&flag).serve(&site(&origin));
    assert_eq!(coreway.get("/").status, 401);
    assert_eq!(status(&coreway, "sha:hello"), 200);
}

#[test]
fn an_entry_point_with_bad_users_ends_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let flag = format!("--entryPoints=Name:http Address:{address} Auth.Basic.Users:junk");
    let coreway = Coreway::spawn(folder, &[flag], None);
    assert_eq!(coreway.exit_code(), 1);
    coreway.await_log("entry point http: auth: error parsing Authenticator user: entry 1 of users");
}

/// A frontend `/slow` whose users have costly hashes, and an open one.
fn slow_and_open(origin: &Origin, cost: u32) -> String {
    let hash = bcrypt::hash("secret", 4).unwrap();
    // Nobody knows a password for it, which takes as long to find out.
    let hash = hash.replacen("$04$", &format!("${cost:02}$"), 1);
    format!(
        "{}[frontends.open]\nbackend = 'b'\n[frontends.slow]\nbackend = 'b'\npriority = 10\n\
         auth.basic.users = ['bcrypt:{hash}']\nroutes.r.rule = 'Path:/slow'\n",
        backend("b", origin)
    )
}

fn try_slow(client: &mut Client, password: &str) {
    client.send(format!(
        "GET /slow HTTP/1.1\r\nHost: test\r\n{}\r\n",
        as_user(&format!("bcrypt:{password}"))
    ));
}

#[test]
fn others_are_served_while_a_password_is_hashed() {
    let origin = Origin::text("in");
    let coreway = Start::new().cores(1).serve(&slow_and_open(&origin, 14));
    let (mut guest, mut other) = (coreway.client(), coreway.client());
    assert_eq!(other.get("/").status, 200);
    try_slow(&mut guest, "wrong");
    for _ in 0..10 {
        assert_eq!(other.get("/").status, 200);
    }
    assert!(!guest.is_readable(), "still hashing");
    assert_eq!(guest.response().status, 401);
    // The same once more is remembered.
    let before = coreway.cpu_time();
    for _ in 0..5 {
        try_slow(&mut guest, "wrong");
        assert_eq!(guest.response().status, 401);
    }
    assert!(coreway.cpu_time() - before < std::time::Duration::from_millis(500));
}

#[test]
fn a_client_with_too_many_passwords_is_told_to_wait() {
    let origin = Origin::text("in");
    let coreway = Start::new().cores(1).serve(&slow_and_open(&origin, 12));
    let mut clients: Vec<Client> = (0..30).map(|_| coreway.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        try_slow(client, &format!("wrong{number}"));
    }
    let mut statuses: Vec<u16> = clients
        .iter_mut()
        .map(|client| {
            let response = client.response();
            let hint = response.field("Retry-After").map(str::to_owned);
            assert_eq!(hint.is_some(), response.status != 401, "{hint:?}");
            response.status
        })
        .collect();
    statuses.sort_unstable();
    statuses.dedup();
    // On a slow machine the last of those who wait may be given up.
    statuses.retain(|status| *status != 503);
    assert_eq!(statuses, [401, 429]);
    assert_eq!(coreway.get("/").status, 200);
    assert!(origin.targets().iter().all(|target| target == "/"));
}
