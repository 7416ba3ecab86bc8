/**
 * Knows which of this window's edits the server has not yet acknowledged.
 *
 * Plait sends a client's own content back only after it is committed to disk. So an edit is pending from
 * the moment it is made until its content has come back: insertions by (client, clock), deletions by what
 * they delete. Comparing content instead of counting messages stays right when updates are merged, doubled,
 * reordered or lost together with their connection.
 */

import * as Y from "yjs";

type Range = { from: number; to: number };

/** Numbers of several clients, as sorted ranges that don't touch. */
class Ranges {
  private readonly of = new Map<number, Range[]>();

  get empty(): boolean {
    return this.of.size === 0;
  }

  /** The smallest number of a client, if there is one. */
  first(client: number): number | undefined {
    return this.of.get(client)?.[0]?.from;
  }

  clients(): Iterable<number> {
    return this.of.keys();
  }

  add(client: number, from: number, to: number): void {
    if (from >= to) return;
    const kept: Range[] = [];
    for (const range of this.of.get(client) ?? []) {
      if (range.to < from || range.from > to) {
        kept.push(range);
      } else {
        from = Math.min(from, range.from);
        to = Math.max(to, range.to);
      }
    }
    kept.push({ from, to });
    this.of.set(client, kept.sort((a, b) => a.from - b.from));
  }

  remove(client: number, from: number, to: number): void {
    const ranges = this.of.get(client);
    if (ranges === undefined) return;
    const kept = ranges.flatMap((range) =>
      [
        { from: range.from, to: Math.min(range.to, from) },
        { from: Math.max(range.from, to), to: range.to },
      ].filter((rest) => rest.from < rest.to),
    );
    if (kept.length > 0) this.of.set(client, kept);
    else this.of.delete(client);
  }
}

export class Unacknowledged {
  private readonly inserted = new Ranges();
  private readonly deleted = new Ranges();

  get empty(): boolean {
    return this.inserted.empty && this.deleted.empty;
  }

  /** Note an update that was made here. */
  made(update: Uint8Array): void {
    each(
      update,
      (client, from, to) => this.inserted.add(client, from, to),
      (client, from, to) => this.deleted.add(client, from, to),
    );
  }

  /** Note an update that the server sent. */
  received(update: Uint8Array): void {
    if (this.empty) return;
    each(
      update,
      (client, from, to) => this.inserted.remove(client, from, to),
      (client, from, to) => this.deleted.remove(client, from, to),
    );
  }

  /**
   * What to answer to the server's state vector: everything that it lacks or has not acknowledged.
   * It may have an edit whose acknowledgement was lost with the connection; told again, it answers again.
   */
  answer(doc: Y.Doc, stateVector: Uint8Array): Uint8Array {
    const known = Y.decodeStateVector(stateVector);
    for (const client of this.inserted.clients()) {
      const first = this.inserted.first(client) ?? 0;
      if (first < (known.get(client) ?? 0)) known.set(client, first);
    }
    return Y.encodeStateAsUpdate(doc, Y.encodeStateVector(known));
  }
}

type Visit = (client: number, from: number, to: number) => void;

function each(update: Uint8Array, inserted: Visit, deleted: Visit): void {
  const { structs, ds } = Y.decodeUpdate(update);
  for (const struct of structs) {
    // A skip says that the update does *not* have these clocks.
    if (struct instanceof Y.Skip) continue;
    inserted(struct.id.client, struct.id.clock, struct.id.clock + struct.length);
  }
  for (const [client, items] of ds.clients) {
    for (const item of items) deleted(client, item.clock, item.clock + item.len);
  }
}
