//! Attacks over HTTP/2: four connections do their worst, and the others are served, in little more memory than before.

use std::fs::File;
use std::thread;
use std::time::Duration;

use crate::harness::h2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GET, GOAWAY, HEADERS, Outcome, PING, POST,
    PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, fields, frame,
};
use crate::harness::wait::pass;
use crate::harness::{Coreway, Gate, Origin, answer, eventually, heavy, site};

const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Of the project, for four connections.
const GROWTH_KIB_MAX: usize = 32 * 1024;
const ATTACKERS: usize = 4;

/// Far more than any budget, far less than a minute's worth.
const MOST: usize = 60_000;

/// What the attackers face: `/big` is long, `/held` waits for the gate, anything else is short.
struct Site {
    /// Nobody else measures anything meanwhile.
    _alone: File,
    coreway: Coreway,
    origin: Origin,
    gate: Gate,
}

impl Site {
    fn new() -> Self {
        let gate = Gate::default();
        let held = gate.clone();
        let origin = Origin::wire(move |exchange| {
            let _ = exchange.read_body();
            match exchange.head.target() {
                "/big" => exchange.send(answer(200, &"x".repeat(1_000_000))),
                "/held" => {
                    held.wait();
                    exchange.send(answer(200, "held"));
                }
                _ => exchange.send(answer(200, "ok")),
            }
        });
        let coreway = Coreway::serve(&site(&origin));
        Self {
            _alone: heavy(),
            coreway,
            origin,
            gate,
        }
    }

    /// Lets every attacker do this on a connection of its own, while others ask for something. Returns what `attack` said.
    fn under<T: Send>(
        &self,
        attack: impl Fn(&mut Frames<std::net::TcpStream>) -> T + Sync,
    ) -> Vec<T> {
        let mut other = self.coreway.client();
        for _ in 0..50 {
            assert_eq!(other.get("/").text(), "ok");
        }
        let before = self.coreway.memory_kib();
        let mut most = before;
        let outcomes = thread::scope(|scope| {
            let attackers: Vec<_> = (0..ATTACKERS)
                .map(|_| {
                    scope.spawn(|| {
                        let mut client = Frames::greet(self.coreway.address());
                        let outcome = attack(&mut client);
                        (client, outcome)
                    })
                })
                .collect();
            while !attackers.iter().all(|attacker| attacker.is_finished()) {
                assert_eq!(other.get("/").text(), "ok", "somebody else asks meanwhile");
                most = most.max(self.coreway.memory_kib());
            }
            // Nobody lets go of a connection before the last has done its worst.
            let outcomes: Vec<_> = attackers
                .into_iter()
                .map(|attacker| attacker.join().unwrap())
                .collect();
            for _ in 0..20 {
                assert_eq!(other.get("/").text(), "ok");
                most = most.max(self.coreway.memory_kib());
            }
            outcomes
        });
        let grown = most - before;
        eprintln!("memory grew by {grown} KiB");
        assert!(grown < GROWTH_KIB_MAX, "memory grew by {grown} KiB");
        self.coreway.assert_runs();
        self.gate.open();
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    /// An attack that repeats something is ended by us.
    #[track_caller]
    fn ended(&self, what: &str, repeated: impl Fn(u32) -> Vec<u8> + Sync) {
        let outcomes = self.under(|client| {
            let mut sent = 0;
            for round in 0..MOST {
                sent = round;
                if !client.send(repeated(u32::try_from(round).unwrap())) {
                    break;
                }
            }
            let reason = std::iter::from_fn(|| client.next())
                .find(|frame| frame.kind == GOAWAY)
                .map(|goodbye| goodbye.code());
            (sent, reason)
        });
        for (sent, reason) in outcomes {
            // A reset may overtake the goodbye where an attacker goes on sending into a closed connection for long. What
            // breaks the protocol at once ends by that, and not by a budget.
            let is_told = matches!(reason, None | Some(PROTOCOL_ERROR | ENHANCE_YOUR_CALM));
            assert!(
                is_told && (reason.is_some() || sent < MOST - 1),
                "{what}: {sent} sent, {reason:?}"
            );
        }
    }
}

fn stream_of(round: u32) -> u32 {
    2 * round + 1
}

fn upload(round: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream_of(round), &fields(&POST))
}

