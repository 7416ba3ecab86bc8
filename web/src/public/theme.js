// A classic script, so that a theme chosen by hand is there before the first paint.
try {
  const theme = localStorage.getItem("plait.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage may be forbidden; then the system's preference counts.
}
