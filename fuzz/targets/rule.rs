//! Any text is a rule or an error; whatever parses can also be compiled, and no request breaks what comes out.

#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use coreway::compile::{Memory, World, compile, rule};
use coreway::config::{Dynamic, dynamic};
use coreway::frontend::Scratch;
use coreway::frontend::trie::Lookup;
use coreway::http::Head;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8])| {
    let (text, target) = input;
    if rule::parse(text).is_err() {
        return;
    }
    let route = dynamic::Route {
        rule: text.to_owned(),
        ..dynamic::Route::default()
    };
    let frontend = dynamic::Frontend {
        backend: "b".to_owned(),
        routes: BTreeMap::from([("r".to_owned(), route)]),
        ..dynamic::Frontend::default()
    };
    let written = Dynamic {
        backends: BTreeMap::from([("b".to_owned(), dynamic::Backend::default().into())]),
        frontends: BTreeMap::from([("f".to_owned(), frontend.into())]),
        ..Dynamic::default()
    };
    let world = World {
        entry_points: vec!["http".to_owned()],
        default_entry_points: vec!["http".to_owned()],
        ..World::default()
    };
    let providers = BTreeMap::from([("file".to_owned(), Arc::new(written))]);
    let snapshot = compile(&providers, &world, &mut Memory::default())
        .snapshots
        .remove(0);

    let mut head = Head::default();
    head.set_method(b"GET");
    head.set_authority(b"a.test:80");
    head.set_target(&[b"/", target].concat());
    let mut scratch = Scratch::default();
    if let Lookup::Frontend(id) = snapshot.tries[0].lookup(&head, &mut scratch) {
        if snapshot
            .frontend(id)
            .modifiers
            .apply(&mut head, &mut scratch)
            .is_ok()
        {
            assert!(head.target().starts_with(b"/"));
        }
    }
});
