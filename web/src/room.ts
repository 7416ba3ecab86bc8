/** One open room: its document, its connection, and what there is to say about both. */

import * as decoding from "lib0/decoding";
import * as encoding from "lib0/encoding";
import { ObservableV2 } from "lib0/observable";
import * as sync from "y-protocols/sync";
import { messageAuth, messageSync, WebsocketProvider } from "y-websocket";
import * as Y from "yjs";

import { probeRoom } from "./api";
import { cleanColor, colorAmong, type Identity } from "./identity";
import { Unacknowledged } from "./saved";
import { type Claims, session } from "./session";

export type Connection = "connecting" | "live" | "offline" | "refused";

export type RoomStatus = {
  readonly connection: Connection;
  /** Whether every edit of this window is on the server's disk. */
  readonly saved: boolean;
  /** How long the last edit took from here to the disk and back, if it was not delayed by being offline. */
  readonly saveMs: number | null;
  /** A sentence about why the server closed the connection, if it said. */
  readonly reason: string | null;
  /** The close code of a connection that was refused. */
  readonly code: number | null;
  /** Whether this window may read, and nothing more. */
  readonly readOnly: boolean;
  /** The server's words about an edit, or a token, that it did not accept. */
  readonly denied: string | null;
  /** Whether the room holds a document of another editor, and no text that this page shows. */
  readonly foreign: boolean;
};

/** The shared type that this page edits. Other editors put theirs under other names of the same document. */
const TEXT = "text";

/** Who asks has to be known. */
export const UNAUTHORIZED = 4401;
/** Who asks is known, and has no right. */
export const NOT_ALLOWED = 4403;

/** Why a room can't be used, by close code; these are final, and the provider does not try again. */
const REFUSALS: Record<number, string> = {
  4400: "The server could not understand this window and closed the connection.",
  4401: "You have to sign in to open this room.",
  4403: "You are not allowed to open this room.",
  4404: "This room was deleted.",
  4422: "The server refused an edit from this window.",
  4429: "This room has reached one of the server’s limits.",
};

/** Closed for now; the provider keeps trying. */
const PAUSES: Record<number, string> = {
  1009: "An edit was larger than the server accepts.",
  1011: "The server had a problem with this room.",
  1012: "The server is restarting.",
  1013: "The server is busy, or this connection is too slow.",
};

/** What HTTP says about a room whose socket was refused before it opened: scripts can't see that status. */
const REFUSALS_BY_STATUS: Record<number, number> = { 401: UNAUTHORIZED, 403: NOT_ALLOWED, 410: 4404 };

/** Kinds of messages about rights; the first from y-protocols `auth.js`, the last as Hocuspocus has it. */
const DENIED = 0;
const ALLOWED = 2;

type RoomEvents = {
  status: (status: RoomStatus) => void;
  /** This window got another colour, since somebody else has its own. */
  color: (color: string) => void;
};

export class Room extends ObservableV2<RoomEvents> {
  readonly doc = new Y.Doc();
  readonly text = this.doc.getText(TEXT);
  readonly provider: WebsocketProvider;
  readonly undo: Y.UndoManager;

  private identity: Identity;
  private readonly pending = new Unacknowledged();
  private status: RoomStatus = {
    connection: "connecting",
    saved: true,
    saveMs: null,
    reason: null,
    code: null,
    readOnly: false,
    denied: null,
    foreign: false,
  };
  /** What the server had when it last asked for what it misses. */
  private serverState: Uint8Array = Y.encodeStateVector(new Y.Doc());
  /** Whether this connection has been told of its right. Those who may write are told only of changes. */
  private told = false;
  /** Whether a token was sent over this connection that was not answered yet. */
  private renewing = false;
  private editedAt = 0;
  /** Since when the connection is live, if it is. */
  private liveSince = 0;
  private opened = false;
  private leaving = false;
  private probing = false;

