//! The commands that measure: `bench`, `load`, `sim` and `sim-path`.

pub mod bench;
pub mod load;
pub mod sim;
pub mod sim_path;
