//! A core without a kernel: one thread, a virtual clock, a network in memory, and faults drawn from one seed.
//!
//! Owns a run's tasks, clock, network and random numbers. The same seed and program give the same run, to the byte. Time
//! stands still while anything can run and then jumps to the next thing that will happen, so a wait of an hour costs
//! nothing. Takes the place of the driver in the library's own tests.
//! Never opens a socket, never reads the real clock. Read next: `monoio.rs`, which must behave the same.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::reactor::buffer::{Buffer, Room};
use crate::reactor::listener::Listener;
use crate::reactor::operation::Gather;
use crate::reactor::probe::Driver;
use crate::reactor::socket::Peer;
use crate::reactor::task;
use crate::reactor::timer::{self, Timer, limit};

/// What goes wrong, and how often. Chances are per thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// The longest that bytes and connections are under way; the shortest is nothing.
    pub(crate) delay_max: Duration,
    /// Receives and sends move fewer bytes than they could.
    pub(crate) partial: bool,
    /// A chunk of bytes arrives as a reset of its connection.
    pub(crate) resets: u64,
    /// A connection attempt is refused by an address that listens.
    pub(crate) refusals: u64,
}

impl Faults {
    /// A perfect network.
    pub(crate) const NONE: Self = Self {
        delay_max: Duration::ZERO,
        partial: false,
        resets: 0,
        refusals: 0,
    };
    /// Slow and chopped up, but whole: every program must still do its work.
    pub(crate) const SLOW: Self = Self {
        delay_max: Duration::from_millis(30),
        partial: true,
        resets: 0,
        refusals: 0,
    };
    /// Everything.
    pub(crate) const ROUGH: Self = Self {
        delay_max: Duration::from_millis(30),
        partial: true,
        resets: 20,
        refusals: 50,
    };
}

/// Bytes one direction of a connection holds, sent and not yet received.
const WINDOW: usize = 64 * 1024;
/// How long a peer that is gone takes to be found out by a probe.
const PROBED_NANOSECONDS: u64 = 2_000_000_000;
/// More polls than any test needs: a task that wakes itself for ever is found.
const POLLS_MAX: u64 = 20_000_000;
/// The clock does not begin at zero, so that "long ago" can be told from "never".
const EPOCH: u64 = 1_000_000_000_000;
const MAIN: usize = usize::MAX;

type Task = Pin<Box<dyn Future<Output = ()>>>;

struct Core {
    now: Cell<u64>,
    alarm: Cell<Option<u64>>,
    random: Cell<u64>,
    faults: Faults,
    /// The thread's count of panics that this run may end with.
    panics_expected: Cell<u64>,
    tasks: RefCell<Vec<Option<Task>>>,
    network: RefCell<Network>,
}

#[derive(Default)]
struct Network {
    flows: Vec<Flow>,
    listeners: BTreeMap<SocketAddr, Listening>,
    silent: Vec<SocketAddr>,
    /// What will happen, by time and then by the order it was caused in.
    events: BTreeMap<(u64, u64), Event>,
    events_made: u64,
    ports_used: u16,
}

/// One direction of a connection: bytes from flow `n`'s sender to its receiver. The other direction is flow `n ^ 1`.
#[derive(Default)]
struct Flow {
    arrived: VecDeque<u8>,
    /// Bytes sent and not yet arrived.
    under_way: usize,
    /// Nothing may arrive before what was sent earlier.
    last_arrival: u64,
    end: End,
    /// The sender will send no more.
    sender_shut: bool,
    /// The sender wants its close to be a reset.
    resets: bool,
    /// The receiver wants no more.
    receiver_shut: bool,
    /// The receiver dropped its socket.
    receiver_gone: bool,
    cancelled: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// How a flow ends, as its receiver sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    Finished,
    Reset,
}

#[derive(Default)]
struct Listening {
    queue: VecDeque<(Stream, SocketAddr)>,
    waiting: Option<Waker>,
    cancelled: bool,
}

enum Event {
    Bytes(usize, Vec<u8>),
    End(usize, End),
    Wake(Waker),
}

