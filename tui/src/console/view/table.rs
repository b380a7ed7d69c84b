//! Columns: which of them fit, and where they are.

use super::paint::{Paint, Pen};
use ratatui::layout::Rect;

/// A column of a table.
pub(super) struct Column {
    pub title: &'static str,
    /// Its width; of the one that grows, the least.
    pub width: u16,
    pub right: bool,
    pub grows: bool,
    /// Those with the lowest number are left out first; 9 stays.
    pub weight: u8,
}

/// Between two columns.
const GAP: u16 = 2;

/// Where the columns are that fit into a width: index, place, width.
pub(super) fn place(columns: &[Column], width: u16) -> Vec<(usize, u16, u16)> {
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let needed =
        |kept: &[usize]| kept.iter().map(|at| columns[*at].width + GAP).sum::<u16>().saturating_sub(GAP);
    while needed(&kept) > width && kept.len() > 1 {
        let Some(least) = kept.iter().copied().min_by_key(|at| (columns[*at].weight, usize::MAX - at)) else {
            break;
        };
        kept.retain(|at| *at != least);
    }
    let spare = width.saturating_sub(needed(&kept));
    let mut x = 0;
    let mut placed = Vec::with_capacity(kept.len());
    for at in kept {
        let column = &columns[at];
        let wide = column.width + if column.grows { spare } else { 0 };
        placed.push((at, x, wide.min(width.saturating_sub(x))));
        x = x.saturating_add(wide + GAP);
    }
    placed
}

/// Writes the titles.
pub(super) fn header(pen: &mut Pen<'_>, line: Rect, columns: &[Column], places: &[(usize, u16, u16)]) {
    for (at, x, width) in places {
        let column = &columns[*at];
        cell(pen, line, (*x, *width), column.title, Paint::Header, column.right);
    }
}

/// Writes one row's cells.
pub(super) fn row<const N: usize>(
    pen: &mut Pen<'_>,
    line: Rect,
    columns: &[Column; N],
    places: &[(usize, u16, u16)],
    cells: &[(String, Paint); N],
) {
    for (at, x, width) in places {
        let (text, paint) = &cells[*at];
        cell(pen, line, (*x, *width), text, *paint, columns[*at].right);
    }
}

fn cell(pen: &mut Pen<'_>, line: Rect, (x, width): (u16, u16), text: &str, paint: Paint, right: bool) {
    let x = x.min(line.width);
    let cell = Rect { x: line.x + x, width: width.min(line.width - x), ..line };
    if right {
        pen.put_right(cell, text, paint);
    } else {
        pen.put_cut(cell, text, paint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_the_lightest_first() {
        let column = |width, grows, weight| Column { title: "", width, right: false, grows, weight };
        let columns = [column(10, false, 9), column(10, true, 5), column(8, false, 3), column(8, false, 4)];
        assert_eq!(place(&columns, 50), [(0, 0, 10), (1, 12, 18), (2, 32, 8), (3, 42, 8)]);
        assert_eq!(place(&columns, 41), [(0, 0, 10), (1, 12, 19), (3, 33, 8)]);
        assert_eq!(place(&columns, 5), [(0, 0, 5)]);
        assert_eq!(place(&columns, 0), [(0, 0, 0)]);
    }
}
