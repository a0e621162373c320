//! Which frontend answers, and what its rule does to the path. The whole grammar is tested beside its code; here it is
//! shown that rules written in a file decide over real requests.

use crate::harness::{Coreway, Origin, Start, answer, backend, get};

/// Answers with the target it was asked for and what the modifiers said about it.
fn echo() -> Origin {
    Origin::new(|request| {
        let field = |name| request.field(name).unwrap_or("-").to_owned();
        let text = format!(
            "{} {} {}",
            request.head.target(),
            field("X-Forwarded-Prefix"),
            field("X-Replaced-Path")
        );
        answer(200, &text)
    })
}

fn frontend(name: &str, backend: &str, rule: &str) -> String {
    format!(
        "[frontends.{name}]\nbackend = \"{backend}\"\n[frontends.{name}.routes.r]\nrule = \"{rule}\"\n"
    )
}

#[test]
fn hosts_choose_the_frontend() {
    let (one, two) = (Origin::text("one"), Origin::text("two"));
    let rules = backend("one", &one)
        + &backend("two", &two)
        + &frontend("f1", "one", "Host:One.Test,also.test")
        + &frontend("f2", "two", "HostRegexp:{sub:[a-z]+}.two.test");
    let coreway = Coreway::serve(&rules);
    let check = |host: &str, status: u16, body: &str| {
        let response = get(coreway.address(), host, "/");
        assert_eq!(
            (response.status, response.text().as_str()),
            (status, body),
            "Host: {host}"
        );
    };
    check("one.test", 200, "one");
    check("ONE.test:8080", 200, "one");
    check("also.test", 200, "one");
    check("one.test.", 404, "404 page not found\n");
    check("a.two.test", 200, "two");
    check("a1.two.test", 404, "404 page not found\n");
    check("other.test", 404, "404 page not found\n");
}

