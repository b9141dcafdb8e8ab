import "./style.css";
import { Api, failure } from "./api";
import { h } from "./dom";
import type { Chat } from "./gen/chat_v1/chat_pb";
import { newChat } from "./members";
import { Outbox } from "./outbox";
import { Pane } from "./pane";
import { Session, type Config } from "./session";
import { Sidebar } from "./sidebar";

async function start(): Promise<void> {
  const config = (await (await fetch("/chat/config.json")).json()) as Config;
  const session = Session.resume(config);
  if (session) new App(config, session);
  else signIn(config, "");
}

function signIn(config: Config, why: string): void {
  const label = (text: string, input: HTMLElement) => h("label", {}, text, input);
  const name = h("input", { id: "name", autocomplete: "username", required: true, autofocus: true });
  const secret = h("input", { id: "secret", type: "password", autocomplete: "current-password", required: true });
  const error = h("p", { className: "error" }, why);
  error.setAttribute("role", "alert");
  const fields = {
    dev: () => [label("Your name", name)],
    service: () => [label("Name", name), label("Password", secret)],
    jwt: () => [label("Token", secret)],
  }[config.auth];
  const form = h("form", { id: "sign-in" }, h("h1", {}, "Chats"), ...fields(), error, h("button", {}, "Sign in"));
  form.onsubmit = async (event) => {
    event.preventDefault();
    try {
      new App(config, await Session.begin(config, name.value.trim(), secret.value.trim()));
    } catch (cause) {
      error.textContent = failure(cause).text;
    }
  };
  document.body.replaceChildren(form);
  form.querySelector("input")?.focus();
}

class App {
  private readonly api: Api;
  private readonly sidebar: Sidebar;
  private readonly outbox: Outbox;
  private readonly place = h("div", { id: "place" });
  private readonly listening = new AbortController();
  private pane?: Pane;
  private wanted?: bigint;

  constructor(
    private readonly config: Config,
    private readonly session: Session,
  ) {
    this.api = new Api(config, session);
    const signOut = (why = "") => this.signOut(why);
    const expired = () => signOut("Please sign in again.");
    const update = (chat: string) => this.pane?.id === chat && this.pane.update();
    this.outbox = new Outbox(this.api, `outbox.${session.user}`, update, expired);
    this.sidebar = new Sidebar(this.api, session.user, {
      open: (chat) => this.open(chat),
      listed: (chats) => this.listed(chats),
      signIn: expired,
    });
    const make = h("button", { id: "new", title: "Alt+N", onclick: () => this.newChat() }, "New chat");
    const out = h("button", { id: "sign-out", onclick: () => signOut() }, "Sign out");
    const aside = h(
      "aside",
      {},
      h("header", {}, h("b", { dir: "auto" }, session.user), make, out),
      this.sidebar.element,
      h("p", { className: "keys" }, "Alt+↑ ↓ chats · Alt+N new · Alt+M members · Enter sends"),
    );
    document.body.replaceChildren(aside, this.place);
    this.show();
    const { signal } = this.listening;
    addEventListener("keydown", (event) => this.onKey(event), { signal });
    addEventListener("online", () => this.nudge(), { signal });
    document.addEventListener("visibilitychange", () => document.hidden || this.nudge(), { signal });
  }

  private open(chat: Chat): void {
    this.pane?.close();
    this.pane = new Pane(this.api, this.session, this.outbox, chat, {
      back: () => this.show(),
      gone: () => (this.show(), this.sidebar.refresh()),
      seen: (seq) => this.sidebar.seen(String(chat.id), seq),
      live: () => this.outbox.nudge(),
      signIn: () => this.signOut("Please sign in again."),
    });
    this.place.replaceChildren(this.pane.element);
    document.body.dataset.view = "chat";
    this.sidebar.select(this.pane.id);
    this.pane.update();
    this.pane.focus();
  }

  /** No chat is open. */
  private show(): void {
    this.pane?.close();
    this.pane = undefined;
    this.sidebar.select("");
    this.place.replaceChildren(h("p", { className: "hint" }, "Choose a chat, or make a new one."));
    document.body.dataset.view = "list";
  }

  private listed(chats: Chat[]): void {
    const wanted = chats.find((chat) => chat.id === this.wanted);
    if (wanted) {
      this.wanted = undefined;
      this.open(wanted);
    }
    const open = chats.find((chat) => String(chat.id) === this.pane?.id);
    if (!open || !this.pane) return;
    this.pane.setChat(open);
    this.pane.room.expect(Number(open.lastSeq));
  }

  private newChat(): void {
    newChat(this.api, (id) => {
      this.wanted = id;
      this.sidebar.refresh();
    });
  }

  private nudge(): void {
    this.sidebar.refresh();
    this.outbox.nudge();
    this.pane?.room.nudge();
  }

  private onKey(event: KeyboardEvent): void {
    if (event.key === "Escape" && this.pane && !document.querySelector("dialog")) return this.show();
    if (!event.altKey || document.querySelector("dialog")) return;
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const chat = step && this.sidebar.beside(step);
    if (chat) this.open(chat);
    else if (event.code === "KeyN") this.newChat();
    else if (event.code === "KeyM") this.pane?.members();
    else return;
    event.preventDefault();
  }

  private signOut(why: string): void {
    if (this.listening.signal.aborted) return;
    this.listening.abort();
    this.pane?.close();
    this.outbox.close();
    this.sidebar.close();
    this.session.end();
    signIn(this.config, why);
  }
}

void start();
