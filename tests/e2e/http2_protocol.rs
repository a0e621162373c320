//! What a client may not do over HTTP/2, rule by rule: a stream or the connection ends, and no server hears of it. And what
//! it may do however odd it looks. One line is one case, with its section of RFC 9113 (HPACK: RFC 7541).

use crate::harness::h2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GET, GOAWAY, HEADERS, Outcome, PING,
    POST, PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, fields, frame,
};
use crate::harness::tls::{Authority, TlsClient};
use crate::harness::{Coreway, Origin, Start, site};

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;

const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 32;

/// What has to become of stream 1.
enum Expected {
    /// It is answered.
    Fine,
    /// The connection ends, with this reason.
    Connection(u32),
    /// The stream is reset, or the connection ends (5.4.1 allows to treat the first as the second).
    Error,
    /// The same for this reason, or the end without a word.
    Reset(u32),
    /// It is reset, or answered so.
    Refused(u16),
}
use Expected::{Connection, Error, Fine, Refused, Reset};

struct Table {
    coreway: Coreway,
    origin: Origin,
}

impl Table {
    fn new() -> Self {
        let origin = Origin::text("ok");
        Self {
            coreway: Coreway::before(&origin),
            origin,
        }
    }

    /// Sends `frames` on a new connection, behind preface and settings.
    #[track_caller]
    fn check(&self, what: &str, frames: &[Vec<u8>], expected: Expected) {
        let mut client = Frames::greet(self.coreway.address());
        client.send(frames.concat());
        let outcome = match client.outcome(1) {
            // Where a body is still to come, what is wrong may be found after the answer has begun.
            Outcome::Status(200) if !matches!(expected, Fine) => client.outcome(1),
            outcome => outcome,
        };
        let is_as_expected = match expected {
            Fine => outcome == Outcome::Status(200),
            Connection(reason) => outcome == Outcome::GoAway(reason),
            Error => outcome.is_error(),
            Reset(reason) => match outcome {
                Outcome::Reset(told) | Outcome::GoAway(told) => told == reason,
                Outcome::Closed => true,
                Outcome::Status(_) => false,
            },
            Refused(status) => outcome == Outcome::Status(status) || outcome.is_error(),
        };
        assert!(is_as_expected, "{what}: {outcome:?}");
    }

    /// Sends `frames` on a new connection, and sees that it goes on: stream 101 is answered.
    #[track_caller]
    fn goes_on(&self, what: &str, frames: &[Vec<u8>]) {
        let mut client = Frames::greet(self.coreway.address());
        client.send(frames.concat());
        client.ask(101, &GET);
        assert_eq!(client.outcome(101), Outcome::Status(200), "{what}");
    }

    /// As `check`, for requests that no server may see.
    #[track_caller]
    fn check_unseen(&self, what: &str, frames: &[Vec<u8>], expected: Expected) {
        let before = self.origin.requests().len();
        self.check(what, frames, expected);
        assert_eq!(
            self.origin.requests().len(),
            before,
            "{what}: a server saw it"
        );
    }
}

fn headers(flags: u8, lines: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, 1, &fields(lines))
}

fn get() -> Vec<u8> {
    headers(END_STREAM, &GET)
}

fn data(flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, payload)
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    let mut payload = id.to_be_bytes().to_vec();
    payload.extend_from_slice(&value.to_be_bytes());
    frame(SETTINGS, 0, 0, &payload)
}

fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

