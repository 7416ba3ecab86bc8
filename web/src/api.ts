/** The REST calls of this page. */

export type RoomInfo = {
  readonly name: string;
  readonly bytes: number;
  readonly updates: number;
  readonly created_ms: number;
  readonly modified_ms: number;
  readonly members: number;
  readonly open: boolean;
};

export type RoomPage = { readonly docs: readonly RoomInfo[]; readonly next: string | null };

/** An answer that is not a success; its message is fit to be shown. */
export class ApiError extends Error {
  constructor(
    readonly status: number | null,
    message: string,
  ) {
    super(message);
  }
}

export async function listRooms(prefix: string, after: string | null): Promise<RoomPage> {
  const query = new URLSearchParams({ limit: "50", prefix });
  if (after !== null) query.set("after", after);
  const response = await call(`/api/docs?${query}`);
  return (await response.json()) as RoomPage;
}

export async function deleteRoom(name: string): Promise<void> {
  await call(`/api/docs/${encodeURIComponent(name)}`, { method: "DELETE" });
}

/** Where a room's content can be downloaded as one Yjs update. */
export function stateUrl(name: string): string {
  return `/api/docs/${encodeURIComponent(name)}/state`;
}

/** Return the HTTP status of a room, or null if the server can't be reached. */
export async function probeRoom(name: string): Promise<number | null> {
  try {
    return (await fetch(stateUrl(name), { method: "HEAD", cache: "no-store" })).status;
  } catch {
    return null;
  }
}

async function call(url: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, { cache: "no-store", ...init });
  } catch {
    throw new ApiError(null, "The server can’t be reached.");
  }
  if (response.ok) return response;
  if (response.status === 401 || response.status === 403) {
    throw new ApiError(response.status, "You are not allowed to do that.");
  }
  throw new ApiError(response.status, `The server answered with an error (${response.status}).`);
}
