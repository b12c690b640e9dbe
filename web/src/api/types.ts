// What the server answers; names as in its OpenAPI document.

export interface Score {
  label: string;
  index: number;
  probability: number;
}

export interface Model {
  name: string;
  task: string;
  architecture: string;
  backend: string;
  labels: string[];
  height: number;
  width: number;
  channels: number;
  explainable: boolean;
  license: string;
}

export interface ImageSpec {
  height: number;
  width: number;
  channels?: number;
  resize?: "squash" | "crop" | "pad" | "none";
  crop_ratio?: number;
  arithmetic?: "exact" | "timm" | "transformers";
  resized?: number[];
}

export interface Inspection {
  distance?: number[][];
  filters?: string;
  positions?: string;
}

/** `GET /v1/models/{name}`; a server that lacks it leaves the page with `Model` alone. */
export interface ModelDetails extends Model {
  image?: ImageSpec;
  card?: string | null;
  parameters?: number | null;
  metrics?: Record<string, unknown> | null;
  colors?: string[];
  methods?: string[];
  /** Parameters of `POST /v1/explain` beside method and top that the model takes. */
  explain_options?: string[];
  layers?: number | null;
  heads?: number | null;
  grid?: [number, number] | null;
  examples?: number;
  inspection?: Inspection | null;
}

export interface Classification {
  model: string;
  label: string;
  top: Score[];
}

export interface Area {
  label: string;
  index: number;
  color: string;
  share: number;
}

export interface Segmentation {
  model: string;
  width: number;
  height: number;
  areas: Area[];
  mask: string;
}

export interface Explanation {
  model: string;
  method: string;
  target: Score;
  grid: [number, number];
  prefix_mass: number | null;
  width: number;
  height: number;
  heatmap: string;
}

export interface Attention {
  grid: [number, number];
  layers: number;
  heads: number;
  layer: number;
  head: number | null;
  row: number | null;
  column: number | null;
  weights: number[][];
  prefix_mass: number | null;
}

export interface Heads {
  grid: [number, number];
  layers: number;
  heads: number;
  maps: string;
  entropy: number[][];
}

export interface OpenApi {
  paths?: Record<string, Record<string, { parameters?: { name: string; schema?: { pattern?: string; enum?: string[] } }[] }>>;
}
