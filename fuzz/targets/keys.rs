//! Any tree of a key-value store, one `key=value` on a line: reading it never panics, and reading it once more, as after a
//! change, says the same.

#![no_main]

use coreway::config::{DynamicKeys, Pair};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let pairs = || {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| Pair::new(key, value.as_bytes()))
            .collect()
    };
    let mut keys = DynamicKeys::new(Vec::new());
    let (first, _) = keys.read("traefik", pairs());
    let (again, problems) = keys.read("traefik", pairs());
    assert_eq!(first, again);
    assert!(problems.errors.is_empty() && problems.warnings.is_empty());
});
