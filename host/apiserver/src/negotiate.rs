//! Which representation to answer in, and which one a body is in.
//!
//! Two checks follow one another, as upstream: the route's list of media types (a 406 of its own form), then the server's
//! own choice with type parameters (`as=Table`). Protobuf is for kinds that have a message (custom resources have none) and for
//! partial objects; a Table is never written in it.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use oarlock_model::Reason;

use crate::failure::Failure;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const CBOR: &str = "application/cbor";
const CBOR_SEQUENCE: &str = "application/cbor-seq";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// More clauses than this are not looked at.
const MAX_CLAUSES: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Format {
    #[default]
    Json,
    Yaml,
    Protobuf,
    Cbor,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Yaml => YAML,
            Self::Protobuf => PROTOBUF,
            Self::Cbor => CBOR,
        }
    }

    /// The content type of a watch; `None`: the format has no frames.
    pub fn stream_type(self) -> Option<&'static str> {
        match self {
            Self::Json => Some(JSON),
            Self::Yaml => None,
            Self::Protobuf => Some("application/vnd.kubernetes.protobuf;stream=watch"),
            Self::Cbor => Some(CBOR_SEQUENCE),
        }
    }
}

/// What objects are turned into on their way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Shape {
    #[default]
    Object,
    /// The version of `meta.k8s.io`.
    Table(MetaVersion),
    Metadata(MetaVersion),
    MetadataList(MetaVersion),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetaVersion {
    V1,
    V1Beta1,
}

