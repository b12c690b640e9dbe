// What all pages share: the server's models and abilities, the chosen model, the image, the key.
import { createContext, type ReactNode, useCallback, useContext, useEffect, useMemo, useState } from "react";
import { Client, ServerError } from "./api/client";
import type { Model, ModelDetails, OpenApi } from "./api/types";
import { type Capabilities, capabilities, NOTHING } from "./logic/capabilities";

export interface Picture {
  file: File;
  url: string;
}

interface Shared {
  client: Client;
  models: Model[];
  able: Capabilities;
  model: Model;
  choose: (name: string) => void;
  picture: Picture | null;
  take: (file: File) => void;
}

interface Start {
  state: "loading" | "ready" | "failed" | "locked";
  error: unknown;
  models: Model[];
  able: Capabilities;
}

const Context = createContext<Shared | null>(null);

export function useShared(): Shared {
  const shared = useContext(Context);
  if (!shared) throw new Error("outside of SharedState");
  return shared;
}

export function SharedState({
  children,
  waiting,
}: {
  children: ReactNode;
  waiting: (start: Start, key: string, useKey: (key: string) => void, again: () => void) => ReactNode;
}) {
  const [key, setKey] = useState("");
  const [turn, setTurn] = useState(0);
  const [start, setStart] = useState<Start>({ state: "loading", error: null, models: [], able: NOTHING });
  const [chosen, setChosen] = useState<string | null>(null);
  const [picture, setPicture] = useState<Picture | null>(null);
  const client = useMemo(() => new Client(key), [key]);

  useEffect(() => {
    let current = true;
    async function load() {
      try {
        const [listed, document] = await Promise.all([
          client.get<{ models: Model[] }>("v1/models"),
          client.get<OpenApi>("openapi.json").catch((): OpenApi => ({})),
        ]);
        if (current) setStart({ state: "ready", error: null, models: listed.models, able: capabilities(document) });
      } catch (error) {
        const locked = error instanceof ServerError && error.status === 401;
        if (current) setStart({ state: locked ? "locked" : "failed", error, models: [], able: NOTHING });
      }
    }
    void load();
    return () => {
      current = false;
    };
  }, [client, turn]);

  const take = useCallback((file: File) => {
    setPicture((before) => {
      if (before) URL.revokeObjectURL(before.url);
      return { file, url: URL.createObjectURL(file) };
    });
  }, []);

  const model = start.models.find((one) => one.name === chosen) ?? start.models[0];
  const shared = useMemo(
    () => (model ? { client, models: start.models, able: start.able, model, choose: setChosen, picture, take } : null),
    [client, start, model, picture, take],
  );
  if (!shared) return waiting(start, key, setKey, () => setTurn((before) => before + 1));
  return <Context value={shared}>{children}</Context>;
}

const kept = new Map<string, Promise<ModelDetails | null>>();

/** The details of a model; what `GET /v1/models` said where the server has no more. */
export function useDetails(model: Model): ModelDetails {
  const { client, able } = useShared();
  const [found, setFound] = useState<ModelDetails | null>(null);
  useEffect(() => {
    if (!able.details) return undefined;
    let current = true;
    let asked = kept.get(model.name);
    if (!asked) {
      asked = client.get<ModelDetails>(`v1/models/${encodeURIComponent(model.name)}`).catch((error: unknown) => {
        if (!(error instanceof ServerError && error.status === 404)) kept.delete(model.name);
        return null;
      });
      kept.set(model.name, asked);
    }
    void asked.then((details) => {
      if (current) setFound(details);
    });
    return () => {
      current = false;
    };
  }, [client, model.name, able.details]);
  return found && found.name === model.name ? found : model;
}

export interface Asked<T> {
  value: T | null;
  error: unknown;
  busy: boolean;
  milliseconds: number | null;
}

/**
 * Ask the server again whenever `key` changes; late answers are dropped, null asks nothing.
 * While new settings are asked for, the answer to the old ones stays; that of another image or model does not.
 */
export function useAsked<T>(
  key: string | null,
  ask: (signal: AbortSignal) => Promise<T>,
  picture: Picture | null,
  model: string,
): Asked<T> {
  const [asked, setAsked] = useState<Asked<T> & { picture: Picture | null; model: string }>({ ...NOT_ASKED, picture, model });
  useEffect(() => {
    const about = { picture, model };
    if (key === null || !picture) {
      setAsked({ ...NOT_ASKED, ...about });
      return undefined;
    }
    const control = new AbortController();
    const began = performance.now();
    setAsked((before) =>
      before.picture === picture && before.model === model ? { ...before, error: null, busy: true } : { ...NOT_ASKED, ...about, busy: true },
    );
    ask(control.signal).then(
      (value) => {
        if (!control.signal.aborted) setAsked({ value, error: null, busy: false, milliseconds: performance.now() - began, ...about });
      },
      (error: unknown) => {
        if (!control.signal.aborted) setAsked({ ...NOT_ASKED, error, ...about });
      },
    );
    return () => control.abort();
    // `ask` is made anew at each rendering; key, image and model are all that it depends on
  }, [key, picture, model]);
  return asked.picture === picture && asked.model === model ? asked : { ...NOT_ASKED, busy: key !== null && picture !== null };
}

const NOT_ASKED = { value: null, error: null, busy: false, milliseconds: null } as const;
