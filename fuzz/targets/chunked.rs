//! Any bytes as chunks: at once and in two pieces they give the same data, end and verdict.

#![no_main]

use coreway::http::{BodyError, BodyReader, Framing, Head};
use libfuzzer_sys::fuzz_target;

type Outcome = Result<(Vec<u8>, usize, bool, usize), BodyError>;

fn read(pieces: &[&[u8]]) -> Outcome {
    let mut reader = BodyReader::new(Framing::Chunked);
    let mut trailers = Head::default();
    let mut data = Vec::new();
    let mut consumed = 0;
    for piece in pieces {
        let mut piece = piece.to_vec();
        let decoded = reader.decode(&mut piece, &mut trailers)?;
        data.extend_from_slice(&piece[decoded.data]);
        consumed += decoded.consumed;
    }
    Ok((data, consumed, reader.finished(), trailers.fields().count()))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, bytes)) = bytes.split_first() else {
        return;
    };
    let (first, second) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(read(&[bytes]), read(&[first, second]));
});
