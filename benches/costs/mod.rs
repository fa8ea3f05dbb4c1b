//! Times of calls, and files to make such calls on.

use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The time of each call of one case.
#[derive(Default)]
pub(crate) struct Costs(Vec<Duration>);

impl Costs {
    /// Takes the time of a call.
    pub(crate) fn push(&mut self, cost: Duration) {
        self.0.push(cost);
    }

    /// Prints the number of calls with `unit`, the median, the 99th percentile and the maximum, and
    /// forgets them.
    pub(crate) fn report(&mut self, name: &str, unit: &str) {
        self.0.sort_unstable();
        let last = self.0.len() - 1;
        let micros = |part: usize| self.0[last * part / 100].as_nanos() as f64 / 1000.0;
        println!(
            "{name:<44} {:>7} {unit}  median {:>7.1}  p99 {:>7.1}  max {:>8.1} us",
            self.0.len(),
            micros(50),
            micros(99),
            micros(100)
        );
        self.0.clear();
    }
}

/// Writes a file that has been at rest for long.
pub(crate) fn write(root: &Path, name: &str, content: &[u8]) {
    let path = root.join(name);
    fs::write(&path, content).unwrap();
    let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(9));
    let file = File::options().write(true).open(path).unwrap();
    file.set_times(times).unwrap();
}
