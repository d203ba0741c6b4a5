//! What a component file is: for `oarlock plugin inspect` and for the author's build.
//!
//! Invariant: looking at a component never runs it.

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, types::ComponentItem};

use crate::component::is_known;
use crate::{Engine, EngineConfig, Error, ExtensionPoint};

/// An interface that a component imports or exports.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// `oarlock:scheduler/placement@0.1.0`
    pub name: String,
    /// Its functions, as the component has them.
    pub functions: Vec<String>,
    /// Who stands behind it.
    pub standing: Standing,
}

/// What this host knows of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// Part of the contract.
    Contract,
    /// WASI: imported by a language's runtime; there is nothing behind it but a clock and randomness.
    Wasi,
    /// Nobody's: the component will be refused.
    Unknown,
}

/// What a component file is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// `sha256:…` of the file.
    pub digest: String,
    /// Bytes of the file.
    pub size_bytes: usize,
    /// What it needs.
    pub imports: Vec<Interface>,
    /// What it offers.
    pub exports: Vec<Interface>,
    /// The full names of the extension points among its exports.
    pub extension_points: Vec<&'static str>,
    /// Why this host would refuse it; none if it loads.
    pub refused: Option<String>,
}

impl Inspection {
    /// Whether it can be used as a scheduling plugin.
    pub fn is_scheduler(&self) -> bool {
        [ExtensionPoint::Snapshot, ExtensionPoint::Placement]
            .iter()
            .all(|p| self.extension_points.contains(&p.interface()))
    }

    /// Whether it can be used as a controller.
    pub fn is_controller(&self) -> bool {
        self.extension_points
            .contains(&ExtensionPoint::Reconciler.interface())
    }

    /// Whether it can be used as an admission policy.
    pub fn is_admission(&self) -> bool {
        self.extension_points
            .contains(&ExtensionPoint::Policy.interface())
    }
}

impl std::fmt::Display for Inspection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [
            (self.is_scheduler(), "scheduling plugins"),
            (self.is_controller(), "a controller"),
            (self.is_admission(), "an admission policy"),
        ];
        let parts: Vec<_> = parts
            .iter()
            .filter(|(has, _)| *has)
            .map(|(_, what)| *what)
            .collect();
        let what = match parts.as_slice() {
            [] => "nothing that Oarlock knows".to_owned(),
            parts => parts.join(" and "),
        };
        writeln!(f, "Contains:         {what}")?;
        writeln!(f, "Digest:           {}", self.digest)?;
        writeln!(f, "Size:             {} bytes", self.size_bytes)?;
        writeln!(
            f,
            "Loads:            {}",
            self.refused.as_deref().unwrap_or("yes")
        )?;
        let points = if self.extension_points.is_empty() {
            "none".to_owned()
        } else {
            self.extension_points.join(", ")
        };
        writeln!(f, "Extension points: {points}")?;
        for (title, interfaces) in [("Imports", &self.imports), ("Exports", &self.exports)] {
            writeln!(
                f,
                "{title}:{}",
                if interfaces.is_empty() { " none" } else { "" }
            )?;
            for interface in interfaces {
                let remark = match interface.standing {
                    Standing::Contract => "",
                    Standing::Wasi => "  (WASI: a clock and randomness, nothing else)",
                    Standing::Unknown => "  (unknown)",
                };
                writeln!(f, "  {}{remark}", interface.name)?;
                if !interface.functions.is_empty() && interface.standing != Standing::Wasi {
                    writeln!(f, "    {}", interface.functions.join(", "))?;
                }
            }
        }
        Ok(())
    }
}

/// Looks at a component. Fails only if the bytes are no component at all.
pub fn inspect(name: &str, bytes: &[u8]) -> Result<Inspection, Error> {
    let engine = Engine::new(EngineConfig {
        max_instances: 1,
        ..EngineConfig::default()
    })?;
    let component = Component::from_binary(engine.raw(), bytes).map_err(|error| Error::Load {
        plugin: name.to_owned(),
        message: format!("{error:#}"),
    })?;
    let shape = component.component_type();
    let interface = |(name, item): (&str, ComponentItem)| {
        let functions = match &item {
            ComponentItem::ComponentInstance(instance) => instance
                .exports(engine.raw())
                .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)))
                .map(|(name, _)| name.to_owned())
                .collect(),
            _ => Vec::new(),
        };
        let standing = match name {
            name if name.starts_with("wasi:") => Standing::Wasi,
            name if is_known(name) => Standing::Contract,
            _ => Standing::Unknown,
        };
        Interface {
            name: name.to_owned(),
            functions,
            standing,
        }
    };
    let imports: Vec<_> = shape
        .imports(engine.raw())
        .map(|(name, item)| interface((name, item.ty)))
        .collect();
    let exports: Vec<_> = shape
        .exports(engine.raw())
        .map(|(name, item)| interface((name, item.ty)))
        .collect();
    let extension_points = ExtensionPoint::ALL
        .into_iter()
        .filter(|point| {
            exports
                .iter()
                .any(|export| ExtensionPoint::named(&export.name) == Some(*point))
        })
        .map(ExtensionPoint::interface)
        .collect();
    Ok(Inspection {
        digest: format!("sha256:{}", hex::encode(Sha256::digest(bytes))),
        size_bytes: bytes.len(),
        imports,
        exports,
        extension_points,
        refused: engine
            .load(name, bytes)
            .err()
            .map(|error| error.to_string()),
    })
}