#[test]
fn frames_are_of_their_size_and_place() {
    let table = Table::new();
    let check = |what, frames: &[Vec<u8>], expected| table.check(what, frames, expected);
    check(
        "4.1 a frame of unknown kind",
        &[frame(0xee, 0xff, 0, b"what"), get()],
        Fine,
    );
    check(
        "4.1 flags that mean nothing",
        &[frame(PING, 0xfe, 0, &[0; 8]), get()],
        Fine,
    );
    check(
        "4.1 the reserved bit",
        &[frame(PING, 0, 1 << 31, &[0; 8]), get()],
        Fine,
    );
    check(
        "4.2 the longest frame",
        &[headers(0, &POST), data(END_STREAM, 1, &[0; 16_384])],
        Fine,
    );
    check(
        "4.2 longer data",
        &[headers(0, &POST), data(END_STREAM, 1, &[0; 16_385])],
        Connection(FRAME_SIZE_ERROR),
    );
    check(
        "4.2 longer fields",
        &[frame(HEADERS, 5, 1, &[0; 16_385])],
        Connection(FRAME_SIZE_ERROR),
    );
    check(
        "6.1 data of no stream",
        &[data(0, 0, b"x")],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "6.1 more padding than data",
        &[headers(0, &POST), data(PADDED | END_STREAM, 1, &[9, 0])],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "6.1 padding",
        &[
            headers(0, &POST),
            data(PADDED | END_STREAM, 1, &[3, b'x', 0, 0, 0]),
        ],
        Fine,
    );
    check(
        "6.2 fields of no stream",
        &[frame(HEADERS, 5, 0, &fields(&GET))],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "6.2 more padding than fields",
        &[frame(HEADERS, PADDED | 5, 1, &[9, 0])],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "6.3 the priority of no stream",
        &[frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 9])],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "6.3 a priority too short",
        &[frame(PRIORITY, 0, 1, &[0; 4]), get()],
        Error,
    );
    check(
        "6.3 a priority",
        &[frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 9]), get()],
        Fine,
    );
    check(
        "5.3.1 a stream before itself",
        &[frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 9]), get()],
        Error,
    );
    let mut block = vec![0, 0, 0, 1, 9];
    block.extend(fields(&GET));
    check(
        "5.3.1 a stream opened before itself",
        &[frame(HEADERS, WITH_PRIORITY | 5, 1, &block)],
        Error,
    );
    check(
        "6.4 a reset of no stream",
        &[frame(RST_STREAM, 0, 0, &[0; 4])],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "6.4 a reset too short",
        &[get(), frame(RST_STREAM, 0, 1, &[0; 3])],
        Error,
    );
    check(
        "6.6 a push from a client",
        &[headers(0, &POST), frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2])],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "6.7 a ping on a stream",
        &[frame(PING, 0, 1, &[0; 8])],
        Connection(PROTOCOL_ERROR),
    );
    check("6.7 a short ping", &[frame(PING, 0, 0, &[0; 6])], Error);
    check(
        "6.8 a goodbye on a stream",
        &[frame(GOAWAY, 0, 1, &[0; 8])],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "6.8 a goodbye, and a last request before it",
        &[get(), frame(GOAWAY, 0, 0, &[0; 8])],
        Fine,
    );
    check("6.9 no window", &[window(0, 0)], Connection(PROTOCOL_ERROR));
    check(
        "6.9 no window on a stream",
        &[headers(0, &POST), window(1, 0)],
        Error,
    );
    check(
        "6.9 a short window",
        &[frame(WINDOW_UPDATE, 0, 0, &[0; 3])],
        Error,
    );
    check(
        "6.9.1 too large a window",
        &[window(0, 0x7fff_ffff), window(0, 1)],
        Connection(FLOW_CONTROL_ERROR),
    );
    check(
        "6.9.1 too large a window on a stream",
        &[headers(0, &POST), window(1, 0x7fff_ffff), window(1, 1)],
        Error,
    );
    check(
        "6.10 fields in three frames",
        &[
            frame(HEADERS, END_STREAM, 1, &fields(&GET[..1])),
            frame(CONTINUATION, 0, 1, &fields(&GET[1..2])),
            frame(CONTINUATION, END_HEADERS, 1, &fields(&GET[2..])),
        ],
        Fine,
    );
    check(
        "6.10 fields that go on after their end",
        &[get(), frame(CONTINUATION, 4, 1, &[])],
        Error,
    );
    check(
        "6.10 fields that go on for another",
        &[
            frame(HEADERS, 1, 1, &fields(&GET)),
            frame(CONTINUATION, 4, 3, &[]),
        ],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "6.10 fields that go on for no stream",
        &[
            frame(HEADERS, 1, 1, &fields(&GET)),
            frame(CONTINUATION, 4, 0, &[]),
        ],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "6.10 fields that go on after they went on to their end",
        &[
            frame(HEADERS, 1, 1, &fields(&GET)),
            frame(CONTINUATION, 4, 1, &[]),
            frame(CONTINUATION, 4, 1, &[]),
        ],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "6.10 fields that go on after data",
        &[
            headers(0, &POST),
            data(0, 1, b"x"),
            frame(CONTINUATION, 4, 1, &[]),
        ],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "6.2 a priority between",
        &[
            frame(HEADERS, 1, 1, &fields(&GET)),
            frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]),
        ],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "4.3 fields of another stream between",
        &[
            frame(HEADERS, 1, 1, &fields(&GET)),
            frame(HEADERS, 5, 3, &fields(&GET)),
        ],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "6.10 something between",
        &[
            frame(HEADERS, 1, 1, &fields(&GET)),
            frame(PING, 0, 0, &[0; 8]),
        ],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "6.10 unknown between",
        &[frame(HEADERS, 1, 1, &fields(&GET)), frame(0xee, 0, 1, &[])],
        Connection(PROTOCOL_ERROR),
    );
}

