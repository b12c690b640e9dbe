// Settings of the heat map: method, and layer, head, discard and share of attention where the method takes them.
import { NativeSelect } from "@mantine/core";
import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import type { ModelDetails } from "../api/types";
import { methodsOf, settingsOf } from "../logic/capabilities";
import { methodName } from "../logic/text";
import { useShared } from "../state";
import { Range } from "./Range";

export interface HeatSettings {
  method: string;
  layer: number | null;
  head: number | null;
  discard: number;
  residual: number;
}

export const DEFAULT_HEAT: HeatSettings = { method: "auto", layer: null, head: null, discard: 0, residual: 0.5 };

/** The query that these settings make; what the method or the server does not take is left out. */
export function useHeatQuery(details: ModelDetails, settings: HeatSettings): Record<string, string | number | null> {
  const { able } = useShared();
  const takes = settingsOf(settings.method, able, details);
  return {
    method: settings.method,
    layer: takes.layer ? settings.layer : null,
    head: takes.head ? settings.head : null,
    discard: takes.discard && settings.discard > 0 ? settings.discard : null,
    residual: takes.residual && settings.residual !== 0.5 ? settings.residual : null,
  };
}

export function HeatControls({
  details,
  settings,
  onChange,
}: {
  details: ModelDetails;
  settings: HeatSettings;
  onChange: (settings: HeatSettings) => void;
}) {
  const { t } = useTranslation();
  const { able } = useShared();
  const takes = settingsOf(settings.method, able, details);
  return (
    <div className="controls">
      <NativeSelect
        label={t("heat.method")}
        value={settings.method}
        onChange={(event) => onChange({ ...settings, method: event.currentTarget.value })}
        data={methodsOf(details, able).map((name) => ({ value: name, label: name === "auto" ? t("heat.auto") : methodName(name) }))}
      />
      {takes.layer && details.layers && (
        <NumberChoice
          label={t("heat.layer")}
          none={t("heat.last")}
          count={details.layers}
          value={settings.layer}
          onChange={(layer) => onChange({ ...settings, layer })}
        />
      )}
      {takes.head && details.heads && (
        <NumberChoice
          label={t("heat.head")}
          none={t("heat.mean")}
          count={details.heads}
          value={settings.head}
          onChange={(head) => onChange({ ...settings, head })}
        />
      )}
      {takes.discard && (
        <Resting label={t("heat.discard")} value={settings.discard} most={0.95} onChange={(discard) => onChange({ ...settings, discard })} />
      )}
      {takes.residual && (
        <Resting label={t("heat.residual")} value={settings.residual} onChange={(residual) => onChange({ ...settings, residual })} />
      )}
    </div>
  );
}

/** A range that tells its value when it rests, so that the server is not asked at every step. */
function Resting({ label, value, most, onChange }: { label: string; value: number; most?: number; onChange: (value: number) => void }) {
  const [shown, setShown] = useState(value);
  useEffect(() => setShown(value), [value]);
  useEffect(() => {
    const timer = setTimeout(() => shown !== value && onChange(shown), 300);
    return () => clearTimeout(timer);
  });
  return <Range label={label} value={shown} most={most} onChange={setShown} />;
}

/** One of the numbers from 0, or none of them. */
export function NumberChoice({
  label,
  none,
  count,
  value,
  onChange,
}: {
  label: string;
  none?: string;
  count: number;
  value: number | null;
  onChange: (value: number | null) => void;
}) {
  const numbers = Array.from({ length: count }, (_, at) => ({ value: String(at), label: String(at) }));
  return (
    <NativeSelect
      label={label}
      value={value === null ? "" : String(value)}
      onChange={(event) => onChange(event.currentTarget.value === "" ? null : Number(event.currentTarget.value))}
      data={none === undefined ? numbers : [{ value: "", label: none }, ...numbers]}
    />
  );
}
