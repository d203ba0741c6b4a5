//! Compiled code on disk, so that a start does not compile.
//!
//! Invariant: code is loaded only if it was written by this very engine and configuration (its key), is what was written
//! (its digest), and lies in a directory that nobody else may write to. Whatever is wrong with an entry, it is compiled anew.

use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Bytes of the digest that an entry begins with.
const DIGEST_BYTES: usize = 32;
/// Entries of other engines and forgotten plugins are removed when there are more than so many.
const MAX_ENTRIES: usize = 256;

/// A directory of compiled components.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    engine_key: [u8; DIGEST_BYTES],
    next_temporary: AtomicU64,
}

impl Cache {
    /// Opens or makes the directory, and makes it private.
    pub(crate) fn open(dir: &Path, engine: &Engine) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        let metadata = fs::metadata(dir)?;
        let owner = fs::metadata("/proc/self").map_or(metadata.uid(), |me| me.uid());
        if metadata.uid() != owner {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{} belongs to another user", dir.display()),
            ));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        }
        let mut key = KeyHasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut key);
        let cache = Self {
            dir: dir.to_owned(),
            engine_key: key.0.finalize().into(),
            next_temporary: AtomicU64::new(0),
        };
        cache.sweep();
        Ok(cache)
    }

    /// The component with these bytes: from disk, or compiled now and kept.
    pub(crate) fn component(
        &self,
        engine: &Engine,
        bytes: &[u8],
        compile: impl FnOnce() -> wasmtime::Result<Vec<u8>>,
    ) -> wasmtime::Result<Component> {
        let path = self.path(bytes);
        if let Some(component) = self.load(engine, &path) {
            return Ok(component);
        }
        let code = compile()?;
        if let Err(error) = self.store(&path, &code) {
            tracing::warn!(%error, path = %path.display(), "cannot keep compiled code");
        }
        from_code(engine, &code)
    }

    fn path(&self, bytes: &[u8]) -> PathBuf {
        let mut key = Sha256::new();
        key.update(self.engine_key);
        key.update(Sha256::digest(bytes));
        self.dir
            .join(format!("{}.cwasm", hex::encode(key.finalize())))
    }

    fn load(&self, engine: &Engine, path: &Path) -> Option<Component> {
        let entry = fs::read(path).ok()?;
        let (digest, code) = entry.split_at_checked(DIGEST_BYTES)?;
        if digest != Sha256::digest(code).as_slice() {
            tracing::warn!(path = %path.display(), "compiled code is damaged; compiling anew");
            return None;
        }
        // It is what an engine of this version and configuration compiled (both are in the file's name), unchanged since
        // (digest checked on the very bytes that are loaded), in a directory that only this user may write.
        match from_code(engine, code) {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "compiled code does not load; compiling anew");
                None
            }
        }
    }

    fn store(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
        let write = |file: &mut File| {
            file.write_all(&Sha256::digest(code))?;
            file.write_all(code)
        };
        // Renamed when complete, so that a reader never sees half an entry.
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| write(&mut file))
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Bounds the directory: the entries written longest ago go.
    fn sweep(&self) {
        let Ok(listing) = fs::read_dir(&self.dir) else {
            return;
        };
        let mut entries: Vec<_> = listing
            .flatten()
            .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())))
            .collect();
        if entries.len() > MAX_ENTRIES {
            entries.sort();
            for (_, path) in &entries[..entries.len() - MAX_ENTRIES] {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Loads what [`mod@crate::compile`] gave.
#[expect(unsafe_code, reason = "loading precompiled code")]
pub(crate) fn from_code(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: callers pass what this program's compiler wrote, untouched by others; another version's code is refused.
    unsafe { Component::deserialize(engine, code) }
}

/// Feeds `Hash` to SHA-256: the engine's description must not collide by the 64 bits of an ordinary hash.
struct KeyHasher(Sha256);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest
            .iter()
            .take(8)
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }
}