#[test]
fn requests_that_are_reset_at_once() {
    let site = Site::new();
    let mut lines = GET.to_vec();
    lines[3] = (":path", "/reset");
    site.ended("rapid reset", |round| {
        let mut frames = frame(
            HEADERS,
            END_STREAM | END_HEADERS,
            stream_of(round),
            &fields(&lines),
        );
        frames.extend(frame(RST_STREAM, 0, stream_of(round), &8_u32.to_be_bytes()));
        frames
    });
    let targets = site.origin.targets();
    let asked = targets.iter().filter(|target| *target == "/reset").count();
    // Its budget and what refills it in the time it takes, and what came in the same breath.
    assert!(
        asked < ATTACKERS * 1000,
        "{asked} requests reached the server"
    );
}

#[test]
fn requests_that_make_us_reset_them() {
    let site = Site::new();
    site.ended("a window of nothing", |round| {
        let mut frames = upload(round);
        frames.extend(frame(WINDOW_UPDATE, 0, stream_of(round), &[0; 4]));
        frames
    });
    site.ended("too large a window", |round| {
        let mut frames = upload(round);
        let much = 0x7fff_ffff_u32.to_be_bytes();
        frames.extend(frame(WINDOW_UPDATE, 0, stream_of(round), &much));
        frames
    });
    site.ended("a length that is not", |round| {
        let mut lines = POST.to_vec();
        lines.push(("content-length", "1"));
        let mut frames = frame(HEADERS, END_HEADERS, stream_of(round), &fields(&lines));
        frames.extend(frame(DATA, END_STREAM, stream_of(round), b"xx"));
        frames
    });
    site.ended("two hosts", |round| {
        let mut lines = GET.to_vec();
        lines.push(("host", "other"));
        frame(
            HEADERS,
            END_STREAM | END_HEADERS,
            stream_of(round),
            &fields(&lines),
        )
    });
}

#[test]
fn frames_that_bring_nothing_forward() {
    let site = Site::new();
    let ten = |bytes: Vec<u8>| bytes.repeat(10);
    site.ended("pings", |_| ten(frame(PING, 0, 0, &[7; 8])));
    site.ended("settings", |_| {
        ten(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]))
    });
    site.ended("priorities", |round| {
        ten(frame(PRIORITY, 0, stream_of(round), &[0, 0, 0, 0, 9]))
    });
    site.ended("unknown frames", |_| ten(frame(0xee, 0, 0, &[1; 50])));
    site.ended("windows", |_| {
        ten(frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()))
    });
    site.ended("empty data", |round| match round {
        0 => upload(0),
        _ => ten(frame(DATA, 0, 1, b"")),
    });
    site.ended("crumbs of data", |round| match round {
        0 => upload(0),
        _ => ten(frame(DATA, 0, 1, b"x")),
    });
}

#[test]
fn fields_without_end() {
    let site = Site::new();
    let long = "v".repeat(4000);
    let outcomes = site.under(|client| {
        client.send(frame(HEADERS, END_STREAM, 1, &fields(&GET)));
        for _ in 0..MOST {
            if !client.send(frame(CONTINUATION, 0, 1, &fields(&[("x-a", &long)]))) {
                break;
            }
        }
        client.outcome(1)
    });
    assert!(
        outcomes.iter().all(|outcome| outcome.is_error()),
        "{outcomes:?}"
    );
    let outcomes = site.under(|client| {
        client.send(frame(HEADERS, END_STREAM, 1, &fields(&GET)));
        for _ in 0..MOST {
            if !client.send(frame(CONTINUATION, 0, 1, b"")) {
                break;
            }
        }
        client.outcome(1)
    });
    assert!(
        outcomes.iter().all(|outcome| outcome.is_error()),
        "{outcomes:?}"
    );
}

