//! The audit webhook: batches of events as an `EventList`, posted to where a kubeconfig says.
//!
//! Each batch has a connection of its own, on a small runtime of the queue's thread: batches are seconds apart.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::Counters;
use super::event::Event;
use super::queue::Backend;
use crate::tls;

/// A post that is not answered after this has failed.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A batch is tried so often, with a pause that doubles.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How much of an answer is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Where the system keeps the authorities that it trusts.
const SYSTEM_CA: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

pub(super) struct Hook {
    endpoint: Endpoint,
    runtime: Runtime,
}

/// Where to, and who we are there.
struct Endpoint {
    /// `host:port`
    authority: String,
    host: String,
    path: String,
    /// `None`: without TLS.
    tls: Option<Arc<rustls::ClientConfig>>,
    server_name: String,
    authorization: Option<HeaderValue>,
}

impl Hook {
    pub fn new(kubeconfig: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(kubeconfig).map_err(|e| e.to_string())?;
        let config: Value = serde_saphyr::from_str(&text)
            .map_err(|e| format!("it is no YAML: {}", e.without_snippet()))?;
        let endpoint = Endpoint::of(&config, kubeconfig.parent().unwrap_or(Path::new(".")))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Self { endpoint, runtime })
    }
}

/// The entry of a list of a kubeconfig that has this name.
fn named<'v>(config: &'v Value, list: &str, field: &str, name: &str) -> Result<&'v Value, String> {
    let entries = config[list].as_array().map_or(&[][..], Vec::as_slice);
    entries
        .iter()
        .find(|entry| entry["name"] == name)
        .map(|entry| &entry[field])
        .ok_or_else(|| format!("{list} has no entry named {name:?}"))
}

/// `FIELD-data`, or the file that `FIELD` names.
fn bytes(of: &Value, field: &str, dir: &Path) -> Result<Option<Vec<u8>>, String> {
    if let Some(data) = of[format!("{field}-data")].as_str() {
        let decoded = base64::engine::general_purpose::STANDARD.decode(data);
        return decoded.map(Some).map_err(|e| format!("{field}-data: {e}"));
    }
    let Some(file) = of[field].as_str().filter(|file| !file.is_empty()) else {
        return Ok(None);
    };
    let read = std::fs::read(dir.join(file));
    read.map(Some).map_err(|e| format!("{field} {file}: {e}"))
}

impl Endpoint {
    fn of(config: &Value, dir: &Path) -> Result<Self, String> {
        let text = |of: &Value, field: &str| of[field].as_str().unwrap_or_default().to_owned();
        let context = text(config, "current-context");
        let context = named(config, "contexts", "context", &context)?;
        let cluster = named(config, "clusters", "cluster", &text(context, "cluster"))?;
        let nobody = Value::Null;
        let user = match text(context, "user") {
            name if name.is_empty() => &nobody,
            name => named(config, "users", "user", &name)?,
        };
        let server = text(cluster, "server");
        let uri: http::Uri = server
            .parse()
            .map_err(|e| format!("the server {server:?} is no URL: {e}"))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("the server {server:?} is neither https nor http")),
        };
        let host = uri.host().unwrap_or_default().to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let tls = secure.then(|| client_tls(cluster, user, dir)).transpose()?;
        let server_name = match text(cluster, "tls-server-name") {
            name if name.is_empty() => host.trim_matches(['[', ']']).to_owned(),
            name => name,
        };
        Ok(Self {
            authority: format!("{host}:{port}"),
            host: uri.authority().map_or(host, ToString::to_string),
            path: path.to_owned(),
            tls: tls.map(Arc::new),
            server_name,
            authorization: authorization(user, dir)?,
        })
    }

    async fn post(&self, body: Bytes) -> Result<(), Refused> {
        let sent = tokio::time::timeout(TIMEOUT, async {
            let stream = TcpStream::connect(&self.authority).await.map_err(passing)?;
            let Some(tls) = &self.tls else {
                return self.send(stream, body).await;
            };
            let name = ServerName::try_from(self.server_name.clone()).map_err(passing)?;
            let connector = TlsConnector::from(Arc::clone(tls));
            let stream = connector.connect(name, stream).await.map_err(passing)?;
            self.send(stream, body).await
        });
        sent.await
            .unwrap_or_else(|_| Err(passing("it did not answer in time")))
    }

    async fn send<S>(&self, stream: S, body: Bytes) -> Result<(), Refused>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(passing)?;
        let driver = tokio::spawn(async move {
            // What ends a connection early is an error of the request, too.
            let _ = connection.await;
        });
        let mut request = Request::post(&self.path)
            .header(HOST, &self.host)
            .header(CONTENT_TYPE, "application/json")
            .header(
                USER_AGENT,
                concat!("oarlock/", env!("CARGO_PKG_VERSION"), " audit"),
            );
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Full::new(body)).map_err(passing)?;
        let answer = sender.send_request(request).await.map_err(passing)?;
        let status = answer.status();
        let said = Limited::new(answer.into_body(), MAX_ANSWER_BYTES);
        let said = said.collect().await;
        driver.abort();
        if status.is_success() {
            return Ok(());
        }
        let said = said.map(|body| body.to_bytes()).unwrap_or_default();
        Err(Refused {
            why: format!("{status}: {}", String::from_utf8_lossy(&said).trim()),
            passing: status.is_server_error() || status.as_u16() == 429,
        })
    }
}

