//! Every bound in the program: what a peer can make grow, and how far.
//!
//! A bound states why it is that big; assertions at the end say how bounds relate.
//! Owns numbers only. Never holds a value an operator sets: those live in `config` and default to a bound here.

use std::time::Duration;

/// Bytes of a request or response head, start line included. Traefik 1.7 allows 1 MiB (spec frontends 12); a head is
/// held whole, so a connection that sends heads this big costs this much until it ends. Over it: 431 (502 from a server).
pub const HEAD_BYTES_MAX: usize = 1024 * 1024;

/// Field lines of one head. Looking a field up walks them, so this bounds every look.
pub const HEAD_FIELDS_MAX: usize = 256;

/// Options in the `Connection` fields of one head. Each is compared with every field: this bounds that product.
pub const CONNECTION_OPTIONS_MAX: usize = 64;

/// Bytes of a request target. Over it: 414.
pub const TARGET_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one chunk-size line, extensions included: enough for any honest extension, too few to hide a body in.
pub const CHUNK_LINE_BYTES_MAX: usize = 4 * 1024;

/// Bytes of all chunk extensions of one message. A sender could otherwise make us read extensions for ever.
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a trailer section.
pub const TRAILER_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a small receive buffer: one request head and its first body bytes, or a short answer whole. With 8 KiB an
/// answer of 10 KB took two receives and two sends.
pub const BUFFER_SMALL_BYTES: usize = 16 * 1024;

/// Bytes of a large buffer, used once a body has shown itself to be long (measured: 64 KiB halves the cost of 1 MB).
pub const BUFFER_LARGE_BYTES: usize = 64 * 1024;

/// Bytes that an HTTP/2 connection may have written and not sent yet: beyond this its streams wait. A write that began
/// below it is finished, so up to one frame (16 KiB) comes on top, and as much is on its way at the same time.
pub const PIPE_BYTES_MAX: usize = 64 * 1024;

/// Streams of one HTTP/2 connection that may be open at once: what RFC 9113 6.5.2 asks for at least. Exchanges that their
/// client has reset count until they end; a stream beyond that is refused, which its client may repeat.
pub const H2_STREAMS_MAX: u32 = 100;

/// Data that a client may send on one stream, and on all of them, before what came was sent on to a server. The first is
/// what one upload can have on its way, the second is what the connection can make us hold.
pub const H2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes of the fields of one HTTP/2 head, each counted with 32 more (RFC 9113 6.5.2). Over it: 431. Less than
/// [`HEAD_BYTES_MAX`], since a hundred streams may each have one.
pub const H2_HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;

/// Data of one stream that waits in the protocol for its turn on the wire.
pub const H2_SEND_BYTES_MAX: usize = 16 * 1024;

/// While no more requests than this run on an HTTP/2 connection, their answers may come in large buffers.
pub const H2_LARGE_STREAMS_MAX: usize = 4;

/// Streams of one connection that its client made us reset by breaking the protocol. After that many it is closed
/// (CVE-2025-8671).
pub const H2_LOCAL_RESETS_MAX: usize = 100;

/// Frames of an HTTP/2 client that bring nothing forward (settings, pings, window updates beyond the data they confirm,
/// empty data, anything unknown): as many at once, and in each second from then on. Beyond that it is told to calm down and
/// its connection ends. A frame costs about a microsecond, so nobody who stays below takes more than a thousandth of a core.
pub const H2_FRAMES_BURST: u32 = 4000;
pub const H2_FRAMES_PER_SECOND: u32 = 1000;

/// Requests that an HTTP/2 client resets, or that are refused because it broke a rule (CVE-2023-44487, CVE-2025-8671): as
/// many at once, and in each second from then on; one more for each request that was answered. A page that is left while
/// it loads resets up to [`H2_STREAMS_MAX`].
pub const H2_RESETS_BURST: u32 = 300;
pub const H2_RESETS_PER_SECOND: u32 = 20;

/// Bytes of the heads of all requests that run on one HTTP/2 connection. A request beyond that is refused, which its client
/// may repeat. A browser's hundred heads have a tenth of it.
pub const H2_HEADS_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A task that serves HTTP/2 streams ends when it had none for this long. Much less than [`HOT_WAIT`]: starting one costs
/// a microsecond or two, and a burst of new connections would hold a task's memory for each of them.
pub const H2_TASK_WAIT: Duration = Duration::from_millis(100);

