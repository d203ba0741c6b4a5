//! Listening, accepting, and what a connection may take: `Server`.
//!
//! Invariant: every connection is bounded in time without progress (handshake, headers, bodies, writes) and in streams, and
//! there is a bound on connections. A shutdown ends watches, lets other requests finish, and then cuts what is left.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use oarlock_registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::aggregate::Aggregator;
use crate::audit::Audit;
use crate::auth::Access;
use crate::expressions::ByAccess;
use crate::flow::Flow;
use crate::guard::WriteGuard;
use crate::handler::{self, Api, Connection};
use crate::health::{Health, HealthCheck};
use crate::metrics::{Gauge, Metrics, MoreMetrics};
use crate::openapi::OpenApi;
use crate::pki::{Pki, PkiError};
use crate::served::Newest;
use crate::timetravel::Timeline;
use crate::tls::{ALPN_H2, Verifier};

/// hyper's defaults stall client-go; these are upstream's.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 25 * 1024 * 1024;
const MAX_STREAMS: u32 = 1000;
/// A client may drop all of its watches at once.
const MAX_RESET_STREAMS: usize = 2 * MAX_STREAMS as usize;
const MAX_HEADER_BYTES: usize = 128 * 1024;
/// How much of one answer may wait in a connection's buffer.
const SEND_BUFFER_BYTES: usize = 1024 * 1024;
const MAX_CONNECTIONS: i64 = 16_384;
/// Upstream's 400 that read and 200 that write.
const MAX_IN_FLIGHT: u32 = 600;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// After this, a shutdown no longer waits for requests.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after an accept that failed (too many open files), so that it is not retried in a spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Plain data, made by the binary.
#[derive(Debug)]
pub struct ServerConfig {
    /// Port 0: any free one.
    pub listen: SocketAddr,
    pub registry: Arc<Registry>,
    pub pki: Arc<Pki>,
    pub access: Access,
    /// Checks of `/livez`, and of `/readyz` besides those.
    pub live: Vec<HealthCheck>,
    pub ready: Vec<HealthCheck>,
    /// Stopped with the server.
    pub audit: Option<Arc<Audit>>,
    /// Requests that run at the same time, shared out among the priority levels; watches that have begun are not among them.
    pub max_in_flight: u32,
    /// Serve and take CBOR (upstream: the feature gate CBORServingAndStorage, which is off unless it is switched on).
    pub cbor: bool,
    /// Shown in `/metrics` besides the server's own.
    pub more_metrics: MoreMetrics,
    /// How long the head of an HTTP/1.1 request may take, and how long an idle connection is kept.
    pub header_timeout: Duration,
}

