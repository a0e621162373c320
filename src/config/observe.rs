//! Static options for watching Coreway: API, ping, metrics, access log, tracing. Spec api-metrics-logs.
//!
//! Never serves any of it. Read next: `acme.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::dynamic::Auth;
use super::option::{StatusCodes, options};

/// Name of the entry point that internal routes use unless told otherwise.
pub const INTERNAL_ENTRY_POINT: &str = "traefik";

fn internal_entry_point() -> String {
    INTERNAL_ENTRY_POINT.to_owned()
}

options! {
    /// The API: pages about ourselves, see [operating.md](operating.md#pages-about-ourselves).
    pub struct Api {
        place;
        /// Entry point it is on.
        "entryPoint" entry_point: String = internal_entry_point(),
        /// Leads from `/` to `/dashboard/`, which says that there is none yet.
        "dashboard" dashboard: bool = true,
        /// Has no effect: the global `debug` decides.
        "debug" debug: bool,
        /// Remembers recent errors for `/health`.
        "statistics" statistics: Option<Statistics>,
    }

    /// Recent errors.
    pub struct Statistics {
        /// How many are remembered.
        "recentErrors" recent_errors: i64 = 10,
    }

    /// `/ping`: 200 while the server is well, 503 when it is about to stop.
    pub struct Ping {
        place;
        /// Entry point it is on.
        "entryPoint" entry_point: String = internal_entry_point(),
    }

    /// Configuration by `PUT /api/providers/rest`.
    pub struct Rest {
        place;
        /// Entry point it is on.
        "entryPoint" entry_point: String = internal_entry_point(),
    }

    /// Counters for monitoring systems; each section turns one on.
    pub struct Metrics {
        place;
        /// `/metrics` for Prometheus.
        "prometheus" prometheus: Option<Prometheus>,
        /// Sends to Datadog.
        "datadog" datadog: Option<Datadog>,
        /// Sends to StatsD.
        "statsd" statsd: Option<Statsd>,
        /// Sends to InfluxDB.
        "influxdb" influxdb: Option<InfluxDb>,
    }

    /// `/metrics` for Prometheus.
    pub struct Prometheus {
        place;
        /// Bounds of the histogram of durations, in seconds.
        "buckets" buckets: Vec<f64> = vec![0.1, 0.3, 1.2, 5.0],
        /// Entry point it is on.
        "entryPoint" entry_point: String = internal_entry_point(),
    }

    /// Sending to Datadog.
    pub struct Datadog {
        place;
        /// Where to.
        "address" address: String = "localhost:8125".to_owned(),
        /// How often, as Go text.
        "pushInterval" push_interval: String = "10s".to_owned(),
    }

    /// Sending to StatsD.
    pub struct Statsd {
        place;
        /// Where to.
        "address" address: String = "localhost:8125".to_owned(),
        /// How often, as Go text.
        "pushInterval" push_interval: String = "10s".to_owned(),
    }

    /// Sending to InfluxDB.
    pub struct InfluxDb {
        place;
        /// Where to.
        "address" address: String = "localhost:8089".to_owned(),
        /// `udp` or `http`.
        "protocol" protocol: String = "udp".to_owned(),
        /// How often, as Go text.
        "pushInterval" push_interval: String = "10s".to_owned(),
        /// Database, with `http`.
        "database" database: String,
        /// Retention policy, with `http`.
        "retentionPolicy" retention_policy: String,
    }

    /// A line for every request.
    pub struct AccessLog {
        place;
        /// File to append to. Empty: standard output.
        "filePath" file_path: String,
        /// `common` or `json`.
        "format" format: String = "common".to_owned(),
        /// Lines that may wait for the writer; 0 writes each at once.
        "bufferingSize" buffering_size: i64,
        /// Which requests are logged: those that pass any filter.
        "filters" filters: Option<AccessLogFilters>,
        /// Which fields are logged.
        "fields" fields: Option<AccessLogFields>,
    }

    /// Which requests are logged.
    pub struct AccessLogFilters {
        /// Codes and ranges, such as `200` and `300-302`.
        "statusCodes" status_codes: Vec<StatusCodes>,
        /// Requests that were tried again.
        "retryAttempts" retry_attempts: bool,
        /// Requests that took longer; 0 is no filter.
        "minDuration" min_duration: Duration,
    }

    /// Which fields are logged.
    pub struct AccessLogFields {
        /// `keep` or `drop`.
        "defaultMode" default_mode: String = "keep".to_owned(),
        /// `keep` or `drop` for single fields.
        "names" names: BTreeMap<String, String>,
        /// The same for header fields.
        "headers" headers: Option<AccessLogHeaders>,
    }

    /// Which header fields are logged.
    pub struct AccessLogHeaders {
        /// `keep`, `drop` or `redact`.
        "defaultMode" default_mode: String = "keep".to_owned(),
        /// `keep`, `drop` or `redact` for single header fields.
        "names" names: BTreeMap<String, String>,
    }

    /// Traces of requests.
    pub struct Tracing {
        place;
        /// `jaeger`, `zipkin` or `datadog`.
        "backend" backend: String = "jaeger".to_owned(),
        /// Name we appear under.
        "serviceName" service_name: String = "traefik".to_owned(),
        /// Longest name of a span; 0 is no limit.
        "spanNameLimit" span_name_limit: i64,
        /// Sending to Jaeger.
        "jaeger" jaeger: Option<Jaeger>,
        /// Sending to Zipkin.
        "zipkin" zipkin: Option<Zipkin>,
        /// Sending to Datadog.
        "datadog" datadog: Option<DatadogTracing>,
    }

    /// Traces to Jaeger.
    pub struct Jaeger {
        /// Where sampling is asked for.
        "samplingServerURL" sampling_server_url: String = "http://localhost:5778/sampling".to_owned(),
        /// Kind of sampling.
        "samplingType" sampling_type: String = "const".to_owned(),
        /// Its parameter.
        "samplingParam" sampling_param: f64 = 1.0,
        /// Where spans go.
        "localAgentHostPort" local_agent_host_port: String = "127.0.0.1:6831".to_owned(),
        /// Header field of the trace.
        "traceContextHeaderName" trace_context_header_name: String = "uber-trace-id".to_owned(),
    }

    /// Traces to Zipkin.
    pub struct Zipkin {
        /// Where spans go.
        "httpEndpoint" http_endpoint: String = "http://localhost:9411/api/v1/spans".to_owned(),
        /// One span for both sides of a call.
        "sameSpan" same_span: bool,
        /// Long identifiers.
        "id128Bit" id_128_bit: bool = true,
        /// Keeps every trace.
        "debug" debug: bool,
    }

    /// Traces to Datadog.
    pub struct DatadogTracing {
        /// Where spans go.
        "localAgentHostPort" local_agent_host_port: String = "localhost:8126".to_owned(),
        /// `key:value` on every span.
        "globalTag" global_tag: String,
        /// Logs what is sent.
        "debug" debug: bool,
        /// Lets the agent choose.
        "prioritySampling" priority_sampling: bool,
        /// Header field of the trace.
        "traceIDHeaderName" trace_id_header_name: String,
        /// Header field of the parent span.
        "parentIDHeaderName" parent_id_header_name: String,
        /// Header field of the sampling priority.
        "samplingPriorityHeaderName" sampling_priority_header_name: String,
        /// Prefix of baggage header fields; the spelling is Traefik's.
        "bagagePrefixHeaderName" bagage_prefix_header_name: String,
    }

    /// What API, ping, metrics and REST were before they had sections of their own.
    pub struct Web {
        place;
        /// Address of the entry point `traefik`.
        "address" address: String = ":8080".to_owned(),
        /// Its certificate.
        "certFile" cert_file: String,
        /// The certificate's private key.
        "keyFile" key_file: String,
        /// Has no effect.
        "readOnly" read_only: bool,
        /// Remembers recent errors for `/health`.
        "statistics" statistics: Option<Statistics>,
        /// Counters for monitoring systems.
        "metrics" metrics: Option<Metrics>,
        /// Prefix of all internal routes.
        "path" path: String,
        /// Who may use it.
        "auth" auth: Option<Auth>,
        /// Has no effect: the global `debug` decides.
        "debug" debug: bool,
    }
}
