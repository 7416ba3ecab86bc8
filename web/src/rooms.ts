/** The list of rooms: refreshed while it can be seen, kept in place so that focus and reading are not disturbed. */

import { ApiError, deleteRoom, listRooms, readState, type RoomInfo, type RoomPage } from "./api";
import { announce, byId, icon, make, setText } from "./dom";
import { ago, people, size } from "./format";
import { session } from "./session";

const REFRESH_MS = 4000;
const SOON_MS = 250;

type Row = {
  readonly element: HTMLLIElement;
  readonly link: HTMLAnchorElement;
  readonly members: HTMLElement;
  readonly facts: HTMLElement;
};

export class RoomList {
  private readonly list = byId("rooms");
  private readonly message = byId("rooms-message");
  private readonly failure = byId("rooms-failure");
  private readonly more = byId<HTMLButtonElement>("more");
  private readonly filter = byId<HTMLInputElement>("filter");
  private readonly rows = new Map<string, Row>();
  private readonly confirm = byId<HTMLDialogElement>("confirm");
  private doomed: string | null = null;
  private current = "";
  private pages = 1;
  private timer = 0;
  /** Answers to earlier questions are not shown over later ones. */
  private asked = 0;

  constructor(
    private readonly open: (name: string) => void,
    private readonly unauthorized: (reason: string) => void,
  ) {
    session.on("change", () => {
      this.fail(null);
      void this.refresh();
    });
    this.filter.addEventListener("input", () => {
      this.pages = 1;
      this.fail(null);
      this.refreshSoon();
    });
    this.more.addEventListener("click", () => {
      this.pages += 1;
      void this.refresh();
    });
    this.list.addEventListener("keydown", (event) => this.moveFocus(event));
    this.confirm.addEventListener("close", () => void this.confirmed());
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") void this.refresh();
      else clearTimeout(this.timer);
    });
    void this.refresh();
  }

  setCurrent(name: string): void {
    this.current = name;
    for (const [each, row] of this.rows) markCurrent(row, each === name);
  }

  refreshSoon(): void {
    this.schedule(SOON_MS);
  }

  private schedule(ms: number): void {
    clearTimeout(this.timer);
    if (document.visibilityState === "visible") {
      this.timer = window.setTimeout(() => void this.refresh(), ms);
    }
  }

  private async refresh(): Promise<void> {
    clearTimeout(this.timer);
    const question = (this.asked += 1);
    const prefix = this.filter.value;
    let denied = false;
    try {
      const page = await this.load(prefix);
      if (question === this.asked) this.show(page, prefix);
    } catch (error) {
      if (question !== this.asked) return;
      denied = error instanceof ApiError && error.denied;
      this.showError(error);
    }
    // Where another token is needed, asking again with this one is of no use.
    if (question === this.asked && !denied) this.schedule(REFRESH_MS);
  }

  private async load(prefix: string): Promise<RoomPage> {
    const docs: RoomInfo[] = [];
    let next: string | null = null;
    for (let page = 0; page < this.pages; page += 1) {
      const answer: RoomPage = await listRooms(prefix, next);
      docs.push(...answer.docs);
      next = answer.next;
      if (next === null) break;
    }
    return { docs, next };
  }

  private show({ docs, next }: RoomPage, prefix: string): void {
    const now = Date.now();
    const names = new Set(docs.map((doc) => doc.name));
    for (const [name, row] of this.rows) {
      if (names.has(name)) continue;
      row.element.remove();
      this.rows.delete(name);
    }
    docs.forEach((doc, index) => {
      const row = this.rows.get(doc.name) ?? this.addRow(doc.name);
      update(row, doc, now);
      const there = this.list.children[index];
      if (there !== row.element) this.list.insertBefore(row.element, there ?? null);
    });
    this.list.setAttribute("aria-busy", "false");
    this.list.classList.remove("stale");
    this.more.hidden = next === null;
    if (docs.length > 0) this.say(null);
    else if (prefix === "") this.say("No rooms yet. A room is listed once something is written in it.");
    else this.say(`No room’s name begins with “${prefix}”. Open it above to create it.`);
  }

  private showError(error: unknown): void {
    const status = error instanceof ApiError ? error.status : undefined;
    const what = error instanceof ApiError ? error.message : "The list of rooms could not be read.";
    this.list.setAttribute("aria-busy", "false");
    if (status === 401 || status === 403) {
      // What another token showed is not to be seen with this one.
      for (const [name, row] of this.rows) {
        row.element.remove();
        this.rows.delete(name);
      }
      this.more.hidden = true;
      this.say(status === 401 ? "Sign in to see the rooms." : "You are not allowed to see the rooms.");
      if (status === 401) this.unauthorized((error as ApiError).reason);
      return;
    }
    this.say(status === null ? `${what} The list comes back by itself.` : `${what} Trying again.`);
    this.list.classList.add("stale");
  }

  /** Say what could not be done; it stays until something else is done. */
  private fail(what: string | null, error?: unknown): void {
    const reason = error instanceof ApiError ? error.message : error === undefined ? "" : "Try again.";
    this.failure.hidden = what === null;
    setText(this.failure, what === null ? "" : `${what} ${reason}`.trim());
    if (error instanceof ApiError && error.status === 401) this.unauthorized(error.reason);
  }

  private say(text: string | null): void {
    this.message.hidden = text === null;
    setText(this.message, text ?? "");
  }

  private addRow(name: string): Row {
    const element = make("li", "room");
    const link = make("a", "room-link");
    link.href = `/?room=${encodeURIComponent(name)}`;
    link.addEventListener("click", (event) => {
      if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
      event.preventDefault();
      this.open(name);
    });
    const members = make("span", "room-members");
    const facts = make("span", "room-facts");
    link.append(make("span", "room-name", name), members, facts);
    const download = make("button", "icon-button");
    download.type = "button";
    download.addEventListener("click", () => void this.download(name));
    download.title = "Download as a Yjs update";
    download.setAttribute("aria-label", `Download ${name} as a Yjs update`);
    download.append(icon("M10 3.5v9M6.5 9l3.5 3.500L13.5 9M4 16.500h12"));
    const remove = make("button", "icon-button");
    remove.type = "button";
    remove.title = "Delete";
    remove.setAttribute("aria-label", `Delete ${name}`);
    remove.append(icon("M4 5.500h12M8 5.500V3.500h4v2M5.5 5.500l.7 11h7.600l.7-11M8.5 8.500v5M11.5 8.500v5"));
    remove.addEventListener("click", () => this.askToDelete(name));
    element.append(link, download, remove);
    const row = { element, link, members, facts };
    markCurrent(row, name === this.current);
    this.rows.set(name, row);
    return row;
  }

  /** Save a room's content as a file; a plain link could not send the token. */
  private async download(name: string): Promise<void> {
    this.fail(null);
    let state: Blob;
    try {
      state = await readState(name);
    } catch (error) {
      return this.fail(`“${name}” could not be downloaded.`, error);
    }
    const link = make("a", "");
    link.href = URL.createObjectURL(state);
    link.download = `${name.replace(/[^\w.-]+/g, "_")}.yjs`;
    link.click();
    // The browser has begun to read it by then.
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  private askToDelete(name: string): void {
    this.fail(null);
    this.doomed = name;
    setText(byId("confirm-title"), `Delete “${name}”?`);
    this.confirm.returnValue = "cancel";
    this.confirm.showModal();
  }

  private async confirmed(): Promise<void> {
    const name = this.doomed;
    this.doomed = null;
    if (name === null || this.confirm.returnValue !== "delete") return;
    try {
      await deleteRoom(name);
      announce(`${name} was deleted.`);
      await this.refresh();
      this.filter.focus();
    } catch (error) {
      this.fail(`“${name}” was not deleted.`, error);
    }
  }

  private moveFocus(event: KeyboardEvent): void {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (step === 0) return;
    const links = Array.from(this.list.querySelectorAll<HTMLElement>(".room-link"));
    const row = (event.target as HTMLElement).closest("li");
    const here = links.findIndex((link) => link.parentElement === row);
    const target = links[here + step];
    if (target === undefined) return;
    event.preventDefault();
    target.focus();
  }
}

function update(row: Row, doc: RoomInfo, now: number): void {
  row.members.hidden = doc.members === 0;
  setText(row.members, people(doc.members));
  const { bytes, modified_ms } = doc;
  setText(row.facts, modified_ms === null ? "Empty" : `${size(bytes)} · ${ago(modified_ms, now)}`);
}

function markCurrent(row: Row, current: boolean): void {
  if (current) row.link.setAttribute("aria-current", "page");
  else row.link.removeAttribute("aria-current");
}
