// Inside the model: where a patch attends, and what each head of each layer attends to.
import { Button, Group, TextInput } from "@mantine/core";
import { useEffect, useMemo, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { address } from "../api/client";
import type { Attention as Weights, Heads, ModelDetails } from "../api/types";
import { patchAt, type Rectangle, viewRectangle } from "../logic/placement";
import { inferno, weightPixels } from "../logic/ramp";
import { loadImage } from "../logic/save";
import { number, percent } from "../logic/text";
import { NumberChoice } from "../parts/HeatControls";
import { Notice } from "../parts/Notice";
import { Range } from "../parts/Range";
import { type Size, Stage } from "../parts/Stage";
import { useAsked, useDetails, useShared } from "../state";

interface Place {
  row: number;
  column: number;
}

export function Attention() {
  const { t, i18n } = useTranslation();
  const { client, model, picture, able } = useShared();
  const details = useDetails(model);
  const [size, setSize] = useState<Size | null>(null);
  const [place, setPlace] = useState<Place | null>(null);
  const [layer, setLayer] = useState<number | null>(null);
  const [head, setHead] = useState<number | null>(null);
  const [opacity, setOpacity] = useState(0.75);
  const [outside, setOutside] = useState(false);
  useEffect(() => {
    setPlace(null);
    setLayer(null);
    setHead(null);
  }, [model.name]);
  useEffect(() => setSize(null), [picture]);

  const sheetPath = able.heads ? address("v1/heads", { model: model.name }) : null;
  const sheet = useAsked<Heads>(sheetPath, (signal) => client.post(sheetPath ?? "", picture?.file ?? new Blob(), signal), picture, model.name);
  const path = able.attention
    ? address("v1/attention", { model: model.name, layer, head, row: place?.row, column: place?.column })
    : null;
  const found = useAsked<Weights>(path, (signal) => client.post(path ?? "", picture?.file ?? new Blob(), signal), picture, model.name);
  const view = useMemo(() => (size ? viewRectangle(details.image ?? details, size.width, size.height) : null), [details, size]);
  const grid = found.value?.grid ?? details.grid ?? null;
  const layers = found.value?.layers ?? sheet.value?.layers ?? details.layers ?? null;
  const heads = found.value?.heads ?? sheet.value?.heads ?? details.heads ?? null;
  const chosenLayer = layer ?? found.value?.layer ?? null;

  function point(x: number, y: number) {
    const patch = view && grid ? patchAt(x, y, view, grid) : null;
    setOutside(patch === null);
    if (patch) setPlace(patch);
  }

  const headName = head === null ? t("attention.mean") : t("attention.head", { head });
  return (
    <div className="two">
      {/* the patches */}
      <section className="card" aria-labelledby="attention-title">
        <h2 id="attention-title">{t("attention.title")}</h2>
        {picture && able.attention && <p className="quiet">{t("attention.intro")}</p>}
        <Stage onSize={setSize} onPoint={able.attention && picture ? point : undefined}>
          {found.value && view && grid && <WeightLayer weights={found.value.weights} view={view} opacity={opacity} mark={place} grid={grid} />}
        </Stage>
        <Notice error={found.error} />
        {picture && able.attention && grid && (
          <>
            <p className="quiet" role="status">
              {outside ? `${t("attention.outside")} ` : ""}
              {found.busy ? t("look.looking") : found.value && chosenLayer !== null
                ? place
                  ? t("attention.of", { row: place.row, column: place.column, layer: chosenLayer, head: headName })
                  : t("attention.ofToken", { layer: chosenLayer, head: headName })
                : ""}
              {!found.busy && found.value?.prefix_mass ? ` ${t("attention.prefix", { share: percent(found.value.prefix_mass, i18n.language) })}` : ""}
            </p>
            <div className="controls">
              <PatchInput label={t("attention.row")} most={grid[0]} value={place?.row ?? null} onChange={(row) => setPlace({ row, column: place?.column ?? 0 })} />
              <PatchInput label={t("attention.column")} most={grid[1]} value={place?.column ?? null} onChange={(column) => setPlace({ row: place?.row ?? 0, column })} />
              {layers && <NumberChoice label={t("heat.layer")} count={layers} value={chosenLayer} onChange={setLayer} />}
              {heads && <NumberChoice label={t("heat.head")} none={t("heat.mean")} count={heads} value={head} onChange={setHead} />}
            </div>
            <Range label={t("heat.opacity")} value={opacity} onChange={setOpacity} />
            {place && (
              <Button variant="default" onClick={() => setPlace(null)}>
                {t("attention.token")}
              </Button>
            )}
          </>
        )}
      </section>
      {able.heads && (
        <section className="card" aria-labelledby="heads-title">
          <h2 id="heads-title">{t("attention.heads")}</h2>
          {!picture && <p className="quiet">{t("attention.empty")}</p>}
          {picture && <p className="quiet">{t("attention.headsIntro")}</p>}
          <Notice error={sheet.error} />
          {sheet.busy && <p role="status">{t("look.looking")}</p>}
          {sheet.value && (
            <HeadTable
              sheet={sheet.value}
              layer={chosenLayer}
              head={head}
              details={details}
              onChoose={(newLayer, newHead) => {
                setLayer(newLayer);
                setHead(newHead);
              }}
            />
          )}
        </section>
      )}
    </div>
  );
}

/** A row or column of the grid; nothing is asked while the field holds no whole number of it. */
function PatchInput({ label, most, value, onChange }: { label: string; most: number; value: number | null; onChange: (value: number) => void }) {
  const [text, setText] = useState("");
  useEffect(() => setText(value === null ? "" : String(value)), [value]);
  return (
    <TextInput
      label={label}
      type="number"
      min={0}
      max={most - 1}
      step={1}
      value={text}
      onChange={(event) => {
        setText(event.currentTarget.value);
        const found = Number(event.currentTarget.value);
        if (event.currentTarget.value !== "" && Number.isInteger(found) && found >= 0 && found < most) onChange(found);
      }}
    />
  );
}

function WeightLayer({
  weights,
  view,
  opacity,
  mark,
  grid,
}: {
  weights: number[][];
  view: Rectangle;
  opacity: number;
  mark: Place | null;
  grid: [number, number];
}) {
  const { t } = useTranslation();
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const columns = weights[0]?.length ?? 0;
    if (!canvas.current || !columns) return;
    canvas.current.width = columns;
    canvas.current.height = weights.length;
    canvas.current.getContext("2d")?.putImageData(new ImageData(weightPixels(weights, true), columns), 0, 0);
  }, [weights]);
  const box = (part: Rectangle) => ({
    left: `${part.left * 100}%`, top: `${part.top * 100}%`, width: `${part.width * 100}%`, height: `${part.height * 100}%`,
  });
  const cell = mark && {
    left: view.left + (mark.column / grid[1]) * view.width,
    top: view.top + (mark.row / grid[0]) * view.height,
    width: view.width / grid[1],
    height: view.height / grid[0],
  };
  return (
    <>
      <canvas ref={canvas} className="layer sharp" role="img" aria-label={t("attention.alt")} style={{ ...box(view), opacity }} />
      {cell && <span className="mark" style={box(cell)} aria-hidden="true" />}
    </>
  );
}

