/** Who this window is to the others: a name and a colour, made up at first and kept in the browser. */

export type Identity = { readonly name: string; readonly color: string };

/** Colours of natural dyes. White text on each has a contrast of at least 4.5. */
export const COLORS: readonly { readonly name: string; readonly value: string }[] = [
  { name: "Madder", value: "#b5442e" },
  { name: "Ochre", value: "#8d6508" },
  { name: "Moss", value: "#4f7030" },
  { name: "Verdigris", value: "#1b746c" },
  { name: "Woad", value: "#2f5d8c" },
  { name: "Indigo", value: "#514fa3" },
  { name: "Plum", value: "#8a3f7d" },
  { name: "Walnut", value: "#77563c" },
];

const MANNERS = ["Bright", "Brisk", "Calm", "Clever", "Gentle", "Kind", "Merry", "Quick", "Quiet", "Sunny"];
const WEAVERS = ["Bobbin", "Finch", "Heron", "Linnet", "Otter", "Robin", "Shuttle", "Spindle", "Swift", "Wren"];
const KEY = "plait.identity";
const NAME_LENGTH_MAX = 40;

/**
 * The address of a second window ends so; there one is somebody else, to be told apart from the first.
 * A guest's identity belongs to its window (session storage), the other to the browser (local storage).
 */
export const GUEST_HASH = "#guest";

export function loadIdentity(): Identity {
  const guest = location.hash === GUEST_HASH;
  const kept = guest ? null : (read("sessionStorage") ?? read("localStorage"));
  if (kept !== null) return kept;
  const taken = read("localStorage")?.color;
  const identity = {
    name: `${anyOf(MANNERS)} ${anyOf(WEAVERS)}`,
    color: anyOf(COLORS.filter((color) => color.value !== taken)).value,
  };
  write(guest ? "sessionStorage" : "localStorage", identity);
  // Reloading keeps the guest.
  if (guest) history.replaceState(null, "", location.pathname + location.search);
  return identity;
}

/** Be who a token says one is, in this window; return null if it does not say. */
export function takeIdentity(name: unknown, color: unknown): Identity | null {
  const clean = cleanName(name);
  if (clean === null) return null;
  const full = typeof color === "string" ? color.replace(/^#(.)(.)(.)$/, "#$1$1$2$2$3$3") : null;
  const kept = read("sessionStorage") ?? read("localStorage");
  const said = full !== null && /^#[0-9a-f]{6}$/i.test(full) ? full : null;
  const identity = { name: clean, color: said ?? kept?.color ?? anyOf(COLORS).value };
  write("sessionStorage", identity);
  return identity;
}

/** Be again who one was without a token. */
export function dropIdentity(): Identity {
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // Storage may be forbidden; then there is nothing to remove.
  }
  return loadIdentity();
}

export function saveIdentity(identity: Identity): void {
  write(read("sessionStorage") === null ? "localStorage" : "sessionStorage", identity);
}

/** Return a name as it may be shown, or null if nothing is left of it. */
export function cleanName(name: unknown): string | null {
  if (typeof name !== "string") return null;
  const clean = Array.from(name.replace(/\s+/g, " ").trim()).slice(0, NAME_LENGTH_MAX).join("");
  return clean === "" ? null : clean;
}

/** Return a colour that is safe to use in a style, whatever another client sent. */
export function cleanColor(color: unknown): string {
  return typeof color === "string" && /^#[0-9a-f]{6}$/i.test(color) ? color : "#5f6368";
}

/** Two colours that are nearer to each other, in Oklab, are taken for the same. */
const ALIKE = 0.02;

/**
 * Return the colour to have among others: the present one, unless somebody with a smaller client id has it.
 *
 * Whoever has the smallest id never gives way, the next only to that one, and so on. So windows that decide
 * this each for itself come to rest, and no two of them are left with one colour while another is free.
 */
export function colorAmong(own: string, before: readonly string[], after: readonly string[]): string {
  const taken = (color: string, by: readonly string[]): boolean => by.some((other) => distance(color, other) < ALIKE);
  if (!taken(own, before)) return own;
  const unclaimed = COLORS.map(({ value }) => value).filter((value) => !taken(value, before));
  const free = unclaimed.filter((value) => !taken(value, after));
  const choices = free.length > 0 ? free : unclaimed;
  const others = [...before, ...after];
  const apart = (color: string): number => Math.min(...others.map((other) => distance(color, other)));
  return choices.reduce((best, color) => (apart(color) > apart(best) ? color : best), choices[0] ?? own);
}

/** How different two colours look. */
function distance(one: string, other: string): number {
  const [a, b] = [oklab(one), oklab(other)];
  return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

/** See https://bottosson.github.io/posts/oklab/. */
function oklab(color: string): [number, number, number] {
  const [r, g, b] = linear(color);
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

/** Red, green and blue as amounts of light. */
function linear(color: string): [number, number, number] {
  return [1, 3, 5].map((at) => {
    const part = parseInt(color.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
}

/** Black or white, whichever reads better on a colour. */
export function inkOn(color: string): string {
  const [r, g, b] = linear(color);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000000" : "#ffffff";
}

/** One or two letters for an avatar. */
export function initials(name: string): string {
  const words = name.split(" ");
  const letters = words.length > 1 ? [words[0], words[words.length - 1]] : [words[0]];
  return letters.map((word) => Array.from(word ?? "")[0] ?? "").join("").toUpperCase();
}

type Place = "localStorage" | "sessionStorage";

function write(place: Place, identity: Identity): void {
  try {
    window[place].setItem(KEY, JSON.stringify(identity));
  } catch {
    // Storage may be forbidden; then the identity lasts as long as the window.
  }
}

function read(place: Place): Identity | null {
  try {
    const kept: unknown = JSON.parse(window[place].getItem(KEY) ?? "null");
    if (typeof kept !== "object" || kept === null) return null;
    const { name, color } = kept as Record<string, unknown>;
    const clean = cleanName(name);
    return clean === null ? null : { name: clean, color: cleanColor(color) };
  } catch {
    return null;
  }
}

function anyOf<T>(choices: readonly T[]): T {
  return choices[Math.floor(Math.random() * choices.length)]!;
}
