// Calls of the server; every address is relative, so that a path prefix of a proxy is kept.

export class ServerError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly hint: string,
    readonly status: number,
  ) {
    super(message);
  }
}

type Values = Record<string, string | number | null | undefined>;

/** `path` with those values as its query that are given. */
export function address(path: string, values: Values = {}): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, String(value));
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

export class Client {
  constructor(private readonly key: string) {}

  get<T>(path: string, signal?: AbortSignal): Promise<T> {
    return this.ask<T>(path, { method: "GET", signal });
  }

  /** Send an image as the body. */
  post<T>(path: string, image: Blob, signal?: AbortSignal): Promise<T> {
    return this.ask<T>(path, { method: "POST", body: image, signal });
  }

  /** A file that the server holds. */
  async file(path: string, signal?: AbortSignal): Promise<Blob> {
    const answer = await this.fetch(path, { method: "GET", signal });
    if (!answer.ok) throw new ServerError("unreadable_answer", "", "", answer.status);
    return answer.blob();
  }

  private async fetch(path: string, request: RequestInit): Promise<Response> {
    const headers: Record<string, string> = {};
    if (request.body) headers["Content-Type"] = "application/octet-stream";
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    try {
      return await fetch(path, { ...request, headers });
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") throw error;
      throw new ServerError("no_answer", "", "", 0);
    }
  }

  private async ask<T>(path: string, request: RequestInit): Promise<T> {
    const answer = await this.fetch(path, request);
    const body: unknown = await answer.json().catch(() => null);
    if (answer.ok && body !== null) return body as T;
    const said = (body ?? {}) as { code?: string; message?: string; hint?: string; title?: string; detail?: string };
    throw new ServerError(
      said.code ?? "unreadable_answer",
      said.message ?? said.title ?? "",
      said.hint ?? said.detail ?? "",
      answer.status,
    );
  }
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}
