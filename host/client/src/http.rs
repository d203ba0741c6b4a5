//! A plain HTTP/2 connection to a Kubernetes API server by a kubeconfig: what the command line and the benchmarks
//! use. One connection carries many requests at once; `Http` is cheap to clone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Deserialize;
use serde_json::Value;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("kubeconfig {path}: {what}")]
    Kubeconfig { path: PathBuf, what: String },
    #[error("cannot connect to {server}: {what}")]
    Connect { server: String, what: String },
    #[error("the request failed: {0}")]
    Transport(String),
    /// The server's own refusal.
    #[error("{message}")]
    Refused { code: u16, message: String },
}

/// Where the API server is and who we are, from a kubeconfig's current context.
#[derive(Clone, Debug)]
pub struct Kubeconfig {
    pub server: String,
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "current-context")]
    current_context: String,
    clusters: Vec<Named>,
    contexts: Vec<Named>,
    users: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    cluster: Option<Value>,
    context: Option<Value>,
    user: Option<Value>,
}

impl Kubeconfig {
    pub fn load(path: &Path) -> Result<Self, HttpError> {
        let text = std::fs::read_to_string(path).map_err(|e| HttpError::Kubeconfig {
            path: path.to_owned(),
            what: e.to_string(),
        })?;
        Self::parse(&text, path)
    }

    /// The text of a kubeconfig; `path` is where it is from: files that it names are beside it.
    pub fn parse(text: &str, path: &Path) -> Result<Self, HttpError> {
        let fail = |what: String| HttpError::Kubeconfig {
            path: path.to_owned(),
            what,
        };
        let file: File = serde_saphyr::from_str(text).map_err(|e| fail(e.to_string()))?;
        let named = |list: &[Named], name: &str, pick: fn(&Named) -> Option<&Value>| {
            let entry = list.iter().find(|n| n.name == name).and_then(pick).cloned();
            entry.ok_or_else(|| fail(format!("it has no entry named {name:?}")))
        };
        let context = named(&file.contexts, &file.current_context, |n| {
            n.context.as_ref()
        })?;
        let field = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
        let cluster = named(&file.clusters, &field(&context, "cluster"), |n| {
            n.cluster.as_ref()
        })?;
        let user = named(&file.users, &field(&context, "user"), |n| n.user.as_ref())?;
        let bytes = |of: &Value, key: &str| -> Result<Vec<u8>, HttpError> {
            if let Some(data) = of[format!("{key}-data")].as_str() {
                return base64::engine::general_purpose::STANDARD
                    .decode(data)
                    .map_err(|e| fail(format!("{key}-data: {e}")));
            }
            let file = of[key]
                .as_str()
                .ok_or_else(|| fail(format!("it has neither {key} nor {key}-data")))?;
            std::fs::read(path.parent().unwrap_or(Path::new(".")).join(file))
                .map_err(|e| fail(format!("{file}: {e}")))
        };
        Ok(Self {
            server: field(&cluster, "server"),
            ca: bytes(&cluster, "certificate-authority")?,
            cert: bytes(&user, "client-certificate")?,
            key: bytes(&user, "client-key")?,
        })
    }
}

/// One HTTP/2 connection.
#[derive(Clone, Debug)]
pub struct Http {
    sender: http2::SendRequest<Full<Bytes>>,
    server: Arc<str>,
}

impl Http {
    pub async fn connect(config: &Kubeconfig) -> Result<Self, HttpError> {
        let fail = |what: String| HttpError::Connect {
            server: config.server.clone(),
            what,
        };
        let text = |e: &dyn std::fmt::Display| fail(e.to_string());
        let authority = config
            .server
            .strip_prefix("https://")
            .ok_or_else(|| fail("it is not https".to_owned()))?;
        let authority = authority.trim_end_matches('/');
        let host = authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host)
            .trim_matches(['[', ']']);
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(&config.ca) {
            roots
                .add(cert.map_err(|e| text(&e))?)
                .map_err(|e| text(&e))?;
        }
        let chain = CertificateDer::pem_slice_iter(&config.cert)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| text(&e))?;
        let key = PrivateKeyDer::from_pem_slice(&config.key).map_err(|e| text(&e))?;
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| text(&e))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|e| text(&e))?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = tokio::net::TcpStream::connect(authority)
            .await
            .map_err(|e| text(&e))?;
        tcp.set_nodelay(true).map_err(|e| text(&e))?;
        let name = ServerName::try_from(host.to_owned()).map_err(|e| text(&e))?;
        let stream = TlsConnector::from(Arc::new(tls))
            .connect(name, tcp)
            .await
            .map_err(|e| text(&e))?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| text(&e))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the API server ended");
            }
        });
        Ok(Self {
            sender,
            server: config.server.as_str().into(),
        })
    }

    /// Sends a request; the answer's body can be read as it comes.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, HttpError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server))
            .header("accept", "application/json")
            .header("content-type", content_type)
            .header("user-agent", concat!("oarlock/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|e| HttpError::Transport(e.to_string()))?;
        self.sender
            .clone()
            .send_request(request)
            .await
            .map_err(|e| HttpError::Transport(e.to_string()))
    }

    /// Sends a request and reads the whole answer; a refusal is an error with the server's own message.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Bytes, HttpError> {
        let response = self.send(method, path, content_type, body).await?;
        let code = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|e| HttpError::Transport(e.to_string()))?
            .to_bytes();
        if code.is_success() {
            return Ok(body);
        }
        let status: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let message = status["message"].as_str().map_or_else(
            || String::from_utf8_lossy(&body).into_owned(),
            str::to_owned,
        );
        Err(HttpError::Refused {
            code: code.as_u16(),
            message,
        })
    }

    /// `call` with JSON in and out.
    pub async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, HttpError> {
        let body = body.map_or_else(Bytes::new, |v| Bytes::from(v.to_string()));
        let answer = self.call(method, path, "application/json", body).await?;
        serde_json::from_slice(&answer).map_err(|e| HttpError::Transport(e.to_string()))
    }
}
