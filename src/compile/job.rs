//! One frontend, from its definition to what is served.
//!
//! Owns the order in which its parts are made: entry points, backend, routes, steps, limits, error pages. One part that
//! cannot be used leaves the whole frontend out, with one message. Never looks at another frontend.
//! Read next: `frontend.rs` (its routes), `middleware.rs` (its steps), `reuse.rs` (what spares all this).

use std::fmt;
use std::iter;
use std::sync::Arc;

use super::auth::{self, Surroundings};
use super::auth_server::{Address, AuthServers};
use super::backend::{Backends, Memory};
use super::frontend::{Compiler, Routes};
use super::reuse::MadeFrontend;
use super::template::Expressions;
use super::{Rejection, Severity, World, error_page, middleware};
use crate::backend::BackendId;
use crate::config::dynamic::AuthForward;
use crate::config::{Place, Shared, dynamic};
use crate::frontend::Frontend;
use crate::frontend::error_page::ErrorPage;
use crate::frontend::middleware::Middleware;
use crate::frontend::middleware::auth::digest::Nonces;
use crate::frontend::middleware::auth::forward::AuthServerId;
use crate::frontend::middleware::rate_limit::RateLimit;
use crate::frontend::modifier::Modifiers;
use crate::snapshot::EntryPointId;

/// A frontend under compilation.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) provider: &'a str,
    pub(super) name: &'a str,
    pub(super) frontend: &'a Shared<dynamic::Frontend>,
    pub(super) world: &'a World,
}

/// Where and why a frontend is left out.
pub(super) type Refusal = (Place, String);

impl<'a> Job<'a> {
    fn refuse(&self, why: impl fmt::Display) -> Refusal {
        (
            self.frontend.place.clone(),
            format!("{why}. Skipping frontend {}...", self.name),
        )
    }

