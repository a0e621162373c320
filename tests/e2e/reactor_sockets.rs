//! The reactor on real sockets: everything here runs on io_uring and on epoll.
//!
//! Each test is one program for a core, run once per driver this machine has. Loopback only, ports from the kernel.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use coreway::limits::{BUFFER_LARGE_BYTES, BUFFER_SMALL_BYTES, HOT_WAIT};
use coreway::reactor::{
    self, Buffer, Choice, Driver, Listener, Peer, Pipe, Room, Socket, Timer, limit, sleep,
};

/// The drivers this machine and this build have.
fn drivers() -> Vec<Driver> {
    let drivers: Vec<Driver> = [Choice::IoUring, Choice::Epoll]
        .into_iter()
        .filter_map(|choice| match reactor::probe(choice) {
            Ok(probe) => Some(probe.driver),
            Err(error) => {
                eprintln!("skipped on {choice:?}: {error}");
                None
            }
        })
        .flat_map(|driver| match driver {
            // What older kernels get must work too, and does wherever this does.
            Driver::Ring => vec![Driver::Ring, Driver::IoUring],
            driver => vec![driver],
        })
        .collect();
    assert!(!drivers.is_empty());
    drivers
}

/// Runs `program` as a core of its own, once per driver.
fn on_each_driver<F: Future<Output = ()>>(program: impl Fn() -> F + Send + Sync) {
    for driver in drivers() {
        let program = &program;
        std::thread::scope(|scope| {
            scope
                .spawn(move || reactor::run(driver, None, program).expect("a core starts"))
                .join()
                .unwrap_or_else(|_| panic!("failed on {driver:?}"));
        });
    }
}

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A timer that expires in `count` milliseconds.
fn within(count: u64) -> Timer {
    let timer = Timer::new();
    timer.set(reactor::now() + milliseconds(count));
    timer
}

/// More time than anything here takes.
fn patient() -> Timer {
    within(20_000)
}

/// Two ends of a connection through loopback: ours and a blocking one.
fn pair() -> (Socket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let far = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (near, _) = listener.accept().expect("just connected");
    near.set_nodelay(true).expect("a socket");
    (
        Socket::from_fd(OwnedFd::from(near)).expect("room for a socket"),
        far,
    )
}

/// Two connected sockets of this core.
fn both() -> (Socket, Socket) {
    let (near, far) = pair();
    (
        near,
        Socket::from_fd(OwnedFd::from(far)).expect("room for a socket"),
    )
}

fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> ErrorKind {
    result.expect_err("must fail").kind()
}

async fn recv_exactly(socket: &Socket, count: usize, timer: &Timer) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let buffer = socket.recv(Room::Large, timer).await.expect("receives");
        assert!(
            !buffer.is_empty(),
            "the stream ended after {} bytes",
            bytes.len()
        );
        bytes.extend_from_slice(buffer.bytes());
    }
    bytes
}

fn pattern(count: usize) -> Vec<u8> {
    (0..count)
        .map(|index| u8::try_from(index * 7 % 251).expect("below 251"))
        .collect()
}

#[test]
fn echo_through_a_listener() {
    on_each_driver(|| async {
        let cpus = reactor::cpus_allowed();
        let mut listeners =
            reactor::bind("127.0.0.1:0".parse().expect("an address"), &cpus).expect("binds");
        let address = listeners[0].local_addr().expect("bound");
        assert_eq!(listeners.len(), cpus.len());
        for listener in &listeners {
            assert_eq!(
                listener.local_addr().expect("bound"),
                address,
                "all share one port"
            );
        }
        // This core answers for all of them.
        for listener in listeners.drain(..) {
            let listener = Listener::from_std(listener, true).expect("room for a socket");
            reactor::spawn(async move {
                loop {
                    let (socket, _) = listener.accept().await.expect("accepts");
                    reactor::spawn(async move {
                        let timer = patient();
                        loop {
                            let buffer = socket.recv(Room::Small, &timer).await.expect("receives");
                            if buffer.is_empty() {
                                break;
                            }
                            socket.send(buffer, &timer).await.expect("sends");
                        }
                    });
                }
            });
        }
        let timer = patient();
        for round in 0..8 {
            let socket = Socket::connect(address, &timer).await.expect("connects");
            for size in [1, 100, BUFFER_SMALL_BYTES, BUFFER_LARGE_BYTES + round] {
                let bytes = pattern(size);
                socket
                    .send(Buffer::with(&bytes), &timer)
                    .await
                    .expect("sends");
                assert!(recv_exactly(&socket, size, &timer).await == bytes);
            }
            socket.shutdown(Shutdown::Write);
            assert!(
                socket
                    .recv(Room::Small, &timer)
                    .await
                    .expect("ends")
                    .is_empty()
            );
        }
    });
}

