/** Light or dark: as the system prefers, until the button is pressed. `theme.js` applies it at the next visit. */

import { byId } from "./dom";

const KEY = "plait.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

export function setUpTheme(): void {
  const button = byId<HTMLButtonElement>("theme");
  const { dataset } = document.documentElement;
  const dark = (): boolean => (dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const draw = (): void => button.setAttribute("aria-pressed", String(dark()));
  button.addEventListener("click", () => {
    const next = dark() ? "light" : "dark";
    // What the system prefers needs no memory: the page then follows it again.
    if ((next === "dark") === system.matches) delete dataset.theme;
    else dataset.theme = next;
    remember(dataset.theme);
    draw();
  });
  system.addEventListener("change", draw);
  draw();
}

function remember(theme: string | undefined): void {
  try {
    if (theme === undefined) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme);
  } catch {
    // Storage may be forbidden; then the choice lasts as long as the window.
  }
}
