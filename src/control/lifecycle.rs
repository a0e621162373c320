//! How the process ends, and what it tells its service manager.
//!
//! Owns the signals, the notifications of systemd, and the order of a stop: go on serving for
//! `requestAcceptGraceTimeout`, drain for `graceTimeOut`, cut. A second signal cuts at once.
//! Never closes a socket itself: cores do, when told. Source: spec static-config 3.3.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::publish::Publisher;
use super::{CoreLink, Heard};
use crate::config::global::LifeCycle;

/// How often the loop looks at what sends no message of its own: full mailboxes, dead threads.
pub const TURN: Duration = Duration::from_millis(100);

/// How long cores get to return once they were told to stop. A core that takes longer is left to the end of the process.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Stop,
    ReopenLogs,
    /// Read the sources of configuration again now.
    Look,
}

/// The signals we answer.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reopen: Signal,
    hang_up: Signal,
}

impl Signals {
    /// From here on these signals no longer end the process by themselves.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reopen: signal(SignalKind::user_defined1())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.reopen.recv() => Asked::ReopenLogs,
            _ = self.hang_up.recv() => Asked::Look,
        }
    }

    /// The next signal that asks to stop.
    pub async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}

/// Ends all cores: drains them as `life_cycle` says, tells them to stop, joins their threads.
pub async fn stop(
    cores: Vec<CoreLink>,
    publisher: &mut Publisher,
    heard: &mut tokio::sync::mpsc::UnboundedReceiver<Heard>,
    signals: &mut Signals,
    life_cycle: &LifeCycle,
) {
    info!("I have to go...");
    notify("STOPPING=1");
    publisher.leave();
    if !life_cycle.request_accept_grace_timeout.is_zero() {
        info!(
            "Waiting {:?} for incoming requests to cease",
            life_cycle.request_accept_grace_timeout
        );
        tokio::select! {
            () = tokio::time::sleep(life_cycle.request_accept_grace_timeout) => {}
            () = signals.stop() => info!("A second signal: not waiting any longer"),
        }
    }
    if !life_cycle.grace_time_out.is_zero() {
        publisher.drain();
        tokio::select! {
            () = drained(&cores, publisher, heard) => debug!("All requests are finished"),
            () = tokio::time::sleep(life_cycle.grace_time_out) => {
                info!("Cutting what is left after {:?}", life_cycle.grace_time_out);
            }
            () = signals.stop() => info!("A second signal: cutting what is left"),
        }
    }
    publisher.stop();
    let end = Instant::now() + STOP_TIMEOUT;
    while !cores.iter().all(|core| core.thread.is_finished()) && Instant::now() < end {
        publisher.deliver();
        // What cores say now concerns nobody, but their snapshots come with it.
        tokio::select! {
            _ = heard.recv() => {}
            () = sleep_until(Instant::now() + TURN / 10) => {}
        }
    }
    for (number, core) in cores.into_iter().enumerate() {
        if core.thread.is_finished() {
            let _ = core.thread.join();
        } else {
            warn!("Core {number} did not stop in time");
        }
    }
}

/// Waits until every core that still runs has no connection left.
async fn drained(
    cores: &[CoreLink],
    publisher: &mut Publisher,
    heard: &mut tokio::sync::mpsc::UnboundedReceiver<Heard>,
) {
    let mut is_drained = vec![false; cores.len()];
    loop {
        let is_done =
            |(core, &is_drained): (&CoreLink, &bool)| is_drained || core.thread.is_finished();
        if cores.iter().zip(&is_drained).all(is_done) {
            return;
        }
        tokio::select! {
            Some(said) = heard.recv() => {
                if let Heard::Drained { core } = said && let Some(place) = is_drained.get_mut(core) {
                    *place = true;
                }
            }
            () = tokio::time::sleep(TURN) => publisher.deliver(),
        }
    }
}

/// Tells systemd about us, if it asked to be told (`NOTIFY_SOCKET`, see sd_notify(3)).
pub fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&socket, state) {
        debug!("Cannot tell systemd {state}: {error}");
    }
}

fn send(socket: &OsString, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    // A service manager that does not read must not hold the control loop.
    sender.set_nonblocking(true)?;
    sender.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// How often systemd wants to hear from us: half of `WATCHDOG_USEC`, `None` if it does not care.
pub fn watchdog_interval() -> Option<Duration> {
    if std::env::var("WATCHDOG_PID").is_ok_and(|pid| pid != std::process::id().to_string()) {
        return None;
    }
    let microseconds: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    Some(Duration::from_micros(microseconds / 2)).filter(|interval| !interval.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_hears_us_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("binds");
        send(&path.into_os_string(), "READY=1").expect("sends");
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).expect("hears");
        assert_eq!(&buffer[..length], b"READY=1");

        let name = format!("coreway-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let manager = UnixDatagram::bind_addr(&address).expect("binds");
        send(&OsString::from(format!("@{name}")), "STOPPING=1").expect("sends");
        let length = manager.recv(&mut buffer).expect("hears");
        assert_eq!(&buffer[..length], b"STOPPING=1");
    }
}
