//! Window curves: the congestion window as a function of the number of acknowledged packets.
//!
//! In: the window `c` at the start of an epoch, its [`Curve`], and `n`, the packets acknowledged
//! since. Out: the window in packets, and the time that an honest client needs to get there. Client
//! and server evaluate these functions independently and must agree exactly, so every result is
//! defined by integers; floating point only provides a first guess for an exact predicate. Never
//! panics, whatever the arguments: they come from the network.
//! Source: RFC 9438 §4 (CUBIC), RFC 5681 §3.1 (slow start).

#[cfg(test)]
mod tests;

/// Largest window of any curve, in packets.
pub const MAX_WINDOW: u32 = 1 << 20;

/// Most packets released by one request: one GSO write of full datagrams.
pub const MAX_FLIGHT: u32 = 44;

/// Smallest RTT of a curve, in microseconds.
pub const MIN_RTT_US: u32 = 1;

/// Largest RTT of a curve, in microseconds.
pub const MAX_RTT_US: u32 = 1_000_000;

/// The growth of the window with the packets acknowledged in an epoch.
///
/// A field out of range counts as the nearest value in range, so that any value is a curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// Grows by one packet for each acknowledged one up to `threshold`, then by CUBIC.
    SlowStart {
        /// Window at which slow start ends, in packets; [`MAX_WINDOW`]: never.
        threshold: u32,
        /// RTT of the CUBIC part, in microseconds, [`MIN_RTT_US`] to [`MAX_RTT_US`].
        rtt_us: u32,
    },
    /// CUBIC with its Reno-friendly region.
    Cubic {
        /// Window of the plateau, in packets; at least the epoch's first window.
        w_max: u32,
        /// RTT at the start of the epoch, in microseconds, [`MIN_RTT_US`] to [`MAX_RTT_US`].
        rtt_us: u32,
    },
}

impl Curve {
    /// The window in packets after `n` acknowledged packets of an epoch with a first window of `c` (1
    /// to [`MAX_WINDOW`]). Exactly `c` for `n` = 0, never decreasing, at most [`MAX_WINDOW`].
    #[must_use]
    pub fn window(&self, c: u32, n: u64) -> u32 {
        match self.phase(c, n) {
            CurvePhase::SlowStart { window } => window,
            CurvePhase::Cubic { cubic, n } => cubic.window(n),
        }
    }

    /// The least time in microseconds in which an honest client acknowledges `n` packets on this
    /// curve; 0 in slow start, where the window itself is the bound. Never decreases with `n`.
    #[must_use]
    pub fn elapsed_us(&self, c: u32, n: u64) -> u64 {
        match self.phase(c, n) {
            CurvePhase::SlowStart { .. } => 0,
            CurvePhase::Cubic { cubic, n } => cubic.elapsed_us(n),
        }
    }

    /// Whether the next acknowledged packet grows the window by slow start.
    #[must_use]
    pub fn in_slow_start(&self, c: u32, n: u64) -> bool {
        matches!(self.phase(c, n), CurvePhase::SlowStart { .. })
    }

    /// The round trip in microseconds, in range.
    #[must_use]
    pub fn rtt_us(&self) -> u32 {
        let (Self::SlowStart { rtt_us, .. } | Self::Cubic { rtt_us, .. }) = *self;
        rtt_us.clamp(MIN_RTT_US, MAX_RTT_US)
    }

    fn phase(&self, c: u32, n: u64) -> CurvePhase {
        let c = c.clamp(1, MAX_WINDOW);
        match *self {
            Self::SlowStart { threshold, rtt_us } => {
                let top = threshold.clamp(c, MAX_WINDOW);
                match u32::try_from(n) {
                    Ok(grown) if grown < top - c => CurvePhase::SlowStart { window: c + grown },
                    _ => CurvePhase::Cubic {
                        cubic: Cubic::new(top, top, rtt_us),
                        n: n.saturating_sub(u64::from(top - c)),
                    },
                }
            }
            Self::Cubic { w_max, rtt_us } => CurvePhase::Cubic {
                cubic: Cubic::new(c, w_max, rtt_us),
                n,
            },
        }
    }
}

/// The part of a curve at a number of acknowledged packets.
enum CurvePhase {
    SlowStart { window: u32 },
    Cubic { cubic: Cubic, n: u64 },
}