impl MetaVersion {
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Wanted {
    pub format: Format,
    pub shape: Shape,
    pub pretty: bool,
}

/// `collection`: the route also offers watch streams. `protobuf`: whole objects can be written in it. `cbor`: it is served.
pub(crate) fn response(
    headers: &HeaderMap,
    collection: bool,
    protobuf: bool,
    cbor: bool,
) -> Result<Wanted, Failure> {
    let mut values = headers.get_all(ACCEPT).iter();
    let Some(first) = values.next() else {
        return Ok(Wanted::default());
    };
    let more = values.next();
    if more.is_none() && matches!(first.as_bytes(), b"application/json" | b"*/*" | b"") {
        return Ok(Wanted::default());
    }
    let mut text = String::from_utf8_lossy(first.as_bytes()).into_owned();
    for value in more.into_iter().chain(values) {
        text.push(',');
        text.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    choose(&text, collection, protobuf, cbor)
}

/// Like [`response`], falling back to JSON: for errors.
pub(crate) fn format_of_error(headers: &HeaderMap) -> Format {
    response(headers, true, true, false)
        .map(|wanted| wanted.format)
        .unwrap_or_default()
}

fn choose(accept: &str, collection: bool, protobuf: bool, cbor: bool) -> Result<Wanted, Failure> {
    let known = |media: &str| {
        matches!(media, JSON | YAML | PROTOBUF | "*/*" | "")
            || cbor && (media == CBOR || collection && media == CBOR_SEQUENCE)
    };
    if !accept.split(',').any(|clause| known(media_type(clause))) {
        let stream = if collection {
            ", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
        } else {
            ""
        };
        let text = format!(
            "406: Not Acceptable\n\nAvailable representations: {JSON}, {YAML}, {PROTOBUF}{stream}"
        );
        return Err(Failure::Generic(Reason::NotAcceptable, text));
    }
    let mut clauses: Vec<(&str, f32)> = accept
        .split(',')
        .take(MAX_CLAUSES)
        .map(|clause| (clause, quality(clause)))
        .collect();
    clauses.sort_by(|a, b| b.1.total_cmp(&a.1));
    clauses
        .iter()
        .filter(|(_, q)| *q > 0.0)
        .filter(|(clause, _)| known(media_type(clause)) || media_type(clause) == "application/*")
        .find_map(|(clause, _)| accepted(clause, protobuf))
        .ok_or_else(Failure::not_acceptable)
}

fn media_type(clause: &str) -> &str {
    clause.split(';').next().unwrap_or("").trim()
}

fn parameters(clause: &str) -> impl Iterator<Item = (&str, &str)> {
    clause.split(';').skip(1).map(|p| {
        let (key, value) = p.split_once('=').unwrap_or((p, ""));
        (key.trim(), value.trim())
    })
}

fn quality(clause: &str) -> f32 {
    parameters(clause)
        .find(|(key, _)| *key == "q")
        .and_then(|(_, q)| q.parse().ok())
        .unwrap_or(1.0)
}

fn accepted(clause: &str, protobuf: bool) -> Option<Wanted> {
    let format = match media_type(clause) {
        JSON | "application/*" | "*/*" | "" => Format::Json,
        YAML => Format::Yaml,
        PROTOBUF => Format::Protobuf,
        CBOR | CBOR_SEQUENCE => Format::Cbor,
        _ => return None,
    };
    let (mut kind, mut group, mut version, mut pretty) = ("", "", "", false);
    for (key, value) in parameters(clause) {
        match key {
            "as" => kind = value,
            "g" => group = value,
            "v" => version = value,
            "stream" if value != "watch" => return None,
            "pretty" => pretty = value == "1",
            _ => {}
        }
    }
    let shape = if kind.is_empty() {
        Shape::Object
    } else {
        let version = match (group, version) {
            ("meta.k8s.io", "v1") => MetaVersion::V1,
            ("meta.k8s.io", "v1beta1") => MetaVersion::V1Beta1,
            _ => return None,
        };
        match kind {
            "Table" => Shape::Table(version),
            "PartialObjectMetadata" => Shape::Metadata(version),
            "PartialObjectMetadataList" => Shape::MetadataList(version),
            _ => return None,
        }
    };
    match (format, shape) {
        (Format::Protobuf, Shape::Table(_)) => return None,
        (Format::Protobuf, Shape::Object) if !protobuf => return None,
        _ => {}
    }
    Some(Wanted {
        format,
        shape,
        pretty,
    })
}

/// Which version of aggregated discovery is asked for, in the order of preference; `None`: the unaggregated form.
pub(crate) fn aggregated_discovery(headers: &HeaderMap) -> Option<&'static str> {
    let accept = headers.get(ACCEPT)?.to_str().ok()?;
    let mut clauses: Vec<(&str, f32)> = accept
        .split(',')
        .take(MAX_CLAUSES)
        .map(|c| (c, quality(c)))
        .collect();
    clauses.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (clause, _) in clauses {
        if !matches!(media_type(clause), JSON | "*/*") {
            continue;
        }
        let find = |name: &str| {
            parameters(clause)
                .find(|(key, _)| *key == name)
                .map_or("", |(_, value)| value)
        };
        match (find("as"), find("g"), find("v")) {
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => return Some("v2"),
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => return Some("v2beta1"),
            ("", ..) => return None,
            _ => {}
        }
    }
    None
}

/// What a body may be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFormat {
    Json,
    Yaml,
    Protobuf,
    Cbor,
}

/// The format of the body of a create, an update or a delete.
pub(crate) fn body_format(headers: &HeaderMap, cbor: bool) -> Result<BodyFormat, Failure> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(BodyFormat::Json);
    };
    match value.as_bytes() {
        b"application/json" | b"" => return Ok(BodyFormat::Json),
        b"application/vnd.kubernetes.protobuf" => return Ok(BodyFormat::Protobuf),
        b"application/yaml" => return Ok(BodyFormat::Yaml),
        _ => {}
    }
    let text = value.to_str().unwrap_or("");
    let well_formed = text
        .split(';')
        .skip(1)
        .all(|p| p.trim().is_empty() || p.contains('='));
    match media_type(text) {
        PROTOBUF if well_formed => Ok(BodyFormat::Protobuf),
        JSON if well_formed => Ok(BodyFormat::Json),
        YAML if well_formed => Ok(BodyFormat::Yaml),
        CBOR if well_formed && cbor => Ok(BodyFormat::Cbor),
        _ => Err(Failure::unsupported_body()),
    }
}

/// The four patch types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
    ApplyCbor,
}

impl PatchType {
    pub fn is_apply(self) -> bool {
        matches!(self, Self::Apply | Self::ApplyCbor)
    }
}

