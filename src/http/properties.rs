//! Properties of heads and bodies under random bytes: slow twins, and inverses.

use proptest::collection::vec;
use proptest::prelude::*;

use super::body::{BodyError, BodyReader, Framing};
use super::field::{FieldId, FieldSet};
use super::h1::{Asked, Scan, encode, request, response};
use super::head::Head;

/// Bytes that look like a request: a mostly good one, with a few bytes replaced by awkward ones.
fn almost_request() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => "[A-Za-z-]{1,12}:[ \t]?[ -~]{0,20}",
        1 => Just("Content-Length: 12".to_owned()),
        1 => Just("Transfer-Encoding: chunked".to_owned()),
        1 => Just("Connection: close, X-A".to_owned()),
        1 => Just("Host: h".to_owned()),
    ];
    let awkward = prop::sample::select(b"\r\n\0\t :,;/?#%\x7f\x80\xff\x0b".to_vec());
    let start = prop_oneof![
        Just("GET / HTTP/1.1"),
        Just("GET /%41?a=\"b\" HTTP/1.1"),
        Just("POST http://a:80/x HTTP/1.0"),
        Just("OPTIONS * HTTP/1.1")
    ];
    (
        start,
        vec(line, 0..6),
        vec((any::<prop::sample::Index>(), awkward), 0..3),
    )
        .prop_map(|(start, lines, changes)| {
            let mut text = format!("{start}\r\nHost: h\r\n").into_bytes();
            for line in lines {
                text.extend_from_slice(line.as_bytes());
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"\r\n");
            for (at, byte) in changes {
                let at = at.index(text.len());
                text[at] = byte;
            }
            text
        })
}

type Lines = Vec<(Vec<u8>, Vec<u8>)>;

fn lines(head: &Head) -> Lines {
    head.fields()
        .map(|field| (field.name.to_vec(), field.value.to_vec()))
        .collect()
}

