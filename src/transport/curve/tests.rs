//! Tests of the window curves: pinned values, a slow reference in plain integers, a numeric one,
//! a simulation of RFC 9438 ack by ack, and the laws by random arguments.

use proptest::prelude::*;

use super::*;

const fn cubic(w_max: u32, rtt_us: u32) -> Curve {
    Curve::Cubic { w_max, rtt_us }
}

const fn slow_start(threshold: u32, rtt_us: u32) -> Curve {
    Curve::SlowStart { threshold, rtt_us }
}

/// Name, c, w_max or threshold, rtt, n, W, t. The values were computed with unbounded integers
/// and fractions, in another language.
type Row = (&'static str, u32, u32, u32, u64, u32, u64);

#[rustfmt::skip]
const CUBIC: [Row; 16] = [
    ("start", 70, 100, 40_000, 0, 70, 0),
    ("one packet", 70, 100, 40_000, 1, 70, 570),
    ("Reno-friendly", 7, 10, 20_000, 49, 10, 114_213),
    ("Reno-friendly, at α = 1", 7, 10, 20_000, 96, 13, 192_533),
    ("later", 7, 10, 20_000, 200, 20, 314_771),
    ("concave", 700, 1000, 100_000, 7000, 783, 941_501),
    ("at the plateau", 700, 1000, 100_000, 41_000, 967, 4_745_953),
    ("convex", 700, 1000, 100_000, 100_000, 1001, 10_680_772),
    ("long round trip", 2, 2, 1_000_000, 1000, 396, 9_949_875),
    ("exactly ten seconds", 2, 2, 1_000_000, 1020, 402, 10_000_000),
    ("plateau below the window", 50, 1, 10_000, 5000, 101, 698_653),
    ("shortest round trip", 1000, 1500, 1, 1_000_000, 1434, 821),
    ("largest window", MAX_WINDOW, MAX_WINDOW, 30_000, 1_000_000_000, MAX_WINDOW, 28_610_229),
    ("reaches the largest window", 7000, 10_000, 100_000, 1_000_000_000, MAX_WINDOW, 216_869_091),
    ("held there", 7000, 10_000, 100_000, 1_000_000_000_000, MAX_WINDOW, 95_488_933_300),
    ("last number", 1, 1, 1_000_000, u64::MAX, MAX_WINDOW, 17_592_186_044_519_412_732),
];

#[rustfmt::skip]
const SLOW_START: [Row; 7] = [
    ("start", 10, MAX_WINDOW, 1, 0, 10, 0),
    ("grows by one each", 10, MAX_WINDOW, 50_000, 90, 100, 0),
    ("last of slow start", 10, 64, 50_000, 53, 63, 0),
    ("threshold", 10, 64, 50_000, 54, 64, 0),
    ("CUBIC from the threshold", 10, 64, 50_000, 10_000, 142, 5_118_202),
    ("threshold below the window", 10, 4, 50_000, 100, 14, 409_817),
    ("never beyond the largest", 10, u32::MAX, 50_000, 1 << 21, MAX_WINDOW, 50_000),
];

#[test]
fn pinned_values() {
    let curves = CUBIC.iter().map(|row| (row, cubic(row.2, row.3)));
    let curves = curves.chain(SLOW_START.iter().map(|row| (row, slow_start(row.2, row.3))));
    for ((name, c, _, _, n, window, elapsed), curve) in curves {
        assert_eq!(curve.window(*c, *n), *window, "{name}");
        assert_eq!(curve.elapsed_us(*c, *n), *elapsed, "{name}");
    }
}

#[test]
fn slow_start_ends_one_before_its_threshold() {
    let curve = slow_start(64, 50_000);
    assert!(curve.in_slow_start(10, 53));
    assert!(!curve.in_slow_start(10, 54));
    assert!(!curve.in_slow_start(64, 0));
    assert!(slow_start(u32::MAX, 1).in_slow_start(1, u64::from(MAX_WINDOW) - 2));
    assert!(!slow_start(u32::MAX, 1).in_slow_start(1, u64::from(MAX_WINDOW) - 1));
    assert!(!cubic(100, 50_000).in_slow_start(70, 0));
}

#[test]
fn fields_out_of_range_are_read_as_the_nearest_in_range() {
    for n in [0, 1, 1000, 1 << 30] {
        assert_eq!(
            cubic(100, 0).window(70, n),
            cubic(100, MIN_RTT_US).window(70, n)
        );
        assert_eq!(
            cubic(100, u32::MAX).window(70, n),
            cubic(100, MAX_RTT_US).window(70, n)
        );
        assert_eq!(
            cubic(u32::MAX, 9).window(70, n),
            cubic(MAX_WINDOW, 9).window(70, n)
        );
        assert_eq!(cubic(3, 9).window(70, n), cubic(70, 9).window(70, n));
        assert_eq!(cubic(3, 9).window(0, n), cubic(3, 9).window(1, n));
        assert_eq!(cubic(3, 9).window(u32::MAX, n), MAX_WINDOW);
    }
}

#[test]
fn the_window_is_full_at_the_first_instant_the_cubic_reaches_it() {
    for (c, w_max) in [
        (1, 1),
        (70, 100),
        (7000, MAX_WINDOW - 1),
        (7000, MAX_WINDOW),
    ] {
        let cubic = Cubic::new(c, w_max, 40_000);
        let packets = |d: u64| u128::from(d).pow(3) / CUBED_US_PER_PACKET;
        let (missing, rise) = (u128::from(MAX_WINDOW - w_max), cubic.full - cubic.k);
        assert!(packets(rise) >= missing, "{w_max}");
        assert!(rise == 0 || packets(rise - 1) < missing, "{w_max}");
        assert!(rise == 0 || cubic.window_at(cubic.full - 1) == u64::from(MAX_WINDOW) - 1);
        assert_eq!(cubic.window_at(cubic.full), u64::from(MAX_WINDOW));
    }
}

#[test]
fn numeric_integration_agrees() {
    for (c, w_max, rtt, n) in [
        (70, 100, 40_000, 900_u32),
        (700, 1000, 100_000, 60_000),
        (7000, 7000, 5000, 9_000_000),
    ] {
        // w in packets over seconds, summed until n round trips are covered.
        let k = (f64::from(w_max - c) / 0.4).cbrt();
        let w = |t: f64| 0.4 * (t - k).powi(3) + f64::from(w_max);
        let (step, mut t, mut sum) = (1e-5, 0.0, 0.0);
        let area = f64::from(n) * f64::from(rtt) / 1e6;
        while sum < area {
            sum += w(t + step / 2.0) * step;
            t += step;
        }
        // The line, which grows by α a round trip, the same way: 1 a packet divided by itself.
        let (mut line, mut round_trips) = (f64::from(c), 0.0);
        let prior = f64::from(w_max).max(f64::from(c) / 0.7);
        for _ in 0..n {
            let alpha = if line < prior { 9.0 / 17.0 } else { 1.0 };
            round_trips += 1.0 / line;
            line += alpha / line;
        }
        let t = t.min(round_trips * f64::from(rtt) / 1e6);
        let want = w(t).max(line);
        let got = f64::from(cubic(w_max, rtt).window(c, n.into()));
        assert!(
            (got - want).abs() <= 1.0,
            "c {c}, w_max {w_max}: {got}, not {want}"
        );
    }
}

/// A sender after RFC 9438 §4.2-4.5, ack by ack: packets leave evenly, each is acknowledged one
/// round trip later. α becomes 1 once the window before the reduction is reached again (§4.3).
fn rfc_9438(c: u32, w_max: u32, rtt_us: u32, round_trips: f64) -> Vec<f64> {
    let (w_max, rtt) = (f64::from(w_max), f64::from(rtt_us) / 1e6);
    let k = ((w_max - f64::from(c)) / 0.4).cbrt();
    let w_cubic = |t: f64| 0.4 * (t - k).powi(3) + w_max;
    let prior = w_max.max(f64::from(c) / 0.7);
    let (mut t, mut cwnd, mut estimate) = (0.0, f64::from(c), f64::from(c));
    let mut windows = vec![cwnd];
    while t < round_trips * rtt {
        t += rtt / cwnd;
        let alpha = if estimate < prior { 9.0 / 17.0 } else { 1.0 };
        estimate += alpha / cwnd;
        if w_cubic(t) < estimate {
            cwnd = cwnd.max(estimate);
        } else {
            let target = w_cubic(t + rtt).clamp(cwnd, 1.5 * cwnd);
            cwnd += (target - cwnd) / cwnd;
        }
        windows.push(cwnd);
    }
    windows
}

#[test]
fn a_sender_after_rfc_9438_agrees() {
    for (name, c, w_max, rtt_us, round_trips, tolerance) in [
        ("Reno-friendly", 70, 100, 5000, 20.0, 0.001),
        ("small window, long round trip", 7, 10, 300_000, 20.0, 0.1),
        // Time follows the cubic or the line, whichever is ahead in packets, not the larger window:
        // where the cubic overtakes the line late, W is ahead for a while.
        ("Reno-friendly, then convex", 7, 10, 70_000, 300.0, 0.3),
        ("concave from the start", 70, 100, 40_000, 20.0, 0.001),
        ("concave", 700, 1000, 100_000, 20.0, 0.001),
        ("concave, then convex", 200, 280, 300_000, 40.0, 0.005),
        ("from the plateau on", 300, 300, 50_000, 100.0, 0.001),
        ("large", 70_000, 100_000, 20_000, 20.0, 0.001),
    ] {
        let curve = cubic(w_max, rtt_us);
        for (n, want) in (0..).zip(rfc_9438(c, w_max, rtt_us, round_trips)) {
            let got = f64::from(curve.window(c, n));
            // Rounding may cost one packet.
            let off = ((got - want).abs() - 1.0) / want;
            assert!(off <= tolerance, "{name}: W({n}) = {got}, not {want:.1}");
        }
    }
}

/// Greatest `x` below `end` with `holds`, by bisection alone.
fn bisect(end: i128, holds: impl Fn(i128) -> bool) -> i128 {
    let (mut low, mut high) = (0, end);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if holds(middle) {
            low = middle
        } else {
            high = middle
        }
    }
    low
}

