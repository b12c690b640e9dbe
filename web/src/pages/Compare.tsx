// Two models on the same image.
import { NativeSelect } from "@mantine/core";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import type { Model } from "../api/types";
import { useAnswer } from "../parts/Answer";
import { Stage } from "../parts/Stage";
import { useShared } from "../state";

export function Compare() {
  const { t } = useTranslation();
  const { models, model, picture } = useShared();
  const other = models.find((one) => one.name !== model.name) ?? model;
  const [names, setNames] = useState<[string, string]>([model.name, other.name]);
  const pick = (name: string) => models.find((one) => one.name === name) ?? model;
  const [one, two] = [pick(names[0]), pick(names[1])];
  const left = useAnswer(one, false);
  const right = useAnswer(two, false);
  const verdict =
    left.label === null || right.label === null
      ? ""
      : left.label === right.label
        ? t("compare.same", { label: left.label })
        : t("compare.differ", { left: left.label, right: right.label });
  return (
    <>
      <h2 className="page-title">{t("compare.title")}</h2>
      <p className="lead" role="status">
        {picture ? verdict : t("compare.empty")}
      </p>
      <section className="card" aria-label={t("stage.title")}>
        <Stage frame={false} />
      </section>
      <div className="two sides">
        <Side title={t("compare.left")} model={one} onChange={(name) => setNames([name, names[1]])} answer={left} />
        <Side title={t("compare.right")} model={two} onChange={(name) => setNames([names[0], name])} answer={right} />
      </div>
    </>
  );
}

function Side({
  title,
  model,
  onChange,
  answer,
}: {
  title: string;
  model: Model;
  onChange: (name: string) => void;
  answer: ReturnType<typeof useAnswer>;
}) {
  const { models, picture } = useShared();
  return (
    <section className="card side" aria-label={title}>
      <NativeSelect
        label={title}
        value={model.name}
        onChange={(event) => onChange(event.currentTarget.value)}
        data={models.map((one) => ({ value: one.name, label: one.name }))}
      />
      {picture && (
        <>
          <Stage controls={false}>{answer.layer}</Stage>
          {answer.said}
          <div>{answer.panel}</div>
        </>
      )}
    </section>
  );
}