#[test]
fn settings_are_what_they_may_be() {
    let table = Table::new();
    let check = |what, frames: &[Vec<u8>], expected| table.check(what, frames, expected);
    check(
        "6.5 confirmed with something",
        &[frame(SETTINGS, ACK, 0, &[0; 6])],
        Error,
    );
    check(
        "6.5 of a stream",
        &[frame(SETTINGS, 0, 1, &[])],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "6.5 of odd length",
        &[frame(SETTINGS, 0, 0, &[0; 7])],
        Error,
    );
    check("6.5.2 push", &[setting(2, 2)], Connection(PROTOCOL_ERROR));
    check(
        "6.5.2 a window too large",
        &[setting(4, 0x8000_0000)],
        Error,
    );
    check(
        "6.5.2 a frame too small",
        &[setting(5, 16_383)],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "6.5.2 a frame too large",
        &[setting(5, 16_777_216)],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "6.5.2 one that nobody knows",
        &[setting(0xff, 7), get()],
        Fine,
    );
    check(
        "6.5.2 the same again",
        &[setting(4, 100), setting(4, 70_000), get()],
        Fine,
    );
    check(
        "6.5.3 confirmed twice",
        &[frame(SETTINGS, ACK, 0, &[]), frame(SETTINGS, ACK, 0, &[])],
        Connection(PROTOCOL_ERROR),
    );
    let mut client = Frames::greet(table.coreway.address());
    client.send(frame(PING, 0, 0, b"12345678"));
    let pong = std::iter::from_fn(|| client.next())
        .find(|frame| frame.kind == PING)
        .unwrap();
    assert_eq!(
        (pong.flags, pong.payload.as_slice()),
        (ACK, &b"12345678"[..]),
        "6.7"
    );
}

#[test]
fn windows_are_kept_to() {
    let table = Table::new();
    let mut client = Frames::greet(table.coreway.address());
    client.send(setting(4, 1));
    client.send(get());
    assert_eq!(client.outcome(1), Outcome::Status(200));
    let first = client.event().unwrap();
    assert_eq!(
        (first.kind, first.flags, first.payload.as_slice()),
        (DATA, 0, &b"o"[..]),
        "6.9.2"
    );
    client.send(window(1, 1));
    let last = client.event().unwrap();
    assert_eq!(
        (last.kind, last.flags, last.payload.as_slice()),
        (DATA, END_STREAM, &b"k"[..])
    );
    // A window that is taken back below nothing: what is sent waits until it is above it again.
    let mut client = Frames::greet(table.coreway.address());
    client.send([setting(4, 1), get()].concat());
    assert_eq!(client.outcome(1), Outcome::Status(200));
    assert_eq!(client.event().unwrap().payload, b"o");
    client.send([setting(4, 0), window(1, 1), window(1, 1)].concat());
    assert_eq!(client.event().unwrap().payload, b"k");
}

