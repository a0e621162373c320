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
use coreway::config::{Dynamic, dynamic};
use coreway::mailbox::{Message, Report};
use coreway::proxy;
use coreway::reactor::{self, Choice};
use coreway::settings::{EntryPoint, Settings, Timeouts, Trust};

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

/// A core that serves a thousand hosts, a stripped prefix and everything else, before one server.
struct Proxy {
    launched: Option<proxy::Launched>,
}

impl Proxy {
    fn start(origin: &Origin) -> Self {
        let settings = Settings {
            entry_points: vec![EntryPoint {
                name: "http".to_owned(),
                address: "127.0.0.1:0".parse().unwrap(),
                forwarded_headers: Trust::Networks(Vec::new()),
                proxy_protocol: None,
                middlewares: Box::default(),
                compress: false,
                tls: None,
            }],
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
            descriptors_max: 1024,
            upstream_tls: Default::default(),
            host_name: "test".to_owned(),
        };
        let driver = reactor::probe(Choice::Auto).unwrap().driver;
        let cpu = reactor::cpus_allowed()[0];
        let (sender, reports) = crossbeam::channel::unbounded();
        let launched = proxy::launch(&settings, &[cpu], false, driver, &sender).unwrap();
        let world = World {
            entry_points: vec!["http".to_owned()],
            default_entry_points: vec!["http".to_owned()],
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

    fn connect(&self) -> TcpStream {
        let launched = self.launched.as_ref().unwrap();
        let stream = TcpStream::connect(launched.addresses[0]).unwrap();
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
        (rule, frontend)
    });
    Dynamic {
        frontends: frontends.collect(),
        backends: BTreeMap::from([("b".to_owned(), backend), ("s".to_owned(), sticky)]),
        ..Dynamic::default()
    }
}

/// Sends `request` and reads the answer, so many times. The answers are all as long as the first.
fn exchange(stream: &mut TcpStream, request: &str, expected: &str, times: usize) {
    let mut answer = Vec::with_capacity(64 * 1024);
    let mut piece = [0; 16 * 1024];
    for _ in 0..times {
        stream.write_all(request.as_bytes()).unwrap();
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
        assert!(answer.starts_with(b"HTTP/1.1 200 "));
    }
}

#[test]
fn a_warm_request_allocates_nothing() {
    let long = format!("{}end", "x".repeat(10_000));
    let told = long.clone();
    let origin = Origin::new(move |request| match request.head.start.as_str() {
        "GET /long HTTP/1.1" => answer(200, &told),
        _ => answer(200, "short.end"),
    });
    let proxy = Proxy::start(&origin);
    let with_cookie = format!(
        "GET /sticky HTTP/1.1\r\nHost: a\r\nCookie: a=1; s={}\r\n\r\n",
        origin.url()
    );
    let cases = [
        (
            "a small answer",
            "GET /small HTTP/1.1\r\nHost: a\r\n\r\n",
            "short.end",
        ),
        (
            "a small body",
            "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            "short.end",
        ),
        (
            "10 KB",
            "GET /long HTTP/1.1\r\nHost: a\r\n\r\n",
            long.as_str(),
        ),
        (
            "one of a thousand hosts",
            "GET / HTTP/1.1\r\nHost: service-777.example.com\r\n\r\n",
            "short.end",
        ),
        (
            "a stripped prefix",
            "GET /strip/a HTTP/1.1\r\nHost: a\r\n\r\n",
            "short.end",
        ),
        ("a sticky client", &with_cookie, "short.end"),
        (
            "a client that is told its server",
            "GET /sticky HTTP/1.1\r\nHost: a\r\n\r\n",
            "short.end",
        ),
    ];
    for (case, request, expected) in cases {
        let mut stream = proxy.connect();
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
    let mut stream = proxy.connect();
    let count = allocations(|| exchange(&mut stream, cases[0].1, cases[0].2, 1));
    assert!(
        count > 0,
        "a new connection allocates: something is counted"
    );
}
