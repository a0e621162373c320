//! Authentication: who may pass, on a frontend and on a whole entry point.

use std::fs;
use std::net::TcpListener;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use md5::{Digest, Md5};

use crate::harness::tls::Authority;
use crate::harness::{Client, Coreway, Origin, Response, Start, answer, backend, eventually, site};

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

/// Others' requests that are answered while one password is hashed, to be sure that the core does not do it: that would
/// answer the password first.
const ANSWERED_MEANWHILE: usize = 3;
/// Passwords that are tried for that: this thread may be kept waiting for longer than a hash takes.
const PASSWORDS: usize = 100;

#[test]
fn others_are_served_while_a_password_is_hashed() {
    let origin = Origin::text("in");
    let coreway = Start::new().cores(1).serve(&slow_and_open(&origin, 9));
    let mut other = coreway.client();
    assert_eq!(other.get("/").status, 200);
    let served_meanwhile = |password: usize| {
        let mut guest = coreway.client();
        try_slow(&mut guest, &format!("wrong{password}"));
        let mut answered = 0;
        while answered < ANSWERED_MEANWHILE {
            assert_eq!(other.get("/").status, 200);
            if guest.is_readable() {
                return false;
            }
            answered += 1;
        }
        // Never more than one under way: a busy machine takes its time for what has the lowest priority.
        assert!(matches!(guest.response().status, 401 | 503));
        true
    };
    let was_served = (0..PASSWORDS).any(served_meanwhile);
    assert!(was_served, "whoever hashes keeps everybody waiting");
}

#[test]
fn a_password_is_hashed_once() {
    let origin = Origin::text("in");
    let coreway = Start::new().cores(1).serve(&slow_and_open(&origin, 9));
    let mut guest = coreway.client();
    let mut cost_of = |passwords: Vec<String>| {
        let before = coreway.cpu_time();
        for password in passwords {
            eventually("the password is judged", || {
                try_slow(&mut guest, &password);
                match guest.response().status {
                    401 => true,
                    503 => false, // The machine is busy.
                    status => panic!("{status}"),
                }
            });
        }
        coreway.cpu_time() - before
    };
    let new = cost_of((0..20).map(|number| format!("wrong{number}")).collect());
    let known = cost_of(vec!["wrong7".to_owned(); 20]);
    assert!(known < new / 4, "{known:?}, {new:?} for new ones");
}

