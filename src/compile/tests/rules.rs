//! Which frontend answers a request, and what of the request it sends on.

use super::*;
use crate::frontend::FrontendId;

#[test]
fn grammar() {
    yes(";;Path:/x;", "/x");
    yes("Headers:X-A,a::c", "/|X-A: a:c");
    no("Headers:X-A,a::c", "/|X-A: a::c");
    no("Host:[::1]", "[::1]:80/");
    no("Path:/{n:[0-9]{1,3}}", "/12");
    check(
        "PathPrefix:/x;ReplacePathRegex:^/x/([0-9]{1,3}) /y/$1",
        "/x/1",
        "/x/1",
    );
    yes(" Path : /sp , /sp2 ", "/sp2");
    yes("Path:/it is", "/it%20is");
    yes("Path:/café", "/caf%C3%A9");
    no("Path:/caf%C3%A9", "/caf%C3%A9");
    no("Path:/a;Path:/b", "/a");
    yes("PathPrefix:/a;PathPrefix:/a/b", "/a/b");
}

#[test]
fn templates_that_never_match_leave_the_others_alone() {
    for bad in [
        "Path:foo",
        "Path:/a/{x",
        "HostRegexp:{x:[}",
        "PathPrefix:foo",
        "PathPrefixStripRegex:a",
    ] {
        no(bad, "foo/foo");
    }
    yes("Path:/{x,/good", "/good");
    yes("Query:id={x};Path:/p/{x}", "/p/1?id=2");
    yes("HostRegexp:{x}.t;Path:/{x}/{x}", "a.t/b/c");
}

#[test]
fn host() {
    for host in ["FOO.TEST:1234", "foo.test", "bar.test:1"] {
        yes("Host:Foo.Test,bar.test", &format!("{host}/"));
    }
    no("Host:Foo.Test,bar.test", "foo.test./");
    yes("Host:127.0.0.1", "127.0.0.1:99/");
    no("Host:foo.test:80", "foo.test:80/");
    no("Host:a", "/");
    no("Host: ,", "/");
}

#[test]
fn host_regexp() {
    let rule = "HostRegexp:{sub:[a-z]+}.foo.test,lit.test";
    for host in ["A.FOO.test", "a.foo.test:88", "lit.test"] {
        yes(rule, &format!("{host}/"));
    }
    for host in ["a1.foo.test", "a.foo.test.", "litxtest"] {
        no(rule, &format!("{host}/"));
    }
    no("HostRegexp:{sub}.foo.test", "a.b.foo.test/");
    no("HostRegexp:{sub}.foo.test", ".foo.test/");
    for host in ["anything", "[::1]:80", ""] {
        yes("HostRegexp:{any:.*}", &format!("{host}/"));
    }
    yes("HostRegexp:{x}.abs.test", "q.abs.test:88/x");
}

#[test]
fn what_paths_are_compared_with() {
    yes("PathPrefix:/a/../b", "/a/../b");
    no("PathPrefix:/a/../b", "/b");
    no("Path:/a/{x}", "/a/b%2Fc");
    yes("PathPrefix:/foo", "/%66oo");
}

#[test]
fn last_slashes() {
    let keep = World {
        keep_trailing_slash: true,
        ..world()
    };
    check("Path:/path", "/path", "/path");
    check("Path:/path", "/path/", "301 /path");
    check("Path:/path", "/path//", "404");
    check("Path:/path/", "/path", "301 /path/");
    check("Path:/path/", "/path/", "/path/");
    check("Path:/path/", "/path//", "404");
    check_in(&keep, "Path:/path", "/path", "/path");
    check_in(&keep, "Path:/path", "/path/", "404");
    check_in(&keep, "Path:/path", "/path//", "404");
    check_in(&keep, "Path:/path/", "/path", "404");
    check_in(&keep, "Path:/path/", "/path/", "/path/");
    check_in(&keep, "Path:/path/", "/path//", "404");

    check("Path:/path/", "POST /path?q=1", "301 /path/?q=1");
    check("Path:/a/{x:.*}", "/a/", "301 /a");
    check("Path:/a/{x:.*}", "/a", "404");
    check_in(&keep, "Path:/a/{x:.*}", "/a/", "/a/");
    check("Path:/", "/", "/");
    check("Path:/{x:.*}", "/", "/");
    check("Path:/a/b", "/a%2Fb/", "301 /a%2Fb");
    check("Path:/a/b", "/a/b%2F", "301 /a/b");
    check("Path:/{x:.*}", "//evil.test/", "301 /.//evil.test");
    check("Path:/a;Path:/a/", "/a", "404");
}

