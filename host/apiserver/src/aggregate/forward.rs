//! A request that another API server answers: sent on with who asks, its answer handed through as it comes.

use futures::StreamExt as _;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Uri};
use http_body_util::{BodyDataStream, BodyExt as _};
use hyper::body::Incoming;
use oarlock_registry::User;

use super::{Aggregator, Elsewhere, available};
use crate::failure::Failure;
use crate::outgoing::Outgoing;
use crate::respond::Answer;

/// Headers that are about one connection.
const OF_CONNECTION: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Aggregator {
    pub async fn forward(
        &self,
        to: &Elsewhere,
        parts: &Parts,
        body: Incoming,
        user: &User,
    ) -> Result<Answer, Failure> {
        if !to.available {
            return Err(Failure::Text(503, "service unavailable\n"));
        }
        let answer = self.hand_over(to, parts, body, user).await;
        answer.map_err(|why| {
            tracing::debug!(
                why,
                service = to.service.name,
                "an aggregated API does not answer"
            );
            let text = format!("error trying to reach service: {why}");
            let mut error =
                oarlock_model::ApiError::new(oarlock_model::Reason::ServiceUnavailable, text);
            error.status_code = Some(503);
            error.into()
        })
    }

    async fn hand_over(
        &self,
        to: &Elsewhere,
        parts: &Parts,
        body: Incoming,
        user: &User,
    ) -> Result<Answer, String> {
        let address = self.outbound.resolve(&to.service).await?;
        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let uri: Uri = format!("https://{}{path}", to.trust.name)
            .parse()
            .map_err(|e| format!("{e}"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &parts.headers {
            if !is_ours(name) {
                headers.append(name, value.clone());
            }
        }
        let host = format!("{}:{}", to.trust.name, to.service.port);
        put(&mut headers, "host", &host)?;
        identify(&mut headers, user)?;
        let mut request = Request::new(body.map_err(Into::into).boxed_unsync());
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = available::at(&uri, address)?;
        *request.headers_mut() = headers;
        let answer = self.outbound.send(&to.trust, request).await?;
        let (head, body) = answer.into_parts();
        let stream = BodyDataStream::new(body)
            .take_while(|chunk| futures::future::ready(chunk.is_ok()))
            .filter_map(|chunk| futures::future::ready(chunk.ok()));
        let mut answer = Answer::new(Outgoing::Stream(Box::pin(stream)));
        *answer.status_mut() = head.status;
        for (name, value) in &head.headers {
            if !OF_CONNECTION.contains(&name.as_str()) {
                answer.headers_mut().append(name, value.clone());
            }
        }
        Ok(answer)
    }
}

/// Who asks is for us to say, and what is about our connection stays here.
fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    OF_CONNECTION.contains(&name)
        || name.starts_with("x-remote-")
        || name.starts_with("impersonate-")
        || name == header::AUTHORIZATION.as_str()
        || name == header::HOST.as_str()
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), String> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| e.to_string())?;
    let value = HeaderValue::from_str(value).map_err(|e| e.to_string())?;
    headers.append(name, value);
    Ok(())
}

fn identify(headers: &mut HeaderMap, user: &User) -> Result<(), String> {
    put(headers, "x-remote-user", &user.name)?;
    if !user.uid.is_empty() {
        put(headers, "x-remote-uid", &user.uid)?;
    }
    for group in &user.groups {
        put(headers, "x-remote-group", group)?;
    }
    for (key, values) in &user.extra {
        // Keys may have characters that header names may not.
        let key: String = key.bytes().map(escaped).collect();
        for value in values {
            put(headers, &format!("x-remote-extra-{key}"), value)?;
        }
    }
    Ok(())
}

fn escaped(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
        char::from(byte.to_ascii_lowercase()).to_string()
    } else {
        format!("%{byte:02x}")
    }
}