impl ServerConfig {
    pub fn new(listen: SocketAddr, registry: Arc<Registry>, pki: Arc<Pki>) -> Self {
        Self {
            listen,
            registry,
            pki,
            access: Access::default(),
            live: Vec::new(),
            ready: Vec::new(),
            audit: None,
            max_in_flight: MAX_IN_FLIGHT,
            cbor: false,
            more_metrics: MoreMetrics::default(),
            header_timeout: HEADER_TIMEOUT,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is in use or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// A server that listens; nothing is answered before [`Server::serve`].
pub struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
    acceptor: TlsAcceptor,
    verifier: Arc<Verifier>,
    header_timeout: Duration,
    api: Arc<Api>,
    stop: watch::Sender<bool>,
    stopping: Arc<AtomicBool>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

impl Server {
    pub async fn bind(config: ServerConfig) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let acceptor = TlsAcceptor::from(config.pki.tls_config()?);
        let verifier = Verifier::new(&config.pki)?;
        let (stop, stopped) = watch::channel(false);
        let stopping = Arc::new(AtomicBool::new(false));
        let by = ByAccess(config.access.clone());
        config.registry.set_authorizer(Arc::new(by));
        let flow = Flow::start(&config.registry, config.max_in_flight).await;
        let source = Arc::downgrade(&flow);
        config.more_metrics.add(move || {
            source
                .upgrade()
                .map(|flow| flow.metrics())
                .unwrap_or_default()
        });
        if let Some(audit) = &config.audit {
            let source = Arc::clone(audit);
            config.more_metrics.add(move || source.metrics());
        }
        let api = Api {
            aggregator: Aggregator::start(&config.registry, &config.pki).await,
            flow,
            timeline: Timeline::start(&config.registry),
            newest: Newest::new(&config.registry.kinds()),
            registry: config.registry,
            access: config.access,
            health: Health::new(config.live, config.ready, Arc::clone(&stopping)),
            metrics: Arc::new(Metrics::default()),
            openapi: OpenApi::default(),
            audit: config.audit,
            more_metrics: config.more_metrics,
            stopping: stopped,
            address: local_addr,
            cbor: config.cbor,
        };
        Ok(Self {
            listener,
            local_addr,
            acceptor,
            verifier,
            header_timeout: config.header_timeout,
            api: Arc::new(api),
            stop,
            stopping,
        })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers until `shutdown` is ready; then ends watches, lets requests finish (for at most ten seconds) and returns.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self {
            listener,
            acceptor,
            verifier,
            header_timeout,
            api,
            stop,
            stopping,
            ..
        } = self;
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, source)) => {
                        let (gauge, open) = Gauge::raise(&api.metrics, |m| &m.connections);
                        if open > MAX_CONNECTIONS {
                            continue;
                        }
                        let (acceptor, verifier, api) = (acceptor.clone(), Arc::clone(&verifier), Arc::clone(&api));
                        connections.spawn(async move {
                            connect(stream, source, acceptor, verifier, header_timeout, api).await;
                            drop(gauge);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        stopping.store(true, Ordering::Relaxed);
        drop(listener);
        stop.send_replace(true);
        let drained = tokio::time::timeout(SHUTDOWN_TIMEOUT, async {
            while connections.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            tracing::info!(
                connections = connections.len(),
                "cutting connections that did not finish"
            );
            connections.shutdown().await;
        }
        if let Some(audit) = &api.audit {
            Arc::clone(audit).stop().await;
        }
    }
}

async fn connect(
    stream: TcpStream,
    source: SocketAddr,
    acceptor: TlsAcceptor,
    verifier: Arc<Verifier>,
    header_timeout: Duration,
    api: Arc<Api>,
) {
    // A failure to set it costs latency, not correctness.
    let _ = stream.set_nodelay(true);
    let mut stopping = api.stopping.clone();
    let handshake = tokio::select! {
        done = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => done,
        _ = stopping.wait_for(|stop| *stop) => return,
    };
    let Ok(Ok(stream)) = handshake else {
        api.metrics.tls_failures.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%source, "tls handshake failed");
        return;
    };
    let session = stream.get_ref().1;
    let h2 = session.alpn_protocol() == Some(ALPN_H2);
    let peer = verifier.user(session.peer_certificates());
    let connection = Arc::new(Connection { api, peer, source });
    let result = if h2 {
        http2(stream, connection, stopping).await
    } else {
        http1(stream, connection, header_timeout, stopping).await
    };
    if let Err(error) = result {
        tracing::debug!(%source, %error, "connection ended");
    }
}

async fn http2(
    stream: TlsStream<TcpStream>,
    connection: Arc<Connection>,
    mut stopping: watch::Receiver<bool>,
) -> hyper::Result<()> {
    let service = service_fn(move |request| handler::serve(Arc::clone(&connection), request));
    let io = TokioIo::new(WriteGuard::new(stream, WRITE_TIMEOUT));
    let conn = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_RESET_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(io, service);
    let mut conn = std::pin::pin!(conn);
    tokio::select! {
        result = conn.as_mut() => return result,
        _ = stopping.wait_for(|stop| *stop) => conn.as_mut().graceful_shutdown(),
    }
    conn.await
}

async fn http1(
    stream: TlsStream<TcpStream>,
    connection: Arc<Connection>,
    header_timeout: Duration,
    mut stopping: watch::Receiver<bool>,
) -> hyper::Result<()> {
    let service = service_fn(move |request| handler::serve(Arc::clone(&connection), request));
    let io = TokioIo::new(WriteGuard::new(stream, WRITE_TIMEOUT));
    let conn = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_header_size(MAX_HEADER_BYTES)
        .serve_connection(io, service);
    let mut conn = std::pin::pin!(conn);
    tokio::select! {
        result = conn.as_mut() => return result,
        _ = stopping.wait_for(|stop| *stop) => conn.as_mut().graceful_shutdown(),
    }
    conn.await
}
