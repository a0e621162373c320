//! Private keys of certificates, in the form in which Traefik 1.7 keeps them: PKCS #1 for RSA, SEC 1 for ECDSA.
//!
//! Owns what `keyType` means. Never logs a key. Read next: `order.rs`.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::der_parser::ber::BerObject;
use x509_parser::der_parser::parse_der;

/// What a new key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyType {
    Ec256,
    Ec384,
    Rsa2048,
    Rsa4096,
}

impl KeyType {
    /// The value of the option, or what an account of 1.7 has in its place. `None` for what cannot be made, for which 4096
    /// bits of RSA are taken.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_uppercase().as_str() {
            "EC256" | "P256" => Self::Ec256,
            "EC384" | "P384" => Self::Ec384,
            "RSA2048" | "2048" => Self::Rsa2048,
            "RSA4096" | "4096" => Self::Rsa4096,
            _ => return None,
        })
    }

    /// A new key. Takes seconds for RSA: never on the control loop's thread.
    ///
    /// # Errors
    /// Out of randomness.
    pub(super) fn generate(self) -> Result<KeyPair, rcgen::Error> {
        match self {
            Self::Ec256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Self::Ec384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            Self::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
            Self::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
        }
    }
}

/// The key of a certificate that is renewed.
///
/// # Errors
/// It is no key, or of a kind that nobody uses.
pub(super) fn from_pem(text: &str) -> Result<KeyPair, String> {
    let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| error.to_string())?;
    KeyPair::try_from(&der).map_err(|error| error.to_string())
}

/// A key that was made here as 1.7 writes it; as PKCS #8, which it reads too, if it is of no kind that 1.7 makes.
pub(super) fn to_pem(key: &KeyPair) -> String {
    let pkcs8 = key.serialize_der();
    traditional(&pkcs8).map_or_else(|| key.serialize_pem(), |(label, der)| pem(label, &der))
}

/// The key inside of PKCS #8 (RFC 5208): RSA as it is (RFC 8017 A.1.2), ECDSA with the name of its curve (RFC 5915).
fn traditional(pkcs8: &[u8]) -> Option<(&'static str, Vec<u8>)> {
    let (_, outer) = parse_der(pkcs8).ok()?;
    let [_, algorithm, inner, ..] = outer.as_sequence().ok()?.as_slice() else {
        return None;
    };
    let inner = inner.as_slice().ok()?;
    let [kind, parameters] = algorithm.as_sequence().ok()?.as_slice() else {
        return None;
    };
    match kind.as_oid().ok()?.to_id_string().as_str() {
        "1.2.840.113549.1.1.1" => Some(("RSA PRIVATE KEY", inner.to_vec())),
        "1.2.840.10045.2.1" => Some(("EC PRIVATE KEY", sec1(inner, parameters)?)),
        _ => None,
    }
}

/// An ECDSA key with its curve written in, which PKCS #8 has outside.
fn sec1(inner: &[u8], curve: &BerObject<'_>) -> Option<Vec<u8>> {
    let (_, key) = parse_der(inner).ok()?;
    let parts = key.as_sequence().ok()?;
    let secret = parts.get(1)?.as_slice().ok()?;
    let public = parts
        .iter()
        .find(|part| part.header.raw_tag() == Some(&[0xa1]));
    let mut body = vec![2, 1, 1];
    body.extend(tagged(0x04, secret));
    body.extend(tagged(0xa0, &tagged(0x06, curve.as_oid().ok()?.as_bytes())));
    if let Some(public) = public {
        body.extend(tagged(0xa1, public.as_slice().ok()?));
    }
    Some(tagged(0x30, &body))
}

/// Content behind its tag and its length (X.690 8.1.3), which is below 64 KiB here.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let [.., high, low] = content.len().to_be_bytes();
    let mut der = vec![tag];
    match (high, low) {
        (0, low @ ..0x80) => der.push(low),
        (0, low) => der.extend([0x81, low]),
        (high, low) => der.extend([0x82, high, low]),
    }
    der.extend_from_slice(content);
    der
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::prelude::BASE64_STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().copied().map(char::from));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// What OpenSSL makes of a key, which reads these forms as strictly as Go does.
    fn check(kind: KeyType, label: &str, told: &str) {
        let key = kind.generate().expect("a key");
        let text = to_pem(&key);
        assert!(
            text.starts_with(&format!("-----BEGIN {label}-----\n")),
            "{kind:?}"
        );
        let again = from_pem(&text).expect("a key");
        assert_eq!(again.public_key_raw(), key.public_key_raw(), "{kind:?}");
        let mut openssl = Command::new("openssl")
            .args(["pkey", "-noout", "-text", "-check"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is installed");
        let mut stdin = openssl.stdin.take().expect("piped");
        stdin.write_all(text.as_bytes()).expect("read");
        drop(stdin);
        let output = openssl.wait_with_output().expect("ends");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.contains("Key is valid") && said.contains(told),
            "{kind:?}: {said}"
        );
    }

    #[test]
    fn keys_are_kept_as_1_7_keeps_them() {
        check(KeyType::Ec256, "EC PRIVATE KEY", "prime256v1");
        check(KeyType::Ec384, "EC PRIVATE KEY", "secp384r1");
        check(KeyType::Rsa2048, "RSA PRIVATE KEY", "2048 bit");
    }

    #[test]
    fn key_types_have_the_names_of_options_and_accounts() {
        for (name, kind) in [
            ("EC256", Some(KeyType::Ec256)),
            ("P384", Some(KeyType::Ec384)),
            ("rsa2048", Some(KeyType::Rsa2048)),
            ("4096", Some(KeyType::Rsa4096)),
            ("RSA8192", None),
            ("", None),
        ] {
            assert_eq!(KeyType::named(name), kind, "{name}");
        }
    }
}
