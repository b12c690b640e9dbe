// What one model says about the shared image: bars with a heat map, or a mask with its legend.
import { Button, Group, NativeSelect, Switch } from "@mantine/core";
import type { TFunction } from "i18next";
import { type ReactNode, useMemo, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { address } from "../api/client";
import type { Classification, Explanation, Model, Segmentation } from "../api/types";
import { ignoresClass, takesOption } from "../logic/capabilities";
import { overlayPng, save, saveJson } from "../logic/save";
import { methodName, number, percent, stem } from "../logic/text";
import { type Asked, useAsked, useDetails, useShared } from "../state";
import { DEFAULT_HEAT, HeatControls, type HeatSettings, useHeatQuery } from "./HeatControls";
import { Icon } from "./Icon";
import { Bars } from "./Bars";
import { Legend, MaskLayer } from "./MaskLayer";
import { Notice } from "./Notice";
import { Range } from "./Range";

export interface Answer {
  /** Goes over the image. */
  layer: ReactNode;
  /** The result in a line, said aloud. */
  said: ReactNode;
  /** Goes beside the image, below that line. */
  panel: ReactNode;
  /** The predicted label, where there is one. */
  label: string | null;
}

/** The answer of a model that classifies or segments; `full` has all controls. */
export function useAnswer(model: Model, full: boolean): Answer {
  const classify = useClassAnswer(model, full, model.task !== "segment");
  const segment = useMaskAnswer(model, full, model.task === "segment");
  return model.task === "segment" ? segment : classify;
}

function useClassAnswer(model: Model, full: boolean, active: boolean): Answer {
  const { t, i18n } = useTranslation();
  const { client, picture } = useShared();
  const details = useDetails(model);
  const [top, setTop] = useState(5);
  const [target, setTarget] = useState<{ of: unknown; index: number } | null>(null);
  const [heat, setHeat] = useState<HeatSettings>(DEFAULT_HEAT);
  const [opacity, setOpacity] = useState(0.75);
  const [shown, setShown] = useState(true);
  const query = useHeatQuery(details, heat);
  const path = active ? address(`v1/${encodeURIComponent(model.task)}`, { model: model.name, top }) : null;
  const found = useAsked<Classification>(path, (signal) => client.post(path ?? "", picture?.file ?? new Blob(), signal), picture, model.name);
  const scores = found.value?.top ?? null;
  const chosen = target && target.of === picture ? target.index : (scores?.[0]?.index ?? null);
  const explains = model.explainable && details.methods?.length !== 0;
  const asked = active && explains && shown && chosen !== null && scores !== null;
  const choosable = takesOption(details, "target");
  const why = asked ? address("v1/explain", { model: model.name, target: choosable ? chosen : null, ...query }) : null;
  const map = useAsked<Explanation>(why, (signal) => client.post(why ?? "", picture?.file ?? new Blob(), signal), picture, model.name);
  const heatmap = map.value;
  const first = scores?.[0];

  const layer = heatmap && <HeatLayer found={heatmap} opacity={opacity} />;
  const said = (
    <Live asked={found} empty={t("look.empty")}>
      {first ? t("look.said", { label: first.label, probability: percent(first.probability, i18n.language) }) : ""}
    </Live>
  );
  const panel = (
    <>
      <Notice error={found.error} />
      {scores && (
        <>
          <Bars scores={scores} chosen={asked ? chosen : null} onChoose={asked && choosable ? (score) => setTarget({ of: picture, index: score.index }) : undefined} />
          {asked && <p className="quiet">{t(choosable ? "look.choose" : "look.fixed")}</p>}
          {full && model.labels.length > 3 && (
            <NativeSelect
              className="top"
              label={t("look.top")}
              value={String(top)}
              onChange={(event) => setTop(Number(event.currentTarget.value))}
              data={topChoices(model.labels.length).map((count) => ({
                value: String(count),
                label: count === model.labels.length ? t("look.all") : String(count),
              }))}
            />
          )}
        </>
      )}
      {scores && explains && full && (
        <section className="part" aria-label={t("heat.title")}>
          <div className="part-head">
            <h3>{t("heat.title")}</h3>
            <Switch checked={shown} onChange={(event) => setShown(event.currentTarget.checked)} label={t("heat.show")} />
          </div>
          {shown && <HeatControls details={details} settings={heat} onChange={setHeat} />}
          {shown && <Range label={t("heat.opacity")} value={opacity} onChange={setOpacity} />}
          <Notice error={map.error} />
          <p className="quiet" role="status">
            {map.busy ? t("heat.computing") : heatmap ? brightPlaces(heatmap, t) : ""}
          </p>
        </section>
      )}
      {scores && !explains && full && <p className="quiet">{t("heat.none")}</p>}
      {!full && <Notice error={map.error} />}
      {!full && heatmap && <p className="quiet">{brightPlaces(heatmap, t)}</p>}
      {scores && picture && full && (
        <Saves
          json={() => saveJson(`${stem(picture.file.name)}.json`, { image: picture.file.name, prediction: found.value, explanation: heatmap })}
          overlay={
            heatmap &&
            (() => overlayPng(picture.url, `data:image/png;base64,${heatmap.heatmap}`, opacity, false))
          }
          name={`${stem(picture.file.name)}.${heatmap?.target.label ?? ""}.png`}
        />
      )}
      {full && <Took asked={found} />}
    </>
  );
  return { layer, said, panel, label: first?.label ?? null };
}

function useMaskAnswer(model: Model, full: boolean, active: boolean): Answer {
  const { t } = useTranslation();
  const { client, picture } = useShared();
  const details = useDetails(model);
  const [why, setWhy] = useState(false);
  const [target, setTarget] = useState<{ of: unknown; index: number } | null>(null);
  const [heat, setHeat] = useState<HeatSettings>(DEFAULT_HEAT);
  const query = useHeatQuery(details, heat);
  const [hidden, setHidden] = useState<{ of: unknown; classes: ReadonlySet<number> }>({ of: null, classes: new Set() });
  const [opacity, setOpacity] = useState(0.65);
  const canvas = useRef<HTMLCanvasElement>(null);
  const path = active ? address("v1/segment", { model: model.name }) : null;
  const found = useAsked<Segmentation>(path, (signal) => client.post(path ?? "", picture?.file ?? new Blob(), signal), picture, model.name);
  const none = useMemo(() => new Set<number>(), []);
  const mask = found.value;
  const gone = hidden.of === mask ? hidden.classes : none;
  const largest = mask ? [...mask.areas].sort((one, other) => other.share - one.share)[0] : undefined;
  const explains = full && model.explainable && details.methods?.length !== 0;
  const chosen = target && target.of === picture ? target.index : largest?.index;
  const choosable = takesOption(details, "target");
  const asked =
    explains && why && mask && chosen !== undefined
      ? address("v1/explain", { model: model.name, target: choosable ? chosen : null, ...query })
      : null;
  const map = useAsked<Explanation>(asked, (signal) => client.post(asked ?? "", picture?.file ?? new Blob(), signal), picture, model.name);
  const heatmap = asked ? map.value : null;
  const layer = mask && (
    <>
      {!asked && <MaskLayer found={mask} hidden={gone} opacity={opacity} canvas={canvas} />}
      {heatmap && <HeatLayer found={heatmap} opacity={opacity} />}
    </>
  );
  const said = (
    <Live asked={found} empty={t("look.emptyMask")}>
      {mask ? t("look.saidMask", { classes: mask.areas.map((area) => area.label).join(", ") }) : ""}
    </Live>
  );
  const panel = (
    <>
      <Notice error={found.error} />
      {mask && picture && (
        <>
          <Legend found={mask} hidden={gone} onChange={(classes) => setHidden({ of: mask, classes })} />
          <Range label={t("heat.opacity")} value={opacity} onChange={setOpacity} />
          {explains && chosen !== undefined && (
            <section className="part" aria-label={t("heat.title")}>
              <div className="part-head">
                <h3>{t("heat.title")}</h3>
                <Switch checked={why} onChange={(event) => setWhy(event.currentTarget.checked)} label={t("heat.instead")} />
              </div>
              {why && (
                <>
                  {choosable && (
                    <NativeSelect
                      label={t("heat.class")}
                      value={String(chosen)}
                      onChange={(event) => setTarget({ of: picture, index: Number(event.currentTarget.value) })}
                      data={mask.areas.map((area) => ({ value: String(area.index), label: area.label }))}
                    />
                  )}
                  <HeatControls details={details} settings={heat} onChange={setHeat} />
                </>
              )}
              <Notice error={map.error} />
              <p className="quiet" role="status">
                {map.busy ? t("heat.computing") : heatmap ? t("heat.pixels", explained(heatmap)) : ""}
              </p>
            </section>
          )}
          <Saves
            json={() =>
              saveJson(`${stem(picture.file.name)}.json`, { image: picture.file.name, prediction: mask, ...(heatmap && { explanation: heatmap }) })
            }
            overlay={() =>
              heatmap ? overlayPng(picture.url, `data:image/png;base64,${heatmap.heatmap}`, opacity, false) : canvas.current ? overlayPng(picture.url, canvas.current, opacity, true) : Promise.reject(new Error("no mask"))
            }
            name={`${stem(picture.file.name)}.${heatmap ? heatmap.target.label : "mask"}.png`}
          />
        </>
      )}
      <Took asked={found} />
    </>
  );
  return { layer, said, panel, label: largest?.label ?? null };
}

function HeatLayer({ found, opacity }: { found: Explanation; opacity: number }) {
  const { t } = useTranslation();
  return (
    <img
      className="layer"
      data-testid="heat"
      data-label={found.target.label}
      src={`data:image/png;base64,${found.heatmap}`}
      alt={t("heat.alt", { label: found.target.label })}
      style={{ opacity }}
    />
  );
}

function brightPlaces(heatmap: Explanation, t: TFunction): string {
  return t(ignoresClass(heatmap.method) ? "heat.any" : "heat.bright", explained(heatmap));
}

function explained(heatmap: Explanation): Record<string, string | number> {
  return { label: heatmap.target.label, method: methodName(heatmap.method), rows: heatmap.grid[0], columns: heatmap.grid[1] };
}

function topChoices(classes: number): number[] {
  return [...new Set([3, 5, 10, Math.min(classes, 1000)])].filter((count) => count <= classes).sort((one, other) => one - other);
}

/** What was found, said aloud when it changes. */
function Live({ asked, empty, children }: { asked: Asked<unknown>; empty: string; children: string }) {
  const { t } = useTranslation();
  const { picture } = useShared();
  const text = asked.busy ? t("look.looking") : children || (picture ? "" : empty);
  return (
    <p className={`live ${children && !asked.busy ? "found" : "quiet"}`} role="status" aria-live="polite" data-testid="said">
      {text}
    </p>
  );
}

function Took({ asked }: { asked: Asked<unknown> }) {
  const { t, i18n } = useTranslation();
  if (asked.milliseconds === null || asked.busy) return null;
  return <p className="quiet small">{t("look.took", { time: number(Math.round(asked.milliseconds), i18n.language) })}</p>;
}

function Saves({ json, overlay, name }: { json: () => void; overlay: (() => Promise<Blob>) | null; name: string }) {
  const { t } = useTranslation();
  const [error, setError] = useState<unknown>(null);
  async function saveOverlay() {
    setError(null);
    try {
      if (overlay) save(name, await overlay());
    } catch (problem) {
      setError(problem);
    }
  }
  return (
    <>
      <Group gap="sm" className="saves">
        {overlay && (
          <Button variant="default" leftSection={<Icon name="save" />} onClick={() => void saveOverlay()} data-testid="save-overlay">
            {t("look.overlay")}
          </Button>
        )}
        <Button variant="default" leftSection={<Icon name="save" />} onClick={json}>
          {t("look.json")}
        </Button>
      </Group>
      <Notice error={error} />
    </>
  );
}
