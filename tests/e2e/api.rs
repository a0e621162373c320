//! Pages about ourselves: `/ping`, `/api`, `/health`, and what is put by HTTP.

use serde_json::Value;

use crate::harness::client::Client;
use crate::harness::h2::Http2;
use crate::harness::{Coreway, Origin, Response, Start, backend, eventually, get, site};

/// The sections `sections` on an entry point of their own, called `traefik`.
fn with(sections: &str) -> Start {
    Start::new().table(&format!(
        "[entryPoints.traefik]\naddress = \"127.0.0.1:0\"\n{sections}"
    ))
}

#[track_caller]
fn page(coreway: &Coreway, target: &str) -> Response {
    get(coreway.address_of("traefik"), "test", target)
}

#[track_caller]
fn json(coreway: &Coreway, target: &str) -> Value {
    let response = page(coreway, target);
    assert_eq!(response.status, 200, "{target}: {}", response.text());
    assert_eq!(
        response.field("Content-Type"),
        Some("application/json; charset=UTF-8")
    );
    serde_json::from_str(&response.text()).expect("JSON")
}

/// A request of any method, on a connection of its own.
#[track_caller]
fn send(coreway: &Coreway, entry_point: &str, request: &str, fields: &str, body: &str) -> Response {
    let address = coreway.address_of(entry_point);
    Client::connect(address).exchange(format!(
        "{request} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

#[test]
fn pages_come_before_every_frontend_and_leave_the_rest_to_them() {
    let origin = Origin::text("theirs");
    let coreway = Start::new()
        .table("[ping]\nentryPoint = \"http\"\n[api]\nentryPoint = \"http\"")
        .serve(&site(&origin));
    let ask = |request: &str| {
        let response = send(&coreway, "http", request, "", "");
        (response.status, response.text())
    };
    let ours = |body: &str| (200, body.to_owned());
    assert_eq!(ask("GET /ping"), ours("OK"));
    assert_eq!(ask("GET /ping?x=1"), ours("OK"));
    assert!(ask("GET /api/version").1.starts_with("{\"Version\":\""));
    // Another method, or another path: the frontends.
    for request in [
        "POST /ping",
        "GET /pings",
        "DELETE /api",
        "GET /api/other",
        "PUT /api/providers/rest",
        "GET /debug/vars",
    ] {
        assert_eq!(ask(request), ours("theirs"), "{request}");
    }
    let asked = origin.requests().len();
    assert_eq!(asked, 6);

    // On a kept connection, ours and theirs in turns, with a body that nobody reads between them.
    let mut client = coreway.client();
    assert_eq!(client.get("/ping").text(), "OK");
    assert_eq!(client.get("/x").text(), "theirs");
    let version =
        client.exchange("GET /api/version HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(version.status, 200);
    assert_eq!(version.field("Connection"), None);
    assert_eq!(client.get("/y").text(), "theirs");
    client.send("HEAD /ping HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.head_response();
    assert_eq!(
        (head.status, head.field("Content-Length")),
        (200, Some("2"))
    );

    // A last slash too many is taken away, and the query kept.
    let moved = coreway.get("/api/?a=/");
    assert_eq!(
        (moved.status, moved.field("Location")),
        (301, Some("/api?a=/"))
    );
    let moved = coreway.get("/");
    assert_eq!(
        (moved.status, moved.field("Location")),
        (302, Some("/dashboard/"))
    );
    assert_eq!(coreway.get("/dashboard/").status, 501);

    let http2 = Http2::connect(coreway.address());
    for (path, expected) in [("/ping", "OK"), ("/z", "theirs")] {
        assert_eq!(http2.get(path).text(), expected);
    }
    assert_eq!(
        http2.get("/api/providers/file/backends/b/servers").text(),
        format!("{{\"s\":{{\"url\":\"{}\",\"weight\":1}}}}", origin.url())
    );
}

#[test]
fn with_keep_trailing_slash_a_slash_makes_another_path() {
    let origin = Origin::text("theirs");
    let coreway = Start::new()
        .global("keepTrailingSlash = true")
        .table("[ping]\nentryPoint = \"http\"")
        .serve(&site(&origin));
    assert_eq!(coreway.get("/ping").text(), "OK");
    assert_eq!(coreway.get("/ping/").text(), "theirs");
}

#[test]
fn the_configuration_is_shown_as_in_1_7_and_nothing_secret_with_it() {
    let coreway = with("[api]").serve(include_str!("../data/api.toml"));
    let shown = page(&coreway, "/api");
    assert_eq!(shown.text(), include_str!("../data/api.json").trim_end());
    assert_eq!(
        shown.field("Content-Type"),
        Some("application/json; charset=UTF-8")
    );
    let whole: Value = serde_json::from_str(&shown.text()).unwrap();
    let check = |target: &str, pointer: &str| {
        let expected = whole.pointer(pointer).expect(pointer);
        assert_eq!(&json(&coreway, target), expected, "{target}");
    };
    check("/api/providers", "");
    check("/api/providers/file", "/file");
    check("/api/providers/file/backends", "/file/backends");
    check("/api/providers/file/backends/b1", "/file/backends/b1");
    check(
        "/api/providers/file/backends/b1/servers",
        "/file/backends/b1/servers",
    );
    check(
        "/api/providers/file/backends/b1/servers/s%32",
        "/file/backends/b1/servers/s2",
    );
    check("/api/providers/file/frontends", "/file/frontends");
    check("/api/providers/file/frontends/f1", "/file/frontends/f1");
    check(
        "/api/providers/file/frontends/f1/routes",
        "/file/frontends/f1/routes",
    );
    check(
        "/api/providers/file/frontends/f1/routes/r1",
        "/file/frontends/f1/routes/r1",
    );
    for target in [
        "/api/providers/rest",
        "/api/providers/file/backends/x",
        "/api/providers/file/backends/b1/servers/x",
        "/api/providers/file/frontends/f2/routes/x",
        "/debug/vars",
    ] {
        let missing = page(&coreway, target);
        assert_eq!(
            (
                missing.status,
                missing.text().as_str(),
                missing.field("X-Content-Type-Options")
            ),
            (404, "404 page not found\n", Some("nosniff")),
            "{target}"
        );
    }
    let version = page(&coreway, "/api/version").text();
    let expected = format!(
        "{{\"Version\":\"{}\",\"Codename\":\"aqueduct\"}}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(version, expected);
}

#[test]
fn pages_but_ping_are_for_those_whom_the_entry_point_lets_in() {
    let guarded = |guard: &str| with(&format!("{guard}\n[ping]\n[api]\n[rest]")).serve("");
    let basic = "[entryPoints.traefik.auth.basic]\nusers = [\"test:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/\"]";
    let coreway = guarded(basic);
    assert_eq!(page(&coreway, "/ping").text(), "OK");
    let refused = page(&coreway, "/api");
    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.field("WWW-Authenticate"),
        Some("Basic realm=\"traefik\"")
    );
    assert_eq!(
        send(&coreway, "traefik", "PUT /api/providers/rest", "", "{}").status,
        401
    );
    let fields = "Authorization: Basic dGVzdDp0ZXN0\r\n";
    assert_eq!(
        send(&coreway, "traefik", "GET /api", fields, "").status,
        200
    );

    // Who is not on the white list is not even asked who he is.
    let coreway = guarded(&format!(
        "{basic}\n[entryPoints.traefik.whiteList]\nsourceRange = [\"10.0.0.0/8\"]"
    ));
    assert_eq!(page(&coreway, "/ping").text(), "OK");
    assert_eq!(page(&coreway, "/api").status, 403);
    assert_eq!(page(&coreway, "/health").status, 403);
}

#[test]
fn ping_says_so_when_the_process_is_about_to_stop() {
    let origin = Origin::text("theirs");
    let coreway = with("[ping]\n[api]\n[lifeCycle]\nrequestAcceptGraceTimeout = \"60s\"")
        .serve(&site(&origin));
    assert_eq!(page(&coreway, "/ping").status, 200);
    coreway.signal("TERM");
    // Each core answers for itself, once it has heard of it.
    for _ in 0..3 {
        eventually("ping answers 503", || {
            let ping = page(&coreway, "/ping");
            ping.status == 503 && ping.text() == "Service Unavailable"
        });
    }
    assert_eq!(
        coreway.get("/").text(),
        "theirs",
        "everybody is still served"
    );
    assert_eq!(page(&coreway, "/api").status, 200);
    coreway.signal("TERM");
    assert_eq!(coreway.exit_code(), 0);
}

#[test]
fn health_counts_what_was_answered_but_no_page_about_ourselves() {
    let origin = Origin::text("12345");
    let coreway = with("[api]\n[api.statistics]\nrecentErrors = 2").serve(&format!(
        "{}[frontends.f]\nbackend = \"b\"\n[frontends.f.routes.r]\nrule = \"PathPrefixStrip:/x\"\n\
         [frontends.none]\nbackend = \"none\"\n[frontends.none.routes.r]\nrule = \"Path:/none\"\n[backends.none]\n",
        backend("b", &origin)
    ));
    let asked = [
        ("/x/a", 200),
        ("/x/b", 200),
        ("/1", 404),
        ("/2?q", 404),
        ("/none", 503),
    ];
    for (number, (target, status)) in asked.into_iter().enumerate() {
        assert_eq!(coreway.get(target).status, status);
        // A core counts an exchange after its last byte has gone.
        eventually("it is counted", || {
            json(&coreway, "/health")["total_count"] == number + 1
        });
    }
    let health = json(&coreway, "/health");
    assert_eq!(
        health["total_status_code_count"],
        serde_json::json!({"200": 2, "404": 2, "503": 1})
    );
    assert_eq!(health["total_response_size"], 2 * 5 + 2 * 19 + 19);
    assert!(health["total_response_time_sec"].as_f64().unwrap() > 0.0);
    assert_eq!(health["pid"], coreway.pid());
    assert_ne!(health["hostname"], "");
    let errors = health["recent_errors"].as_array().unwrap();
    let told: Vec<(u64, &str, &str)> = errors
        .iter()
        .map(|error| {
            (
                error["status_code"].as_u64().unwrap(),
                error["host"].as_str().unwrap(),
                error["path"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(told, [(503, "test", "/none"), (404, "test", "/2")]);
    eventually("a second without requests counts none", || {
        json(&coreway, "/health")["count"] == 0
    });
}

#[test]
fn what_was_left_out_is_told_with_its_place() {
    let coreway = with("[api]").serve(
        "[frontends.bad]\nbackend = \"missing\"\n[frontends.bad.routes.r]\nrule = \"Path:/x\"\n",
    );
    let rejections = json(&coreway, "/api/rejections");
    let first = &rejections[0];
    assert_eq!(first["severity"], "error");
    let place = first["place"].as_str().unwrap();
    assert!(place.ends_with("rules.toml:1:12"), "{place}");
    assert!(
        first["message"].as_str().unwrap().contains("missing"),
        "{first}"
    );
    // What cannot be read at all, and the last good one is served: both are told.
    coreway.replace("[frontends");
    eventually("the broken file is told", || {
        let told = json(&coreway, "/api/rejections");
        let place = told[0]["place"].as_str().unwrap_or_default();
        place.contains("rules.toml:1:") && told[1]["place"] == first["place"]
    });
    coreway.reload("[frontends.f]\nbackend = \"b\"\nbakcend = \"b\"\n[backends.b]\n");
    eventually("a name that nobody knows is told", || {
        let told = json(&coreway, "/api/rejections");
        told[0]["severity"] == "warning"
            && told[0]["place"]
                .as_str()
                .unwrap()
                .ends_with("rules.toml:3:1")
            && told[1].is_null()
    });
    coreway.reload("");
    eventually("what is right is not told", || {
        json(&coreway, "/api/rejections") == serde_json::json!([])
    });
    assert_eq!(json(&coreway, "/api/stores"), serde_json::json!([]));
}

#[test]
fn a_long_page_waits_for_its_reader() {
    let rules: String = (0..10_000)
        .map(|at| {
            format!(
                "[frontends.f{at:05}]\nbackend = \"b\"\n[frontends.f{at:05}.routes.r]\nrule = \"Host:h{at}.example;PathPrefix:/a/long/path/to/make/it/longer/{at}\"\n"
            )
        })
        .collect();
    let coreway = with("[api]\n[ping]").serve(&format!(
        "[backends.b.servers.s]\nurl = \"http://127.0.0.1:1\"\n{rules}"
    ));
    let address = coreway.address_of("traefik");
    let before = coreway.memory_kib();
    // Many who ask for it and do not read.
    let mut slow: Vec<Client> = (0..40).map(|_| Client::connect(address)).collect();
    for client in &mut slow {
        client.send("GET /api HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for client in &mut slow {
        assert_eq!(client.head().field("Transfer-Encoding"), Some("chunked"));
    }
    let shown = json(&coreway, "/api/providers/file");
    assert_eq!(shown["frontends"].as_object().unwrap().len(), 10_000);
    assert_eq!(shown["frontends"]["f09999"]["priority"], 0);
    let page_kib = shown.to_string().len() / 1024;
    assert!(page_kib > 1000, "{page_kib}");
    let grown = coreway.memory_kib().saturating_sub(before);
    assert!(
        grown < 40 * page_kib / 2,
        "{grown} KiB for pages that nobody reads"
    );
    assert_eq!(page(&coreway, "/ping").text(), "OK");
    // Who reads at last gets all of it.
    let mut whole = Vec::new();
    loop {
        let chunk = slow[0].chunk();
        if chunk.is_empty() {
            break;
        }
        whole.extend(chunk);
    }
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(whole["file"], shown);
}

#[test]
fn a_configuration_is_put_and_survives_that_of_others() {
    let [file, first, second] = ["file", "first", "second"].map(Origin::text);
    let rules = |path: &str| {
        format!(
            "{}[frontends.f]\nbackend = \"b\"\n[frontends.f.routes.r]\nrule = \"Path:{path}\"\n",
            backend("b", &file)
        )
    };
    let coreway = with("[api]\n[rest]").serve(&rules("/file"));
    let put = |name: &str, body: &str| {
        let response = send(
            &coreway,
            "traefik",
            &format!("PUT /api/providers/{name}"),
            "",
            body,
        );
        (response.status, response.text())
    };
    let written = |origin: &Origin| {
        format!(
            r#"{{"Backends":{{"p":{{"servers":{{"s":{{"url":"{}","weight":2}}}}}}}},"frontends":{{"p":{{"backend":"p","routes":{{"r":{{"rule":"PathPrefix:/put"}}}},"auth":{{"basic":{{"users":["test:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/"]}}}}}}}},"unknown":[]}}"#,
            origin.url()
        )
    };
    let ask = || {
        let fields = "Authorization: Basic dGVzdDp0ZXN0\r\n";
        send(&coreway, "http", "GET /put", fields, "").text()
    };
    let echo = format!(
        r#"{{"backends":{{"p":{{"servers":{{"s":{{"url":"{}","weight":2}}}}}}}},"frontends":{{"p":{{"backend":"p","routes":{{"r":{{"rule":"PathPrefix:/put"}}}},"priority":0,"basicAuth":null,"auth":{{"basic":{{}}}}}}}}}}"#,
        first.url()
    );
    assert_eq!(put("rest", &written(&first)), (200, echo));
    eventually("what was put is served", || ask() == "first");
    assert_eq!(coreway.get("/put").status, 401, "its users count");
    let shown = json(&coreway, "/api/providers/rest");
    assert_eq!(
        shown["frontends"]["p"]["entryPoints"],
        serde_json::json!(["http"])
    );
    assert_eq!(json(&coreway, "/api")["web"], shown);

    // The file's provider changes, and what was put stays.
    coreway.replace(&rules("/changed"));
    eventually("the file has changed", || {
        coreway.get("/changed").text() == "file"
    });
    assert_eq!(ask(), "first");
    assert_eq!(put("web", &written(&second)).0, 200);
    eventually("the newest is served", || ask() == "second");
    coreway.await_log("deprecated");

    for (name, body, status, text) in [
        ("rest", "", 400, "unexpected end of JSON input"),
        ("rest", "{b}", 400, "key must be a string"),
        (
            "rest",
            r#"{"backends":{"b":{"servers":[]}}}"#,
            400,
            "backends.b.servers: expected a table, found a list",
        ),
        (
            "file",
            "{}",
            400,
            "Only 'rest' provider can be updated through the REST API",
        ),
        ("rest", "{}", 200, "{}"),
        ("rest", "null", 200, "{}"),
    ] {
        let (found, said) = put(name, body);
        assert_eq!(found, status, "{body}: {said}");
        assert!(said.contains(text), "{body}: {said}");
    }
    assert_eq!(
        send(&coreway, "traefik", "POST /api/providers/rest", "", "{}").status,
        404
    );
    assert_eq!(ask(), "second", "nothing of it has changed anything");
    assert_eq!(
        put("rest", r#"{"backends":{},"frontends":{}}"#),
        (200, "{}".to_owned())
    );
    eventually("nothing is left", || ask() != "second");
    assert_eq!(json(&coreway, "/api")["web"], serde_json::json!({}));
}

#[test]
fn a_body_that_is_too_long_is_refused_and_the_process_stays_small() {
    let coreway = with("[rest]").serve("");
    let mut client = Client::connect(coreway.address_of("traefik"));
    client.send(
        "PUT /api/providers/rest HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n",
    );
    assert_eq!(client.response().status, 413);
    assert!(coreway.memory_kib() < 500_000);
}

#[test]
fn the_deprecated_section_web_has_its_pages_below_its_path() {
    let origin = Origin::text("theirs");
    let coreway = Start::new()
        .table("[web]\naddress = \"127.0.0.1:0\"\npath = \"/own\"")
        .serve(&site(&origin));
    assert_eq!(page(&coreway, "/own/ping").text(), "OK");
    assert_eq!(page(&coreway, "/ping").status, 404);
    assert_eq!(json(&coreway, "/own/api/version")["Codename"], "aqueduct");
    let front = send(
        &coreway,
        "traefik",
        "GET /own/",
        "X-Forwarded-Prefix: /before\r\n",
        "",
    );
    assert_eq!(front.field("Location"), Some("/before/own/dashboard/"));
    let front = send(
        &coreway,
        "traefik",
        "GET /own/",
        "X-Forwarded-Prefix: //evil.example\r\n",
        "",
    );
    assert_eq!(front.field("Location"), Some("/own/dashboard/"));
}

#[test]
fn counters_of_the_process_are_shown_in_debug_mode() {
    let coreway = with("[api]").global("debug = true").serve("");
    let variables = json(&coreway, "/debug/vars");
    assert!(variables["Goroutines"].as_u64().unwrap() > 1);
    assert_eq!(variables["cmdline"], serde_json::json!(["coreway"]));
    assert!(variables["memstats"]["Sys"].as_u64().unwrap() > 1_000_000);
    assert_eq!(page(&coreway, "/debug/pprof/").status, 404);
}

#[test]
fn a_reader_who_leaves_costs_nobody_his_page() {
    let coreway = with("[api]").serve("");
    let address = coreway.address_of("traefik");
    let open = || {
        std::fs::read_dir(format!("/proc/{}/fd", coreway.pid()))
            .unwrap()
            .count()
    };
    let before = open();
    for _ in 0..200 {
        let mut client = Client::connect(address);
        client.send("GET /api HTTP/1.1\r\nHost: a\r\n\r\n");
        client.reset();
    }
    // While too many of them are under way it is refused.
    eventually("the next one gets his", || {
        page(&coreway, "/api").text() == r#"{"file":{}}"#
    });
    eventually("their sockets are closed", || open() <= before + 20);
}
