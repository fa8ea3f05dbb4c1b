//! The commands that measure: `attack`, `bench`, `load`, `sim` and `sim-path`.

pub mod attack;
pub mod bench;
pub mod load;
pub mod sim;
pub mod sim_path;

use std::ops::ControlFlow;

use crate::host::Machine;
use crate::runtime::Hooks;
use crate::time::Now;

/// Hooks of a loop that ends when the function returns true for the machine.
struct UntilDone<M>(fn(&M) -> bool);

impl<M: Machine> Hooks<M> for UntilDone<M> {
    fn turn(&mut self, _now: Now, machine: &mut M) -> ControlFlow<()> {
        match (self.0)(machine) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}
