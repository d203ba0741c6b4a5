//! Calls out of the server: to webhooks and to servers that stand behind an APIService. HTTPS only, HTTP/1.1, pooled connections.
//!
//! There is no network of services here whose addresses could be called: a service means the addresses of its ready endpoints.
//! Errors are told in the words of Go's client, since people look them up.

use std::collections::HashMap;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use oarlock_model::status::quote;
use oarlock_registry::remote::{ClientConfig, ServiceReference, WebhookClient};
use oarlock_registry::{ListOptions, Registry, Target};
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig as Tls, RootCertStore};
use serde_json::Value;

use crate::pki::Identity;

/// An answer that is read as a whole is not larger than that.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Kept at most; then all are made anew.
const MAX_CLIENTS: usize = 256;
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const AGENT: &str = concat!(
    "kube-apiserver-admission oarlock/",
    env!("CARGO_PKG_VERSION")
);

pub(crate) type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;
type HttpsClient = Client<HttpsConnector<HttpConnector>, Body>;

/// Whom to believe, and who we are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Trust {
    /// PEM; empty: what the system believes.
    pub ca: Vec<u8>,
    /// The name that the certificate must have; empty: that of the URL.
    pub name: String,
    /// Any certificate will do.
    pub insecure: bool,
    /// We show the certificate of the aggregator.
    pub identified: bool,
}

/// A text of an error, as Go has it.
pub(crate) type Told = String;

#[derive(Debug)]
pub(crate) struct Outbound {
    registry: Weak<Registry>,
    /// What servers behind an APIService know us by.
    identity: Option<Identity>,
    clients: Mutex<HashMap<Trust, HttpsClient>>,
}

impl Outbound {
    pub fn new(registry: &Arc<Registry>, identity: Option<Identity>) -> Arc<Self> {
        Arc::new(Self {
            registry: Arc::downgrade(registry),
            identity,
            clients: Mutex::default(),
        })
    }

    fn client(&self, trust: &Trust) -> Result<HttpsClient, Told> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(trust) {
            return Ok(client.clone());
        }
        let tls = tls(trust, self.identity.as_ref().filter(|_| trust.identified))?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let builder = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only();
        let builder = if trust.name.is_empty() {
            builder.enable_http1()
        } else {
            let name = ServerName::try_from(trust.name.clone())
                .map_err(|_| format!("invalid server name {}", quote(&trust.name)))?;
            builder
                .with_server_name_resolver(FixedServerNameResolver::new(name))
                .enable_http1()
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(builder.wrap_connector(connector));
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(trust.clone(), client.clone());
        Ok(client)
    }

    pub async fn send(
        &self,
        trust: &Trust,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Told> {
        let client = self.client(trust)?;
        let to = request.uri().authority().map(ToString::to_string);
        client
            .request(request)
            .await
            .map_err(|error| told(&error, to.as_deref().unwrap_or_default()))
    }

    /// Where a service's port is served: an address of a ready endpoint.
    pub async fn resolve(&self, at: &ServiceReference) -> Result<SocketAddr, Told> {
        let registry = self.registry.upgrade().ok_or("the server is stopping")?;
        let endpoints = Endpoints::of(&registry, at).await.map_err(|p| p.told(at))?;
        // Any of them: callers of one service are spread over it.
        let at = usize::from(uuid::Uuid::new_v4().as_bytes()[0]) % endpoints.addresses.len();
        Ok(endpoints.addresses[at])
    }
}

/// What a service lacks to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    Service,
    Port,
    Endpoints,
    /// None at the port of this name.
    Addresses(String),
}

impl Unreachable {
    fn told(self, at: &ServiceReference) -> Told {
        let name = quote(&at.name);
        match self {
            Self::Service => format!("service {name} not found"),
            Self::Port => format!("no service port {} found for service {name}", at.port),
            _ => format!("no endpoints available for service {name}"),
        }
    }
}

/// The ready endpoints of a service's port; never none.
pub(crate) struct Endpoints {
    pub addresses: Vec<SocketAddr>,
}

