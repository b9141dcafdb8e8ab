// The open chat: its messages, what is on its way, and the field to type in.
import type { Api } from "./api";
import { h, isolated, shown } from "./dom";
import type { Chat, Message } from "./gen/chat_v1/chat_pb";
import { members } from "./members";
import type { Outbox, Post } from "./outbox";
import { Room } from "./room";
import { Scroller, type Rows } from "./scroller";
import type { Session } from "./session";
import { titleOf } from "./sidebar";

const STATES = {
  loading: "loading …",
  live: "live",
  reconnecting: "reconnecting …",
  ended: "ended",
} as const;

/** After such a pause the sender's name stands there again, in milliseconds. */
const PAUSE = 5 * 60_000;

/** How long what nobody sees may wait, in milliseconds. */
const HIDDEN = 200;

const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "full" });
const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

export interface PaneEvents {
  back(): void;
  gone(): void;
  seen(seq: number): void;
  live(): void;
  signIn(): void;
}

export class Pane implements Rows {
  readonly element: HTMLElement;
  readonly room: Room;
  private readonly title = h("h1", { dir: "auto" });
  private readonly status = h("span", { id: "state" });
  private readonly log = h("div", { id: "log", tabIndex: 0 });
  private readonly field = h("textarea", { id: "field", rows: 1, placeholder: "Message", dir: "auto" });
  private readonly newer = h("button", { id: "newer", hidden: true }, "New messages ↓");
  private readonly scroller: Scroller;
  /** What the rows are of, until the next drawing: the scroller measures them only then. */
  private messages: Message[] = [];
  private posts: Post[] = [];
  private lastDrawn = 0;
  private due = false;
  private closed = false;

  constructor(
    private readonly api: Api,
    private readonly session: Session,
    private readonly outbox: Outbox,
    private chat: Chat,
    private readonly events: PaneEvents,
  ) {
    this.log.setAttribute("role", "log");
    this.log.setAttribute("aria-label", "messages");
    this.field.setAttribute("aria-label", "message");
    this.status.setAttribute("role", "status");
    this.posts = outbox.of(String(chat.id));
    this.scroller = new Scroller(
      this.log,
      this,
      () => void this.room?.older(),
      () => this.noteSeen(),
    );
    this.room = new Room(api, chat.id, {
      changed: () => this.update(),
      own: (id) => this.own(id),
      live: () => events.live(),
      signIn: () => events.signIn(),
    });
    this.newer.onclick = () => this.scroller.toEnd();
    this.field.onkeydown = (event) => this.onKey(event);
    this.field.oninput = () => this.fit();
    const back = h("button", { className: "back", ariaLabel: "back to the list", onclick: () => events.back() }, "‹");
    const people = h("button", { id: "members", title: "Alt+M", onclick: () => this.members() }, "Members");
    const send = h("button", { id: "send", onclick: () => this.post() }, "Send");
    this.element = h(
      "main",
      {},
      h("header", {}, back, this.title, this.status, people),
      h("div", { className: "middle" }, this.log, this.newer),
      h("footer", {}, this.field, send),
    );
    this.setChat(chat);
    document.addEventListener("visibilitychange", this.noteSeen);
  }

  get id(): string {
    return String(this.chat.id);
  }

  setChat(chat: Chat): void {
    this.chat = chat;
    this.title.textContent = titleOf(chat, this.session.user);
    this.title.title = `#${this.id}: ${chat.info?.usernames.map(isolated).join(", ")}`;
  }

  focus(): void {
    this.field.focus({ preventScroll: true });
  }

  close(): void {
    this.closed = true;
    document.removeEventListener("visibilitychange", this.noteSeen);
    this.room.close();
  }

  members(): void {
    const left = () => this.events.gone();
    const changed = (chat: Chat) => this.setChat(chat);
    members(this.api, this.session, this.chat, left, changed);
  }

  /** Shows soon what is so by then: once for many messages. */
  update(): void {
    if (this.due) return;
    this.due = true;
    if (document.hidden) setTimeout(() => this.draw(), HIDDEN);
    else requestAnimationFrame(() => this.draw());
  }

  private draw(): void {
    this.due = false;
    if (this.closed) return;
    this.scroller.note();
    this.messages = this.room.messages.slice();
    this.posts = this.outbox.of(this.id);
    const { state, why, last } = this.room;
    this.status.textContent = STATES[state] + (why ? ` (${why})` : "");
    this.status.dataset.state = state;
    this.field.disabled = state === "ended";
    const typed = this.posts.length > 0 && this.posts.at(-1)!.state === "sending";
    if (typed) this.scroller.toEnd();
    else this.scroller.update();
    if (last > this.lastDrawn && this.lastDrawn > 0 && !this.scroller.atEnd) this.newer.hidden = false;
    this.lastDrawn = last;
    this.noteSeen();
  }

