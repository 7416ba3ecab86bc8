/** Signing in by pasting a token, signing out, and a word before a token ends. */

import { ApiError, probeRoom } from "./api";
import { announce, byId, setText } from "./dom";
import { cleanToken, session } from "./session";

const WELCOME = "This server asks who you are. Paste the token that you were given.";
const REFUSED = "The server does not accept your token any more. Paste a new one.";
const ENDING = "Your token is about to end. Paste a new one.";
const ANOTHER = "Paste a token, for other rights than those that you have.";

/** How long before its end a token is said to end. */
const WARN_MS = 2 * 60_000;
const LOOK_MS = 15_000;

export class SignIn {
  private readonly dialog = byId<HTMLDialogElement>("sign-in");
  private readonly text = byId("sign-in-text");
  private readonly token = byId<HTMLInputElement>("sign-in-token");
  private readonly error = byId("sign-in-error");
  private readonly submit = byId<HTMLButtonElement>("sign-in-submit");
  private readonly button = byId<HTMLButtonElement>("session");
  private readonly expiry = byId("expiry");
  private readonly expiryText = byId("expiry-text");
  /** Whether the server asked for a token since the last one came. */
  private wanted = false;
  private timer = 0;
  /** Answers to earlier attempts, or after the dialog was closed, don't count. */
  private attempts = 0;

  constructor(
    private readonly room: () => string,
    signOut: () => void,
  ) {
    this.button.addEventListener("click", () => (session.token === null ? this.open() : signOut()));
    byId("expiry-action").addEventListener("click", () => this.open(ENDING));
    byId("sign-in-cancel").addEventListener("click", () => this.dialog.close());
    byId<HTMLFormElement>("sign-in-form").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.tryToken();
    });
    this.dialog.addEventListener("close", () => this.closed());
    session.on("change", () => {
      this.wanted = false;
      if (this.dialog.open) this.dialog.close();
      this.draw();
    });
    document.addEventListener("visibilitychange", () => this.draw());
    this.draw();
  }

  /** The server asks for a token: open the form, unless that was closed since the last token came. */
  ask(reason: string): void {
    const first = !this.wanted;
    this.wanted = true;
    this.draw();
    if (!first) return;
    // To somebody without a token the reason is that there is none.
    this.open(session.token === null ? WELCOME : `${REFUSED} ${reason}`.trim());
  }

  open(why = !this.wanted ? ANOTHER : session.token === null ? WELCOME : REFUSED): void {
    if (this.dialog.open) return;
    setText(this.text, why);
    this.fail(null);
    this.dialog.showModal();
  }

  private closed(): void {
    this.attempts += 1;
    this.token.value = "";
    this.submit.disabled = false;
  }

  private async tryToken(): Promise<void> {
    const token = cleanToken(this.token.value);
    if (token === null) return this.fail("This is not a token: it has characters that no token has.");
    const attempt = (this.attempts += 1);
    this.fail(null);
    this.submit.disabled = true;
    const answer = await probeRoom(this.room(), token);
    if (attempt !== this.attempts) return;
    this.submit.disabled = false;
    const problem = problemIn(answer);
    if (problem !== null) return this.fail(problem);
    session.signIn(token);
    announce("You are signed in.");
  }

  private fail(what: string | null): void {
    this.error.hidden = what === null;
    setText(this.error, what ?? "");
    this.token.setAttribute("aria-invalid", String(what !== null));
    if (what !== null) this.token.focus();
  }

  private draw(): void {
    this.button.hidden = session.token === null && !this.wanted;
    setText(this.button, session.token === null ? "Sign in" : "Sign out");
    clearTimeout(this.timer);
    const { endsMs } = session.claims;
    const left = endsMs === null ? Infinity : endsMs - Date.now();
    this.expiry.hidden = left > WARN_MS;
    if (endsMs === null) return;
    if (left <= WARN_MS) {
      const at = new Date(endsMs).toLocaleTimeString("en", { hour: "numeric", minute: "2-digit" });
      setText(this.expiryText, left > 0 ? `Your token ends at ${at}.` : `Your token ended at ${at}.`);
    }
    // A clock that is asked often is right after the computer has slept, too.
    if (left > 0) this.timer = window.setTimeout(() => this.draw(), Math.min(LOOK_MS, left));
  }
}

/** Why a token can't be used; null if the server knows whose it is, whatever that one may do. */
function problemIn(answer: ApiError | null): string | null {
  if (answer?.status === 401) {
    return `The server does not accept this token. ${answer.reason && `It says: “${answer.reason}”`}`.trim();
  }
  const failed = answer !== null && (answer.status === null || answer.status >= 500 || answer.status === 429);
  return failed ? `${answer.message} Try again.` : null;
}
