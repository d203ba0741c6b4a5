//! `/openapi/v3` and `/openapi/v2`: what kubectl's `apply`, `explain` and validation read. A document is made when first
//! asked for and kept compressed, so an idle server holds none; its URL carries its hash, so that clients may keep it for
//! ever.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, HeaderMap};
use oarlock_kinds::{Kinds, Row, openapi};
use parking_lot::Mutex;
use serde_json::Value;

use crate::handler::Call;
use crate::negotiate::accepts_gzip;
use crate::outgoing::{Outgoing, gzip};
use crate::respond::{self, Answer};

const JSON: &str = "application/json";
/// How long a document may be kept by who asked for it with its hash.
const FOR_EVER: &str = "public, immutable, max-age=31536000";

#[derive(Clone, Debug)]
struct Packed {
    gzip: Bytes,
    etag: String,
}

#[derive(Debug, Default)]
struct Documents {
    /// The table that they describe.
    kinds: Option<Arc<Kinds>>,
    by_path: HashMap<String, Packed>,
}

impl Documents {
    /// Forgets what a change of the table has made untrue; what rows of built-in kinds alone make stays.
    fn describe(&mut self, kinds: &Arc<Kinds>) {
        if self.kinds.as_ref().is_some_and(|k| Arc::ptr_eq(k, kinds)) {
            return;
        }
        let old = self.kinds.replace(Arc::clone(kinds)).unwrap_or_default();
        self.by_path.retain(|path, _| {
            let Some((group, version)) = group_version(path) else {
                return false;
            };
            let rows = |kinds: &Kinds| -> Vec<Arc<Row>> {
                kinds
                    .rows()
                    .iter()
                    .filter(|r| r.group == group && r.version == version)
                    .map(Arc::clone)
                    .collect()
            };
            let (before, after) = (rows(&old), rows(kinds));
            before.len() == after.len() && before.iter().zip(&after).all(|(a, b)| Arc::ptr_eq(a, b))
        });
    }
}

#[derive(Debug, Default)]
pub(crate) struct OpenApi {
    documents: Mutex<Documents>,
}

impl OpenApi {
    /// `None`: no such document.
    pub fn answer(&self, call: &Call<'_>, path: &str) -> Option<Answer> {
        let packed = self.document(call.served.kinds(), path)?;
        let mut answer = respond::tagged(JSON, Bytes::new(), &packed.etag, call.headers);
        if answer.status() == http::StatusCode::OK {
            *answer.body_mut() = Outgoing::whole(unpacked_for(call.headers, &packed, &mut answer)?);
        }
        if call
            .query
            .get("hash")
            .is_some_and(|hash| packed.etag.trim_matches('"') == hash)
        {
            answer
                .headers_mut()
                .insert(CACHE_CONTROL, HeaderValue::from_static(FOR_EVER));
        }
        Some(answer)
    }

    fn document(&self, kinds: &Arc<Kinds>, path: &str) -> Option<Packed> {
        // Held while a document is made, so that callers who come at the same time do not all make it.
        let mut documents = self.documents.lock();
        documents.describe(kinds);
        if let Some(packed) = documents.by_path.get(path) {
            return Some(packed.clone());
        }
        let (value, hash) = make(kinds, path)?;
        let text = value.to_string();
        let hash = hash.unwrap_or_else(|| {
            use sha2::Digest as _;
            hex::encode_upper(sha2::Sha256::digest(text.as_bytes()))
        });
        let packed = Packed {
            gzip: gzip(text.as_bytes()).ok()?.into(),
            etag: format!("\"{hash}\""),
        };
        documents.by_path.insert(path.to_owned(), packed.clone());
        Some(packed)
    }
}

fn unpacked_for(headers: &HeaderMap, packed: &Packed, answer: &mut Answer) -> Option<Bytes> {
    if accepts_gzip(headers) {
        respond::mark_gzip(answer);
        return Some(packed.gzip.clone());
    }
    let mut text = Vec::new();
    GzDecoder::new(&*packed.gzip).read_to_end(&mut text).ok()?;
    Some(text.into())
}

/// What the document at this path describes, if that is one group version.
fn group_version(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/openapi/v3/")?;
    match rest.strip_prefix("api/") {
        Some(version) => Some(("", version)),
        None => rest.strip_prefix("apis/")?.split_once('/'),
    }
}

/// The document at a path and its hash, if it has one of its own.
fn make(kinds: &Kinds, path: &str) -> Option<(Value, Option<String>)> {
    match path.strip_prefix("/openapi/")? {
        "v2" => Some((openapi::v2_document(kinds), None)),
        "v3" => Some((openapi::v3_index(kinds), None)),
        _ => {
            let (group, version) = group_version(path)?;
            let document = openapi::v3_document(kinds, group, version)?;
            Some((document, Some(openapi::v3_hash(kinds, group, version))))
        }
    }
}
