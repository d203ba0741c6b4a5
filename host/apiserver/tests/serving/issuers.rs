//! Users of another issuer: a real HTTPS server on loopback serves its documents; its tokens open the door, and no others.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use oarlock_apiserver::{Access, AuthenticationConfig, OidcFlags, OidcIssuer};
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use crate::harness::{Client, DEADLINE, TestServer};

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
}

fn part(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Pair {
    /// A key made for this test alone.
    fn rsa() -> Self {
        let pem = include_str!("issuer_rsa.pem");
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        Self::Rsa(Box::new(
            RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap(),
        ))
    }

    fn ec() -> Self {
        let (how, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
        Self::Ec(Box::new(
            EcdsaKeyPair::from_pkcs8(how, pkcs8.as_ref(), &random).unwrap(),
        ))
    }

    fn public(&self, id: &str) -> Value {
        match self {
            Self::Rsa(pair) => {
                let key = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "use": "sig", "kid": id, "n": part(key.n), "e": part(key.e)})
            }
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": id, "x": part(&point[1..33]), "y": part(&point[33..])})
            }
        }
    }

    fn token(&self, id: &str, claims: &Value) -> String {
        let algorithm = match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
        };
        let header = json!({"alg": algorithm, "kid": id, "typ": "JWT"});
        let signed = format!("{}.{}", part(header.to_string()), part(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(
                    &RSA_PKCS1_SHA256,
                    &random,
                    signed.as_bytes(),
                    &mut signature,
                )
                .unwrap();
                signature
            }
            Self::Ec(pair) => pair
                .sign(&random, signed.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec(),
        };
        format!("{signed}.{}", part(signature))
    }
}

struct Issuer {
    url: String,
    ca_pem: String,
    keys: Arc<Mutex<Vec<Value>>>,
    fetched: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start() -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let ca_pem = certified.cert.pem();
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()],
                PrivateKeyDer::Pkcs8(key),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let keys = Arc::new(Mutex::new(Vec::new()));
        let fetched = Arc::new(AtomicUsize::default());
        let (own, served, count) = (url.clone(), Arc::clone(&keys), Arc::clone(&fetched));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let (own, served, count) = (own.clone(), Arc::clone(&served), Arc::clone(&count));
                let answer = service_fn(move |request: Request<Incoming>| {
                    let body = match request.uri().path() {
                        "/.well-known/openid-configuration" => {
                            json!({"issuer": own, "jwks_uri": format!("{own}/keys")})
                        }
                        "/keys" => {
                            count.fetch_add(1, Ordering::SeqCst);
                            json!({"keys": *served.lock()})
                        }
                        _ => Value::Null,
                    };
                    let body = Full::new(Bytes::from(body.to_string()));
                    async move { Ok::<_, Infallible>(Response::new(body)) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(stream), answer));
            }
        });
        Self {
            url,
            ca_pem,
            keys,
            fetched,
        }
    }

    fn claims(&self, more: &Value) -> Value {
        let now = jiff::Timestamp::now().as_second();
        let mut claims = json!({"iss": self.url, "aud": "oarlock", "exp": now + 300, "iat": now});
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }
}

