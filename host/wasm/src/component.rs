//! A component that has been looked over and linked, ready to be instantiated.
//!
//! Invariant: whatever names an `oarlock:` interface that this host does not know is refused here, before it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};
use wasmtime::component::InstancePre;

use crate::state::GuestState;
use crate::{Engine, Error, Meter};

/// The most bytes that a component may have.
pub const MAX_COMPONENT_BYTES: usize = 64 << 20;

/// An interface that a component may export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExtensionPoint {
    /// `oarlock:scheduler/snapshot`
    Snapshot,
    /// `oarlock:scheduler/placement`
    Placement,
    /// `oarlock:scheduler/queue`
    Queue,
    /// `oarlock:controller/reconciler`
    Reconciler,
    /// `oarlock:admission/policy`
    Policy,
}

impl ExtensionPoint {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Snapshot,
        Self::Placement,
        Self::Queue,
        Self::Reconciler,
        Self::Policy,
    ];

    /// The interface's full name.
    pub fn interface(self) -> &'static str {
        match self {
            Self::Snapshot => "oarlock:scheduler/snapshot@0.1.0",
            Self::Placement => "oarlock:scheduler/placement@0.1.0",
            Self::Queue => "oarlock:scheduler/queue@0.1.0",
            Self::Reconciler => "oarlock:controller/reconciler@0.1.0",
            Self::Policy => "oarlock:admission/policy@0.1.0",
        }
    }

    pub(crate) fn named(interface: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|point| same_interface(point.interface(), interface))
    }
}

/// Interfaces of ours that may be imported (or, with types alone, exported) besides the extension points.
const OTHER_INTERFACES: [&str; 6] = [
    "oarlock:host/log@0.1.0",
    "oarlock:host/clock@0.1.0",
    "oarlock:host/random@0.1.0",
    "oarlock:scheduler/types@0.1.0",
    "oarlock:controller/types@0.1.0",
    "oarlock:controller/objects@0.1.0",
];

/// Whether `given` is `known` (`0.1.x`: the patch number does not matter).
fn same_interface(known: &str, given: &str) -> bool {
    let split = |name: &str| {
        let (path, version) = name.split_once('@')?;
        let (series, patch) = version.rsplit_once('.')?;
        patch
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| (path.to_owned(), series.to_owned()))
    };
    known == given || split(known).is_some_and(|known| Some(known) == split(given))
}

pub(crate) fn is_known(interface: &str) -> bool {
    ExtensionPoint::named(interface).is_some()
        || OTHER_INTERFACES
            .iter()
            .any(|known| same_interface(known, interface))
}

/// A component, compiled and linked. Cheap to clone; all clones share one [`Meter`].
#[derive(Clone)]
pub struct Loaded {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    plugin: Arc<str>,
    digest: [u8; 32],
    size_bytes: usize,
    points: Vec<ExtensionPoint>,
    wasi: bool,
    pre: InstancePre<GuestState>,
    meter: Arc<Meter>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("plugin", &self.name())
            .field("digest", &self.digest())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Compiles (or takes from the cache), looks over and links a component. Takes milliseconds to seconds: not for async threads.
    pub fn load(&self, name: &str, bytes: &[u8]) -> Result<Loaded, Error> {
        let refused = |message: String| Error::Load {
            plugin: name.to_owned(),
            message,
        };
        if bytes.len() > MAX_COMPONENT_BYTES {
            return Err(refused(format!(
                "{} bytes, and at most {MAX_COMPONENT_BYTES} are allowed",
                bytes.len()
            )));
        }
        let component = self
            .component(bytes)
            .map_err(|error| refused(format!("{error:#}")))?;
        let shape = component.component_type();
        let imports = shape.imports(self.raw()).map(|(name, _)| name.to_owned());
        let exports: Vec<String> = shape
            .exports(self.raw())
            .map(|(name, _)| name.to_owned())
            .collect();
        let mut wasi = false;
        for interface in imports.chain(exports.iter().cloned()) {
            wasi |= interface.starts_with("wasi:");
            if interface.starts_with("oarlock:") && !is_known(&interface) {
                return Err(Error::UnknownInterface {
                    plugin: name.to_owned(),
                    interface,
                });
            }
        }
        let mut points: Vec<_> = exports
            .iter()
            .filter_map(|interface| ExtensionPoint::named(interface))
            .collect();
        points.sort_unstable();
        let pre = self
            .linker(wasi)
            .instantiate_pre(&component)
            .map_err(|error| refused(format!("{error:#}")))?;
        Ok(Loaded {
            inner: Arc::new(Inner {
                engine: self.clone(),
                plugin: Arc::from(name),
                digest: Sha256::digest(bytes).into(),
                size_bytes: bytes.len(),
                points,
                wasi,
                pre,
                meter: Arc::default(),
            }),
        })
    }
}

impl Engine {
    /// Loads several components at once, on as many threads as the machine has cores; answers in order.
    pub fn load_all(&self, components: &[(&str, &[u8])]) -> Vec<Result<Loaded, Error>> {
        let threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(components.len());
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            while let Some((at, &(name, bytes))) = Some(next.fetch_add(1, Ordering::Relaxed))
                .and_then(|at| Some((at, components.get(at)?)))
            {
                done.push((at, self.load(name, bytes)));
            }
            done
        };
        let mut loaded: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().expect("loading does not panic"))
                .collect()
        });
        loaded.sort_by_key(|(at, _)| *at);
        loaded.into_iter().map(|(_, result)| result).collect()
    }
}

impl Loaded {
    /// What the host calls it.
    pub fn name(&self) -> &str {
        &self.inner.plugin
    }

    /// `sha256:…` of its bytes.
    pub fn digest(&self) -> String {
        format!("sha256:{}", hex::encode(self.inner.digest))
    }

    /// Size of the component (not of its compiled form).
    pub fn size_bytes(&self) -> usize {
        self.inner.size_bytes
    }

    /// The extension points that it exports.
    pub fn points(&self) -> &[ExtensionPoint] {
        &self.inner.points
    }

    /// Whether it exports this one.
    pub fn has(&self, point: ExtensionPoint) -> bool {
        self.inner.points.contains(&point)
    }

    /// Whether it imports a WASI (and gets one with nothing behind it).
    pub fn imports_wasi(&self) -> bool {
        self.inner.wasi
    }

    /// What all instances of it have cost so far.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.inner.meter
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    pub(crate) fn plugin(&self) -> &Arc<str> {
        &self.inner.plugin
    }

    pub(crate) fn pre(&self) -> &InstancePre<GuestState> {
        &self.inner.pre
    }

    pub(crate) fn demand(&self, point: ExtensionPoint) -> Result<(), Error> {
        if self.has(point) {
            return Ok(());
        }
        Err(Error::MissingExport {
            plugin: self.name().to_owned(),
            interface: point.interface().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_of_ours_are_known_by_series() {
        let check =
            |interface: &str, expect: bool| assert_eq!(is_known(interface), expect, "{interface}");
        check("oarlock:scheduler/placement@0.1.0", true);
        check("oarlock:scheduler/placement@0.1.7", true);
        check("oarlock:scheduler/placement@0.2.0", false);
        check("oarlock:scheduler/placement", false);
        check("oarlock:scheduler/preemption@0.1.0", false);
        check("oarlock:controller/objects@0.1.0", true);
        check("oarlock:host/files@0.1.0", false);
    }
}
