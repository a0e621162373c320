//! How often a frontend may be used, and how many exchanges may be under way at a backend.

use std::thread;

use crate::harness::h2::{Http2, request};
use crate::harness::origin::{Deaf, Exchange};
use crate::harness::{
    Client, Coreway, Gate, H2Origin, Origin, Response, Start, answer, backend, eventually, site,
};

fn rate_limited(origin: &Origin, by: &str, rates: &str) -> String {
    let limit = format!("[frontends.f.ratelimit]\nextractorfunc = \"{by}\"\n{rates}");
    site(origin) + &limit
}

const THREE_IN_A_ROW: &str =
    "[frontends.f.ratelimit.rateset.a]\nperiod = \"1000s\"\naverage = 5\nburst = 3\n";

fn ask(coreway: &Coreway, key: &str) -> Response {
    coreway.exchange(format!(
        "GET / HTTP/1.1\r\nHost: {key}\r\nX-Key: {key}\r\nConnection: close\r\n\r\n"
    ))
}

#[test]
fn more_than_the_burst_is_told_to_wait() {
    let origin = Origin::text("in");
    let coreway = Coreway::serve(&rate_limited(&origin, "client.ip", THREE_IN_A_ROW));
    for _ in 0..3 {
        assert_eq!(ask(&coreway, "a").status, 200);
    }
    let response = ask(&coreway, "b");
    assert_eq!(response.status, 429);
    assert_eq!(response.reason, "Too Many Requests");
    assert_eq!(response.field("Retry-After"), Some("200"));
    assert_eq!(response.field("X-Retry-In"), Some("3m20s"));
    assert_eq!(response.text(), "max rate reached: retry-in 3m20s");
    assert_eq!(
        response.field("Content-Type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(origin.requests().len(), 3);

    // What did not change goes on, also where something else did.
    coreway.reload(
        &(rate_limited(&origin, "client.ip", THREE_IN_A_ROW)
            + "[frontends.f.routes.r]\nrule = \"Path:/\"\n"),
    );
    assert_eq!(ask(&coreway, "a").status, 429);
    coreway.reload(&rate_limited(
        &origin,
        "client.ip",
        &THREE_IN_A_ROW.replace("burst = 3", "burst = 4"),
    ));
    assert_eq!(ask(&coreway, "a").status, 200);
}

#[test]
fn hosts_and_fields_have_their_own_limits() {
    let origin = Origin::text("in");
    for by in ["request.host", "request.header.X-Key"] {
        let coreway = Coreway::serve(&rate_limited(&origin, by, THREE_IN_A_ROW));
        for key in ["one.test", "two.test"] {
            for status in [200, 200, 200, 429] {
                assert_eq!(ask(&coreway, key).status, status, "{by} {key}");
            }
        }
    }
}

#[test]
fn clients_on_all_cores_share_one_limit() {
    let origin = Origin::text("in");
    let rate = "[frontends.f.ratelimit.rateset.a]\nperiod = \"100000s\"\naverage = 1\nburst = 50\n";
    let coreway = Coreway::serve(&rate_limited(&origin, "client.ip", rate));
    let passed: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = coreway.client();
                    (0..20).filter(|_| client.get("/").status == 200).count()
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum()
    });
    assert_eq!(passed, 50);
}

#[test]
fn a_flood_of_keys_takes_no_memory_and_pushes_nobody_out() {
    let origin = Origin::text("in");
    let coreway = Coreway::serve(&rate_limited(
        &origin,
        "request.header.X-Key",
        THREE_IN_A_ROW,
    ));
    for status in [200, 200, 200, 429] {
        assert_eq!(ask(&coreway, "heavy").status, status);
    }
    let mut client = coreway.client();
    let batch = |from: usize| {
        (from..from + 100)
            .map(|key| format!("GET / HTTP/1.1\r\nHost: h\r\nX-Key: {key}\r\n\r\n"))
            .collect::<String>()
    };
    let before = coreway.memory_kib();
    for from in (0..5_000).step_by(100) {
        client.send(batch(from));
        for _ in 0..100 {
            assert_eq!(client.response().status, 200);
        }
    }
    let grown = coreway.memory_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB for 5000 keys");
    assert_eq!(ask(&coreway, "heavy").status, 429);
}

#[test]
fn limits_that_cannot_be_read_leave_the_frontend_out() {
    let origin = Origin::text("in");
    let coreway = Coreway::serve(&rate_limited(&origin, "client.port", THREE_IN_A_ROW));
    assert_eq!(ask(&coreway, "a").status, 404);
    coreway.await_log(
        "ratelimit: unsupported limiting variable: 'client.port'. Skipping frontend f...",
    );
    coreway.reload(
        &(site(&origin) + "[backends.b.maxconn]\namount = -1\nextractorfunc = \"client.ip\"\n"),
    );
    assert_eq!(ask(&coreway, "a").status, 404);
    coreway.await_log("maxConn: amount should be >= 0. Skipping frontend f...");
    coreway.reload(&(site(&origin) + "[backends.b.maxconn]\namount = 0\n"));
    assert_eq!(ask(&coreway, "a").status, 200, "no limit needs no key");
}

