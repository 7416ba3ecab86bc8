/** Sizes and times as people say them. */

const UNITS = ["bytes", "KB", "MB", "GB"] as const;

export function size(bytes: number): string {
  let unit = 0;
  while (bytes >= 1000 && unit < UNITS.length - 1) {
    bytes /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || bytes >= 10 ? 0 : 1;
  return `${bytes.toFixed(digits)} ${bytes === 1 && unit === 0 ? "byte" : UNITS[unit]}`;
}

const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

export function ago(thenMs: number, nowMs: number): string {
  const seconds = Math.max(0, (nowMs - thenMs) / 1000);
  if (seconds < 45) return "just now";
  const minutes = seconds / 60;
  if (minutes < 45) return `${Math.max(1, Math.round(minutes))} min ago`;
  const hours = minutes / 60;
  if (hours < 22) return relative.format(-Math.max(1, Math.round(hours)), "hour");
  const days = hours / 24;
  if (days < 26) return relative.format(-Math.max(1, Math.round(days)), "day");
  return new Date(thenMs).toLocaleDateString("en", { year: "numeric", month: "short", day: "numeric" });
}

export function people(count: number): string {
  return count === 1 ? "1 person" : `${count} people`;
}