impl Endpoints {
    pub async fn of(registry: &Registry, at: &ServiceReference) -> Result<Self, Unreachable> {
        let kinds = registry.kinds();
        let services = kinds
            .resource("", "v1", "services")
            .ok_or(Unreachable::Service)?;
        let service = registry
            .peek(&services, &at.namespace, &at.name)
            .and_then(|stored| stored.to_value().ok())
            .ok_or(Unreachable::Service)?;
        let ports = service["spec"]["ports"].as_array();
        let port = ports
            .into_iter()
            .flatten()
            .find(|p| p["port"].as_u64() == Some(u64::from(at.port)))
            .ok_or(Unreachable::Port)?;
        let port_name = port["name"].as_str().unwrap_or_default();
        let slices = slices(registry, at).await;
        if slices.is_empty() {
            return Err(Unreachable::Endpoints);
        }
        let addresses: Vec<SocketAddr> = slices
            .iter()
            .flat_map(|slice| ready(slice, port_name))
            .collect();
        if addresses.is_empty() {
            return Err(Unreachable::Addresses(port_name.to_owned()));
        }
        Ok(Self { addresses })
    }
}

async fn slices(registry: &Registry, at: &ServiceReference) -> Vec<Value> {
    let kinds = registry.kinds();
    let Some(row) = kinds.resource("discovery.k8s.io", "v1", "endpointslices") else {
        return Vec::new();
    };
    let selector = format!("kubernetes.io/service-name={}", at.name);
    let Ok(labels) = oarlock_model::LabelSelector::parse(&selector) else {
        return Vec::new();
    };
    let options = ListOptions {
        labels,
        resource_version: "0".to_owned(),
        ..ListOptions::default()
    };
    let context = crate::aggregate::context();
    let target = Target::new(&row, &at.namespace, "");
    let list = registry.list(&context, &target, &options).await;
    let items = list.map(|list| list.items).unwrap_or_default();
    let items: Vec<Value> = items.iter().filter_map(|i| i.to_value().ok()).collect();
    if !items.is_empty() {
        return items;
    }
    // Endpoints that somebody wrote by hand for a service without a selector.
    let Some(row) = kinds.resource("", "v1", "endpoints") else {
        return Vec::new();
    };
    let found = registry.peek(&row, &at.namespace, &at.name);
    let found = found.and_then(|stored| stored.to_value().ok());
    let subsets = found.as_ref().and_then(|f| f["subsets"].as_array());
    let subsets = subsets.into_iter().flatten();
    subsets
        .map(|subset| {
            let addresses = subset["addresses"].as_array().into_iter().flatten();
            let endpoints: Vec<Value> = addresses
                .map(|a| serde_json::json!({"addresses": [a["ip"]]}))
                .collect();
            serde_json::json!({"ports": subset["ports"], "endpoints": endpoints})
        })
        .collect()
}

/// The addresses of a slice's ready endpoints at a port.
fn ready(slice: &Value, port_name: &str) -> Vec<SocketAddr> {
    let ports = slice["ports"].as_array().into_iter().flatten();
    let mut ports = ports.filter(|p| p["name"].as_str().unwrap_or_default() == port_name);
    let port = ports.next().and_then(|p| p["port"].as_u64());
    let Some(port) = port.and_then(|p| u16::try_from(p).ok()) else {
        return Vec::new();
    };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    endpoints
        .filter(|e| e["conditions"]["ready"].as_bool() != Some(false))
        .filter_map(|e| e["addresses"][0].as_str()?.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, port))
        .collect()
}

fn tls(trust: &Trust, identity: Option<&Identity>) -> Result<Tls, Told> {
    let mut roots = RootCertStore::empty();
    if trust.ca.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        let certs = CertificateDer::pem_slice_iter(&trust.ca);
        roots.add_parsable_certificates(certs.filter_map(Result::ok));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = Tls::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = if trust.insecure {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(unverified::Anything(provider)))
    } else {
        builder.with_root_certificates(roots)
    };
    let Some(identity) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| e.to_string())?;
    let key =
        PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(|e| e.to_string())?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|e| e.to_string())
}

/// `insecureSkipTLSVerify`: an APIService may say so.
mod unverified {
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::CryptoProvider;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub struct Anything(pub Arc<CryptoProvider>);