thread_local! {
    static CORE: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
    /// Tasks to be polled, by number.
    static READY: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Runs `main` and what it spawns until `main` ends. Everything that `seed` and `faults` decide is the same every time.
///
/// # Panics
/// If a task panicked, nothing can ever happen any more, or a task wakes itself for ever: all bugs of the program under
/// test.
pub(crate) fn run<F: Future>(seed: u64, faults: Faults, main: F) -> F::Output {
    let core = Rc::new(Core {
        now: Cell::new(EPOCH),
        alarm: Cell::new(None),
        random: Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d),
        faults,
        panics_expected: Cell::new(task::panics_here()),
        tasks: RefCell::new(Vec::new()),
        network: RefCell::default(),
    });
    assert!(
        CORE.replace(Some(Rc::clone(&core))).is_none(),
        "a simulation does not run inside another"
    );
    READY.take();
    timer::reset(EPOCH);
    let output = core.drive(seed, pin!(main));
    // Tasks are dropped while there is still a core for their sockets and timers.
    let tasks = core.tasks.take();
    drop(tasks);
    let network = core.network.take();
    drop(network);
    timer::reset(0);
    CORE.take();
    assert_eq!(
        task::panics_here(),
        core.panics_expected.get(),
        "seed {seed}: tasks panicked, see above"
    );
    output
}

/// A listening address in this run's network.
///
/// # Errors
/// `AddrInUse`.
pub(crate) fn listen(address: SocketAddr) -> io::Result<Listener> {
    let core = core();
    let mut network = core.network.borrow_mut();
    if network.listeners.contains_key(&address) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    network.listeners.insert(address, Listening::default());
    Ok(Listener::new(Acceptor { address }))
}

/// Attempts to connect to `address` get no answer from now on.
pub(crate) fn silence(address: SocketAddr) {
    core().network.borrow_mut().silent.push(address);
}

/// This run is to end with `count` more panics of tasks than it would have to.
pub(crate) fn expect_panics(count: u64) {
    let core = core();
    core.panics_expected.set(core.panics_expected.get() + count);
}

/// A number below `bound` from this run's seed, for tests that decide something at random.
pub(crate) fn random(bound: u64) -> u64 {
    core().random(bound)
}

/// The driver's own entry: a perfect network.
#[allow(
    clippy::unnecessary_wraps,
    reason = "the same signature as that of the real drivers"
)]
pub(in crate::reactor) fn run_driver<F: Future>(_driver: Driver, main: F) -> io::Result<F::Output> {
    Ok(run(0, Faults::NONE, main))
}

pub(in crate::reactor) fn spawn<F: Future<Output = ()> + 'static>(future: F) {
    let core = core();
    let mut tasks = core.tasks.borrow_mut();
    READY.with_borrow_mut(|ready| ready.push(tasks.len()));
    tasks.push(Some(Box::pin(future)));
}

/// Outside of a run the clock stands still.
pub(in crate::reactor) fn nanoseconds() -> u64 {
    CORE.with_borrow(|core| core.as_ref().map_or(0, |core| core.now.get()))
}

pub(in crate::reactor) fn nanoseconds_coarse() -> u64 {
    nanoseconds()
}

pub(in crate::reactor) fn arm(at: u64) {
    CORE.with_borrow(|core| {
        if let Some(core) = core {
            core.alarm.set(Some(at));
        }
    });
}

fn core() -> Rc<Core> {
    CORE.with_borrow(Clone::clone)
        .expect("only called inside of a simulation's `run`")
}

/// Sockets may be dropped after their run.
fn core_if_any() -> Option<Rc<Core>> {
    CORE.try_with(|core| core.borrow().clone()).ok().flatten()
}

struct TaskWaker(usize);

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        // Wakers may outlive the thread's storage by a moment, when nothing is polled any more.
        let _ = READY.try_with(|ready| {
            let mut ready = ready.borrow_mut();
            if !ready.contains(&self.0) {
                ready.push(self.0);
            }
        });
    }
}

impl Core {
    fn drive<F: Future>(&self, seed: u64, mut main: Pin<&mut F>) -> F::Output {
        READY.with_borrow_mut(|ready| ready.push(MAIN));
        for _ in 0..POLLS_MAX {
            let Some(task) = self.next_ready() else {
                assert!(
                    self.advance(),
                    "seed {seed}: everything waits and nothing will ever happen"
                );
                continue;
            };
            let waker = Waker::from(Arc::new(TaskWaker(task)));
            let mut context = Context::from_waker(&waker);
            if task == MAIN {
                if let Poll::Ready(output) = main.as_mut().poll(&mut context) {
                    return output;
                }
                continue;
            }
            // Taken out while it is polled, because it may spawn.
            let taken = self.tasks.borrow_mut().get_mut(task).and_then(Option::take);
            if let Some(mut future) = taken
                && future.as_mut().poll(&mut context).is_pending()
                && let Some(place) = self.tasks.borrow_mut().get_mut(task)
            {
                *place = Some(future);
            }
        }
        panic!("seed {seed}: some task never stops waking");
    }

