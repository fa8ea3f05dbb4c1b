//! The design in prose: what no single file of code can say.
//!
//! | page | what it tells |
//! |---|---|
//! | [`architecture`] | what lies where, who may import whom, and the words used |
//! | [`protocol`] | the transport, byte by byte and rule by rule |
//! | [`laws`] | what must hold, which tests hold it, and the breaks they were seen to notice |
//! | [`threats`] | who may attack what, and what holds them |
//! | [`limits`] | every bound, its reason, and what happens at it |
//! | [`performance`] | what a download costs, where the cost lies, and what was tried |
//! | [`deviations`] | where this differs from its models and from RFCs, and why |
//!
//! No code but tests: these hold every dump, table and name on the pages against the program.

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("protocol.md")]
pub mod protocol {}

#[doc = include_str!("laws.md")]
pub mod laws {}

#[doc = include_str!("threats.md")]
pub mod threats {}

#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = include_str!("performance.md")]
pub mod performance {}

#[doc = include_str!("deviations.md")]
pub mod deviations {}

#[cfg(test)]
mod tests;