#[test]
fn a_receive_that_times_out_still_lets_an_answer_out() {
    on_each_driver(|| async {
        let (socket, mut far) = pair();
        let before = reactor::now();
        assert_eq!(
            kind(socket.recv(Room::Small, &within(50)).await),
            ErrorKind::TimedOut
        );
        let took = before.elapsed();
        assert!(
            took >= milliseconds(50) && took < milliseconds(1000),
            "{took:?}"
        );
        // Asked again, it is still a time-out and not the end of the stream.
        assert_eq!(
            kind(socket.recv(Room::Small, &within(10)).await),
            ErrorKind::TimedOut
        );
        socket
            .send(Buffer::with(b"408"), &patient())
            .await
            .expect("sends");
        drop(socket);
        let reader = std::thread::spawn(move || {
            let mut answer = String::new();
            far.read_to_string(&mut answer).expect("reads to the end");
            answer
        });
        // A socket is closed at the core's next turn.
        sleep(milliseconds(20)).await;
        assert_eq!(reader.join().expect("a reader"), "408");
    });
}

#[test]
fn bytes_that_are_there_win_over_the_deadline() {
    on_each_driver(|| async {
        let (socket, mut far) = pair();
        far.write_all(b"in time").expect("writes");
        let past = Timer::new();
        past.set(reactor::now());
        let buffer = socket.recv(Room::Small, &past).await.expect("receives");
        assert_eq!(buffer.bytes(), b"in time");
    });
}

#[test]
fn a_patient_receive_gets_what_comes_hot_and_what_comes_late() {
    on_each_driver(|| async {
        for wait in [
            milliseconds(0),
            milliseconds(20),
            HOT_WAIT + milliseconds(200),
        ] {
            let (socket, far) = pair();
            let far = RefCell::new(far);
            let sent = Rc::new(Cell::new(false));
            let (flag, mut writer) = (
                Rc::clone(&sent),
                far.borrow().try_clone().expect("a descriptor"),
            );
            reactor::spawn(async move {
                sleep(wait).await;
                flag.set(true);
                writer.write_all(b"hello").expect("writes");
            });
            let timer = patient();
            let buffer = socket
                .recv_patient(Room::Small, &timer)
                .await
                .expect("receives");
            assert_eq!(buffer.bytes(), b"hello");
            assert!(sent.get());
            // The end of the stream, and the deadline, are seen in both phases too.
            assert_eq!(
                kind(socket.recv_patient(Room::Small, &within(30)).await),
                ErrorKind::TimedOut
            );
            drop(far);
        }
        let (socket, far) = pair();
        let deadline = within(u64::try_from(HOT_WAIT.as_millis()).expect("short") + 300);
        assert_eq!(
            kind(socket.recv_patient(Room::Small, &deadline).await),
            ErrorKind::TimedOut
        );
        drop(far);
        let (socket, far) = pair();
        reactor::spawn(async move {
            sleep(HOT_WAIT + milliseconds(100)).await;
            drop(far);
        });
        assert!(
            socket
                .recv_patient(Room::Small, &patient())
                .await
                .expect("ends")
                .is_empty()
        );
    });
}