/// Window and time by the definition, without guesses, for `n` before the window is full.
fn reference(c: u32, w_max: u32, rtt_us: u32, n: u64) -> (u32, u64) {
    const UNIT: i128 = 10_000_000_000_000_000_000;
    let (c, w_max, r, n) = (
        i128::from(c),
        i128::from(w_max),
        i128::from(rtt_us),
        i128::from(n),
    );
    let k = bisect(1 << 30, |y| 4 * y.pow(3) <= (w_max - c) * UNIT);
    let cubic = bisect(1 << 28, |t| {
        w_max * t * UNIT + (t - k).pow(4) - k.pow(4) <= n * r * UNIT
    });
    // α is 9/17 up to the window before the reduction, then 1.
    let prior = w_max.max(10 * c / 7).min(i128::from(MAX_WINDOW));
    let slow = bisect(1 << 60, |n| 18 * n < 17 * (prior * prior - c * c)) + 1;
    let slow = if prior == c { 0 } else { slow };
    let squared = 17 * c * c + 18 * n.min(slow) + 34 * (n - slow).max(0);
    let line = bisect(1 << 40, |s| 17 * s * s <= squared << 32);
    let (below, beyond) = (line.min(prior << 16) - (c << 16), line - (prior << 16));
    let reno = (below * r * 17 / 9 + beyond.max(0) * r) >> 16;
    let t = cubic.min(reno);
    let w = w_max + (4 * (t - k).pow(3)).div_euclid(UNIT);
    let window = w.max(line >> 16).max(c).min(i128::from(MAX_WINDOW));
    (u32::try_from(window).unwrap(), u64::try_from(t).unwrap())
}

