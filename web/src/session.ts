/**
 * The token with which this window asks the server: kept in the window's session storage and nowhere else.
 *
 * It comes by the sign-in form, or behind the `#` of an address (`/?room=notes#token=…`), which browsers do
 * not send to servers; it is taken out of the address bar and the history before anything else happens.
 */

import { ObservableV2 } from "lib0/observable";

const KEY = "plait.token";
/** The server takes no longer ones. */
const LENGTH_MAX = 16 * 1024;

/** What a token says of itself. It is read to be shown; only the server can tell whether it is true. */
export type Claims = {
  readonly subject: string | null;
  readonly name: unknown;
  readonly color: unknown;
  /** When it ends, in milliseconds since 1970. */
  readonly endsMs: number | null;
};

const NOTHING: Claims = { subject: null, name: null, color: null, endsMs: null };

class Session extends ObservableV2<{ change: (before: Claims) => void }> {
  private kept: string | null = null;
  claims: Claims = NOTHING;

  get token(): string | null {
    return this.kept;
  }

  /** What `fetch` is given. */
  get headers(): Record<string, string> {
    return this.kept === null ? {} : { Authorization: `Bearer ${this.kept}` };
  }

  /**
   * What a WebSocket offers, since it can't be given headers. The server answers with the first, and tells
   * whoever offers that at once why it closes a connection.
   */
  get protocols(): string[] {
    return this.kept === null ? ["plait"] : ["plait", `plait-token.${this.kept}`];
  }

  /** Take the token that the window has, or that its address brings; return whether that one is new. */
  start(): boolean {
    this.hold(load());
    return this.takeFromAddress();
  }

  /** Take the token out of the address, if one is there. */
  takeFromAddress(): boolean {
    const rest = new URLSearchParams(location.hash.slice(1));
    const brought = rest.get("token");
    if (brought === null) return false;
    rest.delete("token");
    // "#guest" has no value, and is to look as before.
    const hash = rest.toString().replace(/=(?=&|$)/g, "");
    history.replaceState(null, "", location.pathname + location.search + (hash && `#${hash}`));
    const token = cleanToken(brought);
    if (token === null) return false;
    this.signIn(token);
    return true;
  }

  signIn(token: string): void {
    this.set(token);
  }

  signOut(): void {
    this.set(null);
  }

  private set(token: string | null): void {
    const before = this.claims;
    this.hold(token);
    save(token);
    this.emit("change", [before]);
  }

  private hold(token: string | null): void {
    this.kept = token;
    this.claims = token === null ? NOTHING : read(token);
  }
}

export const session = new Session();

/** Return a token as it was meant, whatever was copied with it; null if it can't be one. */
export function cleanToken(text: string): string | null {
  const token = text.trim().replace(/^bearer\s+/i, "").replace(/\s+/g, "");
  // What can be a part of a subprotocol's name: all tokens are made of it.
  return /^[\w.~+-]+$/.test(token) && token.length <= LENGTH_MAX ? token : null;
}

/** Read the payload of a JWT. */
function read(token: string): Claims {
  try {
    const [, payload = "", ...rest] = token.split(".");
    if (rest.length !== 1) return NOTHING;
    const bytes = Uint8Array.from(atob(payload.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
    const { sub, name, color, exp } = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
    return {
      subject: typeof sub === "string" ? sub : null,
      name,
      color,
      endsMs: typeof exp === "number" && Number.isFinite(exp) ? exp * 1000 : null,
    };
  } catch {
    return NOTHING;
  }
}

function load(): string | null {
  try {
    return cleanToken(sessionStorage.getItem(KEY) ?? "");
  } catch {
    return null;
  }
}

function save(token: string | null): void {
  try {
    if (token === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, token);
  } catch {
    // Storage may be forbidden; then the token lasts as long as the page.
  }
}
