//! Figures by name, one a run, and their medians.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::Result;

pub struct Report {
    scenario: String,
    settings: String,
    figures: Vec<Figure>,
}

struct Figure {
    name: String,
    values: Vec<f64>,
}

impl Figure {
    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted.len() % 2 {
            0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        }
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

    /// Adds one run's value of a figure; figures are shown in the order in
    /// which they first came.
    pub fn add(&mut self, name: &str, value: f64) {
        match self.figures.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.values.push(value),
            None => self.figures.push(Figure {
                name: name.into(),
                values: vec![value],
            }),
        }
    }

    pub fn print(&self) {
        println!("{} ({})", self.scenario, self.settings);
        let names = self.figures.iter().map(|figure| figure.name.len());
        let width = names.max().unwrap_or_default();
        println!(
            "{:width$}  {:>12}  {:>12}  {:>12}",
            "", "median", "least", "most"
        );
        for figure in &self.figures {
            let sorted = figure.sorted();
            let [median, least, most] =
                [figure.median(), sorted[0], sorted[sorted.len() - 1]].map(short);
            println!(
                "{:width$}  {median:>12}  {least:>12}  {most:>12}",
                figure.name
            );
        }
    }

    pub fn write_json(&self, path: &Path) -> Result<()> {
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|figure| {
                json!({
                    "name": figure.name,
                    "median": figure.median(),
                    "values": figure.values,
                })
            })
            .collect();
        let report = json!({
            "scenario": self.scenario,
            "settings": self.settings,
            "figures": figures,
        });
        fs::write(path, serde_json::to_string_pretty(&report)?)?;
        Ok(())
    }
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
            name: String::new(),
            values: values.into(),
        };
        assert!((figure(&[9.0, 1.0, 2.0]).median() - 2.0).abs() < 1e-9);
        assert!((figure(&[4.0, 1.0]).median() - 2.5).abs() < 1e-9);
    }
}