async fn ready(issuer: &OidcIssuer) {
    let wait = async {
        while !issuer.is_ready() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap();
}

async fn who(client: &mut Client, token: &str) -> Value {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (status, _, body) = client.call(Method::POST, path, &headers, "{}").await;
    if status == StatusCode::UNAUTHORIZED {
        return Value::Null;
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    body["status"]["userInfo"].clone()
}

async fn why(admin: &mut Client, token: &str) -> String {
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (_, body) = admin.create(path, &json!({"spec": {"token": token}})).await;
    body["status"]["error"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn an_issuers_tokens_open_the_door() {
    let issuer = Issuer::start().await;
    let rsa = Pair::rsa();
    issuer.keys.lock().push(rsa.public("one"));
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, &issuer.ca_pem).unwrap();
    let flags = OidcFlags {
        issuer_url: issuer.url.clone(),
        client_id: "oarlock".to_owned(),
        username_claim: "email".to_owned(),
        groups_claim: "groups".to_owned(),
        groups_prefix: "oidc:".to_owned(),
        ca_file: Some(ca_file),
        required_claims: vec!["hd=example.com".to_owned()],
        signing_algs: vec!["RS256".to_owned(), "ES256".to_owned()],
        ..OidcFlags::default()
    };
    let believed = OidcIssuer::start(flags.issuer().unwrap().unwrap()).unwrap();
    ready(&believed).await;
    let mut access = Access::default();
    access.tokens.push(believed);
    let server = TestServer::with_access(access).await;
    let mut stranger = Client::connect(&server, None, true).await;
    let mut admin = server.admin(true).await;
    let jane = json!({"email": "jane@example.com", "email_verified": true, "groups": ["dev"], "hd": "example.com"});
    let token = rsa.token("one", &issuer.claims(&jane));
    let expected =
        json!({"username": "jane@example.com", "groups": ["oidc:dev", "system:authenticated"]});
    for _ in 0..2 {
        assert_eq!(who(&mut stranger, &token).await, expected);
    }

    let mut elsewhere = issuer.claims(&jane);
    elsewhere["aud"] = json!("elsewhere");
    let token = rsa.token("one", &elsewhere);
    assert_eq!(who(&mut stranger, &token).await, Value::Null);
    assert_eq!(
        why(&mut admin, &token).await,
        r#"[invalid bearer token, oidc: verify token: oidc: expected audience "oarlock" got ["elsewhere"]]"#
    );
    let mut old = issuer.claims(&jane);
    old["exp"] = json!(100);
    assert_eq!(
        why(&mut admin, &rsa.token("one", &old)).await,
        "[invalid bearer token, oidc: verify token: oidc: token is expired (Token Expiry: 1970-01-01 00:01:40 +0000 UTC)]"
    );
    let unverified =
        json!({"email": "j@example.com", "email_verified": false, "hd": "example.com"});
    assert_eq!(
        why(&mut admin, &rsa.token("one", &issuer.claims(&unverified))).await,
        "[invalid bearer token, oidc: email not verified]"
    );

    // A key that the issuer has not shown yet, and then does.
    let ec = Pair::ec();
    let token = ec.token("two", &issuer.claims(&jane));
    assert_eq!(
        why(&mut admin, &token).await,
        "[invalid bearer token, oidc: verify token: failed to verify signature: failed to verify id token signature]"
    );
    issuer.keys.lock().push(ec.public("two"));
    let wait = async {
        while who(&mut stranger, &token).await != expected {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap();

    // Keys that nobody knows do not make us ask the issuer each time.
    let before = issuer.fetched.load(Ordering::SeqCst);
    for _ in 0..20 {
        let token = ec.token("three", &issuer.claims(&jane));
        assert_eq!(who(&mut stranger, &token).await, Value::Null);
    }
    assert!(issuer.fetched.load(Ordering::SeqCst) <= before + 3);
    // A known key's id on another's signature asks nobody.
    let forged = Pair::ec().token("two", &issuer.claims(&jane));
    assert_eq!(who(&mut stranger, &forged).await, Value::Null);
}

#[tokio::test]
async fn a_file_says_what_claims_mean() {
    let issuer = Issuer::start().await;
    let ec = Pair::ec();
    issuer.keys.lock().push(ec.public("k"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let config = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {"url": issuer.url, "audiences": ["oarlock", "other"], "audienceMatchPolicy": "MatchAny",
                "certificateAuthority": issuer.ca_pem},
            "claimMappings": {
                "username": {"expression": "'jwt:' + claims.sub"},
                "groups": {"expression": "claims.roles.map(r, 'role:' + r)"},
                "uid": {"claim": "id"},
                "extra": [{"key": "example.com/tenant", "valueExpression": "claims.tenant"}],
            },
            "claimValidationRules": [{"expression": "claims.exp - claims.iat <= 600", "message": "lives too long"}],
            "userValidationRules": [{"expression": "!('role:root' in user.groups)", "message": "no root"}],
        }],
        "anonymous": {"enabled": true, "conditions": [{"path": "/metrics"}]},
    });
    std::fs::write(&file, config.to_string()).unwrap();
    let config = AuthenticationConfig::read(&file).unwrap();
    let mut access = Access::default();
    (access.anonymous, access.anonymous_paths) = config.anonymous.unwrap();
    for jwt in config.jwt {
        let believed = OidcIssuer::start(jwt).unwrap();
        ready(&believed).await;
        access.tokens.push(believed);
    }
    let server = TestServer::with_access(access).await;
    let mut stranger = Client::connect(&server, None, true).await;
    let mut admin = server.admin(true).await;
    let claims = |more: Value| {
        let mut claims =
            issuer.claims(&json!({"sub": "jane", "id": "7", "tenant": "t", "roles": ["dev"]}));
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    assert_eq!(
        who(&mut stranger, &ec.token("k", &claims(json!({})))).await,
        json!({"username": "jwt:jane", "uid": "7", "groups": ["role:dev", "system:authenticated"],
            "extra": {"example.com/tenant": ["t"]}})
    );
    let iat = claims(json!({}))["iat"].as_i64().unwrap();
    for (more, expect) in [
        (
            json!({"exp": iat + 1000}),
            "oidc: error evaluating claim validation expression: validation expression 'claims.exp - claims.iat <= 600' failed: lives too long",
        ),
        (
            json!({"roles": ["root"]}),
            "oidc: error evaluating user info validation rule: validation expression '!('role:root' in user.groups)' failed: no root",
        ),
        (
            json!({"aud": "third"}),
            r#"oidc: verify token: oidc: expected audience in ["oarlock" "other"] got ["third"]"#,
        ),
    ] {
        assert_eq!(
            why(&mut admin, &ec.token("k", &claims(more))).await,
            format!("[invalid bearer token, {expect}]")
        );
    }
    // Without a token: where the file lets everybody in, as nobody in particular.
    let (status, body) = stranger.get("/metrics").await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{body}");
    let (status, _) = stranger.get("/api/v1/pods").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}
