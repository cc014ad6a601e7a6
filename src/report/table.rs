//! Tables with columns as wide as they have to be. At a terminal they have colours, and details
//! fit its width.

use console::{Style, measure_text_width};

use crate::host::file::printable;

/// How a cell is meant. The text says it as well: not everybody sees colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Attention,
    Bad,
}

/// One row, with what there is to say about it besides.
#[derive(Debug)]
pub(crate) struct Row {
    cells: Vec<String>,
    tone: Option<(usize, Tone)>,
    detail: Option<String>,
}

impl Row {
    pub(crate) fn new(cells: impl IntoIterator<Item = String>) -> Self {
        let cells = cells.into_iter().map(printable).collect();
        Self { cells, tone: None, detail: None }
    }

    pub(crate) fn toned(self, column: usize, tone: Tone) -> Self {
        Self { tone: Some((column, tone)), ..self }
    }

    pub(crate) fn with_detail(self, detail: Option<&str>) -> Self {
        Self { detail: detail.map(printable), ..self }
    }
}

/// How wide a terminal is that does not say so.
const USUAL_WIDTH: usize = 80;

/// Where a table is printed, if that is a terminal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terminal {
    pub(super) width: usize,
    pub(super) has_colours: bool,
}

impl Terminal {
    pub(super) fn of_stdout() -> Option<Self> {
        Self::of(&console::Term::stdout(), console::colors_enabled())
    }

    pub(super) fn of_stderr() -> Option<Self> {
        Self::of(&console::Term::stderr(), console::colors_enabled_stderr())
    }

    fn of(terminal: &console::Term, has_colours: bool) -> Option<Self> {
        let width = terminal.size_checked().map_or(USUAL_WIDTH, |(_, width)| width.into());
        terminal.is_term().then_some(Self { width, has_colours })
    }

    /// A heading and details that are indented, in lines that fit. The name at the beginning is bold.
    pub(super) fn entry(self, text: &str) -> String {
        let lines = text.lines().flat_map(|line| match line.strip_prefix(INDENT) {
            Some(detail) => wrapped(detail, [INDENT, FURTHER], self.width),
            None => wrapped(line, ["", FURTHER], self.width),
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        let (name, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
        format!("{}{rest}", self.paint(&Style::new().bold(), name))
    }

    pub(super) fn toned(self, tone: Tone, text: &str) -> String {
        self.paint(&style(tone), text)
    }

    fn paint(self, style: &Style, text: &str) -> String {
        style.clone().force_styling(self.has_colours).apply_to(text).to_string()
    }
}

/// The whole table. Off a terminal each row is one line, and its detail the last column.
pub(super) fn render(head: &[&str], rows: &[Row], terminal: Option<Terminal>) -> String {
    let mut widths: Vec<usize> = head.iter().map(|word| measure_text_width(word)).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(&row.cells) {
            *width = (*width).max(measure_text_width(cell));
        }
    }
    let pad = |cells: &[String]| -> Vec<String> {
        let padded = cells.iter().zip(&widths);
        padded
            .map(|(cell, width)| {
                console::pad_str(cell, *width, console::Alignment::Left, None).into_owned()
            })
            .collect()
    };
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let mut text = vec![pad(&head).join("  ").trim_end().to_string()];
    if let (Some(terminal), Some(head)) = (terminal, text.first_mut()) {
        *head = terminal.paint(&Style::new().bold(), head);
    }
    for row in rows {
        let mut cells = pad(&row.cells);
        if let Some(terminal) = terminal {
            if let Some((cell, tone)) =
                row.tone.and_then(|(column, tone)| Some((cells.get_mut(column)?, tone)))
            {
                *cell = terminal.paint(&style(tone), cell);
            }
            text.push(cells.join("  ").trim_end().to_string());
            text.extend(
                row.detail.iter().flat_map(|detail| wrapped(detail, [INDENT; 2], terminal.width)),
            );
        } else {
            cells.extend(row.detail.clone());
            text.push(cells.join("  ").trim_end().to_string());
        }
    }
    text.join("\n")
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Good => Style::new().green(),
        Tone::Attention => Style::new().yellow(),
        Tone::Bad => Style::new().red(),
    }
}

const INDENT: &str = "    ";

/// How far a line is indented that continues one of an entry.
const FURTHER: &str = "        ";

/// A text in lines that fit: what precedes the first one and each of the others is given. A word that
/// is longer than a line stays whole.
fn wrapped(text: &str, [first, others]: [&str; 2], width: usize) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match found.last_mut() {
            Some(line) if measure_text_width(line) + 1 + measure_text_width(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) => found.push(format!("{others}{word}")),
            None => found.push(format!("{first}{word}")),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: [&str; 3] = ["NAME", "STATE", "PATH"];

    fn rows() -> Vec<Row> {
        let row = |cells: [&str; 3]| Row::new(cells.map(String::from));
        vec![
            row(["blog", "stale", "/srv/blog/venv"]).toned(1, Tone::Attention).with_detail(Some(
                "bin/python3 is a copy of another build than /usr/bin/python3.13",
            )),
            row(["größer", "healthy", "/srv/größer/venv"]).toned(1, Tone::Good),
        ]
    }

    #[test]
    fn off_a_terminal_each_row_is_one_line_without_colours() {
        assert_eq!(
            render(&HEAD, &rows(), None),
            "NAME    STATE    PATH\n\
             blog    stale    /srv/blog/venv    bin/python3 is a copy of another build than /usr/bin/python3.13\n\
             größer  healthy  /srv/größer/venv"
        );
    }

    #[test]
    fn at_a_terminal_details_are_wrapped_to_its_width() {
        let terminal = |width| Some(Terminal { width, has_colours: false });
        let text = render(&HEAD, &rows(), terminal(40));
        assert_eq!(
            text,
            "NAME    STATE    PATH\n\
             blog    stale    /srv/blog/venv\n    \
                 bin/python3 is a copy of another\n    \
                 build than /usr/bin/python3.13\n\
             größer  healthy  /srv/größer/venv"
        );
        assert_eq!(render(&HEAD, &rows(), terminal(120)).lines().count(), 4);
    }

    #[test]
    fn colours_are_around_the_state_only() {
        let text = render(&HEAD, &rows(), Some(Terminal { width: 80, has_colours: true }));
        assert!(text.contains("blog    \u{1b}[33mstale  \u{1b}[0m  /srv"), "{text:?}");
        assert!(text.contains("\u{1b}[32mhealthy\u{1b}[0m"), "{text:?}");
    }

    #[test]
    fn an_entry_fits_and_its_name_is_bold() {
        let terminal = Terminal { width: 30, has_colours: true };
        let text = "shop (/srv/shop/venv) is rebuilt for Python 3.13\n    it has packages for 3.11";
        assert_eq!(
            terminal.entry(text),
            "\u{1b}[1mshop\u{1b}[0m (/srv/shop/venv) is\n        rebuilt for Python\n        3.13\n    it has packages for 3.11"
        );
    }

    #[test]
    fn a_cell_cannot_paint_or_forge_a_row() {
        let row = || {
            let row = Row::new(["\u{1b}[31mred\nshop  healthy".to_string()]);
            row.with_detail(Some("a\u{1b}[2J\nshop  healthy"))
        };
        for terminal in [None, Some(Terminal { width: 80, has_colours: false })] {
            let text = render(&["NAME"], &[row()], terminal);
            assert!(!text.contains('\u{1b}'), "{text:?}");
            assert!(!text.lines().any(|line| line.starts_with("shop")), "{text}");
        }
    }
}