#[test]
fn a_patient_receive_gives_its_buffer_back() {
    on_each_driver(|| async {
        // Memory of a pooled buffer is handed out again, so its address tells whether it is in use.
        let address = Buffer::take(Room::Large).vec_mut().as_ptr().addr();
        let (socket, mut far) = pair();
        let timer = patient();
        let mut receiving = pin!(socket.recv_patient(Room::Large, &timer));
        let held = within(100);
        assert!(limit(&held, receiving.as_mut()).await.is_none());
        let cooled = within(u64::try_from(HOT_WAIT.as_millis()).expect("short") + 200);
        assert!(limit(&cooled, receiving.as_mut()).await.is_none());
        let free: Vec<Buffer> = (0..2).map(|_| Buffer::take(Room::Large)).collect();
        let addresses: Vec<usize> = free
            .into_iter()
            .map(|mut buffer| buffer.vec_mut().as_ptr().addr())
            .collect();
        assert!(addresses.contains(&address), "given back once quiet");
        far.write_all(b"awake").expect("writes");
        assert_eq!(receiving.await.expect("receives").bytes(), b"awake");
    });
}

#[test]
fn many_buffers_reach_a_slow_reader() {
    on_each_driver(|| async {
        let (sender, reader) = both();
        let bytes = pattern(8 * 1024 * 1024);
        let expected = bytes.clone();
        let done = Rc::new(Cell::new(false));
        let flag = Rc::clone(&done);
        reactor::spawn(async move {
            let timer = patient();
            let mut buffers: Vec<Buffer> = bytes
                .chunks(BUFFER_LARGE_BYTES - 1)
                .map(Buffer::with)
                .collect();
            buffers.insert(1, Buffer::empty());
            let capacity = buffers.capacity();
            sender.send_all(&mut buffers, &timer).await.expect("sends");
            assert!(buffers.is_empty() && buffers.capacity() == capacity);
            sender
                .send_all(&mut buffers, &timer)
                .await
                .expect("nothing is sent");
            flag.set(true);
        });
        sleep(milliseconds(100)).await;
        assert!(!done.get(), "the socket cannot hold it all");
        let timer = patient();
        assert!(recv_exactly(&reader, expected.len(), &timer).await == expected);
        sleep(milliseconds(20)).await;
        assert!(done.get());
    });
}

#[test]
fn a_send_that_nobody_reads_times_out() {
    on_each_driver(|| async {
        let (socket, far) = pair();
        assert_eq!(
            kind(
                socket
                    .send(Buffer::from(pattern(16 << 20)), &within(60))
                    .await
            ),
            ErrorKind::TimedOut
        );
        drop(far);
        let (socket, far) = pair();
        let mut buffers: Vec<Buffer> = (0..200)
            .map(|_| Buffer::with(&[1; BUFFER_LARGE_BYTES]))
            .collect();
        assert_eq!(
            kind(socket.send_all(&mut buffers, &within(60)).await),
            ErrorKind::TimedOut
        );
        assert!(buffers.is_empty());
        drop(far);
    });
}

#[test]
fn a_connection_refused_is_an_error_at_once() {
    on_each_driver(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        assert_eq!(
            kind(Socket::connect(address, &patient()).await),
            ErrorKind::ConnectionRefused
        );
    });
}

/// A listener whose queue is full: the kernel ignores further attempts.
fn deaf() -> (socket2::Socket, SocketAddr, Vec<TcpStream>) {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket.bind(&any.into()).expect("a free port");
    socket.listen(0).expect("listens");
    let address = socket
        .local_addr()
        .expect("bound")
        .as_socket()
        .expect("an internet address");
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, milliseconds(100)) {
        queued.push(stream);
    }
    (socket, address, queued)
}

#[test]
fn a_connection_attempt_times_out_and_leaves_no_descriptor() {
    let (_listener, address, _queued) = deaf();
    on_each_driver(move || async move {
        for _ in 0..3 {
            assert_eq!(
                kind(Socket::connect(address, &within(40)).await),
                ErrorKind::TimedOut
            );
        }
        let patience = reactor::now();
        while attempts_to(address) > 0 && patience.elapsed() < Duration::from_secs(5) {
            sleep(milliseconds(10)).await;
        }
        assert_eq!(attempts_to(address), 0);
    });
}

/// Attempts to reach `address` that the kernel still makes for anybody: `SYN_SENT` in its table.
fn attempts_to(address: SocketAddr) -> usize {
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("this is Linux");
    table
        .lines()
        .filter(|line| {
            let mut words = line.split_whitespace().skip(2);
            words.next().is_some_and(|remote| remote.ends_with(&port)) && words.next() == Some("02")
        })
        .count()
}

