//! The attack laboratory: attacks played in process, in virtual time, against the code that ships.
//!
//! In: a seed and an effort. Out: the [`Finding`]s of each [`Attack`] in [`ATTACKS`], of which each is
//! one function. A finding is a gain over the honest case, or an amplification; the manual's page of threats keeps the
//! figures from before a defence was there. Nothing here reads a clock or draws from the system.

pub mod afar;
pub mod cheat;
pub mod honest;
pub mod path;
pub mod queue;
pub mod redirector;
pub mod search;
pub mod window;

/// An attack that the laboratory can play.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// A short name, unique: the first column of the table, and of the table in the manual.
    pub name: &'static str,
    /// The cost to the attacker.
    pub cost: &'static str,
    /// The test that asserts the bound.
    pub test: &'static str,
    /// Plays it.
    pub play: fn(&Effort) -> Vec<Finding>,
}

/// The seeds and the length of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// The first seed.
    pub seed: u64,
    /// Seconds of virtual time of attacks that are measured by time.
    pub seconds: u32,
    /// Runs of each measurement, with a seed each; the mean counts.
    pub runs: u32,
    /// Round trips of each run that count.
    pub rounds: u32,
}

/// A measured gain of an attack in one case.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The case: a cell of loss and round trip, an MTU, a number of backends.
    pub case: String,
    /// The gain; 1 is honest.
    pub gain: f64,
    /// The unit of the gain.
    pub unit: &'static str,
}

/// The test that bounds the bytes towards an address that was left.
const AFAR: &str =
    "attack::afar::tests::an_address_that_was_left_is_sent_three_times_what_comes_in_its_name";

/// All attacks, in the order of the table.
pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "hide-then-ce",
        cost: "leaves losses undeclared, then declares CE",
        test: "attack::window::tests::no_cheat_gains",
        play: window::hide_then_ce,
    },
    Attack {
        name: "hide-then-ce-slow",
        cost: "the same, and claims a round trip of 1 s",
        test: "attack::window::tests::no_cheat_gains",
        play: window::hide_then_ce_slow,
    },
    Attack {
        name: "restart-by-moving",
        cost: "two addresses, one round trip for each challenge",
        test: "attack::window::tests::no_cheat_gains",
        play: window::restart_by_moving,
    },
    Attack {
        name: "timeouts-for-losses",
        cost: "200 ms for each timeout",
        test: "attack::window::tests::no_cheat_gains",
        play: window::timeouts_for_losses,
    },
    Attack {
        name: "hasty-zone",
        cost: "declares losses, passes their zone when a quarter has arrived",
        test: "attack::window::tests::no_cheat_gains",
        play: window::hasty_zone,
    },
    Attack {
        name: "repeated-restart",
        cost: "one request each 100 ms",
        test: "attack::window::tests::no_cheat_gains",
        play: window::repeated_restart,
    },
    Attack {
        name: "best-found",
        cost: "whatever a search over all moves finds best; HEADWATER_LOG=info prints it",
        test: "attack::window::tests::no_cheat_gains",
        play: window::best_found,
    },
    Attack {
        name: "copies",
        cost: "each request twice",
        test: "attack::window::tests::copies_gain_where_servers_differ",
        play: window::copies,
    },
    Attack {
        name: "idle-then-burst",
        cost: "10 or 60 s of silence, a claimed round trip of 1 s",
        test: "attack::window::tests::silence_does_not_grow_the_window",
        play: window::idle_then_burst,
    },
    Attack {
        name: "black-holes",
        cost: "a backend that answers heartbeats alone, or a path that drops the rest",
        test: "attack::redirector::tests::black_holes_draw_less_than_their_share",
        play: redirector::black_holes,
    },
    Attack {
        name: "blind-icmp",
        cost: "3000 packets per second from any source",
        test: "attack::redirector::tests::blind_errors_move_nothing_and_genuine_ones_would",
        play: redirector::blind_icmp,
    },
    Attack {
        name: "restart-from-afar",
        cost: "one restart in the name of an address that was left",
        test: AFAR,
        play: afar::restart,
    },
    Attack {
        name: "timeout-from-afar",
        cost: "one timeout in the name of an address that was left",
        test: AFAR,
        play: afar::timeout,
    },
    Attack {
        name: "tokens-from-afar",
        cost: "an OPEN with a token of each of 100 connections opened at an address that was left",
        test: AFAR,
        play: afar::tokens,
    },
    Attack {
        name: "idle-from-afar",
        cost: "a restart each 100 ms of each of 100 connections opened at an address that was left",
        test: AFAR,
        play: afar::idle_connections,
    },
    Attack {
        name: "cold-files",
        cost: "requests for cold files, as many as are taken",
        test: "attack::queue::tests::a_flood_of_cold_files_delays_others_by_few_jobs",
        play: queue::cold_files,
    },
];
