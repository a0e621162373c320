//! One certificate, from the order to its chain. RFC 8555 7.4 and 8, RFC 8737.
//!
//! Owns the proof of names: what is to be answered is shown by every core before the authority is told to ask. Who called
//! takes it back when the order is over. Never stores what is issued. Read next: `kept.rs`.

use std::fmt;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier, NewOrder,
    OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use super::dns::{Dns, Record};
use super::kept::Kept;
use super::{Proof, Proved};
use crate::tls::Certificate;

/// Time for the authority to ask for its proofs, and then to issue (spec acme 3: 60 s and 30 s).
const PROOF_TIME: Duration = Duration::from_secs(60);
const ISSUE_TIME: Duration = Duration::from_secs(30);
const POLL_FIRST: Duration = Duration::from_millis(250);

/// How names are proved.
pub(super) enum Way {
    Http,
    Tls,
    Dns(Box<Dns>),
}

impl Way {
    fn challenge(&self) -> ChallengeType {
        match self {
            Self::Http => ChallengeType::Http01,
            Self::Tls => ChallengeType::TlsAlpn01,
            Self::Dns(_) => ChallengeType::Dns01,
        }
    }
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
/// With `replaces`, which an authority with advice understands, it does not count in its limits (RFC 9773 5).
/// Records that may have been made are added to `records`, however it ends.
///
/// # Errors
/// The authority refuses, cannot be reached, or found no proof; or the proofs could not be shown.
pub(super) async fn order(
    account: &Account,
    names: &[String],
    replaces: Option<CertificateIdentifier<'_>>,
    key: &KeyPair,
    way: &Way,
    kept: &mut Kept,
    records: &mut Vec<Record>,
) -> Result<String, OrderError> {
    let identifiers: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
    let mut new = NewOrder::new(&identifiers);
    if let Some(replaces) = replaces {
        new = new.replaces(replaces);
    }
    let mut order = account.new_order(&new).await?;
    let mut proofs = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Valid => continue,
            status => return Err(OrderError(format!("an authorization is {status:?}"))),
        }
        let name = authorization.identifier().to_string();
        let challenge = authorization.challenge(way.challenge()).ok_or_else(|| {
            OrderError(format!("the authority offers no such challenge for {name}"))
        })?;
        let told = challenge.key_authorization();
        let proved = match way {
            Way::Http => Proved::Http {
                token: challenge.token.clone(),
                answer: told.as_str().to_owned(),
            },
            Way::Tls => {
                let proof = Certificate::proof(&name, told.digest().as_ref());
                let (chain, key) = proof.map_err(|error| OrderError(error.to_string()))?;
                Proved::Tls { chain, key }
            }
            Way::Dns(_) => {
                records.push(Record {
                    domain: name.trim_start_matches("*.").to_owned(),
                    token: challenge.token.clone(),
                    key_authorization: told.as_str().to_owned(),
                    value: told.dns_value(),
                });
                continue;
            }
        };
        proofs.push(Proof { name, proved });
    }
    if !proofs.is_empty() || !records.is_empty() {
        match way {
            Way::Http | Way::Tls => kept.show(&proofs).await.map_err(OrderError)?,
            Way::Dns(dns) => show(dns, records).await.map_err(OrderError)?,
        }
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Pending
                && let Some(mut challenge) = authorization.challenge(way.challenge())
            {
                challenge.set_ready().await?;
            }
        }
    }
    let patience = RetryPolicy::new().initial_delay(POLL_FIRST);
    match order.poll_ready(&patience.timeout(PROOF_TIME)).await {
        Ok(OrderStatus::Ready) => {}
        Ok(_) => {
            let why = "the authority calls the order invalid".to_owned();
            return Err(refusal(&mut order, why).await);
        }
        Err(instant_acme::Error::Api(problem)) => {
            return Err(refusal(&mut order, problem.to_string()).await);
        }
        Err(error) => return Err(error.into()),
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

/// Returns when the world sees the records.
async fn show(dns: &Dns, records: &[Record]) -> Result<(), String> {
    for record in records {
        dns.present(record).await?;
    }
    dns.seen(records).await
}

/// What the authority says of the names that it could not prove; `otherwise`, if that is nothing.
async fn refusal(order: &mut instant_acme::Order, otherwise: String) -> OrderError {
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
        why.push(otherwise);
    }
    OrderError(why.join("; "))
}
