//! When the authority itself wants its certificates renewed (ACME renewal information, RFC 9773).
//!
//! Owns what it advised for each certificate, and when it is to be asked again. Who offers no advice is asked no more; one
//! that cannot be had changes nothing. Never renews anything. Read next: `plan.rs` (when, without advice).

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use instant_acme::{Account, CertificateIdentifier, Error};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::Instant;
use tracing::{debug, info};

use super::storage::Stored;
use crate::limits::{ACME_ADVICE_LONGEST, ACME_ADVICE_SHORTEST};

/// What one authority advises.
#[derive(Debug, Default)]
pub(super) struct Advice {
    /// By chain: a renewed certificate is another one.
    known: BTreeMap<String, Advised>,
    /// The authority has said that it advises nobody.
    is_missing: bool,
}

#[derive(Debug)]
struct Advised {
    /// `None`: there was no answer.
    renew_at: Option<SystemTime>,
    again: Instant,
}

impl Advice {
    /// Whether the authority is to be asked now.
    pub(super) fn is_due(&self, certificates: &[Stored]) -> bool {
        let now = Instant::now();
        let is_due = |stored: &Stored| {
            let known = self.known.get(&stored.chain);
            known.is_none_or(|known| known.again <= now)
        };
        !self.is_missing && certificates.iter().any(is_due)
    }

    /// Asks for every certificate that it is time to ask for. Those that are gone are forgotten. One that does not answer at
    /// all (`is_away`) is not asked for the rest of them now.
    pub(super) async fn ask(
        &mut self,
        account: &Account,
        certificates: &[Stored],
        is_away: impl Fn() -> bool,
    ) {
        self.known.retain(|chain, _| {
            let mut stored = certificates.iter();
            stored.any(|stored| stored.chain == *chain)
        });
        let mut is_over = false;
        for stored in certificates {
            let now = Instant::now();
            let known = self.known.get(&stored.chain);
            if known.is_some_and(|known| known.again > now) {
                continue;
            }
            let mut advised = Advised {
                renew_at: known.and_then(|known| known.renew_at),
                again: now + ACME_ADVICE_LONGEST,
            };
            if is_over {
                advised.again = now + ACME_ADVICE_SHORTEST;
                self.known.insert(stored.chain.clone(), advised);
                continue;
            }
            match asked(account, &stored.chain).await {
                Ok((renew_at, pause)) => {
                    if advised.renew_at.is_none() {
                        debug!("ACME: the authority advises on {}", stored.names.join(","));
                        advised.renew_at = Some(renew_at);
                    }
                    advised.renew_at = advised.renew_at.map(|before| before.min(renew_at));
                    advised.again = now + pause.clamp(ACME_ADVICE_SHORTEST, ACME_ADVICE_LONGEST);
                }
                Err(Refused::Nobody) => {
                    self.is_missing = true;
                    return;
                }
                Err(Refused::This(why)) => {
                    info!("ACME: no advice on {}: {why}", stored.names.join(","));
                    is_over = is_away();
                    if is_over {
                        advised.again = now + ACME_ADVICE_SHORTEST;
                    }
                }
            }
            self.known.insert(stored.chain.clone(), advised);
        }
    }

    /// When the authority wants this certificate renewed. `None`: it has not said.
    pub(super) fn renewal(&self, stored: &Stored) -> Option<SystemTime> {
        self.known.get(&stored.chain)?.renew_at
    }

    /// What the authority calls this certificate. `None`: it gives no advice on it.
    pub(super) fn replaces(&self, stored: &Stored) -> Option<CertificateIdentifier<'static>> {
        self.renewal(stored)?;
        identifier(&stored.chain).ok()
    }

    /// When it is to be asked next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.known.values().map(|known| known.again).min()
    }
}

enum Refused {
    Nobody,
    This(String),
}

async fn asked(account: &Account, chain: &str) -> Result<(SystemTime, Duration), Refused> {
    let this = |why: &dyn std::fmt::Display| Refused::This(why.to_string());
    let id = identifier(chain).map_err(|why| this(&why))?;
    match account.renewal_info(&id).await {
        Ok((info, pause)) => {
            let window = info.suggested_window;
            let renew_at = within(window.start.into(), window.end.into(), random());
            Ok((renew_at, pause))
        }
        Err(Error::Unsupported(_)) => Err(Refused::Nobody),
        Err(error) => Err(this(&error)),
    }
}

/// What the authority calls a certificate.
fn identifier(chain: &str) -> Result<CertificateIdentifier<'static>, String> {
    let leaf =
        CertificateDer::from_pem_slice(chain.as_bytes()).map_err(|error| error.to_string())?;
    CertificateIdentifier::try_from(&leaf).map(CertificateIdentifier::into_owned)
}

/// The time at a share of a window, in parts of 2^32: not all clients come at once (RFC 9773 4.2).
fn within(start: SystemTime, end: SystemTime, share: u32) -> SystemTime {
    let length = end.duration_since(start).unwrap_or_default();
    start + length.mul_f64(f64::from(share) / f64::from(u32::MAX))
}

fn random() -> u32 {
    let mut random = [0; 4];
    // Without randomness the window's beginning is as good as any.
    let _ = getrandom::fill(&mut random);
    u32::from_be_bytes(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_within_the_window_is_taken() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(within(at(100), at(200), 0), at(100));
        assert_eq!(within(at(100), at(200), u32::MAX), at(200));
        let middle = within(at(100), at(200), u32::MAX / 2);
        assert!(middle > at(149) && middle < at(151));
        assert_eq!(within(at(200), at(100), u32::MAX), at(200));
    }
}
