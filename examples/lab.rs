use headwater::sim::path::*;
use headwater::sim::path::tcp::Growth;
use headwater::link::*;
use std::time::Duration;
fn cell(rtt: f64, mbit: f64, bdp: f64, fault: &str) -> (LinkConfig, LinkConfig) {
    let rate = (mbit * 1e6) as u64;
    let d = Duration::from_secs_f64(rtt / 2000.0);
    let q = ((bdp * mbit * 1e6 / 8.0 * rtt / 1e3) as usize).max(3000);
    let mut down = LinkConfig { delay: d, rate: Some(rate), queue_bytes: q, ..Default::default() };
    let mut up = LinkConfig { delay: d, rate: Some(rate), queue_bytes: q.max(100000), ..Default::default() };
    let ppm = |x| Chance::from_ppm(x).unwrap();
    match fault {
        "clean" => {}
        "f0.1" => down.loss = ppm(1000),
        "f1" => down.loss = ppm(10000),
        "r1" => up.loss = ppm(10000),
        "burst" => down.burst = Some(BurstLoss { enter: ppm(1250), leave: ppm(250_000), loss: ppm(1_000_000) }),
        "reorder" => { down.jitter = Duration::from_micros(300); down.jitter_reorders = true; }
        _ => panic!(),
    }
    (down, up)
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let what = a[1].as_str();
    let num = |i: usize| a[i].parse::<f64>().unwrap();
    if what == "trace" { trace(&a); return; }
    if what == "matrix" {
        let filter = a.get(2).cloned().unwrap_or_default();
        for fault in ["clean", "f0.1", "f1", "r1", "burst", "reorder"] {
            for rate in [10.0, 100.0, 1000.0] {
                for rtt in [1.0, 10.0, 40.0, 100.0, 300.0] {
                    for bdp in [0.25, 1.0, 4.0] {
                        let name = format!("{fault}/{rate}/{rtt}/{bdp}");
                        if !name.contains(&filter) || rate * rtt >= 100_000.0 { continue; }
                        let secs = std::env::var("SECS").map_or((rtt * 0.020f64).max(4.0), |s| s.parse().unwrap());
                        let mut out = vec![];
                        let mut note = String::new();
                        for carrier in [Carrier::Tcp(Growth::Cubic), Carrier::Ours] {
                            let mut g = vec![];
                            for seed in 1..=3 {
                                let (down, up) = cell(rtt, rate, bdp, fault);
                                let o = run(&Path { down, up, seed, lasts: Duration::from_secs_f64(secs), flows: vec![FlowPlan { carrier, starts: Duration::ZERO, access: Duration::ZERO, bytes: 1 << 34 }] }).unwrap();
                                g.push(o.flows[0].received as f64 * 8.0 / secs / 1e6 / rate);
                                if seed == 1 && let Some(s) = &o.flows[0].stats { note = format!("lost {} rep {} to {} probes {} {:?} w {} qdrop {} rtt {:?} drops {:?}", s.lost, s.repeated, s.timeouts, s.probes, s.transitions, s.window, o.down.queue, s.rtt_smoothed, s.drops); }
                            }
                            g.sort_by(f64::total_cmp);
                            out.push(g[1]);
                        }
                        println!("{name:22} cubic {:.3} ours {:.3} ratio {:.3}{} {note}", out[0], out[1], out[1] / out[0], if out[1] < 0.95 * out[0] { " LOST" } else { "" });
                    }
                }
            }
        }
    } else if what == "objects" {
        for rtt in [40.0, 100.0] { for bytes in [1000u64, 10_000, 100_000, 1_000_000] {
            let t: Vec<f64> = [Carrier::Tcp(Growth::Cubic), Carrier::Ours, Carrier::OursRemembered].into_iter().map(|carrier| {
                let (down, up) = cell(rtt, num(2), 1.0, "clean");
                let o = run(&Path { down, up, seed: 1, lasts: Duration::from_secs(30), flows: vec![FlowPlan { carrier, starts: Duration::ZERO, access: Duration::ZERO, bytes }] }).unwrap();
                o.flows[0].completed.map_or(f64::NAN, |d| d.as_secs_f64() * 1e3)
            }).collect();
            println!("rtt {rtt} {bytes:8} cubic {:.1} ours {:.1} ({:.3}) remembered {:.1} ({:.3})", t[0], t[1], t[1]/t[0], t[2], t[2]/t[0]);
        }}
    } else if what == "fairstat" {
        for (rate, rtt) in if a.len() > 4 { vec![(100.0, 20.0)] } else { vec![(20.0, 20.0), (20.0, 100.0), (100.0, 20.0), (100.0, 100.0)] } {
            let (down, up) = cell(rtt, rate, 1.0, "clean");
            let mut shares = vec![];
            for seed in 1..=num(2) as u64 {
                let flows = (0..2u64).map(|i| FlowPlan { carrier: if i == 0 && a[3] != "tcp" { Carrier::Ours } else { Carrier::Tcp(Growth::Cubic) }, starts: Duration::from_micros((i * 7919 + seed * 104_729 * (i + 1)) * 7 % 300_000), access: Duration::ZERO, bytes: 1 << 40 }).collect();
                let o = run(&Path { down: down.clone(), up: up.clone(), seed, lasts: Duration::from_secs(60), flows }).unwrap();
                let got: Vec<f64> = o.flows.iter().map(|f| (f.received - f.by_second[10]) as f64).collect();
                shares.push(got[0] / (got[0] + got[1]));
            }
            shares.sort_by(f64::total_cmp);
            println!("{rate}/{rtt}: mean {:.2} {}", shares.iter().sum::<f64>() / shares.len() as f64, shares.iter().map(|s| format!("{s:.2} ")).collect::<String>());
        }
    } else if what == "fair" {
        // fair rate rtt bdp n_ours n_tcp secs [access_ms of half the flows]
        let (down, up) = cell(num(3), num(2), num(4), "clean");
        let (no, nt) = (num(5) as usize, num(6) as usize);
        let mut flows = vec![];
        let acc = a.get(8).map_or(0.0, |x| x.parse().unwrap());
        for i in 0..no + nt { flows.push(FlowPlan { carrier: if i < no { Carrier::Ours } else { Carrier::Tcp(Growth::Cubic) }, starts: Duration::from_millis(137 * (if i % 2 == 0 { i / 2 } else { no + nt - i }) as u64), access: Duration::from_secs_f64(if i % 2 == 1 { acc / 1e3 } else { 0.0 }), bytes: 1 << 40 }); }
        let secs = num(7) as u64;
        for seed in 1..=3 {
        for (i, f) in flows.iter_mut().enumerate() { f.starts = Duration::from_micros((i as u64 * 7919 + seed * 104_729) * 7 % 300_000); } let o = run(&Path { down: down.clone(), up: up.clone(), seed, lasts: Duration::from_secs(secs), flows: flows.clone() }).unwrap();
        let total: u64 = o.flows.iter().map(|f| f.received).sum();
        let ours: u64 = o.flows[..no].iter().map(|f| f.received).sum();
        let sq: f64 = o.flows.iter().map(|f| (f.received as f64).powi(2)).sum();
        if std::env::var("SERIES").is_ok() { for f in &o.flows { println!("{:?} {:?}", f.by_second.windows(2).map(|w| (w[1]-w[0]) * 8 / 100_000).map(|x| x as f64 / 10.0).collect::<Vec<_>>(), f.stats.as_ref().map(|s| s.transitions.clone())); } } println!("ours {:.3} of {:.3} of rate; jain {:.3}; {:?}", ours as f64 / total as f64, total as f64 * 8.0 / secs as f64 / 1e6 / num(2), (total as f64).powi(2) / (no + nt) as f64 / sq, o.flows.iter().map(|f| f.received / 1000000).collect::<Vec<_>>());
        }
    }
}
pub fn trace(a: &[String]) {
    let num = |i: usize| a[i].parse::<f64>().unwrap();
    // trace rtt rate bdp fault bytes steps
    for carrier in [Carrier::Tcp(Growth::Cubic), Carrier::Ours, Carrier::OursRemembered] {
        let mut last = 0;
        for k in 1..=num(7) as u32 {
            let (down, up) = cell(num(2), num(3), num(4), &a[5]);
            let o = run(&Path { down, up, seed: 1, lasts: Duration::from_secs_f64(num(2) / 1e3 * (f64::from(k) + 0.9)), flows: vec![FlowPlan { carrier, starts: Duration::ZERO, access: Duration::ZERO, bytes: num(6) as u64 }] }).unwrap();
            let f = &o.flows[0];
            print!("{}{} ", (f.received - last) / 1442, f.stats.as_ref().map_or(String::new(), |s| format!("(w{} req{} q{} {:?})", s.window, s.requests, o.down.queue, s.transitions.keys().collect::<Vec<_>>())));
            last = f.received;
        }
        println!();
    }
}
