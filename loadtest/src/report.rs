//! Figures by name and by whose they are, one a run, and their medians.

mod plot;
mod table;

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::Result;

pub use plot::{Options as PlotOptions, run as plot};

/// The server under test, and the barest thing that does the same work.
pub const CHATD: &str = "chatd";
pub const CEILING: &str = "ceiling";

#[derive(Serialize, Deserialize)]
pub struct Report {
    scenario: String,
    settings: String,
    figures: Vec<Figure>,
}

#[derive(Serialize, Deserialize)]
struct Figure {
    /// Whose it is.
    subject: String,
    name: String,
    /// In the order of the runs.
    values: Vec<f64>,
}

impl Figure {
    fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted.len() % 2 {
            0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        }
    }

    fn least(&self) -> f64 {
        self.sorted()[0]
    }

    fn most(&self) -> f64 {
        self.sorted()[self.values.len() - 1]
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl Report {
    pub fn new(scenario: &str, settings: String) -> Self {
        Self {
            scenario: scenario.into(),
            settings,
            figures: Vec::new(),
        }
    }

    /// Adds one run's value of a figure; figures and subjects are shown in the
    /// order in which they first came.
    pub fn add(&mut self, subject: &str, name: &str, value: f64) {
        let mut figures = self.figures.iter_mut();
        match figures.find(|figure| figure.is(subject, name)) {
            Some(figure) => figure.values.push(value),
            None => self.figures.push(Figure {
                subject: subject.into(),
                name: name.into(),
                values: vec![value],
            }),
        }
    }

    pub fn print(&self) {
        println!("{} ({})", self.scenario, self.settings);
        print!("{}", table::of(self));
    }

    pub fn write_json(&self, path: &Path) -> Result<()> {
        Ok(fs::write(path, serde_json::to_string_pretty(self)?)?)
    }

    fn subjects(&self) -> Vec<&str> {
        in_order(self.figures.iter().map(|figure| &*figure.subject))
    }

    fn names(&self) -> Vec<&str> {
        in_order(self.figures.iter().map(|figure| &*figure.name))
    }

    fn figure(&self, subject: &str, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.is(subject, name))
    }
}

impl Figure {
    fn is(&self, subject: &str, name: &str) -> bool {
        self.subject == subject && self.name == name
    }
}

fn in_order<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut each = Vec::new();
    for one in all {
        if !each.contains(&one) {
            each.push(one);
        }
    }
    each
}

/// Three or four digits that count.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let figure = |values: &[f64]| Figure {
            subject: String::new(),
            name: String::new(),
            values: values.into(),
        };
        assert!((figure(&[9.0, 1.0, 2.0]).median() - 2.0).abs() < 1e-9);
        assert!((figure(&[4.0, 1.0]).median() - 2.5).abs() < 1e-9);
    }

    #[test]
    fn a_row_a_name_and_a_column_a_subject() {
        let mut report = Report::new("some", String::new());
        for value in [3.0, 1.0, 2.0] {
            report.add(CHATD, "rate", value);
        }
        report.add(CEILING, "rate", 123.4);
        report.add(CEILING, "ratio", 0.5);
        let table = table::of(&report);
        let words: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(words[0], [CHATD, CEILING]);
        assert_eq!(words[1], ["rate", "2.00", "(1.00", "–", "3.00)", "123"]);
        assert_eq!(words[2], ["ratio", "0.500"]);
    }
}
