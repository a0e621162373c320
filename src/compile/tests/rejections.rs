//! What is left out, and what is said of it.

use super::*;

#[test]
fn rejections_in_the_words_of_the_reference() {
    let check = |rule: &str, expected: &str| {
        let said = messages(&world(), dynamic(&[("f", rule, 0)]));
        assert!(
            said.len() == 1 && said[0].contains(expected),
            "{rule}: {said:?}"
        );
    };
    check(
        "Headers:X-A",
        "mux: number of parameters must be multiple of 2, got [X-A]. Skipping frontend f...",
    );
    check(
        "Query:foo",
        "invalid expression: foo. Skipping frontend f...",
    );
    check(
        "Query:a={x:[}",
        "error parsing rule: bad regular expression: unclosed character class. Skipping",
    );
    check(
        "HeadersRegexp:A,(",
        "error parsing rule: bad regular expression: unclosed group. Skipping",
    );
    check(
        "Path:foo,/a",
        "'foo' of frontend f never matches: a path must start with a slash",
    );
    check(
        "ReplacePathRegex:/a",
        "Invalid syntax for ReplacePathRegex: /a. Separate the regular expression and",
    );
    check(
        "ReplacePathRegex:( /a",
        "Error compiling regular expression (: ",
    );
}

#[test]
fn rejections_of_frontends() {
    let mut broken = dynamic(&[("f", "Path:/", 0)]);
    broken.frontends.get_mut("f").expect("there").backend = "x".to_owned();
    assert_eq!(
        messages(&world(), broken),
        ["undefined backend 'x' for frontend f"]
    );

    let mut broken = dynamic(&[("f", "Path:/", 0)]);
    broken.frontends.get_mut("f").expect("there").entry_points =
        ["x", "y"].map(str::to_owned).to_vec();
    let expected = [
        "Undefined entry point(s) 'x,y' for frontend f",
        "no entrypoint defined for frontend f",
    ];
    assert_eq!(messages(&world(), broken), expected);

    let mut broken = dynamic(&[("f", "Path:/", 0)]);
    let server = |broken: &mut Dynamic, url: &str, weight| {
        let backend = broken.backends.get_mut("b").expect("there");
        let server = backend.servers.get_mut("s").expect("there");
        (server.url, server.weight) = (url.to_owned(), weight);
    };
    server(&mut broken, "127.0.0.1:80", None);
    let expected = "error parsing server URL 127.0.0.1:80: first path segment in URL cannot contain colon. Skipping \
                    frontend f...";
    assert_eq!(messages(&world(), broken.clone()), [expected]);
    server(&mut broken, "http://a", Some(-1));
    assert_eq!(
        messages(&world(), broken),
        ["Weight should be >= 0. Skipping frontend f..."]
    );

    let mut guarded = dynamic(&[("f", "Path:/", 0)]);
    guarded
        .frontends
        .get_mut("f")
        .expect("there")
        .basic_auth
        .push("a".to_owned());
    let compiled = compiled(&world(), guarded);
    assert_eq!(
        (
            compiled.snapshots[0].frontends.len(),
            compiled.rejections.len()
        ),
        (0, 1)
    );
}