/// How long an HTTP/2 client without streams may take to confirm that it heard of the drain, before it is closed.
pub const GOAWAY_WAIT: Duration = Duration::from_secs(1);

/// Free buffers of each size a core keeps for reuse; more are given back to the allocator.
pub const BUFFERS_FREE_MAX: usize = 512;

/// Buffers of each size that a core lends to the kernel: as many receives can end in one turn, the rest in the next.
/// More of them are more memory that comes round before any is used again, and so is cold.
pub const PROVIDED_SMALL: u16 = 256;
pub const PROVIDED_LARGE: u16 = 16;

/// Buffers that a socket may have received and nobody asked for, before it is told to stop. What the kernel does in one
/// turn comes on top: up to 48 KiB, or at most 32 receives of one socket where the kernel is older than 6.17.
pub const RECEIVES_AHEAD_MAX: usize = 2;

/// 1xx answers a server may send before its final one. RFC 9110 15.2 has no bound; a server that sends more is lost.
pub const INTERIM_ANSWERS_MAX: usize = 32;

/// Messages waiting for one core. Control sends a handful per reload; more means the core is stuck.
pub const MAILBOX_MESSAGES_MAX: usize = 4096;

/// A quiet connection gives its receive buffer back after this long.
pub const HOT_WAIT: Duration = Duration::from_secs(1);

/// Time to send a whole request head, from its first byte (or from the accept), where `readTimeout` sets none.
pub const HEAD_READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for a balancer to send its PROXY header, from the accept.
pub const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// TLS handshakes under way on one core. Each holds a few kilobytes; a client that finds all places taken waits in line.
/// High, because one that says nothing keeps its place for [`HANDSHAKE_TIMEOUT`].
pub const HANDSHAKES_MAX: usize = 2048;

/// Time for a TLS handshake, from the place it got to the last byte of it (spec backends 11 has the same for servers).
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a peer may take to receive one piece of a body (at most 80 KiB), where `writeTimeout` sets none. What a send has
/// achieved is known at its end only, so this is also the slowest reader that is served: about 450 bytes a second.
pub const SEND_STALL_TIMEOUT: Duration = Duration::from_secs(180);

/// How long an upload may make no progress before the client is given up, where `readTimeout` sets none.
pub const BODY_STALL_TIMEOUT: Duration = Duration::from_secs(180);

/// How often a waiting exchange looks whether its client is still there.
pub const CLIENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long, and for how many bytes, a client may go on sending after an answer that ends its connection.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(5);
pub const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Wait for a server's `100 Continue` before the client's body is asked for all the same (spec backends 11).
pub const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// A request body up to this long that came with its head is sent with the head, in one operation, and can be repeated.
pub const BODY_INLINE_BYTES: usize = 4 * 1024;

/// Of the file descriptors that a process may have, one in so many is never spent on accepting clients: those who are
/// connected already need connections to servers. Beside that, `DESCRIPTORS_BASE` are in use for other things.
pub const DESCRIPTORS_RESERVED_PART: usize = 8;

/// Descriptors of the process itself (log, watches, control's runtime), and of each core (ring, timer, mailbox).
pub const DESCRIPTORS_BASE: usize = 24;
pub const DESCRIPTORS_PER_CORE: usize = 6;

/// Pause of a listener whose process is out of file descriptors.
pub const DESCRIPTORS_WAIT: Duration = Duration::from_millis(100);

/// Lifetime of an idle upstream connection (spec backends 11).
pub const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Connections of HTTP/2 to one server address that a core may have. With the fewest streams that a server can allow each,
/// one, this is how many exchanges may be under way; those beyond wait in line.
pub const LINKS_MAX: usize = 64;

/// Streams on one such connection, where its server allows more. A connection that breaks fails all of them.
pub const LINK_STREAMS_MAX: usize = 128;

/// Bytes of an answer that a server may send on one stream before the client has taken the first of them.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// The same for all streams of a connection together: so many that clients which take nothing stall their own streams
/// only. What they can make a server fill is the memory of this, for each connection.
#[allow(clippy::cast_possible_truncation, reason = "a small number")]
pub const LINK_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * LINK_STREAMS_MAX as u32;

/// Bytes of the fields of one answer over HTTP/2, 32 added for each. Over it: 502.
pub const LINK_HEADERS_BYTES_MAX: u32 = 256 * 1024;