    /// What the last compilation made of it, if it would come out so again.
    pub(super) fn again(
        &self,
        backends: &mut Backends<'a>,
        memory: &mut Memory,
    ) -> Option<MadeFrontend> {
        let name = (self.provider, self.name);
        let made = backends.last.frontend(name, self.frontend)?;
        let pages = self.frontend.errors.values().map(|page| &page.backend);
        let mut used = iter::once(&self.frontend.backend).chain(pages);
        let mut is_there = |backend: &'a String| {
            let id = backends.id((self.provider, backend), self.world, memory);
            id.and_then(Result::ok).map(BackendId)
        };
        let is_same = made
            .uses
            .iter()
            .all(|before| used.next().and_then(&mut is_there) == Some(*before));
        (is_same && used.next().is_none()).then_some(made)
    }

    pub(super) fn make(
        &self,
        backends: &mut Backends<'a>,
        expressions: &mut Expressions,
        auth_servers: &mut AuthServers,
        memory: &mut Memory,
        rejections: &mut Vec<Rejection>,
    ) -> Result<MadeFrontend, Refusal> {
        let said = rejections.len();
        let entry_points = self.entry_points(rejections)?;
        let backend = self.backend(backends, memory)?;
        let Routes {
            matchers,
            modifiers,
        } = self.routes(expressions, rejections)?;
        let middlewares = self.middlewares(&modifiers, expressions, auth_servers, memory)?;
        let rate_limit = self.rate_limit(memory)?;
        let error_pages = self.error_pages(backends, memory, rejections)?;
        let uses = error_pages.iter().map(|page| page.backend);
        let uses = iter::once(backend).chain(uses).collect();
        let auth = self.frontend.auth.as_ref();
        let hangs_on_others =
            auth.is_some_and(|auth| auth.forward.is_some() || auth::files(auth).next().is_some());
        let frontend = Frontend {
            name: self.name.to_owned(),
            provider: self.provider.to_owned(),
            backend,
            pass_host_header: self.frontend.pass_host_header,
            pass_tls_cert: self.frontend.pass_tls_cert,
            modifiers,
            middlewares,
            rate_limit,
            error_pages,
        };
        Ok(MadeFrontend {
            entry_points,
            matchers: matchers.into(),
            copies: self.copies(frontend),
            uses,
            is_reusable: !hangs_on_others && rejections.len() == said,
        })
    }

    /// One for each core, which is all that reads it.
    ///
    /// A copied `Regex` shares the compiled program, which nobody writes (nor its reference count, but here and where the
    /// copy is dropped), and makes a pool of search caches of its own: the first thread to use a pool, the core, takes
    /// its cache without a lock. So copies cost no second compilation and cores do not meet.
    fn copies(&self, frontend: Frontend) -> Box<[Arc<Frontend>]> {
        let others = (1..self.world.cores.max(1)).map(|_| Arc::new(frontend.clone()));
        let others: Vec<_> = others.collect();
        iter::once(Arc::new(frontend)).chain(others).collect()
    }

    fn entry_points(&self, rejections: &mut Vec<Rejection>) -> Result<Vec<EntryPointId>, Refusal> {
        let Self {
            name,
            frontend,
            world,
            ..
        } = *self;
        let names = match &*frontend.entry_points {
            [] => &world.default_entry_points,
            _ => &frontend.entry_points,
        };
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for name in names {
            match world.entry_points.iter().position(|known| known == name) {
                Some(at) => known.push(EntryPointId(
                    u16::try_from(at).expect("entry points are few"),
                )),
                None => unknown.push(name.as_str()),
            }
        }
        if !unknown.is_empty() {
            rejections.push(Rejection {
                place: frontend.place.clone(),
                severity: Severity::Error,
                message: format!(
                    "Undefined entry point(s) '{}' for frontend {name}",
                    unknown.join(",")
                ),
            });
        }
        if known.is_empty() {
            return Err((
                frontend.place.clone(),
                format!("no entrypoint defined for frontend {name}"),
            ));
        }
        // A name given twice counts once.
        known.sort_unstable();
        known.dedup();
        if frontend.pass_tls_cert {
            let has_tls =
                |at: &EntryPointId| matches!(world.tls.get(usize::from(at.0)), Some(Some(_)));
            let (with_tls, without): (Vec<_>, Vec<_>) = known.into_iter().partition(has_tls);
            for at in without {
                rejections.push(Rejection {
                    place: frontend.place.clone(),
                    severity: Severity::Error,
                    message: format!(
                        "passTLSCert: no TLS provided by entry point {}. Skipping frontend {name} there...",
                        world.entry_points[usize::from(at.0)]
                    ),
                });
            }
            if with_tls.is_empty() {
                return Err(self.refuse("passTLSCert: no TLS provided"));
            }
            known = with_tls;
        }
        Ok(known)
    }

    fn backend(
        &self,
        backends: &mut Backends<'a>,
        memory: &mut Memory,
    ) -> Result<BackendId, Refusal> {
        let Self {
            provider,
            name,
            frontend,
            world,
        } = *self;
        let Some(id) = backends.id((provider, &frontend.backend), world, memory) else {
            let message = format!(
                "undefined backend '{}' for frontend {name}",
                frontend.backend
            );
            return Err((frontend.place.clone(), message));
        };
        id.map(BackendId).map_err(|error| self.refuse(error))
    }

    /// The error pages, without those whose backend is of no use.
    fn error_pages(
        &self,
        backends: &mut Backends<'a>,
        memory: &mut Memory,
        rejections: &mut Vec<Rejection>,
    ) -> Result<Box<[ErrorPage]>, Refusal> {
        let mut pages = Vec::with_capacity(self.frontend.errors.len());
        for (name, page) in &self.frontend.errors {
            let statuses = error_page::statuses(page).map_err(|why| {
                let why = format!("{why}. Skipping frontend {}...", self.name);
                (page.place.clone(), why)
            })?;
            let backend = if page.backend == self.frontend.backend {
                Err("is the frontend's own".to_owned())
            } else {
                match backends.id((self.provider, &page.backend), self.world, memory) {
                    None => Err("is not defined".to_owned()),
                    Some(id) => id.map_err(|error| format!("cannot be used: {error}")),
                }
            };
            match backend {
                Ok(backend) => pages.push(ErrorPage {
                    statuses,
                    backend: BackendId(backend),
                    query: page.query.strip_prefix('/').unwrap_or(&page.query).into(),
                }),
                Err(why) => rejections.push(Rejection {
                    place: page.place.clone(),
                    severity: Severity::Warning,
                    message: format!(
                        "errors: {name} of frontend {} is left out: backend '{}' {why}",
                        self.name, page.backend
                    ),
                }),
            }
        }
        Ok(pages.into())
    }

    fn routes(
        &self,
        expressions: &mut Expressions,
        rejections: &mut Vec<Rejection>,
    ) -> Result<Routes, Refusal> {
        let Self {
            name,
            frontend,
            world,
            ..
        } = *self;
        let compiler = Compiler {
            expressions,
            keep_trailing_slash: world.keep_trailing_slash,
            rejections,
            name,
            place: &frontend.place,
        };
        compiler.routes(frontend).map_err(|(place, why)| {
            let message =
                format!("error creating route for frontend {name}: error parsing rule: {why}. Skipping frontend {name}...");
            (place, message)
        })
    }

    fn rate_limit(&self, memory: &mut Memory) -> Result<Option<Arc<RateLimit>>, Refusal> {
        let Some(written) = &self.frontend.ratelimit else {
            return Ok(None);
        };
        let (source, rates) = middleware::rates(written).map_err(|(place, why)| {
            (place, format!("{why}. Skipping frontend {}...", self.name))
        })?;
        let name = (self.provider.to_owned(), self.name.to_owned());
        Ok((!rates.is_empty()).then(|| memory.rate_limit(name, source, rates)))
    }

    fn middlewares(
        &self,
        modifiers: &Modifiers,
        expressions: &mut Expressions,
        auth_servers: &mut AuthServers,
        memory: &mut Memory,
    ) -> Result<Box<[Middleware]>, Refusal> {
        let restoration = modifiers.restoration();
        let mut surroundings = OfFrontend {
            world: self.world,
            name: (self.provider, self.name),
            auth_servers,
            memory,
        };
        let (frontend, world) = (self.frontend, self.world);
        middleware::of_frontend(frontend, world, restoration, expressions, &mut surroundings)
            .map_err(|(place, why)| (place, format!("{why}. Skipping frontend {}...", self.name)))
    }
}

/// What a section `auth` of a frontend finds.
struct OfFrontend<'a> {
    world: &'a World,
    /// Provider, then name.
    name: (&'a str, &'a str),
    auth_servers: &'a mut AuthServers,
    memory: &'a mut Memory,
}

impl Surroundings for OfFrontend<'_> {
    fn read(&self, path: &str) -> Option<Result<Vec<u8>, String>> {
        self.world.files.get(path).cloned()
    }

    fn nonces(&mut self) -> Arc<Nonces> {
        let (provider, name) = self.name;
        self.memory
            .nonces
            .of((provider.to_owned(), name.to_owned()))
    }

    fn server(&mut self, written: &AuthForward, address: &Address) -> Result<AuthServerId, String> {
        self.auth_servers
            .add(written, address, self.world, self.memory)
    }
}
