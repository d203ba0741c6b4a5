//! A door for `tests/fuzz` to what reads a client's bytes here and is nobody else's. Each function says what came out as a
//! text: the same text, the same behaviour.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use oarlock_registry::User;
use rustls::pki_types::CertificateDer;
use serde_json::Value;

use crate::auth::{Access, Attributes, TokenAuthenticator as _};
use crate::failure::Failure;
use crate::negotiate;
use crate::pki::request::Wanted;
use crate::query::{PatchForm, Query};
use crate::{Pki, ServiceAccounts, StaticTokens, body, route, scan, tls};

fn told<T: std::fmt::Debug>(result: Result<T, Failure>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(failure) => format!("{} {:?}", failure.code(), failure.body()),
    }
}

fn headers(name: &'static str, value: &[u8]) -> Option<HeaderMap> {
    let value = HeaderValue::from_bytes(value).ok()?;
    Some(HeaderMap::from_iter([(
        HeaderName::from_static(name),
        value,
    )]))
}

pub fn yaml(text: &[u8]) -> Result<Value, String> {
    body::yaml(text)
}

pub fn accept(value: &[u8]) -> Option<String> {
    let headers = headers("accept", value)?;
    Some(format!(
        "{} {} {:?}",
        told(negotiate::response(&headers, true, true, true)),
        told(negotiate::response(&headers, false, false, true)),
        negotiate::aggregated_discovery(&headers)
    ))
}

pub fn content_type(value: &[u8]) -> Option<String> {
    let headers = headers("content-type", value)?;
    let (format, patch) = (
        negotiate::body_format(&headers, true),
        negotiate::patch_type(&headers, true),
    );
    Some(format!("{} {}", told(format), told(patch)))
}

pub fn path(path: &str) -> String {
    let path = route::decode_path(path);
    let at = route::resource_path(&path);
    let problem = at.as_ref().and_then(|at| route::name_problem(at.name));
    format!("{at:?} {problem:?}")
}

pub fn query(text: &str) -> String {
    let query = match Query::parse(Some(text)) {
        Ok(query) => query,
        Err(failure) => return told::<()>(Err(failure)),
    };
    let write = |patch| told(query.write_options("CreateOptions", patch, text));
    [
        told(query.list_options()),
        told(query.watch_options()),
        told(query.timeout_seconds()),
        told(query.delete_options()),
        write(None),
        write(Some(PatchForm::Apply)),
        format!("{:?}", query.pretty()),
    ]
    .join(" ")
}

/// Who a request is to be carried out as, by headers of these names and values.
pub fn impersonate(given: &[(&str, &str)]) -> Option<String> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_str(value).ok()?);
    }
    let user = User {
        name: "root".to_owned(),
        groups: vec!["system:masters".to_owned()],
        ..User::default()
    };
    let attributes = Attributes {
        verb: "get",
        path: "/api",
        resource: None,
        ..Attributes::default()
    };
    let access = Access {
        authorizers: vec![Arc::new(crate::Masters)],
        ..Access::default()
    };
    Some(told(access.impersonate(&headers, &user, &attributes)))
}

pub fn sign_token(accounts: &ServiceAccounts, claims: &Value) -> Option<String> {
    accounts.sign(claims)
}

pub fn token(accounts: &ServiceAccounts, token: &str, now: Timestamp) -> String {
    let answer = futures::executor::block_on(accounts.authenticate(token, &[], now));
    format!("{answer:?}")
}

pub fn static_tokens(text: &str) -> String {
    match StaticTokens::parse(text) {
        Ok(_) => "good".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Signs a request for a certificate as each of the signers would.
pub fn sign_request(pki: &Pki, request_pem: &str, usages: &[&str], now: Timestamp) -> String {
    use crate::pki::request::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY};
    let signed = [CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY].map(|signer| {
        let wanted = Wanted {
            signer,
            request_pem,
            usages,
            seconds: None,
        };
        pki.sign(&wanted, now).map(|_| "signed")
    });
    format!("{signed:?}")
}

/// Who a certificate says its bearer is, whoever signed it.
pub fn certificate(der: &[u8]) -> String {
    format!("{:?}", tls::subject(&CertificateDer::from(der)))
}

/// A member of a JSON object's text, as answers are cut from stored text.
pub fn member<'a>(object: &'a [u8], field: &str) -> Option<&'a [u8]> {
    scan::member(object, field)
}
