// Messages that were typed and are not known to be stored. Each keeps its
// client_message_id until it is, over every retry and over a reload.
import type { Api } from "./api";
import { Backoff, failure } from "./api";
import { pause } from "./dom";

export interface Post {
  chat: string;
  id: string;
  text: string;
  /** The newest seq that was known when it was typed. */
  after: number;
  state: "sending" | "waiting" | "failed" | "stored";
  /** An attempt has gone out whose outcome is not known. */
  uncertain: boolean;
  why: string;
}

const PAGE = 500;

export class Outbox {
  private posts: Post[];
  private readonly busy = new Set<string>();
  private wake = new AbortController();
  private closed = false;

  constructor(
    private readonly api: Api,
    private readonly key: string,
    private readonly changed: (chat: string) => void,
    private readonly signIn: () => void,
  ) {
    this.posts = JSON.parse(sessionStorage.getItem(key) ?? "[]") as Post[];
    this.posts = this.posts.filter((post) => post.state !== "stored");
    for (const post of this.posts) post.uncertain = true;
    for (const chat of new Set(this.posts.map((post) => post.chat))) void this.drain(chat);
  }

  of(chat: string): Post[] {
    return this.posts.filter((post) => post.chat === chat);
  }

  add(chat: string, text: string, after: number): void {
    const id = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random().toString(36).slice(2)}`;
    this.posts.push({ chat, id, text, after, state: "sending", uncertain: false, why: "" });
    this.note(chat);
    void this.drain(chat);
  }

  /** A message with this id has come back: it is stored. */
  came(id: string): void {
    if (!this.posts.some((post) => post.id === id)) return;
    this.posts = this.posts.filter((post) => post.id !== id);
    this.keep();
  }

  retry(post: Post): void {
    post.state = "sending";
    this.note(post.chat);
    void this.drain(post.chat);
  }

  discard(post: Post): void {
    this.came(post.id);
    this.changed(post.chat);
  }

  /** The server answers again: no need to wait any longer. */
  nudge(): void {
    this.wake.abort();
    this.wake = new AbortController();
  }

  close(): void {
    this.closed = true;
    this.nudge();
  }

  /** Sends a chat's posts one after the other, in the order in which they were typed. */
  private async drain(chat: string): Promise<void> {
    if (this.busy.has(chat)) return;
    this.busy.add(chat);
    const backoff = new Backoff();
    for (;;) {
      const post = this.of(chat).find(({ state }) => state === "sending" || state === "waiting");
      if (!post || this.closed) break;
      try {
        if (!(post.uncertain && (await this.isStored(post)))) await this.send(post);
        post.state = "stored";
        backoff.reset();
      } catch (error) {
        const what = failure(error);
        post.why = what.text;
        if (what.kind === "again") {
          post.state = "waiting";
          post.uncertain = true;
          this.note(chat);
          await pause(backoff.next(what.atLeast), this.wake.signal);
          continue;
        }
        post.state = "failed";
        if (what.kind === "sign in") this.signIn();
      }
      this.note(chat);
    }
    this.busy.delete(chat);
  }

  private async send(post: Post): Promise<void> {
    await this.api.chats.sendMessage({
      chatId: BigInt(post.chat),
      message: { text: post.text },
      clientMessageId: post.id,
    });
  }

  /** Whether an earlier attempt got through: the server tells repeated ids apart among the newest messages only. */
  private async isStored(post: Post): Promise<boolean> {
    let after = post.after;
    for (;;) {
      const page = await this.api.chats.listMessages({
        chatId: BigInt(post.chat),
        afterSeq: BigInt(after),
        pageSize: PAGE,
      });
      if (page.messages.some((message) => message.clientMessageId === post.id)) return true;
      if (!page.hasMore) return false;
      after = Number(page.messages.at(-1)!.seq);
    }
  }

  private note(chat: string): void {
    this.keep();
    this.changed(chat);
  }

  private keep(): void {
    sessionStorage.setItem(this.key, JSON.stringify(this.posts));
  }
}
