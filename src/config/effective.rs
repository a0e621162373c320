//! From what was written to what holds: deprecated options take their new places, missing entry points appear, and
//! what cannot be meant is an error. Spec static-config 3, 3.2 and 6.
//!
//! Never reads a file; the only input is a whole [`Global`]. Read next: `load.rs`.

use std::collections::BTreeMap;

use super::dynamic::{Certificate, WhiteList};
use super::entrypoint::{ClientCa, EntryPoint, Tls};
use super::global::Global;
use super::observe::{AccessLog, Api, INTERNAL_ENTRY_POINT, Ping, Web};
use super::units::{ConfigError, Diagnostic, Place};

/// Settles `global`. `place_of` tells where an option was written, for those that keep no place of their own.
///
/// # Errors
/// An option names an entry point that does not exist, a cipher or a driver that nobody knows, or a redirect that leads
/// to itself.
pub(super) fn settle(
    global: &mut Global,
    place_of: &dyn Fn(&[&str]) -> Place,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<(), ConfigError> {
    move_deprecated(global);
    if global.entry_points.is_empty() {
        let http = EntryPoint {
            address: ":80".to_owned(),
            ..EntryPoint::default()
        };
        global.entry_points = BTreeMap::from([("http".to_owned(), http)]);
        global.default_entry_points = vec!["http".to_owned()];
    }
    if let Some(web) = global.web.take() {
        expand_web(global, web, diagnostics);
    }
    let internal = internal_users(global)
        .iter()
        .any(|user| user.entry_point == INTERNAL_ENTRY_POINT);
    if internal && !global.entry_points.contains_key(INTERNAL_ENTRY_POINT) {
        let entry_point = EntryPoint {
            address: ":8080".to_owned(),
            ..EntryPoint::default()
        };
        global
            .entry_points
            .insert(INTERNAL_ENTRY_POINT.to_owned(), entry_point);
    }
    for entry_point in global.entry_points.values_mut() {
        settle_entry_point(entry_point);
    }
    check_names(global)?;
    check_values(global, place_of, diagnostics)
}

fn move_deprecated(global: &mut Global) {
    if !global.grace_time_out.is_zero() {
        global.life_cycle.grace_time_out = global.grace_time_out;
    }
    if !global.idle_timeout.is_zero() {
        global.responding_timeouts.idle_timeout = global.idle_timeout;
    }
    if !global.access_logs_file.is_empty() {
        let file_path = global.access_logs_file.clone();
        global.access_log = Some(AccessLog {
            place: global.place.clone(),
            file_path,
            ..AccessLog::default()
        });
    }
    if global.traefik_log.file_path.is_empty() {
        global.traefik_log.file_path = global.traefik_logs_file.clone();
    }
    if let Some(acme) = &mut global.acme
        && acme.storage.is_empty()
    {
        acme.storage = acme.storage_file.clone();
    }
}

/// `[web]` is the entry point `traefik` with API, ping and metrics on it, unless one of these has a section of its own.
fn expand_web(global: &mut Global, web: Web, diagnostics: &mut Vec<Diagnostic>) {
    if global.api.is_some()
        || global.ping.is_some()
        || global.metrics.is_some()
        || global.rest.is_some()
    {
        diagnostics.push(Diagnostic {
            place: web.place,
            message: "web: ignored, since api, ping, metrics or rest is configured".to_owned(),
        });
        return;
    }
    let certificate = Certificate {
        cert_file: web.cert_file.clone(),
        key_file: web.key_file.clone(),
    };
    let tls = (!web.cert_file.is_empty() || !web.key_file.is_empty()).then(|| Tls {
        place: web.place.clone(),
        certificates: vec![certificate],
        ..Tls::default()
    });
    let entry_point = EntryPoint {
        place: web.place.clone(),
        address: web.address.clone(),
        tls,
        auth: web.auth.clone(),
        ..EntryPoint::default()
    };
    global
        .entry_points
        .insert(INTERNAL_ENTRY_POINT.to_owned(), entry_point);
    global.api = Some(Api {
        place: web.place.clone(),
        statistics: web.statistics.clone(),
        ..Api::default()
    });
    global.ping = Some(Ping {
        place: web.place.clone(),
        ..Ping::default()
    });
    global.metrics = web.metrics.clone();
    global.web = Some(web);
}

fn settle_entry_point(entry_point: &mut EntryPoint) {
    if entry_point.white_list.is_none() && !entry_point.whitelist_source_range.is_empty() {
        entry_point.white_list = Some(WhiteList {
            place: entry_point.place.clone(),
            source_range: std::mem::take(&mut entry_point.whitelist_source_range),
            use_x_forwarded_for: false,
        });
    }
    if let Some(tls) = &mut entry_point.tls {
        if tls.default_certificate.is_none() {
            tls.default_certificate = tls.certificates.first().cloned();
        }
        if !tls.client_ca_files.is_empty() {
            tls.client_ca = Some(ClientCa {
                files: std::mem::take(&mut tls.client_ca_files),
                optional: false,
            });
        }
    }
}

/// A section that has routes of its own on some entry point.
struct InternalUser<'g> {
    option: &'static str,
    place: &'g Place,
    entry_point: &'g str,
}

