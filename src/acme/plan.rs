//! Which certificates are to be ordered and renewed, and when to try again. Spec acme 2.
//!
//! Pure: names and times in, orders out. Never talks to anybody. Read next: `order.rs`.

use std::time::{Duration, SystemTime};

use crate::config::acme::AcmeDomain;

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// What lives at least three times as long as this is renewed this long before its end; what lives shorter, when a third
/// of its life is left.
const RENEWED_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Until a failed order is tried again: doubled with every failure, up to the longest.
const AGAIN_FIRST: Duration = Duration::from_secs(60);
const AGAIN_LONGEST: Duration = Duration::from_secs(6 * 60 * 60);
/// How often certificates are looked at though nothing has changed.
pub(super) const LOOK_INTERVAL: Duration = DAY;

/// The certificates of `[[acme.domains]]`, and what is to be said of those that are left out.
///
/// `wildcards`: names can be proved over DNS.
pub(super) fn domains(written: &[AcmeDomain], wildcards: bool) -> (Vec<Vec<String>>, Vec<String>) {
    let mut orders: Vec<Vec<String>> = Vec::new();
    let mut said = Vec::new();
    for domain in written {
        let mut names: Vec<String> = Vec::new();
        for name in std::iter::once(&domain.main).chain(&domain.sans) {
            let clean = name.trim().trim_end_matches('.').to_lowercase();
            if clean.len() != name.len() {
                said.push(format!("{name:?} is taken as {clean:?}"));
            }
            if clean.is_empty() || names.contains(&clean) {
                continue;
            }
            if clean.starts_with("*.*") {
                said.push(format!("unable to generate a wildcard certificate for domain {clean:?}: a second \"*\" is not allowed"));
            } else if clean.starts_with('*') && !wildcards {
                said.push(format!("unable to generate a wildcard certificate for domain {clean:?}: ACME needs a DNSChallenge"));
            } else {
                names.push(clean);
            }
        }
        // As in 1.7: what another entry covers is said once and ordered once.
        names.retain(|name| {
            let covered = orders.iter().flatten().any(|known| covers(known, name));
            if covered {
                said.push(format!(
                    "domain {name:?} is there twice, or covered by a wildcard: ordered once"
                ));
            }
            !covered
        });
        if !names.is_empty() {
            orders.push(names);
        }
    }
    (orders, said)
}

/// Of the names of rules, those sets of which a name has no certificate yet. `known` are the names of certificates.
pub(super) fn missing<'a>(wanted: &'a [Vec<String>], known: &[String]) -> Vec<&'a [String]> {
    let is_missing = |name: &String| !known.iter().any(|known| covers(known, name));
    let mut orders: Vec<&[String]> = Vec::new();
    for names in wanted {
        let ordered = |name: &String| orders.iter().any(|order| order.contains(name));
        if names.iter().any(|name| is_missing(name) && !ordered(name)) {
            orders.push(names);
        }
    }
    orders
}

/// Whether a certificate for `known` is good for `name`. A `*` stands for one label.
pub(super) fn covers(known: &str, name: &str) -> bool {
    if known == name {
        return true;
    }
    match (known.strip_prefix("*."), name.split_once('.')) {
        (Some(domain), Some((_, rest))) => domain == rest,
        _ => false,
    }
}

