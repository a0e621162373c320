//! Which pages about ourselves an entry point has, from the sections `api`, `ping`, `rest` and `web`.
//!
//! Read next: `frontend/internal.rs`.

use std::sync::Arc;

use crate::config::Global;
use crate::frontend::internal::{Internal, Serves};
use crate::frontend::middleware::Middleware;
use crate::limits::RECENT_ERRORS_MAX;
use crate::telemetry::recent::Recent;

/// The pages of the entry point `name`, whose own steps are these; `None` if there are none.
pub(super) fn of_entry_point(
    name: &str,
    global: &Global,
    steps: &[Middleware],
) -> Option<Box<Internal>> {
    let is_on = |entry_point: &String| entry_point == name;
    let api = global.api.as_ref().filter(|api| is_on(&api.entry_point));
    let ping = global.ping.as_ref().map(|ping| &ping.entry_point);
    let rest = global.rest.as_ref().map(|rest| &rest.entry_point);
    let serves = Serves {
        ping: ping.is_some_and(is_on),
        api: api.is_some(),
        dashboard: api.is_some_and(|api| api.dashboard),
        debug: api.is_some() && global.debug,
        cluster: api.is_some() && global.cluster.is_some(),
        rest: rest.is_some_and(is_on),
    };
    serves.any().then(|| {
        Box::new(Internal {
            prefix: prefix(global).into(),
            serves,
            keep_trailing_slash: global.keep_trailing_slash,
            middlewares: guards(steps),
        })
    })
}

/// Where errors are remembered for `/health`, if `[api.statistics]` says so.
pub(super) fn recent_errors(global: &Global) -> Option<Arc<Recent>> {
    let statistics = global.api.as_ref()?.statistics.as_ref()?;
    let count = usize::try_from(statistics.recent_errors).unwrap_or(0);
    let count = count.min(RECENT_ERRORS_MAX);
    (count > 0).then(|| Arc::new(Recent::new(count)))
}

/// What stands before the paths of all pages, without a slash at its end: `web.path`.
pub fn prefix(global: &Global) -> String {
    let written = global.web.as_ref().map_or("", |web| web.path.as_str());
    let path = written.trim_matches('/');
    if path.is_empty() {
        String::new()
    } else {
        format!("/{path}")
    }
}

/// Those steps of an entry point that say who may come in: the white list before authentication, the other way round than
/// for frontends (spec frontends 2.1).
fn guards(steps: &[Middleware]) -> Box<[Middleware]> {
    let lists = steps
        .iter()
        .filter(|step| matches!(step, Middleware::WhiteList(_)));
    let others = steps.iter().filter(|step| match step {
        Middleware::Basic(_) | Middleware::Digest(_) | Middleware::Forward(_) => true,
        Middleware::WhiteList(_)
        | Middleware::Redirect(_)
        | Middleware::Headers(_)
        | Middleware::ClientCertificate(_) => false,
    });
    lists.chain(others).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn check(toml: &str, entry_point: &str, expected: Option<(&str, Serves)>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f.toml");
        std::fs::write(&path, toml).expect("written");
        let global = load(&[format!("-c{}", path.display()).into()], &|_| None)
            .expect("usable")
            .global;
        let found = of_entry_point(entry_point, &global, &[]);
        let found = found
            .as_ref()
            .map(|internal| (&*internal.prefix, internal.serves));
        assert_eq!(found, expected, "{toml}");
    }

    #[test]
    fn sections_choose_their_entry_points() {
        let none = Serves::default();
        let api = Serves {
            api: true,
            dashboard: true,
            ..none
        };
        let ping = Serves { ping: true, ..none };
        check("", "http", None);
        check("[api]\n", "http", None);
        check("[api]\n", "traefik", Some(("", api)));
        check(
            "debug = true\n[api]\ndashboard = false\n",
            "traefik",
            Some((
                "",
                Serves {
                    api: true,
                    debug: true,
                    ..none
                },
            )),
        );
        let split = "[entryPoints.a]\naddress=':1'\n[ping]\nentryPoint='a'\n[api]\n[rest]\nentryPoint='a'\n";
        check(split, "a", Some(("", Serves { rest: true, ..ping })));
        check(split, "traefik", Some(("", api)));
        check(
            "[web]\npath = '/own/'\n",
            "traefik",
            Some(("/own", Serves { ping: true, ..api })),
        );
    }
}
