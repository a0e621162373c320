//! Any bytes at the start of a connection: a header, none, or malformed; never longer than what is there, and the same
//! however the bytes arrive.

#![no_main]

use coreway::http::proxy_protocol::{Beginning, beginning};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = beginning(bytes);
    if let Ok(Some(Beginning::Header { bytes: length, .. })) = &whole {
        assert!(*length <= bytes.len());
    }
    // What was decided on a part of it stays so.
    for end in 0..bytes.len() {
        match beginning(&bytes[..end]) {
            Ok(None) => {}
            Err(_) => {
                assert!(whole.is_err());
                return;
            }
            Ok(Some(part)) => {
                assert_eq!(Ok(Some(part)), whole);
                return;
            }
        }
    }
});
