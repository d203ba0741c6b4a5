//! What a request is made of besides its body: paths, queries, headers, tokens, certificates; and files of clients.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oarlock_apiserver::{KeyRing, Pki, ServiceAccounts, fuzzing, pki};
use oarlock_client::http::Kubeconfig;
use oarlock_registry::fuzzing::{continue_token, make_continue_token};
use oarlock_registry::{Config, Registry};
use serde_json::{Value, json};

use super::{both, builtin, json_bytes, nested, now, repeated, said, strings, text, tree};
use crate::Target;

pub const TARGETS: &[Target] = &[
    Target {
        name: "continue",
        tree: false,
        seeds: || {
            vec![
                make_continue_token(12, "pods/ns/a").into_bytes(),
                STANDARD
                    .encode(r#"{"v":"meta.k8s.io/v1","rv":-1,"start":"a\u0000"}"#)
                    .into_bytes(),
                b"bad token".to_vec(),
            ]
        },
        hostile: |bytes| {
            vec![
                repeated("A", bytes).into_bytes(),
                repeated("=", bytes).into_bytes(),
                STANDARD.encode(nested("[", "", "]", bytes)).into_bytes(),
                STANDARD
                    .encode(nested("{\"a\":", "1", "}", bytes))
                    .into_bytes(),
            ]
        },
        words: &["=", "==", "-", "_", "+", "/", "eyJ2", "e30"],
        grow: None,
        run: |input| match continue_token(text(input)) {
            Ok((revision, after)) => Ok(both(revision.is_some().into(), after.len() as u64)),
            Err(error) => Ok(said(&error.message)),
        },
    },
    Target {
        name: "headers",
        tree: false,
        seeds: || {
            strings(&[
                "application/json",
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                "application/vnd.kubernetes.protobuf;q=0.5, */*;q=0.1",
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                "application/yaml; charset=utf-8",
                "application/apply-patch+yaml",
                "application/strategic-merge-patch+json",
                "text/plain;q=NaN",
                "application/json;stream=watch;pretty=1",
            ])
        },
        hostile: |bytes| {
            vec![
                repeated("a/b;q=0.1,", bytes).into_bytes(),
                repeated(";", bytes).into_bytes(),
                repeated(",", bytes).into_bytes(),
            ]
        },
        words: &[
            "application/",
            "json",
            "*/*",
            ";q=",
            "1e9",
            "nan",
            "inf",
            "-1",
            ";as=",
            "Table",
            ",",
            ";",
            "=",
            "charset",
            "stream=watch",
        ],
        grow: None,
        run: |input| {
            let said_of = |told: Option<String>| told.map_or(0, |told| said(&told));
            Ok(both(
                said_of(fuzzing::accept(input)),
                said_of(fuzzing::content_type(input)),
            ))
        },
    },
    Target {
        name: "urls",
        tree: false,
        seeds: || {
            strings(&[
                "/api/v1/namespaces/default/pods/a/log",
                "/apis/apps/v1/watch/deployments",
                "/api/v1/namespaces/%2e%2e/pods/%00",
                "/api/v1/nodes/a/proxy/x/y?z=1",
                "limit=1&continue=abc&labelSelector=a%3Db&fieldSelector=metadata.name%3Dx",
                "resourceVersion=5&resourceVersionMatch=Exact&watch=1&allowWatchBookmarks=true&sendInitialEvents=true&timeoutSeconds=9",
                "dryRun=All&fieldManager=m&fieldValidation=Strict&force=true&gracePeriodSeconds=0&propagationPolicy=Orphan",
            ])
        },
        hostile: |bytes| {
            vec![
                repeated("/", bytes).into_bytes(),
                repeated("%41", bytes).into_bytes(),
                repeated("a=b&", bytes).into_bytes(),
                repeated("&", bytes).into_bytes(),
                format!("fieldManager={}", repeated("%C3%A9", bytes)).into_bytes(),
                format!("labelSelector={}", repeated("a,", bytes)).into_bytes(),
            ]
        },
        words: &[
            "%",
            "%2F",
            "%00",
            "%ff",
            "%C3",
            "+",
            "&",
            "=",
            "?",
            "/",
            "//",
            "..",
            "namespaces",
            "watch",
            "proxy",
            "status",
            "limit=",
            "-1",
            "99999999999999999999",
            "true",
            "dryRun=",
            "fieldManager=",
            "é",
        ],
        grow: None,
        run: |input| {
            let text = text(input);
            let query = text.split_once('?').map_or(text, |(_, query)| query);
            Ok(both(
                said(&fuzzing::path(text)),
                said(&fuzzing::query(query)),
            ))
        },
    },
    Target {
        name: "impersonation",
        tree: true,
        seeds: || {
            json_bytes(&[
                json!([
                    ["impersonate-user", "jane"],
                    ["impersonate-group", "dev"],
                    ["impersonate-uid", "1"],
                    ["impersonate-extra-a%2fb", "c"]
                ]),
                json!([["impersonate-user", "system:serviceaccount:ns:name"]]),
                json!([["impersonate-user", "system:node:n"]]),
                json!([["impersonate-group", "x"]]),
            ])
        },
        hostile: |bytes| json_bytes(&[json!(vec![["impersonate-group", "g"]; bytes / 100])]),
        words: &[
            "impersonate-user",
            "impersonate-group",
            "impersonate-uid",
            "impersonate-extra-",
            "system:",
            "serviceaccount:",
            "node:",
            "%",
            "%2",
            "%zz",
            ":",
        ],
        grow: None,
        run: |input| {
            let Some(Value::Array(parts)) = tree(input) else {
                return Ok(0);
            };
            let pairs = parts
                .iter()
                .filter_map(|p| Some((p.get(0)?.as_str()?, p.get(1)?.as_str()?)));
            let pairs: Vec<_> = pairs.collect();
            Ok(fuzzing::impersonate(&pairs).map_or(1, |told| said(&told)))
        },
    },
    Target {
        name: "jwt",
        tree: false,
        seeds: || {
            let claims = |more: Value| {
                let mut claims = json!({"iss": "https://kubernetes.default.svc", "aud": ["https://kubernetes.default.svc"], "sub": "system:serviceaccount:default:a", "exp": 9_999_999_999_i64, "nbf": 0, "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "a", "uid": "u"}}});
                if let (Value::Object(claims), Value::Object(more)) = (&mut claims, more) {
                    claims.extend(more);
                }
                claims
            };
            let made = [
                json!({}),
                json!({"aud": "x"}),
                json!({"exp": i64::MAX, "nbf": i64::MIN}),
                json!({"exp": i64::MIN}),
                json!({"kubernetes.io": []}),
                json!({"kubernetes.io": {"namespace": "default", "serviceaccount": 5, "pod": {}}}),
            ];
            let made = made
                .into_iter()
                .filter_map(|more| fuzzing::sign_token(&place().accounts, &claims(more)));
            made.map(String::into_bytes)
                .chain(strings(&["a.b.c", "..", "e30.e30.e30"]))
                .collect()
        },
        hostile: |bytes| {
            let part = base64::engine::general_purpose::URL_SAFE_NO_PAD
                .encode(nested("[", "", "]", bytes));
            vec![
                repeated(".", bytes).into_bytes(),
                repeated("a", bytes).into_bytes(),
                format!("{part}.{part}.a").into_bytes(),
            ]
        },
        words: &[".", "e30", "eyJ", "-", "_", "="],
        grow: None,
        run: |input| {
            // Whether it fits is clock and store; neither changes.
            Ok(said(&fuzzing::token(&place().accounts, text(input), now())))
        },
    },
    Target {
        name: "csr",
        tree: false,
        seeds: || {
            request("system:node:a", &["a.example", "10.0.0.1"])
                .into_iter()
                .chain(request("jane", &[]))
                .collect()
        },
        hostile: |bytes| {
            vec![
                repeated("0\u{80}", bytes).into_bytes(),
                vec![0x30; bytes],
                vec![0xa0; bytes],
                vec![0x31; bytes / 2],
            ]
        },
        words: &[
            "0",
            "\u{c}",
            "\u{13}",
            "\u{16}",
            "system:node:a",
            "system:nodes",
        ],
        grow: None,
        run: |input| {
            let pem = |label: &str| {
                let text = STANDARD.encode(input);
                let lines: Vec<&str> = text
                    .as_bytes()
                    .chunks(64)
                    .filter_map(|l| std::str::from_utf8(l).ok())
                    .collect();
                format!(
                    "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
                    lines.join("\n")
                )
            };
            let request = pem("CERTIFICATE REQUEST");
            let usages = ["digital signature", "key encipherment", "client auth"];
            let signed = fuzzing::sign_request(&place().pki, &request, &usages, now());
            let row = super::row("certificates.k8s.io", "CertificateSigningRequest")
                .ok_or("no such kind")?;
            let object = json!({"metadata": {"name": "a"}, "spec": {"request": STANDARD.encode(&request), "signerName": "kubernetes.io/kube-apiserver-client", "usages": usages}});
            let causes = (row.hooks.validate)(&object, None);
            Ok(both(
                said(&signed),
                causes.first().map_or(0, |c| said(&c.message)),
            ))
        },
    },
    Target {
        name: "x509",
        tree: false,
        seeds: || {
            let of = |pem: &str| {
                let text: String = pem.lines().filter(|l| !l.starts_with("--")).collect();
                STANDARD.decode(text).ok()
            };
            let jane = place().pki.issue_client("jane", &["dev", "ops"]);
            [
                of(place().pki.ca_pem()),
                jane.ok().and_then(|jane| of(&jane.certificate_pem)),
            ]
            .into_iter()
            .flatten()
            .collect()
        },
        hostile: |bytes| {
            vec![
                vec![0x30; bytes],
                vec![0xa0; bytes],
                [&[0x30, 0x83, 0x2d, 0xff, 0xff][..], &vec![0x30; bytes]].concat(),
            ]
        },
        words: &[
            "0",
            "\u{c}",
            "\u{13}",
            "jane",
            "\u{6}\u{3}U\u{4}\u{3}",
            "\u{6}\u{3}U\u{4}\u{a}",
        ],
        grow: None,
        run: |input| Ok(said(&fuzzing::certificate(input))),
    },
    Target {
        name: "kubeconfig",
        tree: false,
        seeds: || {
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], 6443));
            vec![
                place().pki.kubeconfig(address).into_bytes(),
                b"apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{name: c, cluster: {server: 'https://x', certificate-authority-data: aGk=}}]\ncontexts: [{name: a, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {client-certificate-data: aGk=, client-key-data: aGk=}}]\n".to_vec(),
            ]
        },
        hostile: |bytes| {
            vec![
                nested("[", "", "]", bytes).into_bytes(),
                format!("clusters: [{}]", repeated("{name: a},", bytes)).into_bytes(),
            ]
        },
        words: &[
            "current-context: ",
            "clusters:",
            "users:",
            "- name: ",
            "cluster: ",
            "client-key-data: ",
            "aGk=",
            "null",
            "[]",
            "{}",
        ],
        grow: None,
        run: |input| match Kubeconfig::parse(text(input), Path::new("/nowhere/config")) {
            Ok(config) => Ok(both(1, config.server.len() as u64)),
            Err(error) => Ok(said(&error.to_string())),
        },
    },
    Target {
        name: "token-file",
        tree: false,
        seeds: || {
            strings(&[
                "token,user,uid,\"a,b\"\nt2,u2,2\n",
                "\"quo\"\"ted\",u,1\n",
                ",u,1\n\n",
                "a,b",
            ])
        },
        hostile: |bytes| {
            vec![
                repeated(",", bytes).into_bytes(),
                repeated("\"", bytes).into_bytes(),
                repeated("a,b,c\n", bytes).into_bytes(),
            ]
        },
        words: &["\"", "\"\"", ",", "\n", "\r\n", "é"],
        grow: None,
        run: |input| Ok(said(&fuzzing::static_tokens(text(input)))),
    },
];

/// A request for a certificate.
fn request(name: &str, names: &[&str]) -> Option<Vec<u8>> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).ok()?;
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    let group = rcgen::DnType::OrganizationName;
    params.distinguished_name.push(group, "system:nodes");
    let key = rcgen::KeyPair::generate().ok()?;
    Some(params.serialize_request(&key).ok()?.der().to_vec())
}

/// A certificate authority and a key ring, made once.
struct Place {
    pki: Pki,
    accounts: Arc<ServiceAccounts>,
    _folder: tempfile::TempDir,
}

fn place() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        make().unwrap_or_else(|error| panic!("the target cannot be set up: {error:#}"))
    })
}

fn make() -> anyhow::Result<Place> {
    let folder = tempfile::tempdir()?;
    let config = Config {
        store: oarlock_store::open(oarlock_store::StoreOptions::memory())?,
        kinds: Arc::new(builtin().clone()),
        admission: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let registry = runtime.block_on(Registry::open(config, now()))?;
    Ok(Place {
        pki: pki::ensure(
            folder.path(),
            std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        )?,
        accounts: ServiceAccounts::new(registry, KeyRing::ensure(folder.path(), now())?),
        _folder: folder,
    })
}
