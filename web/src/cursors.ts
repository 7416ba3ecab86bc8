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

  override toDOM(view: EditorView): HTMLElement {
    const caret = document.createElement("span");
    caret.className = "caret";
    caret.setAttribute("aria-hidden", "true");
    caret.style.setProperty("--who", this.color);
    caret.style.setProperty("--on-who", inkOn(this.color));
    const label = document.createElement("span");
    label.className = "caret-name";
    label.textContent = this.name;
    // Word joiners keep the line from breaking beside the caret.
    caret.append("\u2060", label, "\u2060");
    // At the right edge the name is written to the left.
    view.requestMeasure({
      read: () => label.getBoundingClientRect().right > view.scrollDOM.getBoundingClientRect().right,
      write: (beyond) => caret.classList.toggle("caret-at-edge", beyond),
    });
    return caret;
  }

  override get estimatedHeight(): number {
    return -1;
  }

  override ignoreEvent(): boolean {
    return true;
  }
}

type Cursor = { client: number; name: string; color: string; anchor: number; head: number };

class RemoteCursors {
  decorations: DecorationSet = RangeSet.empty;
  private readonly moves = new Map<number, { last: string; count: number }>();
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
  }

  destroy(): void {
    this.room.provider.awareness.off("change", this.onChange);
  }

  update(update: ViewUpdate): void {
    if (update.docChanged || update.selectionSet || update.focusChanged) this.tellOwn();
    if (update.docChanged || update.transactions.some((t) => t.annotation(presenceChanged))) {
      this.decorations = this.draw();
    }
  }

  private countMove(client: number): void {
    const last = JSON.stringify(this.room.provider.awareness.getStates().get(client)?.cursor ?? null);
    const seen = this.moves.get(client);
    if (seen?.last !== last) this.moves.set(client, { last, count: (seen?.count ?? 0) + 1 });
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
    bottom: "100%",
    padding: "0 5px",
    borderRadius: "4px 4px 4px 0",
    background: "var(--who)",
    color: "var(--on-who)",
    font: "600 10.5px/14px var(--sans)",
    whiteSpace: "nowrap",
    maxWidth: "14em",
    overflow: "hidden",
    textOverflow: "ellipsis",
    zIndex: "5",
    animation: `plait-name-fade 400ms ${NAME_MS}ms forwards`,
  },
  ".caret-at-edge .caret-name": { left: "auto", right: "0", borderRadius: "4px 4px 0 4px" },
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
