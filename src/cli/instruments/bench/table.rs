//! Tables of results over several rounds.
//!
//! In: numbers. Out: medians with their ranges, and lines with aligned columns.

use serde::Serialize;

/// Median and range of several figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    /// Computes the spread; `None` without figures.
    pub(super) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        let above = *figures.get(middle)?;
        let below = *figures.get((figures.len() - 1) / 2)?;
        Some(Self {
            median: f64::midpoint(below, above),
            least: *figures.first()?,
            most: *figures.last()?,
        })
    }
}

/// Formats a figure with three significant digits or more.
pub(super) fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Formats a spread as `median [least-most]`, or as a single figure.
pub(super) fn spread(spread: Option<Spread>) -> String {
    match spread {
        None => "-".to_owned(),
        #[expect(clippy::float_cmp, reason = "equal if they are the same figure")]
        Some(Spread {
            median,
            least,
            most,
        }) if least == most => figure(median),
        Some(Spread {
            median,
            least,
            most,
        }) => {
            format!("{} [{}-{}]", figure(median), figure(least), figure(most))
        }
    }
}

/// Formats rows as lines; the first column left-aligned, the others right-aligned.
pub(super) fn lines(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell: &String| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, &width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ranges() {
        let cases: [(&[f64], &str); 5] = [
            (&[], "-"),
            (&[7.0], "7.00"),
            (&[3.0, 1.0, 2.0], "2.00 [1.00-3.00]"),
            (&[400.0, 100.0, 20.0, 10.0], "60.0 [10.0-400]"),
            (&[12345.6, 12345.6], "12346"),
        ];
        for (figures, want) in cases {
            assert_eq!(spread(Spread::of(figures.iter().copied())), want);
        }
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["peer", "a"], ["kernel", "100"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(lines(&rows), "peer      a\nkernel  100\n");
    }
}
