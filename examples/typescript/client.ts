// A chat client to copy: it posts the lines of standard input and prints what
// the chat says, across every loss of the connection, without a gap or a
// duplicate.
//
//   npm install
//   npx tsx client.ts http://127.0.0.1:8083 CHAT TOKEN [AFTER_SEQ]
//
// chat_v1/ is made of the proto file by protoc-gen-es with target=ts.
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Client } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ChatV1, ConnectChatRequestSchema, type ConnectChatRequest, type Message } from "./chat_v1/chat_pb.js";

const FIRST_PAUSE = 200;
const LONG_PAUSE = 5000;

/** Trying again would not help. */
const FINAL = [Code.Unauthenticated, Code.PermissionDenied, Code.NotFound, Code.InvalidArgument, Code.OutOfRange];

const [address, chatId, token, after] = process.argv.slice(2);
if (!address || !chatId || !token) {
  console.error("usage: client.ts http://HOST:PORT CHAT TOKEN [AFTER_SEQ]");
  process.exit(2);
}

/** The newest message that was printed: where to go on. */
let lastSeq = BigInt(after ?? 0);
/** What has not come back yet, by id, in the order in which it was typed. */
const unsent = new Map<string, string>();
let inputEnded = false;
/** Wakes the stream's request side. */
let wake = () => {};

const allSaid = () => inputEnded && unsent.size === 0;

/** The request side of a stream: the join, then each post, and again those whose `queue` entry is renewed. */
async function* requests(queue: string[], signal: AbortSignal): AsyncIterable<ConnectChatRequest> {
  yield create(ConnectChatRequestSchema, { chatId, afterSeq: lastSeq });
  while (!signal.aborted && !allSaid()) {
    const id = queue.shift();
    const text = id === undefined ? undefined : unsent.get(id);
    if (text !== undefined) {
      yield create(ConnectChatRequestSchema, { send: { text, clientMessageId: id } });
    } else if (id === undefined) {
      await new Promise<void>((done) => (wake = done));
    }
  }
}

let post = (id: string) => {};

/** One connection, from the join to its end; returns when all is said. */
async function session(chats: Client<typeof ChatV1>): Promise<void> {
  const end = new AbortController();
  // Resume behind what was seen, then post again what has not come back.
  const queue = [...unsent.keys()];
  post = (id) => (queue.push(id), wake());
  const check = setInterval(() => allSaid() && end.abort(), 50);
  try {
    const headers = { authorization: `Bearer ${token}` };
    const stream = chats.connectChat(requests(queue, end.signal), { headers, signal: end.signal });
    for await (const frame of stream) await take(frame);
    throw new ConnectError("the stream has ended", Code.Unavailable);
  } catch (error) {
    if (!allSaid()) throw error;
  } finally {
    clearInterval(check);
    end.abort();
    wake();
  }
}

async function take(frame: Message): Promise<void> {
  const { rejected, clientMessageId } = frame;
  if (!rejected) {
    if (frame.seq <= lastSeq) return;
    lastSeq = frame.seq;
    console.log(`${frame.seq} ${frame.from}: ${frame.text}`);
    unsent.delete(clientMessageId);
  } else if (rejected.code === Code.AlreadyExists) {
    // Stored by an earlier attempt.
    unsent.delete(clientMessageId);
  } else if (rejected.retryDelay) {
    await pause(Number(rejected.retryDelay.seconds) * 1000 + rejected.retryDelay.nanos / 1e6);
    post(clientMessageId);
  } else {
    console.error(`rejected: ${rejected.reason}: ${rejected.message}`);
    unsent.delete(clientMessageId);
  }
}

createInterface({ input: process.stdin })
  .on("line", (text) => {
    const id = randomUUID();
    unsent.set(id, text);
    post(id);
  })
  .on("close", () => (inputEnded = true));

const chats = createClient(ChatV1, createGrpcTransport({ baseUrl: address }));
let wait = FIRST_PAUSE;
for (;;) {
  const before = lastSeq;
  try {
    await session(chats);
    process.exit(0);
  } catch (error) {
    const { code, message } = ConnectError.from(error);
    if (FINAL.includes(code)) {
      console.error(message);
      process.exit(1);
    }
    console.error(`reconnecting: ${message}`);
  }
  if (lastSeq > before) wait = FIRST_PAUSE;
  // Of random length, so that clients do not come back all at once.
  await pause(wait * (0.5 + Math.random() / 2));
  wait = Math.min(2 * wait, LONG_PAUSE);
}
