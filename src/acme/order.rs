//! One certificate, from the order to its chain. RFC 8555 7.4 and 8, RFC 8737.
//!
//! Owns the proof of names: what is to be answered is published on every core before the authority is told to ask, and
//! taken back when the order is over, however it ends. Never stores anything. Read next: `mod.rs`.

use std::fmt;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use super::{Challenges, Publish};
use crate::tls::Certificate;

/// Time for the authority to ask for its proofs, and then to issue (spec acme 3: 60 s and 30 s).
const PROOF_TIME: Duration = Duration::from_secs(60);
const ISSUE_TIME: Duration = Duration::from_secs(30);
const POLL_FIRST: Duration = Duration::from_millis(250);

/// How names are proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    Http,
    Tls,
}

/// Why there is no certificate: a sentence.
#[derive(Debug)]
pub(super) struct OrderError(String);

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OrderError {}

impl From<instant_acme::Error> for OrderError {
    fn from(error: instant_acme::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<rcgen::Error> for OrderError {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

/// Orders a certificate for `names`, of which the first is its common name. Returns the chain as PEM, the leaf first.
///
/// # Errors
/// The authority refuses, cannot be reached, or found no proof.
pub(super) async fn order(
    account: &Account,
    names: &[String],
    key: &KeyPair,
    proof: Proof,
    publish: &Publish,
) -> Result<String, OrderError> {
    let chain = place(account, names, key, proof, publish).await;
    publish.challenges(Challenges::default()).await;
    chain
}

async fn place(
    account: &Account,
    names: &[String],
    key: &KeyPair,
    proof: Proof,
    publish: &Publish,
) -> Result<String, OrderError> {
    let identifiers: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let mut challenges = Challenges::default();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Valid => continue,
            status => return Err(OrderError(format!("an authorization is {status:?}"))),
        }
        let name = authorization.identifier().to_string();
        let kind = match proof {
            Proof::Http => ChallengeType::Http01,
            Proof::Tls => ChallengeType::TlsAlpn01,
        };
        let challenge = authorization.challenge(kind).ok_or_else(|| {
            OrderError(format!("the authority offers no such challenge for {name}"))
        })?;
        let told = challenge.key_authorization();
        match proof {
            Proof::Http => {
                let token = challenge.token.clone();
                challenges.http.insert(token, told.as_str().to_owned());
            }
            Proof::Tls => {
                let proving = Certificate::proving(&name, told.digest().as_ref());
                challenges
                    .tls
                    .push(proving.map_err(|error| OrderError(error.to_string()))?);
            }
        }
    }
    if !challenges.is_empty() {
        publish.challenges(challenges).await;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Pending {
                let kind = match proof {
                    Proof::Http => ChallengeType::Http01,
                    Proof::Tls => ChallengeType::TlsAlpn01,
                };
                if let Some(mut challenge) = authorization.challenge(kind) {
                    challenge.set_ready().await?;
                }
            }
        }
    }
    let patience = RetryPolicy::new().initial_delay(POLL_FIRST);
    match order.poll_ready(&patience.timeout(PROOF_TIME)).await? {
        OrderStatus::Ready => {}
        _ => return Err(refusal(&mut order).await),
    }
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    if let Some(first) = names.first() {
        params
            .distinguished_name
            .push(DnType::CommonName, first.as_str());
    }
    let request = params.serialize_request(key)?;
    order.finalize_csr(request.der()).await?;
    Ok(order
        .poll_certificate(&patience.timeout(ISSUE_TIME))
        .await?)
}

/// What the authority says of the names that it could not prove.
async fn refusal(order: &mut instant_acme::Order) -> OrderError {
    let mut why = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        let name = authorization.identifier().to_string();
        let problems = authorization
            .challenges
            .iter()
            .filter_map(|challenge| challenge.error.as_ref());
        why.extend(problems.map(|problem| format!("{name}: {problem}")));
    }
    if why.is_empty() {
        why.push("the authority calls the order invalid".to_owned());
    }
    OrderError(why.join("; "))
}