pub(crate) fn patch_type(headers: &HeaderMap, cbor: bool) -> Result<PatchType, Failure> {
    let text = headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("");
    match media_type(text) {
        "application/json-patch+json" => Ok(PatchType::Json),
        "application/merge-patch+json" => Ok(PatchType::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchType::Strategic),
        "application/apply-patch+yaml" => Ok(PatchType::Apply),
        "application/apply-patch+cbor" if cbor => Ok(PatchType::ApplyCbor),
        _ => Err(Failure::Generic(
            Reason::UnsupportedMediaType,
            "415: Unsupported Media Type".to_owned(),
        )),
    }
}

/// Whether the caller takes gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let Some(value) = headers
        .get(http::header::ACCEPT_ENCODING)
        .and_then(|v| v.to_str().ok())
    else {
        return false;
    };
    value
        .split(',')
        .any(|clause| media_type(clause) == "gzip" && quality(clause) > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts() {
        use {Format::*, MetaVersion::*, Shape::*};
        let check = |accept: &str, expect: Option<(Format, Shape)>| {
            let got = choose(accept, false, false, false)
                .ok()
                .map(|w| (w.format, w.shape));
            assert_eq!(got, expect, "{accept}");
        };
        check("application/json", Some((Json, Object)));
        check("application/yaml, application/json", Some((Yaml, Object)));
        check(
            "application/yaml;q=0.5, application/json",
            Some((Json, Object)),
        );
        check(
            "application/vnd.kubernetes.protobuf,application/json",
            Some((Json, Object)),
        );
        check("application/vnd.kubernetes.protobuf", None);
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            Some((Json, Table(V1))),
        );
        check(
            "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
            Some((Json, Table(V1Beta1))),
        );
        check("application/json;as=Table;v=v9;g=meta.k8s.io", None);
        check(
            "application/json;as=Table;v=v9;g=meta.k8s.io,application/json",
            Some((Json, Object)),
        );
        check(
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Some((Json, MetadataList(V1))),
        );
        check("application/xml, application/json", Some((Json, Object)));
        check("application/*", None);
        check(
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            Some((Protobuf, Metadata(V1))),
        );
        check(
            "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1",
            None,
        );
        let both = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(choose(both, false, true, false).unwrap().format, Protobuf);
        check("*/*;q=0.1", Some((Json, Object)));
        check("image/png", None);
        check("application/json;stream=watch", Some((Json, Object)));
    }

    #[test]
    fn cbor_is_there_for_those_who_serve_it() {
        let cbor = "application/cbor, application/json;q=0.9";
        let format = |collection, served| choose(cbor, collection, false, served).unwrap().format;
        assert_eq!(format(false, true), Format::Cbor);
        assert_eq!(format(false, false), Format::Json);
        assert!(choose("application/cbor", false, false, false).is_err());
        assert!(choose("application/cbor-seq", false, false, true).is_err());
        let sequence = choose("application/cbor-seq", true, false, true).unwrap();
        assert_eq!(sequence.format.stream_type(), Some("application/cbor-seq"));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/cbor".parse().unwrap());
        assert_eq!(body_format(&headers, true).unwrap(), BodyFormat::Cbor);
        assert_eq!(body_format(&headers, false).unwrap_err().code(), 415);
    }

    #[test]
    fn the_two_refusals_read_differently() {
        let text = |accept: &str, collection| {
            choose(accept, collection, true, false)
                .unwrap_err()
                .body()
                .unwrap()["message"]
                .clone()
        };
        assert_eq!(
            text("image/png", false),
            "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
        assert_eq!(
            text("application/json;as=Table;v=v9;g=meta.k8s.io", true),
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
    }

    #[test]
    fn bodies() {
        let check = |content_type: &str, expect: Option<BodyFormat>| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
            assert_eq!(body_format(&headers, false).ok(), expect, "{content_type}");
        };
        check("application/json; charset=utf-8", Some(BodyFormat::Json));
        check("application/yaml", Some(BodyFormat::Yaml));
        check("application/json;foo", None);
        check(
            "application/vnd.kubernetes.protobuf",
            Some(BodyFormat::Protobuf),
        );
        check("bogus", None);
    }
}