/// A server that answers `/slow` once the gate is open.
fn slow(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::new(move |request| {
        if request.head.target() == "/slow" {
            gate.wait();
        }
        answer(200, "in")
    })
}

#[test]
fn exchanges_under_way_are_limited_and_places_come_back() {
    let gate = Gate::default();
    let origin = slow(&gate);
    let limit = "[backends.b.maxconn]\namount = 2\nextractorfunc = \"client.ip\"\n";
    let rules = backend("b", &origin)
        + limit
        + "[frontends.f]\nbackend = \"b\"\n[frontends.g]\nbackend = \"b\"\n[frontends.g.routes.r]\nrule = \"Path:/g\"\n";
    let coreway = Coreway::serve(&rules);
    let mut one = coreway.client();
    let mut two = coreway.client();
    one.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    two.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("both are under way", || origin.requests().len() == 2);
    let response = coreway.get("/g");
    assert_eq!(
        (response.status, response.text().as_str()),
        (429, "max connections reached: 2"),
        "another frontend of the same backend"
    );
    assert_eq!(response.field("Retry-After"), None);
    // A client that leaves gives its place back, and a reload changes nothing of that.
    coreway.reload(
        &(rules + "[frontends.h]\nbackend = \"b\"\n[frontends.h.routes.r]\nrule = \"Path:/h\"\n"),
    );
    assert_eq!(coreway.get("/h").status, 429);
    two.reset();
    eventually("the place is free", || coreway.get("/h").status == 200);
    gate.open();
    assert_eq!(one.response().status, 200);
    for _ in 0..5 {
        assert_eq!(coreway.get("/").status, 200);
    }
}

/// Every way an exchange can end gives its place back: the server behaves as `act` needs, which is told the program and
/// sees to it that an exchange has ended, or will. Of one place, exactly one is there afterwards.
#[track_caller]
fn gives_its_place_back(start: Start, servers: &str, act: impl FnOnce(&Coreway)) {
    let rules = |servers: &str| {
        let limit = "[backends.b.maxconn]\namount = 1\nextractorfunc = \"request.header.X-Key\"\n";
        format!("{limit}{servers}[frontends.f]\nbackend = \"b\"\n")
    };
    let coreway = start.serve(&rules(servers));
    act(&coreway);
    let asked = "GET /free HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    // The same backend, with a server that can be asked: what is under way counts on.
    let working = Origin::text("free");
    coreway.reload(&rules(&backend("b", &working)));
    eventually("the place is free", || {
        coreway.exchange(asked).status == 200
    });
    // Nothing was given back twice either.
    let gate = Gate::default();
    let slow = slow(&gate);
    coreway.reload(&rules(&backend("b", &slow)));
    let mut one = coreway.client();
    eventually("one is under way", || {
        one.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("it is decided", || {
            one.is_readable() || !slow.requests().is_empty()
        });
        // Refused while the one before is on its way out.
        let is_in = !slow.requests().is_empty();
        is_in || one.response().status != 429
    });
    assert_eq!(coreway.exchange(asked).status, 429);
    gate.open();
    assert_eq!(one.response().status, 200);
}

/// The place is taken at present.
#[track_caller]
fn assert_taken(coreway: &Coreway) {
    assert_eq!(coreway.get("/").status, 429);
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HALF: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\nhi";

/// A server that takes requests and never answers.
fn silent() -> Origin {
    Origin::wire(|exchange| {
        let _ = exchange.rest();
        exchange.close();
    })
}

#[test]
fn a_client_that_leaves_gives_its_place_back() {
    type Leave = fn(Client);
    let leaves: [(_, Leave); 3] = [(GET, Client::reset), (HALF, Client::reset), (HALF, drop)];
    for (request, leave) in leaves {
        let origin = silent();
        gives_its_place_back(Start::new(), &backend("b", &origin), |coreway| {
            let mut client = coreway.client();
            client.send(request);
            eventually("the server is asked", || origin.requests().len() == 1);
            assert_taken(coreway);
            leave(client);
        });
    }
    let origin = Origin::wire(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        let _ = exchange.rest();
        exchange.close();
    });
    gives_its_place_back(Start::new(), &backend("b", &origin), |coreway| {
        let mut client = coreway.client();
        client.send(GET);
        client.head();
        assert_eq!(client.chunk(), b"hello");
        assert_taken(coreway);
        client.reset();
    });
}