  constructor(
    readonly name: string,
    identity: Identity,
  ) {
    super();
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.provider = new WebsocketProvider(
      `${scheme}://${location.host}/ws`,
      encodeURIComponent(name),
      this.doc,
      // Windows of one browser could also talk past the server; here everything goes through it.
      { connect: false, disableBc: true, protocols: session.protocols },
    );
    this.undo = new Y.UndoManager(this.text, { captureTimeout: 400 });
    this.identity = identity;
    this.introduce(identity);
    this.provider.awareness.on("change", () => this.settleColor());
    this.tapMessages();
    this.doc.on("update", (update: Uint8Array, origin: unknown) => {
      if (origin !== this.provider) this.edited(update);
    });
    this.provider.on("status", ({ status }) => {
      if (status !== "connected") return;
      this.opened = true;
      this.told = false;
      this.renewing = false;
    });
    this.provider.on("sync", (synced) => {
      if (!synced) return;
      if (this.status.connection !== "live") this.liveSince = performance.now();
      const readOnly = this.told && this.status.readOnly;
      this.set({ connection: "live", reason: null, denied: null, readOnly, foreign: this.foreign() });
    });
    this.provider.on("connection-close", (event) => this.closed(event));
    this.provider.on("closed", ({ code, reason }) => this.refuse(code, reason));
    this.provider.connect();
  }

  get current(): RoomStatus {
    return this.status;
  }

  /** How long the oldest edit is not on the server's disk, in milliseconds; 0 if all are. */
  get unsavedMs(): number {
    const { since } = this.pending;
    return since === null ? 0 : performance.now() - since;
  }

  /** How much of that the server had to save it, over this connection. */
  get overdueMs(): number {
    return Math.min(this.unsavedMs, performance.now() - this.liveSince);
  }

  /** Tell the others who this is, in the fields that Yjs editors agree on. */
  introduce(identity: Identity): void {
    this.identity = identity;
    this.provider.awareness.setLocalStateField("user", {
      name: identity.name,
      color: identity.color,
      colorLight: `${identity.color}33`,
    });
    this.settleColor();
    this.emit("color", [this.color]);
  }

  /** The colour that this window has among those who are here. */
  get color(): string {
    return this.identity.color;
  }

  /** Take another colour if somebody else has this one. */
  private settleColor(): void {
    const { awareness } = this.provider;
    if (awareness.getLocalState() === null) return;
    const before: string[] = [];
    const after: string[] = [];
    for (const [client, { user }] of awareness.getStates()) {
      if (client === awareness.clientID || !user) continue;
      (client < awareness.clientID ? before : after).push(cleanColor(user.color));
    }
    const color = colorAmong(this.color, before, after);
    if (color !== this.color) this.introduce({ ...this.identity, color });
  }

  /**
   * Go on with the session's new token: over the open connection, if it is the same person's, so that
   * nobody sees them leave; else over another.
   */
  renew(before: Claims): void {
    this.provider.protocols = session.protocols;
    const { ws, synced } = this.provider;
    const same = before.subject !== null && before.subject === session.claims.subject;
    if (same && synced && ws !== null && session.token !== null) {
      this.renewing = true;
      const encoder = encoding.createEncoder();
      encoding.writeVarUint(encoder, messageAuth);
      encoding.writeVarUint(encoder, DENIED);
      encoding.writeVarString(encoder, session.token);
      ws.send(encoding.toUint8Array(encoder));
    } else {
      this.reconnect();
    }
  }

  private reconnect(): void {
    this.renewing = false;
    this.provider.disconnect();
    this.opened = false;
    this.set({ connection: "connecting", reason: null, code: null, denied: null });
    this.provider.connect();
  }

  /** Whether there are edits that closing the window loses, and that may yet be saved or copied. */
  get atRisk(): boolean {
    const { saved, connection, code } = this.status;
    return !saved && (connection !== "refused" || code === UNAUTHORIZED);
  }

  /** Stop once everything is saved; until then go on in the background, unseen. */
  leave(): void {
    this.leaving = true;
    this.provider.awareness.setLocalState(null);
    this.finishLeaving();
  }

  /** Come back to a room that was left but has not stopped yet. */
  resume(identity: Identity): void {
    this.leaving = false;
    this.provider.awareness.setLocalState({});
    this.introduce(identity);
  }

  private finishLeaving(): void {
    if (this.leaving && !this.atRisk) this.stop();
  }

  /** Stop at once, and forget what is not saved. */
  stop(): void {
    if (this.stopped) return;
    this.provider.destroy();
    this.undo.destroy();
    this.doc.destroy();
    this.destroy();
  }

  get stopped(): boolean {
    return this.doc.isDestroyed;
  }

