//! Reading and replacing the files of the PKI: whole or not at all, for their owner alone.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use super::{Identity, PkiError};

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> PkiError + '_ {
    move |source| PkiError::Io {
        path: path.to_owned(),
        source,
    }
}

pub(crate) fn make_private_dir(path: &Path) -> Result<(), PkiError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(path).map_err(io_error(path))
}

/// Replaces `path`, readable by the owner alone.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(&temporary).map_err(io_error(&temporary))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(io_error(&temporary))?;
    drop(file);
    fs::rename(&temporary, path).map_err(io_error(path))
}

/// The names of all files in a directory.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>, PkiError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error(dir))? {
        let name = entry.map_err(io_error(dir))?.file_name();
        names.extend(name.into_string());
    }
    Ok(names)
}

pub(crate) fn remove(path: &Path) -> Result<(), PkiError> {
    fs::remove_file(path).map_err(io_error(path))
}

pub(crate) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path)(error)),
    }
}

/// `NAME.crt` and `NAME.key`, if both are there.
pub(super) fn load(dir: &Path, name: &str) -> Result<Option<Identity>, PkiError> {
    let certificate = read(&dir.join(format!("{name}.crt")))?;
    let key = read(&dir.join(format!("{name}.key")))?;
    Ok(certificate
        .zip(key)
        .map(|(certificate_pem, key_pem)| Identity {
            certificate_pem,
            key_pem,
        }))
}

/// The key goes first: a crash in between leaves a pair that does not match, which is made anew.
pub(super) fn store(dir: &Path, name: &str, identity: &Identity) -> Result<(), PkiError> {
    write_private(
        &dir.join(format!("{name}.key")),
        identity.key_pem.as_bytes(),
    )?;
    write_private(
        &dir.join(format!("{name}.crt")),
        identity.certificate_pem.as_bytes(),
    )
}

/// The machine's name, if it can be a name in a certificate.
pub(super) fn host_name() -> Option<String> {
    let text = fs::read_to_string("/etc/hostname").ok()?;
    let name = text.trim().to_ascii_lowercase();
    oarlock_model::selector::is_dns_subdomain(&name).then_some(name)
}
