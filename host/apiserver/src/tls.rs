//! TLS: the server's configuration and who a client certificate says its bearer is.
//!
//! Invariant: the handshake accepts any certificate whose holder has its key, and only [`Verifier::user`] says whether our CA
//! signed it. So a foreign or expired certificate gets a proper 401 and not a broken connection.

use std::sync::Arc;

use oarlock_registry::User;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::pki::{Pki, PkiError};

pub(crate) const ALPN_H2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";
/// Sessions kept for resumption.
const SESSION_CACHE: usize = 1024;

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(crate) fn server_config(pki: &Pki) -> Result<Arc<rustls::ServerConfig>, PkiError> {
    let verifier = Verifier::new(pki)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(pki.server_chain()?, pki.server_key()?)?;
    config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(SESSION_CACHE);
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// What a connection's certificate says.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// No certificate was shown.
    None,
    /// One that our CA did not sign, or not for now.
    Unknown,
    User(Arc<User>),
}

#[derive(Debug)]
pub(crate) struct Verifier {
    inner: Arc<dyn ClientCertVerifier>,
}

impl Verifier {
    pub(crate) fn new(pki: &Pki) -> Result<Arc<Self>, PkiError> {
        let mut roots = RootCertStore::empty();
        roots.add(pki.ca_der()?)?;
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .allow_unauthenticated()
            .build()?;
        Ok(Arc::new(Self { inner }))
    }

    /// Who the chain's bearer is, as of now.
    pub(crate) fn user(&self, chain: Option<&[CertificateDer<'_>]>) -> Peer {
        let Some((leaf, intermediates)) = chain.and_then(<[_]>::split_first) else {
            return Peer::None;
        };
        if self
            .inner
            .verify_client_cert(leaf, intermediates, UnixTime::now())
            .is_err()
        {
            return Peer::Unknown;
        }
        subject(leaf).map_or(Peer::Unknown, |user| Peer::User(Arc::new(user)))
    }
}

/// Common name, uid and organizations, as user name, uid and groups.
pub(crate) fn subject(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate
        .subject()
        .iter_common_name()
        .next()?
        .as_str()
        .ok()?
        .to_owned();
    if name.is_empty() {
        return None;
    }
    let mut groups: Vec<String> = Vec::new();
    for group in certificate
        .subject()
        .iter_organization()
        .filter_map(|o| o.as_str().ok())
    {
        if !groups.iter().any(|g| g == group) {
            groups.push(group.to_owned());
        }
    }
    groups.push(crate::auth::AUTHENTICATED.to_owned());
    let uid = certificate
        .subject()
        .iter_attributes()
        .find(|a| {
            a.attr_type()
                .iter()
                .is_some_and(|oid| oid.eq(crate::pki::UID_OID))
        })
        .and_then(|a| a.as_str().ok())
        .unwrap_or_default()
        .to_owned();
    Some(User {
        name,
        uid,
        groups,
        ..User::default()
    })
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
