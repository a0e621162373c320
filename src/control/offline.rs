//! The configuration as a server would begin with it, read once: for commands that look at it and serve nobody.
//!
//! Owns the order in which sources are read; everything that a server would warn of is logged on the way. Host names are
//! not resolved. Never waits for a store that does not answer, and never writes anything.
//! Read next: `explain.rs`.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{error, warn};

use super::files::Files;
use super::stores::{self, Wants};
use super::{log_rejections, world};
use crate::compile::settings::{self, Machine};
use crate::compile::{self, Compiled, Memory, World};
use crate::config::{self, Dynamic, Global, Loaded};
use crate::limits::STORE_WAIT_MAX;
use crate::provider::{Board, file, kv};
use crate::settings::Settings;

/// A configuration that was read and compiled, for one core.
#[derive(Debug)]
pub struct Offline {
    pub global: Global,
    pub settings: Settings,
    pub world: World,
    pub providers: BTreeMap<String, Arc<Dynamic>>,
    pub compiled: Compiled,
}

/// Reads and compiles it. `None`: no server could be started with it, and why was logged.
pub fn load(loaded: Loaded, machine: &Machine) -> Option<Offline> {
    let loaded = match stores::load_static_once(loaded) {
        Ok(loaded) => loaded,
        Err(problem) => {
            error!("{problem}");
            return None;
        }
    };
    let Loaded {
        global,
        file: static_file,
        diagnostics,
        ..
    } = loaded;
    let unsupported = config::unsupported(&global);
    for diagnostic in diagnostics.iter().chain(&unsupported) {
        warn!("{diagnostic}");
    }
    let (settings, closed) = match settings::settings(&global, machine) {
        Ok(made) => made,
        Err(rejections) => {
            log_rejections(&rejections);
            return None;
        }
    };
    log_rejections(&closed);

    let mut providers = BTreeMap::new();
    if let Some(options) = &global.file {
        match file::Source::select(options, static_file.as_deref()) {
            None => error!("Error using file configuration backend, no filename defined"),
            Some(source) => match file::read_whole(source) {
                Ok(dynamic) => drop(providers.insert(file::NAME.to_owned(), Arc::new(dynamic))),
                Err(problem) => error!("{problem}"),
            },
        }
    }
    if let Err(problem) = from_stores(&global, &mut providers) {
        error!("{problem}");
    }

    let mut world = world(&global, &settings, 1);
    let mut files = Files::default();
    files.want(compile::files(&providers, &world.auth_servers));
    world.files = files.contents();
    let compiled = compile::compile(&providers, &world, &mut Memory::default());
    log_rejections(&compiled.rejections);
    Some(Offline {
        global,
        settings,
        world,
        providers,
        compiled,
    })
}

fn from_stores(global: &Global, providers: &mut BTreeMap<String, Arc<Dynamic>>) -> io::Result<()> {
    if !global.has_store() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        for source in stores::sources(global, Wants::Once, &Board::default())? {
            let (sender, mut updates) = mpsc::channel(1);
            // It ends once a tree is read, and what was made of it waits in the channel.
            let read = kv::run(source.follower, source.options, sender);
            let read = timeout(STORE_WAIT_MAX, read).await;
            // What goes wrong is logged by whoever asks.
            match (read, updates.try_recv()) {
                (Ok(()), Ok(update)) => {
                    providers.insert(update.provider.to_owned(), Arc::new(update.dynamic));
                }
                (Ok(()), Err(_)) | (Err(_), _) => {
                    error!("{} has not answered with a configuration", source.provider);
                }
            }
        }
        Ok(())
    });
    runtime.shutdown_background();
    ended
}
