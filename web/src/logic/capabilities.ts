// What this server and this model can do, from the OpenAPI document and the model's details.
import type { Model, ModelDetails, OpenApi } from "../api/types";

export interface Capabilities {
  /** `GET /v1/models/{name}`. */
  details: boolean;
  heads: boolean;
  attention: boolean;
  /** Query parameters of `POST /v1/explain`. */
  explain: ReadonlySet<string>;
  /** Methods that the server accepts at all. */
  methods: readonly string[];
}

export const NOTHING: Capabilities = { details: false, heads: false, attention: false, explain: new Set(), methods: [] };

export function capabilities(document: OpenApi): Capabilities {
  const paths = document.paths ?? {};
  const parameters = paths["/v1/explain"]?.post?.parameters ?? [];
  const method = parameters.find((one) => one.name === "method")?.schema;
  const named = method?.enum ?? /^\^\(([a-z0-9_|]+)\)\$$/.exec(method?.pattern ?? "")?.[1]?.split("|") ?? [];
  return {
    details: "/v1/models/{name}" in paths,
    heads: "/v1/heads" in paths,
    attention: "/v1/attention" in paths,
    explain: new Set(parameters.map((one) => one.name)),
    methods: named,
  };
}

/** The methods to choose from: those that work for the model, `auto` first. */
export function methodsOf(model: Model & Partial<ModelDetails>, able: Capabilities): string[] {
  if (!model.explainable) return [];
  const works = model.methods ?? able.methods;
  const accepted = able.methods.length ? works.filter((name) => able.methods.includes(name)) : works;
  return ["auto", ...accepted.filter((name) => name !== "auto")];
}

const BY_LAYER = new Set(["attention", "gradcam"]);
const ROLLOUTS = new Set(["rollout", "rollout_literature", "gradient_rollout"]);
const SAME_FOR_ALL = new Set(["rollout", "rollout_literature", "attention"]);

/** Which further settings a method takes, where the server and the model know them. */
export function settingsOf(
  method: string,
  able: Capabilities,
  model: Partial<ModelDetails>,
): { layer: boolean; head: boolean; discard: boolean; residual: boolean } {
  const takes = (name: string) => able.explain.has(name) && takesOption(model, name);
  return {
    layer: BY_LAYER.has(method) && takes("layer"),
    head: method === "attention" && takes("head"),
    discard: ROLLOUTS.has(method) && takes("discard"),
    residual: ROLLOUTS.has(method) && takes("residual"),
  };
}

/** Whether a model's explanations take an option; an exported program takes none, not even another class. */
export function takesOption(model: Partial<ModelDetails>, name: string): boolean {
  return model.explain_options?.includes(name) ?? true;
}

/** Whether a method's map is the same whatever the class. */
export function ignoresClass(method: string): boolean {
  return SAME_FOR_ALL.has(method);
}