/// Windows from 1 to the largest, uniform over magnitudes.
fn window() -> impl Strategy<Value = u32> {
    (0..=20_u32, any::<u32>())
        .prop_map(|(bits, low)| (1 << bits) | (low & ((1 << bits) - 1)))
        .prop_map(|window| window.min(MAX_WINDOW))
}

fn rtt() -> impl Strategy<Value = u32> {
    (0..=19_u32, any::<u32>())
        .prop_map(|(bits, low)| (1 << bits) | (low & ((1 << bits) - 1)))
        .prop_map(|rtt| rtt.min(MAX_RTT_US))
}

/// Packet counts, uniform over magnitudes.
fn count() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(n, shift)| n >> shift)
}

fn curve() -> impl Strategy<Value = Curve> {
    (any::<bool>(), window(), rtt()).prop_map(|(slow, w, rtt)| {
        if slow {
            slow_start(w, rtt)
        } else {
            cubic(w, rtt)
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn equals_the_definition(c in window(), above in window(), rtt in rtt(), n in 0..1_u64 << 40) {
        let w_max = c.max(above);
        let (want, elapsed) = reference(c, w_max, rtt, n);
        prop_assert_eq!(cubic(w_max, rtt).window(c, n), want);
        if want < MAX_WINDOW {
            prop_assert_eq!(cubic(w_max, rtt).elapsed_us(c, n), elapsed);
        }
    }

    #[test]
    fn starts_at_c(curve in curve(), c in window()) {
        prop_assert_eq!(curve.window(c, 0), c);
        prop_assert_eq!(curve.elapsed_us(c, 0), 0);
    }

    #[test]
    fn never_decreases_and_stays_in_range(
        curve in curve(), c in window(), n in count(), more in count(),
    ) {
        let later = n.saturating_add(more);
        let (first, second) = (curve.window(c, n), curve.window(c, later));
        prop_assert!(c <= first && first <= second && second <= MAX_WINDOW);
        prop_assert!(curve.elapsed_us(c, n) <= curve.elapsed_us(c, later));
    }

    #[test]
    fn no_argument_panics(fields in any::<[u32; 3]>(), slow in any::<bool>(), n in any::<u64>()) {
        let [c, window, rtt] = fields;
        let curve = if slow { slow_start(window, rtt) } else { cubic(window, rtt) };
        prop_assert!(curve.window(c, n) >= c.clamp(1, MAX_WINDOW));
        let _ = curve.elapsed_us(c, n);
    }

    #[test]
    fn time_goes_on_at_the_largest_window(c in window(), rtt in rtt(), n in 1_u64 << 42..1 << 60) {
        let curve = cubic(MAX_WINDOW, rtt);
        let more = u64::from(MAX_WINDOW) * 10;
        let passed = curve.elapsed_us(c, n + more) - curve.elapsed_us(c, n);
        prop_assert!(passed.abs_diff(u64::from(rtt) * 10) <= 1);
    }

    #[test]
    fn greatest_finds_it_from_any_guess(guess in count(), max in count(), at in count()) {
        prop_assert_eq!(greatest(guess, max, |x| x <= at), at.min(max));
    }

    #[test]
    fn cube_roots_are_exact(x in 0..1_u128 << 84) {
        let y = u128::from(cube_root(x));
        prop_assert!(y.pow(3) <= x && x < (y + 1).pow(3));
    }
}

/// A flight of two must suffice to acknowledge one packet, or nearly. The fastest growth per packet is
/// that of small windows at the longest RTT: after a loss, `c` is ⌊0.7w⌋.
#[test]
fn small_windows_grow_by_at_most_two_a_packet() {
    for w in 2..=200_u32 {
        let c = (w * 7 / 10).max(2);
        let windows: Vec<u32> = (0..2000)
            .map(|n| cubic(w, MAX_RTT_US).window(c, n))
            .collect();
        assert!(windows.is_sorted(), "{w}");
        assert!(windows.windows(2).all(|pair| pair[1] - pair[0] <= 2), "{w}");
    }
}