#[test]
fn a_server_that_fails_gives_the_place_back() {
    type Act = fn(&mut Exchange<'_>);
    let check = |request: &str, status: Option<u16>, act: Act| {
        let origin = Origin::wire(act);
        gives_its_place_back(Start::new(), &backend("b", &origin), |coreway| {
            let mut client = coreway.client();
            client.send(request);
            match status {
                Some(status) => assert_eq!(client.response().status, status),
                None => assert!(client.try_response().is_err(), "it is cut"),
            }
        });
    };
    check(GET, Some(502), |exchange| exchange.reset());
    check(GET, Some(502), |exchange| exchange.close());
    check(GET, Some(502), |exchange| {
        exchange.send("nonsense\r\n\r\n");
        exchange.close();
    });
    check(GET, None, |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        exchange.reset();
    });
    check(GET, None, |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nz");
        exchange.close();
    });
    // It answers before it has the whole request, which never comes.
    check(HALF, Some(200), |exchange| {
        exchange.send(answer(200, "early"));
        let _ = exchange.rest();
        exchange.close();
    });
    // A body that is none.
    let malformed = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n";
    check(malformed, Some(400), |exchange| {
        let _ = exchange.rest();
        exchange.close();
    });
}

#[test]
fn servers_that_cannot_be_reached_give_the_place_back() {
    let refusing = [Origin::refusing(), Origin::refusing()];
    let servers: String = refusing
        .iter()
        .zip(["r", "t"])
        .map(|(origin, name)| format!("[backends.b.servers.{name}]\nurl = \"{}\"\n", origin.url()))
        .collect();
    for start in [Start::new(), Start::new().table("[retry]\nattempts = 5")] {
        gives_its_place_back(start, &servers, |coreway| {
            assert_eq!(coreway.get("/").status, 502);
        });
    }
    let working = Origin::text("in");
    let mixed = format!("{servers}{}", backend("b", &working));
    gives_its_place_back(Start::new().table("[retry]"), &mixed, |coreway| {
        for _ in 0..5 {
            assert_eq!(coreway.get("/").status, 200, "after further tries");
        }
    });
    gives_its_place_back(Start::new(), "", |coreway| {
        assert_eq!(coreway.get("/").status, 503, "no server at all");
    });
    let unknown = "[backends.b.servers.s]\nurl = \"ftp://127.0.0.1:1\"\n";
    gives_its_place_back(Start::new(), unknown, |coreway| {
        assert_eq!(coreway.get("/").status, 500);
    });
}

#[test]
fn time_limits_give_the_place_back() {
    let deaf = Deaf::new();
    gives_its_place_back(
        Start::new().table("[forwardingTimeouts]\ndialTimeout = \"100ms\""),
        &format!("[backends.b.servers.s]\nurl = \"{}\"\n", deaf.url()),
        |coreway| assert_eq!(coreway.get("/").status, 504),
    );
    let origin = silent();
    gives_its_place_back(
        Start::new().table("[forwardingTimeouts]\nresponseHeaderTimeout = \"100ms\""),
        &backend("b", &origin),
        |coreway| assert_eq!(coreway.get("/").status, 504),
    );
    gives_its_place_back(
        Start::new().table("[respondingTimeouts]\nreadTimeout = \"200ms\""),
        &backend("b", &origin),
        |coreway| assert_eq!(coreway.exchange(HALF).status, 408),
    );
    gives_its_place_back(
        Start::new().table("[respondingTimeouts]\nwriteTimeout = \"200ms\""),
        &backend("b", &origin),
        |coreway| {
            let mut client = coreway.client();
            client.send(GET);
            assert!(client.try_response().is_err());
        },
    );
}

#[test]
fn a_tunnel_keeps_its_place_until_it_is_closed() {
    let origin = || {
        Origin::wire(|exchange| {
            exchange.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
            );
            loop {
                match &*exchange.take() {
                    [] => return exchange.close(),
                    b"reset" => return exchange.reset(),
                    b"close" => return exchange.close(),
                    bytes => {
                        let bytes = bytes.to_vec();
                        exchange.send(bytes);
                    }
                }
            }
        })
    };
    let check = |end: fn(Client)| {
        let origin = origin();
        gives_its_place_back(Start::new(), &backend("b", &origin), |coreway| {
            let mut client = coreway.client();
            client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
            assert!(client.head().start.starts_with("HTTP/1.1 101"));
            client.send("hi");
            assert_eq!(client.exactly(2), b"hi");
            assert_taken(coreway);
            end(client);
        });
    };
    check(drop);
    check(Client::reset);
    check(|mut client| {
        client.half_close();
        assert_eq!(client.rest(), b"");
    });
    check(|mut client| {
        client.send("close");
        assert_eq!(client.rest(), b"");
    });
    check(|mut client| {
        client.send("reset");
        let _ = client.try_response();
    });
}

