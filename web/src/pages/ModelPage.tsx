// What is known of a model: facts, numbers, labels, inside, card.
import { Table, TextInput } from "@mantine/core";
import { lazy, Suspense, useState } from "react";
import { useTranslation } from "react-i18next";
import type { ModelDetails } from "../api/types";
import { number } from "../logic/text";
import { DistanceChart } from "../parts/DistanceChart";
import { useDetails, useShared } from "../state";

const Card = lazy(() => import("../parts/Card").then((part) => ({ default: part.Card })));
/** Above this many classes they can be searched. */
const MANY_LABELS = 24;

export function ModelPage() {
  const { t, i18n } = useTranslation();
  const { model } = useShared();
  const details = useDetails(model);
  const figures = figuresOf(details.metrics ?? {});
  const inside = details.inspection;
  return (
    <>
      <h2 className="page-title">{details.name}</h2>
      <div className="columns">
        <section className="card" aria-labelledby="facts-title">
          <h2 id="facts-title">{t("model.title")}</h2>
          <dl className="facts">
            {facts(details, t, i18n.language).map(([name, value]) => (
              <div key={name}>
                <dt>{name}</dt>
                <dd>{value}</dd>
              </div>
            ))}
          </dl>
        </section>
        <Labels details={details} />
        {figures.length > 0 && (
          <section className="card" aria-labelledby="figures-title">
            <h2 id="figures-title">{t("model.numbers")}</h2>
            <Table verticalSpacing={6}>
              <Table.Thead>
                <Table.Tr>
                  <Table.Th scope="col">{t("model.figure")}</Table.Th>
                  <Table.Th scope="col" className="number">
                    {t("model.value")}
                  </Table.Th>
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {figures.map(([name, value]) => (
                  <Table.Tr key={name}>
                    <Table.Td>{name}</Table.Td>
                    <Table.Td className="number">{typeof value === "number" ? number(value, i18n.language) : value}</Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </section>
        )}
        {inside && (inside.distance || inside.filters || inside.positions) && (
          <section className="card" aria-labelledby="inside-title">
            <h2 id="inside-title">{t("model.inside")}</h2>
            {inside.distance && <DistanceChart distance={inside.distance} caption={t("model.distance")} />}
            {inside.filters && <Sheet data={inside.filters} caption={t("model.filters")} />}
            {inside.positions && <Sheet data={inside.positions} caption={t("model.positions")} />}
          </section>
        )}
      </div>
      {details.card && (
        <section className="card below" aria-labelledby="card-title">
          <h2 id="card-title">{t("model.card")}</h2>
          <Suspense fallback={null}>
            <Card text={details.card} />
          </Suspense>
        </section>
      )}
    </>
  );
}

function facts(details: ModelDetails, t: (key: string) => string, language: string): [string, string][] {
  const found: [string, string | null | undefined][] = [
    [t("model.task"), details.task],
    [t("model.architecture"), details.architecture],
    [t("model.backend"), details.backend],
    [t("model.size"), `${details.height} × ${details.width}`],
    [t("model.channels"), `${details.channels} (${t(details.channels === 1 ? "model.grey" : "model.color")})`],
    [t("model.resize"), details.image?.resize],
    [t("model.parameters"), details.parameters == null ? null : new Intl.NumberFormat(language).format(details.parameters)],
    [t("model.layers"), details.layers?.toString()],
    [t("model.headCount"), details.heads?.toString()],
    [t("model.grid"), details.grid ? `${details.grid[0]} × ${details.grid[1]}` : null],
    [t("model.license"), details.license],
  ];
  return found.filter((row): row is [string, string] => Boolean(row[1]));
}

/** Numbers and words of the metrics, also of mappings within them; lists are left out. */
function figuresOf(metrics: Record<string, unknown>, before = ""): [string, number | string][] {
  return Object.entries(metrics).flatMap(([key, value]): [string, number | string][] => {
    const name = before + key.replaceAll("_", " ");
    if (typeof value === "number" || typeof value === "string") return [[name, value]];
    if (value && typeof value === "object" && !Array.isArray(value)) return figuresOf(value as Record<string, unknown>, `${name}, `);
    return [];
  });
}

function Labels({ details }: { details: ModelDetails }) {
  const { t } = useTranslation();
  const [wanted, setWanted] = useState("");
  const shown = details.labels
    .map((label, index) => ({ label, index }))
    .filter(({ label }) => label.toLowerCase().includes(wanted.trim().toLowerCase()));
  return (
    <section className="card" aria-labelledby="labels-title">
      <h2 id="labels-title">
        {t("model.labels")} · {details.labels.length}
      </h2>
      {details.labels.length > MANY_LABELS && (
        <TextInput type="search" aria-label={t("model.find")} placeholder={t("model.find")} value={wanted} onChange={(event) => setWanted(event.currentTarget.value)} mb="sm" />
      )}
      {shown.length === 0 && <p className="quiet">{t("model.noneFound")}</p>}
      <ul className="labels" tabIndex={details.labels.length > MANY_LABELS ? 0 : undefined} aria-labelledby="labels-title">
        {shown.map(({ label, index }) => (
          <li key={index}>
            {details.colors?.[index] && <span className="swatch" style={{ background: details.colors[index] }} aria-hidden="true" />}
            {label}
          </li>
        ))}
      </ul>
    </section>
  );
}

function Sheet({ data, caption }: { data: string; caption: string }) {
  return (
    <figure>
      <img className="sheet" src={`data:image/png;base64,${data}`} alt={caption} />
      <figcaption className="quiet small">{caption}</figcaption>
    </figure>
  );
}
