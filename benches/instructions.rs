//! Runs one case of `cases` for callgrind, which counts instructions inside `measured` only
//! (`scripts/bench-check.sh`).
//!
//! In: the name of a case, or nothing. Out: the number of measured calls, or the names of all cases.
#![expect(clippy::expect_used, reason = "a benchmark")]

mod cases;

use std::io::{self, Write as _};

use cases::Case;

/// Calls before the measured ones: caches and buffers have their sizes then.
const WARM_UP: u32 = 8;

/// Calls that count.
const CALLS: u32 = 64;

fn main() -> io::Result<()> {
    let mut out = io::stdout();
    let name = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let Some(name) = name else {
        for name in cases::NAMES {
            writeln!(out, "{name}")?;
        }
        return Ok(());
    };
    let mut case = cases::named(&name).expect("a name that is listed without arguments");
    for _ in 0..WARM_UP {
        case.prepare();
        case.call();
    }
    for _ in 0..CALLS {
        case.prepare();
        measured(case.as_mut());
    }
    writeln!(out, "{CALLS}")
}

#[inline(never)]
fn measured(case: &mut dyn Case) {
    case.call();
}