#[test]
fn a_stream_that_is_reset_gives_its_place_back_and_the_connection_goes_on() {
    let origin = silent();
    gives_its_place_back(Start::new(), &backend("b", &origin), |coreway| {
        let client = Http2::connect(coreway.address());
        let (_answer, mut stream) = client.begin(request("POST", "/"));
        client.run_until(|| !origin.requests().is_empty());
        assert_taken(coreway);
        assert_eq!(client.get("/").status, 429, "another stream");
        stream.send_reset(h2::Reason::CANCEL);
        client.run_until(|| origin.connections_open() == 0);
    });
}

#[test]
fn a_place_is_kept_by_nobody_who_was_refused() {
    let origin = Origin::text("in");
    let rules = backend("b", &origin)
        + "[backends.b.maxconn]\namount = 1\nextractorfunc = \"client.ip\"\n[frontends.f]\nbackend = \"b\"\n\
           [frontends.g]\nbackend = \"b\"\n[frontends.g.routes.r]\nrule = \"Path:/limited\"\n\
           [frontends.g.ratelimit]\nextractorfunc = \"client.ip\"\n\
           [frontends.g.ratelimit.rateset.a]\nperiod = \"1000s\"\naverage = 1\nburst = 1\n";
    let coreway = Coreway::serve(&rules);
    assert_eq!(coreway.get("/limited").status, 200);
    for _ in 0..3 {
        // It has a place, and no token.
        let refused = coreway.get("/limited");
        assert!(refused.text().starts_with("max rate reached"));
    }
    assert_eq!(coreway.get("/").status, 200);
}

#[test]
fn what_is_held_or_replaced_gives_its_place_back() {
    let buffered =
        |origin: &Origin, lines: &str| backend("b", origin) + "[backends.b.buffering]\n" + lines;
    let failing = Origin::new(|_| answer(503, "busy"));
    gives_its_place_back(
        Start::new(),
        &buffered(&failing, "retryExpression = \"ResponseCode() == 503\"\n"),
        |coreway| assert_eq!(coreway.get("/").status, 503, "after many attempts"),
    );
    let long = Origin::new(|_| answer(200, &"x".repeat(1000)));
    gives_its_place_back(
        Start::new(),
        &buffered(&long, "maxResponseBodyBytes = 10\n"),
        |coreway| assert_eq!(coreway.get("/").status, 500, "longer than it may be"),
    );
    let origin = silent();
    gives_its_place_back(
        Start::new(),
        &buffered(&origin, "maxRequestBodyBytes = 10\n"),
        |coreway| assert_eq!(coreway.exchange(HALF).status, 413, "more than is taken in"),
    );
    gives_its_place_back(Start::new(), &buffered(&origin, ""), |coreway| {
        let mut client = coreway.client();
        client.send(HALF);
        // It leaves while its body is taken in.
        client.reset();
    });
    // A page of another backend stands for the answer.
    let page = Origin::text("sorry");
    let pages = backend("pages", &page)
        + "[frontends.f.errors.e]\nstatus = [\"500-599\"]\nbackend = \"pages\"\nquery = \"/{status}.html\"\n";
    gives_its_place_back(
        Start::new(),
        &(pages + &backend("b", &failing)),
        |coreway| {
            assert_eq!(coreway.get("/").text(), "sorry");
        },
    );
}

#[test]
fn exchanges_over_http2_give_their_places_back() {
    // Its whole connection is lost.
    let origin = silent();
    gives_its_place_back(Start::new(), &backend("b", &origin), |coreway| {
        let client = Http2::connect(coreway.address());
        let _begun = client.begin(request("POST", "/"));
        client.run_until(|| !origin.requests().is_empty());
        assert_taken(coreway);
    });
    // The server resets the stream, before its answer and within it.
    for sends in [false, true] {
        let origin = H2Origin::new(move |mut asked| async move {
            if sends {
                let head = http::Response::builder().body(()).unwrap();
                let mut stream = asked.respond.send_response(head, false).unwrap();
                stream.send_data("half".into(), false).unwrap();
                stream.send_reset(h2::Reason::INTERNAL_ERROR);
            } else {
                asked.respond.send_reset(h2::Reason::INTERNAL_ERROR);
            }
        });
        let server = format!("[backends.b.servers.s]\nurl = \"{}\"\n", origin.url());
        gives_its_place_back(Start::new(), &server, |coreway| {
            let mut client = coreway.client();
            client.send(GET);
            let told = client.try_response();
            assert!(told.is_err() || told.is_ok_and(|told| told.status == 502));
        });
    }
}
