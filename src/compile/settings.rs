//! The static configuration becomes settings: entry points to bind, trust lists, time limits.
//!
//! Owns what must not be started with: an entry point whose access cannot be restricted as it was asked for ends the start.
//! Pure: what must be asked of the machine comes in as [`Machine`]. Read next: `settings.rs` at the root.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::auth_server::Address;
use super::{Rejection, Severity, Target, auth, auth_server, certificate, internal, middleware};
use crate::config::dynamic::AuthForward;
use crate::config::global::BufferingBounds;
use crate::config::{Global, Place, entrypoint};
use crate::frontend::middleware::auth::digest::Nonces;
use crate::frontend::middleware::auth::forward::AuthServerId;
use crate::settings::{EntryPoint, HeldBounds, Settings, Timeouts, Trust};

/// Idle connections kept for a server when `maxIdleConnsPerHost` is 0 (spec static-config 3).
const UPSTREAM_IDLE_FALLBACK: usize = 2;

/// What settings depend on besides the configuration.
#[derive(Clone, Debug)]
pub struct Machine {
    pub host_name: String,
    /// Whether `:80` may mean both families. Without IPv6 it means all IPv4 addresses.
    pub ipv6: bool,
    /// File descriptors this process may have open at once.
    pub descriptors_max: usize,
    pub now: SystemTime,
    /// What is in the file of this name; `None` if there is no such file.
    pub read: fn(&str) -> Option<io::Result<Vec<u8>>>,
}

impl Machine {
    /// What an option holds that takes a path or the text itself: if there is such a file, its content.
    pub(super) fn text(&self, written: &str) -> Result<Vec<u8>, String> {
        match (self.read)(written) {
            Some(read) => read.map_err(|error| format!("{written}: {error}")),
            None => Ok(written.as_bytes().to_vec()),
        }
    }
}

/// Settings, and what was left out of them.
///
/// # Errors
/// The process must not start: an address or trust list that cannot be read, or no entry point left that may be opened.
pub fn settings(
    global: &Global,
    machine: &Machine,
) -> Result<(Settings, Vec<Rejection>), Vec<Rejection>> {
    let mut fatal = Vec::new();
    let mut closed = Vec::new();
    let mut entry_points = Vec::new();
    let targets = targets(global);
    let asked = auth_server::of_entry_points(global);
    for (name, written) in &global.entry_points {
        match entry_point(name, written, &targets, &asked, machine, &mut closed) {
            Ok(mut entry_point) => {
                let steps = &entry_point.middlewares;
                entry_point.internal = internal::of_entry_point(name, global, steps);
                entry_points.push(entry_point);
            }
            Err(rejections) => fatal.extend(rejections),
        }
    }
    for (at, entry_point) in entry_points.iter().enumerate() {
        let twin = entry_points[..at]
            .iter()
            .find(|other| other.address == entry_point.address);
        if let Some(twin) = twin.filter(|twin| twin.address.port() != 0) {
            let place = global
                .entry_points
                .get(&entry_point.name)
                .map(|written| written.place.clone());
            fatal.push(rejection(
                &place.unwrap_or_default(),
                format!(
                    "entry points {} and {} have the same address {}",
                    twin.name, entry_point.name, twin.address
                ),
            ));
        }
    }
    let held = held(&global.buffering).unwrap_or_else(|rejection| {
        fatal.push(rejection);
        HeldBounds::default()
    });
    if !fatal.is_empty() {
        return Err(fatal);
    }
    if entry_points.is_empty() {
        closed.push(rejection(
            &Place::Default,
            "no entry point is left to open".to_owned(),
        ));
        return Err(closed);
    }
    let settings = Settings {
        entry_points,
        timeouts: timeouts(global),
        upstream_idle_max: match usize::try_from(global.max_idle_conns_per_host) {
            Ok(0) => UPSTREAM_IDLE_FALLBACK,
            Ok(most) => most,
            Err(_) => 0,
        },
        retry_attempts: global
            .retry
            .as_ref()
            .map(|retry| u32::try_from(retry.attempts.max(0)).unwrap_or(u32::MAX)),
        retry_budget: global
            .retry
            .as_ref()
            .and_then(|retry| u32::try_from(retry.budget?).ok())
            .filter(|percent| *percent > 0),
        descriptors_max: machine.descriptors_max,
        held,
        upstream_tls: certificate::client(global, machine, &mut closed),
        flattens_hosts: global
            .host_resolver
            .as_ref()
            .is_some_and(|options| options.cname_flattening),
        host_name: machine.host_name.clone(),
        recent_errors: internal::recent_errors(global),
    };
    Ok((settings, closed))
}

