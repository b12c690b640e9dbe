// Files that the page hands to the browser to save, and pictures drawn for that.

export function save(name: string, content: Blob): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name.replaceAll(/[\\/:*?"<>|\u0000-\u001f]/g, "_");
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export function saveJson(name: string, value: unknown): void {
  save(name, new Blob([JSON.stringify(value, null, 2) + "\n"], { type: "application/json" }));
}

export async function loadImage(url: string): Promise<HTMLImageElement> {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

/** Most pixels on a side that every browser draws. */
const MOST = 4096;

/** The image with a layer over it; images below 256 pixels are enlarged by a whole factor. */
export async function overlayPng(imageUrl: string, layer: CanvasImageSource | string, opacity: number, sharp: boolean): Promise<Blob> {
  const image = await loadImage(imageUrl);
  const over = typeof layer === "string" ? await loadImage(layer) : layer;
  const longest = Math.max(image.naturalWidth, image.naturalHeight);
  const factor = longest > MOST ? MOST / longest : Math.max(1, Math.floor(256 / longest));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(image.naturalWidth * factor));
  canvas.height = Math.max(1, Math.round(image.naturalHeight * factor));
  const brush = canvas.getContext("2d");
  if (!brush) throw new Error("no canvas");
  brush.imageSmoothingEnabled = factor < 1;
  brush.drawImage(image, 0, 0, canvas.width, canvas.height);
  brush.globalAlpha = opacity;
  brush.imageSmoothingEnabled = !sharp;
  brush.drawImage(over, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no picture"))), "image/png");
  });
}
