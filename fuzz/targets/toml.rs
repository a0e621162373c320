//! Any text as a dynamic configuration: reading it never panics.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = coreway::config::dynamic_from_toml("fuzz.toml", text);
});