/// What held bodies may take.
fn held(written: &BufferingBounds) -> Result<HeldBounds, Rejection> {
    let bytes = |name: &str, bytes: i64| {
        u64::try_from(bytes).map_err(|_| {
            let message = format!("buffering: {name} should be >= 0, found {bytes}");
            rejection(&written.place, message)
        })
    };
    Ok(HeldBounds {
        memory: bytes("memoryBytes", written.memory_bytes)?,
        files: bytes("fileBytes", written.file_bytes)?,
    })
}

/// Where each entry point of the configuration is, opened or not; those without a usable address are not there.
pub fn targets(global: &Global) -> BTreeMap<String, Target> {
    let target = |(name, written): (&String, &entrypoint::EntryPoint)| {
        let target = Target {
            is_tls: written.tls.is_some(),
            // The families of an address do not matter: its port does.
            port: address(&written.address, true).ok()?.port(),
        };
        Some((name.clone(), target))
    };
    global.entry_points.iter().filter_map(target).collect()
}

/// What a section `auth` of an entry point finds.
struct Surroundings<'a> {
    name: &'a str,
    asked: &'a [auth_server::OfEntryPoint],
    machine: &'a Machine,
}

impl auth::Surroundings for Surroundings<'_> {
    fn read(&self, path: &str) -> Option<Result<Vec<u8>, String>> {
        let content = (self.machine.read)(path)?;
        Some(content.map_err(|error| error.to_string()))
    }

    fn nonces(&mut self) -> Arc<Nonces> {
        Arc::default()
    }

    /// The server itself is in the snapshots, since its addresses may change. That it can be spoken to is tried here, where
    /// it ends the start.
    fn server(&mut self, written: &AuthForward, address: &Address) -> Result<AuthServerId, String> {
        if address.url.scheme == "https" {
            auth_server::tls(written, &|path| auth::Surroundings::read(self, path))?;
        }
        let at = self
            .asked
            .iter()
            .position(|one| one.entry_point == self.name)
            .and_then(|at| u32::try_from(at).ok());
        Ok(AuthServerId(at.expect("the list has all entry points")))
    }
}

fn rejection(place: &Place, message: String) -> Rejection {
    Rejection {
        place: place.clone(),
        severity: Severity::Error,
        message,
    }
}

fn entry_point(
    name: &str,
    written: &entrypoint::EntryPoint,
    targets: &BTreeMap<String, Target>,
    asked: &[auth_server::OfEntryPoint],
    machine: &Machine,
    left_out: &mut Vec<Rejection>,
) -> Result<EntryPoint, Vec<Rejection>> {
    let mut surroundings = Surroundings {
        name,
        asked,
        machine,
    };
    let mut rejections = Vec::new();
    let address = address(&written.address, machine.ipv6).map_err(|why| {
        rejections.push(rejection(
            &written.place,
            format!("entry point {name}: {why}"),
        ))
    });
    let middlewares = middleware::of_entry_point(written, targets, &mut surroundings)
        .unwrap_or_else(|(place, why)| {
            rejections.push(rejection(&place, format!("entry point {name}: {why}")));
            Box::default()
        });
    let mut trust = |option: &str, written: &entrypoint::Trust| {
        trust(written).unwrap_or_else(|text| {
            rejections.push(rejection(
                &written.place,
                format!(
                    "entry point {name}: {option}.trustedIPs: {text:?} is neither an IP address nor a network such as \
                     10.0.0.0/8"
                ),
            ));
            Trust::Networks(Vec::new())
        })
    };
    let forwarded_headers = match &written.forwarded_headers {
        Some(written) => trust("forwardedHeaders", written),
        None => Trust::Everybody,
    };
    let proxy_protocol = written
        .proxy_protocol
        .as_ref()
        .map(|written| trust("proxyProtocol", written));
    let (tls, towards_servers) = written
        .tls
        .as_ref()
        .and_then(|tls| {
            certificate::server(name, tls, machine, left_out)
                .map_err(|rejection| rejections.push(rejection))
                .ok()
        })
        .unzip();
    match address {
        Ok(address) if rejections.is_empty() => Ok(EntryPoint {
            name: name.to_owned(),
            address,
            forwarded_headers,
            proxy_protocol,
            middlewares,
            compress: written.compress,
            tls,
            internal: None,
            towards_servers,
        }),
        _ => Err(rejections),
    }
}

