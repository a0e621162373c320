//! Pages about ourselves, asked of control by a core. Spec api-metrics-logs 1 to 3.
//!
//! Owns what each page says and the far ends of the sockets on which cores ask: HTTP/1.1, one request each. What is shown
//! is the newest [`View`], which control replaces with every configuration. Passwords and keys are never shown.
//! Never decides who may see a page, nor where: the cores did. Never blocks the control loop: a long page is made in pieces.
//! Read next: `frontend/internal.rs` (the paths), `listing.rs`, `health.rs`.
#![allow(
    clippy::disallowed_methods,
    reason = "control plane: it has no clock of a core"
)]

mod health;
mod listing;
mod shape;
mod text;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path as FilePath;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task;
use tracing::{debug, warn};

use crate::config::{self, Dynamic, version};
use crate::limits::{OWN_PAGE_PIECE_BYTES, REST_BODY_BYTES_MAX};
use crate::snapshot::internal::{Kind, Page as Path, Part, path_of};
use crate::telemetry::counter::Shard;
use crate::telemetry::recent::Recent;

use self::health::Health;
use self::listing::{Listing, Page};
use self::shape::Manner;
use self::text::Object;

/// The provider of what was put by HTTP, under the name that the reference gives it.
pub const REST: &str = "web";

/// The other name of it, which paths use.
const REST_IN_PATHS: &str = "rest";

/// What may be shown of a configuration.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub providers: BTreeMap<String, Arc<Dynamic>>,
    /// What was left out of it.
    pub rejections: Arc<[Rejection]>,
    pub generation: u64,
}

/// Something that is not served, or not as its writer may think.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// Nothing of it is served.
    pub is_error: bool,
    pub place: String,
    pub message: String,
}

/// A key-value store as `/api/stores` shows it.
#[derive(Clone, Debug)]
pub struct Store {
    pub provider: &'static str,
    /// The prefix of its keys.
    pub prefix: String,
    /// Up to where its tree is true; `None` if it was never read.
    pub index: Option<String>,
    pub keys: usize,
    /// When it last said that this is so.
    pub read_at: Option<SystemTime>,
    pub changed_at: Option<SystemTime>,
    pub error: Option<String>,
    pub failing_since: Option<SystemTime>,
    /// It came back without keys, and what was there before is served.
    pub is_doubted: bool,
}

/// Who leads the fleet, as this node can tell now.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Whether it is this node.
    pub leads: bool,
    /// The name of the last one that was elected; empty if the store cannot be asked.
    pub leader: String,
}

/// Asks who leads.
pub type AskLeader = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Standing> + Send>> + Send + Sync>;

/// What the pages are made from.
pub struct Sources {
    pub view: watch::Receiver<Arc<View>>,
    /// What providers cannot use of their sources at present.
    pub unread: Box<dyn Fn() -> Vec<Rejection> + Send + Sync>,
    /// The stores as they are now.
    pub stores: Box<dyn Fn() -> Vec<Store> + Send + Sync>,
    /// `None` without a store.
    pub leader: Option<AskLeader>,
    /// Who takes what is put.
    pub put: mpsc::Sender<Dynamic>,
    /// What stands before every path.
    pub prefix: String,
    pub default_entry_points: Arc<[String]>,
    pub shards: Vec<Arc<Shard>>,
    pub recent: Option<Arc<Recent>>,
    pub host_name: String,
}

/// Answers the cores.
struct Desk {
    sources: Sources,
    health: Health,
}

/// Answers who asks on these sockets, until nobody can ask any more.
pub async fn run(sources: Sources, mut asked: mpsc::UnboundedReceiver<OwnedFd>) {
    let health = Health::new(
        sources.shards.clone(),
        sources.recent.clone(),
        sources.host_name.clone(),
    );
    let desk = Arc::new(Desk { sources, health });
    let mut window = tokio::time::interval(health::WINDOW);
    loop {
        tokio::select! {
            socket = asked.recv() => match socket {
                Some(socket) => drop(tokio::spawn(serve(Arc::clone(&desk), socket))),
                None => return,
            },
            _ = window.tick() => desk.health.begin_window(),
        }
    }
}

