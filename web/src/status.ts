/** Show how a room is: connected or not, saved or not, and why it can't be used. */

import { announce, byId, setText } from "./dom";
import { NOT_ALLOWED, type Room, type RoomStatus, UNAUTHORIZED } from "./room";
import { session } from "./session";

/** “Saving…” stays at least this long: typing then reads as one calm state, and “Saved” is never early. */
const SAVING_MS = 350;
/** From when on it is said how long an edit has been waiting for the server to save it. */
const LATE_MS = 3000;
const ANNOUNCE_MS = 1000;

const CONNECTIONS = {
  connecting: "Connecting…",
  live: "Live",
  offline: "Offline",
  refused: "Closed",
} as const;

export class StatusLine {
  private readonly state = byId("state");
  private readonly connection = byId("connection");
  private readonly saved = byId("saved");
  private readonly notice = byId("notice");
  private readonly noticeText = byId("notice-text");
  private readonly noticeAction = byId<HTMLButtonElement>("notice-action");
  private savingSince = 0;
  private timer = 0;
  private ticking = 0;
  private announcing = 0;

  private action: Action | null = null;

  constructor(actions: Record<Action, () => void>) {
    this.noticeAction.addEventListener("click", () => this.action !== null && actions[this.action]());
  }

  show(room: Room): void {
    const status = room.current;
    clearTimeout(this.timer);
    if (!status.saved) this.savingSince = performance.now();
    const wait = this.savingSince + SAVING_MS - performance.now();
    if (status.saved && wait > 0 && this.state.dataset.saved === "false") {
      this.timer = window.setTimeout(() => this.draw(room, status), wait);
      this.draw(room, { ...status, saved: false });
    } else {
      this.draw(room, status);
    }
  }

  /** Forget the room before: its edits are not this one's. */
  reset(): void {
    clearTimeout(this.ticking);
    clearTimeout(this.announcing);
    this.savingSince = 0;
    this.state.dataset.saved = "true";
  }

  private draw(room: Room, status: RoomStatus): void {
    this.state.dataset.connection = status.connection;
    this.state.dataset.saved = String(status.saved);
    setText(this.connection, CONNECTIONS[status.connection]);
    this.drawSaved(room, status);
    this.drawNotice(status);
    // While somebody types, nothing is read out; the state in which it rests is.
    clearTimeout(this.announcing);
    this.announcing = window.setTimeout(() => announce(spoken(status, isLate(room, status))), ANNOUNCE_MS);
  }

  /** Say whether all is saved; while it is not, look again each second how long that has been so. */
  private drawSaved(room: Room, status: RoomStatus): void {
    clearTimeout(this.ticking);
    const late = isLate(room, status);
    if (late && this.state.dataset.late !== "true") announce(spoken(status, late));
    this.state.dataset.late = String(late);
    const { unsavedMs, overdueMs } = room;
    setText(this.saved, late ? `Not saved for ${Math.floor(unsavedMs / 1000)} s` : savedText(status));
    if (status.connection !== "live" || status.saved || unsavedMs === 0) return;
    const wait = late ? 1000 - (unsavedMs % 1000) : LATE_MS - overdueMs;
    this.ticking = window.setTimeout(() => this.drawSaved(room, status), Math.max(1, wait));
  }

  private drawNotice(status: RoomStatus): void {
    const sentence = noticeText(status);
    this.notice.hidden = sentence === "";
    setText(this.noticeText, sentence);
    this.notice.dataset.kind = unsavable(status) ? "offline" : status.connection;
    this.action = actionFor(status);
    this.noticeAction.hidden = this.action === null;
    setText(this.noticeAction, this.action === null ? "" : ACTIONS[this.action]);
  }
}

/** What can be done about a notice. */
type Action = "signIn" | "discard" | "startAnew";

const ACTIONS: Record<Action, string> = {
  signIn: "Sign in",
  discard: "Discard my changes",
  startAnew: "Start a new room",
};

function actionFor(status: RoomStatus): Action | null {
  const { connection, code, readOnly } = status;
  if (connection === "refused") {
    return code === UNAUTHORIZED || code === NOT_ALLOWED ? "signIn" : "startAnew";
  }
  if (unsavable(status)) return "discard";
  return connection === "live" && readOnly && session.token === null ? "signIn" : null;
}

/** Whether edits were refused, and the connection that would save them is there. */
function unsavable({ connection, saved, readOnly, denied }: RoomStatus): boolean {
  return connection === "live" && !saved && (readOnly || denied !== null);
}

/** Whether the server takes long to save an edit that it was sent. */
function isLate(room: Room, status: RoomStatus): boolean {
  return status.connection === "live" && !status.saved && !unsavable(status) && room.overdueMs >= LATE_MS;
}

function noticeText(status: RoomStatus): string {
  const { connection, saved, reason, readOnly, denied, foreign } = status;
  const sentences: (string | null | false)[] =
    connection === "offline"
      ? [reason, saved ? "Offline." : "Offline, with edits not yet sent.", readOnly ? "" : OFFLINE_HELP]
      : connection === "refused"
        ? [reason, !saved && (status.code === UNAUTHORIZED ? SIGN_IN_TO_SAVE : LOST)]
        : connection === "connecting"
          ? []
          : [
              readOnly && READ_ONLY,
              !readOnly && denied !== null && `The server does not accept this: “${denied}”.`,
              unsavable(status) && NOT_SAVED,
              foreign && !readOnly && FOREIGN,
              foreign && readOnly && FOREIGN_READ_ONLY,
            ];
  return sentences.filter(Boolean).join(" ");
}

const READ_ONLY = "You can read this room, not edit it.";
const NOT_SAVED = "What you wrote last is not saved, and nobody else sees it. It stays here to be copied.";
const LOST = "What you wrote last was not saved; copy it before you go.";
const SIGN_IN_TO_SAVE = "What you wrote last is not saved yet: sign in to save it, or copy it.";

const FOREIGN =
  "This room holds the document of another editor, which this page can’t show. " +
  "What you write here is kept beside it.";
const FOREIGN_READ_ONLY = "It holds the document of another editor, which this page can’t show.";
const OFFLINE_HELP =
  "Go on typing: edits are kept in this window and will be sent when the server is back.";

function savedText(status: RoomStatus): string {
  const { connection, saved, saveMs, readOnly } = status;
  if (connection === "connecting") return "";
  if (connection === "refused") return saved ? "" : "Not saved";
  if (unsavable(status)) return "Not saved";
  if (readOnly && saved) return "Read only";
  if (!saved) return connection === "live" ? "Saving…" : "Kept in this window";
  if (connection === "offline") return "Saved";
  return saveMs === null ? "Saved" : `Saved in ${Math.max(1, Math.round(saveMs))} ms`;
}

function spoken(status: RoomStatus, late: boolean): string {
  const { connection, saved, readOnly } = status;
  if (unsavable(status)) return "Live. Your last changes are not saved.";
  if (late) return "Live. The server has not saved your last changes yet.";
  if (connection === "live" && readOnly) return "Live. Read only.";
  if (connection === "live") return saved ? "Live. All changes are saved." : "Live. Saving.";
  return CONNECTIONS[connection];
}
