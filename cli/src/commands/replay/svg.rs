//! How policies went over time, as a picture: three panels with one axis of time.

use ::scheduler::replay::{Course, Name};
use proto::units;
use std::fmt::Write as _;

const WIDTH: f64 = 960.0;
const PANEL: f64 = 200.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 40.0;
const GAP: f64 = 50.0;
/// Told apart by who does not see all colours as well (Okabe and Ito).
const COLORS: [&str; 5] = ["#000000", "#0072b2", "#e69f00", "#009e73", "#d55e00"];

struct Panel {
    what: &'static str,
    of: fn(&Course) -> &Vec<f64>,
    logarithmic: bool,
}

const PANELS: [Panel; 3] = [
    Panel { what: "jobs waiting", of: |course| &course.queue, logarithmic: true },
    Panel { what: "utilisation", of: |course| &course.utilisation, logarithmic: false },
    Panel {
        what: "mean bounded slowdown of those submitted then",
        of: |course| &course.slowdown,
        logarithmic: true,
    },
];

/// The whole picture.
pub(super) fn draw(courses: &[(Name, Course)]) -> String {
    let height = TOP + PANELS.len() as f64 * (PANEL + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (at, (name, _)) in courses.iter().enumerate() {
        let x = LEFT + at as f64 * 130.0;
        let color = COLORS[at % COLORS.len()];
        line(&mut svg, format!("<rect x=\"{x}\" y=\"12\" width=\"12\" height=\"12\" fill=\"{color}\"/>"));
        line(&mut svg, format!("<text x=\"{}\" y=\"22\">{name}</text>", x + 17.0));
    }
    for (at, panel) in PANELS.iter().enumerate() {
        draw_panel(&mut svg, panel, TOP + at as f64 * (PANEL + GAP) + 20.0, courses);
    }
    svg.push_str("</svg>\n");
    svg
}

fn line(svg: &mut String, text: String) {
    svg.push_str(&text);
    svg.push('\n');
}

fn draw_panel(svg: &mut String, panel: &Panel, y: f64, courses: &[(Name, Course)]) {
    let most = courses.iter().flat_map(|(_, course)| (panel.of)(course)).copied().fold(0.0, f64::max);
    let scaled = |value: f64| if panel.logarithmic { value.ln_1p() } else { value };
    let top = if panel.logarithmic { scaled(most.max(1.0)) } else { 1.0 };
    let place = |value: f64| y + PANEL - scaled(value) / top * PANEL;
    let right = WIDTH - 20.0;
    line(svg, format!("<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{}</text>", y - 6.0, panel.what));
    for tick in ticks(panel.logarithmic, most) {
        let (at, label) = (place(tick), label(panel.logarithmic, tick));
        line(svg, format!("<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#ddd\"/>"));
        line(
            svg,
            format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 6.0, at + 4.0),
        );
    }
    for (at, (_, course)) in courses.iter().enumerate() {
        let values = (panel.of)(course);
        let step = (right - LEFT) / values.len() as f64;
        let mut path = String::new();
        for (column, value) in values.iter().enumerate() {
            let x = LEFT + (column as f64 + 0.5) * step;
            let word = if column == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{word}{x:.1} {:.1}", place(*value));
        }
        let color = COLORS[at % COLORS.len()];
        line(svg, format!("<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.2\"/>"));
    }
    let Some((_, course)) = courses.first() else { return };
    for part in 0..=4 {
        let x = LEFT + (right - LEFT) * f64::from(part) / 4.0;
        let after_ms = course.column_s * course.queue.len() as f64 * f64::from(part) / 4.0 * 1e3;
        let after = units::brief_duration_ms(after_ms as u64);
        line(
            svg,
            format!("<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{after}</text>", y + PANEL + 16.0),
        );
    }
}

/// Where lines are drawn across: quarters, or powers of ten.
fn ticks(logarithmic: bool, most: f64) -> Vec<f64> {
    if !logarithmic {
        return vec![0.0, 0.25, 0.5, 0.75, 1.0];
    }
    let powers = std::iter::successors(Some(1.0_f64), |tick| Some(tick * 10.0));
    std::iter::once(0.0).chain(powers.take_while(|tick| *tick <= most.max(1.0))).collect()
}

fn label(logarithmic: bool, tick: f64) -> String {
    if logarithmic { format!("{tick:.0}") } else { format!("{:.0} %", tick * 100.0) }
}
