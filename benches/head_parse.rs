//! How long does it take to read a head, decide what it means, and write it anew?
//!
//! `httparse` beside it, alone, is the measure: it reads lines only, takes bare line feeds, and classifies nothing.

use std::hint::black_box;

use coreway::http::h1::{Asked, Scan, encode, request, response};
use coreway::http::{FieldSet, Head};
use criterion::{Criterion, Throughput};

const LOAD_TOOL: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

const BROWSER: &[u8] = b"GET /articles/2024/a-long-title?utm_source=feed&page=2 HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://www.example.com/articles/\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Cache-Control: max-age=0\r\n\r\n";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Date: Sat, 21 Nov 2026 11:00:00 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 1270\r\n\
    Cache-Control: max-age=604800\r\n\
    ETag: \"3147526947+gzip\"\r\n\
    Vary: Accept-Encoding\r\n\r\n";

/// What a server tells a load tool, and the body in the same piece: so the bytes do not end with the head.
const SMALL_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx\r\n\
    Date: Sat, 21 Nov 2026 11:00:00 GMT\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 11\r\n\r\nhello world";

fn read_request(bytes: &[u8], head: &mut Head) -> usize {
    let mut scan = Scan::default();
    let found = request(black_box(bytes), &mut scan, head)
        .expect("a good request")
        .expect("a whole request");
    found.head_bytes
}

fn read_answer(bytes: &[u8], head: &mut Head) -> usize {
    let mut scan = Scan::default();
    let found =
        response(black_box(bytes), &mut scan, head, Asked::default()).expect("a good answer");
    found.expect("a whole answer").head_bytes
}

fn read_with_httparse(bytes: &[u8]) -> usize {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; 64];
    let mut request = httparse::Request::new(&mut []);
    let read = request
        .parse_with_uninit_headers(black_box(bytes), &mut fields)
        .expect("a good request");
    read.unwrap()
}

fn write(head: &Head, out: &mut Vec<u8>) {
    out.clear();
    encode::request_line(out, head.method(), head.target());
    encode::field(out, b"Host", head.authority());
    encode::fields(out, head, FieldSet::WRITTEN_BY_CALLER);
    encode::end(out);
}

/// One case many times, for an instruction counter: `head_parse count <case> <times>`.
fn count(case: &str, times: u64) {
    let mut head = Head::default();
    let mut out = Vec::with_capacity(4096);
    for _ in 0..times {
        match case {
            "load_tool" => drop(black_box(read_request(LOAD_TOOL, &mut head))),
            "browser" => drop(black_box(read_request(BROWSER, &mut head))),
            "answer" => drop(black_box(read_answer(ANSWER, &mut head))),
            "small_answer" => drop(black_box(read_answer(SMALL_ANSWER, &mut head))),
            "load_tool_httparse" => drop(black_box(read_with_httparse(LOAD_TOOL))),
            "browser_httparse" => drop(black_box(read_with_httparse(BROWSER))),
            "load_tool_written" => {
                read_request(LOAD_TOOL, &mut head);
                write(&head, &mut out);
            }
            "browser_written" => {
                read_request(BROWSER, &mut head);
                write(&head, &mut out);
            }
            _ => panic!("no such case"),
        }
        black_box(&out);
    }
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if let [_, command, case, times] = words.as_slice()
        && command == "count"
    {
        count(case, times.parse().expect("a number of times"));
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut head = Head::default();
    let mut out = Vec::with_capacity(4096);
    for (name, bytes) in [("load_tool", LOAD_TOOL), ("browser", BROWSER)] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("read", |bencher| {
            bencher.iter(|| read_request(bytes, &mut head))
        });
        group.bench_function("read_and_write", |bencher| {
            bencher.iter(|| {
                read_request(bytes, &mut head);
                head.strip_hop_by_hop();
                write(&head, &mut out);
            });
        });
        group.bench_function("httparse_alone", |bencher| {
            bencher.iter(|| read_with_httparse(bytes))
        });
        group.finish();
    }
    let mut group = criterion.benchmark_group("answer");
    group.throughput(Throughput::Bytes(ANSWER.len() as u64));
    group.bench_function("read", |bencher| {
        bencher.iter(|| read_answer(ANSWER, &mut head))
    });
    group.bench_function("read_and_write", |bencher| {
        bencher.iter(|| {
            read_answer(ANSWER, &mut head);
            out.clear();
            encode::status_line(&mut out, head.status);
            encode::fields(&mut out, &head, FieldSet::WRITTEN_BY_CALLER);
            encode::content_length(&mut out, 1270);
            encode::end(&mut out);
        });
    });
    group.finish();
    criterion.final_summary();
}