#[test]
fn streams_open_and_close_in_order() {
    let table = Table::new();
    let check = |what, frames: &[Vec<u8>], expected| table.check(what, frames, expected);
    check(
        "5.1 data before fields",
        &[data(0, 1, b"x")],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "5.1 a reset before fields",
        &[frame(RST_STREAM, 0, 1, &[0; 4])],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "5.1 a window before fields",
        &[window(1, 1)],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "5.1 fields that go on before they begin",
        &[frame(CONTINUATION, 4, 1, &[])],
        Connection(PROTOCOL_ERROR),
    );
    let reset = || frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes());
    check("5.1 data after the end", &[get(), data(0, 1, b"x")], Error);
    check("5.1 fields after the end", &[get(), get()], Error);
    check(
        "5.1 data after a reset",
        &[headers(0, &POST), reset(), data(0, 1, b"x")],
        Error,
    );
    check(
        "5.1 fields after a reset",
        &[headers(0, &POST), reset(), get()],
        Error,
    );
    for (what, begun) in [
        ("the end", vec![get()]),
        ("a reset", vec![headers(0, &POST), reset()]),
    ] {
        let frames = [
            begun,
            vec![frame(CONTINUATION, 4, 1, &fields(&[("x-a", "1")]))],
        ]
        .concat();
        table.check(
            &format!("5.1 fields that go on after {what}"),
            &frames,
            Reset(PROTOCOL_ERROR),
        );
    }
    check(
        "5.1.1 an even number",
        &[frame(HEADERS, 5, 2, &fields(&GET))],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "5.1.1 a number that was passed over",
        &[frame(HEADERS, 5, 5, &fields(&GET)), get()],
        Connection(PROTOCOL_ERROR),
    );
    check(
        "8.1 fields twice",
        &[headers(0, &POST), headers(0, &[("x-a", "1")])],
        Error,
    );
    check(
        "8.1 trailers",
        &[
            headers(0, &POST),
            data(0, 1, b"x"),
            headers(END_STREAM, &[("x-a", "1")]),
        ],
        Fine,
    );
    check(
        "8.1 trailers with a pseudo field",
        &[
            headers(0, &POST),
            data(0, 1, b"x"),
            headers(END_STREAM, &[(":method", "200")]),
        ],
        Reset(PROTOCOL_ERROR),
    );
    check(
        "8.1 trailers with a pseudo field that the static table names",
        &[headers(0, &POST), frame(HEADERS, 5, 1, b"\x42\x03200")],
        Reset(PROTOCOL_ERROR),
    );
    check(
        "8.1 trailers about the connection",
        &[
            headers(0, &POST),
            headers(END_STREAM, &[("connection", "close")]),
        ],
        Error,
    );
    let mut client = Frames::greet(table.coreway.address());
    for stream in 0..101 {
        client.send(frame(HEADERS, END_HEADERS, 2 * stream + 1, &fields(&POST)));
    }
    let outcome = client.outcome(201);
    assert!(
        [
            Outcome::Reset(REFUSED_STREAM),
            Outcome::Reset(PROTOCOL_ERROR)
        ]
        .contains(&outcome),
        "5.1.2 one stream too many: {outcome:?}"
    );
}

