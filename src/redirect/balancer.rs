//! The load balancing policies.
//!
//! In: the candidates, with weights, sites and loads, whenever they change; a [`Flow`] and its
//! source per packet. Out: a candidate. Nothing is stored per flow. Choices by rendezvous, and by
//! site, are functions of packet and candidates: every redirector with the same file and the same
//! view makes the same ones, and adding or removing a candidate moves only the flows it gains or
//! loses. Sticky flows ([`Flow::sticky`]) are always placed by rendezvous.
//!
//! `least-loaded` moves weights rather than comparing loads per packet: reports are some heartbeats
//! old, and until the next one "the less loaded of two at random" sends the idlest of eight
//! backends 15 times as many packets as the busiest, and then the other way round. In the
//! simulation below it keeps the busiest at 1.7 times the mean; weights, within a percent of it. A
//! load includes the queue on the path to a backend, and grows as its answers lag behind
//! ([`Membership::load`](super::membership::Membership::load)): a backend that serves nothing looks
//! busy, not idle.
//!
//! Sources: Thaler and Ravishankar (1998); Schindelhauer and Schomaker (2005): weights as rates of
//! exponential variables; Mitzenmacher (2001) for two choices; the smooth round robin of nginx.

use core::net::IpAddr;

use super::BackendId;
use super::flow::Flow;
use super::prefixes::{Site, Table};

/// The load balancing policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// By connection: caches and estimates stay warm.
    #[default]
    Rendezvous,
    /// Per packet, round robin, by weight.
    Spread,
    /// Per packet, at random, by weight.
    SpreadRandom,
    /// Per packet, round robin, by weights that follow the reported loads.
    LeastLoaded,
    /// By the site nearest to the client, and by connection among its backends.
    Nearest,
}

/// A backend that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its index among the members.
    pub member: usize,
    /// Its number.
    pub id: BackendId,
    /// Its weight relative to the others'; not zero.
    pub weight: u32,
    /// Its site.
    pub site: Option<Site>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    candidate: Candidate,
    /// Distinguishes its hashes from the others'.
    seed: u64,
    /// Balance of the smooth round robin.
    credit: f64,
    /// The factor by which its load has moved its weight, from 1 / [`MAX_FACTOR`] to 1.
    factor: f64,
    /// Its load per weight.
    load: f64,
}

impl Entry {
    fn share(&self, policy: Policy) -> f64 {
        let weight = f64::from(self.candidate.weight);
        if policy == Policy::LeastLoaded {
            weight * self.factor
        } else {
            weight
        }
    }

    /// Returns an arrival time, exponential with the weight as rate: each candidate is the first to
    /// arrive in proportion to its weight.
    fn arrival(&self, hash: u64) -> f64 {
        minus_ln(mix(hash ^ self.seed)) / f64::from(self.candidate.weight)
    }
}

/// Chooses among candidates.
#[derive(Clone, Debug)]
pub struct Balancer {
    policy: Policy,
    table: Table,
    /// Sorted by number.
    entries: Vec<Entry>,
    random: u64,
}

impl Balancer {
    /// Creates a balancer; `table` is for [`Policy::Nearest`], `seed` for [`Policy::SpreadRandom`].
    #[must_use]
    pub const fn new(policy: Policy, table: Table, seed: u64) -> Self {
        Self {
            policy,
            table,
            entries: Vec::new(),
            random: seed,
        }
    }

    /// Replaces policy and table.
    pub fn set_policy(&mut self, policy: Policy, table: Table) {
        self.policy = policy;
        self.table = table;
    }

    /// Replaces the table.
    pub fn set_table(&mut self, table: Table) {
        self.table = table;
    }

    /// Replaces the candidates. Those that remain keep their turn and their learnt weight.
    pub fn set_candidates(&mut self, candidates: impl Iterator<Item = Candidate>) {
        let before = core::mem::take(&mut self.entries);
        self.entries = candidates
            .map(|candidate| {
                let known = before
                    .iter()
                    .find(|entry| entry.candidate.id == candidate.id);
                Entry {
                    candidate,
                    seed: mix(u64::from(candidate.id.0) + 1),
                    credit: known.map_or(0.0, |entry| entry.credit),
                    factor: known.map_or(1.0, |entry| entry.factor),
                    load: 0.0,
                }
            })
            .collect();
        self.entries.sort_by_key(|entry| entry.candidate.id);
    }