/// CUBIC after a window reduction; times are in microseconds since the reduction.
///
/// A sender that implements RFC 9438 §4 with one acknowledgement per packet has the same window within
/// one packet, except where the cubic overtakes the Reno line late: there this curve is ahead for a
/// few seconds (`manual::deviations` has the figures).
///
/// With `d = t − k` the window is `w(t) = w_max + 4d³/10¹⁹`, and its integral from 0 to `t` is
/// `w_max·t + (d⁴ − k⁴)/10¹⁹`. That integral divided by the round trip is the number of packets
/// acknowledged until `t`. Bounds: `k` and `full − k` are at most ∛(2²⁰ · 2.5·10¹⁸) < 1.4·10⁸, so
/// `d⁴` < 4·10³², `w_max·t` < 3·10¹⁴, and all sums below stay under 10³⁴ where an i128 holds 10³⁸.
struct Cubic {
    /// First window, 1 to MAX_WINDOW.
    c: u64,
    /// Plateau, `c` to MAX_WINDOW.
    w_max: u64,
    rtt_us: u64,
    /// Upper bound of the window before the reduction: from there on α is 1 (RFC 9438 §4.3).
    prior: u64,
    /// Packets acknowledged when the Reno line reaches `prior`; below 2⁴⁰.
    at_prior: u64,
    /// Time at which the window is back at the plateau.
    k: u64,
    /// First instant with `w(t) ≥ MAX_WINDOW`.
    full: u64,
}

impl Cubic {
    fn new(c: u32, w_max: u32, rtt_us: u32) -> Self {
        let w_max = w_max.clamp(c, MAX_WINDOW);
        // Rounds K down and the rise up: w(0) = c exactly, w(full) ≥ MAX_WINDOW.
        let k = cube_root(u128::from(w_max - c) * CUBED_US_PER_PACKET);
        let missing = u128::from(MAX_WINDOW - w_max) * CUBED_US_PER_PACKET;
        let rise = missing
            .checked_sub(1)
            .map_or(0, |below| cube_root(below) + 1);
        let (c, w_max) = (u64::from(c), u64::from(w_max));
        let prior = w_max.max(c * 10 / 7).min(u64::from(MAX_WINDOW));
        Self {
            c,
            w_max,
            prior,
            at_prior: (17 * (prior * prior - c * c)).div_ceil(18),
            rtt_us: u64::from(rtt_us.clamp(MIN_RTT_US, MAX_RTT_US)),
            k,
            full: k + rise,
        }
    }

    fn window(&self, n: u64) -> u32 {
        let line = self.reno_line(n);
        let cubic = self.window_at(self.elapsed_on(line, n));
        let window = (line >> LINE_BITS).max(cubic).max(self.c);
        u32::try_from(window).unwrap_or(MAX_WINDOW)
    }

    fn elapsed_us(&self, n: u64) -> u64 {
        self.elapsed_on(self.reno_line(n), n)
    }

    /// The time at which `n` packets are acknowledged: the earlier of the cubic's and the Reno line's.
    fn elapsed_on(&self, line: u64, n: u64) -> u64 {
        self.cubic_elapsed_us(n, self.reno_elapsed_us(line, n))
    }

    /// w(t), held at MAX_WINDOW from `full` on.
    fn window_at(&self, t: u64) -> u64 {
        if t >= self.full {
            return u64::from(MAX_WINDOW);
        }
        let d = i128::from(t) - i128::from(self.k);
        let above = (d * d * d).div_euclid(CUBED_US_PER_PACKET.cast_signed());
        u64::try_from(i128::from(self.w_max) + above).unwrap_or(0)
    }

    /// The greatest `t ≥ 0` at which the integral of the window, held at MAX_WINDOW from `full` on,
    /// is at most `n` round trips; `limit` if that is not below `limit`.
    fn cubic_elapsed_us(&self, n: u64, limit: u64) -> u64 {
        let area = u128::from(n) * u128::from(self.rtt_us);
        let sought = area.min(AREA_CAP).cast_signed();
        let last = limit.min(self.full);
        if self.excess(last, sought) > 0 {
            return greatest(self.guess(sought, last), last, |t| {
                self.excess(t, sought) <= 0
            });
        }
        if limit < self.full {
            return limit;
        }
        let covered = self.excess(self.full, 0).unsigned_abs().div_ceil(AREA_UNIT);
        let beyond = area.saturating_sub(covered) / u128::from(MAX_WINDOW);
        limit.min(self.full.saturating_add(saturate(beyond)))
    }

    /// (Integral of w from 0 to `t` − `area`) · 10¹⁹, for `t ≤ full` and `area ≤ AREA_CAP`.
    /// Increases with `t` by at least c · 10¹⁹ a step, so it has one sign change.
    fn excess(&self, t: u64, area: i128) -> i128 {
        let (t, k) = (i128::from(t), i128::from(self.k));
        let (d2, k2) = ((t - k) * (t - k), k * k);
        (i128::from(self.w_max) * t - area) * AREA_UNIT.cast_signed() + (d2 - k2) * (d2 + k2)
    }

