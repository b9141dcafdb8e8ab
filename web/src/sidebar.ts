// The caller's chats, newest activity first, with what is unread.
import { Backoff, failure, type Api } from "./api";
import { h, isolated, pause } from "./dom";
import type { Chat } from "./gen/chat_v1/chat_pb";

const PAGE = 50;
const MOST = 1000;
/** How often the list is asked for: in sight, and out of sight. */
const EVERY = 2_000;
const EVERY_HIDDEN = 15_000;

export interface SidebarEvents {
  open(chat: Chat): void;
  listed(chats: Chat[]): void;
  signIn(): void;
}

export class Sidebar {
  readonly element = h("ul", { id: "chats", ariaLabel: "chats" });
  chats: Chat[] = [];
  private open = "";
  private shown = PAGE;
  private more = false;
  /** What stands in the list's place until it is there. */
  private missing = "Loading …";
  private drawn = "";
  private read: Record<string, number>;
  private wake = new AbortController();
  private closed = false;

  constructor(
    private readonly api: Api,
    private readonly user: string,
    private readonly events: SidebarEvents,
  ) {
    this.read = JSON.parse(localStorage.getItem(this.key) ?? "{}") as Record<string, number>;
    this.draw();
    void this.run();
  }

  /** Asks for the list at once. */
  refresh(): void {
    this.wake.abort();
  }

  close(): void {
    this.closed = true;
    this.refresh();
  }

  select(chat: string): void {
    this.open = chat;
    this.draw();
  }

  /** The user has seen the chat up to `seq`. */
  seen(chat: string, seq: number): void {
    if ((this.read[chat] ?? 0) >= seq) return;
    this.read[chat] = seq;
    localStorage.setItem(this.key, JSON.stringify(this.read));
    this.draw();
  }

  /** The chat so many places further down. */
  beside(step: number): Chat | undefined {
    const at = this.chats.findIndex((chat) => String(chat.id) === this.open);
    return this.chats[at + step];
  }

  private get key(): string {
    return `read.${this.user}`;
  }

  private async run(): Promise<void> {
    const backoff = new Backoff();
    while (!this.closed) {
      let wait = document.hidden ? EVERY_HIDDEN : EVERY;
      this.wake = new AbortController();
      try {
        const pageSize = Math.min(this.shown, MOST);
        const { chats, nextPageToken } = await this.api.chats.listChats({ pageSize });
        if (this.closed) return;
        this.chats = chats;
        this.missing = "";
        this.more = nextPageToken !== "" && pageSize < MOST;
        this.draw();
        this.events.listed(chats);
        backoff.reset();
      } catch (error) {
        const what = failure(error);
        if (what.kind === "sign in" && !this.closed) return this.events.signIn();
        if (this.missing) this.missing = "The server can’t be reached, trying again …";
        this.draw();
        wait = backoff.next(what.kind === "again" ? what.atLeast : EVERY);
      }
      await pause(wait, this.wake.signal);
    }
  }

  private unread(chat: Chat): number {
    return Math.max(0, Number(chat.lastSeq) - (this.read[String(chat.id)] ?? 0));
  }

  private draw(): void {
    // Only what has changed is drawn: the focus stays where it is.
    const now = this.chats.map((chat) => `${chat.id} ${this.unread(chat)} ${titleOf(chat, this.user)}`);
    const drawn = [this.open, this.more, this.missing, ...now].join("\n");
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const focused = document.activeElement?.closest<HTMLElement>("[data-chat]")?.dataset.chat;
    const items = this.chats.map((chat) => h("li", {}, this.item(chat)));
    if (this.more) items.push(h("li", {}, this.moreButton()));
    if (this.missing) items.push(h("li", { className: "missing" }, this.missing));
    else if (items.length === 0) items.push(h("li", { className: "hint" }, "No chats yet."));
    this.element.replaceChildren(...items);
    if (focused) this.element.querySelector<HTMLElement>(`[data-chat="${focused}"]`)?.focus();
  }

  private item(chat: Chat): HTMLElement {
    const id = String(chat.id);
    const unread = id === this.open ? 0 : this.unread(chat);
    const button = h(
      "button",
      { className: "chat", data: { chat: id }, onclick: () => this.events.open(chat) },
      h("span", { className: "title", dir: "auto" }, titleOf(chat, this.user)),
      h("span", { className: "number" }, `#${id}`),
    );
    if (id === this.open) button.setAttribute("aria-current", "true");
    if (unread > 0) {
      const text = unread > 99 ? "99+" : String(unread);
      button.append(h("span", { className: "unread", ariaLabel: `${unread} unread` }, text));
    }
    return button;
  }

  private moreButton(): HTMLElement {
    const more = () => {
      this.shown += PAGE;
      this.refresh();
    };
    return h("button", { className: "more", onclick: more }, "More chats");
  }
}

/** A chat goes by its other members. */
export function titleOf(chat: Chat, user: string): string {
  const others = chat.info?.usernames.filter((name) => name !== user) ?? [];
  if (others.length === 0) return "Only you";
  // Of a large chat the list names some.
  const named = chat.info?.usernames.length ?? 0;
  const count = others.length + Math.max(0, chat.memberCount - named);
  const rest = count > 3 ? ` and ${count - 3} more` : "";
  return others.slice(0, 3).map(isolated).join(", ") + rest;
}
