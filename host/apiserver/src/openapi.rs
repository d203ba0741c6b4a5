//! `/openapi/v3` and `/openapi/v2`: what kubectl's `apply`, `explain` and validation read. A document is made when first
//! asked for and kept compressed, so an idle server holds none; its URL carries its hash, so that clients may keep it for
//! ever.

use std::collections::HashMap;
use std::io::Read as _;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, HeaderMap};
use oarlock_kinds::{Kinds, openapi};
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
pub(crate) struct OpenApi {
    /// By path.
    documents: Mutex<HashMap<String, Packed>>,
}

impl OpenApi {
    /// `None`: no such document.
    pub fn answer(&self, call: &Call<'_>, path: &str) -> Option<Answer> {
        let packed = self.document(call.api.served.kinds(), path)?;
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

    fn document(&self, kinds: &Kinds, path: &str) -> Option<Packed> {
        // Held while a document is made, so that callers who come at the same time do not all make it.
        let mut documents = self.documents.lock();
        if let Some(packed) = documents.get(path) {
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
        documents.insert(path.to_owned(), packed.clone());
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

/// The document at a path and its hash, if it has one of its own.
fn make(kinds: &Kinds, path: &str) -> Option<(Value, Option<String>)> {
    match path.strip_prefix("/openapi/")? {
        "v2" => Some((openapi::v2_document(kinds), None)),
        "v3" => Some((openapi::v3_index(kinds), None)),
        rest => {
            let (group, version) = if let Some(version) = rest.strip_prefix("v3/api/") {
                ("", version)
            } else {
                rest.strip_prefix("v3/apis/")?.split_once('/')?
            };
            let document = openapi::v3_document(kinds, group, version)?;
            Some((document, Some(openapi::v3_hash(kinds, group, version))))
        }
    }
}