#[test]
fn requests_are_whole_and_clear() {
    let table = Table::new();
    let without = |name: &str| {
        let lines: Vec<_> = GET
            .iter()
            .copied()
            .filter(|(known, _)| *known != name)
            .collect();
        headers(END_STREAM, &lines)
    };
    let with = |line: (&'static str, &'static str)| {
        let mut lines = GET.to_vec();
        lines.push(line);
        headers(END_STREAM, &lines)
    };
    let instead = |name: &str, value: &'static str| {
        let lines: Vec<_> = GET
            .iter()
            .map(|line| {
                if line.0 == name {
                    (line.0, value)
                } else {
                    *line
                }
            })
            .collect();
        headers(END_STREAM, &lines)
    };
    let check =
        |what: &str, frames: Vec<u8>, expected| table.check_unseen(what, &[frames], expected);
    for (name, value) in [
        ("X-Upper", "1"),
        ("connection", "close"),
        ("connection", "x-a"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, deflate"),
        (":unknown", "1"),
        (":status", "200"),
        (":path", "/"),
        (":method", "GET"),
        (":protocol", "websocket"),
        ("x-a", "a\r\nb: c"),
        ("x-a", "a\nb"),
        ("x-a", "a\rb"),
        ("x-a", "a\0b"),
        ("x a", "1"),
        ("x-a\r\nb", "1"),
        ("x:a", "1"),
        ("", "1"),
        ("content-length", "1"),
        ("content-length", "0, 0"),
        ("host", "other"),
    ] {
        check(
            &format!("8.2 {name:?}: {value:?}"),
            with((name, value)),
            Error,
        );
    }
    for name in [":method", ":scheme", ":path"] {
        check(&format!("8.3.1 without {name}"), without(name), Error);
    }
    check("8.3.1 without a host", without(":authority"), Refused(400));
    check(
        "8.3 a pseudo field after another",
        headers(END_STREAM, &[("x-a", "1"), GET[0], GET[1], GET[2], GET[3]]),
        Error,
    );
    for (name, value) in [
        (":path", ""),
        (":path", "a"),
        (":path", "*"),
        (":path", "/a b"),
        (":path", "/a\r\nb"),
        (":path", "/a\0"),
        (":path", "/%zz"),
        (":method", ""),
        (":method", "GET /"),
        (":method", "G\r\nET"),
        (":authority", ""),
        (":authority", "a b"),
        (":authority", "a\r\nb"),
        (":authority", "a,b"),
        (":authority", "user@a"),
        (":authority", "a/b"),
        (":scheme", "ht tp"),
    ] {
        check(
            &format!("8.3.1 {name} {value:?}"),
            instead(name, value),
            Refused(400),
        );
    }
    table.check(
        "8.2.2 trailers are welcome",
        &[with(("te", "trailers"))],
        Fine,
    );
    table.check("8.3.1 the host twice", &[with(("host", "test"))], Fine);
    let mut client = Frames::greet(table.coreway.address());
    let lines: Vec<_> = without_authority()
        .into_iter()
        .chain([("host", "test")])
        .collect();
    client.ask(1, &lines);
    assert_eq!(
        client.outcome(1),
        Outcome::Status(200),
        "8.3.1 a host instead"
    );
}

fn without_authority() -> Vec<(&'static str, &'static str)> {
    GET.iter()
        .copied()
        .filter(|(name, _)| *name != ":authority")
        .collect()
}

#[test]
fn a_length_is_what_comes() {
    let table = Table::new();
    let post = |length: &'static str| {
        let mut lines = POST.to_vec();
        lines.push(("content-length", length));
        headers(0, &lines)
    };
    let check = |what, frames: &[Vec<u8>], expected| table.check(what, frames, expected);
    check(
        "8.1.1 as told",
        &[post("3"), data(END_STREAM, 1, b"abc")],
        Fine,
    );
    check(
        "8.1.1 in pieces",
        &[
            post("3"),
            data(0, 1, b"a"),
            data(0, 1, b"bc"),
            data(END_STREAM, 1, b""),
        ],
        Fine,
    );
    for (what, frames) in [
        ("too little", [post("3"), data(END_STREAM, 1, b"ab")]),
        ("too much", [post("3"), data(END_STREAM, 1, b"abcd")]),
        (
            "too much of nothing",
            [post("0"), data(END_STREAM, 1, b"a")],
        ),
        (
            "too little before trailers",
            [post("3"), headers(END_STREAM, &[("x-a", "1")])],
        ),
    ] {
        let mut client = Frames::greet(table.coreway.address());
        client.send(frames.concat());
        let outcome = client.outcome(1);
        assert!(outcome.is_error(), "8.1.1 {what}: {outcome:?}");
    }
    // A request of no length is whole with its head; of the others only the good ones are.
    let seen = table.origin.requests();
    let bodies: Vec<_> = seen
        .iter()
        .filter_map(|one| Some(&one.body.as_ref()?.bytes))
        .collect();
    assert_eq!(
        bodies
            .iter()
            .filter(|body| body.as_slice() == b"abc")
            .count(),
        2,
        "{seen:?}"
    );
    assert!(
        bodies
            .iter()
            .all(|body| body.is_empty() || body.as_slice() == b"abc"),
        "{seen:?}"
    );
}

