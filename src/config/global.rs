//! Static configuration: read once, at start. Spec static-config 3.
//!
//! Owns every static option with its default. Never re-read while the process runs.
//! Read next: `entrypoint.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::entrypoint::EntryPoint;
use super::units::Place;

/// Every static option, after defaults, file and flags.
#[derive(Clone, Debug, PartialEq)]
pub struct Global {
    pub debug: bool,
    /// Empty: ERROR, or DEBUG with `debug`.
    pub log_level: String,
    pub check_new_version: bool,
    pub send_anonymous_usage: bool,
    pub default_entry_points: Vec<String>,
    pub providers_throttle_duration: Duration,
    pub max_idle_conns_per_host: i64,
    pub insecure_skip_verify: bool,
    pub root_cas: Vec<String>,
    pub keep_trailing_slash: bool,
    pub allow_min_weight_zero: bool,
    pub entry_points: BTreeMap<String, EntryPoint>,
    pub life_cycle: LifeCycle,
    pub responding_timeouts: RespondingTimeouts,
    pub forwarding_timeouts: ForwardingTimeouts,
    /// `[retry]`: `None` is off; attempts 0 means the number of servers.
    pub retry: Option<Retry>,
    pub host_resolver: Option<HostResolver>,
    pub traefik_log: TraefikLog,
    pub file: Option<FileProvider>,
    pub reactor: Reactor,
    // Sections whose features come later are here too, each `Option<its struct>`, so that they parse and warn.
}

/// Life of the process. Zero `request_accept_grace_timeout` closes the listening sockets at once.
#[derive(Clone, Debug, PartialEq)]
pub struct LifeCycle {
    pub request_accept_grace_timeout: Duration,
    /// 10 s unless written; an explicit 0 cuts running requests.
    pub grace_time_out: Duration,
}

/// Zero is none, except `idle_timeout` 0, which is `read_timeout`'s value, or none.
#[derive(Clone, Debug, PartialEq)]
pub struct RespondingTimeouts {
    pub read_timeout: Duration,
    pub write_timeout: Duration,
    pub idle_timeout: Duration,
}

/// Zero is none.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardingTimeouts {
    pub dial_timeout: Duration,
    pub response_header_timeout: Duration,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Retry {
    pub attempts: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HostResolver {
    pub place: Place,
    pub cname_flattening: bool,
    pub resolv_config: String,
    pub resolv_depth: i64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TraefikLog {
    pub file_path: String,
    /// `common` or `json`; empty is `common`.
    pub format: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FileProvider {
    pub place: Place,
    pub directory: String,
    pub filename: String,
    pub watch: bool,
    pub debug_log_generated_template: bool,
}

/// `[reactor]`, ours alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Reactor {
    pub place: Place,
    /// `all`, a count, or a list such as `0-3,8`.
    pub cores: String,
    /// `auto`, `io_uring` or `epoll`.
    pub driver: String,
    pub pin: bool,
}
