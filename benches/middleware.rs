//! What does each step of a frontend cost when the request passes?

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use coreway::backend::breaker::Seen;
use coreway::compile::{Memory, Target, World, compile};
use coreway::config::dynamic_from_toml;
use coreway::frontend::Scratch;
use coreway::frontend::middleware::auth::basic::Judgement;
use coreway::frontend::middleware::auth::verdicts::Verdicts;
use coreway::frontend::middleware::{
    Context, Middleware, Verdict, compress, on_answer, on_request,
};
use coreway::http::Head;
use coreway::http::body::Framing;
use coreway::snapshot::Snapshot;
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use md5::{Digest, Md5};

/// One frontend with these options.
fn snapshot(options: &str) -> Snapshot {
    let text = format!(
        "[backends.b.maxConn]\namount = 100\nextractorFunc = 'client.ip'\n[frontends.f]\nbackend = 'b'\n{options}"
    );
    let (dynamic, _) = dynamic_from_toml("bench", &text).expect("valid");
    let target = Target {
        is_tls: true,
        port: 443,
    };
    let world = World {
        entry_points: vec!["http".to_owned()],
        default_entry_points: vec!["http".to_owned()],
        targets: BTreeMap::from([("http".to_owned(), target)]),
        ..World::default()
    };
    let providers = BTreeMap::from([("file".to_owned(), Arc::new(dynamic))]);
    let mut compiled = compile(&providers, &world, &mut Memory::default());
    assert!(compiled.rejections.is_empty(), "{:?}", compiled.rejections);
    compiled.snapshots.remove(0)
}

fn head() -> Head {
    let mut head = Head::default();
    head.set_method(b"GET");
    head.set_authority(b"www.example.org");
    head.set_target(b"/some/path?query=1");
    for (name, value) in [
        ("Host", "www.example.org"),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("Accept", "*/*"),
        ("Accept-Encoding", "gzip, deflate, br"),
        ("X-Forwarded-Proto", "https"),
    ] {
        head.push(name.as_bytes(), value.as_bytes());
    }
    head
}

fn networks(count: usize) -> String {
    let list: Vec<String> = (0..count)
        .map(|at| format!("'10.{}.{}.0/25'", at / 256, at % 256))
        .collect();
    format!("whiteList.sourceRange = ['192.0.2.7', {}]", list.join(", "))
}

