//! Any bytes as a response: no panic, and what is accepted has clean lines and one meaning.

#![no_main]

use coreway::http::h1::{Asked, Scan, response};
use coreway::http::{Framing, Head};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut head = Head::default();
    let asked = Asked { head: bytes.len() % 5 == 0, upgrade: bytes.len() % 7 == 0 };
    let Ok(Some(found)) = response(bytes, &mut Scan::default(), &mut head, asked) else {
        return;
    };
    assert!(found.head_bytes <= bytes.len());
    assert!(!(found.persistent && found.framing == Framing::UntilClose));
    for field in head.fields() {
        assert!(!field.name.is_empty());
        assert!(!field.value.iter().chain(field.name).any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
    head.strip_hop_by_hop();
});