  private readonly noteSeen = (): void => {
    if (!this.scroller.atEnd) return;
    this.newer.hidden = true;
    if (!document.hidden && this.room.state !== "loading") this.events.seen(this.room.last);
  };

  private own(id: string): void {
    this.outbox.came(id);
    this.posts = this.outbox.of(this.id);
  }

  private onKey(event: KeyboardEvent): void {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.post();
    } else if (event.key === "PageUp" || event.key === "PageDown") {
      event.preventDefault();
      const page = this.log.clientHeight * 0.9;
      this.log.scrollBy(0, event.key === "PageUp" ? -page : page);
    }
  }

  private post(): void {
    const text = this.field.value.trim();
    if (!text || this.field.disabled) return;
    this.field.value = "";
    this.fit();
    this.scroller.toEnd();
    this.outbox.add(this.id, text, this.room.last);
  }

  private fit(): void {
    this.field.style.height = "auto";
    this.field.style.height = `${Math.min(this.field.scrollHeight, 160)}px`;
  }

  // The rows: what is stored, then what is on its way.

  get length(): number {
    return this.messages.length + this.posts.length;
  }

  name(index: number): string {
    const message = this.messages[index];
    return message ? String(message.seq) : this.posts[index - this.messages.length]!.id;
  }

  key(index: number): string {
    const message = this.messages[index];
    const before = this.messages[index - 1];
    if (message) return `${message.seq} ${heads(message, before)} ${newDay(message, before)}`;
    const post = this.posts[index - this.messages.length]!;
    return `${post.id} ${post.state} ${post.why}`;
  }

  guess(index: number, width: number): number {
    const message = this.messages[index];
    const text = message?.text ?? this.posts[index - this.messages.length]!.text;
    const lines = Math.ceil(text.length / Math.max(20, (width - 48) / 8));
    const before = this.messages[index - 1];
    const head = message && heads(message, before) ? 28 : 0;
    const day = message && newDay(message, before) ? 37 : 0;
    const state = message ? 0 : 21;
    return 16 + 21 * lines + head + day + state;
  }

  render(index: number): HTMLElement {
    const message = this.messages[index];
    if (!message) return this.pending(this.posts[index - this.messages.length]!);
    const before = this.messages[index - 1];
    const at = new Date(when(message).at);
    const row = h("article", { className: "row", data: { seq: String(message.seq) } });
    if (newDay(message, before)) row.append(h("div", { className: "day" }, DAY.format(at)));
    if (heads(message, before)) {
      row.append(h("div", { className: "head" }, h("b", { dir: "auto" }, shown(message.from)), " ", time(at)));
    }
    const own = message.from === this.session.user;
    row.append(h("p", { className: own ? "text own" : "text", dir: "auto", title: at.toLocaleString() }, message.text));
    return row;
  }

  private pending(post: Post): HTMLElement {
    const state = h("div", { className: "sending" });
    const row = h(
      "article",
      { className: "row", data: { state: post.state } },
      h("p", { className: "text own", dir: "auto" }, post.text),
      state,
    );
    if (post.state === "sending") state.append("sending …");
    if (post.state === "waiting") state.append(`not sent yet, trying again (${post.why}) …`);
    if (post.state === "stored") state.append("✓ stored");
    if (post.state === "failed") {
      state.append(
        `not sent: ${post.why} `,
        h("button", { onclick: () => this.outbox.retry(post) }, "Try again"),
        " ",
        h("button", { onclick: () => this.outbox.discard(post) }, "Discard"),
      );
    }
    return row;
  }
}

/** When a message was stored and on which day, in milliseconds; asked for often. */
function when(message: Message): { at: number; day: number } {
  let known = times.get(message);
  if (!known) {
    const { seconds = 0n, nanos = 0 } = message.createdAt ?? {};
    const at = Number(seconds) * 1000 + nanos / 1e6;
    known = { at, day: new Date(at).setHours(0, 0, 0, 0) };
    times.set(message, known);
  }
  return known;
}

const times = new WeakMap<Message, { at: number; day: number }>();

function time(at: Date): HTMLElement {
  return h("time", { dateTime: at.toISOString() }, TIME.format(at));
}

function newDay(message: Message, before?: Message): boolean {
  return !before || when(before).day !== when(message).day;
}

/** Whether the sender's name stands above the text. */
function heads(message: Message, before?: Message): boolean {
  return newDay(message, before) || before!.from !== message.from || when(message).at - when(before!).at > PAUSE;
}
