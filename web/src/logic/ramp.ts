// Colours of values between 0 and 1: a short table of the inferno map, linear in between.

const STOPS: readonly (readonly [number, number, number])[] = [
  [0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164],
];

export function inferno(value: number): [number, number, number] {
  const place = Math.min(1, Math.max(0, value)) * (STOPS.length - 1);
  const low = Math.min(STOPS.length - 2, Math.floor(place));
  const [a, b] = [STOPS[low], STOPS[low + 1]];
  if (!a || !b) return [0, 0, 0];
  const share = place - low;
  return [mix(a[0], b[0], share), mix(a[1], b[1], share), mix(a[2], b[2], share)];
}

function mix(a: number, b: number, share: number): number {
  return Math.round(a + (b - a) * share);
}

/** RGBA pixels of a table of weights, the largest brightest; `cover` makes small ones transparent. */
export function weightPixels(weights: readonly (readonly number[])[], cover: boolean): Uint8ClampedArray<ArrayBuffer> {
  const values = weights.flat();
  const top = Math.max(...values, 0);
  const pixels = new Uint8ClampedArray(values.length * 4);
  values.forEach((value, at) => {
    const level = top > 0 ? value / top : 0;
    pixels.set([...inferno(level), cover ? Math.round(Math.sqrt(level) * 215) : 255], at * 4);
  });
  return pixels;
}
