//! Clients that ask without end while something happens: not one request may fail.
//!
//! Owns their threads. The load is bounded, so that a test beside it goes on: each client rests a moment after an answer.
//! Never judges how fast an answer comes, but that it comes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Client;
use super::wait::{eventually_within, pass};

/// Several, so that every core has some.
const CLIENTS: usize = 4;

/// After each answer.
const REST: Duration = Duration::from_millis(2);

/// How long it may take until some more answers have come. Stores are started meanwhile, on machines that are busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client begins a new connection after so many requests: accepting goes on too.
const REQUESTS_PER_CONNECTION: u64 = 50;

pub struct Load {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Asks for `/` of this host; each answer must be a 200 with one of these texts.
    pub fn begin(address: SocketAddr, host: &str, texts: &[&str]) -> Self {
        let (over, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let client = |number| {
            let (over, answered) = (Arc::clone(&over), Arc::clone(&answered));
            let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
            thread::spawn(move || {
                let mut client = Client::connect(address);
                let mut count = 0;
                while !over.load(Ordering::Relaxed) {
                    let response = client.exchange(&request);
                    assert!(
                        response.status == 200 && texts.contains(&response.text()),
                        "client {number}, request {count}: {} {:?}",
                        response.status,
                        response.text()
                    );
                    answered.fetch_add(1, Ordering::Relaxed);
                    count += 1;
                    if count % REQUESTS_PER_CONNECTION == 0 {
                        client = Client::connect(address);
                    }
                    pass(REST);
                }
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self {
            over,
            answered,
            clients,
        }
    }

    /// Waits until so many further requests have been answered.
    #[track_caller]
    pub fn goes_on(&self, requests: u64) {
        let from = self.answered.load(Ordering::Relaxed);
        eventually_within(PATIENCE, "the load goes on", || {
            self.assert_none_failed();
            self.answered.load(Ordering::Relaxed) >= from + requests
        });
    }

    #[track_caller]
    pub fn assert_none_failed(&self) {
        assert!(
            self.clients.iter().all(|client| !client.is_finished()),
            "a request has failed"
        );
    }

    /// Ends it. How many requests were answered, which are all.
    #[track_caller]
    pub fn end(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("no request has failed");
        }
        self.answered.load(Ordering::Relaxed)
    }
}
