//! New connections: accepted on one core, served there or handed to a core with fewer.
//!
//! Owns the accept loops of a core. Running out of file descriptors pauses a loop, it never ends it and never spins.

use std::net::SocketAddr;
use std::rc::Rc;

use super::connection::{self, Client};
use super::core::Core;
use super::proxied;
use super::transport::Transport;
use crate::limits::DESCRIPTORS_WAIT;
use crate::mailbox::Message;
use crate::reactor::{self, Buffer, Listener, Socket, sleep};
use crate::snapshot::EntryPointId;

/// A core gives a new connection away if it has this many more than another, and a quarter more.
const CROWD: usize = 32;

/// Accepts until the listener is stopped.
pub(crate) async fn accept(core: Rc<Core>, listener: Rc<Listener>, entry_point: EntryPointId) {
    core.accepts();
    let mut exhausted = false;
    loop {
        if !core.has_room() && !core.draining() {
            if !exhausted {
                exhausted = true;
                tracing::error!(
                    "core {}: no more connections are accepted for now: {} file descriptors are too few",
                    core.index,
                    core.settings.descriptors_max
                );
            }
            sleep(DESCRIPTORS_WAIT).await;
            continue;
        }
        match listener.accept().await {
            Ok((socket, peer)) => {
                exhausted = false;
                if let Some(socket) = hand_over(&core, socket, peer, entry_point) {
                    begin(&core, socket, peer, entry_point);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotConnected => {
                return core.accepts_no_more();
            }
            Err(error) if is_exhaustion(&error) => {
                if !exhausted {
                    exhausted = true;
                    tracing::error!(
                        "core {}: no connection can be accepted: {error}; kept upstream connections are closed, \
                         trying again",
                        core.index
                    );
                }
                core.close_kept();
                sleep(DESCRIPTORS_WAIT).await;
            }
            // The client was gone before it was accepted, or its packet was odd: the next one is another matter.
            Err(error) => tracing::debug!("core {}: accept: {error}", core.index),
        }
    }
}

fn is_exhaustion(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// Starts to serve a connection on this core.
pub(crate) fn begin(core: &Rc<Core>, socket: Socket, peer: SocketAddr, entry_point: EntryPointId) {
    core.counters.connections_accepted.add(1);
    match &core.entry_point(entry_point).proxy_protocol {
        None => serve(core, socket, peer, entry_point, Buffer::empty()),
        Some(_) => reactor::spawn(begin_proxied(Rc::clone(core), socket, peer, entry_point)),
    }
}

/// As `begin`, once it is known who the client is.
async fn begin_proxied(
    core: Rc<Core>,
    socket: Socket,
    peer: SocketAddr,
    entry_point: EntryPointId,
) {
    let Some(trust) = &core.entry_point(entry_point).proxy_protocol else {
        return;
    };
    // A drain waits for it, and its descriptor counts.
    core.load.expect();
    if let Some((peer, received)) = proxied::read(&socket, peer, trust).await {
        serve(&core, socket, peer, entry_point, received);
    }
    core.has_arrived();
}

/// Starts the task of a connection. `received` is what its client has sent already.
fn serve(
    core: &Rc<Core>,
    socket: Socket,
    peer: SocketAddr,
    entry_point: EntryPointId,
    received: Buffer,
) {
    let snapshot = core.snapshot();
    let tls = snapshot
        .tls(entry_point)
        .or_else(|| core.entry_point(entry_point).tls.as_ref());
    let transport = match tls {
        None => Transport::Plain(socket),
        Some(server) => {
            let local = || Some(socket.local_addr().ok()?.ip().to_canonical());
            match server.accept(local) {
                Ok(connection) => Transport::tls(socket, connection),
                Err(error) => {
                    tracing::error!("core {}: no TLS connection: {error}", core.index);
                    return;
                }
            }
        }
    };
    let client = Rc::new(Client::new(core, transport, peer, entry_point));
    let place = core.join(&client);
    let serving = connection::serve(Rc::clone(core), client, place, received);
    reactor::spawn(serving);
}

/// Gives the connection to the least crowded core if this one is crowded. Gives it back if it is to stay.
fn hand_over(
    core: &Core,
    socket: Socket,
    peer: SocketAddr,
    entry_point: EntryPointId,
) -> Option<Socket> {
    let own = core.load.clients();
    // A core that drains may be the last one that does.
    if own < CROWD || core.neighbours.len() < 2 || core.draining() {
        return Some(socket);
    }
    let other = core
        .neighbours
        .iter()
        .min_by_key(|neighbour| neighbour.load.clients())?;
    let theirs = other.load.clients();
    if own < theirs + theirs / 4 + CROWD {
        return Some(socket);
    }
    match socket.into_fd() {
        Ok(descriptor) => {
            let message = Message::Connection {
                entry_point,
                socket: descriptor,
                peer,
            };
            other.load.expect();
            match other.mailbox.send(message) {
                Ok(()) => None,
                Err(message) => {
                    other.load.arrived();
                    let Message::Connection { socket, .. } = message else {
                        return None;
                    };
                    Socket::from_fd(socket).ok()
                }
            }
        }
        Err(error) => {
            tracing::debug!(
                "core {}: a connection could not be handed over: {error}",
                core.index
            );
            None
        }
    }
}