/// Why a batch was not taken, and whether it may be taken the next time.
struct Refused {
    why: String,
    passing: bool,
}

fn passing(why: impl std::fmt::Display) -> Refused {
    Refused {
        why: why.to_string(),
        passing: true,
    }
}

fn client_tls(cluster: &Value, user: &Value, dir: &Path) -> Result<rustls::ClientConfig, String> {
    if cluster["insecure-skip-tls-verify"] == true {
        return Err("insecure-skip-tls-verify is not obeyed: say certificate-authority".to_owned());
    }
    let ca = match bytes(cluster, "certificate-authority", dir)? {
        Some(ca) => ca,
        None => SYSTEM_CA
            .iter()
            .find_map(|file| std::fs::read(file).ok())
            .ok_or("it has no certificate-authority, and neither has the system")?,
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&ca) {
        let certificate = certificate.map_err(|e| format!("certificate-authority: {e}"))?;
        // A system's bundle may have some that are no use here.
        roots.add_parsable_certificates([certificate]);
    }
    if roots.is_empty() {
        return Err("certificate-authority holds no certificate".to_owned());
    }
    let builder = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots);
    let certificate = bytes(user, "client-certificate", dir)?;
    let key = bytes(user, "client-key", dir)?;
    let (Some(certificate), Some(key)) = (certificate, key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| format!("client-certificate: {e}"))?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| format!("client-key: {e}"))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|e| e.to_string())
}

fn authorization(user: &Value, dir: &Path) -> Result<Option<HeaderValue>, String> {
    let text = |field: &str| user[field].as_str().filter(|text| !text.is_empty());
    let value = if let Some(token) = text("token") {
        format!("Bearer {token}")
    } else if let Some(file) = text("tokenFile") {
        let token = std::fs::read_to_string(dir.join(file));
        let token = token.map_err(|e| format!("tokenFile {file}: {e}"))?;
        format!("Bearer {}", token.trim())
    } else if let Some(name) = text("username") {
        let pair = format!("{name}:{}", text("password").unwrap_or_default());
        let pair = base64::engine::general_purpose::STANDARD.encode(pair);
        format!("Basic {pair}")
    } else {
        return Ok(None);
    };
    let mut value =
        HeaderValue::from_str(&value).map_err(|_| "the user's token is no header".to_owned())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// The events as one document.
fn list(events: &[Arc<Event>]) -> Bytes {
    let mut out =
        br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#.to_vec();
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        event.write_json(&mut out, false);
    }
    out.extend_from_slice(b"]}");
    out.into()
}

impl Backend for Hook {
    const NAME: &'static str = "webhook";

    fn errors(counters: &Counters) -> &AtomicU64 {
        &counters.webhook_errors
    }

    fn write(&mut self, events: &[Arc<Event>], stopping: &AtomicBool) -> Result<(), String> {
        let body = list(events);
        let endpoint = &self.endpoint;
        self.runtime.block_on(async {
            let mut pause = FIRST_PAUSE;
            for tries in 1.. {
                let Err(refused) = endpoint.post(body.clone()).await else {
                    return Ok(());
                };
                let again = refused.passing && tries < TRIES;
                if !again || stopping.load(Ordering::Relaxed) {
                    return Err(refused.why);
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::event::tests::event;
    use serde_json::json;

    fn of(cluster: Value, user: Value) -> Result<Endpoint, String> {
        let config = json!({
            "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": cluster}], "users": [{"name": "u", "user": user}],
        });
        Endpoint::of(&config, Path::new("/nowhere"))
    }

    #[test]
    fn kubeconfigs() {
        let endpoint = of(
            json!({"server": "http://127.0.0.1:8080/audit?x=1"}),
            json!({"token": "t"}),
        );
        let endpoint = endpoint.ok().unwrap();
        assert_eq!(endpoint.authority, "127.0.0.1:8080");
        assert_eq!(endpoint.path, "/audit?x=1");
        assert_eq!(endpoint.authorization.unwrap(), "Bearer t");
        assert!(endpoint.tls.is_none());
        let check = |cluster: Value, user: Value, expect: &str| {
            let error = of(cluster, user).err().unwrap();
            assert!(error.contains(expect), "{error}");
        };
        let secure = json!({"server": "https://h", "certificate-authority": "ca.pem"});
        check(secure, json!({}), "certificate-authority ca.pem: ");
        check(
            json!({"server": "ftp://h"}),
            json!({}),
            "neither https nor http",
        );
        check(
            json!({"server": "https://h", "certificate-authority-data": "aGVsbG8="}),
            json!({}),
            "holds no certificate",
        );
        check(
            json!({"server": "https://h", "insecure-skip-tls-verify": true}),
            json!({}),
            "insecure-skip-tls-verify",
        );
        check(
            json!({"server": "http://h"}),
            json!({"tokenFile": "t"}),
            "tokenFile t: ",
        );
    }

    #[test]
    fn events_in_a_list_do_not_say_what_they_are() {
        let events = [Arc::new(event("a")), Arc::new(event("b"))];
        let list: Value = serde_json::from_slice(&list(&events)).unwrap();
        assert_eq!(list["kind"], "EventList");
        assert_eq!(list["items"][1]["auditID"], "b");
        assert!(list["items"][0].get("kind").is_none());
    }
}
