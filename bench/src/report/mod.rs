//! The report for people: one HTML file that needs nothing else, with plots as SVG.

mod axis;
mod bars;
mod lines;
mod svg;

use crate::machine::Machine;
use crate::{Goal, Outcome, Plot};
use svg::Markup;

pub use axis::short;
pub use bars::said;

/// A benchmark in the report.
pub struct Section<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it measures.
    pub about: &'a str,
    /// What it found.
    pub outcome: &'a Outcome,
}

/// The whole file.
#[must_use]
pub fn html(machine: &Machine, sections: &[Section<'_>]) -> String {
    let mut page = Markup::default();
    page.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.raw("<title>Mixline: benchmarks</title>\n<style>\n");
    page.raw(include_str!("style.css"));
    page.raw("</style>\n</head>\n");
    page.element("body", &[], |body| {
        body.text("h1", &[], "Mixline: benchmarks");
        body.text(
            "p",
            &[],
            "Figures beside each other were measured in turns in one run. Bars are \
             medians; the thin line over the end of a bar is where eight of ten rounds lie; a \
             heavy mark is the goal.",
        );
        describe(body, machine);
        let goals: Vec<Goal> = sections
            .iter()
            .flat_map(|section| section.outcome.goals.clone())
            .collect();
        if !goals.is_empty() {
            body.text("h2", &[], "Goals");
            figure(
                body,
                "Each figure over its goal, which is the mark",
                "",
                |page| {
                    bars::goals(page, &goals);
                },
            );
        }
        for section in sections {
            self::section(body, section);
        }
    });
    page.raw("</html>\n");
    page.into_string()
}

fn describe(body: &mut Markup, machine: &Machine) {
    let facts = [
        ("Measured", machine.at.clone()),
        ("Processor", machine.processor.clone()),
        ("Cores", machine.cores.to_string()),
        (
            "Memory",
            format!("{:.1} GB", machine.memory_bytes as f64 / 1e9),
        ),
        ("Kernel", machine.kernel.clone()),
        ("Instructions", machine.instructions.join(", ")),
        (
            "Load at the start",
            machine.load.map_or_else(
                || "unknown".into(),
                |load| format!("{load:.2} (of other work on this machine)"),
            ),
        ),
    ];
    body.element("dl", &[], |list| {
        for (name, value) in facts {
            list.text("dt", &[], name);
            list.text("dd", &[], &value);
        }
    });
}

fn section(body: &mut Markup, section: &Section<'_>) {
    body.text("h2", &[("id", &section.name)], section.name);
    body.text("p", &[], section.about);
    for plot in &section.outcome.plots {
        match plot {
            Plot::Bars(plot) => figure(body, &plot.title, &plot.note, |page| {
                bars::bars(page, plot);
            }),
            Plot::Lines(plot) => figure(body, &plot.title, &plot.note, |page| {
                lines::lines(page, plot);
            }),
        }
    }
    body.element("details", &[], |details| {
        details.text("summary", &[], "All figures");
        details.text("pre", &[], &section.outcome.table);
    });
}

fn figure(body: &mut Markup, title: &str, note: &str, draw: impl FnOnce(&mut Markup)) {
    body.element("figure", &[], |figure| {
        figure.element("figcaption", &[], |caption| {
            caption.text("h3", &[], title);
            if !note.is_empty() {
                caption.text("p", &[], note);
            }
        });
        draw(figure);
    });
}

#[cfg(test)]
mod tests;
