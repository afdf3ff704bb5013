//! Tables that fit the page: the columns of the highest rank are left out first, then text is cut.

use crate::page::{Page, Paint, paint, plain};

const GAP: usize = 2;
/// Narrowest width of a column whose text is cut.
const MIN_WIDTH: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

#[derive(Debug, Clone)]
pub struct Column {
    title: &'static str,
    align: Align,
    /// Columns of higher rank are left out first; 0 stays.
    rank: u8,
    cut: Cut,
}

/// What may become of a column's text when the page is too narrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Never,
    /// Only when no other column can be left out.
    Last,
    Freely,
}

impl Column {
    pub const fn text(title: &'static str) -> Column {
        Column { title, align: Align::Left, rank: 0, cut: Cut::Never }
    }

    pub const fn number(title: &'static str) -> Column {
        Column { title, align: Align::Right, rank: 0, cut: Cut::Never }
    }

    /// May be left out; higher ranks go first.
    pub const fn rank(self, rank: u8) -> Column {
        Column { rank, ..self }
    }

    /// May be cut before another column is left out.
    pub const fn cut(self) -> Column {
        Column { cut: Cut::Freely, ..self }
    }

    /// May be cut once every column with a rank has been left out.
    pub const fn cut_last(self) -> Column {
        Column { cut: Cut::Last, ..self }
    }
}

#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    pub fn paint(self, paint: Paint) -> Cell {
        Cell { paint, ..self }
    }
}

impl<S: Into<String>> From<S> for Cell {
    fn from(text: S) -> Cell {
        Cell { text: plain(&text.into()), paint: Paint::Plain }
    }
}

#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new(columns: impl Into<Vec<Column>>) -> Table {
        Table { columns: columns.into(), rows: Vec::new() }
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Adds a row, one cell for every column.
    pub fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        let cells = cells.into();
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    pub fn render(&self, page: &Page) -> String {
        let (shown, widths) = self.fit(page.width);
        let mut out = String::new();
        let titles: Vec<Cell> = self.columns.iter().map(|c| Cell::from(c.title).paint(Paint::Dim)).collect();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for (n, i) in shown.iter().enumerate() {
                let (Some(cell), Some(width), Some(column)) =
                    (row.get(*i), widths.get(n), self.columns.get(*i))
                else {
                    continue;
                };
                let text = cut(&cell.text, *width);
                let blank = " ".repeat(width - text.chars().count());
                let text = paint(&text, cell.paint, page);
                let last = n + 1 == shown.len();
                match column.align {
                    Align::Right => line.extend([blank.as_str(), &text]),
                    Align::Left if last => line.push_str(&text),
                    Align::Left => line.extend([text.as_str(), &blank]),
                }
                if !last {
                    line.push_str(&" ".repeat(GAP));
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    /// The columns that are shown, and their widths.
    fn fit(&self, page: usize) -> (Vec<usize>, Vec<usize>) {
        let natural: Vec<usize> = (0..self.columns.len()).map(|i| self.natural(i)).collect();
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let least = |i: usize| match self.columns[i].cut {
            Cut::Never => natural[i],
            Cut::Last | Cut::Freely => natural[i].min(MIN_WIDTH),
        };
        let total = |shown: &[usize], width: &dyn Fn(usize) -> usize| {
            shown.iter().map(|i| width(*i)).sum::<usize>() + GAP * shown.len().saturating_sub(1)
        };
        // Text is cut to a third of its length before another column is left out.
        let fair = |i: usize| match self.columns[i].cut {
            Cut::Freely => least(i).max(natural[i] / 3),
            Cut::Last | Cut::Never => natural[i],
        };
        while total(&shown, &fair) > page {
            let least_important = shown
                .iter()
                .copied()
                .filter(|i| self.columns[*i].rank > 0)
                .max_by_key(|i| self.columns[*i].rank);
            let Some(removed) = least_important else { break };
            shown.retain(|i| *i != removed);
        }
        let mut widths = natural.clone();
        while total(&shown, &|i| widths[i]) > page {
            let widest = shown.iter().copied().filter(|i| widths[*i] > least(*i)).max_by_key(|i| widths[*i]);
            let Some(i) = widest else { break };
            widths[i] -= 1;
        }
        let shown_widths = shown.iter().map(|i| widths[*i]).collect();
        (shown, shown_widths)
    }

    fn natural(&self, i: usize) -> usize {
        let cells = self.rows.iter().filter_map(|r| r.get(i)).map(|c| c.text.chars().count());
        cells.chain([self.columns[i].title.chars().count()]).max().unwrap_or(0)
    }
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(width.saturating_sub(1)).collect();
    out.push('…');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut t = Table::new([
            Column::text("NAME"),
            Column::number("N"),
            Column::text("LESS").rank(1),
            Column::text("LEAST").rank(2),
            Column::text("TEXT").cut(),
        ]);
        t.row([
            "a".into(),
            "1,000".into(),
            "some".into(),
            Cell::from("few").paint(Paint::Bad),
            "long words here".into(),
        ]);
        t.row(["bb".into(), "7".into(), "x".into(), "".into(), "a\x1b[2Jb".into()]);
        t
    }

    fn page(width: usize) -> Page {
        Page { width, color: false }
    }

    #[test]
    fn aligned_when_there_is_room() {
        let want = "NAME      N  LESS  LEAST  TEXT\na     1,000  some  few    long words here\nbb        7  x            a?[2Jb\n";
        assert_eq!(sample().render(&page(80)), want);
    }

    #[test]
    fn cut_first_then_columns_go() {
        let t = sample().render(&page(36));
        assert_eq!(t.lines().nth(1), Some("a     1,000  some  few    long word…"));
        let t = sample().render(&page(30));
        assert_eq!(t.lines().next(), Some("NAME      N  LESS  TEXT"));
        let t = sample().render(&page(22));
        assert_eq!(t.lines().nth(1), Some("a     1,000  long wor…"));
        for width in 22..80 {
            assert!(sample().render(&page(width)).lines().all(|l| l.chars().count() <= width), "{width}");
        }
    }

    #[test]
    fn colours_only_where_asked() {
        assert!(!sample().render(&page(80)).contains('\x1b'));
        let t = sample().render(&Page { width: 80, color: true });
        assert!(t.contains("\x1b[31mfew\x1b[0m  "), "{t:?}");
    }
}
