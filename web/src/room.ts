// One chat that is open: all its messages from the oldest that was loaded to the
// newest, and the stream that brings more.
import { Backoff, failure, type Api } from "./api";
import { pause } from "./dom";
import type { Message } from "./gen/chat_v1/chat_pb";

export type RoomState = "loading" | "live" | "reconnecting" | "ended";

export interface RoomEvents {
  changed(): void;
  /** An own message has come back. */
  own(id: string): void;
  live(): void;
  signIn(): void;
}

/** Messages at first, and at a time while scrolling up. */
const NEWEST = 100;
const OLDER = 500;
/** A stream that held so long was a good one, in milliseconds. */
const HELD = 3000;

export class Room {
  messages: Message[] = [];
  state: RoomState = "loading";
  /** Why it is not live. */
  why = "";
  private loaded = false;
  private loading = false;
  private closed = false;
  private behind = false;
  private stream = new AbortController();
  private wake = new AbortController();

  constructor(
    private readonly api: Api,
    readonly id: bigint,
    private readonly events: RoomEvents,
  ) {
    void this.run();
  }

  get first(): number {
    return Number(this.messages[0]?.seq ?? 1n);
  }

  get last(): number {
    return Number(this.messages.at(-1)?.seq ?? 0n);
  }

  /** Loads the page before the first message. */
  async older(): Promise<void> {
    if (this.loading || this.first <= 1) return;
    this.loading = true;
    try {
      const first = this.first;
      const { messages } = await this.page(first);
      if (this.first === first) this.messages.unshift(...messages);
      this.events.changed();
    } catch {
      // Scrolling on asks again.
      await pause(1000);
    } finally {
      this.loading = false;
    }
  }

  /** The server says that the chat has got so far: a stream that stays behind is dead. */
  expect(seq: number): void {
    const behind = this.state === "live" && seq > this.last;
    if (behind && this.behind) this.stream.abort();
    this.behind = behind;
  }

  /** Tries again at once. */
  nudge(): void {
    this.wake.abort();
    this.wake = new AbortController();
  }

  close(): void {
    this.closed = true;
    this.stream.abort();
    this.nudge();
  }

  private async run(): Promise<void> {
    const backoff = new Backoff();
    while (!this.closed) {
      let opened = Infinity;
      let wait = 0;
      this.stream = new AbortController();
      try {
        if (!this.loaded) {
          this.messages = (await this.page()).messages;
          for (const message of this.messages) if (message.clientMessageId) this.events.own(message.clientMessageId);
          this.loaded = true;
        }
        const messages = this.api.read(this.id, this.last, this.stream.signal, () => {
          opened = Date.now();
          this.become("live");
          this.events.live();
        });
        for await (const message of messages) this.take(message);
      } catch (error) {
        const what = failure(error);
        if (this.closed) return;
        if (what.kind === "never" || what.kind === "sign in") {
          this.become("ended", what.text);
          if (what.kind === "sign in") this.events.signIn();
          return;
        }
        if (what.kind === "start anew") this.loaded = false;
        this.why = what.text;
        wait = what.kind === "again" ? what.atLeast : 0;
      }
      if (this.closed) return;
      if (Date.now() - opened > HELD) backoff.reset();
      this.become("reconnecting", this.why);
      await pause(backoff.next(wait), this.wake.signal);
    }
  }

  private take(message: Message): void {
    if (message.rejected) return;
    const seq = Number(message.seq);
    if (seq <= this.last) return;
    // A gap is none of the stream's: the database has lost what was there.
    this.messages.push(message);
    if (message.clientMessageId) this.events.own(message.clientMessageId);
    this.events.changed();
  }

  private page(before?: number) {
    if (before === undefined) return this.api.chats.listMessages({ chatId: this.id, pageSize: NEWEST });
    return this.api.chats.listMessages({ chatId: this.id, beforeSeq: BigInt(before), pageSize: OLDER });
  }

  private become(state: RoomState, why = ""): void {
    this.state = state;
    this.why = why;
    this.events.changed();
  }
}
