//! A warm request allocates nothing on its core.
//!
//! Runs a core inside of this process, through the library, and counts what its thread asks of the allocator while
//! requests pass that are like those before them. Owns the allocator of the test binary, which hands everything on to the
//! system's and counts only while this test asks it to, and only on threads whose names begin with `core-`.

#![allow(
    unsafe_code,
    reason = "a global allocator is unsafe to implement; this one adds a counter to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use coreway::compile::{Memory, World, compile};
use coreway::config::{Dynamic, dynamic, dynamic_from_toml};
use coreway::control::hashing;
use coreway::mailbox::{Message, Report};
use coreway::proxy;
use coreway::reactor::{self, Choice};
use coreway::settings::{EntryPoint, Settings, Timeouts, Trust};

use super::auth::{digest_user, proof};
use crate::harness::{DEADLINE, Origin, answer};

/// Requests before counting: buffers, heads and connections find their size.
const WARM_UP: usize = 200;
const REQUESTS: usize = 300;
/// Times that they are counted, at most.
const TURNS: usize = 10;
/// Places of allocations that a failure shows.
const SHOWN: usize = 3;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static PLACES: Mutex<Vec<String>> = Mutex::new(Vec::new());

thread_local! {
    /// Whether what this thread allocates counts; `None` before anybody asked.
    static COUNTS: Cell<Option<bool>> = const { Cell::new(None) };
}

struct Counting;

// SAFETY: everything is handed on to `System` as it came; counting allocates only while it does not count.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

fn count() {
    if !COUNTING.load(Ordering::Relaxed) {
        return;
    }
    let _ = COUNTS.try_with(|counts| {
        // Nothing counts while this thread finds out its name, or where it is.
        let known = counts.replace(Some(false));
        let is_core = known.unwrap_or_else(|| {
            let current = thread::current();
            current.name().is_some_and(|name| name.starts_with("core-"))
        });
        if is_core {
            let before = ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
            if before < SHOWN as u64 {
                let place = Backtrace::force_capture().to_string();
                PLACES.lock().unwrap().push(place);
            }
        }
        counts.set(Some(is_core));
    });
}

/// What `work` makes cores allocate.
fn allocations(work: impl FnOnce()) -> u64 {
    ALLOCATIONS.store(0, Ordering::SeqCst);
    PLACES.lock().unwrap().clear();
    COUNTING.store(true, Ordering::SeqCst);
    work();
    COUNTING.store(false, Ordering::SeqCst);
    ALLOCATIONS.load(Ordering::SeqCst)
}

/// A core that serves a thousand hosts, a stripped prefix, frontends with steps, and everything else, before one server.
struct Proxy {
    launched: Option<proxy::Launched>,
}

impl Proxy {
    fn start(origin: &Origin) -> Self {
        let entry_point = |name: &str, compress| EntryPoint {
            name: name.to_owned(),
            address: "127.0.0.1:0".parse().unwrap(),
            forwarded_headers: Trust::Networks(Vec::new()),
            proxy_protocol: None,
            middlewares: Box::default(),
            compress,
            tls: None,
            internal: None,
            towards_servers: None,
        };
        let settings = Settings {
            entry_points: vec![entry_point("http", false), entry_point(COMPRESSING, true)],
            timeouts: Timeouts {
                read: None,
                write: None,
                idle: Some(Duration::from_secs(180)),
                dial: Some(Duration::from_secs(30)),
                response_header: None,
            },
            upstream_idle_max: 200,
            retry_attempts: None,
            retry_budget: None,
            held: Default::default(),
            descriptors_max: 1024,
            upstream_tls: Default::default(),
            flattens_hosts: false,
            host_name: "test".to_owned(),
            recent_errors: None,
        };
        let driver = reactor::probe(Choice::Auto).unwrap().driver;
        let cpu = reactor::cpus_allowed()[0];
        let (sender, reports) = crossbeam::channel::unbounded();
        let launched = proxy::launch(&settings, &[cpu], false, driver, &sender).unwrap();
        hashing::start(&launched.work, 1, || Ok(())).unwrap();
        let entry_points = vec!["http".to_owned(), COMPRESSING.to_owned()];
        let world = World {
            default_entry_points: entry_points.clone(),
            entry_points,
            cores: 1,
            ..World::default()
        };
        let providers = BTreeMap::from([("file".to_owned(), Arc::new(written(origin)))]);
        let compiled = compile(&providers, &world, &mut Memory::default());
        assert_eq!(compiled.rejections, []);
        for snapshot in compiled.snapshots {
            let message = Message::Snapshot(Box::new(snapshot));
            launched.cores[0].mailbox.send(message).unwrap();
        }
        while !matches!(
            reports.recv_timeout(DEADLINE).unwrap(),
            Report::Serving { generation: 1, .. }
        ) {}
        Self {
            launched: Some(launched),
        }
    }