  /** Stand between the provider and its handling of sync messages: they carry the acknowledgements. */
  private tapMessages(): void {
    const handlers = this.provider.messageHandlers as MessageHandler[];
    const original = handlers[messageSync]!;
    handlers[messageSync] = (encoder, decoder, provider, emitSynced, type) => {
      const start = decoder.pos;
      const step = decoding.readVarUint(decoder);
      const content = decoding.readVarUint8Array(decoder);
      if (step === sync.messageYjsSyncStep1) {
        this.serverState = content;
        encoding.writeVarUint(encoder, messageSync);
        encoding.writeVarUint(encoder, sync.messageYjsSyncStep2);
        encoding.writeVarUint8Array(encoder, this.pending.answer(this.doc, content));
        return;
      }
      // The answer to the question that opens a connection is no acknowledgement: it lists every deletion
      // that the server knows of, also those that are not yet on its disk.
      const opening = step === sync.messageYjsSyncStep2 && !provider.synced;
      decoder.pos = start;
      original(encoder, decoder, provider, emitSynced, type);
      if (!opening) this.received(content);
    };
    handlers[messageAuth] = (_encoder, decoder) => {
      const kind = decoding.readVarUint(decoder);
      const text = decoding.readVarString(decoder);
      if (kind === DENIED) this.deny(text);
      else if (kind === ALLOWED) this.allow(text === "readonly");
    };
  }

  /** The server does not accept something: an edit, a new token, or this window altogether. */
  private deny(reason: string): void {
    // What is wrong with a token is said to a new connection, as the reason why it is refused.
    if (this.renewing) return this.reconnect();
    this.set({ denied: reason });
  }

  private allow(readOnly: boolean): void {
    this.told = true;
    this.renewing = false;
    const may = this.status.readOnly && !readOnly;
    this.set({ readOnly, denied: null });
    if (may && this.provider.synced && !this.pending.empty) this.tellPending();
  }

  /** Send once more what the server refused while this window might only read. */
  private tellPending(): void {
    const encoder = encoding.createEncoder();
    encoding.writeVarUint(encoder, messageSync);
    sync.writeUpdate(encoder, this.pending.answer(this.doc, this.serverState));
    this.provider.ws?.send(encoding.toUint8Array(encoder));
  }

  private edited(update: Uint8Array): void {
    this.editedAt = performance.now();
    this.pending.made(update, this.editedAt);
    if (!this.pending.empty) this.set({ saved: false });
  }

  private received(update: Uint8Array): void {
    this.pending.received(update);
    if (this.status.saved || !this.pending.empty) return;
    const took = performance.now() - this.editedAt;
    this.set({ saved: true, saveMs: this.status.connection === "live" ? took : null, denied: null });
    this.finishLeaving();
  }

  private closed(event: CloseEvent | null): void {
    if (this.leaving && this.status.saved) return;
    const pause = event === null ? undefined : PAUSES[event.code];
    this.set({
      connection: "offline",
      reason: pause === undefined ? null : sentence(pause, event?.reason),
    });
    if (!this.opened) void this.probe();
    this.opened = false;
  }

  private foreign(): boolean {
    return this.text.length === 0 && Array.from(this.doc.share.keys()).some((key) => key !== TEXT);
  }

  private async probe(): Promise<void> {
    if (this.probing) return;
    this.probing = true;
    const { token } = session;
    const answer = await probeRoom(this.name);
    this.probing = false;
    const code = REFUSALS_BY_STATUS[answer?.status ?? 0];
    const outdated = this.stopped || this.status.connection === "live" || token !== session.token;
    if (answer === null || code === undefined || outdated) return;
    const reason = this.status.denied ?? answer.reason;
    this.provider.disconnect();
    this.refuse(code, reason);
  }

  private refuse(code: number, reason: string): void {
    const why = REFUSALS[code] ?? `The server closed this room (code ${code}).`;
    // The server's words for a deleted room say the same again; those to somebody without a token tell
    // programs how to send one.
    const enough = code === 4404 || (code === UNAUTHORIZED && session.token === null);
    const full = enough ? why : sentence(why, reason);
    this.set({ connection: "refused", code, reason: full, denied: null });
    this.finishLeaving();
  }

  private set(change: Partial<RoomStatus>): void {
    this.status = { ...this.status, ...change };
    this.emit("status", [this.status]);
  }
}

type MessageHandler = (
  encoder: encoding.Encoder,
  decoder: decoding.Decoder,
  provider: WebsocketProvider,
  emitSynced: boolean,
  messageType: number,
) => void;

function sentence(why: string, reason: string | undefined): string {
  return reason ? `${why} It says: “${reason}”` : why;
}