    /// Adjusts weights to the reported loads, once per heartbeat; `load` returns a backend's, in
    /// any unit. A fleet without load keeps its weights.
    pub fn observe_loads(&mut self, mut load: impl FnMut(BackendId) -> f64) {
        let mut total = 0.0;
        for entry in &mut self.entries {
            let load = load(entry.candidate.id);
            total += load;
            // Plus one so that idle backends are equal.
            entry.load = (load + 1.0) / f64::from(entry.candidate.weight);
        }
        if total <= 0.0 {
            return;
        }
        let count = f64::from(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        let mean = self.entries.iter().map(|entry| entry.load).sum::<f64>() / count;
        for entry in &mut self.entries {
            // A quarter of the way in the logarithm: a report is up to three heartbeats old, and an
            // integrator with that delay swings at a gain of 0.44.
            let step = (mean / entry.load).sqrt().sqrt();
            entry.factor *= step.clamp(1.0 / STEP, STEP);
        }
        let most = self.entries.iter().map(|entry| entry.factor);
        let most = most.fold(f64::MIN_POSITIVE, f64::max);
        for entry in &mut self.entries {
            entry.factor = (entry.factor / most).max(1.0 / MAX_FACTOR);
        }
    }

    /// Returns the candidate for a packet, if there is any.
    pub fn choose(&mut self, flow: Flow, source: IpAddr) -> Option<usize> {
        match self.policy {
            Policy::Nearest => self.nearest(flow, source),
            Policy::Rendezvous => self.rendezvous(flow.hash, |_| true),
            _ if flow.sticky => self.rendezvous(flow.hash, |_| true),
            Policy::Spread | Policy::LeastLoaded => self.in_turn(),
            Policy::SpreadRandom => self.at_random(),
        }
    }

    /// Chooses at the nearest site, or anywhere if it has no candidate.
    fn nearest(&self, flow: Flow, source: IpAddr) -> Option<usize> {
        let site = self.table.site(source);
        site.and_then(|site| self.rendezvous(flow.hash, |of| of.site == Some(site)))
            .or_else(|| self.rendezvous(flow.hash, |_| true))
    }

    fn rendezvous(&self, hash: u64, eligible: impl Fn(&Candidate) -> bool) -> Option<usize> {
        let eligible = self
            .entries
            .iter()
            .filter(|entry| eligible(&entry.candidate));
        eligible
            .map(|entry| (entry.arrival(hash), entry.candidate.member))
            .min_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, member)| member)
    }

    /// Credits every candidate with its share; the one with the most pays for all.
    fn in_turn(&mut self) -> Option<usize> {
        let mut total = 0.0;
        let mut richest: Option<&mut Entry> = None;
        for entry in &mut self.entries {
            let share = entry.share(self.policy);
            total += share;
            entry.credit += share;
            if richest
                .as_ref()
                .is_none_or(|best| best.credit < entry.credit)
            {
                richest = Some(entry);
            }
        }
        richest.map(|entry| {
            entry.credit -= total;
            entry.candidate.member
        })
    }

    fn at_random(&mut self) -> Option<usize> {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let total: u64 = self
            .entries
            .iter()
            .map(|e| u64::from(e.candidate.weight))
            .sum();
        // A product of 64 and 64 bits: uniform up to one part in 2^32.
        let drawn = (u128::from(mix(self.random)) * u128::from(total)) >> 64;
        let mut below = 0;
        let found = self.entries.iter().find(|entry| {
            below += u128::from(entry.candidate.weight);
            drawn < below
        });
        found.map(|entry| entry.candidate.member)
    }
}

/// Largest factor by which loads may move the ratio of two weights.
const MAX_FACTOR: f64 = 16.0;

/// Largest factor by which one report may move it.
const STEP: f64 = 1.25;

/// The finalizer of SplitMix64: a bijection that hides its argument's pattern.
const fn mix(value: u64) -> u64 {
    let z = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Returns −ln of a uniform number in (0, 1) derived from `hash`. Uses additions, multiplications
/// and divisions only, which IEEE 754 defines exactly: `ln` may differ between machines.
fn minus_ln(hash: u64) -> f64 {
    // 52 bits and a half: exact, never 0 and never 1.
    let bits = u32::try_from(hash >> 38).unwrap_or(0);
    let low = u32::try_from((hash >> 12) & 0x03ff_ffff).unwrap_or(0);
    let whole = f64::from(bits) * 67_108_864.0 + f64::from(low) + 0.5;
    let uniform = whole / 4_503_599_627_370_496.0;
    let pattern = uniform.to_bits();
    let exponent = i32::try_from(pattern >> 52).unwrap_or(1023) - 1023;
    let mantissa = f64::from_bits((pattern & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    let (mantissa, exponent) = match mantissa > core::f64::consts::SQRT_2 {
        true => (mantissa / 2.0, exponent + 1),
        false => (mantissa, exponent),
    };
    // ln m = 2 artanh((m - 1) / (m + 1)), where the argument is below 0.172.
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let square = t * t;
    let series = (0..12_u32)
        .rev()
        .fold(0.0, |sum, k| sum * square + 1.0 / f64::from(2 * k + 1));
    -(f64::from(exponent) * core::f64::consts::LN_2 + 2.0 * t * series)
}

#[cfg(test)]
mod tests;
