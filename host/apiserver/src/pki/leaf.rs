//! What a certificate must say, and whether one that was found still says it.

use std::net::IpAddr;

use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, KeyUsagePurpose, PublicKeyData as _,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use super::{Identity, LEAF_DAYS, PkiError, SKEW_DAYS, purpose};

/// A certificate that is not a CA.
pub(super) struct Leaf {
    pub user: String,
    pub groups: Vec<String>,
    /// DNS names and addresses.
    pub names: Vec<String>,
    pub server: bool,
}

impl Leaf {
    pub fn client(user: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|&g| g.to_owned()).collect();
        Self {
            user: user.to_owned(),
            groups,
            names: Vec::new(),
            server: false,
        }
    }

    pub fn params(&self, now: Timestamp) -> Result<CertificateParams, PkiError> {
        let mut params = CertificateParams::new(self.names.clone())?;
        params.distinguished_name = DistinguishedName::new();
        for group in &self.groups {
            params
                .distinguished_name
                .push(DnType::OrganizationName, group.as_str());
        }
        params
            .distinguished_name
            .push(DnType::CommonName, self.user.as_str());
        if !self.server {
            let uid = DnType::CustomDnType(super::UID_OID.to_vec());
            params.distinguished_name.push(uid, self.user.as_str());
        }
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![purpose(self.server)];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, LEAF_DAYS);
        Ok(params)
    }
}

pub(super) fn days_after(now: Timestamp, days: i64) -> Timestamp {
    now.saturating_add((days * 24).hours()).unwrap_or(now)
}

/// Makes a certificate good from a day before `now` to `days` after.
pub(super) fn set_validity(params: &mut CertificateParams, now: Timestamp, days: i64) {
    let date = |at: Timestamp| {
        let day = at.to_zoned(TimeZone::UTC).date();
        let (month, of_month) = (day.month().unsigned_abs(), day.day().unsigned_abs());
        rcgen::date_time_ymd(i32::from(day.year()), month, of_month)
    };
    params.not_before = date(days_after(now, -SKEW_DAYS));
    params.not_after = date(days_after(now, days));
}

/// The certificate's subject key identifier; empty if it has none.
pub(super) fn subject_key_id(pem: &str) -> Vec<u8> {
    with_certificate(pem, |certificate| {
        certificate
            .extensions()
            .iter()
            .find_map(|e| match e.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            })
    })
    .unwrap_or_default()
}

/// Whether the pair matches, was signed by the key with identifier `authority`, names all of `names`, and is good until
/// `until`.
pub(super) fn fits(
    identity: &Identity,
    authority: Option<&[u8]>,
    names: &[String],
    until: Timestamp,
) -> bool {
    let Ok(key) = KeyPair::from_pem(&identity.key_pem) else {
        return false;
    };
    with_certificate(&identity.certificate_pem, |certificate| {
        let same_key = certificate.public_key().subject_public_key.data.as_ref() == key.der_bytes();
        let lasts = certificate.validity().not_after.timestamp() > until.as_second();
        let signed = authority.is_none_or(|wanted| {
            certificate
                .extensions()
                .iter()
                .any(|e| match e.parsed_extension() {
                    ParsedExtension::AuthorityKeyIdentifier(id) => {
                        id.key_identifier.as_ref().is_some_and(|id| id.0 == wanted)
                    }
                    _ => false,
                })
        });
        let has = alternative_names(certificate);
        Some(same_key && lasts && signed && names.iter().all(|n| has.contains(n)))
    })
    .unwrap_or(false)
}

fn with_certificate<T>(
    pem: &str,
    read: impl FnOnce(&X509Certificate<'_>) -> Option<T>,
) -> Option<T> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    read(&certificate)
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(dns) => Some((*dns).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes)
                    .ok()
                    .map(|b| IpAddr::from(b).to_string()),
                16 => <[u8; 16]>::try_from(*bytes)
                    .ok()
                    .map(|b| IpAddr::from(b).to_string()),
                _ => None,
            },
            _ => None,
        })
        .collect()
}
