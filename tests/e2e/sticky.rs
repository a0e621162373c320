//! Sticky sessions: a cookie brings a client back to its server, on every core, over reloads and restarts.

use crate::harness::{Client, Coreway, Origin, Response, Start, answer};

const NAMES: [&str; 3] = ["A", "B", "C"];

/// Servers that answer their names, with a cookie of their own.
fn origins() -> Vec<Origin> {
    NAMES
        .iter()
        .map(|name| {
            Origin::new(move |_| {
                let own = "HTTP/1.1 200 X\r\nSet-Cookie: own=1\r\nContent-Length: 1\r\n\r\n";
                format!("{own}{name}").into_bytes()
            })
        })
        .collect()
}

/// A backend called `sticky` with these servers and these lines of its load balancer.
fn rules<'a>(servers: impl IntoIterator<Item = (&'a str, &'a Origin)>, lines: &str) -> String {
    let servers = servers.into_iter().map(|(name, origin)| {
        format!(
            "[backends.sticky.servers.{name}]\nurl = \"{}\"\n",
            origin.url()
        )
    });
    let servers: String = servers.collect();
    format!(
        "{servers}[backends.sticky.loadBalancer]\n{lines}\n[frontends.f]\nbackend = \"sticky\"\n"
    )
}

fn all(origins: &[Origin]) -> impl Iterator<Item = (&str, &Origin)> {
    NAMES
        .into_iter()
        .zip(origins)
        .map(|(name, origin)| (name as &str, origin))
}

const STICKY: &str = "[backends.sticky.loadBalancer.stickiness]";

fn get(client: &mut Client, cookie: &str) -> Response {
    client.exchange(format!(
        "GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n"
    ))
}

/// The cookie that an answer sets beside the server's own.
fn set(response: &Response) -> Option<&str> {
    let cookies = response.head.all("set-cookie");
    assert!(cookies.contains(&"own=1"), "the server's own: {cookies:?}");
    assert!(cookies.len() <= 2, "{cookies:?}");
    cookies.into_iter().find(|cookie| *cookie != "own=1")
}

#[test]
fn a_client_comes_back_to_its_server() {
    let origins = origins();
    let coreway = Start::new().cores(1).serve(&rules(all(&origins), STICKY));
    let mut client = coreway.client();
    let first = get(&mut client, "x=1");
    let expected = format!("_82b5f={}; Path=/", origins[0].url());
    assert_eq!(
        (&*first.text(), set(&first)),
        ("A", Some(&*expected)),
        "the cookie of the reference, to the byte"
    );
    let cookie = format!("x=1; _82b5f={}; y=2", origins[0].url());
    for _ in 0..5 {
        let again = get(&mut client, &cookie);
        assert_eq!((&*again.text(), set(&again)), ("A", None));
    }
    assert_eq!(
        origins[0].last().field("cookie"),
        Some(&*cookie),
        "servers see it, as ever"
    );
    let other = get(&mut client, "x=1");
    assert_eq!(other.text(), "B", "a cookie takes no turn");
}

#[test]
fn names_and_attributes() {
    let origins = origins();
    let check = |lines: &str, name: &str, attributes: &str| {
        let coreway = Start::new().cores(1).serve(&rules(all(&origins), lines));
        let response = coreway.get("/");
        let expected = format!("{name}={}; Path=/{attributes}", origins[0].url());
        assert_eq!(set(&response), Some(&*expected));
        coreway
    };
    check(
        &format!(
            "{STICKY}\ncookieName = \"my cookie/é\"\nsecure = true\nhttpOnly = true\nsameSite = \"lax\""
        ),
        "my_cookie__",
        "; HttpOnly; Secure; SameSite=Lax",
    );
    let deprecated = check("sticky = true", "_TRAEFIK_BACKEND", "");
    deprecated.await_log("loadBalancer.sticky: deprecated, use loadBalancer.stickiness");
}

#[test]
fn every_core_knows_it_and_so_does_the_next_process() {
    let origins = origins();
    let rules = rules(all(&origins), STICKY);
    let cookie = format!("_82b5f={}", origins[1].url());
    for _ in 0..2 {
        let coreway = Coreway::serve(&rules);
        for _ in 0..10 {
            let response = get(&mut coreway.client(), &cookie);
            assert_eq!((&*response.text(), set(&response)), ("B", None));
        }
    }
}