    /// Guesses the root of `excess` in `0..=last`, to within a microsecond or two. `excess` is convex,
    /// so Newton's method from above never overshoots; the three starting bounds are the roots for the
    /// window's minimum and for the quartic alone, and `last`.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only a guess: the cast saturates, and `greatest` accepts any value"
    )]
    fn guess(&self, area: i128, last: u64) -> u64 {
        let (c, w_max, k) = (self.c as f64, self.w_max as f64, self.k as f64);
        let (area, last, unit) = (area as f64, last as f64, AREA_UNIT as f64);
        let k4 = k * k * k * k;
        let mut t = last.min(area / c).min(k + (area * unit + k4).sqrt().sqrt());
        for _ in 0..NEWTON_STEPS {
            let d = t - k;
            let d3 = d * d * d;
            let step = (w_max * t - area + (d3 * d - k4) / unit) / (w_max + 4.0 * d3 / unit);
            t -= step;
            if step < 0.5 {
                break;
            }
        }
        t as u64
    }

    /// The Reno-friendly line √(c² + 2αn) in units of 2^−LINE_BITS packets, rounded down; at most
    /// MAX_WINDOW. α is 9/17, and 1 once the window before the reduction is reached again (RFC 9438
    /// §4.3, β = 0.7).
    fn reno_line(&self, n: u64) -> u64 {
        let n = n.min(self.reno_end());
        let slow = 17 * self.c * self.c + 18 * n.min(self.at_prior);
        let squared = slow + 34 * n.saturating_sub(self.at_prior);
        let line = saturate(((u128::from(squared) << (2 * LINE_BITS)) / 17).isqrt());
        line.min(u64::from(MAX_WINDOW) << LINE_BITS)
    }

    /// The time at which the Reno line, at `line` for `n` and held at MAX_WINDOW from its end on,
    /// acknowledges packet `n`.
    fn reno_elapsed_us(&self, line: u64, n: u64) -> u64 {
        let prior = self.prior << LINE_BITS;
        // Both below 2³⁷ · 2²⁰ · 17 < 2⁶².
        let slow = (line.min(prior) - (self.c << LINE_BITS)) * self.rtt_us * 17 / 9;
        let fast = line.saturating_sub(prior) * self.rtt_us;
        let rising = slow.saturating_add(fast) >> LINE_BITS;
        let beyond = u128::from(n.saturating_sub(self.reno_end())) * u128::from(self.rtt_us);
        rising.saturating_add(saturate(beyond / u128::from(MAX_WINDOW)))
    }

    /// The least `n` at which the Reno line reaches MAX_WINDOW; below 2⁴¹.
    fn reno_end(&self) -> u64 {
        let max = u64::from(MAX_WINDOW);
        self.at_prior + (max * max - self.prior * self.prior).div_ceil(2)
    }
}

/// The greatest `x` in `0..=max` for which `holds`, which is true at 0 and changes at most once.
/// `guess` only affects the speed: two calls if it is right, a few more for each doubling of the
/// distance if it is not.
pub(super) fn greatest(guess: u64, max: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let guess = guess.min(max);
    // `low` holds; `high`, if not max + 1, does not.
    let (mut low, mut high) = (0, max.saturating_add(1));
    let mut step = 1;
    if holds(guess) {
        low = guess;
        while high - low > step {
            if !holds(low + step) {
                high = low + step;
                break;
            }
            low += step;
            step *= 2;
        }
    } else {
        high = guess;
        while high > step {
            if holds(high - step) {
                low = high - step;
                break;
            }
            high -= step;
            step *= 2;
        }
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// ⌊∛x⌋ for `x` < 2⁸⁴.
#[expect(
    clippy::cast_possible_truncation,
    reason = "only a guess: the cast saturates, and `greatest` accepts any value"
)]
fn cube_root(x: u128) -> u64 {
    if x == 0 {
        return 0;
    }
    greatest((x as f64).cbrt() as u64, 1 << 28, |y| {
        u128::from(y).pow(3) <= x
    })
}

fn saturate(x: u128) -> u64 {
    u64::try_from(x).unwrap_or(u64::MAX)
}

/// 1/C in µs³ per packet: RFC 9438 §5 has C = 0.4 packets/s³.
const CUBED_US_PER_PACKET: u128 = 25 * 10_u128.pow(17);

/// 4/C: the integral of C·d³ is d⁴ over this.
const AREA_UNIT: u128 = 4 * CUBED_US_PER_PACKET;

/// More packet·µs than any curve covers before it reaches MAX_WINDOW: `full` < 2.8·10⁸ µs.
const AREA_CAP: u128 = 1 << 49;

/// Fractional bits of the Reno line, so that its time is smooth for small windows.
const LINE_BITS: u32 = 16;

/// Bound of the loop for a first guess, which takes four steps on average and twelve at most.
const NEWTON_STEPS: u32 = 32;