    /// One of the tasks that can run, whichever the seed likes.
    fn next_ready(&self) -> Option<usize> {
        READY.with_borrow_mut(|ready| {
            let count = u64::try_from(ready.len()).expect("few tasks");
            (count > 0)
                .then(|| ready.remove(usize::try_from(self.random(count)).expect("below a length")))
        })
    }

    /// Jumps to what happens next. False if nothing will.
    fn advance(&self) -> bool {
        let event = self
            .network
            .borrow()
            .events
            .first_key_value()
            .map(|(&(at, _), _)| at);
        let next = match (event, self.alarm.get()) {
            (None, None) => return false,
            (Some(event), Some(alarm)) => event.min(alarm),
            (Some(at), None) | (None, Some(at)) => at,
        };
        self.now.set(next.max(self.now.get()));
        if event == Some(next) {
            self.network.borrow_mut().happen(self);
        } else {
            self.alarm.set(None);
            self.alarm.set(timer::turn(self.now.get()));
        }
        true
    }

    fn random(&self, bound: u64) -> u64 {
        // SplitMix64.
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    fn happens(&self, per_thousand: u64) -> bool {
        per_thousand > 0 && self.random(1000) < per_thousand
    }

    fn delay(&self) -> u64 {
        self.random(u64::try_from(self.faults.delay_max.as_nanos()).expect("delays are short") + 1)
    }

    /// How many of `count` bytes are moved: all, or some.
    fn portion(&self, count: usize) -> usize {
        if self.faults.partial && count > 1 && self.happens(500) {
            1 + usize::try_from(self.random(count as u64)).expect("below a length")
        } else {
            count
        }
    }

    async fn delayed(&self) {
        let until = self.now.get() + self.delay();
        poll_fn(|context| {
            if self.now.get() >= until {
                return Poll::Ready(());
            }
            self.network
                .borrow_mut()
                .plan(until, Event::Wake(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

impl Network {
    fn plan(&mut self, at: u64, event: Event) {
        self.events_made += 1;
        self.events.insert((at, self.events_made), event);
    }

    fn flow(&mut self, flow: usize) -> &mut Flow {
        self.flows
            .get_mut(flow)
            .expect("streams name flows of their own run")
    }

    fn happen(&mut self, core: &Core) {
        match self.events.pop_first() {
            Some((_, Event::Bytes(index, bytes))) => {
                let reset = core.happens(core.faults.resets);
                let flow = self.flow(index);
                flow.under_way -= bytes.len();
                if flow.end == End::Reset {
                    // A gap was cut into the stream: what was sent behind it never arrives.
                    return;
                }
                if reset || flow.receiver_gone {
                    self.reset(index);
                    return;
                }
                flow.arrived.extend(bytes);
                flow.wake_reader();
            }
            Some((_, Event::End(index, End::Reset))) => self.reset(index),
            Some((_, Event::End(index, end))) => {
                let flow = self.flow(index);
                if flow.end == End::Open {
                    flow.end = end;
                }
                flow.wake_reader();
            }
            Some((_, Event::Wake(waker))) => waker.wake(),
            None => {}
        }
    }

    /// Cuts both directions, for both sides.
    fn reset(&mut self, index: usize) {
        for index in [index, index ^ 1] {
            let flow = self.flow(index);
            flow.end = End::Reset;
            flow.wake_reader();
            flow.wake_writer();
        }
    }

    /// Puts the end of a flow behind the bytes that are under way.
    fn finish(&mut self, core: &Core, index: usize, end: End) {
        let now = core.now.get() + core.delay();
        let flow = self.flow(index);
        if flow.sender_shut && end == End::Finished {
            return;
        }
        flow.sender_shut = true;
        let at = now.max(flow.last_arrival);
        flow.last_arrival = at;
        flow.wake_writer();
        self.plan(at, Event::End(index, end));
    }

    /// A new connection: the client's and the server's stream.
    fn connect(&mut self, to: SocketAddr) -> (Stream, Stream, SocketAddr) {
        let first = self.flows.len();
        self.flows.push(Flow::default());
        self.flows.push(Flow::default());
        self.ports_used += 1;
        let from = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 30_000 + self.ports_used));
        (
            Stream {
                sends: first,
                address: from,
            },
            Stream {
                sends: first ^ 1,
                address: to,
            },
            from,
        )
    }

    fn send(&mut self, core: &Core, index: usize, bytes: &[u8]) -> io::Result<usize> {
        let flow = self.flow(index);
        if flow.end == End::Reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if flow.sender_shut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let room = WINDOW - flow.arrived.len() - flow.under_way;
        let count = core.portion(room.min(bytes.len()));
        let Some(sent) = bytes.get(..count).filter(|sent| !sent.is_empty()) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let at = (core.now.get() + core.delay()).max(flow.last_arrival);
        flow.last_arrival = at;
        flow.under_way += count;
        self.plan(at, Event::Bytes(index, sent.to_vec()));
        Ok(count)
    }

    /// At most `room` bytes, put where `keep` says; 0 is the end.
    fn receive(
        &mut self,
        core: &Core,
        index: usize,
        room: usize,
        mut keep: impl FnMut(&[u8]),
    ) -> io::Result<usize> {
        let flow = self.flow(index);
        let count = core.portion(flow.arrived.len().min(room));
        if count > 0 {
            let bytes: Vec<u8> = flow.arrived.drain(..count).collect();
            keep(&bytes);
            flow.wake_writer();
            return Ok(count);
        }
        match flow.end {
            End::Reset => Err(io::ErrorKind::ConnectionReset.into()),
            End::Finished => Ok(0),
            End::Open if flow.receiver_shut => Ok(0),
            End::Open => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Flow {
    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

/// One end of a simulated connection.
pub(in crate::reactor) struct Stream {
    /// The flow it sends on; it receives on the other one of the pair. `SILENT` for a descriptor from outside.
    sends: usize,
    address: SocketAddr,
}

/// A stream that is not of this network: it never gives or takes a byte.
const SILENT: usize = usize::MAX;

impl Stream {
    /// A real descriptor has no place in the network: the stream stays silent for ever.
    #[allow(
        clippy::unnecessary_wraps,
        reason = "the same signature as that of the real drivers"
    )]
    pub(in crate::reactor) fn from_fd(_fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            sends: SILENT,
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        })
    }

    /// # Errors
    /// Always: there is no descriptor.
    pub(in crate::reactor) fn into_fd(self) -> io::Result<OwnedFd> {
        drop(self);
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in crate::reactor) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let core = core();
        if core.network.borrow().silent.contains(&address) {
            return std::future::pending().await;
        }
        core.delayed().await;
        let refused = core.happens(core.faults.refusals);
        let mut network = core.network.borrow_mut();
        if refused || !network.listeners.contains_key(&address) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far, from) = network.connect(address);
        if let Some(listening) = network.listeners.get_mut(&address) {
            listening.queue.push_back((far, from));
            if let Some(waker) = listening.waiting.take() {
                waker.wake();
            }
        }
        Ok(near)
    }

    fn receives(&self) -> usize {
        self.sends ^ 1
    }

    pub(in crate::reactor) async fn recv(&self, room: Room) -> io::Result<Buffer> {
        let mut buffer = Buffer::take(room);
        self.until(Side::Reader, |network, core| {
            let room = buffer.spare().len();
            network.receive(core, self.receives(), room, |bytes| buffer.extend(bytes))
        })
        .await?;
        Ok(buffer)
    }

    /// Receives of this driver cannot be left to themselves.
    pub(in crate::reactor) fn poll_recv(
        &self,
        _room: Room,
        _context: &Context<'_>,
    ) -> Option<Poll<io::Result<Buffer>>> {
        None
    }

    /// As [`Stream::recv`]; `None` once `timer` expires with nothing received.
    pub(in crate::reactor) async fn recv_until(
        &self,
        room: Room,
        timer: &Timer,
    ) -> io::Result<Option<Buffer>> {
        let mut receiving = pin!(self.recv_cancelable(Buffer::take(room)));
        let (result, buffer) = match limit(timer, receiving.as_mut()).await {
            Some(done) => done,
            None => {
                self.cancel();
                receiving.await
            }
        };
        match result {
            Ok(_) => Ok(Some(buffer)),
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn recv_cancelable(&self, mut buffer: Buffer) -> (io::Result<usize>, Buffer) {
        let result = self
            .until(Side::Reader, |network, core| {
                if std::mem::take(&mut network.flow(self.receives()).cancelled) {
                    return Err(io::Error::from_raw_os_error(libc::ECANCELED));
                }
                let room = buffer.spare().len();
                network.receive(core, self.receives(), room, |bytes| buffer.extend(bytes))
            })
            .await;
        (result, buffer)
    }

    fn cancel(&self) {
        if self.sends != SILENT {
            let core = core();
            let mut network = core.network.borrow_mut();
            let flow = network.flow(self.receives());
            flow.cancelled = true;
            flow.wake_reader();
        }
    }

    pub(in crate::reactor) async fn send(&self, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        let result = self
            .until(Side::Writer, |network, core| {
                network.send(core, self.sends, buffer.bytes())
            })
            .await;
        (result, buffer)
    }

    pub(in crate::reactor) async fn send_gathered(
        &self,
        gather: Gather,
    ) -> (io::Result<usize>, Gather) {
        let bytes = gather.bytes();
        let result = self
            .until(Side::Writer, |network, core| {
                network.send(core, self.sends, &bytes)
            })
            .await;
        (result, gather)
    }

    pub(in crate::reactor) async fn readable(&self) -> io::Result<()> {
        self.until(Side::Reader, |network, _| {
            let flow = network.flow(self.receives());
            if flow.arrived.is_empty() && flow.end == End::Open && !flow.receiver_shut {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        })
        .await
    }

    pub(in crate::reactor) async fn writable(&self) -> io::Result<()> {
        self.until(Side::Writer, |network, _| {
            let flow = network.flow(self.sends);
            if flow.arrived.len() + flow.under_way == WINDOW
                && flow.end == End::Open
                && !flow.sender_shut
            {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        })
        .await
    }

    /// Tries until it does not have to wait any more.
    async fn until<T>(
        &self,
        side: Side,
        mut attempt: impl FnMut(&mut Network, &Core) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.sends == SILENT {
            return std::future::pending().await;
        }
        let core = core();
        poll_fn(|context| {
            let mut network = core.network.borrow_mut();
            match attempt(&mut network, &core) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let waker = Some(context.waker().clone());
                    match side {
                        Side::Reader => network.flow(self.receives()).reader = waker,
                        Side::Writer => network.flow(self.sends).writer = waker,
                    }
                    Poll::Pending
                }
                result => Poll::Ready(result),
            }
        })
        .await
    }

    pub(in crate::reactor) fn shutdown(&self, how: Shutdown) {
        if self.sends == SILENT {
            return;
        }
        let core = core();
        let mut network = core.network.borrow_mut();
        if how != Shutdown::Write {
            let flow = network.flow(self.receives());
            flow.receiver_shut = true;
            flow.wake_reader();
        }
        if how != Shutdown::Read {
            network.finish(&core, self.sends, End::Finished);
        }
    }

    /// A peer that dropped its socket does not answer, and is found out two seconds later.
    pub(in crate::reactor) fn probe_peer(&self) {
        if self.sends == SILENT {
            return;
        }
        let core = core();
        let mut network = core.network.borrow_mut();
        if network.flow(self.sends).receiver_gone {
            let at = core.now.get() + PROBED_NANOSECONDS;
            network.plan(at, Event::End(self.receives(), End::Reset));
        }
    }

    pub(in crate::reactor) fn reset_on_close(&self) {
        if self.sends != SILENT {
            core().network.borrow_mut().flow(self.sends).resets = true;
        }
    }

    pub(in crate::reactor) fn peer(&self) -> Peer {
        if self.sends == SILENT {
            return Peer::Present;
        }
        let core = core();
        let mut network = core.network.borrow_mut();
        let shut = network.flow(self.sends).sender_shut;
        match network.flow(self.receives()).end {
            End::Reset => Peer::Gone,
            End::Finished if shut => Peer::Gone,
            End::Finished => Peer::HalfClosed,
            End::Open => Peer::Present,
        }
    }

    #[allow(
        clippy::unnecessary_wraps,
        reason = "the same signature as that of the real drivers"
    )]
    pub(in crate::reactor) fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

enum Side {
    Reader,
    Writer,
}

impl Drop for Stream {
    fn drop(&mut self) {
        let Some(core) = core_if_any() else { return };
        // While the network itself is dropped, at the end of a run, nobody is left to be told.
        let Ok(mut network) = core.network.try_borrow_mut() else {
            return;
        };
        if self.sends == SILENT || self.sends >= network.flows.len() {
            return;
        }
        let receives = self.receives();
        let flow = network.flow(receives);
        flow.receiver_gone = true;
        let unread = !flow.arrived.is_empty();
        let end = if unread || network.flow(self.sends).resets {
            End::Reset
        } else {
            End::Finished
        };
        network.finish(&core, self.sends, end);
    }
}

/// A simulated listening address.
pub(in crate::reactor) struct Acceptor {
    address: SocketAddr,
}

impl Acceptor {
    /// # Errors
    /// Always: a real listener has no place in the network. See [`listen`].
    pub(in crate::reactor) fn from_std(
        _listener: std::net::TcpListener,
        _ahead: bool,
    ) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in crate::reactor) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let core = core();
        poll_fn(|context| {
            let mut network = core.network.borrow_mut();
            let Some(listening) = network.listeners.get_mut(&self.address) else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            if listening.cancelled {
                return Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
            }
            match listening.queue.pop_front() {
                Some(accepted) => Poll::Ready(Ok(accepted)),
                None => {
                    listening.waiting = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    #[allow(
        clippy::unused_async,
        reason = "the same signature as that of the driver that must wait"
    )]
    pub(in crate::reactor) async fn accept_queued(&self) -> io::Result<(Stream, SocketAddr)> {
        let core = core();
        let mut network = core.network.borrow_mut();
        let listening = network.listeners.get_mut(&self.address);
        listening
            .and_then(|listening| listening.queue.pop_front())
            .ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    pub(in crate::reactor) fn cancel(&self) {
        let core = core();
        let mut network = core.network.borrow_mut();
        if let Some(listening) = network.listeners.get_mut(&self.address) {
            listening.cancelled = true;
            if let Some(waker) = listening.waiting.take() {
                waker.wake();
            }
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        let Some(core) = core_if_any() else { return };
        let Ok(mut network) = core.network.try_borrow_mut() else {
            return;
        };
        let listening = network.listeners.remove(&self.address);
        drop(network);
        // What was queued is closed, which needs the network.
        drop(listening);
    }
}

/// A pipe for spliced bytes.
#[derive(Debug)]
pub(in crate::reactor) struct Channel {
    bytes: RefCell<VecDeque<u8>>,
    capacity: usize,
}

impl Channel {
    #[allow(
        clippy::unnecessary_wraps,
        reason = "the same signature as that of the real drivers"
    )]
    pub(in crate::reactor) fn new(capacity: usize) -> io::Result<Self> {
        Ok(Self {
            bytes: RefCell::default(),
            capacity,
        })
    }

    pub(in crate::reactor) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(in crate::reactor) fn fill(&self, from: &Stream, count: usize) -> io::Result<usize> {
        let core = core();
        let mut network = core.network.borrow_mut();
        network.receive(&core, from.receives(), count, |bytes| {
            self.bytes.borrow_mut().extend(bytes)
        })
    }

    pub(in crate::reactor) fn drain(&self, to: &Stream, count: usize) -> io::Result<usize> {
        let core = core();
        let mut bytes = self.bytes.borrow_mut();
        let held: Vec<u8> = bytes.iter().take(count).copied().collect();
        let sent = core.network.borrow_mut().send(&core, to.sends, &held)?;
        bytes.drain(..sent);
        Ok(sent)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::reactor::{Pipe, Room, Socket, Timer, limit, now, sleep, spawn, splice};

    const SERVER: &str = "10.0.0.2:80";

    fn server() -> SocketAddr {
        SERVER.parse().expect("an address")
    }

    fn within(duration: Duration) -> Timer {
        let timer = Timer::new();
        timer.set(now() + duration);
        timer
    }

    /// Several clients talk to an echo server; the log tells what each saw, and when.
    fn conversation(seed: u64, faults: Faults) -> String {
        run(seed, faults, async {
            let listener = listen(server()).expect("free");
            spawn(async move {
                while let Ok((socket, _)) = listener.accept().await {
                    spawn(async move {
                        let timer = within(Duration::from_secs(60));
                        while let Ok(buffer) = socket.recv_patient(Room::Small, &timer).await {
                            if buffer.is_empty() || socket.send(buffer, &timer).await.is_err() {
                                break;
                            }
                        }
                    });
                }
            });
            let log = Rc::new(RefCell::new(String::new()));
            let left = Rc::new(Cell::new(5));
            for client in 0..5_u64 {
                let (log, left) = (Rc::clone(&log), Rc::clone(&left));
                spawn(async move {
                    let outcome = talk(client, &log).await;
                    let _ = writeln!(log.borrow_mut(), "{client} {:?} {outcome:?}", now());
                    left.set(left.get() - 1);
                });
            }
            while left.get() > 0 {
                sleep(Duration::from_millis(100)).await;
            }
            log.take()
        })
    }

    async fn talk(client: u64, log: &RefCell<String>) -> io::Result<usize> {
        let timer = within(Duration::from_secs(30));
        let socket = Socket::connect(server(), &timer).await?;
        let mut echoed = 0;
        for round in 0..4 {
            sleep(Duration::from_millis(random(3000))).await;
            let mut parts = vec![Buffer::with(&[b'a'; 700]), Buffer::with(&[b'b'; 5000])];
            socket.send_all(&mut parts, &timer).await?;
            let mut missing = 5700;
            while missing > 0 {
                let buffer = socket.recv(Room::Small, &timer).await?;
                if buffer.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                missing -= buffer.len();
                echoed += buffer.len();
                let _ = writeln!(
                    log.borrow_mut(),
                    "{client} {round} {:?} {}",
                    now(),
                    buffer.len()
                );
            }
        }
        Ok(echoed)
    }

    #[test]
    fn one_seed_is_one_run() {
        for seed in 0..20 {
            let log = conversation(seed, Faults::ROUGH);
            assert_eq!(log, conversation(seed, Faults::ROUGH));
            assert_ne!(log, conversation(seed + 1000, Faults::ROUGH));
        }
    }

    #[test]
    fn a_slow_network_loses_nothing() {
        for seed in 0..50 {
            let log = conversation(seed, Faults::SLOW);
            assert_eq!(log.matches("Ok(22800)").count(), 5, "seed {seed}: {log}");
        }
    }

    #[test]
    fn a_rough_network_resets_and_refuses() {
        let logs: String = (0..100)
            .map(|seed| conversation(seed, Faults::ROUGH))
            .collect();
        for expected in ["ConnectionReset", "ConnectionRefused", "Ok(22800)"] {
            assert!(logs.contains(expected), "{expected}");
        }
    }

    #[test]
    fn time_jumps_and_deadlines_hold() {
        run(1, Faults::NONE, async {
            let listener = listen(server()).expect("free");
            let begin = now();
            let client = Socket::connect(server(), &Timer::new())
                .await
                .expect("listens");
            let (near, _) = listener.accept().await.expect("queued");
            let hour = within(Duration::from_secs(3600));
            assert_eq!(
                near.recv_patient(Room::Small, &hour)
                    .await
                    .expect_err("quiet")
                    .kind(),
                io::ErrorKind::TimedOut
            );
            let took = now() - begin;
            assert!(
                took >= Duration::from_secs(3600) && took <= Duration::from_millis(3_600_010),
                "{took:?}"
            );
            near.send(Buffer::with(b"408"), &Timer::new())
                .await
                .expect("still open");
            assert_eq!(
                client
                    .recv(Room::Small, &Timer::new())
                    .await
                    .expect("arrives")
                    .bytes(),
                b"408"
            );

            silence("10.0.0.3:80".parse().expect("an address"));
            let second = within(Duration::from_secs(1));
            let error = Socket::connect("10.0.0.3:80".parse().expect("an address"), &second)
                .await
                .expect_err("silent");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            // Nobody reads, so what does not fit stays.
            let big = Buffer::from(vec![0; WINDOW + 1]);
            let error = near
                .send(big, &within(Duration::from_secs(1)))
                .await
                .expect_err("full");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn closing_is_seen_as_it_was_done() {
        run(2, Faults::NONE, async {
            let timer = Timer::new();
            let listener = listen(server()).expect("free");
            let client = Socket::connect(server(), &timer).await.expect("listens");
            let (near, _) = listener.accept().await.expect("queued");
            assert_eq!(near.peer(), Peer::Present);
            client.shutdown(Shutdown::Write);
            assert!(
                near.recv(Room::Small, &timer)
                    .await
                    .expect("ends")
                    .is_empty()
            );
            assert_eq!(near.peer(), Peer::HalfClosed);
            near.send(Buffer::with(b"still"), &timer)
                .await
                .expect("half open");
            assert_eq!(
                client
                    .recv(Room::Small, &timer)
                    .await
                    .expect("arrives")
                    .bytes(),
                b"still"
            );
            near.send(Buffer::with(b"unread"), &timer)
                .await
                .expect("half open");
            sleep(Duration::from_millis(1)).await;
            drop(client);
            sleep(Duration::from_millis(1)).await;
            assert_eq!(near.peer(), Peer::Gone);
            assert_eq!(
                near.recv(Room::Small, &timer)
                    .await
                    .expect_err("reset")
                    .kind(),
                io::ErrorKind::ConnectionReset
            );
        });
    }

    #[test]
    fn a_probe_finds_out_who_left_and_a_close_can_be_a_reset() {
        run(7, Faults::NONE, async {
            let timer = Timer::new();
            let listener = listen(server()).expect("free");
            let client = Socket::connect(server(), &timer).await.expect("listens");
            let (near, _) = listener.accept().await.expect("queued");
            drop(client);
            sleep(Duration::from_millis(1)).await;
            assert_eq!(near.peer(), Peer::HalfClosed);
            near.probe_peer();
            sleep(Duration::from_secs(3)).await;
            assert_eq!(near.peer(), Peer::Gone);

            let client = Socket::connect(server(), &timer).await.expect("listens");
            let (near, _) = listener.accept().await.expect("queued");
            near.reset_on_close();
            drop(near);
            let error = client.recv(Room::Small, &timer).await.expect_err("reset");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        });
    }

    #[test]
    fn stop_gives_out_what_is_queued() {
        run(3, Faults::NONE, async {
            let listener = listen(server()).expect("free");
            let _first = Socket::connect(server(), &Timer::new())
                .await
                .expect("listens");
            let _second = Socket::connect(server(), &Timer::new())
                .await
                .expect("listens");
            listener.stop();
            assert!(listener.accept().await.is_ok());
            assert!(listener.accept().await.is_ok());
            assert_eq!(
                listener.accept().await.expect_err("empty").kind(),
                io::ErrorKind::NotConnected
            );
            drop(listener);
            let error = Socket::connect(server(), &Timer::new())
                .await
                .expect_err("gone");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        });
    }

    #[test]
    fn splice_moves_every_byte() {
        run(4, Faults::SLOW, async {
            let timer = within(Duration::from_secs(60));
            let listener = listen(server()).expect("free");
            let source = Socket::connect(server(), &timer).await.expect("listens");
            let (from, _) = listener.accept().await.expect("queued");
            let to = Socket::connect(server(), &timer).await.expect("listens");
            let (sink, _) = listener.accept().await.expect("queued");
            let bytes: Vec<u8> = (0..=255).cycle().take(200_000).collect();
            let sent = bytes.clone();
            spawn(async move {
                source
                    .send(Buffer::from(sent), &Timer::new())
                    .await
                    .expect("sends")
            });
            spawn(async move {
                let mut pipe = Pipe::new().expect("memory");
                while splice(&from, &to, &mut pipe, 50_000, &Timer::new())
                    .await
                    .expect("moves")
                    > 0
                {}
            });
            let mut got = Vec::new();
            while got.len() < bytes.len() {
                got.extend_from_slice(
                    sink.recv(Room::Large, &timer)
                        .await
                        .expect("receives")
                        .bytes(),
                );
            }
            assert!(got == bytes);
            assert!(
                sink.recv(Room::Large, &timer)
                    .await
                    .expect("ends")
                    .is_empty()
            );
        });
    }

    #[test]
    fn a_limited_future_can_be_finished() {
        run(5, Faults::NONE, async {
            let mut work = pin!(sleep(Duration::from_secs(2)));
            assert_eq!(
                limit(&within(Duration::from_secs(1)), work.as_mut()).await,
                None
            );
            assert_eq!(
                limit(&within(Duration::from_secs(5)), work.as_mut()).await,
                Some(())
            );
        });
    }

    #[test]
    #[should_panic(expected = "nothing will ever happen")]
    fn a_deadlock_is_found() {
        run(6, Faults::NONE, std::future::pending::<()>());
    }
}
