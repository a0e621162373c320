//! Any bytes as a request: no panic, and what is accepted reads the same once written anew.

#![no_main]

use coreway::http::h1::{Scan, encode, request};
use coreway::http::{FieldId, FieldSet, Head};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut head = Head::default();
    let Ok(Some(found)) = request(bytes, &mut Scan::default(), &mut head) else {
        return;
    };
    assert!(found.head_bytes <= bytes.len());
    let mut out = Vec::new();
    encode::request_line(&mut out, head.method(), head.target());
    if !head.has(FieldId::Host) {
        encode::field(&mut out, b"Host", b"none");
    }
    encode::fields(&mut out, &head, FieldSet::EMPTY);
    encode::end(&mut out);
    let mut again = Head::default();
    let second = request(&out, &mut Scan::default(), &mut again).expect("what we write is valid");
    let second = second.expect("what we write is whole");
    assert_eq!(second.framing, found.framing);
    assert_eq!(second.head_bytes, out.len());
    assert_eq!(again.target(), head.target());
    let added = usize::from(!head.has(FieldId::Host));
    assert_eq!(again.fields().count(), head.fields().count() + added);
    head.strip_hop_by_hop();
});
