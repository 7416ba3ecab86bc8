/** The page: one room in the editor, the others in the list. */

import { announce, byId, setText } from "./dom";
import { Editor } from "./editor";
import { GUEST_HASH, loadIdentity, saveIdentity } from "./identity";
import { showPeople, You } from "./people";
import { Room } from "./room";
import { RoomList } from "./rooms";
import { StatusLine } from "./status";
import { setUpTheme } from "./theme";

const WELCOME = "welcome";

let identity = loadIdentity();
let room: Room | null = null;
let hidePeople = (): void => {};
/** Rooms that were left with edits still on their way. */
const lingering = new Map<string, Room>();

const editor = new Editor(byId("editor"));
const status = new StatusLine(() => visit(inventName()));
const rooms = new RoomList((name) => {
  visit(name);
  editor.focus();
});

function roomOfAddress(): string {
  return new URLSearchParams(location.search).get("room") || WELCOME;
}

function addressOf(name: string): string {
  return `/?room=${encodeURIComponent(name)}`;
}

/** Open a room and put it into the address. */
function visit(name: string): void {
  if (name !== room?.name) history.pushState(null, "", addressOf(name));
  show(name);
}

function show(name: string): void {
  if (name === room?.name) return;
  if (room !== null) leave(room);
  const next = enter(name);
  room = next;
  document.title = `${name} · Plait`;
  setText(byId("room-name"), name);
  byId<HTMLAnchorElement>("second").href = addressOf(name) + GUEST_HASH;
  status.reset();
  status.show(next);
  editor.show(next);
  hidePeople = showPeople(next, () => rooms.refreshSoon());
  rooms.setCurrent(name);
}

function enter(name: string): Room {
  const lingered = lingering.get(name);
  lingering.delete(name);
  if (lingered !== undefined && !lingered.stopped) {
    lingered.resume(identity);
    return lingered;
  }
  const entered = new Room(name, identity);
  let { connection, saved } = entered.current;
  entered.on("status", (now) => {
    if (entered !== room) return;
    status.show(entered);
    if (now.connection !== connection) {
      editor.allowWriting(now.connection !== "refused");
      rooms.refreshSoon();
    }
    if (now.saved && !saved) rooms.refreshSoon();
    ({ connection, saved } = now);
  });
  return entered;
}

function leave(left: Room): void {
  hidePeople();
  lingering.set(left.name, left);
  left.leave();
  for (const [name, each] of lingering) if (each.stopped) lingering.delete(name);
}

function inventName(): string {
  return `room-${crypto.getRandomValues(new Uint32Array(1))[0]!.toString(36)}`;
}

new You(identity, (changed) => {
  identity = changed;
  saveIdentity(changed);
  room?.introduce(changed);
});

byId<HTMLFormElement>("go").addEventListener("submit", (event) => {
  event.preventDefault();
  const box = byId<HTMLInputElement>("go-name");
  const name = box.value.trim();
  // Addresses can't carry these two: browsers take them for folders.
  if (name === "" || name === "." || name === "..") return;
  box.value = "";
  visit(name);
  editor.focus();
});

byId("share").addEventListener("click", () => void share());

async function share(): Promise<void> {
  const label = byId("share").querySelector("span")!;
  const address = location.origin + addressOf(room?.name ?? WELCOME);
  let copied = true;
  try {
    await navigator.clipboard.writeText(address);
  } catch {
    // The clipboard is closed to pages that are not served over HTTPS or from localhost.
    copied = false;
    window.prompt("Copy this link:", address);
  }
  if (!copied) return;
  setText(label, "Copied");
  announce("The link to this room was copied.");
  setTimeout(() => setText(label, "Copy link"), 2000);
}

byId("second").addEventListener("click", (event) => {
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  // Beside this one, where both can be seen; where that is forbidden, the link opens a tab.
  const width = Math.round(Math.min(760, screen.availWidth / 2));
  const { href } = event.currentTarget as HTMLAnchorElement;
  const opened = window.open(href, "_blank", `popup,width=${width},height=${window.outerHeight}`);
  if (opened !== null) event.preventDefault();
});

byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  editor.focus();
});

window.addEventListener("popstate", () => show(roomOfAddress()));
window.addEventListener("beforeunload", (event) => {
  const unsaved = (each: Room): boolean => !each.current.saved && each.current.connection !== "refused";
  if ((room !== null && unsaved(room)) || [...lingering.values()].some(unsaved)) event.preventDefault();
});

setUpTheme();
show(roomOfAddress());