#[test]
fn small_heads_that_unpack_large() {
    let site = Site::new();
    let mut lines = GET.to_vec();
    lines[3] = (":path", "/held");
    let outcomes = site.under(|client| {
        // A long value that goes into the table, and after it many times one byte that means it.
        let mut first = fields(&lines);
        first.extend_from_slice(b"\x40\x03x-a\x7f");
        first.extend_from_slice(&[0x81, 0x1e]);
        first.extend_from_slice(&[b'v'; 0x7f + 0x81 - 0x80 + 0x1e * 128]);
        client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &first));
        for round in 1..200 {
            let mut block = fields(&lines);
            block.extend_from_slice(&[0xbe; 14]);
            client.send(frame(
                HEADERS,
                END_STREAM | END_HEADERS,
                stream_of(round),
                &block,
            ));
        }
        // As far as it may go in one head, and much further.
        let mut block = fields(&lines);
        block.extend_from_slice(&[0xbe; 100]);
        client.send(frame(
            HEADERS,
            END_STREAM | END_HEADERS,
            stream_of(300),
            &block,
        ));
        client.outcome(stream_of(300))
    });
    for outcome in outcomes {
        assert!(
            outcome.is_error() || outcome == Outcome::Status(431),
            "{outcome:?}"
        );
    }
}

#[test]
fn heads_that_are_too_large() {
    let site = Site::new();
    let mut client = Frames::greet(site.coreway.address());
    let long = "v".repeat(15_000);
    let mut lines = GET.to_vec();
    lines.extend([("x-a", long.as_str()); 5]);
    let blocks: Vec<_> = lines.chunks(5).map(fields).collect();
    for (at, block) in blocks.iter().enumerate() {
        let kind = if at == 0 { HEADERS } else { CONTINUATION };
        let ends = if at + 1 == blocks.len() {
            END_HEADERS
        } else {
            0
        };
        let end_stream = if at == 0 { END_STREAM } else { 0 };
        let halves: Vec<_> = block.chunks(16_000).collect();
        for (half, bytes) in halves.iter().enumerate() {
            let kind = if half == 0 { kind } else { CONTINUATION };
            let flags = if half == 0 { end_stream } else { 0 };
            let ends = if half + 1 == halves.len() { ends } else { 0 };
            client.send(frame(kind, flags | ends, 1, bytes));
        }
    }
    assert_eq!(client.outcome(1), Outcome::Status(431));
    client.ask(3, &GET);
    assert_eq!(
        client.outcome(3),
        Outcome::Status(200),
        "the connection goes on"
    );
}

#[test]
fn answers_that_nobody_takes() {
    let site = Site::new();
    let mut lines = GET.to_vec();
    lines[3] = (":path", "/big");
    for (what, window) in [
        ("no window", 0_u32),
        ("every window, and nothing read", 0x7fff_ffff),
    ] {
        eprintln!("{what}");
        site.under(|client| {
            let mut payload = vec![0, 4];
            payload.extend_from_slice(&window.to_be_bytes());
            client.send(frame(SETTINGS, 0, 0, &payload));
            client.send(frame(WINDOW_UPDATE, 0, 0, &0x7ffe_0000_u32.to_be_bytes()));
            for round in 0..100 {
                client.send(frame(
                    HEADERS,
                    END_STREAM | END_HEADERS,
                    stream_of(round),
                    &fields(&lines),
                ));
            }
            pass(Duration::from_secs(2));
        });
    }
}

#[test]
fn a_window_of_one_byte_again_and_again() {
    let site = Site::new();
    let mut lines = GET.to_vec();
    lines[3] = (":path", "/big");
    site.ended("crumbs of windows", |round| match round {
        0 => {
            let mut frames = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
            frames.extend(frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(&lines)));
            frames
        }
        _ => frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()).repeat(10),
    });
}

#[test]
fn uploads_that_no_server_takes() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::wire(move |exchange| {
        if exchange.head.target() == "/" {
            return exchange.send(answer(200, "ok"));
        }
        held.wait();
        let _ = exchange.read_body();
        exchange.send(answer(200, "held"));
    });
    let coreway = Coreway::serve(&site(&origin));
    let site = Site {
        _alone: heavy(),
        coreway,
        origin,
        gate,
    };
    let mut lines = POST.to_vec();
    lines[3] = (":path", "/slow");
    site.under(|client| {
        for round in 0..100 {
            client.send(frame(
                HEADERS,
                END_HEADERS,
                stream_of(round),
                &fields(&lines),
            ));
        }
        // As much as the windows allow: a megabyte for all of them.
        for round in 0..63 {
            client.send(frame(DATA, 0, stream_of(round), &[0; 16_384]));
        }
        pass(Duration::from_secs(1));
    });
    eventually("they are given up with their clients", || {
        site.origin.connections_open() <= 1
    });
}
