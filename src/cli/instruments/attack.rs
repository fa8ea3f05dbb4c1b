//! `headwater attack`: plays attacks on the protocol in process and prints their gains.
//!
//! In: a seed, names. Out: a table on standard output, or one line of JSON for each finding: attack, case, cost to
//! the attacker, gain before there was a defence (from the manual's page of threats), gain now, test.
//! Equal arguments produce equal output.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::attack::{ATTACKS, Attack, Effort};
use crate::cli::exit::{Exit, Failed};

/// The page of the manual with the gains from before.
const THREATS: &str = include_str!("../../manual/threats.md");

/// Arguments of `headwater attack`.
#[derive(Debug, clap::Args)]
pub struct AttackArgs {
    /// An attack to play; repeat it for more [default: all]
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// First seed of the draws
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Seconds of virtual time of attacks that are measured by time
    #[arg(long, value_name = "N", default_value_t = 60,
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// Runs of each measurement by round trips, with a seed each; the mean counts
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Round trips of each run
    #[arg(long, value_name = "N", default_value_t = 3000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rounds: u32,
    /// Print one line of JSON for each finding
    #[arg(long)]
    pub json: bool,
}

/// A line of the table.
#[derive(Debug, Serialize)]
struct Row<'a> {
    attack: &'a str,
    case: &'a str,
    cost: &'a str,
    /// As the manual has it; empty if it has none.
    before: &'a str,
    now: f64,
    unit: &'a str,
    test: &'a str,
}

/// Plays the attacks and prints a line for each finding.
///
/// # Errors
/// [`Exit::Usage`] for an unknown name, [`Exit::WriteError`] if standard output is closed.
pub fn run(args: &AttackArgs) -> Result<Exit, Failed> {
    let known = |name: &String| ATTACKS.iter().any(|attack| attack.name == name);
    if let Some(name) = args.only.iter().find(|name| !known(name)) {
        let names: Vec<&str> = ATTACKS.iter().map(|attack| attack.name).collect();
        let message = format!("no attack {name}: use one of {}", names.join(", "));
        return Err(Failed::new(Exit::Usage, message));
    }
    let effort = Effort {
        seed: args.seed,
        seconds: args.seconds,
        runs: args.runs,
        rounds: args.rounds,
    };
    let chosen =
        |attack: &&Attack| args.only.is_empty() || args.only.iter().any(|name| name == attack.name);
    if !args.json {
        print(&heading())?;
    }
    for attack in ATTACKS.iter().filter(chosen) {
        for finding in (attack.play)(&effort) {
            let row = Row {
                attack: attack.name,
                case: &finding.case,
                cost: attack.cost,
                before: before(THREATS, attack.name, &finding.case),
                now: finding.gain,
                unit: finding.unit,
                test: attack.test,
            };
            print(&match args.json {
                true => serde_json::to_string(&row).unwrap_or_default() + "\n",
                false => line(&row),
            })?;
        }
    }
    Ok(Exit::Success)
}

fn print(text: &str) -> Result<(), Failed> {
    // A closed standard output needs no message.
    let closed = |_: io::Error| Failed::new(Exit::WriteError, "");
    let mut out = io::stdout();
    out.write_all(text.as_bytes()).map_err(closed)?;
    out.flush().map_err(closed)
}

fn heading() -> String {
    format!(
        "{:<20} {:<34} {:>8} {:>8}  {:<22} cost; test\n",
        "attack", "case", "before", "now", "unit"
    )
}

fn line(row: &Row<'_>) -> String {
    let Row {
        attack,
        case,
        cost,
        before,
        now,
        unit,
        test,
    } = row;
    format!("{attack:<20} {case:<34} {before:>8} {now:>8.2}  {unit:<22} {cost}; {test}\n")
}

/// The gain before the defence, from the row of a table whose first two cells are the attack in
/// backquotes and the case.
fn before<'a>(page: &'a str, attack: &str, case: &str) -> &'a str {
    let named = format!("`{attack}`");
    let mut rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let (first, second, third) = (cells.next()?, cells.next()?, cells.next()?);
        (first == named && second == case).then_some(third)
    });
    rows.next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_tests_are_named() {
        for (index, attack) in ATTACKS.iter().enumerate() {
            let same = |other: &&Attack| other.name == attack.name;
            assert_eq!(ATTACKS.iter().position(|other| same(&other)), Some(index));
            assert!(attack.test.contains("::tests::"), "{}", attack.name);
        }
    }

    #[test]
    fn the_gain_before_is_read_from_the_page() {
        let page =
            "| attack | case | before |\n|---|---|---|\n| `a` | 1 % | 2.5 |\n| `a` | 3 % | 7 |\n";
        assert_eq!(before(page, "a", "3 %"), "7");
        assert_eq!(before(page, "a", "1 %"), "2.5");
        assert_eq!(before(page, "b", "1 %"), "");
    }
}
