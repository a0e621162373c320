//! What servers are told of the certificate that a client has shown. Spec frontends 6.
//!
//! Owns the text of both fields, to the byte of the reference, and what is kept of it for a connection: a certificate
//! does not change while its connection lives, so the text is made once and not for every request.
//! Never believes a client's own copy of these fields: they are gone before the first step sees a request.

use std::cell::RefCell;
use std::net::IpAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::auth::vouch;
use crate::http::{FieldId, FieldSet, Head};

/// The fields, which nobody may write but us.
pub const FIELDS: FieldSet = FieldSet::of(&[
    FieldId::XForwardedTlsClientCert,
    FieldId::XForwardedTlsClientCertInfos,
]);

/// What of a certificate is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The whole chain, in `X-Forwarded-Tls-Client-Cert`.
    pub pem: bool,
    /// Parts of it, in `X-Forwarded-Tls-Client-Cert-Infos`.
    pub infos: Option<Infos>,
}

/// Parts of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Infos {
    pub subject: Option<Name>,
    pub issuer: Option<Name>,
    pub not_before: bool,
    pub not_after: bool,
    pub sans: bool,
}

/// Parts of a distinguished name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    pub domain_component: bool,
    pub country: bool,
    pub province: bool,
    pub locality: bool,
    pub organization: bool,
    pub serial_number: bool,
    pub common_name: bool,
}

/// The certificate that a client has shown on its connection, and what was said of it before.
#[derive(Debug)]
pub struct Shown {
    /// As DER, the client's own first.
    chain: Vec<Vec<u8>>,
    texts: RefCell<Texts>,
}

impl Shown {
    pub fn new(chain: Vec<Vec<u8>>) -> Self {
        Self {
            chain,
            texts: RefCell::default(),
        }
    }
}

#[derive(Debug, Default)]
struct Texts {
    pem: Option<Vec<u8>>,
    /// The last selection, and its text.
    infos: Option<(Infos, Vec<u8>)>,
}

impl ClientCertificate {
    /// Tells of the certificate that was shown, if one was.
    pub fn on_request(&self, head: &mut Head, shown: Option<&Shown>) {
        let Some(Shown { chain, texts }) = shown else {
            return;
        };
        let texts = &mut *texts.borrow_mut();
        if self.pem && texts.pem.is_none() {
            texts.pem = Some(pem_text(chain));
        }
        if let Some(wanted) = &self.infos
            && texts
                .infos
                .as_ref()
                .is_none_or(|(known, _)| known != wanted)
        {
            texts.infos = Some((wanted.clone(), infos_text(chain, wanted)));
        }
        let pem = texts.pem.as_deref().filter(|_| self.pem);
        let infos = texts.infos.as_ref().filter(|_| self.infos.is_some());
        for (id, text) in [
            (FieldId::XForwardedTlsClientCert, pem),
            (
                FieldId::XForwardedTlsClientCertInfos,
                infos.map(|(_, text)| text.as_slice()),
            ),
        ] {
            let text = text.filter(|text| !text.is_empty());
            if text.is_some() {
                vouch(head, id.name().as_bytes(), text);
            }
        }
    }
}

fn pem_text(chain: &[Vec<u8>]) -> Vec<u8> {
    let mut text = Vec::new();
    for certificate in chain {
        if !text.is_empty() {
            text.push(b',');
        }
        escape(BASE64_STANDARD.encode(certificate).as_bytes(), &mut text);
    }
    text
}

fn infos_text(chain: &[Vec<u8>], infos: &Infos) -> Vec<u8> {
    let parts: Vec<String> = chain
        .iter()
        .map(|certificate| match X509Certificate::from_der(certificate) {
            Ok((_, certificate)) => parts(&certificate, infos),
            Err(_) => String::new(),
        })
        .collect();
    let mut text = Vec::new();
    escape(parts.join(";").as_bytes(), &mut text);
    text
}

fn parts(certificate: &X509Certificate<'_>, infos: &Infos) -> String {
    let validity = certificate.validity();
    let mut parts = Vec::new();
    for (title, wanted, name) in [
        ("Subject", &infos.subject, certificate.subject()),
        ("Issuer", &infos.issuer, certificate.issuer()),
    ] {
        let content = wanted.as_ref().map(|wanted| name_text(name, wanted));
        if let Some(content) = content.filter(|content| !content.is_empty()) {
            parts.push(format!("{title}=\"{content}\""));
        }
    }
    if infos.not_before {
        parts.push(format!("NB={}", validity.not_before.timestamp()));
    }
    if infos.not_after {
        parts.push(format!("NA={}", validity.not_after.timestamp()));
    }
    if infos.sans {
        parts.push(format!("SAN={}", alternatives(certificate).join(",")));
    }
    parts.join(",")
}

fn name_text(name: &X509Name<'_>, wanted: &Name) -> String {
    let attributes = |id: &str| {
        let all = name.iter_attributes();
        let values = all.filter(|attribute| attribute.attr_type().to_id_string() == id);
        values.map(value).collect::<Vec<_>>()
    };
    // Of a serial number and a common name the last one counts.
    let last = |id: &str| attributes(id).pop().into_iter().collect();
    let mut parts = Vec::new();
    for (is_wanted, title, values) in [
        (
            wanted.domain_component,
            "DC",
            attributes("0.9.2342.19200300.100.1.25"),
        ),
        (wanted.country, "C", attributes("2.5.4.6")),
        (wanted.province, "ST", attributes("2.5.4.8")),
        (wanted.locality, "L", attributes("2.5.4.7")),
        (wanted.organization, "O", attributes("2.5.4.10")),
        (wanted.serial_number, "SN", last("2.5.4.5")),
        (wanted.common_name, "CN", last("2.5.4.3")),
    ] {
        if is_wanted {
            let values: Vec<String> = values;
            let there = values.into_iter().filter(|value| !value.is_empty());
            parts.extend(there.map(|value| format!("{title}={value}")));
        }
    }
    parts.join(",")
}

