/** Show how a room is: connected or not, saved or not, and why it can't be used. */

import { announce, byId, setText } from "./dom";
import type { Room, RoomStatus } from "./room";

/** “Saving…” stays at least this long: typing then reads as one calm state, and “Saved” is never early. */
const SAVING_MS = 350;
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
  private announcing = 0;

  constructor(startAnew: () => void) {
    this.noticeAction.addEventListener("click", startAnew);
  }

  show(room: Room): void {
    const status = room.current;
    clearTimeout(this.timer);
    if (!status.saved) this.savingSince = performance.now();
    const wait = this.savingSince + SAVING_MS - performance.now();
    if (status.saved && wait > 0 && this.state.dataset.saved === "false") {
      this.timer = window.setTimeout(() => this.draw(status), wait);
      this.draw({ ...status, saved: false });
    } else {
      this.draw(status);
    }
  }

  /** Forget the room before: its edits are not this one's. */
  reset(): void {
    this.savingSince = 0;
    this.state.dataset.saved = "true";
  }

  private draw(status: RoomStatus): void {
    this.state.dataset.connection = status.connection;
    this.state.dataset.saved = String(status.saved);
    setText(this.connection, CONNECTIONS[status.connection]);
    setText(this.saved, savedText(status));
    this.drawNotice(status);
    // While somebody types, nothing is read out; the state in which it rests is.
    clearTimeout(this.announcing);
    this.announcing = window.setTimeout(() => announce(spoken(status)), ANNOUNCE_MS);
  }

  private drawNotice({ connection, saved, reason, foreign }: RoomStatus): void {
    const text =
      connection === "offline"
        ? [reason, saved ? "Offline." : "Offline, with edits not yet sent.", OFFLINE_HELP]
        : connection === "refused"
          ? [reason, saved ? "" : "What you wrote last was not saved; copy it before you go."]
          : [connection === "live" && foreign ? FOREIGN : ""];
    const sentence = text.filter(Boolean).join(" ");
    this.notice.hidden = sentence === "";
    setText(this.noticeText, sentence);
    this.notice.dataset.kind = connection;
    this.noticeAction.hidden = connection !== "refused";
    setText(this.noticeAction, "Start a new room");
  }
}

const FOREIGN =
  "This room holds the document of another editor, which this page can’t show. " +
  "What you write here is kept beside it.";
const OFFLINE_HELP =
  "Go on typing: edits are kept in this window and will be sent when the server is back.";

function savedText({ connection, saved, saveMs }: RoomStatus): string {
  if (connection === "connecting") return "";
  if (connection === "refused") return saved ? "" : "Not saved";
  if (!saved) return connection === "live" ? "Saving…" : "Kept in this window";
  if (connection === "offline") return "Saved";
  return saveMs === null ? "Saved" : `Saved in ${Math.max(1, Math.round(saveMs))} ms`;
}

function spoken({ connection, saved }: RoomStatus): string {
  if (connection === "live") return saved ? "Live. All changes are saved." : "Live. Saving.";
  return CONNECTIONS[connection];
}