/// A server of which something was asked, and from which nothing has come on the connection for this long, is asked whether
/// it is there, and is not if it says nothing for [`LINK_PING_WAIT`]. Not more often than [`LINK_PING_INTERVAL`]: some
/// servers close connections on which they are asked more often than every five minutes.
pub const LINK_QUIET: Duration = Duration::from_secs(15);
pub const LINK_PING_WAIT: Duration = Duration::from_secs(15);
pub const LINK_PING_INTERVAL: Duration = Duration::from_secs(310);

/// Bytes of one compiled regular expression. `(a{1000}){1000}` would otherwise take gigabytes.
pub const REGEX_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of the search cache of one regular expression on one core, filled only when the expression is used.
pub const REGEX_CACHE_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a body that is worth compressing, where its length is known (spec static-config 4.2).
pub const COMPRESS_BYTES_MIN: u64 = 512;

/// Answers that one core compresses at once; the others pass as they are. About 300 KB of memory for each.
pub const COMPRESSORS_MAX: usize = 128;

/// Compressors that a core keeps for the next answers.
pub const COMPRESSORS_SPARE_MAX: usize = 16;

/// How often a request is sent for one `buffering.retryExpression`, however true it stays (spec backends 8).
pub const BUFFERING_ATTEMPTS_MAX: u32 = 11;

/// Bytes of a body that `buffering` holds in memory where its options do not say.
pub const BUFFERING_MEMORY_BYTES: u64 = 1024 * 1024;

/// Bytes of all bodies that `buffering` holds in memory, where `[buffering]` does not say. Over it they go to files early.
pub const HELD_MEMORY_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Bytes of all bodies that `buffering` holds in files, where `[buffering]` does not say. Over it: 503. The disk is another
/// bound, with the same answer.
pub const HELD_FILES_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// Threads that read and write those files.
pub const DISK_THREADS: usize = 2;

/// Jobs that wait for such a thread, each with at most one large buffer. Over it: 503.
pub const DISK_JOBS_MAX: usize = 1024;

/// How long an exchange waits for such a job. Over it: 503.
pub const DISK_WAIT_MAX: Duration = Duration::from_secs(30);

/// Parentheses around a part of a circuit breaker's or retry expression: reading and deciding one take stack for each.
pub const EXPRESSION_DEPTH_MAX: usize = 64;

/// Places in a trie that one frontend may take: hosts times paths. A rule with more keeps its paths as an ordinary
/// test under each host, so memory grows with the length of a rule and not with its square.
pub const FRONTEND_PLACES_MAX: usize = 4096;

/// Names of request fields that lookups are indexed by. A lookup asks for each of them, so they must be few; rules
/// about further names are tested one by one.
pub const FIELD_NAMES_INDEXED_MAX: usize = 16;

/// Keys of one rate limit that are remembered at once, as in the reference: 8 bytes for each and 8 for each of its rates,
/// taken as they are needed.
pub const RATE_KEYS_MAX: usize = 65_536;

/// Further tries that a core may make beyond its retry budget, once: enough for a server that dies in a quiet hour.
pub const RETRY_CREDIT_MAX: u32 = 10;

/// Time for one health check, redirects included (spec backends 7).
pub const HEALTH_CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Redirects that a health check follows; one more is a failure, as in the reference.
pub const HEALTH_CHECK_REDIRECTS_MAX: usize = 10;

/// The shortest time between two health checks of a server: a slip of a unit must not flood it.
pub const HEALTH_CHECK_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Health checks under way at once, where there are file descriptors for as many: 10,000 servers that answer nothing are
/// asked every 30 seconds.
pub const HEALTH_CHECKS_MAX: usize = 2048;

/// Time between the first checks of servers that came with one configuration, where their interval is long enough.
pub const HEALTH_CHECK_SPACING: Duration = Duration::from_millis(5);

/// Places for keys that have exchanges under way at one backend with `maxConn`: 8 bytes each, taken as they are needed.
/// Many more than exchanges, since keys share sets of eight places and a key that finds none is refused.
pub const CONNECTION_KEYS_MAX: usize = 524_288;

/// Errors that `/health` remembers, each with the path of its request.
pub const RECENT_ERRORS_MAX: usize = 1000;

/// Pages about ourselves that one core may have under way, two file descriptors each. Over it: 503.
pub const OWN_PAGES_MAX: usize = 64;

