//! The cluster's own public key infrastructure: a CA, a server certificate, an admin certificate and a kubeconfig, made
//! at the first start and reused afterwards.
//!
//! Invariant: a key on disk is readable by its owner alone, and every file is replaced whole (a crash leaves the old or
//! the new one). A leaf that does not fit (other CA, other key, missing name, near its end) is made anew.

pub(crate) mod files;
mod leaf;
pub(crate) mod request;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use leaf::Leaf;

/// The attribute of a subject that carries the user's uid.
/// Source: kubernetes.io/docs/reference/access-authn-authz/authentication (X.509 client certificates).
pub(crate) const UID_OID: [u64; 8] = [1, 3, 6, 1, 4, 1, 57683, 2];

const CA_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 365;
/// A certificate with less time left than this is made anew at start.
const RENEW_BEFORE_DAYS: i64 = 30;
/// Clocks of clients may be behind ours.
const SKEW_DAYS: i64 = 1;
/// The first address of the service network, where the service `kubernetes` lives.
const SERVICE_ADDRESS: &str = "10.0.0.1";
const CLUSTER_NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The operator must make room or set permissions.
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("cannot read {path}: {why}")]
    Read { path: PathBuf, why: String },
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    #[error("tls: cannot trust our own CA: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// A certificate and its key, as PEM texts.
#[derive(Clone)]
pub struct Identity {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// The loaded files. Cheap to share; keys never show in `Debug`.
#[derive(Debug)]
pub struct Pki {
    dir: PathBuf,
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) server: Identity,
    admin: Identity,
    now: Timestamp,
}

/// Loads what is below `dir` (a data directory), makes what is missing or near its end, and writes `dir/kubeconfig`
/// (unless the port is 0: then call [`Pki::write_kubeconfig`] once the address is known).
pub fn ensure(dir: &Path, listen: SocketAddr) -> Result<Pki, PkiError> {
    ensure_at(dir, listen, Timestamp::now())
}

/// [`ensure`] as of `now`.
pub fn ensure_at(dir: &Path, listen: SocketAddr, now: Timestamp) -> Result<Pki, PkiError> {
    let pki_dir = dir.join("pki");
    files::make_private_dir(&pki_dir)?;
    let ca = ensure_ca(&pki_dir, now)?;
    let issuer = Issuer::from_ca_cert_pem(
        &ca.certificate_pem,
        KeyPair::from_pem(&ca.key_pem).map_err(|e| unreadable(&pki_dir.join("ca.key"), e))?,
    )?;
    let authority = leaf::subject_key_id(&ca.certificate_pem);
    let server = ensure_leaf(
        &pki_dir,
        "server",
        &server_leaf(listen),
        &issuer,
        &authority,
        now,
    )?;
    let admin_leaf = Leaf::client("admin", &["system:masters"]);
    let admin = ensure_leaf(&pki_dir, "admin", &admin_leaf, &issuer, &authority, now)?;
    let pki = Pki {
        dir: dir.to_owned(),
        ca_pem: ca.certificate_pem,
        issuer,
        server,
        admin,
        now,
    };
    if listen.port() != 0 {
        pki.write_kubeconfig(&pki.default_kubeconfig(), listen)?;
    }
    Ok(pki)
}

impl Pki {
    /// The CA certificate, as `kube-root-ca.crt` carries it.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub fn admin(&self) -> &Identity {
        &self.admin
    }

    pub fn default_kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// A new client certificate: `user` becomes the user name, `groups` the groups.
    pub fn issue_client(&self, user: &str, groups: &[&str]) -> Result<Identity, PkiError> {
        let key = KeyPair::generate()?;
        let certificate = Leaf::client(user, groups)
            .params(self.now)?
            .signed_by(&key, &self.issuer)?;
        Ok(Identity {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// Writes the admin's kubeconfig for a server at `address` (an unspecified address becomes loopback).
    pub fn write_kubeconfig(&self, path: &Path, address: SocketAddr) -> Result<(), PkiError> {
        files::write_private(path, self.kubeconfig(address).as_bytes())
    }

    pub fn kubeconfig(&self, address: SocketAddr) -> String {
        let data = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
        let (ca, certificate, key) = (
            data(&self.ca_pem),
            data(&self.admin.certificate_pem),
            data(&self.admin.key_pem),
        );
        let server = reachable(address);
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: oarlock\n  cluster:\n    server: https://{server}\n    \
             certificate-authority-data: {ca}\nusers:\n- name: admin\n  user:\n    client-certificate-data: \
             {certificate}\n    client-key-data: {key}\ncontexts:\n- name: oarlock\n  context:\n    cluster: oarlock\n    \
             user: admin\ncurrent-context: oarlock\npreferences: {{}}\n"
        )
    }

    /// What the TLS acceptor uses; ALPN offers HTTP/2 first.
    pub fn tls_config(&self) -> Result<Arc<rustls::ServerConfig>, PkiError> {
        crate::tls::server_config(self)
    }

    pub(crate) fn ca_der(&self) -> Result<CertificateDer<'static>, PkiError> {
        der(&self.dir.join("pki/ca.crt"), &self.ca_pem)
    }

    pub(crate) fn server_chain(&self) -> Result<Vec<CertificateDer<'static>>, PkiError> {
        Ok(vec![der(
            &self.dir.join("pki/server.crt"),
            &self.server.certificate_pem,
        )?])
    }

    pub(crate) fn server_key(&self) -> Result<PrivateKeyDer<'static>, PkiError> {
        PrivateKeyDer::from_pem_slice(self.server.key_pem.as_bytes())
            .map_err(|e| unreadable(&self.dir.join("pki/server.key"), e))
    }
}