/// # Errors
/// The entry that is no address and no network.
fn trust(written: &entrypoint::Trust) -> Result<Trust, &str> {
    if written.insecure {
        return Ok(Trust::Everybody);
    }
    let networks = written.trusted_ips.iter();
    networks
        .map(|text| middleware::network(text).ok_or(text.as_str()))
        .collect::<Result<_, _>>()
        .map(Trust::Networks)
}

/// `:80`, `127.0.0.1:80`, `[::1]:80` or `localhost:80`, as Go's `net.Listen` reads them.
fn address(text: &str, ipv6: bool) -> Result<SocketAddr, String> {
    let expected = "expected an address such as \":80\", \"127.0.0.1:80\" or \"[::1]:80\"";
    if text.is_empty() {
        return Err(format!("no address; {expected}"));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("address {text:?} has no port; {expected}"));
    };
    let port: u16 = match port {
        "http" => 80,
        "https" => 443,
        digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => digits
            .parse()
            .map_err(|_| format!("address {text:?}: the port must be at most 65535"))?,
        _ => return Err(format!("address {text:?} has a bad port; {expected}")),
    };
    let ip = match host {
        "" if ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        bracketed if bracketed.starts_with('[') && bracketed.ends_with(']') => {
            let inside = &bracketed[1..bracketed.len() - 1];
            IpAddr::V6(inside.parse().map_err(|_| format!("address {text:?}: {inside:?} is not an IPv6 address"))?)
        }
        bare if bare.contains(':') => return Err(format!("address {text:?}: an IPv6 address needs brackets; {expected}")),
        plain => IpAddr::V4(plain.parse().map_err(|_| {
            format!("address {text:?}: {plain:?} is not an IP address of this machine, and host names are not looked up here")
        })?),
    };
    Ok(SocketAddr::new(ip, port))
}