/// What nobody may find in a head, however it came to be.
fn assert_clean(head: &Head) {
    for part in [head.method(), head.target(), head.authority()] {
        assert!(
            !part.iter().any(|&byte| byte <= b' ' || byte >= 0x7f),
            "{:?}",
            String::from_utf8_lossy(part)
        );
    }
    for (name, value) in lines(head) {
        assert!(
            !name.is_empty()
                && name
                    .iter()
                    .all(|&byte| byte > b' ' && byte < 0x7f && byte != b':')
        );
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Writing a head that was read gives a head that reads the same.
    #[test]
    fn encoding_is_the_inverse_of_parsing(text in almost_request()) {
        let mut first = Head::default();
        if let Ok(Some(found)) = request(&text, &mut Scan::default(), &mut first) {
            assert_clean(&first);
            // HTTP/1.0 may lack the Host that HTTP/1.1, which we write, needs.
            prop_assume!(first.has(FieldId::Host));
            let mut out = Vec::new();
            encode::request_line(&mut out, first.method(), first.target());
            encode::fields(&mut out, &first, FieldSet::EMPTY);
            encode::end(&mut out);
            let mut second = Head::default();
            let again = request(&out, &mut Scan::default(), &mut second);
            let again = again.expect("what we write is valid").expect("and whole");
            prop_assert_eq!(second.target(), first.target());
            prop_assert_eq!(second.method(), first.method());
            prop_assert_eq!(second.authority(), first.authority());
            prop_assert_eq!(lines(&second), lines(&first));
            prop_assert_eq!(again.framing, found.framing);
            prop_assert_eq!(again.head_bytes, out.len());
        }
    }

    /// Whatever we accept, `httparse` accepts too, and reads the same lines.
    #[test]
    fn httparse_agrees_with_what_is_accepted(text in almost_request()) {
        let mut head = Head::default();
        if let Ok(Some(found)) = request(&text, &mut Scan::default(), &mut head) {
            let mut fields = [httparse::EMPTY_HEADER; 64];
            let mut twin = httparse::Request::new(&mut fields);
            let is_utf8 = std::str::from_utf8(&text).is_ok();
            match twin.parse(&text) {
                Ok(status) => {
                    prop_assert_eq!(status, httparse::Status::Complete(found.head_bytes));
                    // The one value we change: Host, by the authority of an absolute-form target.
                    let expected: Lines = twin.headers.iter()
                        .map(|field| {
                            let is_host = field.name.eq_ignore_ascii_case("host");
                            let value = if is_host { head.authority() } else { field.value };
                            (field.name.as_bytes().to_vec(), value.to_vec())
                        })
                        .collect();
                    prop_assert_eq!(lines(&head), expected);
                }
                // It wants targets in UTF-8; we escape any bytes.
                Err(httparse::Error::Token) => prop_assert!(!is_utf8),
                // A leading empty line and versions like 1.2 are the only other differences, and not generated.
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
    }

    /// A head that comes in pieces reads like one that comes at once.
    #[test]
    fn pieces_read_like_the_whole(text in almost_request(), cuts in vec(any::<prop::sample::Index>(), 0..4)) {
        let mut whole = Head::default();
        let at_once = request(&text, &mut Scan::default(), &mut whole);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).chain([text.len()]).collect();
        cuts.sort_unstable();
        let mut pieces = Head::default();
        let mut scan = Scan::default();
        let mut last = Ok(None);
        for cut in cuts {
            last = request(&text[..cut], &mut scan, &mut pieces);
            if !matches!(last, Ok(None)) {
                break;
            }
        }
        prop_assert_eq!(last.is_err(), at_once.is_err());
        if let (Ok(last), Ok(at_once)) = (last, at_once) {
            prop_assert_eq!(last, at_once);
            if at_once.is_some() {
                prop_assert_eq!(lines(&pieces), lines(&whole));
            }
        }
    }

    /// No bytes at all make a parser panic or yield a line end.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200), at in 0usize..40) {
        let mut head = Head::default();
        if let Ok(Some(_)) = request(&bytes, &mut Scan::default(), &mut head) {
            assert_clean(&head);
        }
        let mut answer = b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 5\r\n\r\n".to_vec();
        let at = at.min(answer.len());
        answer.splice(at..at, bytes.iter().copied().take(3));
        if let Ok(Some(_)) = response(&answer, &mut Scan::default(), &mut head, Asked::default()) {
            assert_clean(&head);
        }
        let mut body = bytes;
        let _ = BodyReader::new(Framing::Chunked).decode(&mut body, &mut head);
    }

    /// The chunk reader finds what a plain one finds, however the bytes are split.
    #[test]
    fn chunks_read_like_their_slow_twin(
        chunks in vec(vec(any::<u8>(), 1..40), 0..5),
        change in proptest::option::of((any::<prop::sample::Index>(), prop::sample::select(b"\r\n0a;g \0".to_vec()))),
        piece_bytes in 1usize..50,
    ) {
        let mut text = Vec::new();
        for chunk in &chunks {
            encode::chunk_size(&mut text, chunk.len());
            text.extend_from_slice(chunk);
            encode::end(&mut text);
        }
        text.extend_from_slice(encode::LAST_CHUNK);
        if let Some((at, byte)) = change {
            let at = at.index(text.len());
            text[at] = byte;
        } else {
            prop_assert_eq!(slow_twin(&text).map(|found| found.0), Some(chunks.concat()));
        }
        let mut reader = BodyReader::new(Framing::Chunked);
        let mut trailers = Head::default();
        let mut data = Vec::new();
        let mut consumed = 0;
        let mut outcome = Ok(());
        for piece in text.chunks(piece_bytes) {
            let mut piece = piece.to_vec();
            match reader.decode(&mut piece, &mut trailers) {
                Ok(decoded) => {
                    data.extend_from_slice(&piece[decoded.data]);
                    consumed += decoded.consumed;
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        let outcome: Result<(), BodyError> = outcome.and_then(|()| reader.end_of_stream());
        // The twin knows no trailers and no extensions: bodies with those are not compared.
        let is_plain = !text.contains(&b';') && trailers.fields().next().is_none();
        if is_plain {
            prop_assert_eq!(outcome.ok().map(|()| (data, consumed)), slow_twin(&text));
        }
    }
}

/// Chunks read the obvious way: data and bytes consumed, or `None` if anything is wrong or missing.
fn slow_twin(mut text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let all = text.len();
    let mut data = Vec::new();
    loop {
        let end = text.windows(2).position(|pair| pair == b"\r\n")?;
        let line = std::str::from_utf8(&text[..end]).ok()?;
        let size_text = line.trim_end_matches([' ', '\t']);
        if size_text.is_empty() || !size_text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let size = usize::try_from(u64::from_str_radix(size_text, 16).ok()?).ok()?;
        text = &text[end + 2..];
        let (chunk, rest) = text.split_at_checked(size)?;
        data.extend_from_slice(chunk);
        text = rest.strip_prefix(b"\r\n")?;
        if size == 0 {
            return Some((data, all - text.len()));
        }
    }
}
