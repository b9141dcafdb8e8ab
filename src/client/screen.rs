//! `chatd connect` on a terminal: all chats of a user on one screen. Everything
//! that can be decided without a terminal, a clock or a server is in `state.rs`;
//! here is what reads keys, calls and draws.
//!
//! Invariants:
//! 1. The terminal is given back as it was, whatever ends the client.
//! 2. What the server sends reaches the terminal only as `text.rs` shows it.
//! 3. One task does it all; of what its calls share, only the tokens have a lock.

mod areas;
mod calls;
mod history;
mod input;
mod keys;
mod list;
mod marks;
mod press;
mod room;
mod rows;
mod state;
mod terminal;
mod text;
mod view;

use std::{
    collections::HashMap,
    pin::Pin,
    time::{Duration, Instant},
};

use crossterm::event::{Event as Input, EventStream, KeyEventKind};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{self, Receiver, Sender},
    time::{MissedTickBehavior, interval},
};

use super::{
    ClientError,
    outbox::{self, Line},
    peer::Peer,
    print,
};
use crate::config::ConnectConfig;

use calls::Desk;
use marks::MarkFile;
use state::{Effect, Event, State};

pub use terminal::FullScreen;

/// Events that calls and streams may be ahead of the screen.
const EVENTS: usize = 256;
const TICK: Duration = Duration::from_secs(1);

struct Screen {
    peer: Peer,
    state: State,
    events: Sender<Event>,
    inbox: Receiver<Event>,
    /// Calls and streams that go on.
    work: FuturesUnordered<Pin<Box<dyn Future<Output = ()>>>>,
    /// The way to each open chat's stream.
    lines: HashMap<i64, Sender<Line>>,
    is_listing: bool,
}

pub(super) async fn run(config: ConnectConfig) -> Result<(), ClientError> {
    let peer = Peer::new(&config.peer).await?;
    let me = peer.user().to_owned();
    let mut marks = MarkFile::new(config.marks, &me, &config.peer.addr);
    let mut full = FullScreen::enter()?;
    let size = full.terminal().size()?;
    let size = (size.width, size.height);
    let state = State::new(&me, &config.peer.addr, marks.marks().clone(), size);
    let (events, inbox) = mpsc::channel(EVENTS);
    let mut screen = Screen {
        peer,
        state,
        events,
        inbox,
        work: FuturesUnordered::new(),
        lines: HashMap::new(),
        is_listing: false,
    };
    let done = screen.run(config.chat, &mut full, &mut marks).await;
    drop(full);
    marks.keep(screen.state.list.marks());
    match screen.state.unstored() {
        0 => {}
        n => print::note(&format!("messages that are not known to be stored: {n}")),
    }
    done
}

impl Screen {
    async fn run(
        &mut self,
        chat: Option<i64>,
        full: &mut FullScreen,
        marks: &mut MarkFile,
    ) -> Result<(), ClientError> {
        let mut keys = EventStream::new();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut term = signal(SignalKind::terminate())?;
        let mut hup = signal(SignalKind::hangup())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut effects = self.state.begin(chat);
        loop {
            for effect in effects {
                match effect {
                    Effect::Quit => return Ok(()),
                    Effect::Redraw => full.forget()?,
                    effect => self.perform(effect),
                }
            }
            let now = Instant::now();
            full.terminal().draw(|frame| {
                // The event that tells of a new size may still be on its way.
                self.state.resize(frame.area().as_size().into());
                view::draw(&self.state, frame, now);
            })?;
            let event = tokio::select! {
                input = keys.next() => match input {
                    Some(input) => event_of(input?),
                    // The terminal is gone.
                    None => return Ok(()),
                },
                Some(event) = self.inbox.recv() => Some(event),
                Some(()) = self.work.next() => None,
                _ = ticks.tick() => {
                    marks.keep(self.state.list.marks());
                    Some(Event::Tick)
                }
                _ = term.recv() => return Ok(()),
                _ = hup.recv() => return Ok(()),
                _ = int.recv() => return Ok(()),
            };
            effects = self.take(event);
        }
    }

    /// Takes this event in, and those that are there already: a flood is drawn
    /// once.
    fn take(&mut self, first: Option<Event>) -> Vec<Effect> {
        let mut effects = Vec::new();
        let now = Instant::now();
        let mut next = first;
        for _ in 0..EVENTS {
            let Some(event) = next.take().or_else(|| self.inbox.try_recv().ok()) else {
                break;
            };
            if matches!(event, Event::Chats(_)) {
                self.is_listing = false;
            }
            effects.extend(self.state.update(event, now));
        }
        effects
    }

    fn perform(&mut self, effect: Effect) {
        let (peer, events) = (self.peer.clone(), self.events.clone());
        match effect {
            Effect::Open(chat) => {
                let (sender, lines) = mpsc::channel(outbox::CAPACITY);
                self.lines.insert(chat, sender);
                let desk = Desk {
                    chat,
                    events,
                    lines,
                };
                self.work.push(Box::pin(calls::read(peer, desk)));
            }
            // The stream ends by itself when nothing can come any more.
            Effect::Close(chat) => drop(self.lines.remove(&chat)),
            Effect::Load(chat, page) => {
                self.work
                    .push(Box::pin(calls::load(peer, chat, page, events)));
            }
            Effect::Post { chat, id, text } => self.post(chat, Line::with_id(id, text)),
            Effect::List(size) if !self.is_listing => {
                self.is_listing = true;
                self.work.push(Box::pin(calls::list(peer, size, events)));
            }
            Effect::List(_) | Effect::Redraw | Effect::Quit => {}
        }
    }

    fn post(&mut self, chat: i64, line: Line) {
        let id = line.id.clone();
        let sent = self.lines.get(&chat).map(|lines| lines.try_send(line));
        if !matches!(sent, Some(Ok(()))) {
            let why = "too much waits to be posted".to_owned();
            let refused = Event::Refused(chat, id, why);
            // It has no effects.
            _ = self.state.update(refused, Instant::now());
        }
    }
}

fn event_of(input: Input) -> Option<Event> {
    match input {
        Input::Key(key) if key.kind != KeyEventKind::Release => Some(Event::Key(key)),
        Input::Paste(text) => Some(Event::Paste(text)),
        Input::Resize(width, height) => Some(Event::Resize(width, height)),
        _ => None,
    }
}
