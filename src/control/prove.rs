//! The way between the control loop and `acme/`: names there, certificates and proofs back.
//!
//! Owns what each side has told the other. Never orders anything. Read next: `acme/mod.rs`.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::error;

use crate::acme::{self, Challenges, Fleet, Links, Names, Publication};
use crate::compile::{self, Hosts, Missed, World};
use crate::config::Dynamic;
use crate::config::acme::Acme;
use crate::limits::ACME_ASKED_WAITING;
use crate::provider::Update;
use crate::snapshot::{EntryPointId, Proofs};

/// The provider whose certificates are those that were issued; the API shows it under this name.
pub const PROVIDER: &str = "ACME";

/// What `acme/` says.
#[derive(Debug)]
pub enum Said {
    Issued(Update),
    Prove(Publication),
}

/// One end of the way.
#[derive(Debug)]
pub struct Prover {
    entry_point: String,
    /// Where the authority asks over HTTP, if it does.
    http: Option<EntryPointId>,
    issued: mpsc::Receiver<Dynamic>,
    challenges: mpsc::Receiver<Publication>,
    names: watch::Sender<Option<Names>>,
    /// If clients may ask for names.
    asked: Option<Asked>,
    /// Who waits for every core to serve a generation.
    waiting: Vec<(u64, oneshot::Sender<()>)>,
}

/// Names without a certificate that clients ask for in handshakes.
#[derive(Debug)]
struct Asked {
    /// From the cores.
    names: mpsc::Receiver<String>,
    /// Those that rules take.
    hosts: Hosts,
    wanted: mpsc::Sender<String>,
}

impl Prover {
    /// Starts it on the runtime of this thread.
    pub fn start(options: &Acme, fleet: Option<Fleet>, world: &mut World) -> Self {
        let (issued_sender, issued) = mpsc::channel(1);
        let (challenges_sender, challenges) = mpsc::channel(1);
        let (names, names_receiver) = watch::channel(None);
        let http = options.http_challenge.as_ref().and_then(|challenge| {
            let known = |name: &String| *name == challenge.entry_point;
            let at = world.entry_points.iter().position(known);
            if at.is_none() {
                error!(
                    "acme.httpChallenge.entryPoint: there is no entry point {:?}, so the authority finds no proof over HTTP",
                    challenge.entry_point
                );
            }
            u16::try_from(at?).ok().map(EntryPointId)
        });
        let (wanted, wanted_receiver) = mpsc::channel(ACME_ASKED_WAITING);
        let asked = options.on_demand.then(|| {
            let (sender, names) = mpsc::channel(ACME_ASKED_WAITING);
            // What finds no room is asked for again by the next client.
            let missed = Missed(Arc::new(move |name: &str| {
                let _ = sender.try_send(name.to_lowercase());
            }));
            world.missed = Some((options.entry_point.clone(), missed));
            Asked {
                names,
                hosts: Hosts::default(),
                wanted,
            }
        });
        let links = Links {
            issued: issued_sender,
            challenges: challenges_sender,
            names: names_receiver,
            fleet,
            asked: wanted_receiver,
        };
        tokio::spawn(acme::run(options.clone(), links));
        Self {
            entry_point: options.entry_point.clone(),
            http,
            issued,
            challenges,
            names,
            asked,
            waiting: Vec::new(),
        }
    }

    /// What is said next; never, if there is nobody who could say it.
    pub async fn next(prover: &mut Option<Self>) -> Said {
        let Some(prover) = prover else {
            return pending().await;
        };
        loop {
            let asked = async {
                match &mut prover.asked {
                    Some(asked) => asked.pass_on().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                Some(dynamic) = prover.issued.recv() => return Said::Issued(Update { provider: PROVIDER, dynamic }),
                Some(publication) = prover.challenges.recv() => return Said::Prove(publication),
                () = asked => {}
                else => pending().await,
            }
        }
    }

    /// Has the next snapshots answer these challenges.
    pub fn prove(&self, challenges: Challenges, world: &mut World) {
        world.proofs = self.http.map(|entry_point| Proofs {
            entry_point,
            answers: challenges.http.into_iter().collect(),
        });
        world.tls_proofs = challenges.tls;
    }

    /// Tells `served` once every core serves `generation`.
    pub fn wait(&mut self, generation: u64, served: oneshot::Sender<()>) {
        self.waiting.push((generation, served));
    }

    /// Every core serves `generation`, or a newer one.
    pub fn serving(&mut self, generation: u64) {
        let ready = self
            .waiting
            .extract_if(.., |(wanted, _)| *wanted <= generation);
        for (_, served) in ready {
            // Who has left does not wait.
            let _ = served.send(());
        }
    }

    /// Tells which names there are now, if they are others than before.
    pub fn tell_names(&mut self, providers: &BTreeMap<String, Arc<Dynamic>>, world: &World) {
        if let Some(asked) = &mut self.asked {
            asked.hosts = Hosts::new(providers, world, &self.entry_point);
        }
        let names = Some(Names {
            rules: compile::names_of_rules(providers, world, &self.entry_point),
            covered: compile::names_of_certificates(providers, world, &self.entry_point, PROVIDER),
        });
        self.names.send_if_modified(|known| {
            let is_new = *known != names;
            if is_new {
                *known = names;
            }
            is_new
        });
    }
}

impl Asked {
    /// Passes the next name on, if a rule takes it.
    async fn pass_on(&mut self) {
        match self.names.recv().await {
            Some(name) if self.hosts.has(&name) => {
                // As many as fit: who waits for the authority waits long enough.
                let _ = self.wanted.try_send(name);
            }
            Some(_) => {}
            None => pending().await,
        }
    }
}