fn timeouts(global: &Global) -> Timeouts {
    let some = |duration: Duration| (!duration.is_zero()).then_some(duration);
    let responding = &global.responding_timeouts;
    Timeouts {
        read: some(responding.read_timeout),
        write: some(responding.write_timeout),
        idle: some(responding.idle_timeout).or_else(|| some(responding.read_timeout)),
        dial: some(global.forwarding_timeouts.dial_timeout),
        response_header: some(global.forwarding_timeouts.response_header_timeout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::dynamic::Auth;

    fn check(text: &str, expected: &str) {
        let found = address(text, true)
            .map_or_else(|why| format!("error: {why}"), |address| address.to_string());
        assert!(found.starts_with(expected), "{text}: {found}");
    }

    #[test]
    fn addresses() {
        check(":80", "[::]:80");
        check(":http", "[::]:80");
        check("127.0.0.1:0", "127.0.0.1:0");
        check("0.0.0.0:8080", "0.0.0.0:8080");
        check("[::1]:443", "[::1]:443");
        check("localhost:81", "127.0.0.1:81");
        check("", "error: no address");
        check("80", "error: address \"80\" has no port");
        check(":", "error: address \":\" has a bad port");
        check(":-1", "error: address \":-1\" has a bad port");
        check(
            ":65536",
            "error: address \":65536\": the port must be at most 65535",
        );
        check(
            "::1:80",
            "error: address \"::1:80\": an IPv6 address needs brackets",
        );
        check(
            "[::x]:80",
            "error: address \"[::x]:80\": \"::x\" is not an IPv6 address",
        );
        check(
            "example.test:80",
            "error: address \"example.test:80\": \"example.test\" is not an IP address",
        );
    }

    #[test]
    fn without_ipv6_every_address_is_every_ipv4_address() {
        assert_eq!(
            address(":80", false).map(|address| address.to_string()),
            Ok("0.0.0.0:80".to_owned())
        );
    }

    fn global(entry_points: &[(&str, &str)]) -> Global {
        let mut global = Global::default();
        for (name, address) in entry_points {
            let written = entrypoint::EntryPoint {
                address: (*address).to_owned(),
                ..Default::default()
            };
            global.entry_points.insert((*name).to_owned(), written);
        }
        global
    }

    fn made(global: &Global) -> Result<(Settings, Vec<Rejection>), Vec<Rejection>> {
        settings(
            global,
            &Machine {
                host_name: "edge".to_owned(),
                ipv6: true,
                descriptors_max: 1024,
                now: SystemTime::UNIX_EPOCH,
                read: |_| None,
            },
        )
    }

    #[test]
    fn an_entry_point_that_lets_nobody_in_ends_the_start() {
        let mut global = global(&[("http", ":80"), ("https", ":443")]);
        global
            .entry_points
            .get_mut("https")
            .expect("it is there")
            .auth = Some(Auth::default());
        let fatal = made(&global).expect_err("it was to be protected");
        let said: Vec<&str> = fatal.iter().map(|one| &*one.message).collect();
        assert_eq!(
            said,
            [
                "entry point https: auth: one of basic, digest and forward is needed, to say who may pass"
            ]
        );
        let fatal = made(&Global::default()).expect_err("none is there");
        assert_eq!(
            fatal.last().map(|last| &*last.message),
            Some("no entry point is left to open")
        );
    }

    #[test]
    fn an_entry_point_names_its_authentication_server_by_its_place() {
        let mut global = global(&[("a", ":81"), ("b", ":82"), ("c", ":83")]);
        for name in ["a", "c"] {
            let written = global.entry_points.get_mut(name).expect("it is there");
            written.auth = Some(Auth {
                forward: Some(AuthForward {
                    address: "http://auth.test/".to_owned(),
                    ..AuthForward::default()
                }),
                ..Auth::default()
            });
        }
        let (settings, _) = made(&global).expect("all are good");
        let named: Vec<String> = settings
            .entry_points
            .iter()
            .map(|entry_point| format!("{:?}", entry_point.middlewares))
            .collect();
        assert!(named[0].contains("AuthServerId(0)"), "{named:?}");
        assert_eq!(named[1], "[]");
        assert!(named[2].contains("AuthServerId(1)"), "{named:?}");
    }

    #[test]
    fn two_entry_points_cannot_share_an_address() {
        assert!(
            made(&global(&[
                ("a", ":80"),
                ("b", ":81"),
                ("c", "127.0.0.1:80")
            ]))
            .is_ok()
        );
        assert!(
            made(&global(&[("a", "127.0.0.1:0"), ("b", "127.0.0.1:0")])).is_ok(),
            "port 0 is a new port each time"
        );
        let fatal = made(&global(&[("a", ":80"), ("b", ":80")])).expect_err("refused");
        assert_eq!(
            fatal[0].message,
            "entry points a and b have the same address [::]:80"
        );
    }

    #[test]
    fn zero_means_what_the_option_says() {
        let mut global = global(&[("a", ":80")]);
        global.responding_timeouts.read_timeout = Duration::from_secs(7);
        global.responding_timeouts.idle_timeout = Duration::ZERO;
        global.responding_timeouts.write_timeout = Duration::ZERO;
        global.forwarding_timeouts.dial_timeout = Duration::ZERO;
        global.max_idle_conns_per_host = 0;
        let (settings, _) = made(&global).expect("good");
        assert_eq!(
            settings.timeouts.idle,
            Some(Duration::from_secs(7)),
            "idleTimeout 0 is readTimeout"
        );
        assert_eq!(
            (settings.timeouts.write, settings.timeouts.dial),
            (None, None)
        );
        assert_eq!(settings.upstream_idle_max, 2);
        assert_eq!(settings.retry_attempts, None);
        assert_eq!(settings.host_name, "edge");
    }

    #[test]
    fn absent_trusts_everybody_and_present_only_whom_it_names() {
        let mut global = global(&[("a", ":80")]);
        let trust = |global: &Global| {
            made(global).map(|(settings, _)| settings.entry_points[0].forwarded_headers.clone())
        };
        assert!(matches!(trust(&global), Ok(Trust::Everybody)));
        let entry_point = global.entry_points.get_mut("a").expect("it is there");
        entry_point.forwarded_headers = Some(entrypoint::Trust::default());
        assert!(matches!(trust(&global), Ok(Trust::Networks(networks)) if networks.is_empty()));
        let trusted_ips = vec!["10.0.0.0/8".to_owned(), "nonsense".to_owned()];
        let entry_point = global.entry_points.get_mut("a").expect("it is there");
        entry_point.forwarded_headers = Some(entrypoint::Trust {
            trusted_ips,
            ..Default::default()
        });
        let fatal = trust(&global).expect_err("refused");
        assert!(
            fatal[0].message.contains("\"nonsense\" is neither"),
            "{}",
            fatal[0].message
        );
    }
}