/// Whether an authority could issue a certificate for it: a host name with a dot (RFC 1123 2.1), no address, no wildcard.
pub(super) fn is_orderable(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253
        && name.contains('.')
        && name.split('.').all(is_label)
        && last.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// When a certificate of this lifetime is to be renewed.
pub(super) fn renewal(not_before: SystemTime, not_after: SystemTime) -> SystemTime {
    let lifetime = not_after.duration_since(not_before).unwrap_or_default();
    not_after - RENEWED_BEFORE.min(lifetime / 3)
}

/// How long to wait after so many failures in a row, the first being 1.
pub(super) fn again_after(failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    AGAIN_FIRST.saturating_mul(doubled).min(AGAIN_LONGEST)
}

/// How long a certificate of this lifetime is not renewed after it was issued, so often within a day. Once is no reason: an
/// authority may want it back at once. A third of its life is no loss: it is not renewed before two thirds are over.
pub(super) fn rest(times: u32, lifetime: Option<(SystemTime, SystemTime)>) -> Duration {
    let Some(times) = times.checked_sub(1).filter(|times| *times > 0) else {
        return Duration::ZERO;
    };
    let longest = lifetime
        .and_then(|(not_before, not_after)| not_after.duration_since(not_before).ok())
        .map_or(AGAIN_LONGEST, |lifetime| lifetime / 3);
    again_after(times).min(longest.max(AGAIN_FIRST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn check_domains(
        written: &[(&str, &[&str])],
        wildcards: bool,
        orders: &[&[&str]],
        said: usize,
    ) {
        let written: Vec<AcmeDomain> = written
            .iter()
            .map(|(main, sans)| AcmeDomain {
                main: (*main).to_owned(),
                sans: owned(sans),
            })
            .collect();
        let (made, told) = domains(&written, wildcards);
        let expected: Vec<Vec<String>> = orders.iter().map(|names| owned(names)).collect();
        assert_eq!((made, told.len()), (expected, said), "{told:?}");
    }

    #[test]
    fn domains_are_cleaned_and_ordered_once() {
        check_domains(
            &[("A.test.", &["b.test", "b.test"])],
            false,
            &[&["a.test", "b.test"]],
            1,
        );
        check_domains(&[("*.a.test", &["a.test"])], false, &[&["a.test"]], 1);
        check_domains(
            &[("*.a.test", &["a.test"])],
            true,
            &[&["*.a.test", "a.test"]],
            0,
        );
        check_domains(&[("*.*.test", &[])], true, &[], 1);
        check_domains(
            &[("*.a.test", &[]), ("b.a.test", &[]), ("c.test", &[])],
            true,
            &[&["*.a.test"], &["c.test"]],
            1,
        );
        check_domains(&[("", &[])], true, &[], 0);
    }

    fn check_missing(wanted: &[&[&str]], known: &[&str], orders: &[&[&str]]) {
        let wanted: Vec<Vec<String>> = wanted.iter().map(|names| owned(names)).collect();
        let expected: Vec<Vec<String>> = orders.iter().map(|names| owned(names)).collect();
        assert_eq!(missing(&wanted, &owned(known)), expected);
    }

    #[test]
    fn a_rule_is_ordered_whole_if_a_name_of_it_is_missing() {
        check_missing(
            &[&["a.test", "b.test"]],
            &["a.test"],
            &[&["a.test", "b.test"]],
        );
        check_missing(&[&["a.test", "b.test"]], &["*.test"], &[]);
        check_missing(&[&["a.b.test"]], &["*.test"], &[&["a.b.test"]]);
        check_missing(
            &[&["a.test"], &["a.test"], &["b.test", "a.test"]],
            &[],
            &[&["a.test"], &["b.test", "a.test"]],
        );
        check_missing(&[], &[], &[]);
    }

    #[test]
    fn only_host_names_are_ordered() {
        for name in ["a.test", "a-b.c1.test", "xn--bcher-kva.example"] {
            assert!(is_orderable(name), "{name}");
        }
        let long = format!("{}.test", "a".repeat(64));
        for name in [
            "", "test", "*.test", "10.0.0.1", "a..test", ".test", "a_b.test", "-a.test", &long,
        ] {
            assert!(!is_orderable(name), "{name}");
        }
    }

    #[test]
    fn short_lives_are_renewed_at_two_thirds() {
        let at = |days: u32| SystemTime::UNIX_EPOCH + DAY * days;
        assert_eq!(renewal(at(0), at(90)), at(60));
        assert_eq!(renewal(at(0), at(365)), at(335));
        assert_eq!(renewal(at(0), at(6)), at(4));
        assert_eq!(renewal(at(6), at(0)), at(0));
    }

    #[test]
    fn failures_are_tried_again_ever_later() {
        let minutes: Vec<u64> = [1, 2, 3, 9, 10, 40]
            .map(|failures| again_after(failures).as_secs() / 60)
            .into();
        assert_eq!(minutes, [1, 2, 4, 256, 360, 360]);
    }

    #[test]
    fn what_was_issued_rests_ever_longer_but_not_past_its_time() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let check = |seconds: Option<u64>, minutes: [u64; 5]| {
            let lifetime = seconds.map(|seconds| (at(0), at(seconds)));
            let rests = [0, 1, 2, 3, 20].map(|times| rest(times, lifetime).as_secs() / 60);
            assert_eq!(rests, minutes, "{seconds:?}");
        };
        check(None, [0, 0, 1, 2, 360]);
        check(Some(90 * 24 * 60 * 60), [0, 0, 1, 2, 360]);
        check(Some(60 * 60), [0, 0, 1, 2, 20]);
        check(Some(30), [0, 0, 1, 1, 1]);
    }
}
