use std::fmt::Write as _;

use super::{Figure, Report, short};

/// A row a figure and a column a subject: the median and, of several runs, the
/// least and the most.
pub fn of(report: &Report) -> String {
    let subjects = report.subjects();
    let cells = |name: &str| -> Vec<String> {
        let figures = subjects.iter().map(|subject| report.figure(subject, name));
        figures
            .map(|figure| figure.map_or_else(String::new, cell))
            .collect()
    };
    let mut rows = vec![(
        String::new(),
        subjects.iter().map(|s| (*s).into()).collect(),
    )];
    rows.extend(
        report
            .names()
            .into_iter()
            .map(|name| (name.into(), cells(name))),
    );
    let first = rows.iter().map(|(name, _)| name.chars().count()).max();
    let widths: Vec<_> = (0..subjects.len())
        .map(|at| {
            rows.iter()
                .map(|(_, cells)| cells[at].chars().count())
                .max()
        })
        .collect();
    let mut out = String::new();
    for (name, cells) in rows {
        // Writing to a string does not fail.
        _ = write!(out, "{name:<0$}", first.unwrap_or_default());
        for (cell, width) in cells.iter().zip(&widths) {
            _ = write!(out, "  {cell:>0$}", width.unwrap_or_default());
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
    out
}

fn cell(figure: &Figure) -> String {
    let [median, least, most] = [figure.median(), figure.least(), figure.most()].map(short);
    match figure.values.len() {
        1 => median,
        _ => format!("{median} ({least} – {most})"),
    }
}