/// Bytes of a configuration that is put by HTTP, as of one store's tree. Over it: 413.
pub const REST_BODY_BYTES_MAX: usize = STORE_TREE_BYTES_MAX;

/// Bytes of a page about ourselves that are made before its client has taken some: a page of 10,000 frontends is longer.
pub const OWN_PAGE_PIECE_BYTES: usize = 32 * 1024;

/// How long a command that only looks waits for a store.
pub const STORE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Bytes of one store's tree, keys and values together. 10,000 frontends take about 5 MB.
pub const STORE_TREE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Keys of one store's tree; each costs about 150 bytes beside its text.
pub const STORE_KEYS_MAX: usize = 1_000_000;

/// Bytes of one answer of a store: a whole tree, as base64 in JSON with names around each value.
pub const STORE_ANSWER_BYTES_MAX: usize = 3 * STORE_TREE_BYTES_MAX;

/// Events of a store's watch that were not taken yet; each is the name of a key. With more, the tree is read anew.
pub const STORE_EVENTS_MAX: usize = 10_000;

/// Bytes of a name and a password together. They are decoded on the stack of a core; more is nobody's password, and the
/// work of MD5 crypt grows with the length.
pub const CREDENTIALS_BYTES_MAX: usize = 1024;

/// The highest cost of a bcrypt hash: about three seconds. At 31, the algorithm's own bound, one password takes a day.
pub const BCRYPT_COST_MAX: u32 = 16;

/// Passwords that wait for a hashing thread, of all cores together. Over it: 503. With bcrypt at its usual cost of 10 a thread
/// does about twenty a second, so the last one waits a few seconds.
pub const HASHES_WAITING_MAX: usize = 64;

/// Passwords that one client's address may have under way on one core. Over it: 429.
pub const HASHES_PER_CLIENT_MAX: usize = 8;

/// How long a request waits for its password to be checked. Over it: 503.
pub const HASH_WAIT_MAX: Duration = Duration::from_secs(10);

/// Threads that hash passwords, where the machine has processors for them.
pub const HASHING_THREADS_MAX: usize = 4;

/// Nonces of one frontend or entry point whose use is remembered, 8 bytes each. Only a good proof takes a place.
pub const DIGEST_NONCES_MAX: usize = 16 * 1024;

/// Parameters of one `Authorization: Digest`: there are ten with a meaning.
pub const DIGEST_PARAMETERS_MAX: usize = 32;

/// How long a server may take to decide who may pass, connection aside (spec frontends 5.3). Over it: 500.
pub const AUTH_SERVER_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of the body of a server's refusal, which is held whole: a login page. Over it: 500.
pub const AUTH_ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Passwords that a core remembers to be right, and to be wrong: 16 bytes for each, taken when the first one is met. Who is
/// not remembered is hashed again, so the first should be more than the users who are active at once.
pub const VERDICTS_RIGHT_MAX: usize = 4096;
pub const VERDICTS_WRONG_MAX: usize = 1024;

/// Steps of a key in a store that may name an option: no option lies this deep, and a longer key would let its writer
/// choose how deep we nest.
pub const STORE_KEY_STEPS_MAX: usize = 32;

/// Hosts of which other names are remembered, on each core and for all of them; about 100 bytes each.
pub const ALIASES_KNOWN_MAX: usize = 4096;

/// Hosts that one core has asked for and not heard of. Requests for more of them go on without.
pub const ALIASES_ASKED_MAX: usize = 64;

/// How long a request waits for another name of its host, and how long name servers are asked.
pub const ALIAS_WAIT: Duration = Duration::from_secs(5);

/// How long another name is believed, whatever its name server says.
pub const ALIAS_LIFETIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How often the weights of a backend with `drr` are looked at, at most; and so many pairs of a server and a core, to the
/// next whole number, add as much again to the time between two looks. Summing costs about 20 ns for a pair.
pub const REBALANCE_INTERVAL: Duration = Duration::from_millis(100);
pub const REBALANCE_SERVERS_MAX: usize = 10_000;

/// How old a core's knowledge of the exchanges under way on other cores may be, where a method asks for it.
pub const LOAD_LOOK_INTERVAL: Duration = Duration::from_millis(100);