#[test]
fn header_blocks_are_what_hpack_allows() {
    let table = Table::new();
    let block = |bytes: &[u8]| {
        let mut block = fields(&GET);
        block.extend_from_slice(bytes);
        frame(HEADERS, 5, 1, &block)
    };
    let first = |bytes: &[u8]| {
        let mut block = bytes.to_vec();
        block.extend(fields(&GET));
        frame(HEADERS, 5, 1, &block)
    };
    let check =
        |what: &str, frames: Vec<u8>, expected| table.check_unseen(what, &[frames], expected);
    check("2.3.3 a place that there is not", block(&[0xfe]), Error);
    check("6.1 place 0", block(&[0x80]), Error);
    check(
        "5.1 an integer without end",
        block(&[
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ]),
        Error,
    );
    check("5.2 a text that is cut", block(&[0x00, 0x05, b'a']), Error);
    check(
        "5.2 Huffman padding too long",
        block(&[
            0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x84, 0x49, 0x50, 0x9f, 0xff,
        ]),
        Error,
    );
    check(
        "5.2 Huffman padding of zeros",
        block(&[
            0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x83, 0x49, 0x50, 0x90,
        ]),
        Error,
    );
    check(
        "5.2 Huffman with an end in it",
        block(&[
            0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x87, 0x4a, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0xff,
        ]),
        Error,
    );
    check(
        "6.3 a table larger than ours",
        first(&[0x3f, 0xe2, 0x1f]),
        Error,
    );
    check("4.2 a table that changes at the end", block(&[0x20]), Error);
    table.check("6.3 a smaller table", &[first(&[0x20])], Fine);
    check(
        "4.3 a block that is none ends the connection: its table is lost",
        frame(HEADERS, 5, 1, &[0xfe]),
        Error,
    );
    check(
        "2.3.3 a name from a place that there is not",
        block(&[0x7f, 0x10, 1, b'a']),
        Error,
    );
}

