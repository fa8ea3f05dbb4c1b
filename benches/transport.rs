//! The cost of the steps of the transport: nanoseconds of every case of `cases`.
//!
//! In: nothing; out: a table. A step of 44 packets has 12 µs at 50 Gbit/s.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

mod cases;

use std::cell::RefCell;

use divan::Bencher;

fn main() {
    divan::main();
}

// One call at a time: each depends on the previous ones.
#[divan::bench(args = cases::NAMES, sample_size = 1, sample_count = 2000)]
fn steps(bencher: Bencher<'_, '_>, name: &str) {
    let case = RefCell::new(cases::named(name).unwrap());
    bencher
        .with_inputs(|| case.borrow_mut().prepare())
        .bench_local_values(|()| case.borrow_mut().call());
}