#[test]
fn over_reloads_until_its_server_is_gone() {
    let origins = origins();
    let coreway = Start::new().cores(1).serve(&rules(all(&origins), STICKY));
    let mut client = coreway.client();
    let cookie = format!("_82b5f={}", origins[1].url());
    assert_eq!(get(&mut client, &cookie).text(), "B");

    let [a, b, c] = &origins[..] else {
        panic!("three")
    };
    coreway.reload(&rules([("x", c), ("y", b)], STICKY));
    let kept = get(&mut client, &cookie);
    assert_eq!((&*kept.text(), set(&kept)), ("B", None));

    coreway.reload(&rules([("x", c), ("z", a)], STICKY));
    let gone = get(&mut client, &cookie);
    let expected = format!("_82b5f={}; Path=/", c.url());
    assert_eq!((&*gone.text(), set(&gone)), ("C", Some(&*expected)));
}

/// The other methods keep to the cookie as round robin does: from every core, over reloads, until the server is gone.
#[test]
fn with_every_method() {
    let origins = origins();
    let [a, b, c] = &origins[..] else {
        panic!("three")
    };
    let cookie = format!("_82b5f={}", b.url());
    for method in ["drr", "leastconn", "p2c", "hash"] {
        let by = match method {
            "hash" => "[backends.sticky.loadBalancer.hash]\nextractorFunc = \"client.ip\"\n",
            _ => "",
        };
        let lines = format!("method = \"{method}\"\n{by}{STICKY}");
        let coreway = Coreway::serve(&rules(all(&origins), &lines));
        let keeps = || {
            // Connections that come to all cores.
            for _ in 0..8 {
                let response = get(&mut coreway.client(), &cookie);
                assert_eq!((&*response.text(), set(&response)), ("B", None), "{method}");
            }
        };
        keeps();
        coreway.reload(&rules([("x", c), ("y", b)], &lines));
        keeps();
        coreway.reload(&rules([("x", c), ("z", a)], &lines));
        let gone = get(&mut coreway.client(), &cookie);
        let found = set(&gone).expect("another server's").to_owned();
        let server = if gone.text() == "A" { a } else { c };
        assert_eq!(
            found,
            format!("_82b5f={}; Path=/", server.url()),
            "{method}"
        );
    }
}

#[test]
fn a_server_of_weight_zero_keeps_its_sessions() {
    let origins = origins();
    let url = format!("url = \"{}\"", origins[0].url());
    let rules = rules(all(&origins), STICKY).replace(&url, &format!("{url}\nweight = 0"));
    let coreway = Start::new()
        .cores(1)
        .global("allowMinWeightZero = true")
        .serve(&rules);
    let mut client = coreway.client();
    let cookie = format!("_82b5f={}", origins[0].url());
    assert_eq!(get(&mut client, &cookie).text(), "A");
    let without: String = (0..4).map(|_| get(&mut client, "x=1").text()).collect();
    assert_eq!(without, "BCBC");
}

#[test]
fn another_try_ignores_the_pin() {
    let origins = [Origin::refusing(), Origin::text("B")];
    let rules = rules([("A", &origins[0]), ("B", &origins[1])], STICKY);
    let coreway = Start::new().cores(1).table("[retry]").serve(&rules);
    let mut client = coreway.client();
    let post = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nCookie: _82b5f={}\r\nContent-Length: 2\r\n\r\nhi",
        origins[0].url()
    );
    let response = client.exchange(post);
    let cookie = format!("_82b5f={}; Path=/", origins[1].url());
    assert_eq!(
        (&*response.text(), response.head.all("set-cookie")),
        ("B", vec![&*cookie])
    );
}

#[test]
fn an_error_of_ours_sets_no_cookie() {
    let origin = Origin::refusing();
    let coreway = Coreway::serve(&rules([("A", &origin)], STICKY));
    let response = coreway.get("/");
    assert_eq!((response.status, response.field("set-cookie")), (502, None));
}

#[test]
fn an_upgrade_sets_it_too() {
    let origin = Origin::wire(|exchange| {
        exchange.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade, Set-Cookie\r\nUpgrade: websocket\r\n\r\n",
        );
        exchange.close();
    });
    let coreway = Coreway::serve(&rules([("A", &origin)], STICKY));
    let mut client = coreway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let expected = format!("_82b5f={}; Path=/", origin.url());
    assert_eq!(client.head().all("set-cookie"), [&*expected]);
}

#[test]
fn fields_of_the_frontend_leave_it_alone() {
    let origin = Origin::new(|_| answer(200, "A"));
    let rules = rules([("A", &origin)], STICKY)
        + "[frontends.f.headers.customResponseHeaders]\nSet-Cookie = \"\"\n";
    let response = Coreway::serve(&rules).get("/");
    let expected = format!("_82b5f={}; Path=/", origin.url());
    assert_eq!(response.head.all("set-cookie"), [&*expected]);
}
