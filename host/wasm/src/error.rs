//! What can go wrong with a guest, by what its owner does next.
//!
//! Invariant: every variant but `Load`, `MissingExport` and `UnknownInterface` leaves the instance dead or, for
//! `LyingAnswer`, untrustworthy: the owner replaces it.

/// A guest's failure.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The bytes are no component that can run here (malformed, too greedy, an import that nobody offers).
    #[error("plugin {plugin} does not load: {message}")]
    Load { plugin: String, message: String },
    /// The component lacks an interface that its use demands.
    #[error("plugin {plugin} does not export {interface}")]
    MissingExport { plugin: String, interface: String },
    /// The component speaks of an interface of ours that this host does not know.
    #[error("plugin {plugin} names the interface {interface}, which this version does not know")]
    UnknownInterface { plugin: String, interface: String },
    /// The guest trapped.
    #[error("plugin {plugin} trapped in {call}: {}", panic.as_deref().unwrap_or(message))]
    Trap {
        plugin: String,
        call: &'static str,
        /// The trap, as the engine words it.
        message: String,
        /// The guest's frames, innermost first.
        backtrace: Vec<String>,
        /// What the guest's panic hook handed over.
        panic: Option<String>,
    },
    /// A call took longer than its limit.
    #[error("plugin {plugin} took longer than {limit_ms} ms in {call}")]
    Deadline {
        plugin: String,
        call: &'static str,
        limit_ms: u64,
        /// Where it was, innermost first.
        backtrace: Vec<String>,
    },
    /// The guest wanted more memory than it may have, and died of it.
    #[error("plugin {plugin} ran out of its {limit_mib} MiB of memory in {call}")]
    Memory {
        plugin: String,
        call: &'static str,
        limit_mib: usize,
        panic: Option<String>,
    },
    /// The guest answered, and the answer cannot be true.
    #[error("plugin {plugin} gave an impossible answer in {call}: {what}")]
    LyingAnswer {
        plugin: String,
        call: &'static str,
        what: String,
    },
    /// The instance trapped before and was not replaced.
    #[error("the instance of plugin {plugin} is dead")]
    Dead { plugin: String },
}

impl Error {
    /// A short word for metrics and conditions.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Load { .. } => "Load",
            Self::MissingExport { .. } => "MissingExport",
            Self::UnknownInterface { .. } => "UnknownInterface",
            Self::Trap { .. } => "Trap",
            Self::Deadline { .. } => "Deadline",
            Self::Memory { .. } => "Memory",
            Self::LyingAnswer { .. } => "LyingAnswer",
            Self::Dead { .. } => "Dead",
        }
    }

    /// Whether the component itself is unfit, whoever instantiates it.
    pub fn is_unfit(&self) -> bool {
        matches!(
            self,
            Self::Load { .. } | Self::MissingExport { .. } | Self::UnknownInterface { .. }
        )
    }

    /// The guest's frames, innermost first; none for most errors.
    pub fn backtrace(&self) -> &[String] {
        match self {
            Self::Trap { backtrace, .. } | Self::Deadline { backtrace, .. } => backtrace,
            _ => &[],
        }
    }
}
