//! Documents of an issuer over HTTPS: small, in time, from a server that the given authority (or the system's) vouches for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const MAX_DOCUMENT_BYTES: usize = 1 << 20;
const MAX_REDIRECTS: usize = 5;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Where systems keep the authorities that they trust.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

pub(super) struct Fetcher {
    tls: TlsConnector,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}

/// The certificates of a PEM text; an error if there are none.
pub(super) fn roots(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("data does not contain any valid RSA or ECDSA certificates".to_owned());
    }
    Ok(roots)
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = SYSTEM_ROOTS
        .iter()
        .find_map(|path| std::fs::read(path).ok());
    for certificate in CertificateDer::pem_slice_iter(&found.unwrap_or_default()).flatten() {
        // One that cannot be read vouches for nobody.
        let _ = roots.add(certificate);
    }
    roots
}

impl Fetcher {
    pub fn new(ca_pem: Option<&str>) -> Result<Self, String> {
        let roots = match ca_pem {
            Some(pem) => roots(pem)?,
            None => system_roots(),
        };
        let config = rustls::ClientConfig::builder_with_provider(crate::tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    pub async fn get_json(&self, url: &str) -> Result<Value, String> {
        let all = async {
            let mut at = url.to_owned();
            for _ in 0..=MAX_REDIRECTS {
                match self.get(&at).await? {
                    Answer::Document(bytes) => {
                        return serde_json::from_slice(&bytes)
                            .map_err(|error| format!("Get {url:?}: {error}"));
                    }
                    Answer::Elsewhere(next) => at = next,
                }
            }
            Err(format!(
                "Get {url:?}: stopped after {MAX_REDIRECTS} redirects"
            ))
        };
        tokio::time::timeout(TIMEOUT, all)
            .await
            .unwrap_or_else(|_| Err(format!("Get {url:?}: timed out")))
    }

    async fn get(&self, url: &str) -> Result<Answer, String> {
        let failed = |why: &dyn std::fmt::Display| format!("Get {url:?}: {why}");
        let uri: Uri = url.parse().map_err(|error| failed(&error))?;
        let host = uri.host().unwrap_or_default();
        if uri.scheme_str() != Some("https") || host.is_empty() {
            return Err(failed(&"not an https URL"));
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| failed(&error))?;
        let address = (bare, uri.port_u16().unwrap_or(443));
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| failed(&error))?;
        let stream = self.tls.connect(name, stream).await;
        let io = TokioIo::new(stream.map_err(|error| failed(&error))?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .map_err(|error| failed(&error))?;
        let connection = tokio::spawn(connection);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = uri.authority().map_or(host, |authority| authority.as_str());
        let request = Request::get(path)
            .header(header::HOST, authority)
            .header(header::ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())
            .map_err(|error| failed(&error))?;
        let answer = sender.send_request(request).await;
        let (head, body) = answer.map_err(|error| failed(&error))?.into_parts();
        if head.status.is_redirection() {
            let next = head.headers.get(header::LOCATION);
            let next = next.and_then(|at| at.to_str().ok()).unwrap_or_default();
            connection.abort();
            return Ok(Answer::Elsewhere(if next.starts_with('/') {
                format!("https://{authority}{next}")
            } else {
                next.to_owned()
            }));
        }
        let body = Limited::new(body, MAX_DOCUMENT_BYTES).collect().await;
        connection.abort();
        let bytes = body.map_err(|error| failed(&error))?.to_bytes();
        if head.status != StatusCode::OK {
            let text = String::from_utf8_lossy(&bytes);
            return Err(format!("{}: {text}", head.status));
        }
        Ok(Answer::Document(bytes))
    }
}

enum Answer {
    Document(Bytes),
    Elsewhere(String),
}