#[test]
fn a_redirect_needs_the_whole_frontend() {
    let frontends = [("a", "Path:/foo;Host:a.test", 0), ("b", "Host:b.test", 0)];
    check_order(&frontends, "b.test/foo/", "b");
    check_order(&frontends, "a.test/foo/", "301 /foo");
    check_order(
        &[("a", "Method:POST;Path:/foo", 0), ("b", "PathPrefix:/", 0)],
        "GET /foo/",
        "b",
    );
}

#[test]
fn path_prefix() {
    for path in ["/foo", "/foo/", "/foobar"] {
        yes("PathPrefix:/foo", path);
    }
    no("PathPrefix:/foo", "/Foo");
    no("PathPrefix:/foo/", "/foo");
    yes("PathPrefix:/a/{x}y", "/a/by");
    yes("PathPrefix:/a/{x}y", "/a/byz");
    no("PathPrefix:/a/{x}y", "/a/bz");
}

#[test]
fn method() {
    yes("Method: get, POST", "GET /");
    yes("Method: get, POST", "POST /");
    no("Method: get, POST", "get /");
    no("Method: get, POST", "PUT /");
}

#[test]
fn headers() {
    yes("Headers:x-a,1", "/|X-A: 0|X-A: 1");
    no("Headers:X-A,1", "/|X-A: 1, 2");
    no("Headers:X-A,a", "/|X-A: A");
    yes("Headers:X-A, ", "/|X-A: anything");
    no("Headers:X-A, ", "/");
    no("Headers:Host,a.test", "a.test/");
    no(
        "Headers:Transfer-Encoding,chunked",
        "/|Transfer-Encoding: chunked",
    );
    yes("HeadersRegexp:X-A,b.d", "/|X-A: abcde");
    no("HeadersRegexp:X-A,b.d", "/|X-A: aBcde");
    no("Headers:X-A,1,X-B,2", "/|X-A: 1");
    yes("Headers:X-A,1,X-B,2", "/|X-A: 1|X-B: 2");
}

#[test]
fn query() {
    yes("Query:foo=bar", "/?foo=bar");
    yes("Query:foo=", "/?foo");
    yes("Query:foo=", "/?foo=x");
    yes("Query:foo,bar", "/?foo=bar");
    yes("Query:id={id}", "/?id=");
    no("Query:id={id}", "/?");
    no("Query:foo=bar", "/?foo=baz&foo=bar");
    yes("Query:foo=bar", "/?foo=b%61r");
    yes("Query:foo={x:b.r}", "/?f%6Fo=b%61r");
    no("Query:foo=bar", "/?Foo=bar");
    no("Query:foo=bar", "/?x=1;foo=bar");
    yes("Query:foo=bar", "/?foo=%zz&foo=bar");
    yes("Query: foo=bar, id={id:[0-9]+}", "/?id=12&foo=bar");
    no("Query: foo=bar, id={id:[0-9]+}", "/?id=x&foo=bar");
}