fn internal_users(global: &Global) -> Vec<InternalUser<'_>> {
    let mut users = Vec::new();
    let mut add = |option, place, entry_point| {
        users.push(InternalUser {
            option,
            place,
            entry_point,
        })
    };
    if let Some(api) = &global.api {
        add("api.entryPoint", &api.place, &api.entry_point);
    }
    if let Some(ping) = &global.ping {
        add("ping.entryPoint", &ping.place, &ping.entry_point);
    }
    if let Some(rest) = &global.rest {
        add("rest.entryPoint", &rest.place, &rest.entry_point);
    }
    if let Some(prometheus) = global
        .metrics
        .as_ref()
        .and_then(|metrics| metrics.prometheus.as_ref())
    {
        add(
            "metrics.prometheus.entryPoint",
            &prometheus.place,
            &prometheus.entry_point,
        );
    }
    users
}

fn check_names(global: &Global) -> Result<(), ConfigError> {
    let names = || {
        global
            .entry_points
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    };
    for user in internal_users(global) {
        if !global.entry_points.contains_key(user.entry_point) {
            let message = format!(
                "unknown entry point \"{}\", there are: {}",
                user.entry_point,
                names()
            );
            return Err(ConfigError {
                place: user.place.clone(),
                path: user.option.to_owned(),
                message,
            });
        }
    }
    for (name, entry_point) in &global.entry_points {
        let Some(redirect) = &entry_point.redirect else {
            continue;
        };
        let target = &redirect.entry_point;
        let path = || {
            format!(
                "entryPoints.{}.redirect.entryPoint",
                super::units::segment(name)
            )
        };
        let error = |message| {
            Err(ConfigError {
                place: redirect.place.clone(),
                path: path(),
                message,
            })
        };
        if target == name {
            return error(format!("entry point \"{name}\" redirects to itself"));
        }
        if !target.is_empty() && !global.entry_points.contains_key(target) {
            return error(format!(
                "unknown target entrypoint \"{target}\", there are: {}",
                names()
            ));
        }
    }
    if let Some(acme) = &global.acme {
        let problem = match global.entry_points.get(&acme.entry_point) {
            None => format!(
                "Unknown entrypoint \"{}\" for ACME configuration",
                acme.entry_point
            ),
            Some(entry_point) if entry_point.tls.is_none() => {
                format!(
                    "Entrypoint \"{}\" has no TLS configuration for ACME configuration",
                    acme.entry_point
                )
            }
            Some(_) => return Ok(()),
        };
        return Err(ConfigError {
            place: acme.place.clone(),
            path: "acme.entryPoint".to_owned(),
            message: problem,
        });
    }
    Ok(())
}

