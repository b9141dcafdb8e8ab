// Who is signed in on this tab. A reload keeps it, another tab or a closed one
// does not.
import { createClient, type Client } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { AuthV1 } from "./gen/auth_v1/auth_pb";

/** What `/chat/config.json` says. */
export interface Config {
  port: number;
  tls: boolean;
  url: string | null;
  /** How users sign in: with a name, a name and a password, or a token. */
  auth: "dev" | "service" | "jwt";
}

export function grpcAddress(config: Config): string {
  const scheme = config.tls ? "https" : "http";
  return config.url ?? `${scheme}://${location.hostname}:${config.port}`;
}

interface Kept {
  user: string;
  admin: boolean;
  access: string;
  refresh?: string;
}

interface Claims {
  username?: string;
  role?: string | number;
  exp?: number;
}

const KEY = "session";
/** A token is renewed so long before it ends, in seconds. */
const EARLY = 30;
const REFRESH_EARLY = 3600;

export class Session {
  private renewing?: Promise<void>;

  private constructor(
    private kept: Kept,
    private readonly auth?: Client<typeof AuthV1>,
  ) {}

  static resume(config: Config): Session | undefined {
    const kept = sessionStorage.getItem(KEY);
    return kept ? new Session(JSON.parse(kept) as Kept, client(config)) : undefined;
  }

  /** Signs in; throws what the Auth Service says. */
  static async begin(config: Config, name: string, secret: string): Promise<Session> {
    let session: Session;
    if (config.auth === "dev") {
      session = new Session({ user: name, admin: false, access: name });
    } else if (config.auth === "jwt") {
      session = new Session(from(secret));
    } else {
      const auth = client(config)!;
      const { refreshToken } = await auth.login({ name, password: secret });
      const { accessToken } = await auth.getAccessToken({ refreshToken });
      session = new Session({ ...from(accessToken), refresh: refreshToken }, auth);
    }
    session.keep();
    return session;
  }

  get user(): string {
    return this.kept.user;
  }

  get admin(): boolean {
    return this.kept.admin;
  }

  /** A token that holds for a while; throws if there can be none. */
  async token(): Promise<string> {
    if (this.kept.refresh && endsWithin(this.kept.access, EARLY)) await this.renew();
    return this.kept.access;
  }

  end(): void {
    sessionStorage.removeItem(KEY);
  }

  private renew(): Promise<void> {
    this.renewing ??= this.renewNow().finally(() => (this.renewing = undefined));
    return this.renewing;
  }

  private async renewNow(): Promise<void> {
    let refreshToken = this.kept.refresh!;
    if (endsWithin(refreshToken, REFRESH_EARLY)) {
      ({ refreshToken } = await this.auth!.getRefreshToken({ refreshToken }));
    }
    const { accessToken } = await this.auth!.getAccessToken({ refreshToken });
    this.kept = { ...from(accessToken), refresh: refreshToken };
    this.keep();
  }

  private keep(): void {
    sessionStorage.setItem(KEY, JSON.stringify(this.kept));
  }
}

function client(config: Config): Client<typeof AuthV1> | undefined {
  if (config.auth !== "service") return undefined;
  const transport = createGrpcWebTransport({ baseUrl: grpcAddress(config), defaultTimeoutMs: 10_000 });
  return createClient(AuthV1, transport);
}

function from(access: string): Kept {
  const { username, role } = claims(access);
  if (!username) throw new Error("this is not a token with a user name in it");
  return { user: username, admin: String(role) === "1", access };
}

function endsWithin(token: string, seconds: number): boolean {
  const { exp } = claims(token);
  return exp !== undefined && exp - seconds < Date.now() / 1000;
}

/** What a token says of itself; whether it is true is the server's to check. */
function claims(token: string): Claims {
  try {
    const text = atob(token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/"));
    const bytes = Uint8Array.from(text, (char) => char.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)) as Claims;
  } catch {
    return {};
  }
}
