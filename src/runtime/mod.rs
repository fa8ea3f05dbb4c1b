//! runtime.
pub mod digester;