/// RFC 7541, Appendix C: each way to write a field.
#[test]
fn fields_are_understood_however_they_are_written() {
    let table = Table::new();
    let mut client = Frames::greet(table.coreway.address());
    // GET, http and / by their places; the host in the table from here on.
    client.send(frame(HEADERS, 5, 1, b"\x82\x86\x84\x41\x04test"));
    assert_eq!(client.outcome(1), Outcome::Status(200));
    // The host by its place in the table, and ...
    let mut stream = 1;
    for (what, line, expected) in [
        ("new name, kept", &b"\x40\x03x-a\x01b"[..], ("x-a", "b")),
        ("the same by its place", b"\xbe", ("x-a", "b")),
        ("its name, kept", b"\x7e\x01c", ("x-a", "c")),
        ("its name, not kept", b"\x0f\x2f\x01d", ("x-a", "d")),
        ("its name, never", b"\x1f\x2f\x01e", ("x-a", "e")),
        ("new name, not kept", b"\x00\x03x-b\x01f", ("x-b", "f")),
        ("new name, never", b"\x10\x03x-c\x01g", ("x-c", "g")),
        (
            "a name of the static table, kept",
            b"\x53\x03a/b",
            ("accept", "a/b"),
        ),
        (
            "a name of the static table, not kept",
            b"\x0f\x04\x03c/d",
            ("accept", "c/d"),
        ),
        (
            "a name of the static table, never",
            b"\x1f\x04\x03e/f",
            ("accept", "e/f"),
        ),
        (
            "Huffman, kept",
            b"\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
            ("custom-key", "custom-value"),
        ),
        (
            "Huffman, not kept",
            b"\x00\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x01h",
            ("custom-key", "h"),
        ),
        (
            "Huffman, never",
            b"\x10\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x01i",
            ("custom-key", "i"),
        ),
        (
            "Huffman, the name of the static table",
            b"\x0f\x0c\x82\x64\x02",
            ("content-language", "302"),
        ),
    ] {
        stream += 2;
        // A literal that no table remembers for the host: its place there moves with every field that is kept.
        let mut block = b"\x82\x86\x84\x01\x04test".to_vec();
        block.extend_from_slice(line);
        client.send(frame(HEADERS, 5, stream, &block));
        assert_eq!(client.outcome(stream), Outcome::Status(200), "{what}");
        let (name, value) = expected;
        assert_eq!(table.origin.last().field(name), Some(value), "{what}");
    }
    // The table is emptied, twice changed in one block, and used again.
    let block = b"\x20\x3f\xe1\x1f\x82\x86\x84\x41\x04test";
    client.send(frame(HEADERS, 5, stream + 2, block));
    assert_eq!(client.outcome(stream + 2), Outcome::Status(200));
    client.send(frame(HEADERS, 5, stream + 4, b"\x82\x86\x84\xbe"));
    assert_eq!(client.outcome(stream + 4), Outcome::Status(200));
    assert_eq!(table.origin.last().field("X-Forwarded-Host"), Some("test"));
}

#[test]
fn what_is_allowed_disturbs_nothing() {
    let table = Table::new();
    let priority = |stream: u32, payload: [u8; 5]| frame(PRIORITY, 0, stream, &payload);
    let mut padded = vec![3];
    padded.extend(fields(&GET));
    padded.extend([0; 3]);
    let mut prioritised = vec![0, 0, 0, 0, 15];
    prioritised.extend(fields(&GET));
    let mut both = vec![2, 0x80, 0, 0, 9, 255];
    both.extend(fields(&GET));
    both.extend([0; 2]);
    for (what, block, flags) in [
        ("6.2 padding", padded, PADDED),
        ("6.2 a priority", prioritised, WITH_PRIORITY),
        (
            "6.2 padding and an exclusive priority",
            both,
            PADDED | WITH_PRIORITY,
        ),
    ] {
        let frames = [frame(HEADERS, flags | 5, 1, &block)];
        table.check(what, &frames, Fine);
        table.goes_on(what, &frames);
    }
    table.check(
        "6.1 data in several frames",
        &[
            headers(0, &POST),
            data(0, 1, b"a"),
            data(0, 1, b""),
            data(END_STREAM, 1, b"b"),
        ],
        Fine,
    );
    let head = [(":method", "HEAD"), GET[1], GET[2], GET[3]];
    table.check("8.1 HEAD", &[headers(END_STREAM, &head)], Fine);
    table.goes_on(
        "6.3 a priority before its stream",
        &[priority(1, [0, 0, 0, 0, 0]), get()],
    );
    table.goes_on(
        "6.3 the highest one",
        &[get(), priority(1, [0, 0, 0, 0, 255])],
    );
    table.goes_on(
        "6.3 an exclusive one",
        &[get(), priority(3, [0x80, 0, 0, 1, 7])],
    );
    table.goes_on(
        "6.3 one that depends on a stream to come",
        &[priority(5, [0, 0, 0, 7, 7]), get()],
    );
    // Half closed by its client, and closed (5.1).
    for (what, begun) in [
        ("half closed", vec![get()]),
        (
            "reset",
            vec![
                headers(0, &POST),
                frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()),
            ],
        ),
    ] {
        let after = |one: Vec<u8>| [begun.clone(), vec![one]].concat();
        table.goes_on(&format!("5.1 {what}: a window"), &after(window(1, 1)));
        table.goes_on(
            &format!("5.1 {what}: a priority"),
            &after(priority(1, [0, 0, 0, 0, 1])),
        );
        table.goes_on(
            &format!("5.1 {what}: a reset"),
            &after(frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes())),
        );
    }
    let mut client = Frames::greet(table.coreway.address());
    client.ask(1, &GET);
    assert_eq!(client.outcome(1), Outcome::Status(200));
    while client
        .event()
        .is_some_and(|event| event.flags & END_STREAM == 0)
    {}
    client.send(
        [
            priority(1, [0, 0, 0, 0, 1]),
            window(1, 1),
            frame(RST_STREAM, 0, 1, &[0; 4]),
        ]
        .concat(),
    );
    client.ask(3, &GET);
    assert_eq!(
        client.outcome(3),
        Outcome::Status(200),
        "5.1 closed: all of them"
    );
    table.goes_on(
        "6.9 windows",
        &[window(0, 1), headers(0, &POST), window(1, 100)],
    );
    table.goes_on(
        "7 a reset for a reason that nobody knows",
        &[
            headers(0, &POST),
            frame(RST_STREAM, 0, 1, &0xdead_beef_u32.to_be_bytes()),
        ],
    );
    let mut goodbye = vec![0; 4];
    goodbye.extend(0xdead_beef_u32.to_be_bytes());
    table.check(
        "7 a goodbye for a reason that nobody knows",
        &[get(), frame(GOAWAY, 0, 0, &goodbye)],
        Fine,
    );
    // A window that changes after the answer has begun (6.9.2) is in `windows_are_kept_to`.
    let mut client = Frames::greet(table.coreway.address());
    client.send(
        [
            frame(PING, ACK, 0, b"87654321"),
            frame(PING, 0, 0, b"12345678"),
        ]
        .concat(),
    );
    let pong = std::iter::from_fn(|| client.next())
        .find(|frame| frame.kind == PING)
        .unwrap();
    assert_eq!(
        pong.payload, b"12345678",
        "6.7 a ping that confirms is not confirmed"
    );
}

