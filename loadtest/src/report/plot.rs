use std::{fs, path::PathBuf};

use clap::Args;
use plotters::{
    coord::Shift,
    prelude::{
        BLACK, ChartBuilder, DrawingArea, EmptyElement, ErrorBar, IntoDrawingArea as _, RGBColor,
        Rectangle, SVGBackend, Text, WHITE,
    },
    style::{
        Color as _, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{Report, short};
use crate::Result;

#[derive(Args)]
pub struct Options {
    /// Results that `--json` has written; each gets an SVG beside it
    #[arg(required = true)]
    results: Vec<PathBuf>,
}

pub fn run(options: &Options) -> Result<()> {
    for path in &options.results {
        let report: Report = serde_json::from_slice(&fs::read(path)?)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let svg = path.with_extension("svg");
        fs::write(&svg, draw(&report)?)?;
        println!("{}", svg.display());
    }
    Ok(())
}

const PANEL: (u32, u32) = (340, 240);
const COLUMNS: usize = 3;
const HEAD: u32 = 56;
const FONT: &str = "sans-serif";

const COLOURS: [RGBColor; 5] = [
    RGBColor(31, 119, 180),
    RGBColor(150, 150, 150),
    RGBColor(214, 120, 60),
    RGBColor(60, 160, 150),
    RGBColor(150, 110, 190),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A panel a figure: a bar a subject, and a whisker from the least to the most.
fn draw(report: &Report) -> Result<String> {
    let names = report.names();
    let rows = names.len().div_ceil(COLUMNS);
    let size = (PANEL.0 * COLUMNS as u32, HEAD + PANEL.1 * rows as u32);
    let mut svg = String::new();
    {
        let whole = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        whole.fill(&WHITE)?;
        let (head, body) = whole.split_vertically(HEAD);
        head.draw(&Text::new(&*report.scenario, (12, 8), (FONT, 20)))?;
        head.draw(&Text::new(&*report.settings, (12, 34), (FONT, 12)))?;
        for (name, panel) in names.iter().zip(body.split_evenly((rows, COLUMNS))) {
            draw_panel(report, name, &panel)?;
        }
        whole.present()?;
    }
    Ok(svg)
}

fn draw_panel(report: &Report, name: &str, panel: &Area<'_>) -> Result<()> {
    let all = report.subjects();
    let figures: Vec<_> = all
        .iter()
        .zip(COLOURS.iter().cycle())
        .filter_map(|(subject, colour)| Some((report.figure(subject, name)?, colour)))
        .collect();
    let top = figures.iter().map(|(figure, _)| figure.most());
    let top = top.fold(f64::MIN_POSITIVE, f64::max) * 1.2;
    let mut chart = ChartBuilder::on(panel)
        .caption(name, (FONT, 14))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..figures.len() as f64, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_labels(5)
        .y_label_formatter(&|value| short(*value))
        .light_line_style(WHITE)
        .draw()?;
    let text = |vertical| TextStyle::from((FONT, 12)).pos(Pos::new(HPos::Center, vertical));
    for (at, (figure, colour)) in figures.iter().enumerate() {
        let (left, middle, right) = (at as f64 + 0.2, at as f64 + 0.5, at as f64 + 0.8);
        let (least, median, most) = (figure.least(), figure.median(), figure.most());
        let bar = Rectangle::new([(left, 0.0), (right, median)], colour.filled());
        chart.draw_series([bar])?;
        let whisker = ErrorBar::new_vertical(middle, least, median, most, BLACK, 8);
        chart.draw_series([whisker])?;
        let value = Text::new(short(median), (0, -4), text(VPos::Bottom));
        chart.draw_series([EmptyElement::at((middle, most)) + value])?;
        let subject = Text::new(figure.subject.clone(), (0, 6), text(VPos::Top));
        chart.draw_series([EmptyElement::at((middle, 0.0)) + subject])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_every_figure_and_subject() {
        let mut report = Report::new("some", "settings".into());
        for value in [3.0, 1.0, 2.0] {
            report.add("one", "rate", value);
            report.add("other", "rate", 40.0 * value);
            report.add("other", "zero", 0.0);
        }
        let svg = draw(&report).unwrap();
        for text in ["some", "settings", "rate", "zero", "one", "other", "80.0"] {
            assert!(svg.contains(text), "{text}:\n{svg}");
        }
    }
}
