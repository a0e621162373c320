//! Bytes that are nothing: they never kill the process, never wake a panic, never reach a server as a request.

use crate::harness::{Coreway, Origin};

/// A small generator with a seed that a failure shows.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }
}

#[test]
fn random_bytes_are_survived() {
    let origin = Origin::text("never");
    let coreway = Coreway::before(&origin);
    let seed = 0x5eed_c0de;
    let mut random = Random(seed);
    for round in 0..200 {
        let length = random.below(3000);
        let mut bytes: Vec<u8> = (0..length)
            .map(|_| random.next().to_le_bytes()[0])
            .collect();
        // Ended, so that it is judged and not waited for.
        bytes.extend_from_slice(b"\r\n\r\n");
        let mut client = coreway.client();
        client.send_what_goes(&bytes);
        client.half_close();
        client.rest();
        assert!(coreway.ended().is_none(), "seed {seed:#x}, round {round}");
    }
    assert_eq!(origin.connections(), 0, "seed {seed:#x}");
    assert_eq!(coreway.get("/").status, 200);
}

#[test]
fn damaged_requests_are_survived() {
    let good: &[&[u8]] = &[
        b"GET /path?query HTTP/1.1\r\nHost: test\r\nConnection: keep-alive\r\nAccept: */*\r\n\r\n",
        b"POST /p HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: 1\r\n\r\n",
        b"POST /p HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
        b"GET http://u/ HTTP/1.0\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ];
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    let seed = 0xbad_5eed;
    let mut random = Random(seed);
    for round in 0..400 {
        let mut bytes = good[random.below(good.len())].to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.next().to_le_bytes()[0],
                1 if bytes.len() > 1 => drop(bytes.remove(at)),
                1 => {}
                2 => bytes.insert(at, [0, b'\r', b'\n', b' ', b':', 0xff][random.below(6)]),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let mut client = coreway.client();
        client.send_what_goes(&bytes);
        client.half_close();
        client.rest();
        assert!(
            coreway.ended().is_none(),
            "seed {seed:#x}, round {round}: {:?}",
            String::from_utf8_lossy(&bytes)
        );
    }
    assert_eq!(coreway.get("/").status, 200);
}

#[test]
fn garbage_from_servers_is_survived() {
    let origin = Origin::wire(|exchange| {
        let mut random = Random(exchange.head.target()[1..].parse().unwrap());
        let mut bytes =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
                .to_vec();
        for _ in 0..=random.below(6) {
            let at = random.below(bytes.len());
            bytes[at] = random.next().to_le_bytes()[0];
        }
        exchange.send(bytes);
        // Some damage makes an answer that never ends: hanging up ends the wait.
        exchange.close();
    });
    let coreway = Coreway::before(&origin);
    for seed in 1..200 {
        let mut client = coreway.client();
        client.send(format!(
            "GET /{seed} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        ));
        client.rest();
        assert!(coreway.ended().is_none(), "seed {seed}");
    }
}