#[test]
fn a_preface_that_is_none_ends_the_connection() {
    let authority = Authority::new("Test CA");
    let origin = Origin::text("ok");
    let coreway = Start::new()
        .entry_point(&format!(
            "[entryPoints.http.tls]\n[[entryPoints.http.tls.certificates]]\n{}",
            authority.issue(&["a.test"]).toml()
        ))
        .serve(&site(&origin));
    let config = authority.client().speaking(&["h2"]).build();
    for preface in [
        "INVALID CONNECTION PREFACE\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSMILE\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ] {
        let client = TlsClient::connect(coreway.address(), &config, "a.test").unwrap();
        assert_eq!(client.stream.conn.alpn_protocol(), Some(&b"h2"[..]));
        let mut client = Frames::new(client.stream);
        client.send(preface);
        let outcome = client.outcome(1);
        assert!(outcome.is_error(), "3.4 {preface:?}: {outcome:?}");
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn a_connection_that_breaks_the_rules_says_goodbye_first() {
    let table = Table::new();
    let mut client = Frames::greet(table.coreway.address());
    client.ask(1, &GET);
    assert_eq!(client.outcome(1), Outcome::Status(200));
    client.send(data(0, 0, b"x"));
    // More is on its way meanwhile: nothing of it may turn the goodbye into a reset.
    for _ in 0..100 {
        client.send(data(0, 0, &[0; 16_000]));
    }
    let goodbye = std::iter::from_fn(|| client.next())
        .find(|frame| frame.kind == GOAWAY)
        .unwrap();
    assert_eq!(goodbye.code(), PROTOCOL_ERROR);
    assert_eq!(
        goodbye.payload[..4],
        [0, 0, 0, 1],
        "the last stream that was served"
    );
    let mut broken = Frames::connect(table.coreway.address());
    broken.send([PREFACE, &frame(PING, 0, 0, &[0; 8])].concat());
    let outcome = broken.outcome(1);
    assert!(
        outcome.is_error() || outcome == Outcome::GoAway(NO_ERROR),
        "3.4 settings come first: {outcome:?}"
    );
}
