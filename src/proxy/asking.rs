//! What a step of a frontend or an entry point cannot say by itself, answered from what this core knows, or asked
//! elsewhere while the core serves others.
//!
//! Owns who is asked, and what the client is told where nobody can answer. Fails closed: without an answer no request
//! passes. Never decides what a step means. Read next: `hashing.rs`, `auth_server.rs`.

use super::auth_server;
use super::connection::Client;
use super::core::Core;
use super::hashing::Busy;
use super::session::Session;
use crate::frontend::middleware::auth::basic::{self, Basic, Judgement, Question};
use crate::frontend::middleware::{Answer, Middleware};
use crate::snapshot::Snapshot;

/// Asks about a request on behalf of `step`. `None`: it passes.
pub(crate) async fn ask(
    core: &Core,
    client: &Client,
    session: &mut Session,
    snapshot: &Snapshot,
    step: &Middleware,
) -> Option<Box<Answer>> {
    match step {
        Middleware::WhiteList(_)
        | Middleware::Redirect(_)
        | Middleware::Headers(_)
        | Middleware::Digest(_) => None,
        Middleware::Forward(forward) => {
            let server = snapshot.auth_server(forward.server);
            Box::pin(auth_server::ask(core, client, session, server, forward)).await
        }
        Middleware::ClientCertificate(step) => {
            step.on_request(
                &mut session.request,
                client.certificate.get().map(|shown| &**shown),
            );
            None
        }
        Middleware::Basic(basic) => match judge(core, session, basic) {
            Judgement::Pass => None,
            Judgement::Answer(answer) => Some(answer),
            Judgement::Hash(question) => {
                Box::pin(hash(core, client, session, basic, question)).await
            }
        },
    }
}

fn judge(core: &Core, session: &mut Session, basic: &Basic) -> Judgement {
    basic.on_request(
        &mut session.request,
        &mut core.hashing.verdicts.borrow_mut(),
    )
}

/// Has a password hashed, then lets the step judge by what is known now.
async fn hash(
    core: &Core,
    client: &Client,
    session: &mut Session,
    basic: &Basic,
    question: Question,
) -> Option<Box<Answer>> {
    match core.hashing.ask(question, client.ip).await {
        Err(busy) => Some(refusal(busy)),
        Ok(false) => Some(basic::challenge()),
        Ok(true) => match judge(core, session, basic) {
            Judgement::Pass => None,
            Judgement::Answer(answer) => Some(answer),
            // Forgotten already: thousands of others have come in between.
            Judgement::Hash(_) => Some(refusal(Busy::Everybody)),
        },
    }
}

fn refusal(busy: Busy) -> Box<Answer> {
    let mut answer = match busy {
        Busy::Client => Answer::text(429, "Too Many Requests"),
        Busy::Everybody => Answer::text(503, "Service Unavailable"),
    };
    answer.fields.push(("Retry-After".into(), b"1".to_vec()));
    answer
}