#[test]
fn literal_strip() {
    check("PathPrefixStrip:/foo", "/foo", "/ X-Forwarded-Prefix: /foo");
    check(
        "PathPrefixStrip:/foo",
        "/foo/",
        "/ X-Forwarded-Prefix: /foo",
    );
    check(
        "PathPrefixStrip:/foo",
        "/foobar",
        "/bar X-Forwarded-Prefix: /foo",
    );
    check(
        "PathPrefixStrip:/foo",
        "/foo//bar",
        "//bar X-Forwarded-Prefix: /foo",
    );
    check(
        "PathPrefixStrip:/foo",
        "/foo/a%2Fb?x=%20",
        "/a%2Fb?x=%20 X-Forwarded-Prefix: /foo",
    );
    check(
        "PathPrefixStrip:/foo",
        "/foo?",
        "/? X-Forwarded-Prefix: /foo",
    );
    check(
        "PathPrefixStrip:/foo/",
        "/foo/bar",
        "/bar X-Forwarded-Prefix: /foo/",
    );
    check(
        "PathPrefixStrip:/a,/ab,/abc",
        "/abcd",
        "/d X-Forwarded-Prefix: /abc",
    );
    check(
        "PathPrefixStrip:/a,/ab,/abc",
        "/abx",
        "/x X-Forwarded-Prefix: /ab",
    );
    check("PathStrip:/foo", "/foo", "/ X-Forwarded-Prefix: /foo");
    check("PathPrefixStrip:/p/{id:[0-9]+}", "/p/12/x", "404");
    check(
        "PathPrefixStrip:/s p",
        "/s%20p/a%2Fb",
        "/a/b X-Forwarded-Prefix: /s p",
    );
    check(
        "PathPrefixStrip:/foo",
        "/%66oo/a(b",
        "/a%28b X-Forwarded-Prefix: /foo",
    );
    check(
        "PathPrefixStrip:/foo",
        "/foo/a(b",
        "/a(b X-Forwarded-Prefix: /foo",
    );
    check(
        "PathPrefixStrip:/a;PathPrefixStrip:/a/b",
        "/a/b/c",
        "/c X-Forwarded-Prefix: /a/b",
    );
    check(
        "PathPrefixStrip:/foo",
        "/foo/x|X-Forwarded-Prefix: /client",
        "/x X-Forwarded-Prefix: /client X-Forwarded-Prefix: /foo",
    );
}

#[test]
fn regex_strip() {
    check(
        "PathStripRegex:/a/{n:[0-9]+}",
        "/a/1",
        "/ X-Forwarded-Prefix: /a/1",
    );
    check(
        "PathPrefixStripRegex:/p/{id:[0-9]+}",
        "/p/12x",
        "/x X-Forwarded-Prefix: /p/12",
    );
    check(
        "PathPrefixStripRegex:/p/{id}/",
        "/p/12/x",
        "/x X-Forwarded-Prefix: /p/12/",
    );
    check(
        "PathPrefixStripRegex:/p/{id}/;AddPrefix:/z",
        "/p/12/x",
        "/zx X-Forwarded-Prefix: /p/12/",
    );
    check(
        "PathPrefixStripRegex:/p/{id};AddPrefix:/z",
        "/p/12",
        "/z X-Forwarded-Prefix: /p/12",
    );
    check(
        "PathPrefixStripRegex:/foo",
        "/foo/a%2Fb",
        "/a%2Fb X-Forwarded-Prefix: /foo",
    );
    check(
        "PathPrefixStrip:/a;PathPrefixStripRegex:/{x}",
        "/a/b/c",
        "404",
    );
    check(
        "PathPrefixStripRegex:/{a:[a-z]+}/{a:[0-9]+}",
        "/x/1/y",
        "/y X-Forwarded-Prefix: /x/1",
    );
    // A decoded line end must not begin a field line.
    check(
        "PathPrefixStripRegex:/{a}",
        "/x%0d%0aE:1/y",
        "/y X-Forwarded-Prefix: /x%0D%0AE:1",
    );
}

#[test]
fn add_prefix() {
    check("AddPrefix:/pre", "/x?q", "/pre/x?q");
    check("AddPrefix:/pre?z=1", "/x", "/pre%3Fz=1/x");
    check("AddPrefix:pre", "/x?q=1", "/pre/x?q=1");
    check("AddPrefix:/pre", "/a%2Fb", "/pre/a%2Fb");
    check(
        "PathPrefixStrip:/a;AddPrefix:/b",
        "/a",
        "/b/ X-Forwarded-Prefix: /a",
    );
}

