import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { DescMethodServerStreaming } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Client, type Transport } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { ChatV1, ConnectChatRequestSchema, type Message, type MessageSchema } from "./gen/chat_v1/chat_pb";
import { grpcAddress, type Config, type Session } from "./session";

/** Longest that a call may take; streams may take for ever. */
const CALL_TIMEOUT = 15_000;

type ConnectChat = DescMethodServerStreaming<typeof ConnectChatRequestSchema, typeof MessageSchema>;

// A browser can't stream upwards: it sends the first frame, half-closes, and
// reads. Posting is SendMessage's.
const CONNECT_CHAT = { ...ChatV1.method.connectChat, methodKind: "server_streaming" } as unknown as ConnectChat;

export class Api {
  readonly chats: Client<typeof ChatV1>;
  private readonly transport: Transport;

  constructor(config: Config, session: Session) {
    this.transport = createGrpcWebTransport({
      baseUrl: grpcAddress(config),
      interceptors: [
        (next) => async (request) => {
          request.header.set("authorization", `Bearer ${asBytes(await session.token())}`);
          return next(request);
        },
      ],
    });
    const timed: Transport = {
      ...this.transport,
      unary: (method, signal, timeout, ...rest) =>
        this.transport.unary(method, signal, timeout ?? CALL_TIMEOUT, ...rest),
    };
    this.chats = createClient(ChatV1, timed);
  }

  /** The messages behind `after`, as they come; `opened` is called once the server has answered. */
  async *read(chat: bigint, after: number, signal: AbortSignal, opened: () => void): AsyncIterable<Message> {
    const join: MessageInitShape<typeof ConnectChatRequestSchema> = {
      chatId: String(chat),
      afterSeq: BigInt(after),
    };
    const first = (async function* () {
      yield create(ConnectChatRequestSchema, join);
    })();
    const answer = await this.transport.stream(CONNECT_CHAT, signal, undefined, undefined, first);
    opened();
    yield* answer.message;
  }
}

/** A header holds bytes: a name in any script goes as its UTF-8. */
function asBytes(text: string): string {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

/** What to do about an error. */
export type Failure =
  | { kind: "again"; text: string; atLeast: number }
  | { kind: "never"; text: string }
  | { kind: "sign in"; text: string }
  | { kind: "start anew"; text: string };

export function failure(error: unknown): Failure {
  const { code, rawMessage } = ConnectError.from(error);
  switch (code) {
    case Code.Unauthenticated:
      return { kind: "sign in", text: rawMessage };
    case Code.OutOfRange:
      return { kind: "start anew", text: rawMessage };
    case Code.InvalidArgument:
    case Code.PermissionDenied:
    case Code.NotFound:
    case Code.FailedPrecondition:
    case Code.AlreadyExists:
    case Code.Unimplemented:
      return { kind: "never", text: rawMessage };
    case Code.ResourceExhausted:
      // What is too large stays too large; what is too much now may pass later.
      return rawMessage.startsWith("a message may have")
        ? { kind: "never", text: rawMessage }
        : { kind: "again", text: rawMessage, atLeast: 1000 };
    default:
      return { kind: "again", text: "the server can't be reached", atLeast: 0 };
  }
}

/** Longer and longer pauses, each of random length so that clients don't come back all at once. */
export class Backoff {
  private step = 250;

  next(atLeast = 0): number {
    const wait = Math.max(atLeast, this.step) * (0.5 + Math.random() / 2);
    this.step = Math.min(this.step * 2, 5000);
    return wait;
  }

  reset(): void {
    this.step = 250;
  }
}
