/**
 * The others' cursors and selections, each with its owner's name.
 *
 * y-codemirror.next draws them with inline `style` attributes, which a strict Content-Security-Policy
 * forbids, and hides names until the mouse is over them. The awareness fields are the same: `cursor` with
 * relative positions, `user` with name and colour; so cursors are shared with every other Yjs editor.
 */

import { Annotation, type Extension, type Range, RangeSet } from "@codemirror/state";
import {
  Decoration,
  type DecorationSet,
  EditorView,
  ViewPlugin,
  type ViewUpdate,
  WidgetType,
} from "@codemirror/view";
import * as Y from "yjs";

import { cleanColor, cleanName, inkOn } from "./identity";
import type { Room } from "./room";

/** A transaction that only says: somebody else's presence changed. */
const presenceChanged = Annotation.define<true>();

/** How long a name stays beside its cursor after that has moved. */
const NAME_MS = 4000;

class Caret extends WidgetType {
  constructor(
    readonly client: number,
    readonly name: string,
    readonly color: string,
    /** How often it has moved. A caret that moved is drawn anew, which shows its name again. */
    readonly moves: number,
  ) {
    super();
  }

  override eq(other: Caret): boolean {
    return (
      other.client === this.client &&
      other.name === this.name &&
      other.color === this.color &&
      other.moves === this.moves
    );
  }

  override toDOM(): HTMLElement {
    const caret = document.createElement("span");
    caret.className = "caret";
    caret.dataset.client = String(this.client);
    caret.setAttribute("aria-hidden", "true");
    caret.style.setProperty("--who", this.color);
    caret.style.setProperty("--on-who", inkOn(this.color));
    const label = document.createElement("span");
    label.className = "caret-name";
    label.textContent = this.name;
    // Word joiners keep the line from breaking beside the caret.
    caret.append("\u2060", label, "\u2060");
    return caret;
  }

  override get estimatedHeight(): number {
    return -1;
  }

  override ignoreEvent(): boolean {
    return true;
  }
}

type Box = { left: number; right: number; top: number; bottom: number };

/** Where a name is written: in which row above its caret, or below if negative, and on which side. */
type Place = { caret: HTMLElement; row: number; atEdge: boolean; order: number };

