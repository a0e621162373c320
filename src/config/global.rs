//! Static configuration: read once, at start. Spec static-config 3.
//!
//! Owns every static option with its default. Never re-read while the process runs.
//! Read next: `entrypoint.rs`, then `observe.rs`, `acme.rs` and `store.rs` for the larger sections.

use std::collections::BTreeMap;
use std::time::Duration;

use super::acme::Acme;
use super::entrypoint::EntryPoint;
use super::observe::{AccessLog, Api, Metrics, Ping, Rest, Tracing, Web};
use super::option::{Constraint, Foreign, options};
use super::store::{BoltDb, Cluster, Consul, Etcd, ZooKeeper};
use crate::limits::{HELD_FILES_BYTES_MAX, HELD_MEMORY_BYTES_MAX};

options! {
    /// Every static option, after defaults, file and flags.
    pub struct Global {
        place;
        /// Logs at level DEBUG, and opens `/debug/` in the API.
        "debug" debug: bool,
        /// `debug`, `info`, `warn`, `error`, `fatal` or `panic`. Empty: ERROR, or DEBUG with `debug`.
        "logLevel" log_level: String,
        /// Has no effect: Coreway never asks for new versions.
        "checkNewVersion" check_new_version: bool = true,
        /// Has no effect: Coreway sends nothing.
        "sendAnonymousUsage" send_anonymous_usage: bool,
        /// Entry points of frontends and certificates that name none.
        "defaultEntryPoints" default_entry_points: Vec<String> = vec!["http".to_owned()],
        /// Shortest time between two updates of one provider.
        "providersThrottleDuration" providers_throttle_duration: Duration = Duration::from_secs(2),
        /// Idle connections kept for one server; 0 is 2.
        "maxIdleConnsPerHost" max_idle_conns_per_host: i64 = 200,
        /// Accepts any certificate from servers.
        "insecureSkipVerify" insecure_skip_verify: bool,
        /// Certificates that servers' must come from, instead of the system's: paths or PEM text.
        "rootCAs" root_cas: Vec<String>,
        /// Leaves a slash at the end of a path alone instead of redirecting.
        "keepTrailingSlash" keep_trailing_slash: bool,
        /// Lets an explicit weight 0 take a server out of the round.
        "allowMinWeightZero" allow_min_weight_zero: bool,
        /// Tags that providers' finds must have: `tag==glob` or `tag!=glob`.
        "constraints" constraints: Vec<Constraint>,
        /// Deprecated: use `lifeCycle.graceTimeOut`.
        "graceTimeOut" grace_time_out: Duration,
        /// Deprecated: use `respondingTimeouts.idleTimeout`.
        "idleTimeout" idle_timeout: Duration,
        /// Deprecated: use `accessLog.filePath`.
        "accessLogsFile" access_logs_file: String,
        /// Deprecated: use `traefikLog.filePath`.
        "traefikLogsFile" traefik_logs_file: String,
        /// The addresses we listen on. None: `http` on `:80`.
        "entryPoints" entry_points: BTreeMap<String, EntryPoint>,
        /// How the process ends.
        "lifeCycle" life_cycle: LifeCycle,
        /// Time limits towards clients.
        "respondingTimeouts" responding_timeouts: RespondingTimeouts,
        /// Time limits towards servers.
        "forwardingTimeouts" forwarding_timeouts: ForwardingTimeouts,
        /// Tries requests again when a server cannot be reached.
        "retry" retry: Option<Retry>,
        /// What the bodies that backends with `buffering` hold may take, Coreway's own section.
        "buffering" buffering: BufferingBounds,
        /// Defaults of health checks.
        "healthCheck" health_check: HealthCheckDefaults,
        /// Follows CNAMEs of hosts in rules.
        "hostResolver" host_resolver: Option<HostResolver>,
        /// Where Coreway's own log goes.
        "traefikLog" traefik_log: TraefikLog,
        /// Logs every request.
        "accessLog" access_log: Option<AccessLog>,
        /// Threads of the data plane, Coreway's own section.
        "reactor" reactor: Reactor,
        /// Frontends and backends from TOML files.
        "file" file: Option<FileProvider>,
        /// Shows the configuration and the dashboard.
        "api" api: Option<Api>,
        /// Answers `/ping`.
        "ping" ping: Option<Ping>,
        /// Takes configuration by HTTP PUT.
        "rest" rest: Option<Rest>,
        /// Counters for monitoring systems.
        "metrics" metrics: Option<Metrics>,
        /// Traces of requests.
        "tracing" tracing: Option<Tracing>,
        /// Deprecated: use `api`, `ping`, `metrics` and `rest`.
        "web" web: Option<Web>,
        /// Certificates obtained and renewed by themselves.
        "acme" acme: Option<Acme>,
        /// Several nodes with one store.
        "cluster" cluster: Option<Cluster>,
        /// Configuration in Consul.
        "consul" consul: Option<Consul>,
        /// Configuration in etcd.
        "etcd" etcd: Option<Etcd>,
        /// Configuration in ZooKeeper.
        "zookeeper" zookeeper: Option<ZooKeeper>,
        /// Configuration in a BoltDB file.
        "boltdb" boltdb: Option<BoltDb>,
        /// Not provided by Coreway.
        "docker" docker: Option<Foreign>,
        /// Not provided by Coreway.
        "marathon" marathon: Option<Foreign>,
        /// Not provided by Coreway.
        "mesos" mesos: Option<Foreign>,
        /// Not provided by Coreway.
        "kubernetes" kubernetes: Option<Foreign>,
        /// Not provided by Coreway.
        "consulCatalog" consul_catalog: Option<Foreign>,
        /// Not provided by Coreway.
        "ecs" ecs: Option<Foreign>,
        /// Not provided by Coreway.
        "rancher" rancher: Option<Foreign>,
        /// Not provided by Coreway.
        "dynamodb" dynamodb: Option<Foreign>,
        /// Not provided by Coreway.
        "eureka" eureka: Option<Foreign>,
        /// Not provided by Coreway.
        "serviceFabric" service_fabric: Option<Foreign>,
    }

    /// Life of the process.
    pub struct LifeCycle {
        /// How long to keep accepting requests after a stop was asked for; 0 closes the listening sockets at once.
        "requestAcceptGraceTimeout" request_accept_grace_timeout: Duration,
        /// How long running requests may then take; 0 cuts them.
        "graceTimeOut" grace_time_out: Duration = Duration::from_secs(10),
    }

    /// Time limits towards clients. Zero is none, except for `idleTimeout`.
    pub struct RespondingTimeouts {
        /// Reading a whole request, body included; 0 is none.
        "readTimeout" read_timeout: Duration,
        /// From the end of the request's head to the end of the answer; 0 is none.
        "writeTimeout" write_timeout: Duration,
        /// Between requests on a kept connection; 0 is the value of `readTimeout`, or none.
        "idleTimeout" idle_timeout: Duration = Duration::from_secs(180),
    }

    /// Time limits towards servers. Zero is none.
    pub struct ForwardingTimeouts {
        /// Connecting to a server; 0 is none.
        "dialTimeout" dial_timeout: Duration = Duration::from_secs(30),
        /// Waiting for the head of its answer; 0 is none.
        "responseHeaderTimeout" response_header_timeout: Duration,
    }

    /// Trying requests again.
    pub struct Retry {
        /// How often; 0 is the number of servers.
        "attempts" attempts: i64,
        /// Further tries for each hundred requests, Coreway's own; left out or 0, there is no limit. See [servers.md](servers.md#retries).
        "budget" budget: Option<i64>,
    }

    /// What all held bodies together may take.
    pub struct BufferingBounds {
        place;
        /// Bytes of memory, over all cores. Over it bodies go to files before their backend asks for it; 0 holds nothing in memory.
        "memoryBytes" memory_bytes: i64 = HELD_MEMORY_BYTES_MAX as i64,
        /// Bytes of files, over all cores, in the folder that `TMPDIR` names (`/tmp`). Over it, and where the disk is full, the answer is 503.
        "fileBytes" file_bytes: i64 = HELD_FILES_BYTES_MAX as i64,
    }

    /// Defaults of health checks.
    pub struct HealthCheckDefaults {
        /// Time between two checks of a server; 0 is 30 s.
        "interval" interval: Duration = Duration::from_secs(30),
    }

    /// CNAMEs of hosts in rules.
    pub struct HostResolver {
        place;
        /// Lets `Host` match requests for hosts whose chain of CNAMEs ends at its name. Hosts that a rule names are not looked up.
        "cnameFlattening" cname_flattening: bool,
        /// File with the name servers to ask, in the form of `resolv.conf`; a port may follow an address.
        "resolvConfig" resolv_config: String = "/etc/resolv.conf".to_owned(),
        /// Another spelling of `resolvConfig`.
        "resolvConf" resolv_conf: String,
        /// Longest chain of CNAMEs to follow.
        "resolvDepth" resolv_depth: i64 = 5,
    }

    /// Coreway's own log.
    pub struct TraefikLog {
        /// File to append to. Empty: standard output.
        "filePath" file_path: String,
        /// `common` or `json`; empty is `common`.
        "format" format: String,
    }

    /// Frontends and backends from TOML files.
    pub struct FileProvider {
        place;
        /// Folder whose `.toml` and `.tmpl` files are all read, with those of its subfolders; goes before `filename`.
        "directory" directory: String,
        /// One file. Empty, with no `directory`: the static file itself.
        "filename" filename: String,
        /// Reads them again when they change.
        "watch" watch: bool = true,
        /// Logs rendered templates at level DEBUG.
        "debugLogGeneratedTemplate" debug_log_generated_template: bool,
        /// Has no effect on files.
        "constraints" constraints: Vec<Constraint>,
        /// Has no effect.
        "trace" trace: bool,
        /// Has no effect.
        "templateVersion" template_version: i64,
    }

    /// Threads of the data plane, Coreway's own section.
    pub struct Reactor {
        place;
        /// `all`, a count, or a list such as `0-3,8`.
        "cores" cores: String = "all".to_owned(),
        /// `auto`, `io_uring` or `epoll`.
        "driver" driver: String = "auto".to_owned(),
        /// Keeps each thread on its core.
        "pin" pin: bool = true,
    }
}

impl Global {
    /// Whether a key-value store is configured.
    pub fn has_store(&self) -> bool {
        self.consul.is_some()
            || self.etcd.is_some()
            || self.zookeeper.is_some()
            || self.boltdb.is_some()
    }
}
