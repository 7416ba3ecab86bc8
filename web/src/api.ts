/** The REST calls of this page. */

import { session } from "./session";

export type RoomInfo = {
  readonly name: string;
  readonly bytes: number;
  readonly updates: number;
  /** Null until something is stored. */
  readonly created_ms: number | null;
  readonly modified_ms: number | null;
  readonly members: number;
  readonly open: boolean;
};

export type RoomPage = { readonly docs: readonly RoomInfo[]; readonly next: string | null };

/** An answer that is not a success; its message is fit to be shown. */
export class ApiError extends Error {
  constructor(
    readonly status: number | null,
    message: string,
    /** The server's own words, if it gave any. */
    readonly reason: string = "",
  ) {
    super(message);
  }

  /** Whether another try with the same token is of no use. */
  get denied(): boolean {
    return this.status === 401 || this.status === 403;
  }
}

export async function listRooms(prefix: string, after: string | null): Promise<RoomPage> {
  const query = new URLSearchParams({ limit: "50", prefix });
  if (after !== null) query.set("after", after);
  const response = await call(`/api/docs?${query}`);
  return (await response.json()) as RoomPage;
}

export async function deleteRoom(name: string): Promise<void> {
  await call(addressOf(name), { method: "DELETE" });
}

/** Return a room's content as one Yjs update. */
export async function readState(name: string): Promise<Blob> {
  return (await call(`${addressOf(name)}/state`)).blob();
}

/** Return the answer to the question for a room, as an error unless there is it; null if it may be opened. */
export async function probeRoom(name: string, token: string | null = session.token): Promise<ApiError | null> {
  const headers: Record<string, string> = token === null ? {} : { Authorization: `Bearer ${token}` };
  try {
    await call(addressOf(name), { headers });
  } catch (error) {
    if (error instanceof ApiError) return error;
    throw error;
  }
  return null;
}

function addressOf(name: string): string {
  return `/api/docs/${encodeURIComponent(name)}`;
}

async function call(url: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, { cache: "no-store", credentials: "same-origin", headers: session.headers, ...init });
  } catch {
    throw new ApiError(null, "The server can’t be reached.");
  }
  if (response.ok) return response;
  const { status } = response;
  const message =
    status === 401
      ? "You have to sign in for that."
      : status === 403
        ? "You are not allowed to do that."
        : `The server answered with an error (${status}).`;
  throw new ApiError(status, message, await reasonIn(response));
}

async function reasonIn(response: Response): Promise<string> {
  try {
    const { error } = (await response.json()) as { error?: { message?: unknown } };
    return typeof error?.message === "string" ? error.message : "";
  } catch {
    return "";
  }
}