function overlap(a: Box, b: Box): boolean {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

type Cursor = { client: number; name: string; color: string; anchor: number; head: number };

class RemoteCursors {
  decorations: DecorationSet = RangeSet.empty;
  private readonly moves = new Map<number, { last: string; count: number; at: number }>();
  private lastMove = 0;
  private readonly onChange: (changes: { added: number[]; updated: number[]; removed: number[] }) => void;

  constructor(
    private readonly view: EditorView,
    private readonly room: Room,
  ) {
    const { awareness } = room.provider;
    this.onChange = ({ added, updated, removed }) => {
      for (const client of removed) this.moves.delete(client);
      for (const client of [...added, ...updated]) this.countMove(client);
      if ([...added, ...updated, ...removed].some((client) => client !== awareness.clientID)) {
        this.view.dispatch({ annotations: presenceChanged.of(true) });
      }
    };
    awareness.on("change", this.onChange);
    this.decorations = this.draw();
    this.placeNames();
  }

  destroy(): void {
    this.room.provider.awareness.off("change", this.onChange);
  }

  update(update: ViewUpdate): void {
    if (update.docChanged || update.selectionSet || update.focusChanged) this.tellOwn();
    if (update.docChanged || update.transactions.some((t) => t.annotation(presenceChanged))) {
      this.decorations = this.draw();
    }
    this.placeNames();
  }

  /** Write names where none covers another: who moved last has it beside the caret, others above or below. */
  private placeNames(): void {
    this.view.requestMeasure({
      key: this,
      read: () => this.places(),
      write: (places) => {
        for (const { caret, row, atEdge, order } of places) {
          caret.classList.toggle("caret-at-edge", atEdge);
          caret.classList.toggle("caret-below", row < 0);
          caret.style.setProperty("--row", String(row < 0 ? -row - 1 : row));
          caret.style.setProperty("--order", String(order));
        }
      },
    });
  }

  private places(): Place[] {
    const edge = this.view.scrollDOM.getBoundingClientRect();
    const moved = (caret: HTMLElement): number => this.moves.get(Number(caret.dataset.client))?.at ?? 0;
    const carets = Array.from(this.view.contentDOM.querySelectorAll<HTMLElement>(".caret"));
    carets.sort((a, b) => moved(b) - moved(a));
    const written: Box[] = [];
    return carets.map((caret, index) => {
      const { left, right, top, bottom } = caret.getBoundingClientRect();
      const { offsetWidth: width, offsetHeight: height } = caret.querySelector<HTMLElement>(".caret-name")!;
      // At the right edge the name is written to the left.
      const atEdge = left + width > edge.right;
      const start = atEdge ? right - width : left;
      const box = (row: number): Box => {
        const from = row < 0 ? bottom - (row + 1) * (height + 1) : top - height - row * (height + 1);
        return { left: start, right: start + width, top: from, bottom: from + height };
      };
      // Nearest first: 0, -1, 1, -2, …; each other name is in the way of at most three of these.
      const rows = Array.from({ length: 3 * written.length + 2 }, (_, n) => (n % 2 === 0 ? n / 2 : -(n + 1) / 2));
      const free = rows.filter((row) => !written.some((other) => overlap(box(row), other)));
      // What would be cut off at the top is written below.
      const row = free.find((row) => row < 0 || box(row).top >= edge.top) ?? 0;
      written.push(box(row));
      return { caret, row, atEdge, order: carets.length - index };
    });
  }

  private countMove(client: number): void {
    const last = JSON.stringify(this.room.provider.awareness.getStates().get(client)?.cursor ?? null);
    const seen = this.moves.get(client);
    if (seen?.last !== last) {
      this.moves.set(client, { last, count: (seen?.count ?? 0) + 1, at: ++this.lastMove });
    }
  }

  /** Tell the others where this window's cursor is. */
  private tellOwn(): void {
    const { awareness } = this.room.provider;
    const local = awareness.getLocalState();
    if (local === null || !this.view.hasFocus) return;
    const { anchor, head } = this.view.state.selection.main;
    const cursor = {
      anchor: Y.createRelativePositionFromTypeIndex(this.room.text, anchor),
      head: Y.createRelativePositionFromTypeIndex(this.room.text, head),
    };
    if (JSON.stringify(local.cursor) !== JSON.stringify(cursor)) {
      awareness.setLocalStateField("cursor", cursor);
    }
  }

  private draw(): DecorationSet {
    const { doc } = this.view.state;
    const ranges: Range<Decoration>[] = [];
    for (const { client, name, color, anchor, head } of this.cursors()) {
      const from = Math.min(anchor, head);
      const to = Math.max(anchor, head);
      const attributes = { style: `background-color: ${color}38` };
      for (let at = from; at < to; ) {
        const line = doc.lineAt(at);
        const end = Math.min(line.to, to);
        if (end > at) ranges.push(Decoration.mark({ attributes, class: "their-selection" }).range(at, end));
        at = line.to + 1;
      }
      const caret = new Caret(client, name, color, this.moves.get(client)?.count ?? 0);
      // The own caret is drawn outside the other's selection.
      ranges.push(Decoration.widget({ widget: caret, side: head > anchor ? -1 : 1 }).range(head));
    }
    return Decoration.set(ranges, true);
  }

  private *cursors(): Generator<Cursor> {
    const { awareness } = this.room.provider;
    const length = this.view.state.doc.length;
    for (const [client, state] of awareness.getStates()) {
      if (client === awareness.clientID || !state.cursor) continue;
      const anchor = this.position(state.cursor.anchor);
      const head = this.position(state.cursor.head);
      if (anchor === null || head === null || Math.max(anchor, head) > length) continue;
      const name = cleanName(state.user?.name) ?? "Somebody";
      yield { client, name, color: cleanColor(state.user?.color), anchor, head };
    }
  }

  /** Where another's relative position is now; presence is anybody's JSON, so nothing is taken for granted. */
  private position(json: unknown): number | null {
    if (typeof json !== "object" || json === null) return null;
    try {
      const relative = Y.createRelativePositionFromJSON(json);
      const absolute = Y.createAbsolutePositionFromRelativePosition(relative, this.room.doc);
      return absolute?.type === this.room.text ? absolute.index : null;
    } catch {
      return null;
    }
  }
}

const look = EditorView.baseTheme({
  ".their-selection": { borderRadius: "2px" },
  ".caret": {
    position: "relative",
    borderLeft: "2px solid var(--who)",
    margin: "0 -1px",
    pointerEvents: "none",
  },
  ".caret-name": {
    position: "absolute",
    left: "-2px",
    bottom: "calc(100% + var(--row, 0) * 15px)",
    padding: "0 5px",
    borderRadius: "4px 4px 4px 0",
    background: "var(--who)",
    color: "var(--on-who)",
    font: "600 10.5px/14px var(--sans)",
    whiteSpace: "nowrap",
    maxWidth: "14em",
    overflow: "hidden",
    textOverflow: "ellipsis",
    zIndex: "calc(5 + var(--order, 0))",
    animation: `plait-name-fade 400ms ${NAME_MS}ms forwards`,
  },
  ".caret-at-edge .caret-name": { left: "auto", right: "0", borderRadius: "4px 4px 0 4px" },
  ".caret-below .caret-name": {
    bottom: "auto",
    top: "calc(100% + var(--row, 0) * 15px)",
    borderRadius: "0 4px 4px 4px",
  },
  ".caret-below.caret-at-edge .caret-name": { borderRadius: "4px 0 4px 4px" },
  ".cm-line:hover .caret-name": { animation: "none" },
  "@keyframes plait-name-fade": { to: { opacity: "0.001" } },
  "@media (prefers-reduced-motion: reduce)": {
    ".caret-name": { animationDuration: "1ms" },
  },
});

export function remoteCursors(room: Room): Extension {
  const cursors = ViewPlugin.define((view) => new RemoteCursors(view, room), {
    decorations: (plugin) => plugin.decorations,
  });
  return [cursors, look];
}
