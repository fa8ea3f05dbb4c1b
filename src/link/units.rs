//! Quantities as a user types them: `20ms`, `100mbit`, `64k`, `1bdp`, `1%`.
//!
//! In: one word. Out: a number in the unit of `link::config`. Units are those of tc(8), in either
//! case: rates count in thousands (`kbit`, `mbit`, `gbit`), sizes in 1024 (`k`, `m`, `g`). Unlike
//! there a bare number is rejected, since tc reads it as microseconds, bits or bytes in turn, and
//! so is `bps`, which means bytes there. A number has digits and at most one point; digits below
//! the resolution (1 µs, 1 bit/s, 1 byte, 1 ppm) are rejected, not rounded.

use std::time::Duration;

use crate::link::Chance;

/// One bandwidth-delay product, in the millionths that [`Amount::Bdp`] counts.
pub const ONE_BDP: u64 = 1_000_000;

/// Most decimal digits after the point.
const MAX_FRACTION_DIGITS: usize = 12;

/// An amount of data in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// In bytes.
    Bytes(usize),
    /// The bytes that the rate carries in this time.
    Time(Duration),
    /// In millionths of a bandwidth-delay product, without queues.
    Bdp(u64),
}

/// The reason for rejecting a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a number with a known unit.
    #[error("'{text}' is not a {what}: for example {example}")]
    Malformed {
        /// As typed.
        text: String,
        /// The expected quantity.
        what: &'static str,
        /// Valid examples.
        example: &'static str,
    },
    /// Finer than the resolution.
    #[error("'{text}' is finer than {least}, the resolution")]
    TooFine {
        /// As typed.
        text: String,
        /// The resolution.
        least: &'static str,
    },
    /// A number beyond all bounds.
    #[error("'{text}' is too large")]
    TooLarge {
        /// As typed.
        text: String,
    },
}

/// A kind of quantity.
struct Quantity {
    what: &'static str,
    example: &'static str,
    least: &'static str,
    /// Suffixes, each with its multiple of the resolution.
    units: &'static [(&'static str, u64)],
}

const TIME: Quantity = Quantity {
    what: "time",
    example: "20ms, 500us or 1.5s",
    least: "1us",
    units: &[
        ("us", 1),
        ("usec", 1),
        ("usecs", 1),
        ("ms", 1000),
        ("msec", 1000),
        ("msecs", 1000),
        ("s", 1_000_000),
        ("sec", 1_000_000),
        ("secs", 1_000_000),
    ],
};

const RATE: Quantity = Quantity {
    what: "rate",
    example: "100mbit, 1.5gbit or 64kbit",
    least: "1bit",
    units: &[
        ("bit", 1),
        ("kbit", 1000),
        ("mbit", 1_000_000),
        ("gbit", 1_000_000_000),
        ("tbit", 1_000_000_000_000),
        ("kibit", 1 << 10),
        ("mibit", 1 << 20),
        ("gibit", 1 << 30),
    ],
};

const SIZE: Quantity = Quantity {
    what: "size",
    example: "64k, 1500b or 1m",
    least: "1b",
    units: &[
        ("b", 1),
        ("k", 1 << 10),
        ("kb", 1 << 10),
        ("m", 1 << 20),
        ("mb", 1 << 20),
        ("g", 1 << 30),
        ("gb", 1 << 30),
    ],
};

const BDP: Quantity = Quantity {
    what: "queue limit",
    example: "1bdp, 64k or 50ms",
    least: "0.000001bdp",
    units: &[("bdp", ONE_BDP)],
};

const PERCENT: Quantity = Quantity {
    what: "probability",
    example: "1% or 0.05%",
    least: "0.0001%",
    units: &[("%", 10_000)],
};

/// Parses a time, such as `20ms`.
///
/// # Errors
/// [`UnitError`].
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    TIME.read(text).map(Duration::from_micros)
}

/// Parses a rate in bit/s, such as `100mbit`.
///
/// # Errors
/// [`UnitError`].
pub fn rate(text: &str) -> Result<u64, UnitError> {
    RATE.read(text)
}

/// Parses a probability, such as `1%`.
///
/// # Errors
/// [`UnitError`].
pub fn chance(text: &str) -> Result<Chance, UnitError> {
    let ppm = u32::try_from(PERCENT.read(text)?).ok();
    ppm.and_then(Chance::from_ppm)
        .ok_or_else(|| too_large(text))
}

/// Parses an amount of data: a size such as `64k`, a time such as `50ms`, or bandwidth-delay
/// products such as `1bdp`.
///
/// # Errors
/// [`UnitError`].
pub fn amount(text: &str) -> Result<Amount, UnitError> {
    let unit = split(text).map_or("", |(_, unit)| unit).to_lowercase();
    if TIME.has(&unit) {
        return duration(text).map(Amount::Time);
    }
    if SIZE.has(&unit) {
        let bytes = usize::try_from(SIZE.read(text)?);
        return bytes.map(Amount::Bytes).map_err(|_| too_large(text));
    }
    BDP.read(text).map(Amount::Bdp)
}

impl Quantity {
    fn has(&self, unit: &str) -> bool {
        self.units.iter().any(|(name, _)| *name == unit)
    }

