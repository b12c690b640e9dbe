import { describe, expect, it } from "vitest";
import { address } from "../api/client";
import type { Model } from "../api/types";
import { capabilities, methodsOf, NOTHING, settingsOf, takesOption } from "./capabilities";
import { csv } from "./csv";
import { withHidden } from "./mask";
import { patchAt, roundHalfEven, viewRectangle } from "./placement";
import { inferno, weightPixels } from "./ramp";
import { nextOrder, type Row, sorted } from "./rows";

const model: Model = {
  name: "m", task: "classify", architecture: "vit", backend: "torch", labels: ["a"], height: 8, width: 8, channels: 1,
  explainable: true, license: "CC0-1.0",
};

describe("csv", () => {
  it("quotes commas, quotes, line ends and outer spaces, and leaves the rest", () => {
    expect(csv(["a", "b"], [['x,"y"', 1.5], [" z", null], ["two\nlines", "plain"]])).toBe(
      'a,b\r\n"x,""y""",1.5\r\n" z",\r\n"two\nlines",plain\r\n',
    );
  });
});

describe("placement", () => {
  it("crops the middle", () => {
    const view = viewRectangle({ height: 224, width: 224, resize: "crop", crop_ratio: 0.875 }, 512, 256);
    expect(view.height).toBeCloseTo(0.875);
    expect(view.width).toBeCloseTo(0.4375);
    expect(view.left).toBeCloseTo(0.28125);
  });
  it("goes beyond the image where there are bars", () => {
    const view = viewRectangle({ height: 100, width: 100, resize: "pad" }, 200, 100);
    expect(view).toEqual({ left: -0, top: -0.5, width: 1, height: 2 });
    expect(patchAt(0.5, 0.5, view, [4, 4])).toEqual({ row: 2, column: 2 });
    expect(patchAt(0.99, 0.01, view, [4, 4])).toEqual({ row: 1, column: 3 });
  });
  it("finds no patch outside the crop", () => {
    const view = viewRectangle({ height: 10, width: 10, resize: "crop" }, 20, 10);
    expect(patchAt(0.1, 0.5, view, [2, 2])).toBeNull();
    expect(patchAt(0.26, 0.6, view, [2, 2])).toEqual({ row: 1, column: 0 });
  });
  it("cuts at the whole pixels of timm and transformers", () => {
    const timm = { height: 224, width: 224, resize: "crop", arithmetic: "timm", resized: [256] } as const;
    // 119 rows are over: timm cuts 60 of them off at the top, transformers 59
    expect(viewRectangle({ ...timm, resized: [...timm.resized] }, 256, 343)).toEqual({
      left: 16 / 256, top: 60 / 343, width: 224 / 256, height: 224 / 343,
    });
    const other = viewRectangle({ ...timm, resized: [256], arithmetic: "transformers" }, 256, 343);
    expect(other.top).toBeCloseTo(59 / 343);
    const bars = viewRectangle({ ...timm, resize: "pad", resized: [224, 224] }, 200, 100);
    expect(bars).toEqual({ left: 0, top: -56 / 112, width: 1, height: 2 });
  });
  it("rounds halves as Python does", () => {
    expect([0.5, 1.5, 2.5, 2.4, 2.6].map(roundHalfEven)).toEqual([0, 2, 2, 2, 3]);
  });
});

describe("rows", () => {
  const row = (id: number, name: string, probability: number | null): Row => ({
    id, file: { name } as File, url: "", state: "done", label: null, probability, second: null, secondProbability: null,
    milliseconds: null, error: null,
  });
  const rows = [row(1, "10.png", 0.5), row(2, "9.png", null), row(3, "1.png", 0.9)];
  it("orders numbers in names by value, and keeps what has no value last", () => {
    expect(sorted(rows, { column: "name", descending: false }, "en").map((one) => one.id)).toEqual([3, 2, 1]);
    expect(sorted(rows, { column: "probability", descending: true }, "en").map((one) => one.id)).toEqual([3, 1, 2]);
    expect(sorted(rows, { column: "probability", descending: false }, "en").map((one) => one.id)).toEqual([1, 3, 2]);
  });
  it("turns round at the second click", () => {
    expect(nextOrder(nextOrder(null, "name"), "name")).toEqual({ column: "name", descending: true });
    expect(nextOrder(null, "probability").descending).toBe(true);
  });
});

describe("capabilities", () => {
  const able = capabilities({
    paths: {
      "/v1/heads": {},
      "/v1/explain": {
        post: { parameters: [{ name: "method", schema: { pattern: "^(auto|rollout|attention)$" } }, { name: "layer" }, { name: "discard" }] },
      },
    },
  });
  it("reads paths, parameters and methods", () => {
    expect([able.heads, able.attention, able.methods]).toEqual([true, false, ["auto", "rollout", "attention"]]);
    expect(settingsOf("attention", able, model)).toEqual({ layer: true, head: false, discard: false, residual: false });
    expect(settingsOf("rollout", able, model)).toEqual({ layer: false, head: false, discard: true, residual: false });
  });
  it("offers no setting that an exported model does not take", () => {
    const program = { ...model, methods: ["presence", "rollout"], explain_options: [] };
    expect(settingsOf("rollout", able, program)).toEqual({ layer: false, head: false, discard: false, residual: false });
    expect(settingsOf("rollout", able, { ...program, explain_options: ["discard"] }).discard).toBe(true);
    expect([takesOption(program, "target"), takesOption(model, "target")]).toEqual([false, true]);
  });
  it("offers what works for the model and is accepted", () => {
    expect(methodsOf({ ...model, methods: ["occlusion", "rollout"] }, able)).toEqual(["auto", "rollout"]);
    expect(methodsOf(model, able)).toEqual(["auto", "rollout", "attention"]);
    expect(methodsOf({ ...model, explainable: false }, able)).toEqual([]);
    expect(methodsOf(model, NOTHING)).toEqual(["auto"]);
  });
});

describe("mask", () => {
  it("hides the pixels of a class, and a shared colour only when all its classes are hidden", () => {
    const areas = [
      { label: "a", index: 0, color: "#ff0000", share: 0.5 },
      { label: "b", index: 1, color: "#00ff00", share: 0.3 },
      { label: "c", index: 2, color: "#00ff00", share: 0.2 },
    ];
    const pixels = new Uint8ClampedArray([255, 0, 0, 255, 0, 255, 0, 255]);
    const alpha = (hidden: number[]) => [3, 7].map((at) => withHidden(pixels, areas, new Set(hidden))[at]);
    expect(alpha([0])).toEqual([0, 255]);
    expect(alpha([1])).toEqual([255, 255]);
    expect(alpha([1, 2])).toEqual([255, 0]);
  });
});

describe("ramp", () => {
  it("goes from dark to bright, scaled to the largest weight", () => {
    expect(inferno(0)).toEqual([0, 0, 4]);
    expect(inferno(1)).toEqual([252, 255, 164]);
    expect([...weightPixels([[0, 0.2]], true)]).toEqual([0, 0, 4, 0, 252, 255, 164, 215]);
  });
});

describe("address", () => {
  it("leaves out what is not given, and escapes the rest", () => {
    expect(address("v1/explain", { model: "a&b", layer: 0, head: null, method: "" })).toBe("v1/explain?model=a%26b&layer=0");
  });
});