function HeadTable({
  sheet,
  layer,
  head,
  onChoose,
  details,
}: {
  sheet: Heads;
  layer: number | null;
  head: number | null;
  details: ModelDetails;
  onChoose: (layer: number, head: number | null) => void;
}) {
  const { t, i18n } = useTranslation();
  const { able } = useShared();
  const [image, setImage] = useState<HTMLImageElement | null>(null);
  useEffect(() => {
    let current = true;
    void loadImage(`data:image/png;base64,${sheet.maps}`).then((loaded) => current && setImage(loaded));
    return () => {
      current = false;
    };
  }, [sheet]);
  const [rows, columns] = sheet.grid;
  const layers = Array.from({ length: sheet.layers }, (_, at) => at);
  const heads = Array.from({ length: sheet.heads }, (_, at) => at);
  return (
    <>
      <div className="head-table" role="group" aria-label={`${details.name}: ${t("attention.heads")}`}>
        {layers.map((row) => (
          <div className="head-row" key={row}>
            <span className="quiet small">{t("attention.layer", { layer: row })}</span>
            <div className="head-cells" style={{ gridTemplateColumns: `repeat(${sheet.heads}, minmax(28px, 64px))` }}>
              {heads.map((column) => (
                <button
                  key={column}
                  type="button"
                  className="head-cell"
                  disabled={!able.attention}
                  aria-pressed={row === layer && column === head}
                  aria-label={t("attention.cell", { layer: row, head: column, entropy: number(sheet.entropy[row]?.[column] ?? 0, i18n.language, 3) })}
                  title={t("attention.cell", { layer: row, head: column, entropy: number(sheet.entropy[row]?.[column] ?? 0, i18n.language, 3) })}
                  onClick={() => onChoose(row, column)}
                >
                  {image && <HeadCell image={image} left={column * columns} top={row * rows} width={columns} height={rows} />}
                </button>
              ))}
            </div>
          </div>
        ))}
      </div>
      {head !== null && (
        <Group mt="sm">
          <Button size="xs" variant="default" onClick={() => onChoose(layer ?? 0, null)}>
            {t("attention.all")}
          </Button>
        </Group>
      )}
    </>
  );
}

function HeadCell({ image, left, top, width, height }: { image: HTMLImageElement; left: number; top: number; width: number; height: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const brush = canvas.current?.getContext("2d", { willReadFrequently: true });
    if (!brush) return;
    brush.drawImage(image, left, top, width, height, 0, 0, width, height);
    const pixels = brush.getImageData(0, 0, width, height);
    for (let at = 0; at < pixels.data.length; at += 4) pixels.data.set(inferno((pixels.data[at] ?? 0) / 255), at);
    brush.putImageData(pixels, 0, 0);
  }, [image, left, top, width, height]);
  return <canvas ref={canvas} width={width} height={height} aria-hidden="true" />;
}
