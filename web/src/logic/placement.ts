// Where the model's view lies in the original image, as the server's preprocessing places it.
import type { ImageSpec } from "../api/types";

export interface Rectangle {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** Python rounds halves to the even neighbour. */
export function roundHalfEven(value: number): number {
  const down = Math.floor(value);
  if (value - down !== 0.5) return Math.round(value);
  return down % 2 === 0 ? down : down + 1;
}

/**
 * The rectangle that the grid of patches covers, as shares of the image's width and height.
 * It ends inside the image where the view is cropped, and goes beyond it where the view has black bars.
 */
export function viewRectangle(spec: ImageSpec, width: number, height: number): Rectangle {
  const { height: h, width: w } = spec;
  if (spec.resized?.length) {
    const [rows, columns] = resizedTo(spec, height, width);
    const top = firstKept(rows, h, spec);
    const left = firstKept(columns, w, spec);
    return { left: left / columns, top: top / rows, width: w / columns, height: h / rows };
  }
  if (spec.resize === "crop") {
    const scale = Math.max(h / height, w / width) / (spec.crop_ratio ?? 1);
    const partHeight = Math.min(h / scale, height) / height;
    const partWidth = Math.min(w / scale, width) / width;
    return { left: (1 - partWidth) / 2, top: (1 - partHeight) / 2, width: partWidth, height: partHeight };
  }
  if (spec.resize === "pad") {
    const scale = Math.min(h / height, w / width);
    const partHeight = Math.max(1, Math.min(h, roundHalfEven(height * scale)));
    const partWidth = Math.max(1, Math.min(w, roundHalfEven(width * scale)));
    return {
      left: -Math.floor((w - partWidth) / 2) / partWidth,
      top: -Math.floor((h - partHeight) / 2) / partHeight,
      width: w / partWidth,
      height: h / partHeight,
    };
  }
  return { left: 0, top: 0, width: 1, height: 1 };
}

/** What an image is resized to before the middle is cut out, as timm and transformers do it. */
function resizedTo(spec: ImageSpec, height: number, width: number): [number, number] {
  const [rows = 1, columns] = spec.resized ?? [];
  if (columns === undefined) {
    return width <= height ? [Math.trunc((rows * height) / width), rows] : [rows, Math.trunc((rows * width) / height)];
  }
  if (spec.resize === "squash") return [rows, columns];
  const ratios = [height / rows, width / columns] as const;
  const ratio = spec.resize === "pad" ? Math.max(...ratios) : Math.min(...ratios);
  return [Math.max(1, roundHalfEven(height / ratio)), Math.max(1, roundHalfEven(width / ratio))];
}

/** The first pixel of the resized image in the view; below 0 where bars stand before it. */
function firstKept(length: number, view: number, spec: ImageSpec): number {
  const over = length - view;
  if (over < 0) return -Math.floor(-over / 2);
  return spec.arithmetic === "timm" ? roundHalfEven(over / 2) : Math.floor(over / 2);
}

/** The patch at a point given as shares of the image; null where the model does not look. */
export function patchAt(
  x: number,
  y: number,
  view: Rectangle,
  grid: readonly [number, number],
): { row: number; column: number } | null {
  const row = Math.floor(((y - view.top) / view.height) * grid[0]);
  const column = Math.floor(((x - view.left) / view.width) * grid[1]);
  return row >= 0 && row < grid[0] && column >= 0 && column < grid[1] ? { row, column } : null;
}
