/** The page: one room in the editor, the others in the list. */

import { announce, byId, setText } from "./dom";
import { Editor } from "./editor";
import { dropIdentity, GUEST_HASH, loadIdentity, saveIdentity, takeIdentity } from "./identity";
import { showPeople, You } from "./people";
import { Room, UNAUTHORIZED } from "./room";
import { RoomList } from "./rooms";
import { session } from "./session";
import { SignIn } from "./signin";
import { StatusLine } from "./status";
import { setUpTheme } from "./theme";

const WELCOME = "welcome";

// Before anything else, since it takes the token out of the address.
const brought = session.start();
let identity = loadIdentity();
if (brought) identity = takeIdentity(session.claims.name, session.claims.color) ?? identity;
let room: Room | null = null;
let hidePeople = (): void => {};
/** Rooms that were left with edits still on their way. */
const lingering = new Map<string, Room>();

const editor = new Editor(byId("editor"));
const signIn = new SignIn(() => room?.name ?? WELCOME, signOut);
const status = new StatusLine({
  signIn: () => signIn.open(),
  discard: () => reopen(),
  startAnew: () => visit(inventName()),
});
const rooms = new RoomList(
  (name) => {
    visit(name);
    editor.focus();
  },
  (reason) => signIn.ask(reason && `It says: “${reason}”`),
);

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
  you.wear(next.color);
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
  let { connection, saved, readOnly } = entered.current;
  entered.on("color", (color) => {
    if (entered === room) you.wear(color);
  });
  entered.on("status", (now) => {
    if (entered !== room) return;
    status.show(entered);
    if (now.connection !== connection || now.readOnly !== readOnly) editor.allowWriting(entered);
    if (now.connection !== connection) {
      rooms.refreshSoon();
      if (now.code === UNAUTHORIZED && now.connection === "refused") signIn.ask(now.reason ?? "");
    }
    if (now.saved && !saved) rooms.refreshSoon();
    ({ connection, saved, readOnly } = now);
  });
  return entered;
}

function leave(left: Room): void {
  hidePeople();
  lingering.set(left.name, left);
  left.leave();
  for (const [name, each] of lingering) if (each.stopped) lingering.delete(name);
}

/** Load the room anew, without what is not saved. */
function reopen(): void {
  if (room === null) return;
  const { name } = room;
  hidePeople();
  room.stop();
  room = null;
  show(name);
}

/** Forget the token, and all that was seen with it. */
function signOut(): void {
  if (atRisk() && !window.confirm("What you wrote last is not saved. Sign out and lose it?")) return;
  for (const each of lingering.values()) each.stop();
  lingering.clear();
  const open = room;
  room = null;
  hidePeople();
  open?.stop();
  session.signOut();
  identity = dropIdentity();
  you.show(identity);
  show(open?.name ?? WELCOME);
}

session.on("change", (before) => {
  const { name, color } = session.claims;
  if (session.token !== null && (name !== before.name || color !== before.color)) {
    identity = takeIdentity(name, color) ?? identity;
    you.show(identity);
    room?.introduce(identity);
  }
  for (const each of [room, ...lingering.values()]) each?.renew(before);
});

function atRisk(): boolean {
  return [room, ...lingering.values()].some((each) => each !== null && !each.stopped && each.atRisk);
}

function inventName(): string {
  return `room-${crypto.getRandomValues(new Uint32Array(1))[0]!.toString(36)}`;
}

const you = new You(identity, (changed) => {
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
window.addEventListener("hashchange", () => session.takeFromAddress());
window.addEventListener("beforeunload", (event) => {
  if (atRisk()) event.preventDefault();
});

setUpTheme();
show(roomOfAddress());
