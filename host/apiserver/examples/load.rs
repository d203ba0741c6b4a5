//! Load on a running server, to see where its time goes: 8 HTTP/2 connections, 64 workers; prints a rate.
//! `load ADDRESS PKI_DIR (get|create|list) SECONDS`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;
type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

const CONNECTIONS: usize = 8;
const WORKERS: usize = 64;
const CONFIG_MAPS: &str = "https://localhost/api/v1/namespaces/default/configmaps";

async fn connect(address: &str, pki: &str) -> Outcome<Sender> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(format!("{pki}/ca.crt"))?)?;
    let chain = vec![CertificateDer::from_pem_file(format!("{pki}/admin.crt"))?];
    let key = PrivateKeyDer::from_pem_file(format!("{pki}/admin.key"))?;
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_root_certificates(roots)
    .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector
        .connect(ServerName::try_from("localhost")?, stream)
        .await?;
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(4 * 1024 * 1024)
        .initial_connection_window_size(32 * 1024 * 1024)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(connection);
    Ok(sender)
}

fn config_map(name: &str) -> String {
    let data = "x".repeat(2000);
    format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"k":"{data}"}}}}"#
    )
}

async fn call(
    sender: &mut Sender,
    method: Method,
    path: &str,
    body: String,
) -> Outcome<(u16, usize)> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .header("user-agent", "load/1")
        .body(Full::new(Bytes::from(body)))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    Ok((status, answer.into_body().collect().await?.to_bytes().len()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, pki, what, seconds] = &arguments[..] else {
        return Err("usage: load ADDRESS PKI_DIR (get|create|list) SECONDS".into());
    };
    let duration = Duration::from_secs(seconds.parse()?);
    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS {
        senders.push(connect(address, pki).await?);
    }
    call(
        &mut senders[0],
        Method::POST,
        CONFIG_MAPS,
        config_map("load"),
    )
    .await?;
    let done = Arc::new(AtomicU64::new(0));
    let bytes = Arc::new(AtomicU64::new(0));
    for worker in 0..if what == "list" { 1 } else { WORKERS } {
        let mut sender = senders[worker % CONNECTIONS].clone();
        let (done, bytes, what) = (Arc::clone(&done), Arc::clone(&bytes), what.clone());
        tokio::spawn(async move {
            for at in 0.. {
                let outcome = match what.as_str() {
                    "get" => {
                        call(
                            &mut sender,
                            Method::GET,
                            &format!("{CONFIG_MAPS}/load"),
                            String::new(),
                        )
                        .await
                    }
                    "list" => call(&mut sender, Method::GET, CONFIG_MAPS, String::new()).await,
                    _ => {
                        let name = format!("l{}-{worker}-{at}", std::process::id());
                        call(&mut sender, Method::POST, CONFIG_MAPS, config_map(&name)).await
                    }
                };
                match outcome {
                    Ok((200 | 201, size)) => {
                        done.fetch_add(1, Ordering::Relaxed);
                        bytes.fetch_add(size as u64, Ordering::Relaxed);
                    }
                    other => {
                        return eprintln!(
                            "worker {worker}: {:?}",
                            other.map_err(|e| e.to_string())
                        );
                    }
                }
            }
        });
    }
    tokio::time::sleep(duration).await;
    let (done, bytes) = (done.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
    let rate = done as f64 / duration.as_secs_f64();
    println!(
        "{what}: {rate:.0}/s, {:.1} MB/s",
        bytes as f64 / duration.as_secs_f64() / 1e6
    );
    Ok(())
}