    fn connect(&self, entry_point: usize) -> TcpStream {
        let launched = self.launched.as_ref().unwrap();
        let stream = TcpStream::connect(launched.addresses[entry_point]).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for core in self.launched.take().unwrap().cores {
            let _ = core.mailbox.send(Message::Stop);
            let _ = core.thread.join();
        }
    }
}

fn written(origin: &Origin) -> Dynamic {
    let server = dynamic::Server {
        url: origin.url(),
        ..dynamic::Server::default()
    };
    let backend = dynamic::Backend {
        servers: BTreeMap::from([("s".to_owned(), server)]),
        ..dynamic::Backend::default()
    };
    let sticky = dynamic::Backend {
        load_balancer: Some(dynamic::LoadBalancer {
            stickiness: Some(dynamic::Stickiness {
                cookie_name: "s".to_owned(),
                ..dynamic::Stickiness::default()
            }),
            ..dynamic::LoadBalancer::default()
        }),
        ..backend.clone()
    };
    let hosts = (0..1000).map(|at| format!("Host:service-{at}.example.com"));
    let others = [
        "PathPrefixStrip:/strip",
        "PathPrefix:/sticky",
        "PathPrefix:/",
    ];
    let others = others.map(str::to_owned);
    let frontends = hosts.chain(others).map(|rule| {
        let route = dynamic::Route {
            rule: rule.clone(),
            ..dynamic::Route::default()
        };
        let backend = if rule.ends_with("/sticky") { "s" } else { "b" };
        let frontend = dynamic::Frontend {
            backend: backend.to_owned(),
            routes: BTreeMap::from([("r".to_owned(), route)]),
            ..dynamic::Frontend::default()
        };
        (rule, frontend.into())
    });
    let (mut dynamic, _) = dynamic_from_toml("steps", &with_steps(origin)).unwrap();
    dynamic.frontends.extend(frontends);
    dynamic.backends.extend([
        ("b".to_owned(), backend.into()),
        ("s".to_owned(), sticky.into()),
    ]);
    dynamic
}

/// The entry point whose answers are compressed, and its index.
const COMPRESSING: &str = "compressing";
const COMPRESSING_AT: usize = 1;

/// Frontends with steps that let every request of the test pass: for each its path, its options, and what a request says.
const STEPS: [(&str, &str, &str); 9] = [
    (
        "white-list",
        "whiteList.sourceRange = ['10.0.0.0/8', '127.0.0.1']\nwhiteList.useXForwardedFor = true\n",
        "X-Forwarded-For: 192.0.2.1\r\n",
    ),
    (
        "redirect",
        "redirect = { regex = '^https://(.*)', replacement = 'http://$1' }\n",
        "",
    ),
    (
        "custom-fields",
        "headers.customRequestHeaders = { X-One = '1', X-Two = '' }\n\
         headers.customResponseHeaders = { X-One = '1', Content-Type = '' }\n",
        "X-Two: 2\r\nConnection: keep-alive, X-One\r\nX-One: 2\r\n",
    ),
    (
        "security",
        "headers = { allowedHosts = ['b', 'a'], STSSeconds = 31536000, forceSTSHeader = true, frameDeny = true, \
         contentTypeNosniff = true, contentSecurityPolicy = 'script-src $NONCE' }\n",
        "",
    ),
    (
        "basic",
        "auth = { headerField = 'X-User', basic.users = ['sha:{SHA}qvTGHdzF6KLavt4PO0gs2a6pQ00='], basic.removeHeader = true }\n",
        "Authorization: Basic c2hhOmhlbGxv\r\n",
    ),
    ("client-certificate", "passTLSClientCert.pem = true\n", ""),
    (
        "rate",
        "ratelimit.extractorFunc = 'client.ip'\n\
         ratelimit.rateSet.a = { period = '1s', average = 1000000, burst = 1000000 }\n",
        "",
    ),
    (
        "error-page",
        "errors.e = { status = ['500-599'], backend = 'guarded', query = '/{status}' }\n",
        "",
    ),
    ("guarded", "backend = 'guarded'\n", ""),
];

