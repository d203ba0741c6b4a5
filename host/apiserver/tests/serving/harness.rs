//! A server in memory on a free port, and a client that speaks either version of HTTP to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use oarlock_apiserver::{
    Access, Identity, KeyRing, Nodes, Pki, Rbac, Server, ServerConfig, ServiceAccounts,
    check_policies, pki, sign_requests,
};
use oarlock_registry::{Config, Registry};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

/// No test waits longer than this.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct TestServer {
    pub address: SocketAddr,
    pub pki: Arc<Pki>,
    _dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<()>>,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::with_access(Access::default()).await
    }

    pub async fn with_access(access: Access) -> Self {
        Self::with(access, |_| {}).await
    }

    pub async fn with(mut access: Access, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let store = oarlock_store::open(oarlock_store::StoreOptions::memory()).unwrap();
        let kinds = Arc::new(oarlock_kinds::Kinds::builtin());
        let rbac = Rbac::new();
        let config = Config {
            store,
            kinds,
            admission: vec![rbac.admission(), Rbac::signers(Some(&rbac))],
        };
        let registry = Registry::open(config, jiff::Timestamp::now())
            .await
            .unwrap();
        let now = jiff::Timestamp::now();
        rbac.start(&registry, now, false).await.unwrap();
        access
            .authorizers
            .push(Nodes::start(&registry).await.unwrap());
        access.authorizers.push(rbac);
        let pki = Arc::new(pki::ensure(dir.path(), listen).unwrap());
        let keys = KeyRing::ensure(dir.path(), now).unwrap();
        let accounts = ServiceAccounts::new(Arc::clone(&registry), keys);
        accounts.keep_secrets(pki.ca_pem()).await.unwrap();
        access.with_accounts(accounts);
        tokio::spawn(sign_requests(Arc::clone(&registry), Arc::clone(&pki)));
        tokio::spawn(check_policies(Arc::clone(&registry)));
        let mut config = ServerConfig {
            access,
            ..ServerConfig::new(listen, registry, Arc::clone(&pki))
        };
        change(&mut config);
        let server = Server::bind(config).await.unwrap();
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(server.serve(async {
            let _ = stopped.await;
        }));
        Self {
            address,
            pki,
            _dir: dir,
            stop: Some(stop),
            served: Some(served),
        }
    }

    /// Asks the server to stop and waits until it has.
    pub async fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(DEADLINE, self.served.take().unwrap())
            .await
            .unwrap()
            .unwrap();
    }

    pub async fn admin(&self, h2: bool) -> Client {
        let admin = self.pki.admin().clone();
        Client::connect(self, Some(&admin), h2).await
    }
}

enum Sender {
    H1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    H2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

pub struct Client {
    sender: Sender,
    connection: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Client {
    /// A connection on which nothing has been said yet.
    pub async fn tls(
        server: &TestServer,
        identity: Option<&Identity>,
        h2: bool,
    ) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(server.pki.ca_pem().as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = vec![
                    CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap(),
                ];
                let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![if h2 {
            b"h2".to_vec()
        } else {
            b"http/1.1".to_vec()
        }];
        let stream = TcpStream::connect(server.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap()
    }

    pub async fn connect(server: &TestServer, identity: Option<&Identity>, h2: bool) -> Self {
        let io = TokioIo::new(Self::tls(server, identity, h2).await);
        if h2 {
            let (sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                    .await
                    .unwrap();
            let connection = tokio::spawn(async {
                let _ = connection.await;
            });
            return Self {
                sender: Sender::H2(sender),
                connection,
            };
        }
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let connection = tokio::spawn(async {
            let _ = connection.await;
        });
        Self {
            sender: Sender::H1(sender),
            connection,
        }
    }

    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let host = if matches!(self.sender, Sender::H2(_)) {
            "https://localhost"
        } else {
            ""
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{host}{path}"));
        if host.is_empty() {
            request = request.header("host", "localhost");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let answer = async {
            match &mut self.sender {
                Sender::H1(sender) => sender.send_request(request).await,
                Sender::H2(sender) => sender.send_request(request).await,
            }
        };
        tokio::time::timeout(DEADLINE, answer)
            .await
            .unwrap()
            .unwrap()
    }

    pub async fn call(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> (StatusCode, HeaderMap, Bytes) {
        let answer = self.send(method, path, headers, body).await;
        let (head, body) = answer.into_parts();
        let body = tokio::time::timeout(DEADLINE, body.collect())
            .await
            .unwrap()
            .unwrap();
        (head.status, head.headers, body.to_bytes())
    }

    /// [`Self::get`], until it is answered so.
    pub async fn get_until(
        &mut self,
        path: &str,
        done: impl Fn(StatusCode, &Value) -> bool,
    ) -> Value {
        let wait = async {
            loop {
                let (status, body) = self.get(path).await;
                if done(status, &body) {
                    return body;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap()
    }

    pub async fn get(&mut self, path: &str) -> (StatusCode, Value) {
        let (status, _, body) = self.call(Method::GET, path, &[], "").await;
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub async fn create(&mut self, path: &str, object: &Value) -> (StatusCode, Value) {
        let headers = [("content-type", "application/json")];
        let (status, _, body) = self
            .call(Method::POST, path, &headers, object.to_string())
            .await;
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}