#[test]
fn no_frontend_is_a_404_with_the_known_words() {
    let coreway = Coreway::serve("");
    let response = coreway.get("/");
    assert_eq!(
        (response.status, response.reason.as_str()),
        (404, "Not Found")
    );
    assert_eq!(
        response.field("Content-Type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(response.field("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(response.field("Content-Length"), Some("19"));
    assert_eq!(response.text(), "404 page not found\n");
}

#[test]
fn methods_headers_and_queries_choose_too() {
    let (one, two, three) = (
        Origin::text("post"),
        Origin::text("header"),
        Origin::text("query"),
    );
    let rules = backend("b1", &one)
        + &backend("b2", &two)
        + &backend("b3", &three)
        + &frontend("f1", "b1", "Method:POST")
        + &frontend("f2", "b2", "Headers:X-Color,blue")
        + &frontend("f3", "b3", "Query:id={id:[0-9]+}");
    let coreway = Coreway::serve(&rules);
    let check = |request: &str, body: &str| {
        let response = coreway.exchange(format!("{request}Host: t\r\n\r\n"));
        assert_eq!(response.text(), body, "{request}");
    };
    check("POST / HTTP/1.1\r\nContent-Length: 0\r\n", "post");
    check("GET / HTTP/1.1\r\nx-color: blue\r\n", "header");
    check("GET / HTTP/1.1\r\nX-Color: red\r\n", "404 page not found\n");
    check("GET /?id=12 HTTP/1.1\r\n", "query");
    check("GET /?id=1x HTTP/1.1\r\n", "404 page not found\n");
}

#[test]
fn the_higher_priority_wins() {
    let (short, long, forced) = (
        Origin::text("short"),
        Origin::text("long"),
        Origin::text("forced"),
    );
    let rules = backend("short", &short)
        + &backend("long", &long)
        + &backend("forced", &forced)
        + &frontend("a", "short", "PathPrefix:/a")
        + &frontend("b", "long", "PathPrefix:/a/b")
        + "[frontends.c]\nbackend = \"forced\"\npriority = 100\n[frontends.c.routes.r]\nrule = \"PathPrefix:/a/b/c\"\n";
    let coreway = Coreway::serve(&rules);
    assert_eq!(coreway.get("/a").text(), "short");
    assert_eq!(coreway.get("/a/b").text(), "long");
    assert_eq!(coreway.get("/a/b/c").text(), "forced");
}

#[test]
fn modifiers_change_what_the_server_is_asked() {
    let check = |rule: &str, target: &str, seen: &str| {
        let origin = echo();
        let coreway = Coreway::serve(&(backend("b", &origin) + &frontend("f", "b", rule)));
        assert_eq!(coreway.get(target).text(), seen, "{rule} and {target}");
    };
    check("PathPrefixStrip:/foo", "/foo", "/ /foo -");
    check("PathPrefixStrip:/foo", "/foobar", "/bar /foo -");
    check(
        "PathPrefixStrip:/foo",
        "/foo/a%2Fb?x=%20",
        "/a%2Fb?x=%20 /foo -",
    );
    check(
        "PathPrefixStripRegex:/p/{id:[0-9]+}",
        "/p/12x",
        "/x /p/12 -",
    );
    check("PathPrefixStrip:/a;AddPrefix:/b", "/a", "/b/ /a -");
    check(
        "PathPrefixStrip:/a;AddPrefix:/b;ReplacePath:/c",
        "/a/x",
        "/c /a /b/x",
    );
    check(
        "PathPrefix:/api;ReplacePathRegex:^/api/v2/(.*) /v3/$1",
        "/api/v2/x/y?q=1",
        "/v3/x/y?q=1 - /api/v2/x/y",
    );
}

#[test]
fn targets_go_through_byte_for_byte() {
    let origin = echo();
    let coreway = Coreway::before(&origin);
    for target in [
        "/x%2Fy%20z/../q//r",
        "/?a=1;b=2&c=%zz",
        "/",
        "/*",
        "/a?",
        "/~user/'()!",
    ] {
        assert_eq!(coreway.get(target).text(), format!("{target} - -"));
    }
}

#[test]
fn a_slash_too_many_is_redirected_away() {
    let origin = Origin::text("here");
    let rules = backend("b", &origin) + &frontend("f", "b", "Path:/path");
    let coreway = Coreway::serve(&rules);
    assert_eq!(coreway.get("/path").status, 200);
    let redirect = coreway.get("/path/?q=1");
    assert_eq!(
        (redirect.status, redirect.field("Location")),
        (301, Some("/path?q=1"))
    );
    assert_eq!(
        redirect.text(),
        "<a href=\"/path?q=1\">Moved Permanently</a>.\n\n"
    );
    assert_eq!(coreway.get("/path//").status, 404);

    let strict = Start::new()
        .global("keepTrailingSlash = true")
        .serve(&rules);
    assert_eq!(strict.get("/path").status, 200);
    assert_eq!(strict.get("/path/").status, 404);
}

#[test]
fn a_bad_frontend_leaves_the_others_alone() {
    let origin = Origin::text("good");
    let rules = backend("b", &origin)
        + &frontend("bad", "b", "Hots:bad.test")
        + &frontend("lost", "nowhere", "Host:lost.test")
        + &frontend("good", "b", "Host:good.test");
    let coreway = Coreway::serve(&rules);
    assert_eq!(get(coreway.address(), "good.test", "/").text(), "good");
    assert_eq!(get(coreway.address(), "bad.test", "/").status, 404);
    assert_eq!(get(coreway.address(), "lost.test", "/").status, 404);
    coreway.await_log("Skipping frontend bad");
    coreway.await_log("undefined backend 'nowhere'");
}

#[test]
fn a_frontend_listens_only_where_it_is_told() {
    let (open, inner) = (Origin::text("open"), Origin::text("inner"));
    let rules = backend("open", &open)
        + &backend("inner", &inner)
        + &frontend("everywhere", "open", "Path:/open")
        + "[frontends.secret]\nbackend = \"inner\"\nentryPoints = [\"admin\"]\n[frontends.secret.routes.r]\nrule = \"Path:/inner\"\n";
    let coreway = Start::new()
        .table("[entryPoints.admin]\naddress = \"127.0.0.1:0\"")
        .serve(&rules);
    let admin = coreway.address_of("admin");
    assert_eq!(coreway.get("/open").text(), "open");
    assert_eq!(coreway.get("/inner").status, 404);
    assert_eq!(get(admin, "t", "/inner").text(), "inner");
    assert_eq!(
        get(admin, "t", "/open").status,
        404,
        "defaultEntryPoints names only http"
    );
}

#[test]
fn rules_may_stand_in_the_static_file() {
    let origin = Origin::text("inline");
    let rules = backend("b", &origin) + "[frontends.f]\nbackend = \"b\"\n";
    let settings = format!(
        "defaultEntryPoints = [\"http\"]\n[entryPoints.http]\naddress = \"127.0.0.1:0\"\n[file]\n{rules}"
    );
    let coreway = Start::new().with_settings(&settings, |_| ());
    coreway.await_reloads(1);
    assert_eq!(coreway.get("/").text(), "inline");
}

#[test]
fn rules_may_be_spread_over_a_folder() {
    let (one, two) = (Origin::text("one"), Origin::text("two"));
    let settings = "defaultEntryPoints = [\"http\"]\n[entryPoints.http]\naddress = \"127.0.0.1:0\"\n[file]\ndirectory = \"$DIR/rules\"\n";
    let coreway = Start::new().with_settings(settings, |folder| {
        std::fs::create_dir_all(folder.join("rules/deep")).unwrap();
        let first = backend("b", &one)
            + &frontend("f1", "b", "Host:one.test")
            + &frontend("f2", "b2", "Host:two.test");
        std::fs::write(folder.join("rules/a.toml"), first).unwrap();
        let second = backend("b2", &two) + &frontend("f1", "b2", "Host:late.test");
        std::fs::write(folder.join("rules/deep/b.toml"), second).unwrap();
        std::fs::write(folder.join("rules/ignored.txt"), "not TOML at all").unwrap();
    });
    coreway.await_reloads(1);
    assert_eq!(get(coreway.address(), "one.test", "/").text(), "one");
    assert_eq!(
        get(coreway.address(), "two.test", "/").text(),
        "two",
        "a backend of another file"
    );
    assert_eq!(
        get(coreway.address(), "late.test", "/").status,
        404,
        "the first definition of a name wins"
    );
}

#[test]
fn templates_in_a_rule_file_are_rendered() {
    let origin = Origin::text("rendered");
    let rules = backend("b", &origin)
        + "{{ range $i, $e := until 2 }}\n[frontends.f{{ $e }}]\nbackend = \"b\"\n[frontends.f{{ $e }}.routes.r]\nrule = \"Host:h{{ add $e 1 }}.test\"\n{{ end }}\n";
    let coreway = Coreway::serve(&rules);
    assert_eq!(get(coreway.address(), "h1.test", "/").text(), "rendered");
    assert_eq!(get(coreway.address(), "h2.test", "/").text(), "rendered");
    assert_eq!(get(coreway.address(), "h3.test", "/").status, 404);
}