/// One exchange.
async fn serve(desk: Arc<Desk>, socket: OwnedFd) {
    let stream = match UnixStream::from_std(StdStream::from(socket)) {
        Ok(stream) => stream,
        Err(error) => return warn!("A page about ourselves cannot be made: {error}"),
    };
    let service = service_fn(|request| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(desk.answer(request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .title_case_headers(true)
        .max_buf_size(2 * OWN_PAGE_PIECE_BYTES)
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!("A page about ourselves was not taken: {error}");
    }
}

impl Desk {
    async fn answer(&self, request: Request<Incoming>) -> Response<Page> {
        let target = request.uri().path_and_query();
        let target = target.map_or("/", |target| target.as_str()).to_owned();
        let path = path_of(target.as_bytes());
        let path = path.strip_prefix(self.sources.prefix.as_bytes());
        let method = request.method().as_str().to_owned();
        let page = path.and_then(|path| Path::parse(method.as_bytes(), path));
        match page {
            Some(Path::Configuration(part)) => self.configuration(part),
            Some(Path::Update(provider)) => self.update(&decoded(provider), request).await,
            Some(Path::Version) => json(|out| {
                Object::write(out, |object| {
                    object.text("Version", version::VERSION);
                    object.text("Codename", version::CODENAME);
                });
            }),
            Some(Path::Health) => json(|out| *out = self.health.page()),
            Some(Path::Rejections) => self.rejections(),
            Some(Path::Stores) => json(|out| self.stores(out)),
            Some(Path::Leader) => self.leader().await,
            Some(Path::Front) => to_dashboard(&self.sources.prefix, &request),
            Some(Path::Dashboard) if path == Some(b"/dashboard/status") => {
                to_dashboard(&self.sources.prefix, &request)
            }
            Some(Path::Dashboard) => told(
                StatusCode::NOT_IMPLEMENTED,
                "There is no dashboard here; what it would show is in /api and /health.\n",
            ),
            Some(Path::Variables) => json(variables),
            // A core answers it itself.
            Some(Path::Ping) | None => not_found(),
        }
    }

    fn configuration(&self, part: Part<'_>) -> Response<Page> {
        let view = Arc::clone(&self.sources.view.borrow());
        let listing = Listing::new(Arc::clone(&self.sources.default_entry_points));
        let provider = |name: &[u8]| {
            let name = decoded(name);
            let name = if name == REST_IN_PATHS { REST } else { &*name };
            view.providers.get(name).cloned()
        };
        let page = match part {
            Part::All => Some(listing.providers(view.providers.iter()).page()),
            Part::Provider(name) => provider(name).map(|found| listing.provider(&found).page()),
            Part::Set(name, kind) => provider(name).map(|found| listing.set(&found, kind).page()),
            Part::Item(name, kind, item) | Part::Members(name, kind, item) => provider(name)
                .and_then(|found| self.item(&found, kind, &decoded(item), part))
                .map(Page::whole),
            Part::Member(name, kind, item, member) => provider(name)
                .and_then(|found| member_of(&found, kind, &decoded(item), &decoded(member)))
                .map(Page::whole),
        };
        page.map_or_else(not_found, as_json)
    }

    /// A backend or frontend, or the map of its servers or routes.
    fn item(&self, found: &Dynamic, kind: Kind, name: &str, part: Part<'_>) -> Option<Vec<u8>> {
        let is_whole = matches!(part, Part::Item(..));
        let manner = Manner::Served(&self.sources.default_entry_points);
        let mut out = Vec::new();
        match kind {
            Kind::Backends => {
                let backend = found.backends.get(name)?;
                match is_whole {
                    true => Object::write(&mut out, |o| shape::backend(o, backend, manner)),
                    false => members(&mut out, &backend.servers, shape::server),
                }
            }
            Kind::Frontends => {
                let frontend = found.frontends.get(name)?;
                match is_whole {
                    true => Object::write(&mut out, |o| shape::frontend(o, frontend, manner)),
                    false => members(&mut out, &frontend.routes, shape::route),
                }
            }
        }
        Some(out)
    }

    fn rejections(&self) -> Response<Page> {
        let view = Arc::clone(&self.sources.view.borrow());
        json(|out| {
            let unread = (self.sources.unread)();
            let all = unread.iter().chain(view.rejections.iter());
            list(out, all, |object, rejection| {
                let severity = if rejection.is_error {
                    "error"
                } else {
                    "warning"
                };
                object.text("severity", severity);
                object.field("place", |out| text::string(out, &rejection.place));
                object.field("message", |out| text::string(out, &rejection.message));
            });
        })
    }

    /// 429 tells a balancer that another node is meant.
    async fn leader(&self) -> Response<Page> {
        let Some(ask) = &self.sources.leader else {
            return not_found();
        };
        let Standing { leads, leader } = ask().await;
        let mut answer = json(|out| {
            Object::write(out, |object| {
                object.any("leader", leads);
                object.field("leader_node", |out| text::string(out, &leader));
            });
        });
        if !leads {
            *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        }
        answer
    }

    fn stores(&self, out: &mut Vec<u8>) {
        let now = SystemTime::now();
        let stores = (self.sources.stores)();
        list(out, stores.iter(), |object, store| {
            object.text("provider", store.provider);
            object.field("prefix", |out| text::string(out, &store.prefix));
            match &store.index {
                Some(index) => object.text("index", index),
                None => object.any("index", "null"),
            }
            object.any("keys", store.keys);
            let age = store.read_at.and_then(|at| now.duration_since(at).ok());
            match age.as_ref().map(Duration::as_secs_f64) {
                Some(age) => object.any("age_sec", format_args!("{age:.3}")),
                None => object.any("age_sec", "null"),
            }
            let times = [
                ("read_at", store.read_at),
                ("changed_at", store.changed_at),
                ("failing_since", store.failing_since),
            ];
            for (name, at) in times {
                object.text(name, &at.map(health::rfc3339).unwrap_or_default());
            }
            object.text("error", store.error.as_deref().unwrap_or_default());
            object.any("is_doubted", store.is_doubted);
        });
    }

    /// Takes a whole configuration for the provider of what is put.
    async fn update(&self, provider: &str, request: Request<Incoming>) -> Response<Page> {
        match provider {
            REST_IN_PATHS => {}
            REST => warn!("The provider is called rest: PUT /api/providers/web is deprecated"),
            _ => {
                let text = "Only 'rest' provider can be updated through the REST API";
                return told(StatusCode::BAD_REQUEST, text);
            }
        }
        let too_long = || told(StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large");
        if request.body().size_hint().lower() > REST_BODY_BYTES_MAX as u64 {
            return too_long();
        }
        let body = Limited::new(request.into_body(), REST_BODY_BYTES_MAX);
        let text = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                return too_long();
            }
            Err(error) => return told(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        // Megabytes of JSON must not hold the control loop.
        let read =
            task::spawn_blocking(move || config::dynamic_from_json(REST_IN_PATHS, &text)).await;
        let dynamic = match read {
            Ok(Ok(Some(dynamic))) => dynamic,
            Ok(Ok(None)) => {
                debug!("Skipping empty Configuration for provider {REST_IN_PATHS}");
                return as_json(Page::whole("{}"));
            }
            // What is wrong with the text as a whole is said as in the reference.
            Ok(Err(error)) if error.path.is_empty() => {
                return told(StatusCode::BAD_REQUEST, &error.message);
            }
            Ok(Err(error)) => return told(StatusCode::BAD_REQUEST, &error.to_string()),
            Err(error) => {
                return told(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string());
            }
        };
        let answer = json(|out| {
            Object::write(out, |object| {
                shape::dynamic(object, &dynamic, Manner::Written)
            });
        });
        match self.sources.put.send(dynamic).await {
            Ok(()) => answer,
            Err(_) => told(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
        }
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

fn members<T>(out: &mut Vec<u8>, items: &BTreeMap<String, T>, fill: impl Fn(&mut Object<'_>, &T)) {
    Object::write(out, |object| {
        for (name, item) in items {
            object.field(name, |out| Object::write(out, |object| fill(object, item)));
        }
    });
}

fn member_of(found: &Dynamic, kind: Kind, item: &str, member: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match kind {
        Kind::Backends => {
            let server = found.backends.get(item)?.servers.get(member)?;
            Object::write(&mut out, |object| shape::server(object, server));
        }
        Kind::Frontends => {
            let route = found.frontends.get(item)?.routes.get(member)?;
            Object::write(&mut out, |object| shape::route(object, route));
        }
    }
    Some(out)
}

fn list<T>(out: &mut Vec<u8>, items: impl Iterator<Item = T>, fill: impl Fn(&mut Object<'_>, T)) {
    out.push(b'[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        Object::write(out, |object| fill(object, item));
    }
    out.push(b']');
}

/// Counters of the process, in place of those of Go's runtime.
fn variables(out: &mut Vec<u8>) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let word = line.and_then(|line| line.split_whitespace().next());
        word.and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    // Flags may hold secrets.
    let program = std::env::args_os().next().unwrap_or_default();
    let program = FilePath::new(&program).file_name().unwrap_or_default();
    Object::write(out, |object| {
        object.any("Goroutines", value("Threads:"));
        object.field("cmdline", |out| {
            out.push(b'[');
            text::string(out, &program.to_string_lossy());
            out.push(b']');
        });
        object.field("memstats", |out| {
            Object::write(out, |object| {
                object.any("Sys", value("VmSize:") * 1024);
                object.any("HeapInuse", value("VmRSS:") * 1024);
            });
        });
    });
}

/// A name in a path, as its writer meant it.
fn decoded(name: &[u8]) -> Cow<'_, str> {
    if !name.contains(&b'%') {
        return String::from_utf8_lossy(name);
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.extend(u8::try_from(high * 16 + low));
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

/// The way to the dashboard, below the path that a proxy before us has taken away.
fn to_dashboard(prefix: &str, request: &Request<Incoming>) -> Response<Page> {
    let said = request.headers().get("X-Forwarded-Prefix");
    let said = said
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    // A host would lead elsewhere.
    let is_path = said.starts_with('/') && !said.starts_with("//") && !said.contains('\\');
    let before = if is_path {
        said.trim_end_matches('/')
    } else {
        ""
    };
    let location = format!("{before}{prefix}/dashboard/");
    let mut body = Vec::new();
    body.extend_from_slice(b"<a href=\"");
    for character in location.chars() {
        match character {
            '&' => body.extend_from_slice(b"&amp;"),
            '<' => body.extend_from_slice(b"&lt;"),
            '>' => body.extend_from_slice(b"&gt;"),
            '"' => body.extend_from_slice(b"&#34;"),
            '\'' => body.extend_from_slice(b"&#39;"),
            _ => body.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    body.extend_from_slice(b"\">Found</a>.\n\n");
    let mut answer = Response::new(Page::whole(body));
    *answer.status_mut() = StatusCode::FOUND;
    let fields = answer.headers_mut();
    fields.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    if let Ok(location) = HeaderValue::from_str(&location) {
        fields.insert(header::LOCATION, location);
    }
    answer
}

fn json(write: impl FnOnce(&mut Vec<u8>)) -> Response<Page> {
    let mut out = Vec::new();
    write(&mut out);
    as_json(Page::whole(out))
}

fn as_json(page: Page) -> Response<Page> {
    let mut answer = Response::new(page);
    let kind = HeaderValue::from_static("application/json; charset=UTF-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

fn told(status: StatusCode, text: &str) -> Response<Page> {
    let mut answer = Response::new(Page::whole(text.to_owned()));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

fn not_found() -> Response<Page> {
    let mut answer = told(StatusCode::NOT_FOUND, "404 page not found\n");
    let nosniff = HeaderValue::from_static("nosniff");
    answer
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    answer
}
