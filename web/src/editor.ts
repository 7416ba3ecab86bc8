/** The editor: CodeMirror on the room's shared text, with the others' cursors. */

import { defaultKeymap } from "@codemirror/commands";
import { defineLanguageFacet, HighlightStyle, Language, syntaxHighlighting } from "@codemirror/language";
import { Compartment, EditorState, type Extension } from "@codemirror/state";
import { EditorView, drawSelection, keymap, placeholder } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { GFM, parser } from "@lezer/markdown";
import { yCollab, yUndoManagerKeymap } from "y-codemirror.next";

import { remoteCursors } from "./cursors";
import type { Room } from "./room";

export class Editor {
  private readonly view: EditorView;
  private readonly writable = new Compartment();

  constructor(host: HTMLElement) {
    // In a shadow root CodeMirror puts its style sheets by script, not as <style> elements, so the page
    // needs no "unsafe-inline" in its Content-Security-Policy.
    const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
    this.view = new EditorView({ parent: root, root });
  }

  show(room: Room): void {
    this.view.setState(
      EditorState.create({
        doc: room.text.toString(),
        extensions: [
          // Only "\n" ends a line: an "\r" in a shared text must keep its place, or positions shift.
          EditorState.lineSeparator.of("\n"),
          this.writable.of(writable(room)),
          keymap.of(defaultKeymap),
          drawSelection(),
          EditorView.lineWrapping,
          EditorView.contentAttributes.of({
            "aria-label": `Text of the room ${room.name}`,
            // It takes the focus anyway, which not every checker of accessibility knows.
            tabindex: "0",
            spellcheck: "true",
            autocapitalize: "sentences",
          }),
          markdown,
          syntaxHighlighting(highlight),
          yCollab(room.text, null, { undoManager: room.undo }),
          remoteCursors(room),
          theme,
        ],
      }),
    );
  }

  /** Let the room's text be changed, or no more, as its status says. */
  allowWriting(room: Room): void {
    this.view.dispatch({ effects: this.writable.reconfigure(writable(room)) });
  }

  focus(): void {
    this.view.focus();
  }
}

function writable({ current: { connection, readOnly } }: Room): Extension {
  if (connection !== "refused" && !readOnly) return [keymap.of(yUndoManagerKeymap), placeholder(invitation)];
  return [
    EditorState.readOnly.of(true),
    EditorView.editable.of(false),
    noUndo,
    connection === "live" ? placeholder("Nothing is written here.") : [],
  ];
}

/**
 * Undoing changes the shared text whether or not the editor may be written in: by key, and by the browser's
 * own command, which y-codemirror.next listens for.
 */
const noUndo: Extension = [
  keymap.of(yUndoManagerKeymap.map((binding) => ({ ...binding, run: () => true }))),
  EditorView.domEventHandlers({ beforeinput: (event) => event.inputType.startsWith("history") }),
];

/** What an empty room says. */
function invitation(): HTMLElement {
  const element = document.createElement("span");
  element.className = "invitation";
  const lead = document.createElement("span");
  lead.className = "invitation-lead";
  lead.textContent = "Start typing.";
  const rest = document.createElement("span");
  rest.textContent =
    "Everyone who has this room open sees it as you write, and it is on disk before it says “Saved”. " +
    "Alone here? Open a second window and watch the strands come together.";
  element.append(lead, rest);
  return element;
}

// Not @codemirror/lang-markdown, which brings HTML, CSS and JavaScript along: 200 KB for code blocks.
const markdown = new Language(defineLanguageFacet(), parser.configure(GFM), [], "markdown");

const highlight = HighlightStyle.define([
  { tag: tags.heading1, fontSize: "1.65em", fontWeight: "600", fontFamily: "var(--serif)", lineHeight: "1.3" },
  { tag: tags.heading2, fontSize: "1.35em", fontWeight: "600", fontFamily: "var(--serif)", lineHeight: "1.35" },
  { tag: tags.heading3, fontSize: "1.15em", fontWeight: "600", fontFamily: "var(--serif)" },
  { tag: [tags.heading4, tags.heading5, tags.heading6], fontWeight: "600" },
  { tag: tags.strong, fontWeight: "700" },
  { tag: tags.emphasis, fontStyle: "italic" },
  { tag: tags.strikethrough, textDecoration: "line-through" },
  { tag: tags.link, color: "var(--accent)" },
  { tag: tags.url, color: "var(--accent)", textDecoration: "underline", textUnderlineOffset: "3px" },
  { tag: tags.monospace, fontFamily: "var(--mono)", fontSize: "0.9em", color: "var(--code)" },
  { tag: tags.quote, color: "var(--ink-soft)", fontStyle: "italic" },
  { tag: [tags.processingInstruction, tags.contentSeparator, tags.labelName], color: "var(--mark)", fontWeight: "400" },
]);

const theme = EditorView.theme({
  "&": { height: "100%", color: "var(--ink)", backgroundColor: "transparent" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": {
    fontFamily: "var(--sans)",
    fontSize: "1.0625rem",
    lineHeight: "1.75",
    overflowX: "hidden",
  },
  ".cm-content": {
    padding: "1.75rem 0 4rem",
    maxWidth: "46rem",
    caretColor: "var(--ink)",
  },
  ".cm-line": { padding: "0 var(--sheet-pad)" },
  ".cm-cursor": { borderLeft: "2px solid var(--ink)", marginLeft: "-1px" },
  ".cm-selectionBackground, &.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground": {
    background: "var(--selection)",
  },
  ".cm-placeholder": { color: "var(--ink-soft)", display: "inline-block", verticalAlign: "top", whiteSpace: "normal" },
  ".invitation > *": { display: "block" },
  ".invitation-lead": { fontFamily: "var(--serif)", fontSize: "1.5em", lineHeight: "1.4" },
});