const _: () = assert!(BUFFER_SMALL_BYTES < BUFFER_LARGE_BYTES);
const _: () = assert!(HASHES_PER_CLIENT_MAX * 2 <= HASHES_WAITING_MAX);
const _: () = assert!(
    PROVIDED_SMALL.is_power_of_two() && PROVIDED_LARGE.is_power_of_two(),
    "the kernel counts places by a mask"
);
const _: () = assert!(
    HEALTH_CHECKS_MAX as u64 >= 10_000 * HEALTH_CHECK_TIMEOUT.as_secs() / 30,
    "a round of checks that all time out fits an interval"
);
const _: () = assert!(TARGET_BYTES_MAX < HEAD_BYTES_MAX);
const _: () = assert!(H2_STREAM_WINDOW_BYTES <= H2_CONNECTION_WINDOW_BYTES);
const _: () = assert!(H2_HEADER_LIST_BYTES_MAX as usize <= HEAD_BYTES_MAX);
const _: () = assert!(H2_RESETS_BURST > H2_STREAMS_MAX);
const _: () = assert!(H2_HEADS_BYTES_MAX > H2_HEADER_LIST_BYTES_MAX as usize);
const _: () = assert!(BODY_INLINE_BYTES < H2_STREAM_WINDOW_BYTES as usize);
const _: () = assert!(
    CHUNK_LINE_BYTES_MAX < BUFFER_SMALL_BYTES,
    "a chunk line always fits one receive buffer"
);

/// Of an answer of a certificate authority, of which a chain is the longest.
pub const ACME_ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// The account of a fleet with its certificates, unpacked. Every store refuses it long before: the widest takes 8 MiB.
pub const ACME_OBJECT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How long the store keeps the lock on that account whose holder is not heard of any more; as Traefik 1.7.
pub const ACME_LOCK_TTL: Duration = Duration::from_secs(20);

/// How long a change of it waits for another node's: longer than a dead one can hold the lock, which Consul may keep for
/// twice its time.
pub const ACME_LOCK_WAIT: Duration = Duration::from_secs(60);

const _: () = assert!(ACME_LOCK_WAIT.as_secs() > 2 * ACME_LOCK_TTL.as_secs());

/// How long a node waits until it sees what it has written to that account: it may be written over meanwhile.
pub const ACME_SEEN_WAIT: Duration = Duration::from_secs(30);

/// From the moment when a node of a fleet answers with what proves a name until the authority is told to ask: it may ask any
/// other node, which the store tells at once and which needs a few milliseconds to serve it.
pub const ACME_SPREAD: Duration = Duration::from_secs(2);

/// For an answer of a name server, and how often it is asked over UDP, which loses some.
pub const ACME_DNS_TIMEOUT: Duration = Duration::from_secs(3);
pub const ACME_DNS_TRIES: usize = 2;

/// How long a record may need until every name server of its zone shows it, unless a variable says otherwise, and how often
/// they are asked meanwhile; as Traefik 1.7.
pub const ACME_DNS_WAIT: Duration = Duration::from_secs(60);
pub const ACME_DNS_POLL: Duration = Duration::from_secs(2);

/// For a program that makes a record, and how many characters of what it says are passed on.
pub const ACME_PROGRAM_TIME: Duration = Duration::from_secs(60);
pub const ACME_PROGRAM_SAID_MAX: usize = 2048;

/// For the answer of a service that makes a record.
pub const ACME_SERVICE_TIME: Duration = Duration::from_secs(30);

/// How long an authority can make an order wait that it refused; it counts by the hour, the day and the week.
pub const ACME_PAUSE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// For each answer of a certificate authority.
pub const ACME_AUTHORITY_TIME: Duration = Duration::from_secs(30);

/// How soon an authority is asked again when it wants a certificate renewed, whatever it says (RFC 9773 4.3).
pub const ACME_ADVICE_SHORTEST: Duration = Duration::from_secs(60 * 60);
pub const ACME_ADVICE_LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How many names that clients asked for in handshakes are ordered in any hour, and how long one is left alone that could
/// not be had. Let's Encrypt counts failures of a name by the hour.
pub const ACME_ASKED_PER_HOUR: usize = 20;
pub const ACME_ASKED_WINDOW: Duration = Duration::from_secs(60 * 60);
pub const ACME_ASKED_AGAIN: Duration = Duration::from_secs(60 * 60);

/// Names that were asked for in handshakes and that control has not looked at yet; more are forgotten.
pub const ACME_ASKED_WAITING: usize = 64;
