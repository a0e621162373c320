//! Pages about ourselves: which requests of an entry point ask for one, before any frontend is looked for.
//!
//! Owns the paths and methods of spec api-metrics-logs 1 to 4: both who recognises a request (a core) and who makes the
//! page (`api/`) read them here. Never makes a page, and never decides who may see one: that is for the steps in
//! [`Internal`].
//! Read next: `proxy/exchange.rs` (where a request is recognised), `api/mod.rs` (what is answered).

use super::middleware::Middleware;

/// The pages of one entry point.
#[derive(Clone, Debug)]
pub struct Internal {
    /// What stands before every path, without a slash at its end.
    pub prefix: Box<str>,
    pub serves: Serves,
    /// `keepTrailingSlash`: a path that differs by its last slash is another path, instead of a 301.
    pub keep_trailing_slash: bool,
    /// Steps before every page but `/ping`: the white list, then authentication.
    pub middlewares: Box<[Middleware]>,
}

/// Which sections of the static configuration chose this entry point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Serves {
    pub ping: bool,
    pub api: bool,
    /// Beside the API.
    pub dashboard: bool,
    /// Beside the API.
    pub debug: bool,
    /// Beside the API, in cluster mode.
    pub cluster: bool,
    pub rest: bool,
}

impl Serves {
    /// Some page is served.
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// A page. Names are as in the path: escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page<'p> {
    Ping,
    /// What the providers say, or a part of it.
    Configuration(Part<'p>),
    /// A whole configuration for the provider of this name.
    Update(&'p [u8]),
    Version,
    Health,
    Rejections,
    Stores,
    /// Who leads the fleet.
    Leader,
    /// The way to the dashboard.
    Front,
    Dashboard,
    Variables,
}

/// A part of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'p> {
    All,
    Provider(&'p [u8]),
    /// All backends or frontends of a provider.
    Set(&'p [u8], Kind),
    /// One of them.
    Item(&'p [u8], Kind, &'p [u8]),
    /// All servers of a backend, or routes of a frontend.
    Members(&'p [u8], Kind, &'p [u8]),
    /// One of them.
    Member(&'p [u8], Kind, &'p [u8], &'p [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Backends,
    Frontends,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// `/ping`, which everybody may see.
    Ping,
    /// A page for those whom the steps let pass.
    Guarded,
    /// The path without its last slash: 301.
    Moved,
}

impl Internal {
    /// Whether a request is for us. `None`: it goes on to the frontends.
    #[inline]
    pub fn find(&self, method: &[u8], target: &[u8]) -> Option<Found> {
        let path = path_of(target).strip_prefix(self.prefix.as_bytes())?;
        if let Some(page) = self.page(method, path) {
            return Some(match page {
                Page::Ping => Found::Ping,
                _ => Found::Guarded,
            });
        }
        let is_moved = !self.keep_trailing_slash
            && self
                .page(
                    method,
                    path.strip_suffix(b"/").filter(|path| !path.is_empty())?,
                )
                .is_some();
        is_moved.then_some(Found::Moved)
    }

    fn page<'p>(&self, method: &[u8], path: &'p [u8]) -> Option<Page<'p>> {
        let page = Page::parse(method, path)?;
        let Serves {
            ping,
            api,
            dashboard,
            debug,
            cluster,
            rest,
        } = self.serves;
        let is_served = match page {
            Page::Ping => ping,
            Page::Update(_) => rest,
            Page::Front | Page::Dashboard => api && dashboard,
            Page::Variables => api && debug,
            Page::Leader => api && cluster,
            Page::Configuration(_)
            | Page::Version
            | Page::Health
            | Page::Rejections
            | Page::Stores => api,
        };
        is_served.then_some(page)
    }

    /// Where a request that has [`Found::Moved`] is sent.
    pub fn location(target: &[u8]) -> Vec<u8> {
        let path = path_of(target);
        let query = &target[path.len()..];
        [path.strip_suffix(b"/").unwrap_or(path), query].concat()
    }
}

impl<'p> Page<'p> {
    /// The page of a path, which is without prefix and query.
    pub fn parse(method: &[u8], path: &'p [u8]) -> Option<Self> {
        let mut steps = path.strip_prefix(b"/")?.split(|byte| *byte == b'/');
        let first = steps.next()?;
        match (method, first) {
            (b"GET" | b"HEAD", b"ping") => steps.next().is_none().then_some(Self::Ping),
            (b"GET", b"") => steps.next().is_none().then_some(Self::Front),
            (b"GET", b"health") => steps.next().is_none().then_some(Self::Health),
            (b"GET", b"dashboard") => steps.next().map(|_| Self::Dashboard),
            (b"GET", b"debug") => {
                (steps.next()? == b"vars" && steps.next().is_none()).then_some(Self::Variables)
            }
            (b"GET", b"api") => Self::api(steps),
            (b"PUT", b"api") => {
                let (below, provider) = (steps.next()?, named(steps.next())?);
                (below == b"providers" && steps.next().is_none()).then_some(Self::Update(provider))
            }
            _ => None,
        }
    }

    fn api(mut steps: impl Iterator<Item = &'p [u8]>) -> Option<Self> {
        let Some(section) = steps.next() else {
            return Some(Self::Configuration(Part::All));
        };
        let single = match section {
            b"version" => Self::Version,
            b"rejections" => Self::Rejections,
            b"stores" => Self::Stores,
            b"cluster" => {
                return (steps.next()? == b"leader" && steps.next().is_none())
                    .then_some(Self::Leader);
            }
            b"providers" => return Part::parse(steps).map(Self::Configuration),
            _ => return None,
        };
        steps.next().is_none().then_some(single)
    }
}

impl<'p> Part<'p> {
    fn parse(mut steps: impl Iterator<Item = &'p [u8]>) -> Option<Self> {
        let Some(provider) = steps.next() else {
            return Some(Self::All);
        };
        let provider = named(Some(provider))?;
        let kind = match steps.next() {
            None => return Some(Self::Provider(provider)),
            Some(b"backends") => Kind::Backends,
            Some(b"frontends") => Kind::Frontends,
            Some(_) => return None,
        };
        let Some(item) = steps.next() else {
            return Some(Self::Set(provider, kind));
        };
        let item = named(Some(item))?;
        match (kind, steps.next()) {
            (_, None) => return Some(Self::Item(provider, kind, item)),
            (Kind::Backends, Some(b"servers")) | (Kind::Frontends, Some(b"routes")) => {}
            (_, Some(_)) => return None,
        }
        let Some(member) = steps.next() else {
            return Some(Self::Members(provider, kind, item));
        };
        let member = named(Some(member))?;
        let is_last = steps.next().is_none();
        is_last.then_some(Self::Member(provider, kind, item, member))
    }
}

/// A step that is a name: an empty one is none.
fn named(step: Option<&[u8]>) -> Option<&[u8]> {
    step.filter(|name| !name.is_empty())
}

/// A target without its query.
pub fn path_of(target: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'?', target).unwrap_or(target.len());
    &target[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str, expected: Option<Page<'_>>) {
        let found = Page::parse(method.as_bytes(), path.as_bytes());
        assert_eq!(found, expected, "{method} {path}");
    }

    #[test]
    fn paths_are_pages() {
        use Kind::{Backends, Frontends};
        let of = |part| Some(Page::Configuration(part));
        check("GET", "/ping", Some(Page::Ping));
        check("HEAD", "/ping", Some(Page::Ping));
        check("POST", "/ping", None);
        check("GET", "/ping/", None);
        check("GET", "/pin", None);
        check("GET", "/", Some(Page::Front));
        check("GET", "//", None);
        check("GET", "/health", Some(Page::Health));
        check("GET", "/health/x", None);
        check("GET", "/dashboard", None);
        check("GET", "/dashboard/", Some(Page::Dashboard));
        check("GET", "/dashboard/a/b.js", Some(Page::Dashboard));
        check("GET", "/debug/vars", Some(Page::Variables));
        check("GET", "/debug/pprof/", None);
        check("GET", "/api", of(Part::All));
        check("HEAD", "/api", None);
        check("GET", "/api/providers", of(Part::All));
        check("GET", "/api/providers/", None);
        check("GET", "/api/version", Some(Page::Version));
        check("GET", "/api/rejections", Some(Page::Rejections));
        check("GET", "/api/stores", Some(Page::Stores));
        check("GET", "/api/cluster/leader", Some(Page::Leader));
        check("GET", "/api/cluster", None);
        check("GET", "/api/other", None);
        check("GET", "/api/providers/file", of(Part::Provider(b"file")));
        check("GET", "/api/providers/file/tls", None);
        check(
            "GET",
            "/api/providers/file/backends",
            of(Part::Set(b"file", Backends)),
        );
        check(
            "GET",
            "/api/providers/file/frontends/f",
            of(Part::Item(b"file", Frontends, b"f")),
        );
        check("GET", "/api/providers/file/frontends/f/servers", None);
        check(
            "GET",
            "/api/providers/file/backends/b/servers",
            of(Part::Members(b"file", Backends, b"b")),
        );
        check(
            "GET",
            "/api/providers/file/backends/b/servers/s",
            of(Part::Member(b"file", Backends, b"b", b"s")),
        );
        check("GET", "/api/providers/file/backends/b/servers/s/x", None);
        check("PUT", "/api/providers/rest", Some(Page::Update(b"rest")));
        check("PUT", "/api/providers", None);
        check("PUT", "/api/providers/rest/backends", None);
        check("DELETE", "/api/providers/rest", None);
    }

    #[test]
    fn a_request_is_ours_only_where_its_section_is() {
        let mut internal = Internal {
            prefix: "".into(),
            serves: Serves {
                ping: true,
                ..Serves::default()
            },
            keep_trailing_slash: false,
            middlewares: Box::default(),
        };
        assert_eq!(internal.find(b"GET", b"/ping?x"), Some(Found::Ping));
        assert_eq!(internal.find(b"GET", b"/ping/?x"), Some(Found::Moved));
        assert_eq!(Internal::location(b"/ping/?x/"), b"/ping?x/");
        assert_eq!(internal.find(b"GET", b"/ping//"), None);
        assert_eq!(internal.find(b"GET", b"/"), None);
        assert_eq!(internal.find(b"GET", b"/api"), None);
        internal.serves.api = true;
        assert_eq!(internal.find(b"GET", b"/api"), Some(Found::Guarded));
        assert_eq!(internal.find(b"GET", b"/api/"), Some(Found::Moved));
        assert_eq!(internal.find(b"PUT", b"/api/providers/rest"), None);
        assert_eq!(internal.find(b"GET", b"/"), None);
        assert_eq!(internal.find(b"GET", b"/debug/vars"), None);
        internal.keep_trailing_slash = true;
        assert_eq!(internal.find(b"GET", b"/api/"), None);
        internal.prefix = "/own".into();
        assert_eq!(internal.find(b"GET", b"/api"), None);
        assert_eq!(internal.find(b"GET", b"/own/api"), Some(Found::Guarded));
        assert_eq!(internal.find(b"GET", b"/ownapi"), None);
    }
}
