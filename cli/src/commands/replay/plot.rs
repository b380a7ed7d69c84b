//! How policies went over time, drawn on a terminal: a line for each, and a column for
//! each part of the log's time.

use ::scheduler::replay::{Course, Name};
use proto::units;

/// Columns that names take on the left and the scale on the right.
pub(super) const MARGIN: usize = 24;
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// All that is drawn.
pub(super) fn draw(courses: &[(Name, Course)]) -> String {
    let Some((_, first)) = courses.first() else { return String::new() };
    let column_ms = (first.column_s * 1e3) as u64;
    let mut text = format!("\nover time, a column is {}:\n", units::brief_duration_ms(column_ms));
    text.push_str(&panel("jobs waiting (logarithmic)", courses, |course| &course.queue, true));
    text.push_str(&panel("utilisation", courses, |course| &course.utilisation, false));
    let what = "mean bounded slowdown of those submitted then (logarithmic)";
    text.push_str(&panel(what, courses, |course| &course.slowdown, true));
    text
}

/// One measure; all policies on one scale, since they are to be compared.
fn panel(
    what: &str,
    courses: &[(Name, Course)],
    of: impl Fn(&Course) -> &Vec<f64>,
    logarithmic: bool,
) -> String {
    let scaled = |value: f64| if logarithmic { value.ln_1p() } else { value };
    let most = courses.iter().flat_map(|(_, course)| of(course)).copied().fold(0.0, f64::max);
    // Utilisation is a part of one, whatever was reached of it.
    let top = if logarithmic { scaled(most).max(f64::MIN_POSITIVE) } else { 1.0 };
    let mut text = format!("\n{what}\n");
    for (name, course) in courses {
        let values = of(course);
        let bars: String = values.iter().map(|value| bar(scaled(*value) / top)).collect();
        let highest = values.iter().copied().fold(0.0, f64::max);
        let highest = if logarithmic { format!("{highest:.0}") } else { format!("{:.0} %", highest * 100.0) };
        text.push_str(&format!("{:<13}{bars} {highest:>9}\n", name.as_str()));
    }
    text
}

/// What is there at all is seen.
fn bar(part: f64) -> char {
    let steps = (BARS.len() - 1) as f64;
    BARS[((part * steps).ceil() as usize).min(BARS.len() - 1)]
}
