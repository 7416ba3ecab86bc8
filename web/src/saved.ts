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

/** Edits made within this time count as equally old, so that those of hours without a server stay few to go through. */
const BATCH_MS = 1000;

/** What is left of the edits that were made from a time on. */
type Batch = { readonly since: number; readonly inserted: Ranges; readonly deleted: Ranges };

export class Unacknowledged {
  /** The oldest first. */
  private batches: Batch[] = [];

  get empty(): boolean {
    return this.batches.length === 0;
  }

  /** When the oldest edit was made, in the time of `performance.now()`. */
  get since(): number | null {
    return this.batches[0]?.since ?? null;
  }

  /** Note an update that was made here. */
  made(update: Uint8Array, now: number): void {
    let batch = this.batches.at(-1);
    if (batch === undefined || now - batch.since >= BATCH_MS) {
      batch = { since: now, inserted: new Ranges(), deleted: new Ranges() };
    }
    const { inserted, deleted } = batch;
    each(
      update,
      (client, from, to) => inserted.add(client, from, to),
      (client, from, to) => deleted.add(client, from, to),
    );
    if (batch !== this.batches.at(-1) && left(batch)) this.batches.push(batch);
  }

  /** Note an update that the server sent. */
  received(update: Uint8Array): void {
    if (this.empty) return;
    each(
      update,
      (client, from, to) => this.batches.forEach(({ inserted }) => inserted.remove(client, from, to)),
      (client, from, to) => this.batches.forEach(({ deleted }) => deleted.remove(client, from, to)),
    );
    this.batches = this.batches.filter(left);
  }

  /**
   * What to answer to the server's state vector: everything that it lacks or has not acknowledged.
   * It may have an edit whose acknowledgement was lost with the connection; told again, it answers again.
   */
  answer(doc: Y.Doc, stateVector: Uint8Array): Uint8Array {
    const known = Y.decodeStateVector(stateVector);
    for (const { inserted } of this.batches) {
      for (const client of inserted.clients()) {
        const first = inserted.first(client) ?? 0;
        if (first < (known.get(client) ?? 0)) known.set(client, first);
      }
    }
    return Y.encodeStateAsUpdate(doc, Y.encodeStateVector(known));
  }
}

function left({ inserted, deleted }: Batch): boolean {
  return !inserted.empty || !deleted.empty;
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
