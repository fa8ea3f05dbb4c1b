//! The cost of the file server for the loop: the time of each call for the most expensive requests, while
//! threads do the work. Prints the median, the 99th percentile and the maximum of the calls of each case,
//! and how often a request had to wait. A datagram makes one such call, or two.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark stops at the first surprise"
)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    reason = "a benchmark measures time, and prints it"
)]

mod costs;

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use costs::{Costs, write};
use headwater::internals::apps::origin::Origin;
use headwater::internals::time::UnixMillis;
use headwater::internals::wire::payload::Gathered;
use headwater::{Application, Begun, RequestContext, StreamPart, ThreadWorkers, Unavailable};

/// Stream bytes of the largest flight.
const FLIGHT: usize = 44 * 1442;

/// Repetitions of each case.
const ROUNDS: usize = 200;

struct Bench {
    origin: Origin,
    now: u64,
    costs: Costs,
    waits: usize,
}

impl Bench {
    fn context(&mut self) -> RequestContext {
        self.now += 1;
        RequestContext {
            now: UnixMillis::new(self.now),
            proven: true,
            source: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        }
    }

    /// Makes a call until it need not wait, and records the time of each.
    fn call<T>(
        &mut self,
        mut call: impl FnMut(&mut Origin, RequestContext) -> Result<T, Unavailable>,
    ) -> Option<T> {
        for _ in 0..10_000 {
            let context = self.context();
            let start = Instant::now();
            let result = call(&mut self.origin, context);
            self.costs.push(start.elapsed());
            match result {
                Ok(value) => return Some(value),
                Err(Unavailable::Changed) => return None,
                Err(Unavailable::NotReady(_)) => self.wait(),
            }
        }
        panic!("no answer");
    }

    fn wait(&mut self) {
        self.waits += 1;
        for _ in 0..10_000 {
            if self.origin.poll_ready().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn begin(&mut self, path: &str) -> Begun {
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        let begun = self.call(|origin, context| origin.begin(context, request.as_bytes()));
        begun.unwrap()
    }

    fn stage(&mut self, begun: &Begun, offset: u64) {
        let mut body = Gathered::default();
        self.call(|origin, context| {
            body.clear();
            origin.stage(
                StreamPart::new(context, &begun.user, offset),
                FLIGHT,
                &mut body,
            )
        });
    }

    /// Reads a whole stream, flight by flight.
    fn read(&mut self, begun: &Begun) {
        let length = begun.length.unwrap();
        for offset in (0..length).step_by(FLIGHT) {
            self.stage(begun, offset);
        }
    }

    fn report(&mut self, name: &str) {
        let unit = format!("calls {:>6} waits", self.waits);
        self.costs.report(name, &unit);
        self.waits = 0;
    }
}

fn make(root: &Path) {
    let large = vec![7; 16 << 20];
    for index in 0..40 {
        write(root, &format!("large{index}"), &large[..(16 << 20) - index]);
    }
    for index in 0..ROUNDS {
        write(root, &format!("small{index}"), &large[..65_000]);
    }
    fs::create_dir(root.join("many")).unwrap();
    for index in 0..20_000 {
        File::create(root.join(format!("many/file{index}"))).unwrap();
    }
    write(root, "line.txt", &large);
    let image = [b"P5 4096 4096 255\n".to_vec(), large.clone()].concat();
    write(root, "image.pgm", &image);
    write(root, "cold", &vec![8; 256 << 20]);
}

fn main() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let root = folder.path();
    make(root);
    let workers = ThreadWorkers::start(root, None).unwrap();
    let mut bench = Bench {
        origin: Origin::new(root, Box::new(workers)).unwrap(),
        now: 0,
        costs: Costs::default(),
        waits: 0,
    };
    for index in 0..40 {
        bench.begin(&format!("/large{index}"));
    }
    bench.report("begin: files of 16 MiB, never seen");
    for index in 0..ROUNDS {
        bench.begin(&format!("/small{index}"));
    }
    bench.report("begin: files of 65 kB, never seen");
    for _ in 0..ROUNDS {
        bench.begin("/small7");
    }
    bench.report("begin: a known file");
    for index in 0..ROUNDS {
        if index % 10 == 0 {
            File::create(root.join(format!("many/more{index}"))).unwrap();
        }
        bench.begin("/many/");
    }
    bench.report("begin: a directory of 20,000 that changes");
    for seed in 0..ROUNDS {
        let begun = bench.begin(&format!("/.dynamic/{seed}/10000000/262143"));
        bench.stage(&begun, 1000);
    }
    bench.report("begin and flight: new periods of 256 KiB");
    for (name, path) in [
        ("flights: a large file", "/large3"),
        ("flights: generated bytes", "/.dynamic/1/16000000"),
        (
            "flights: a marked text without lines",
            "/.watermark/m/line.txt",
        ),
        ("flights: a marked image", "/.watermark/m/image.pgm"),
    ] {
        let begun = bench.begin(path);
        bench.report(&format!("begin: {path}"));
        bench.read(&begun);
        bench.report(name);
    }
    let cold = File::open(root.join("cold")).unwrap();
    cold.sync_all().unwrap();
    // The digest of the thread ahead may be reading it: until that has ended the file is not cold.
    std::thread::sleep(Duration::from_secs(2));
    rustix::fs::fadvise(&cold, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let begun = bench.begin("/cold");
    let start = Instant::now();
    bench.read(&begun);
    let rate = 256.0 / start.elapsed().as_secs_f64();
    bench.report(&format!("flights: a cold file, at {rate:.0} MiB/s"));
}