#[test]
fn stop_gives_out_what_is_queued_and_ends() {
    on_each_driver(|| async {
        let mut listeners =
            reactor::bind("127.0.0.1:0".parse().expect("an address"), &[0]).expect("binds");
        let std_listener = listeners.pop().expect("one per processor");
        let address = std_listener.local_addr().expect("bound");
        let listener = Rc::new(Listener::from_std(std_listener, true).expect("room for a socket"));
        // One waits already when it is stopped.
        let (accepted, waiting) = (Rc::new(Cell::new(0)), Rc::clone(&listener));
        let count = Rc::clone(&accepted);
        let ended = Rc::new(Cell::new(false));
        let flag = Rc::clone(&ended);
        reactor::spawn(async move {
            loop {
                match waiting.accept().await {
                    Ok(_) => count.set(count.get() + 1),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::NotConnected);
                        flag.set(true);
                        return;
                    }
                }
            }
        });
        sleep(milliseconds(20)).await;
        assert!(!ended.get());
        // The core does not turn between these and the stop: they stay queued.
        let clients: Vec<TcpStream> = (0..5)
            .map(|_| TcpStream::connect(address).expect("connects"))
            .collect();
        listener.stop();
        sleep(milliseconds(50)).await;
        assert!(ended.get());
        assert_eq!(accepted.get(), clients.len());
        assert_eq!(kind(listener.accept().await), ErrorKind::NotConnected);
    });
}

#[test]
fn clients_that_left_do_not_end_the_accepts() {
    on_each_driver(|| async {
        let mut listeners =
            reactor::bind("127.0.0.1:0".parse().expect("an address"), &[0]).expect("binds");
        let std_listener = listeners.pop().expect("one per processor");
        let address = std_listener.local_addr().expect("bound");
        let listener = Listener::from_std(std_listener, true).expect("room for a socket");
        for _ in 0..3 {
            let client = TcpStream::connect(address).expect("connects");
            // A reset: the connection is dead before it is accepted.
            let reset = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
            reset.expect("a socket");
        }
        let _client = TcpStream::connect(address).expect("connects");
        loop {
            match listener.accept().await {
                Ok((socket, _)) if socket.peer() == Peer::Present => break,
                Ok(_) => {}
                Err(error) => assert_ne!(error.kind(), ErrorKind::NotConnected),
            }
        }
    });
}

#[test]
fn what_is_dropped_in_the_middle_leaves_the_core_whole() {
    on_each_driver(|| async {
        let (_listener, deaf_address, _queued) = deaf();
        for _ in 0..20 {
            let (near, far) = both();
            let (one, two, three) = (patient(), patient(), patient());
            let moment = within(1);
            {
                let mut sending = pin!(near.send(Buffer::from(pattern(8 << 20)), &one));
                assert!(limit(&moment, sending.as_mut()).await.is_none());
                let mut receiving = pin!(near.recv(Room::Large, &two));
                assert!(limit(&moment, receiving.as_mut()).await.is_none());
                let mut connecting = pin!(Socket::connect(deaf_address, &three));
                assert!(limit(&moment, connecting.as_mut()).await.is_none());
            }
            drop((near, far));
        }
        let (near, far) = both();
        near.send(Buffer::with(b"alive"), &patient())
            .await
            .expect("sends");
        assert_eq!(recv_exactly(&far, 5, &patient()).await, b"alive");
    });
}

#[test]
fn a_sender_that_is_far_ahead_is_held_back_and_loses_nothing() {
    on_each_driver(|| async {
        let (sender, reader) = both();
        let bytes = pattern(6 << 20);
        let expected = bytes.clone();
        reactor::spawn(async move {
            sender
                .send(Buffer::from(bytes), &patient())
                .await
                .expect("sends");
        });
        let timer = patient();
        let mut received = Vec::new();
        let mut rooms = [
            Room::Small,
            Room::Small,
            Room::Large,
            Room::Small,
            Room::Large,
        ]
        .into_iter()
        .cycle();
        loop {
            let room = rooms.next().expect("it goes round");
            let buffer = reader.recv(room, &timer).await.expect("receives");
            if buffer.is_empty() {
                break;
            }
            received.extend_from_slice(buffer.bytes());
            if received.len() % 7 == 0 {
                sleep(milliseconds(1)).await;
            }
        }
        assert!(received == expected);
    });
}