fn check_values(
    global: &mut Global,
    place_of: &dyn Fn(&[&str]) -> Place,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<(), ConfigError> {
    for (name, entry_point) in &global.entry_points {
        let Some(tls) = &entry_point.tls else {
            continue;
        };
        let path =
            |option: &str| format!("entryPoints.{}.tls.{option}", super::units::segment(name));
        if let Some(cipher) = tls
            .cipher_suites
            .iter()
            .find(|cipher| !CIPHER_SUITES.contains(&cipher.as_str()))
        {
            return Err(ConfigError {
                place: tls.place.clone(),
                path: path("cipherSuites"),
                message: format!("invalid CipherSuite: {cipher}"),
            });
        }
        let versions = [
            "",
            "VersionTLS10",
            "VersionTLS11",
            "VersionTLS12",
            "VersionTLS13",
        ];
        if !versions.contains(&tls.min_version.as_str()) {
            diagnostics.push(Diagnostic {
                place: tls.place.clone(),
                message: format!(
                    "{}: unknown version `{}`, ignored; expected VersionTLS10 to VersionTLS13",
                    path("minVersion"),
                    tls.min_version
                ),
            });
        }
    }
    check_templates(global)?;
    let reactor = &mut global.reactor;
    reactor.driver.make_ascii_lowercase();
    if !["auto", "io_uring", "epoll"].contains(&reactor.driver.as_str()) {
        return Err(ConfigError {
            place: reactor.place.clone(),
            path: "reactor.driver".to_owned(),
            message: format!(
                "expected `auto`, `io_uring` or `epoll`, found `{}`",
                reactor.driver
            ),
        });
    }
    let mut warn = |path: &[&str], message: String| {
        diagnostics.push(Diagnostic {
            place: place_of(path),
            message,
        })
    };
    let levels = [
        "", "debug", "info", "warn", "warning", "error", "fatal", "panic",
    ];
    if !levels.contains(&global.log_level.to_lowercase().as_str()) {
        warn(
            &["logLevel"],
            format!(
                "logLevel: unknown level `{}`, ERROR is used",
                global.log_level
            ),
        );
        global.log_level = "ERROR".to_owned();
    }
    let format = &mut global.traefik_log.format;
    if !["", "common", "json"].contains(&format.as_str()) {
        let message = format!("traefikLog.format: unknown format `{format}`, common is used");
        warn(&["traefikLog", "format"], message);
        *format = "common".to_owned();
    }
    for name in global
        .default_entry_points
        .iter()
        .filter(|&name| !global.entry_points.contains_key(name))
    {
        warn(
            &["defaultEntryPoints"],
            format!(
                "defaultEntryPoints: unknown entry point \"{name}\" (names are case-sensitive)"
            ),
        );
    }
    Ok(())
}

/// A template of the operator's own would decide what the keys of a store mean, which nothing here can do.
fn check_templates(global: &Global) -> Result<(), ConfigError> {
    let sections = [
        (
            "consul",
            global.consul.as_ref().map(|s| (&s.place, &s.filename)),
        ),
        (
            "etcd",
            global.etcd.as_ref().map(|s| (&s.place, &s.filename)),
        ),
        (
            "zookeeper",
            global.zookeeper.as_ref().map(|s| (&s.place, &s.filename)),
        ),
        (
            "boltdb",
            global.boltdb.as_ref().map(|s| (&s.place, &s.filename)),
        ),
    ];
    for (name, section) in sections {
        if let Some((place, filename)) = section
            && !filename.is_empty()
        {
            return Err(ConfigError {
                place: place.clone(),
                path: format!("{name}.filename"),
                message: "a template of one's own is not supported, keys are read as documented"
                    .to_owned(),
            });
        }
    }
    Ok(())
}

/// Every name that Go knew, spec static-config 4.3. Which of them can be offered is for the TLS library to say.
const CIPHER_SUITES: &[&str] = &[
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_FALLBACK_SCSV",
];
