//! `/health`: what was answered since the start and in this second. Spec api-metrics-logs 2.2.
//!
//! Owns the sums of the last full look and the errors that were taken from the cores. Never counts: cores do.
//! Read next: `telemetry/counter.rs`.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "control plane: it has no clock of a core, and the lock is taken by pages only, on one thread"
)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::text::{self, Object};
use crate::telemetry::counter::Shard;
use crate::telemetry::recent::{Recent, RecentError};

/// How long answers count as those of the present.
pub(super) const WINDOW: Duration = Duration::from_secs(1);

/// What the page is made from.
#[derive(Debug)]
pub(super) struct Health {
    shards: Vec<Arc<Shard>>,
    recent: Option<Arc<Recent>>,
    host_name: String,
    started: Instant,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// At the beginning of the window.
    before: BTreeMap<u16, u64>,
    /// Newest first.
    errors: VecDeque<RecentError>,
}

impl Health {
    pub(super) fn new(
        shards: Vec<Arc<Shard>>,
        recent: Option<Arc<Recent>>,
        host_name: String,
    ) -> Self {
        Self {
            shards,
            recent,
            host_name,
            started: Instant::now(),
            kept: Mutex::default(),
        }
    }

    fn counts(&self) -> BTreeMap<u16, u64> {
        let mut counts = BTreeMap::new();
        for (status, count) in self.shards.iter().flat_map(|shard| shard.answers.counts()) {
            *counts.entry(status).or_default() += count;
        }
        counts
    }

    /// Begins another window.
    pub(super) fn begin_window(&self) {
        let counts = self.counts();
        self.kept().before = counts;
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn page(&self) -> Vec<u8> {
        let uptime = self.started.elapsed();
        let now = OffsetDateTime::now_utc();
        let total = self.counts();
        let of_all =
            |sum: fn(&Shard) -> u64| self.shards.iter().map(|shard| sum(shard)).sum::<u64>();
        let time = Duration::from_nanos(of_all(|shard| shard.answers.time.value()));
        let bytes = of_all(|shard| shard.answers.bytes.value());
        let mut kept = self.kept();
        let present: BTreeMap<u16, u64> = total
            .iter()
            .map(|(status, count)| (*status, count - kept.before.get(status).unwrap_or(&0)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let sum = |counts: &BTreeMap<u16, u64>| counts.values().sum::<u64>();
        let count = sum(&total);
        let average = time
            .checked_div(u32::try_from(count).unwrap_or(u32::MAX))
            .unwrap_or_default();

        let mut out = Vec::new();
        Object::write(&mut out, |page| {
            page.any("pid", std::process::id());
            page.field("hostname", |out| text::string(out, &self.host_name));
            page.text("uptime", &text::duration(uptime));
            page.any("uptime_sec", uptime.as_secs_f64());
            page.text("time", &go_time(now, uptime));
            page.any("unixtime", now.unix_timestamp());
            statuses(page, "status_code_count", &present);
            statuses(page, "total_status_code_count", &total);
            page.any("count", sum(&present));
            page.any("total_count", count);
            page.text("total_response_time", &text::duration(time));
            page.any("total_response_time_sec", time.as_secs_f64());
            page.any("total_response_size", bytes);
            page.any(
                "average_response_size",
                bytes.checked_div(count).unwrap_or(0),
            );
            page.text("average_response_time", &text::duration(average));
            page.any("average_response_time_sec", average.as_secs_f64());
            page.any("total_metrics_counts", "{}");
            page.any("average_metrics_timers", "{}");
            if let Some(recent) = &self.recent {
                while let Some(error) = recent.take() {
                    kept.errors.push_front(error);
                }
                kept.errors.truncate(recent.capacity());
                errors(page, &kept.errors);
            }
        });
        out
    }
}

fn statuses(page: &mut Object<'_>, name: &str, counts: &BTreeMap<u16, u64>) {
    page.field(name, |out| {
        Object::write(out, |object| {
            for (status, count) in counts {
                object.any(&status.to_string(), count);
            }
        });
    });
}

fn errors(page: &mut Object<'_>, errors: &VecDeque<RecentError>) {
    page.field("recent_errors", |out| {
        out.push(b'[');
        for (at, error) in errors.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            Object::write(out, |object| {
                object.any("status_code", error.status);
                let reason = http::StatusCode::from_u16(error.status);
                let reason = reason.ok().and_then(|status| status.canonical_reason());
                object.field("status", |out| {
                    text::string(out, reason.unwrap_or_default())
                });
                object.field("method", |out| text::string(out, &error.method));
                object.field("host", |out| text::string(out, &error.host));
                object.field("path", |out| text::string(out, &error.path));
                object.text("time", &rfc3339(error.at));
            });
        }
        out.push(b']');
    });
}

/// A time as the API says it.
pub(super) fn rfc3339(at: SystemTime) -> String {
    OffsetDateTime::from(at)
        .format(&Rfc3339)
        .unwrap_or_default()
}

/// A time as Go displays one that was read from the clock: with the seconds since the start behind it.
fn go_time(now: OffsetDateTime, uptime: Duration) -> String {
    let format = format_description!(
        "[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:9] +0000 UTC m="
    );
    let text = now.format(format).unwrap_or_default();
    format!("{text}+{:.9}", uptime.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_fields_of_the_reference_in_its_order() {
        let recent = Arc::new(Recent::new(1));
        let shards: Vec<Arc<Shard>> = vec![Arc::default(), Arc::default()];
        shards[0].answers.add(404, 1_000, 19);
        let health = Health::new(shards.clone(), Some(Arc::clone(&recent)), "edge".to_owned());
        health.begin_window();
        shards[1].answers.add(200, 2_001_000, 3);
        for path in ["/old", "/new"] {
            recent.note(RecentError {
                status: 404,
                method: "GET".to_owned(),
                host: "none".to_owned(),
                path: path.to_owned(),
                at: SystemTime::UNIX_EPOCH,
            });
        }
        let page = String::from_utf8(health.page()).expect("text");
        let fields: serde_json::Value = serde_json::from_str(&page).expect("JSON");
        let expected = "\"status_code_count\":{\"200\":1},\"total_status_code_count\":{\"200\":1,\"404\":1},\
             \"count\":1,\"total_count\":2,\"total_response_time\":\"2.002ms\",\"total_response_time_sec\":0.002002,\
             \"total_response_size\":22,\"average_response_size\":11,\"average_response_time\":\"1.001ms\",\
             \"average_response_time_sec\":0.001001,\"total_metrics_counts\":{},\"average_metrics_timers\":{},\
             \"recent_errors\":[{\"status_code\":404,\"status\":\"Not Found\",\"method\":\"GET\",\"host\":\"none\",\
             \"path\":\"/new\",\"time\":\"1970-01-01T00:00:00Z\"}]}";
        assert!(page.ends_with(expected), "{page}");
        let before = page.strip_suffix(expected).expect("seen above");
        let names: Vec<&str> = before
            .split("\":")
            .filter_map(|piece| Some(piece.rsplit_once('"')?.1))
            .filter(|name| !name.is_empty() && !name.contains(' '))
            .collect();
        assert_eq!(
            names,
            [
                "pid",
                "hostname",
                "uptime",
                "uptime_sec",
                "time",
                "unixtime"
            ]
        );
        assert_eq!(fields["hostname"], "edge");
        // Once taken, they are kept here.
        let again = String::from_utf8(health.page()).expect("text");
        assert!(again.contains("\"path\":\"/new\""), "{again}");
    }
}