/// Those, one with digest authentication, and a backend with limits and a circuit breaker.
fn with_steps(origin: &Origin) -> String {
    let mut text = format!(
        "[backends.guarded]\nservers.s.url = '{}'\nmaxConn = {{ amount = 100, extractorFunc = 'client.ip' }}\n\
         circuitBreaker.expression = 'NetworkErrorRatio() > 0.5 || LatencyAtQuantileMS(50.0) > 5000'\n",
        origin.url()
    );
    let digest = format!("auth.digest.users = ['{}']\n", digest_user());
    let digest = ("digest", digest.as_str(), "");
    for (path, options, _) in STEPS.iter().chain([&digest]) {
        let backend = if options.starts_with("backend") {
            ""
        } else {
            "backend = 'b'\n"
        };
        text.push_str(&format!(
            "[frontends.{path}]\n{backend}priority = 1000\nroutes.r.rule = 'Path:/{path}'\n{options}"
        ));
    }
    text
}

/// Sends a request and reads the answer, so many times. The answers all end in the same way.
fn exchange(
    stream: &mut TcpStream,
    request: &mut dyn FnMut() -> String,
    expected: &str,
    times: usize,
) {
    let mut answer = Vec::with_capacity(64 * 1024);
    let mut piece = [0; 16 * 1024];
    for _ in 0..times {
        stream.write_all(request().as_bytes()).unwrap();
        answer.clear();
        while !answer.ends_with(expected.as_bytes()) {
            let count = match stream.read(&mut piece) {
                Ok(count) => count,
                // The probe's ring was this thread's: what is left of it may interrupt a wait.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("{error}"),
            };
            assert!(count > 0, "closed: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..count]);
        }
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    }
}

/// Requests that are always the same.
fn same(request: &str) -> Box<dyn FnMut() -> String> {
    let request = request.to_owned();
    Box::new(move || request.clone())
}

/// Requests of a client that has been given a challenge, each with a proof of its own.
fn proving(proxy: &Proxy) -> Box<dyn FnMut() -> String> {
    let mut stream = proxy.connect(0);
    let ask = "GET /digest HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(ask.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let mut count = 0;
    Box::new(move || {
        count += 1;
        let proof = proof(&answer, "secret", "/digest", count);
        format!("GET /digest HTTP/1.1\r\nHost: a\r\n{proof}\r\n")
    })
}

#[test]
fn a_warm_request_allocates_nothing() {
    const SHORT: &str = "short.end";
    let long = format!("{}end", "x".repeat(10_000));
    let told = long.clone();
    let origin = Origin::new(move |request| match request.head.start.as_str() {
        "GET /long HTTP/1.1" => answer(200, &told),
        _ => answer(200, SHORT),
    });
    let proxy = Proxy::start(&origin);
    let get =
        |path: &str, fields: &str| same(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    let cookie = format!("Cookie: a=1; s={}\r\n", origin.url());
    let post = "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let host = "GET / HTTP/1.1\r\nHost: service-777.example.com\r\n\r\n";
    let mut cases = vec![
        ("a small answer", 0, get("/small", ""), SHORT),
        ("a small body", 0, same(post), SHORT),
        ("10 KB", 0, get("/long", ""), long.as_str()),
        ("one of a thousand hosts", 0, same(host), SHORT),
        ("a stripped prefix", 0, get("/strip/a", ""), SHORT),
        ("a sticky client", 0, get("/sticky", &cookie), SHORT),
        (
            "a client that is told its server",
            0,
            get("/sticky", ""),
            SHORT,
        ),
        (
            "an answer too short to compress",
            COMPRESSING_AT,
            get("/small", "Accept-Encoding: gzip\r\n"),
            SHORT,
        ),
        ("digest authentication", 0, proving(&proxy), SHORT),
    ];
    for (path, _, fields) in STEPS {
        cases.push((path, 0, get(&format!("/{path}"), fields), SHORT));
    }
    for (case, entry_point, request, expected) in &mut cases {
        let mut stream = proxy.connect(*entry_point);
        exchange(&mut stream, request, expected, WARM_UP);
        // What a core starts every few seconds, such as looking after its pool, may fall into a turn: not into all.
        let mut turn = || allocations(|| exchange(&mut stream, request, expected, REQUESTS));
        let quiet = (0..TURNS).any(|_| turn() == 0);
        let places = PLACES.lock().unwrap().join("\n\n");
        assert!(
            quiet,
            "{case}: never {REQUESTS} requests without an allocation:\n{places}"
        );
    }
    let mut stream = proxy.connect(0);
    let count = allocations(|| exchange(&mut stream, &mut get("/small", ""), SHORT, 1));
    assert!(
        count > 0,
        "a new connection allocates: something is counted"
    );
}
