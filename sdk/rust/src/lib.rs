//! What plugin authors use.