    fn read(&self, text: &str) -> Result<u64, UnitError> {
        let malformed = || UnitError::Malformed {
            text: excerpt(text),
            what: self.what,
            example: self.example,
        };
        let (number, unit) = split(text).ok_or_else(malformed)?;
        let unit = unit.to_lowercase();
        let (_, factor) = self
            .units
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(malformed)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
            return Err(malformed());
        }
        let fraction = fraction.trim_end_matches('0');
        let too_fine = UnitError::TooFine {
            text: excerpt(text),
            least: self.least,
        };
        if fraction.len() > MAX_FRACTION_DIGITS {
            return Err(too_fine);
        }
        // All digits as one integer; the position of the point then scales it.
        let mut digits = whole.bytes().chain(fraction.bytes());
        let scaled = digits.try_fold(u128::from(0_u8), |sum, digit| {
            sum.checked_mul(10)?.checked_add(u128::from(digit - b'0'))
        });
        let scaled = scaled.and_then(|scaled| scaled.checked_mul(u128::from(*factor)));
        let scaled = scaled.ok_or_else(|| too_large(text))?;
        let divisor = (0..fraction.len()).fold(u128::from(1_u8), |power, _| power * 10);
        if scaled % divisor != 0 {
            return Err(too_fine);
        }
        u64::try_from(scaled / divisor).map_err(|_| too_large(text))
    }
}

/// Splits a quantity into number and unit.
fn split(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    text.split_at_checked(end)
}

fn too_large(text: &str) -> UnitError {
    UnitError::TooLarge {
        text: excerpt(text),
    }
}

/// Shortens typed text to a line for an error message.
pub(super) fn excerpt(text: &str) -> String {
    let printable = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take(40).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_and_their_units() {
        type Read = fn(&str) -> Result<u64, UnitError>;
        let time: Read = |text| duration(text).map(crate::time::micros);
        let percent: Read = |text| chance(text).map(|chance| u64::from(chance.ppm()));
        let cases: [(&str, Read, Result<u64, &str>); 38] = [
            ("20ms", time, Ok(20_000)),
            ("20MSECS", time, Ok(20_000)),
            ("1.5s", time, Ok(1_500_000)),
            ("2sec", time, Ok(2_000_000)),
            ("7us", time, Ok(7)),
            (".5ms", time, Ok(500)),
            ("0ms", time, Ok(0)),
            ("0.3ms", time, Ok(300)),
            ("1.000000s", time, Ok(1_000_000)),
            ("1.5us", time, Err("finer than 1us")),
            ("20", time, Err("not a time")),
            ("", time, Err("not a time")),
            ("ms", time, Err("not a time")),
            (".ms", time, Err("not a time")),
            ("1.2.3ms", time, Err("not a time")),
            ("-1ms", time, Err("not a time")),
            ("1 ms", time, Err("not a time")),
            ("1e3ms", time, Err("not a time")),
            ("1m", time, Err("not a time")),
            ("99999999999999999999ms", time, Err("too large")),
            ("0.0000000000001s", time, Err("finer")),
            ("100mbit", rate, Ok(100_000_000)),
            ("1.5Gbit", rate, Ok(1_500_000_000)),
            ("64kbit", rate, Ok(64_000)),
            ("64kibit", rate, Ok(65_536)),
            ("9bit", rate, Ok(9)),
            ("1tbit", rate, Ok(1_000_000_000_000)),
            ("0.5bit", rate, Err("finer than 1bit")),
            ("10mbps", rate, Err("not a rate")),
            ("100", rate, Err("not a rate")),
            ("1%", percent, Ok(10_000)),
            ("0.0001%", percent, Ok(1)),
            ("100%", percent, Ok(1_000_000)),
            ("100.0001%", percent, Err("too large")),
            ("5000%", percent, Err("too large")),
            ("0.00001%", percent, Err("finer than 0.0001%")),
            ("1", percent, Err("not a probability")),
            ("50%%", percent, Err("not a probability")),
        ];
        for (text, read, want) in cases {
            match (read(text), want) {
                (Ok(have), Ok(want)) => assert_eq!(have, want, "{text}"),
                (Err(have), Err(want)) => assert!(have.to_string().contains(want), "{have}"),
                (have, want) => panic!("{text}: {have:?}, expected {want:?}"),
            }
        }
    }

    #[test]
    fn amounts_are_told_by_their_units() {
        for (text, want) in [
            ("64k", Some(Amount::Bytes(65_536))),
            ("1500b", Some(Amount::Bytes(1500))),
            ("1.5kb", Some(Amount::Bytes(1536))),
            ("2m", Some(Amount::Bytes(2 << 20))),
            ("50ms", Some(Amount::Time(Duration::from_millis(50)))),
            ("1BDP", Some(Amount::Bdp(ONE_BDP))),
            ("0.25bdp", Some(Amount::Bdp(ONE_BDP / 4))),
            ("64", None),
            ("bdp", None),
            ("10p", None),
        ] {
            assert_eq!(amount(text).ok(), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_in_one_line(text in "\\PC{0,60}|[0-9.]{0,40}[a-z%]{0,6}") {
            let errors = [
                duration(&text).err(),
                rate(&text).err(),
                chance(&text).err(),
                amount(&text).err(),
            ];
            for error in errors.into_iter().flatten() {
                prop_assert!(error.to_string().lines().count() == 1);
            }
        }

        #[test]
        fn whole_and_broken_numbers_agree(whole in 0u64..1_000_000, ppm in 0u32..1_000_000) {
            let micros = whole * 1_000_000 + u64::from(ppm);
            let want = Ok(Duration::from_micros(micros));
            prop_assert_eq!(duration(&format!("{whole}.{ppm:06}s")), want.clone());
            prop_assert_eq!(duration(&format!("{micros}us")), want);
        }
    }
}
