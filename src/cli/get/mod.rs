//! `headwater get`.

pub mod output;
