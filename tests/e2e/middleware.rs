//! The steps of a frontend together: their order, and what becomes of one that was written wrongly.

use crate::harness::{Coreway, Origin, Response, backend, eventually, site};

/// Has every step that can stop a request. Each lets those through that say the right thing, so each can be peeled off.
const STEPS: &str = "whiteList = { sourceRange = ['192.0.2.0/24'], useXForwardedFor = true }
    redirect = { regex = '^http://test/old$', replacement = 'http://test/new' }
    auth.basic.users = ['sha:{SHA}qvTGHdzF6KLavt4PO0gs2a6pQ00=']
    passTLSClientCert.pem = true
    ratelimit.extractorFunc = 'client.ip'
    ratelimit.rateSet.a = { period = '1h', average = 1, burst = 1 }
    [frontends.f.headers]
    SSLRedirect = true
    SSLProxyHeaders = { X-Proto = 'https' }
    customRequestHeaders = { X-Proto = '', X-Own = '1' }
    customResponseHeaders = { X-Answer = '1' }
";

const LISTED: &str = "X-Forwarded-For: 192.0.2.1\r\n";
const KNOWN: &str = "Authorization: Basic c2hhOmhlbGxv\r\n";

fn ask(coreway: &Coreway, path: &str, fields: &[&str]) -> Response {
    let fields = fields.concat();
    coreway.exchange(format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\n{fields}Connection: close\r\n\r\n"
    ))
}

#[test]
fn steps_stop_a_request_in_their_order() {
    let origin = Origin::text("in");
    let coreway = Coreway::serve(&(site(&origin) + STEPS));
    let status = |path, fields: &[&str]| {
        let response = ask(&coreway, path, fields);
        assert_eq!(response.field("X-Answer"), None, "{path} {fields:?}");
        response.status
    };
    assert_eq!(status("/old", &[]), 403, "the white list first");
    assert_eq!(status("/old", &[LISTED]), 302, "then the redirect");
    // Custom fields are set before the security options look: the client's own claim of TLS is gone.
    assert_eq!(status("/", &[LISTED, "X-Proto: https\r\n"]), 301);
    assert!(origin.requests().is_empty());

    let secure = STEPS.replace("X-Proto = ''", "X-Proto = 'https'");
    coreway.reload(&(site(&origin) + &secure));
    assert_eq!(status("/", &[LISTED]), 401, "then who it is");
    // Whom nobody knows takes no token.
    let response = ask(&coreway, "/", &[LISTED, KNOWN]);
    assert_eq!(
        (response.status, response.field("X-Answer")),
        (200, Some("1"))
    );
    assert_eq!(status("/", &[LISTED, KNOWN]), 429, "then how often");
    assert_eq!(status("/", &[LISTED]), 401);
    assert_eq!(status("/", &[KNOWN]), 403);
    let seen = origin.requests();
    assert_eq!((seen.len(), seen[0].field("X-Own")), (1, Some("1")));
}

#[test]
fn a_wrong_value_is_one_message_and_one_frontend_less() {
    let origin = Origin::text("in");
    let rules = |options: &str| {
        format!(
            "{}[frontends.good]\nbackend = 'b'\nroutes.r.rule = 'Path:/good'\n[frontends.wrong]\nbackend = 'b'\n{options}\n",
            backend("b", &origin)
        )
    };
    let coreway = Coreway::serve(&rules(""));
    assert_eq!(coreway.get("/").status, 200);
    let told = || {
        let log = coreway.log();
        let lines = log
            .lines()
            .filter(|line| line.contains("Skipping frontend wrong..."));
        lines
            .map(|line| line.replace("\\\"", "\""))
            .collect::<Vec<_>>()
    };
    for (at, (options, why)) in [
        (
            "whiteList.sourceRange = ['10.0.0.0/33']",
            "whiteList: \"10.0.0.0/33\"",
        ),
        ("whitelistSourceRange = ['x']", "whiteList: \"x\""),
        (
            "redirect.entryPoint = 'nowhere'",
            "there is no entry point 'nowhere'",
        ),
        ("redirect.regex = '('", "bad regular expression"),
    ]
    .into_iter()
    .enumerate()
    {
        coreway.reload(&rules(options));
        assert_eq!(coreway.get("/").status, 404, "{options}");
        assert_eq!(coreway.get("/good").status, 200, "{options}");
        eventually(&format!("it says so: {options}"), || told().len() > at);
        let told = told();
        assert_eq!(told.len(), at + 1, "one message: {options}: {told:?}");
        assert!(told[at].contains(why), "{options}: {}", told[at]);
        assert!(told[at].contains("rules.toml:"), "its place: {}", told[at]);
    }
}