#[test]
fn an_address_in_use_is_an_error() {
    let listeners =
        reactor::bind("127.0.0.1:0".parse().expect("an address"), &[0, 1]).expect("binds");
    let address = listeners[0].local_addr().expect("bound");
    assert_eq!(kind(reactor::bind(address, &[0, 1])), ErrorKind::AddrInUse);
    drop(listeners);
    drop(reactor::bind(address, &[0, 1]).expect("free again"));
}

#[test]
fn a_connection_goes_to_the_core_whose_processor_received_it() {
    let cpus = reactor::cpus_allowed();
    if cpus.len() < 2 {
        eprintln!("skipped: one processor");
        return;
    }
    // Listed backwards, so that order and number differ.
    let order: Vec<usize> = cpus.iter().rev().copied().collect();
    let listeners =
        reactor::bind("127.0.0.1:0".parse().expect("an address"), &order).expect("binds");
    let address = listeners[0].local_addr().expect("bound");
    for (listener, cpu) in listeners.iter().zip(&order) {
        // Through loopback the processor that sends is the one that receives.
        let cpu = *cpu;
        let client = std::thread::spawn(move || {
            assert!(core_affinity::set_for_current(core_affinity::CoreId {
                id: cpu
            }));
            TcpStream::connect(address).expect("connects")
        })
        .join()
        .expect("a client");
        listener.set_nonblocking(true).expect("a socket");
        let (_, peer) = listener
            .accept()
            .expect("the connection is in this core's queue");
        assert_eq!(peer, client.local_addr().expect("connected"));
    }
}

#[test]
fn the_peer_is_seen_to_leave() {
    on_each_driver(|| async {
        let (socket, far) = pair();
        assert_eq!(socket.peer(), Peer::Present);
        far.shutdown(Shutdown::Write).expect("a socket");
        let patience = reactor::now();
        while socket.peer() == Peer::Present && patience.elapsed() < Duration::from_secs(5) {
            sleep(milliseconds(10)).await;
        }
        assert_eq!(socket.peer(), Peer::HalfClosed);
        socket
            .send(Buffer::with(b"unread"), &patient())
            .await
            .expect("sends");
        // Closing with bytes unread is a reset.
        drop(far);
        while socket.peer() != Peer::Gone && patience.elapsed() < Duration::from_secs(5) {
            sleep(milliseconds(10)).await;
        }
        assert_eq!(socket.peer(), Peer::Gone);
    });
}

#[test]
fn splice_moves_every_byte() {
    on_each_driver(|| async {
        let (source, near_source) = both();
        let (near_sink, sink) = both();
        let bytes = pattern(5 * 1024 * 1024 + 3);
        let expected = bytes.clone();
        reactor::spawn(async move {
            let timer = patient();
            source
                .send(Buffer::from(bytes), &timer)
                .await
                .expect("sends");
        });
        reactor::spawn(async move {
            let timer = patient();
            let mut pipe = Pipe::new().expect("a pipe");
            let mut moved = 0;
            loop {
                let count = reactor::splice(&near_source, &near_sink, &mut pipe, 300_000, &timer)
                    .await
                    .expect("moves");
                assert!(count <= 300_000);
                if count == 0 {
                    break;
                }
                moved += count;
            }
            assert_eq!(moved, 5 * 1024 * 1024 + 3);
            // Ordinary operations still work on a socket that was spliced, and wait when they must.
            near_sink
                .send_all(
                    &mut vec![Buffer::with(b"the"), Buffer::with(b" end")],
                    &timer,
                )
                .await
                .expect("sends");
            let mut buffers: Vec<Buffer> = (0..100)
                .map(|_| Buffer::with(&[3; BUFFER_LARGE_BYTES]))
                .collect();
            near_sink
                .send_all(&mut buffers, &timer)
                .await
                .expect("sends");
            assert_eq!(
                near_sink
                    .recv(Room::Small, &timer)
                    .await
                    .expect("receives")
                    .bytes(),
                b"ok"
            );
        });
        // Nobody reads for a while: the sender must wait.
        sleep(milliseconds(50)).await;
        let timer = patient();
        let all = recv_exactly(&sink, expected.len() + 7 + 100 * BUFFER_LARGE_BYTES, &timer).await;
        assert!(all.starts_with(&expected));
        assert!(all[expected.len()..].starts_with(b"the end"));
        sink.send(Buffer::with(b"ok"), &timer).await.expect("sends");
        let (from, _quiet) = both();
        let (to, _far) = both();
        let mut pipe = Pipe::new().expect("a pipe");
        assert_eq!(
            kind(reactor::splice(&from, &to, &mut pipe, 10, &within(30)).await),
            ErrorKind::TimedOut
        );
    });
}

