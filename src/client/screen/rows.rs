//! What a message looks like: how many rows it takes, and the rows.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use ratatui::{
    layout::Rect,
    style::{Color, Modifier, Style, Stylize as _},
    text::{Line, Span},
};

use super::{areas::inside, text};
use crate::{client::print, proto};

/// With less room than this for a message, its sender stands above it.
const ROOMY: usize = 44;
const MAX_NAME: usize = 14;

/// `HH:MM`.
const TIME: usize = 5;

/// They follow the terminal's own palette, so they suit dark and light.
const COLOURS: [Color; 5] = [
    Color::Green,
    Color::Yellow,
    Color::Magenta,
    Color::Blue,
    Color::Red,
];
pub(super) const OWN: Color = Color::Cyan;

/// A pane of messages, and for whom it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pane<'a> {
    pub(super) columns: usize,
    pub(super) rows: usize,
    pub(super) me: &'a str,
    /// The longest name of a member, in columns.
    pub(super) names: usize,
}

/// What stands before a message decides what is said anew.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) before: Option<&'a proto::Message>,
    /// The first message that the user has not seen yet.
    pub(super) is_new: bool,
}

/// A message of one's own that is not known to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) id: String,
    pub(super) text: String,
    /// Why it will not be stored, if it is given up.
    pub(super) failed: Option<String>,
}

struct Moment {
    date: String,
    time: String,
}

impl Moment {
    fn of(message: &proto::Message) -> Self {
        let text = print::time(message.created_at.as_ref());
        match (text.get(..10), text.get(11..16)) {
            (Some(date), Some(time)) => Self {
                date: date.to_owned(),
                time: time.to_owned(),
            },
            _ => Self {
                date: String::new(),
                time: String::new(),
            },
        }
    }
}

impl<'a> Pane<'a> {
    pub(super) fn new(area: Rect, names: usize, me: &'a str) -> Self {
        let inside = inside(area);
        Self {
            columns: inside.width.into(),
            rows: inside.height.into(),
            me,
            names,
        }
    }

    fn is_roomy(&self) -> bool {
        self.columns >= ROOMY
    }

    fn names(&self) -> usize {
        self.names.clamp(3, MAX_NAME)
    }

    fn text_columns(&self) -> usize {
        match self.is_roomy() {
            true => self.columns - TIME - self.names() - 4,
            false => self.columns,
        }
    }

    /// Rows that a message takes.
    pub(super) fn height(&self, place: Place<'_>, message: &proto::Message) -> usize {
        let says = Says::of(place, message);
        let head = !self.is_roomy() && says.who;
        usize::from(says.date)
            + usize::from(place.is_new)
            + usize::from(head)
            + text::rows(&message.text, self.text_columns()).len()
    }

    pub(super) fn draw(&self, place: Place<'_>, message: &proto::Message) -> Vec<Line<'static>> {
        let says = Says::of(place, message);
        let moment = Moment::of(message);
        let mut lines = Vec::new();
        if says.date {
            lines.push(self.rule(&format!("{}, UTC", moment.date), Style::new().dim()));
        }
        if place.is_new {
            lines.push(self.rule("new", Style::new().fg(Color::Red)));
        }
        let time = if says.minute { &moment.time[..] } else { "" };
        let name = if says.who { &message.from[..] } else { "" };
        let name = print::name(name);
        let time = Span::from(time.to_owned()).dim();
        self.body(&mut lines, (time, &name), &message.text, Style::new());
        lines
    }

    pub(super) fn draw_pending(&self, pending: &Pending, live: bool) -> Vec<Line<'static>> {
        let state = match (&pending.failed, live) {
            (Some(_), _) => Span::from("fail!").fg(Color::Red).bold(),
            (None, true) => Span::from("send…").fg(Color::Yellow),
            (None, false) => Span::from("wait…").fg(Color::Yellow),
        };
        let mut lines = Vec::new();
        self.body(
            &mut lines,
            (state, self.me),
            &pending.text,
            Style::new().dim(),
        );
        if let Some(why) = &pending.failed {
            let why = format!("not stored: {why}. Ctrl-R retries, Ctrl-X takes it back");
            for row in text::rows(&why, self.text_columns()) {
                let why = Span::from(text::shown(&why[row])).fg(Color::Red);
                lines.push(self.row(&mut (Span::default(), Span::default()), why));
            }
        }
        lines
    }

    fn body(
        &self,
        lines: &mut Vec<Line<'static>>,
        (time, name): (Span<'static>, &str),
        body: &str,
        style: Style,
    ) {
        let mut head = (time, self.name(name));
        if !self.is_roomy() && !name.is_empty() {
            let (time, name) = std::mem::take(&mut head);
            let gap = if time.content.is_empty() { "" } else { " " };
            lines.push(Line::from(vec![time, Span::from(gap), name]));
        }
        for row in text::rows(body, self.text_columns()) {
            let row = Span::styled(text::shown(&body[row]), style);
            lines.push(self.row(&mut head, row));
        }
    }

    /// A row of text behind its margin. What the margin says, it says once.
    fn row(&self, head: &mut (Span<'static>, Span<'static>), row: Span<'static>) -> Line<'static> {
        if !self.is_roomy() {
            return Line::from(row);
        }
        let (time, name) = std::mem::take(head);
        let before = TIME.saturating_sub(time.width()) + 1;
        let between = self.names().saturating_sub(name.width());
        Line::from(vec![
            time,
            Span::from(" ".repeat(before + between)),
            name,
            Span::from(" │ ").dim(),
            row,
        ])
    }

    fn name(&self, name: &str) -> Span<'static> {
        let colour = colour(name, self.me);
        let shown = match self.is_roomy() {
            true => text::cut(name, self.names()),
            false => text::cut(name, self.columns.saturating_sub(TIME + 1)),
        };
        let style = Style::new().fg(colour).add_modifier(Modifier::BOLD);
        Span::styled(shown, style)
    }

    fn rule(&self, what: &str, style: Style) -> Line<'static> {
        let around = self.columns.saturating_sub(text::width(what) + 2);
        let (left, right) = (around / 2, around - around / 2);
        let line = format!("{} {what} {}", "─".repeat(left), "─".repeat(right));
        Line::styled(line, style)
    }
}

/// What is said at a message that was not said at the one before it.
struct Says {
    date: bool,
    minute: bool,
    who: bool,
}

impl Says {
    fn of(place: Place<'_>, message: &proto::Message) -> Self {
        let this = Moment::of(message);
        let Some(before) = place.before else {
            let date = message.seq == 1 && !this.date.is_empty();
            return Self {
                date,
                minute: true,
                who: true,
            };
        };
        let that = Moment::of(before);
        let date = this.date != that.date;
        let minute = date || place.is_new || this.time != that.time;
        let who = minute || message.from != before.from;
        Self { date, minute, who }
    }
}

/// A user's colour, the same at every start.
fn colour(name: &str, me: &str) -> Color {
    if name == me {
        return OWN;
    }
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    COLOURS[(hasher.finish() % COLOURS.len() as u64) as usize]
}
