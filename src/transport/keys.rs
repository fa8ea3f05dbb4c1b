//! The key ring: cluster keys by generation.

/// Cluster keys by generation; `staged` and `retiring` only open, `active` also seals.
#[derive(Clone)]
pub struct KeyRing {}
