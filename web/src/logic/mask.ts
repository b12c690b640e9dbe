// Masks of classes as pixels: hiding some, and finding the class under a point.
import type { Area } from "../api/types";

export function rgb(color: string): number {
  return Number.parseInt(color.slice(1, 7), 16);
}

/**
 * The mask (RGBA) with every pixel transparent whose classes are all hidden.
 * The picture holds colours only; two classes of one colour vanish together, when both are hidden.
 */
export function withHidden(pixels: Uint8ClampedArray, areas: readonly Area[], hidden: ReadonlySet<number>): Uint8ClampedArray {
  const shown = new Set(areas.filter((area) => !hidden.has(area.index)).map((area) => rgb(area.color)));
  const gone = new Set(areas.filter((area) => hidden.has(area.index)).map((area) => rgb(area.color)));
  const result = new Uint8ClampedArray(pixels);
  for (let at = 0; at < result.length; at += 4) {
    const color = ((result[at] ?? 0) << 16) | ((result[at + 1] ?? 0) << 8) | (result[at + 2] ?? 0);
    if (gone.has(color) && !shown.has(color)) result[at + 3] = 0;
  }
  return result;
}
