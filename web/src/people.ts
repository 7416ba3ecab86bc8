/** Who is in the room, and the dialog in which one says who one is. */

import { announce, byId, make, setText } from "./dom";
import { cleanColor, cleanName, COLORS, type Identity, initials, inkOn } from "./identity";
import type { Room } from "./room";

const SHOWN_MAX = 5;

type Person = { readonly client: number; readonly name: string; readonly color: string };

/** Show the others of a room until the returned function is called; tell when somebody comes or goes. */
export function showPeople(room: Room, moved: () => void): () => void {
  const { awareness } = room.provider;
  const list = byId("people");
  let shown = "";
  const draw = (): void => {
    const others: Person[] = [];
    for (const [client, state] of awareness.getStates()) {
      if (client === awareness.clientID || !state.user) continue;
      const name = cleanName(state.user.name) ?? "Somebody";
      others.push({ client, name, color: cleanColor(state.user.color) });
    }
    others.sort((a, b) => a.client - b.client);
    const key = JSON.stringify(others);
    if (key === shown) return;
    shown = key;
    const items = others.slice(0, SHOWN_MAX).map(({ name, color }) => {
      const item = make("li", "");
      item.title = name;
      item.append(avatar({ name, color }), make("span", "unseen", name));
      return item;
    });
    if (others.length > SHOWN_MAX) {
      const rest = others.slice(SHOWN_MAX);
      const item = make("li", "avatar rest", `+${rest.length}`);
      item.title = rest.map((person) => person.name).join(", ");
      items.push(item);
    }
    list.replaceChildren(...items);
  };
  const onChange = ({ added, removed }: { added: number[]; removed: number[] }): void => {
    draw();
    if (added.length > 0 || removed.length > 0) moved();
  };
  awareness.on("change", onChange);
  draw();
  return () => awareness.off("change", onChange);
}

/** Show the own name, and let it be changed. */
export class You {
  private readonly button = byId<HTMLButtonElement>("you");
  private readonly dialog = byId<HTMLDialogElement>("identity");
  private worn: string | null = null;
  private readonly name = byId<HTMLInputElement>("identity-name");

  constructor(
    private identity: Identity,
    private readonly changed: (identity: Identity) => void,
  ) {
    this.draw();
    byId("swatches").append(...COLORS.map(swatch));
    this.button.addEventListener("click", () => this.open());
    this.dialog.querySelector("[data-close]")?.addEventListener("click", () => this.dialog.close());
    byId<HTMLFormElement>("identity-form").addEventListener("submit", () => this.save());
  }

  /** Show the colour that this window has in the room, whatever was chosen. */
  wear(color: string): void {
    this.worn = color;
    this.draw();
  }

  /** Show another identity, which was not chosen here. */
  show(identity: Identity): void {
    this.identity = identity;
    this.draw();
  }

  private open(): void {
    this.name.value = this.identity.name;
    for (const radio of this.radios()) radio.checked = radio.value === this.identity.color;
    this.dialog.showModal();
    this.name.select();
  }

  private save(): void {
    const name = cleanName(this.name.value) ?? this.identity.name;
    const color = this.radios().find((radio) => radio.checked)?.value ?? this.identity.color;
    this.identity = { name, color };
    this.draw();
    this.changed(this.identity);
    announce(`You are ${name} now.`);
  }

  private draw(): void {
    const label = make("span", "you-name");
    setText(label, this.identity.name);
    const what = make("span", "unseen", " is you. Change your name and colour");
    this.button.replaceChildren(avatar({ ...this.identity, color: this.worn ?? this.identity.color }), label, what);
  }

  private radios(): HTMLInputElement[] {
    return Array.from(this.dialog.querySelectorAll<HTMLInputElement>("input[type=radio]"));
  }
}

function avatar({ name, color }: Identity): HTMLElement {
  const element = make("span", "avatar", initials(name));
  element.setAttribute("aria-hidden", "true");
  element.style.setProperty("--who", color);
  element.style.setProperty("--on-who", inkOn(color));
  return element;
}

function swatch({ name, value }: { name: string; value: string }): HTMLElement {
  const label = make("label", "swatch");
  label.title = name;
  label.style.setProperty("--who", value);
  const radio = make("input", "");
  radio.type = "radio";
  radio.name = "color";
  radio.value = value;
  radio.setAttribute("aria-label", name);
  label.append(radio);
  return label;
}