#[test]
fn replace_path() {
    check(
        "PathPrefixStrip:/a;AddPrefix:/b;ReplacePath:/c",
        "/a/x",
        "/c X-Forwarded-Prefix: /a X-Replaced-Path: /b/x",
    );
    check(
        "ReplacePath:/a?b #c",
        "/x?q=1",
        "/a%3Fb%20%23c?q=1 X-Replaced-Path: /x",
    );
}

#[test]
fn replace_path_regex() {
    let api = "PathPrefix:/api;ReplacePathRegex:^/api/v2/(.*) ";
    check(
        &format!("{api}/v3/$1"),
        "/api/v2/x/y?q=1",
        "/v3/x/y?q=1 X-Replaced-Path: /api/v2/x/y",
    );
    check(
        &format!("{api}/v3/$1x"),
        "/api/v2/x",
        "/v3/ X-Replaced-Path: /api/v2/x",
    );
    check(
        &format!("{api}/v3/${{1}}x"),
        "/api/v2/x",
        "/v3/xx X-Replaced-Path: /api/v2/x",
    );
    check(
        &format!("{api}/v3/$$1"),
        "/api/v2/x",
        "/v3/$1 X-Replaced-Path: /api/v2/x",
    );
    check(&format!("{api}/v3/$1"), "/api/v1/x", "/api/v1/x");
    check(
        "ReplacePathRegex:(?P<n>a+) <${n}>",
        "/xaaya",
        "/x%3Caa%3Ey%3Ca%3E X-Replaced-Path: /xaaya",
    );
    check(
        "ReplacePathRegex:^/(.*) /api/$1",
        "/x%2Fy",
        "/api/x/y X-Replaced-Path: /x/y",
    );
    check("ReplacePathRegex:^/a /b /c", "/a", "/a");
    check("ReplacePathRegex:^/(a /b", "/a", "/a");
    check(
        "ReplacePathRegex:^/a/ b",
        "/a/c",
        "/bc X-Replaced-Path: /a/c",
    );
}

#[test]
fn priority() {
    let frontends = [
        ("a", "PathPrefix:/foo;Host:foo.com", 0),
        ("b", "PathPrefixStrip:/foobar", 0),
        ("c", "PathPrefix:/foo,/bar", 0),
    ];
    check_order(&frontends, "foo.com/foobar", "a");
    check_order(&frontends, "x/foobar", "b");
    check_order(&frontends, "x/foo", "c");
    check_order(
        &[
            ("a", "PathPrefix: /foo   ", 0),
            ("b", "PathPrefix:/foobar", 0),
        ],
        "/foobar",
        "a",
    );
    check_order(
        &[("a", "PathPrefix:/", 100), ("b", "PathPrefix:/foobar", 99)],
        "/foobar",
        "a",
    );
    check_order(
        &[("a", "PathPrefix:/", -5), ("b", "PathPrefix:/f", -9)],
        "/foo",
        "b",
    );
    check_order(
        &[("b", "PathPrefix:/a", 0), ("a", "PathPrefix:/a", 0)],
        "/a",
        "a",
    );
}

#[test]
fn a_frontend_without_routes_takes_what_is_left() {
    let mut dynamic = dynamic(&[("a", "Host:a.test", 0), ("z", "", 0)]);
    dynamic
        .frontends
        .get_mut("z")
        .expect("there")
        .routes
        .clear();
    let snapshot = &compiled(&world(), dynamic).snapshots[0];
    for (request, expected) in [("a.test/", "a"), ("b.test/", "z")] {
        let parsed = Request::parse(request);
        assert_eq!(answer(snapshot, &parsed, &mut Scratch::default()), expected);
    }
}