fn value(attribute: &AttributeTypeAndValue<'_>) -> String {
    attribute.as_str().map_or_else(
        |_| String::from_utf8_lossy(attribute.as_slice()).into_owned(),
        str::to_owned,
    )
}

/// Names, mail addresses, IP addresses, URIs.
fn alternatives(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let mut kinds: [Vec<String>; 4] = Default::default();
    for name in &extension.value.general_names {
        match name {
            GeneralName::DNSName(name) => kinds[0].push((*name).to_owned()),
            GeneralName::RFC822Name(name) => kinds[1].push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let address = <[u8; 4]>::try_from(*bytes)
                    .map(IpAddr::from)
                    .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                kinds[2].extend(address.map(|address| address.to_canonical().to_string()));
            }
            GeneralName::URI(uri) => kinds[3].push((*uri).to_owned()),
            _ => {}
        }
    }
    kinds.concat()
}

/// As Go's `url.QueryEscape`.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text {
        match byte {
            b' ' => out.push(b'+'),
            b'-' | b'_' | b'.' | b'~' => out.push(byte),
            _ if byte.is_ascii_alphanumeric() => out.push(byte),
            _ => out.extend([
                b'%',
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    /// As spec frontends 6 has it.
    fn certificate() -> Vec<u8> {
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        let custom = |id: &[u64]| DnType::CustomDnType(id.to_vec());
        let dc = [0, 9, 2342, 19_200_300, 100, 1, 25];
        for (kind, text) in [
            (custom(&dc), "cheese"),
            (DnType::CountryName, "FR"),
            (DnType::StateOrProvinceName, "Occ"),
            (DnType::LocalityName, "Tls"),
            (DnType::OrganizationName, "Cheese, Inc"),
            (custom(&[2, 5, 4, 5]), "12"),
            (DnType::CommonName, "client one"),
        ] {
            name.push(kind, text);
        }
        params.distinguished_name = name;
        params.subject_alt_names = vec![
            SanType::URI("http://foo".try_into().expect("ASCII")),
            SanType::IpAddress("10.0.1.2".parse().expect("an address")),
            SanType::Rfc822Name("a@b.test".try_into().expect("ASCII")),
            SanType::DnsName("c.test".try_into().expect("ASCII")),
        ];
        params.not_before = std::time::UNIX_EPOCH.into();
        params.not_after =
            (std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_797_763_291)).into();
        let key = KeyPair::generate().expect("randomness");
        params.self_signed(&key).expect("signed").der().to_vec()
    }

    fn all() -> Name {
        Name {
            domain_component: true,
            country: true,
            province: true,
            locality: true,
            organization: true,
            serial_number: true,
            common_name: true,
        }
    }

    #[track_caller]
    fn check(infos: Infos, expected: &str) {
        let certificate = certificate();
        let (_, parsed) = X509Certificate::from_der(&certificate).expect("DER");
        assert_eq!(parts(&parsed, &infos), expected);
    }

    #[test]
    fn parts_stand_in_the_order_of_the_reference() {
        check(
            Infos {
                subject: Some(all()),
                issuer: Some(Name {
                    common_name: true,
                    ..Name::default()
                }),
                not_before: true,
                not_after: true,
                sans: true,
            },
            "Subject=\"DC=cheese,C=FR,ST=Occ,L=Tls,O=Cheese, Inc,SN=12,CN=client one\",Issuer=\"CN=client one\",NB=0,\
             NA=1797763291,SAN=c.test,a@b.test,10.0.1.2,http://foo",
        );
        check(
            Infos {
                subject: Some(Name::default()),
                sans: true,
                ..Infos::default()
            },
            "SAN=c.test,a@b.test,10.0.1.2,http://foo",
        );
        check(Infos::default(), "");
    }

    #[test]
    fn text_is_escaped_as_a_query() {
        let mut out = Vec::new();
        escape(b"Subject=\"DC=o, c\"+/~-_.;", &mut out);
        assert_eq!(out, b"Subject%3D%22DC%3Do%2C+c%22%2B%2F~-_.%3B");
        assert_eq!(pem_text(&[vec![255, 255], vec![0]]), b"%2F%2F8%3D,AA%3D%3D");
    }

    #[test]
    fn what_was_said_is_said_again_until_something_else_is_asked_for() {
        let step = |pem, sans, not_after| ClientCertificate {
            pem,
            infos: Some(Infos {
                sans,
                not_after,
                ..Infos::default()
            }),
        };
        let shown = Shown::new(vec![certificate(), b"junk".to_vec()]);
        let sans = "SAN%3Dc.test%2Ca%40b.test%2C10.0.1.2%2Chttp%3A%2F%2Ffoo%3B";
        for (step, expected) in [
            (step(true, true, false), sans),
            (step(true, true, false), sans),
            (step(false, false, true), "NA%3D1797763291%3B"),
            (step(true, true, false), sans),
        ] {
            let mut head = Head::default();
            step.on_request(&mut head, Some(&shown));
            let infos = head.first(FieldId::XForwardedTlsClientCertInfos);
            assert_eq!(
                infos.map(String::from_utf8_lossy).as_deref(),
                Some(expected)
            );
            assert_eq!(head.has(FieldId::XForwardedTlsClientCert), step.pem);
        }
        let mut head = Head::default();
        step(true, true, true).on_request(&mut head, None);
        assert!(!head.has_any(FIELDS), "no certificate, no field");
    }
}
