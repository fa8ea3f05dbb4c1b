//! The manual: how to use the programs, and the design in prose.
//!
//! | page | content |
//! |---|---|
//! | [`guide`] | servers and clients: objects, devices, several cores, the cache, keys, metrics |
//! | [`redirector`] | several servers for one address: redirectors, draining, anycast |
//! | [`testbed`] | network namespaces and emulated links on one machine |
//! | [`measuring`] | comparisons and benchmarks, with their output |
//! | [`reference`](mod@reference) | options, exit codes, metrics |
//! | [`architecture`] | folders, imports, and the glossary |
//! | [`protocol`] | the transport, byte by byte and rule by rule |
//! | [`laws`] | invariants, the tests that check them, and the faults that those tests detected |
//! | [`threats`] | attackers, their means, and the defences |
//! | [`limits`] | every bound, its reason, and the behaviour at it |
//! | [`performance`] | the cost of a download, its distribution, and the experiments |
//! | [`deviations`] | differences from the models and from RFCs, and their reasons |
//!
//! The only code here is tests, which compare every dump, table and name on the pages with the program.

#[doc = include_str!("guide.md")]
pub mod guide {}

#[doc = include_str!("redirector.md")]
pub mod redirector {}

#[doc = include_str!("testbed.md")]
pub mod testbed {}

#[doc = include_str!("measuring.md")]
pub mod measuring {}

#[doc = include_str!("reference.md")]
pub mod reference {}

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
