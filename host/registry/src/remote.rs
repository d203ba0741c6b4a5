//! Servers that the cluster's objects name: what the registry asks of whoever speaks HTTP.

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use bytes::Bytes;
use serde_json::Value;

/// A `clientConfig`: where a webhook is, and whom to believe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientConfig {
    /// `https://…`; empty: `service` counts.
    pub url: String,
    pub service: Option<ServiceReference>,
    /// PEM; empty: the system's.
    pub ca_bundle: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceReference {
    pub namespace: String,
    pub name: String,
    pub port: u16,
    /// With its leading slash, or empty.
    pub path: String,
}

impl ClientConfig {
    /// What validation lets through has one of `url` and `service`.
    pub fn of(config: &Value) -> Self {
        let text = |of: &Value, field: &str| of[field].as_str().unwrap_or_default().to_owned();
        let service = &config["service"];
        let service = service.is_object().then(|| ServiceReference {
            namespace: text(service, "namespace"),
            name: text(service, "name"),
            port: service["port"]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or(443),
            path: text(service, "path"),
        });
        let ca = base64::engine::general_purpose::STANDARD.decode(text(config, "caBundle"));
        Self {
            url: text(config, "url"),
            service,
            ca_bundle: ca.unwrap_or_default(),
        }
    }

    /// As errors name it.
    pub fn shown(&self) -> String {
        match &self.service {
            Some(at) => format!(
                "https://{}.{}.svc:{}{}",
                at.name, at.namespace, at.port, at.path
            ),
            None => self.url.clone(),
        }
    }
}

/// Asks webhooks.
#[async_trait]
pub trait WebhookClient: Send + Sync + std::fmt::Debug {
    /// Sends a JSON document and answers what came back with a success; the error in the words of Go's client.
    async fn post(
        &self,
        to: &ClientConfig,
        timeout: Duration,
        body: Bytes,
    ) -> Result<Bytes, String>;
}
