//! Any text as a template of a configuration file: expanding it ends, within its bounds, in a text or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = coreway::provider::template::render(text);
});