    impl ServerCertVerifier for Anything {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.0.signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.0.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

/// The innermost reason, as Go's client words it.
fn told(error: &(dyn Error + 'static), to: &str) -> Told {
    const UNVERIFIED: &str = "tls: failed to verify certificate: x509: ";
    let mut innermost = error;
    let mut at = Some(error);
    while let Some(error) = at {
        innermost = error;
        let io = error.downcast_ref::<std::io::Error>();
        if let Some(io) = io {
            match io.kind() {
                std::io::ErrorKind::ConnectionRefused => {
                    return format!("dial tcp {to}: connect: connection refused");
                }
                std::io::ErrorKind::TimedOut => return format!("dial tcp {to}: i/o timeout"),
                std::io::ErrorKind::UnexpectedEof => return "EOF".to_owned(),
                std::io::ErrorKind::ConnectionReset => {
                    return format!("read tcp {to}: read: connection reset by peer");
                }
                _ => {}
            }
        }
        match error.downcast_ref::<rustls::Error>() {
            Some(rustls::Error::InvalidCertificate(why)) => {
                return UNVERIFIED.to_owned()
                    + match why {
                        CertificateError::UnknownIssuer => {
                            "certificate signed by unknown authority"
                        }
                        CertificateError::Expired
                        | CertificateError::ExpiredContext { .. }
                        | CertificateError::NotValidYet
                        | CertificateError::NotValidYetContext { .. } => {
                            "certificate has expired or is not yet valid"
                        }
                        CertificateError::NotValidForName
                        | CertificateError::NotValidForNameContext { .. } => {
                            "certificate is not valid for this name"
                        }
                        _ => return format!("{UNVERIFIED}{why:?}"),
                    };
            }
            Some(other) => return format!("tls: {other}"),
            None => {}
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && error.is_incomplete_message()
        {
            return "EOF".to_owned();
        }
        at = match io.and_then(|io| io.get_ref()) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    innermost.to_string()
}

pub(crate) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

#[async_trait]
impl WebhookClient for Outbound {
    async fn post(
        &self,
        to: &ClientConfig,
        timeout: Duration,
        body: Bytes,
    ) -> Result<Bytes, String> {
        let shown = to.shown();
        let sign = if shown.contains('?') { '&' } else { '?' };
        let shown = format!("{shown}{sign}timeout={}s", timeout.as_secs());
        let failed = |why: String| format!("Post {}: {why}", quote(&shown));
        let called = tokio::time::timeout(timeout, self.call(to, &shown, body));
        match called.await {
            Ok(Ok((code, answer))) if (200..300).contains(&code) => Ok(answer),
            Ok(Ok((code, answer))) => Err(refused(code, &answer)),
            Ok(Err(why)) => Err(failed(why)),
            Err(_) => Err(failed("context deadline exceeded".to_owned())),
        }
    }
}

impl Outbound {
    async fn call(&self, to: &ClientConfig, url: &str, body: Bytes) -> Result<(u16, Bytes), Told> {
        let mut uri: Uri = url.parse().map_err(|e| format!("{e}"))?;
        let mut request = Request::builder().method(Method::POST);
        let mut name = String::new();
        if let Some(service) = &to.service {
            let host = uri.authority().map(ToString::to_string).unwrap_or_default();
            let address = self.resolve(service).await?;
            uri = moved(&uri, address)?;
            request = request.header(HOST, host);
            name = format!("{}.{}.svc", service.name, service.namespace);
        }
        let request = request
            .uri(uri)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("accept", "application/json, */*")
            .header(USER_AGENT, AGENT)
            .body(whole(body))
            .map_err(|e| e.to_string())?;
        let trust = Trust {
            ca: to.ca_bundle.clone(),
            name,
            insecure: false,
            identified: false,
        };
        let answer = self.send(&trust, request).await?;
        let code = answer.status().as_u16();
        let body = read_whole(answer).await?;
        Ok((code, body))
    }
}

/// The same at another address.
pub(crate) fn moved(uri: &Uri, address: SocketAddr) -> Result<Uri, Told> {
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    format!("https://{address}{path}")
        .parse()
        .map_err(|e| format!("{e}"))
}

pub(crate) async fn read_whole(answer: Response<Incoming>) -> Result<Bytes, Told> {
    let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES);
    let body = body.collect().await.map_err(|e| e.to_string())?;
    Ok(body.to_bytes())
}

/// What a server that says no is taken to mean, in client-go's words.
fn refused(code: u16, body: &[u8]) -> Told {
    let status: Value = serde_json::from_slice(body).unwrap_or_default();
    if status["kind"] == "Status"
        && let Some(message) = status["message"].as_str()
    {
        return message.to_owned();
    }
    let said = String::from_utf8_lossy(body.get(..2048).unwrap_or(body));
    let said = said.trim();
    match code {
        400 => "the server rejected our request for an unknown reason".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 => said.to_owned(),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        406 => "the server was unable to respond with a content type that the client supports".to_owned(),
        409 => "the server reported a conflict".to_owned(),
        415 => "the server was unable to understand the content type of the request".to_owned(),
        422 => "the server rejected our request due to an error in our request".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later".to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the request"
            .to_owned(),
        500.. => format!(
            "an error on the server ({}) has prevented the request from succeeding",
            quote(said)
        ),
        _ => format!("the server responded with the status code {code} but did not return more information"),
    }
}
