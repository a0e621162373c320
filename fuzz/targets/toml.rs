//! Any text as a dynamic configuration: reading it never panics, and whatever is read can be compiled: expressions, users,
//! certificates, lists and all.

#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use coreway::compile::{Memory, World, compile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok((dynamic, _)) = coreway::config::dynamic_from_toml("fuzz.toml", text) {
        let world = World {
            entry_points: vec!["http".to_owned()],
            default_entry_points: vec!["http".to_owned()],
            ..World::default()
        };
        let providers = BTreeMap::from([("file".to_owned(), Arc::new(dynamic))]);
        let mut memory = Memory::default();
        let compiled = compile(&providers, &world, &mut memory);
        let again = compile(&providers, &world, &mut memory);
        assert_eq!(compiled.rejections.len(), again.rejections.len());
    }
});