fn der(path: &Path, pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| unreadable(path, e))
}

fn unreadable(path: &Path, why: impl std::fmt::Display) -> PkiError {
    PkiError::Read {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn server_leaf(listen: SocketAddr) -> Leaf {
    let mut names: Vec<String> = CLUSTER_NAMES.map(str::to_owned).to_vec();
    for address in ["127.0.0.1", "::1", SERVICE_ADDRESS] {
        names.push(address.to_owned());
    }
    let own = listen.ip().to_string();
    if !listen.ip().is_unspecified() && !names.contains(&own) {
        names.push(own);
    }
    if let Some(host) = files::host_name().filter(|host| !names.contains(host)) {
        names.push(host);
    }
    Leaf {
        user: "kube-apiserver".to_owned(),
        groups: Vec::new(),
        names,
        server: true,
    }
}

fn ensure_ca(dir: &Path, now: Timestamp) -> Result<Identity, PkiError> {
    if let Some(identity) = files::load(dir, "ca")?
        && leaf::fits(
            &identity,
            None,
            &[],
            leaf::days_after(now, RENEW_BEFORE_DAYS),
        )
    {
        return Ok(identity);
    }
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "oarlock-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    leaf::set_validity(&mut params, now, CA_DAYS);
    let certificate = params.self_signed(&key)?;
    let identity = Identity {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    };
    files::store(dir, "ca", &identity)?;
    Ok(identity)
}

fn ensure_leaf(
    dir: &Path,
    name: &str,
    wanted: &Leaf,
    issuer: &Issuer<'static, KeyPair>,
    authority: &[u8],
    now: Timestamp,
) -> Result<Identity, PkiError> {
    if let Some(identity) = files::load(dir, name)?
        && leaf::fits(
            &identity,
            Some(authority),
            &wanted.names,
            leaf::days_after(now, RENEW_BEFORE_DAYS),
        )
    {
        return Ok(identity);
    }
    let key = KeyPair::generate()?;
    let certificate = wanted.params(now)?.signed_by(&key, issuer)?;
    let identity = Identity {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    };
    files::store(dir, name, &identity)?;
    Ok(identity)
}

/// Purposes of a leaf.
fn purpose(server: bool) -> ExtendedKeyUsagePurpose {
    if server {
        ExtendedKeyUsagePurpose::ServerAuth
    } else {
        ExtendedKeyUsagePurpose::ClientAuth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn files_are_reused_until_near_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let listen: SocketAddr = "127.0.0.1:6443".parse().unwrap();
        let first = ensure_at(dir.path(), listen, at("2026-01-01T00:00:00Z")).unwrap();
        let again = ensure_at(dir.path(), listen, at("2026-06-01T00:00:00Z")).unwrap();
        assert_eq!(first.ca_pem, again.ca_pem);
        assert_eq!(first.server.certificate_pem, again.server.certificate_pem);
        let later = ensure_at(dir.path(), listen, at("2026-12-15T00:00:00Z")).unwrap();
        assert_eq!(first.ca_pem, later.ca_pem);
        assert_ne!(first.server.certificate_pem, later.server.certificate_pem);
        assert_ne!(first.admin.certificate_pem, later.admin.certificate_pem);
        let much_later = ensure_at(dir.path(), listen, at("2035-12-20T00:00:00Z")).unwrap();
        assert_ne!(first.ca_pem, much_later.ca_pem);
    }

    #[test]
    fn a_new_listen_address_or_a_foreign_key_makes_a_new_server_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let now = at("2026-01-01T00:00:00Z");
        let first = ensure_at(dir.path(), "127.0.0.1:6443".parse().unwrap(), now).unwrap();
        let moved = ensure_at(dir.path(), "192.0.2.7:6443".parse().unwrap(), now).unwrap();
        assert_ne!(first.server.certificate_pem, moved.server.certificate_pem);
        assert_eq!(first.admin.certificate_pem, moved.admin.certificate_pem);
        std::fs::write(
            dir.path().join("pki/admin.key"),
            KeyPair::generate().unwrap().serialize_pem(),
        )
        .unwrap();
        let healed = ensure_at(dir.path(), "192.0.2.7:6443".parse().unwrap(), now).unwrap();
        assert_ne!(first.admin.certificate_pem, healed.admin.certificate_pem);
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        ensure_at(
            dir.path(),
            "127.0.0.1:6443".parse().unwrap(),
            at("2026-01-01T00:00:00Z"),
        )
        .unwrap();
        for file in [
            "pki/ca.key",
            "pki/server.key",
            "pki/admin.key",
            "kubeconfig",
        ] {
            let mode = std::fs::metadata(dir.path().join(file))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }
}