#[test]
fn routes_are_joined_in_the_order_of_their_names() {
    let mut dynamic = dynamic(&[("f", "PathPrefixStrip:/a", 0)]);
    let route = dynamic::Route {
        rule: "PathPrefixStrip:/a/b".to_owned(),
        ..dynamic::Route::default()
    };
    dynamic
        .frontends
        .get_mut("f")
        .expect("there")
        .routes
        .insert("a".to_owned(), route);
    let snapshot = &compiled(&world(), dynamic).snapshots[0];
    let parsed = Request::parse("/a/b");
    let mut scratch = Scratch::default();
    assert_eq!(answer(snapshot, &parsed, &mut scratch), "f");
    let mut head = parsed.head();
    snapshot.frontends[0]
        .modifiers
        .apply(&mut head, &mut scratch)
        .expect("the last strip list fits");
    assert_eq!(head.target(), b"/b");
}

#[test]
fn providers_are_ordered_by_name() {
    let providers = ["rest", "file"].map(|name| {
        (
            name.to_owned(),
            Arc::new(dynamic(&[(name, "PathPrefix:/", 0)])),
        )
    });
    let compiled = compile(&BTreeMap::from(providers), &world(), &mut Memory::default());
    let parsed = Request::parse("/");
    assert_eq!(
        answer(&compiled.snapshots[0], &parsed, &mut Scratch::default()),
        "file"
    );
}

#[test]
fn a_bad_frontend_is_left_out_completely() {
    let mut dynamic = dynamic(&[("bad", "Host:a.test;Bogus:x", 0), ("all", "", 0)]);
    dynamic
        .frontends
        .get_mut("all")
        .expect("there")
        .routes
        .clear();
    let compiled = compiled(&world(), dynamic);
    let parsed = Request::parse("a.test/");
    assert_eq!(
        answer(&compiled.snapshots[0], &parsed, &mut Scratch::default()),
        "all"
    );
    assert_eq!(
        compiled.rejections[0].message,
        "error creating route for frontend bad: error parsing rule: Unknown function: 'Bogus'. Skipping frontend \
         bad..."
    );
}

#[test]
fn a_rule_with_more_places_than_a_trie_gives_it() {
    let hosts: Vec<String> = (0..80).map(|at| format!("h{at}.test")).collect();
    let paths: Vec<String> = (0..80).map(|at| format!("/p{at}")).collect();
    assert!(hosts.len() * paths.len() > crate::limits::FRONTEND_PLACES_MAX);
    let rule = format!("Host:{};Path:{}", hosts.join(","), paths.join(","));
    yes(&rule, "h79.test/p79");
    check(&rule, "h0.test/p7/", "301 /p7");
    no(&rule, "h80.test/p0");
    no(&rule, "h0.test/p80");
}

#[test]
fn more_field_names_than_are_indexed() {
    let names: Vec<(String, String)> = (0..40)
        .map(|at| (format!("f{at:02}"), format!("Headers:X-{at},v")))
        .collect();
    let frontends: Vec<(&str, &str, i64)> = names
        .iter()
        .map(|(name, rule)| (&**name, &**rule, 0))
        .collect();
    for (line, expected) in [
        ("X-3: v", "f03"),
        ("x-39: v", "f39"),
        ("X-39: w", "404"),
        ("X-39: v|X-2: v", "f39"),
    ] {
        check_order(&frontends, &format!("/|{line}"), expected);
    }
}

#[test]
fn entry_points_have_their_own_frontends() {
    let mut written = dynamic(&[("a", "PathPrefix:/a", 0), ("b", "PathPrefix:/", 0)]);
    written.frontends.get_mut("a").expect("there").entry_points =
        vec!["two".to_owned(), "one".to_owned()];
    let world = World {
        entry_points: ["one", "two"].map(str::to_owned).to_vec(),
        default_entry_points: vec!["two".to_owned()],
        ..World::default()
    };
    let snapshot = &compiled(&world, written).snapshots[0];
    let said: Vec<Lookup> = [0, 1]
        .iter()
        .flat_map(|at| ["/a", "/b"].map(|path| (*at, Request::parse(path).head())))
        .map(|(at, head)| snapshot.tries[at].lookup(&head, &mut Scratch::default()))
        .collect();
    let (a, b) = (
        Lookup::Frontend(FrontendId(0)),
        Lookup::Frontend(FrontendId(1)),
    );
    assert_eq!(said, [a, Lookup::None, a, b]);
}