#[test]
fn a_socket_moves_between_cores() {
    on_each_driver(|| async {
        let (socket, mut far) = pair();
        far.write_all(b"one").expect("writes");
        assert_eq!(
            socket
                .recv_patient(Room::Small, &patient())
                .await
                .expect("receives")
                .bytes(),
            b"one"
        );
        let fd = socket.into_fd().expect("a descriptor");
        let answer = std::thread::spawn(move || {
            let driver = drivers().pop().expect("one at least");
            reactor::run(driver, None, || async {
                let socket = Socket::from_fd(fd).expect("room for a socket");
                socket
                    .send(Buffer::with(b"two"), &patient())
                    .await
                    .expect("sends");
            })
            .expect("a core starts");
            let mut answer = [0; 3];
            far.read_exact(&mut answer).expect("reads");
            answer
        })
        .join()
        .expect("the other core");
        assert_eq!(&answer, b"two");
    });
}

#[test]
fn a_unix_socket_pair_works_too() {
    on_each_driver(|| async {
        let (near, mut far) = std::os::unix::net::UnixStream::pair().expect("a pair");
        near.set_nonblocking(true).expect("a socket");
        let bell = Socket::from_fd(OwnedFd::from(near)).expect("room for a socket");
        let ringer = std::thread::spawn(move || {
            far.write_all(&[1]).expect("writes");
            far
        });
        let buffer = bell
            .recv_patient(Room::Small, &Timer::new())
            .await
            .expect("receives");
        assert_eq!(buffer.bytes(), [1]);
        drop(ringer.join().expect("rings"));
        assert!(
            bell.recv_patient(Room::Small, &Timer::new())
                .await
                .expect("ends")
                .is_empty()
        );
    });
}

#[test]
fn a_panic_ends_its_task_only() {
    on_each_driver(|| async {
        struct Count(Rc<Cell<u32>>);
        impl Drop for Count {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let before = reactor::panics();
        let dropped = Rc::new(Cell::new(0));
        for _ in 0..3 {
            let count = Count(Rc::clone(&dropped));
            reactor::spawn(async move {
                let _count = count;
                sleep(milliseconds(1)).await;
                panic!("on purpose");
            });
        }
        sleep(milliseconds(50)).await;
        assert_eq!(dropped.get(), 3, "what the tasks owned is gone");
        assert!(reactor::panics() >= before + 3);
    });
}

#[test]
fn a_core_with_far_deadlines_sleeps() {
    on_each_driver(|| async {
        // Ten thousand deadlines far away.
        for index in 0..10_000 {
            reactor::spawn(sleep(Duration::from_secs(180) + milliseconds(index)));
        }
        sleep(milliseconds(10)).await;
        let (before, began) = (cpu_time(), reactor::now());
        sleep(milliseconds(700)).await;
        let used = cpu_time() - before;
        assert!(
            used < milliseconds(10),
            "{used:?} of processor time in {:?}",
            began.elapsed()
        );
    });
}

/// Processor time of the current thread.
fn cpu_time() -> Duration {
    // Fields 14 and 15, counted behind the name in parentheses, in ticks of 10 ms: too coarse; this is in nanoseconds.
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this is Linux");
    Duration::from_nanos(
        text.split_whitespace()
            .next()
            .and_then(|word| word.parse().ok())
            .expect("a number"),
    )
}

#[test]
fn a_processor_that_is_not_ours_is_refused() {
    let driver = drivers().pop().expect("one at least");
    assert_eq!(
        kind(reactor::run(driver, Some(100_000), || async {})),
        ErrorKind::InvalidInput
    );
}