#[test]
fn a_client_with_too_many_passwords_is_told_to_wait() {
    let origin = Origin::text("in");
    let coreway = Start::new().cores(1).serve(&slow_and_open(&origin, 10));
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

fn md5_hex(text: &str) -> String {
    let digest = Md5::digest(text);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A user `test` whose password is `secret`, as digest authentication wants it written.
pub(super) fn digest_user() -> String {
    format!("test:traefik:{}", md5_hex("test:traefik:secret"))
}

/// A proof for the challenge of an answer: by a user `test` with this password, for this target and count.
pub(super) fn proof(challenge: &str, password: &str, target: &str, count: usize) -> String {
    let part = |name: &str| {
        let rest = challenge.split_once(&format!("{name}=\"")).expect(name).1;
        rest.split_once('"').unwrap().0
    };
    let (nonce, opaque) = (part("nonce"), part("opaque"));
    let user = md5_hex(&format!("test:traefik:{password}"));
    let request = md5_hex(&format!("GET:{target}"));
    let response = md5_hex(&format!("{user}:{nonce}:{count:08x}:c:auth:{request}"));
    format!(
        "Authorization: Digest username=\"test\", realm=\"traefik\", nonce=\"{nonce}\", uri=\"{target}\", \
         response=\"{response}\", opaque=\"{opaque}\", algorithm=MD5, qop=auth, nc={count:08x}, cnonce=\"c\"\r\n"
    )
}

#[test]
fn a_proof_of_the_password_is_good_once_on_all_cores() {
    let origin = Origin::text("in");
    let user = digest_user();
    let lines = format!(
        "auth.headerField = 'X-User'\nauth.digest.users = ['{user}', 'other:elsewhere:00']\n\
         auth.digest.removeHeader = true\nroutes.r.rule = 'PathPrefixStrip:/p'"
    );
    let coreway = Coreway::serve(&with(&origin, &lines));
    let ask = |fields: &str| {
        coreway.exchange(format!(
            "GET /p/x?y HTTP/1.1\r\nHost: test\r\nX-USER: admin\r\n{fields}Connection: close\r\n\r\n"
        ))
    };
    let challenge_of = |answer: &Response| {
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (401, "401 Unauthorized\n")
        );
        answer.field("WWW-Authenticate").unwrap().to_owned()
    };
    let challenge = challenge_of(&ask(""));
    assert!(
        challenge.starts_with("Digest realm=\"traefik\", nonce=\""),
        "{challenge}"
    );
    assert!(
        challenge.ends_with(", algorithm=\"MD5\", qop=\"auth\""),
        "{challenge}"
    );
    // Each on a connection of its own, which any core may take.
    for count in 1..20 {
        let fields = proof(&challenge, "secret", "/p/x?y", count);
        assert_eq!(ask(&fields).status, 200, "{count}");
        let again = challenge_of(&ask(&fields));
        assert!(again.ends_with(", stale=true"), "{again}");
    }
    let seen = origin.last();
    assert_eq!(seen.head.all("X-User"), ["test"]);
    assert_eq!(
        (seen.field("Authorization"), seen.head.target()),
        (None, "/x?y")
    );
    for bad in [
        proof(&challenge, "wrong", "/p/x?y", 99),
        proof(&challenge, "secret", "/p", 99),
        proof(&challenge, "secret", "/p/x?y", 99).replace("username=\"test", "username=\"other"),
        proof(&challenge, "secret", "/p/x?y", 99).replace("nc=00000063", "nc=,"),
        "Authorization: Digest\r\n".to_owned(),
        "Authorization: Digest nc=,\r\n".to_owned(),
        "Authorization: Digest \"\r\n".to_owned(),
        "Authorization: Digest =,=,=\r\n".to_owned(),
    ] {
        assert!(!challenge_of(&ask(&bad)).contains("stale"), "{bad}");
    }
    // A change elsewhere forgets nothing.
    coreway.reload(&with(&origin, &format!("{lines}\npriority = 7")));
    assert_eq!(ask(&proof(&challenge, "secret", "/p/x?y", 100)).status, 200);
    assert_eq!(ask(&proof(&challenge, "secret", "/p/x?y", 50)).status, 401);
}

/// A frontend that asks this server.
fn asking(origin: &Origin, auth: &Origin, lines: &str) -> String {
    with(
        origin,
        &format!(
            "[frontends.f.auth.forward]\naddress = '{}/check?who'\n{lines}",
            auth.url()
        ),
    )
}

#[test]
fn another_server_lets_requests_pass() {
    let origin = Origin::text("in");
    let auth = Origin::new(|_| {
        b"HTTP/1.1 204 X\r\nX-User: one\r\nx-user: two\r\nX-Secret: no\r\n\r\n".to_vec()
    });
    let coreway = Start::new().cores(1).serve(&asking(
        &origin,
        &auth,
        "authResponseHeaders = ['X-User', 'X-Group', 'Connection']",
    ));
    for _ in 0..3 {
        let answer = coreway.exchange(
            "POST /a?b HTTP/1.1\r\nHost: test:81\r\nCookie: c\r\nX-USER: admin\r\nX-Group: root\r\nX-Forwarded-Uri: /u\r\n\
             X-Real-Ip: 1.2.3.4\r\nContent-Length: 5\r\nConnection: close, X-User\r\n\r\nhello",
        );
        assert_eq!((answer.status, answer.text().as_str()), (200, "in"));
    }
    let asked = auth.last();
    assert_eq!(asked.head.start, "GET /check?who HTTP/1.1");
    let authority = auth.address().to_string();
    for (field, value) in [
        ("Host", authority.as_str()),
        ("Cookie", "c"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Method", "POST"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "test:81"),
        ("X-Forwarded-Uri", "/a?b"),
    ] {
        assert_eq!(asked.head.all(field), [value], "{field}");
    }
    for field in ["Content-Length", "X-Real-Ip", "Connection", "X-User"] {
        assert_eq!(asked.field(field), None, "{field}");
    }
    assert_eq!(auth.connections(), 1, "it is kept");
    let passed = origin.last();
    assert_eq!(passed.head.all("X-User"), ["one", "two"]);
    assert_eq!(
        (passed.field("X-Group"), passed.field("X-Secret")),
        (None, None)
    );
    assert_eq!(passed.text(), "hello");
    // What it had kept is closed: it is asked again.
    auth.cut();
    assert_eq!(coreway.get("/").status, 200);

    coreway.reload(&asking(&origin, &auth, "trustForwardHeader = true"));
    let answer = ask(
        &coreway,
        "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Uri: /u\r\nX-Real-Ip: 2.2.2.2\r\n",
    );
    assert_eq!(answer.status, 200);
    let asked = auth.last();
    for (field, value) in [
        ("X-Forwarded-For", "1.1.1.1, 127.0.0.1"),
        ("X-Forwarded-Uri", "/u"),
        ("X-Real-Ip", "2.2.2.2"),
    ] {
        assert_eq!(asked.field(field), Some(value), "{field}");
    }
}

#[test]
fn what_another_server_refuses_is_refused_in_its_words() {
    let origin = Origin::text("in");
    let auth = Origin::new(|request| {
        match request.field("X-Case") {
        Some("chunked") => b"HTTP/1.1 403 X\r\nTransfer-Encoding: chunked\r\nContent-Type: text/html\r\n\r\n2\r\nno\r\n1\r\n!\r\n0\r\n\r\n"
            .to_vec(),
        Some("interim") => b"HTTP/1.1 103 X\r\n\r\nHTTP/1.1 401 X\r\nContent-Length: 0\r\nWWW-Authenticate: Custom\r\n\r\n".to_vec(),
        Some("close") => b"HTTP/1.1 500 X\r\nConnection: close\r\nContent-Length: 6\r\n\r\nbroken".to_vec(),
        _ => b"HTTP/1.1 302 X\r\nLocation: ../login\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nhi".to_vec(),
    }
    });
    let coreway = Coreway::serve(&asking(&origin, &auth, ""));
    let case = |name: &str| ask(&coreway, &format!("X-Case: {name}\r\n"));

    let answer = case("redirect");
    assert_eq!((answer.status, answer.text().as_str()), (302, "hi"));
    assert_eq!(answer.head.all("Set-Cookie"), ["a", "b"]);
    let login = format!("{}/login", auth.url());
    assert_eq!(answer.field("Location"), Some(login.as_str()));
    let answer = case("chunked");
    assert_eq!((answer.status, answer.text().as_str()), (403, "no!"));
    assert_eq!(answer.head.all("Content-Type"), ["text/html"]);
    let answer = case("interim");
    assert_eq!((answer.status, answer.text().as_str()), (401, ""));
    assert_eq!(answer.field("WWW-Authenticate"), Some("Custom"));
    let answer = case("close");
    assert_eq!((answer.status, answer.text().as_str()), (500, "broken"));
    let mut client = coreway.client();
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n");
    let answer = client.head_response();
    assert_eq!(
        (answer.status, answer.field("Content-Length")),
        (302, Some("2"))
    );
    assert_eq!(client.get("/").status, 302, "the connection goes on");
    assert!(origin.requests().is_empty());
}

#[test]
fn without_a_whole_answer_nobody_passes() {
    let origin = Origin::text("in");
    let auth = Origin::wire(|exchange| {
        let way = exchange.head.field("X-Case").map(str::to_owned);
        match way.as_deref() {
            Some("silent") => {}
            Some("half") => exchange.send("HTTP/1.1 200 X\r\nContent-Length: 5\r\n\r\nhi"),
            Some("huge") => {
                let body = "x".repeat(2_000_000);
                exchange.send(format!(
                    "HTTP/1.1 403 X\r\nContent-Length: 2000000\r\n\r\n{body}"
                ));
            }
            _ => exchange.send("HTTP/1.1 2000 X\r\n\r\n"),
        }
        exchange.close();
    });
    let coreway = Coreway::serve(&asking(&origin, &auth, ""));
    for case in ["silent", "half", "huge", "junk"] {
        let answer = ask(&coreway, &format!("X-Case: {case}\r\n"));
        assert_eq!((answer.status, answer.text().as_str()), (500, ""), "{case}");
        assert_eq!(answer.field("Content-Length"), Some("0"));
    }
    coreway.reload(&asking(&origin, &Origin::refusing(), ""));
    assert_eq!(coreway.get("/").status, 500);
    coreway.reload(&with(
        &origin,
        "auth.forward.address = 'http://no-such-host.invalid/'",
    ));
    assert_eq!(coreway.get("/").status, 500);
    coreway.await_log("error calling http://no-such-host.invalid/");
    assert!(origin.requests().is_empty());
}

#[test]
fn an_entry_point_asks_another_server_too() {
    let origin = Origin::text("in");
    let auth = Origin::new(|request| match request.field("X-Forwarded-Uri") {
        Some("/good") => answer(200, "yes"),
        _ => answer(403, "no"),
    });
    let coreway = Start::new()
        .entry_point(&format!(
            "[entryPoints.http.auth.forward]\naddress = '{}'\nauthResponseHeaders = ['X-User']",
            auth.url()
        ))
        .serve(&site(&origin));
    assert_eq!(coreway.get("/good").status, 200);
    let refused = coreway.get("/bad");
    assert_eq!((refused.status, refused.text().as_str()), (403, "no"));
    assert_eq!(origin.targets(), ["/good"]);
    assert_eq!(auth.last().head.target(), "/");
}

#[test]
fn another_server_is_asked_over_tls() {
    let ours = Authority::new("Test CA");
    let pair = ours.issue(&["127.0.0.1"]);
    let origin = Origin::text("yes");
    let auth = Start::new()
        .entry_point(&format!(
            "[entryPoints.http.tls]\n[[entryPoints.http.tls.certificates]]\n{}\
             [entryPoints.http.tls.clientCA]\nfiles = ['''{}''']\n",
            pair.toml(),
            ours.pem()
        ))
        .serve(&site(&origin));
    let own = ours.issue(&["proxy"]);
    let behind = Origin::text("in");
    let asking = |tls: &str| {
        with(
            &behind,
            &format!(
                "[frontends.f.auth.forward]\naddress = 'https://{}/check'\n[frontends.f.auth.forward.tls]\n{tls}",
                auth.address()
            ),
        )
    };
    let shown = format!("cert = '''{}'''\nkey = '''{}'''\n", own.chain, own.key);
    let coreway = Coreway::serve(&asking(&format!("{shown}ca = '''{}'''", ours.pem())));
    assert_eq!(coreway.get("/").text(), "in");
    assert_eq!(origin.targets(), ["/check"]);
    coreway.reload(&asking(&format!("{shown}insecureSkipVerify = true")));
    assert_eq!(coreway.get("/").status, 200);
    coreway.reload(&asking(&shown));
    assert_eq!(
        coreway.get("/").status,
        500,
        "the system does not know that authority"
    );
    coreway.reload(&asking("insecureSkipVerify = true"));
    assert_eq!(
        coreway.get("/").status,
        500,
        "it wants to see a certificate"
    );
    assert_eq!(behind.requests().len(), 2);
}