fn benches(criterion: &mut Criterion) {
    let peer: IpAddr = "192.0.2.7".parse().expect("an address");
    let context = Context {
        entry_point: 0,
        peer,
        is_trusted: true,
        is_tls: false,
    };
    let custom = "[frontends.f.headers.customRequestHeaders]\nX-One = '1'\nX-Two = ''\n\
                  [frontends.f.headers.customResponseHeaders]\nX-Three = '3'\nServer = ''\n";
    let security = "[frontends.f.headers]\nallowedHosts = ['a.test', 'www.example.org']\nSSLRedirect = true\n\
                    STSSeconds = 100\nforceSTSHeader = true\nframeDeny = true\ncontentTypeNosniff = true\n\
                    [frontends.f.headers.SSLProxyHeaders]\nX-Forwarded-Proto = 'https'\n";
    let cases = [
        ("none", String::new()),
        ("white_list/1", networks(1)),
        ("white_list/10000", networks(10_000)),
        (
            "redirect/entry_point",
            "redirect.entryPoint = 'http'".to_owned(),
        ),
        (
            "redirect/regex",
            "redirect.regex = '^http://(.*)'\nredirect.replacement = 'https://$1'".to_owned(),
        ),
        ("headers/custom", custom.to_owned()),
        ("headers/security", security.to_owned()),
    ];
    let mut requests = criterion.benchmark_group("middleware/request");
    for (name, options) in &cases {
        let snapshot = snapshot(options);
        let steps = &snapshot.frontends[0].middlewares;
        let mut scratch = Scratch::default();
        requests.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_batched_ref(
                head,
                |head| black_box(on_request(steps, head, context, &mut scratch)),
                BatchSize::SmallInput,
            );
        });
    }
    requests.finish();

    let nonce = "headers.contentSecurityPolicy = \"script-src $NONCE\"".to_owned();
    let mut answers = criterion.benchmark_group("middleware/answer");
    for (name, options) in cases.iter().chain([&("headers/nonce", nonce)]) {
        let snapshot = snapshot(options);
        let steps = &snapshot.frontends[0].middlewares;
        let request = head();
        let mut scratch = Scratch::default();
        answers.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_batched_ref(
                head,
                |answer| {
                    on_answer(steps, &request, answer, context, &mut scratch, &mut || {
                        black_box([7; 16])
                    })
                },
                BatchSize::SmallInput,
            );
        });
    }
    answers.finish();

    // A user whose password is remembered, and one with a new proof each time.
    let remembered = snapshot(
        "auth.headerField = 'X-User'\nauth.basic.users = ['test:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/']",
    );
    let Some(Middleware::Basic(basic)) = remembered.frontends[0].middlewares.first() else {
        panic!("the only step");
    };
    let with = |authorization: &str| {
        let mut head = head();
        head.push(b"Authorization", authorization.as_bytes());
        head
    };
    let mut verdicts = Verdicts::new([7; 16]);
    if let Judgement::Hash(question) =
        basic.on_request(&mut with("Basic dGVzdDp0ZXN0"), &mut verdicts)
    {
        verdicts.remember(question.key, question.answer());
    }
    let mut auth = criterion.benchmark_group("middleware/auth");
    auth.bench_function("basic/remembered", |bencher| {
        bencher.iter_batched_ref(
            || with("Basic dGVzdDp0ZXN0"),
            |head| {
                assert!(matches!(
                    basic.on_request(head, &mut verdicts),
                    Judgement::Pass
                ))
            },
            BatchSize::SmallInput,
        );
    });
    let proven = snapshot(&format!(
        "auth.digest.users = ['test:traefik:{}']",
        md5("test:traefik:secret")
    ));
    let steps = &proven.frontends[0].middlewares;
    let Verdict::Answer(challenge) =
        on_request(steps, &mut head(), context, &mut Scratch::default())
    else {
        panic!("nobody passes without a proof");
    };
    let challenge = String::from_utf8(challenge.fields[0].1.clone()).expect("text");
    let mut count = 0;
    auth.bench_function("digest/passes", |bencher| {
        bencher.iter_batched_ref(
            || {
                count += 1;
                with(&proof(&challenge, count))
            },
            |head| {
                let verdict = on_request(steps, head, context, &mut Scratch::default());
                assert!(matches!(verdict, Verdict::Pass));
            },
            BatchSize::SmallInput,
        );
    });
    // What it does itself when it passes: the question. The rest is an exchange with the other server.
    let asked = snapshot("auth.forward.address = 'http://127.0.0.1:1/'");
    let Some(Middleware::Forward(forward)) = asked.frontends[0].middlewares.first() else {
        panic!("the only step");
    };
    let mut out = Vec::with_capacity(4096);
    auth.bench_function("forward/question", |bencher| {
        let head = head();
        bencher.iter(|| {
            out.clear();
            forward.question(black_box(&head), context, "192.0.2.7", &mut out);
        });
    });
    auth.finish();

    let limited = snapshot(
        "[frontends.f.ratelimit]\nextractorFunc = 'client.ip'\n\
         [frontends.f.ratelimit.rateSet.a]\nperiod = '1s'\naverage = 1000000\nburst = 1000000\n",
    );
    let request = head();
    let mut limits = criterion.benchmark_group("middleware/limit");
    let rates = limited.frontends[0].rate_limit.as_ref().expect("written");
    let mut now = 1 << 50;
    limits.bench_function("rate", |bencher| {
        bencher.iter(|| {
            now += 2_000;
            black_box(rates.take(&request, peer, now))
        });
    });
    let connections = limited.backends[0].max_conn.as_ref().expect("written");
    limits.bench_function("max_conn", |bencher| {
        bencher.iter(|| drop(black_box(connections.enter(&request, peer))));
    });
    let guarded = snapshot(
        "[backends.b.circuitBreaker]\nexpression = 'NetworkErrorRatio() > 0.5 || LatencyAtQuantileMS(50.0) > 100'\n",
    );
    let breaker = guarded.backends[0].breaker.as_ref().expect("written");
    limits.bench_function("circuit_breaker", |bencher| {
        bencher.iter(|| {
            now += 2_000;
            assert!(breaker.admit(now).passes);
            let seen = Seen {
                status: 200,
                milliseconds: Some(1),
            };
            black_box(breaker.record(0, seen, now))
        });
    });
    limits.finish();

    let mut others = criterion.benchmark_group("middleware/other");
    let answer = head();
    others.bench_function("compress/decision", |bencher| {
        bencher.iter(|| {
            black_box(compress::is_accepted(black_box(&request)))
                && compress::is_worth_it(black_box(&answer), Framing::Length(10_000), b"")
        });
    });
    let pages =
        snapshot("errors.e = { status = ['404', '500-599'], backend = 'c' }\n[backends.c]\n");
    others.bench_function("error_page/none", |bencher| {
        bencher.iter(|| {
            black_box(&pages.frontends[0])
                .page_for(black_box(200))
                .is_none()
        });
    });
    others.bench_function("connection/obeyed", |bencher| {
        bencher.iter_batched_ref(
            || {
                let mut head = head();
                head.push(b"Connection", b"keep-alive, X-One");
                head
            },
            |head| {
                head.obey_connection();
                head.remove_hop_by_hop();
            },
            BatchSize::SmallInput,
        );
    });
    others.finish();
}

fn md5(text: &str) -> String {
    let digest = Md5::digest(text);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a client answers to a challenge.
fn proof(challenge: &str, count: usize) -> String {
    let part = |name: &str| {
        let rest = challenge.split_once(&format!("{name}=\"")).expect(name).1;
        rest.split_once('"').expect("an end").0
    };
    let (nonce, opaque) = (part("nonce"), part("opaque"));
    let (user, request) = (md5("test:traefik:secret"), md5("GET:/some/path?query=1"));
    let response = md5(&format!("{user}:{nonce}:{count:08x}:c:auth:{request}"));
    format!(
        "Digest username=\"test\", realm=\"traefik\", nonce=\"{nonce}\", uri=\"/some/path?query=1\", \
         response=\"{response}\", opaque=\"{opaque}\", algorithm=MD5, qop=auth, nc={count:08x}, cnonce=\"c\""
    )
}

criterion_group!(middlewares, benches);
criterion_main!(middlewares);
