//! Health checks: what is asked of which server, and how often. Spec backends 7.
//!
//! Owns the options and what stands for those that cannot be used. Never asks anybody: control does.
//! Read next: `control/health/mod.rs`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue};

use super::{Rejection, Severity};
pub use crate::backend::availability::{Availability, Changes, Why};
use crate::config::dynamic;
use crate::config::units::{DurationError, go_duration};
use crate::limits::HEALTH_CHECK_INTERVAL_MIN;

/// A server of a backend that is asked whether it works.
#[derive(Clone, Debug)]
pub struct Check {
    /// Name of the backend.
    pub backend: String,
    pub weight: u32,
    /// Of this server in this backend: where the outcome is told.
    pub availability: Arc<Availability>,
    /// Of the server's host, where that is a name: what it is known to resolve to. Else empty.
    pub addresses: Vec<IpAddr>,
    pub question: Question,
}

/// What is asked. Two servers of different backends with the same question are asked once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Question {
    /// URL of the server, as configured.
    pub server: String,
    /// A reference against that URL.
    pub path: String,
    /// Instead of the URL's.
    pub port: Option<u16>,
    /// Instead of the URL's, lower case.
    pub scheme: Option<String>,
    /// Value of the Host field, instead of the URL's.
    pub host: Option<String>,
    /// More fields, by name.
    pub fields: Vec<(String, String)>,
    pub interval: Duration,
}

/// The question for a server without its URL; `None` if nothing is to be asked. What cannot be used of the interval goes to
/// `rejections`, and `default` stands for it.
///
/// # Errors
/// A sentence: the frontends of the backend are left out.
pub(super) fn question(
    backend: &str,
    written: &dynamic::HealthCheck,
    default: Duration,
    rejections: &mut Vec<Rejection>,
) -> Result<Option<Question>, String> {
    if written.path.is_empty() {
        return Ok(None);
    }
    let port = match written.port {
        0 => None,
        port => Some(
            u16::try_from(port)
                .map_err(|_| format!("healthCheck: port should be from 1 to 65535, not {port}"))?,
        ),
    };
    let scheme = Some(written.scheme.to_ascii_lowercase()).filter(|scheme| !scheme.is_empty());
    if let Some(scheme) = &scheme
        && !matches!(&**scheme, "http" | "https" | "h2c")
    {
        return Err(format!("healthCheck: unsupported scheme '{scheme}'"));
    }
    let host = Some(written.hostname.clone()).filter(|host| !host.is_empty());
    if host
        .as_ref()
        .is_some_and(|host| HeaderValue::from_str(host).is_err())
    {
        return Err("healthCheck: hostname cannot be sent".to_owned());
    }
    for (name, value) in &written.headers {
        if HeaderName::from_bytes(name.as_bytes()).is_err() || HeaderValue::from_str(value).is_err()
        {
            return Err(format!("healthCheck: header '{name}' cannot be sent"));
        }
    }
    let interval = interval(backend, &written.interval, default).unwrap_or_else(|message| {
        rejections.push(Rejection {
            place: written.place.clone(),
            severity: Severity::Error,
            message,
        });
        default
    });
    Ok(Some(Question {
        server: String::new(),
        path: written.path.clone(),
        port,
        scheme,
        host,
        fields: written
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        interval: interval.max(HEALTH_CHECK_INTERVAL_MIN),
    }))
}

/// Only Go's text form counts here: digits without a unit do not.
fn interval(backend: &str, text: &str, default: Duration) -> Result<Duration, String> {
    if text.is_empty() {
        return Ok(default);
    }
    let why = match go_duration(text) {
        Ok(interval) if interval.is_zero() => {
            return Err(format!(
                "Healthcheck interval smaller than zero for backend '{backend}'"
            ));
        }
        Err(DurationError::Negative) => {
            return Err(format!(
                "Healthcheck interval smaller than zero for backend '{backend}'"
            ));
        }
        Ok(interval) => return Ok(interval),
        Err(DurationError::NoUnit) => format!("missing unit in duration \"{text}\""),
        Err(_) => format!("invalid duration \"{text}\""),
    };
    Err(format!(
        "Illegal health check interval for backend '{backend}': time: {why}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::dynamic_from_toml;

    /// The question as text, or why there is none; behind it what was rejected.
    fn check(toml: &str, expected: &str) {
        let (dynamic, _) =
            dynamic_from_toml("f", &format!("[backends.b.healthCheck]\n{toml}")).expect("valid");
        let written = dynamic.backends["b"].health_check.as_ref().expect("there");
        let mut rejections = Vec::new();
        let mut said = match question("b", written, Duration::from_secs(30), &mut rejections) {
            Ok(None) => "nothing".to_owned(),
            Ok(Some(question)) => format!(
                "{} {:?} {:?} {:?} {:?} each {:?}",
                question.path,
                question.port,
                question.scheme,
                question.host,
                question.fields,
                question.interval
            ),
            Err(why) => why,
        };
        for rejection in rejections {
            said.push_str(&format!("; {rejection}"));
        }
        assert_eq!(said, expected, "{toml}");
    }

    #[test]
    fn questions() {
        check("", "nothing");
        check("interval = '1s'", "nothing");
        check("path = '/h?x=1'", "/h?x=1 None None None [] each 30s");
        check(
            "path = '/h'\ninterval = '1m30s'\nport = 81\nscheme = 'HTTPS'\nhostname = 'a.test'\n[backends.b.healthCheck.headers]\nX-B = '2'\nX-A = '1'",
            "/h Some(81) Some(\"https\") Some(\"a.test\") [(\"X-A\", \"1\"), (\"X-B\", \"2\")] each 90s",
        );
    }

    #[test]
    fn intervals_that_cannot_be_used() {
        let default = "/h None None None [] each 30s; f:1:13:";
        check(
            "path = '/h'\ninterval = '10'",
            &format!(
                "{default} Illegal health check interval for backend 'b': time: missing unit in duration \"10\""
            ),
        );
        check(
            "path = '/h'\ninterval = '10x'",
            &format!(
                "{default} Illegal health check interval for backend 'b': time: invalid duration \"10x\""
            ),
        );
        for none in ["0s", "0", "-1s"] {
            check(
                &format!("path = '/h'\ninterval = '{none}'"),
                &format!("{default} Healthcheck interval smaller than zero for backend 'b'"),
            );
        }
        check(
            "path = '/h'\ninterval = '1ns'",
            "/h None None None [] each 100ms",
        );
    }

    #[test]
    fn what_cannot_be_asked_leaves_the_frontends_out() {
        for port in ["-1", "65536"] {
            check(
                &format!("path = '/h'\nport = {port}"),
                &format!("healthCheck: port should be from 1 to 65535, not {port}"),
            );
        }
        check(
            "path = '/h'\nscheme = 'ftp'",
            "healthCheck: unsupported scheme 'ftp'",
        );
        check(
            "path = '/h'\nhostname = \"a\\nb\"",
            "healthCheck: hostname cannot be sent",
        );
        check(
            "path = '/h'\n[backends.b.healthCheck.headers]\n'a b' = 'c'",
            "healthCheck: header 'a b' cannot be sent",
        );
    }
}
