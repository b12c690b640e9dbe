// Many images at once: a table that sorts and can be saved.
import { Button, Group, Table, UnstyledButton } from "@mantine/core";
import { useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { address, isAbort } from "../api/client";
import type { Classification, Segmentation } from "../api/types";
import { csv } from "../logic/csv";
import { type Column, nextOrder, type Order, type Row, sorted } from "../logic/rows";
import { save } from "../logic/save";
import { errorText, number, percent } from "../logic/text";
import { FileButton, useDropped } from "../parts/Drop";
import { Icon } from "../parts/Icon";
import { useShared } from "../state";

/** Requests under way at once; the server gathers them into batches. */
const AT_ONCE = 4;
/** Small pictures of the first ones only, so that a folder of photographs does not fill the memory. */
const MOST_THUMBNAILS = 200;
let lastId = 0;
const kept: { rows: Row[]; model: string | null } = { rows: [], model: null };

export function Many() {
  const { t, i18n } = useTranslation();
  const { client, model, take } = useShared();
  const [rows, setRows] = useState<Row[]>(kept.rows);
  const [order, setOrder] = useState<Order | null>(null);
  const control = useRef<AbortController>(new AbortController());
  const queue = useRef<Row[]>([]);
  const running = useRef(0);
  const masks = model.task === "segment";

  const change = (id: number, values: Partial<Row>) =>
    setRows((before) => before.map((row) => (row.id === id ? { ...row, ...values } : row)));

  async function look(row: Row, signal: AbortSignal): Promise<void> {
    change(row.id, { state: "running" });
    const began = performance.now();
    try {
      const path = address(`v1/${encodeURIComponent(model.task)}`, { model: model.name, top: masks ? null : 2 });
      const scores = masks
        ? [...(await client.post<Segmentation>(path, row.file, signal)).areas]
            .sort((one, other) => other.share - one.share)
            .map((area) => ({ label: area.label, probability: area.share }))
        : (await client.post<Classification>(path, row.file, signal)).top;
      change(row.id, {
        state: "done",
        label: scores[0]?.label ?? null,
        probability: scores[0]?.probability ?? null,
        second: scores[1]?.label ?? null,
        secondProbability: scores[1]?.probability ?? null,
        milliseconds: performance.now() - began,
      });
    } catch (error) {
      if (!isAbort(error)) change(row.id, { state: "failed", error: errorText(error, t) });
    }
  }

  function work() {
    while (running.current < AT_ONCE && queue.current.length) {
      const row = queue.current.shift();
      if (!row) return;
      const { signal } = control.current;
      running.current += 1;
      void look(row, signal).finally(() => {
        if (signal.aborted) return;
        running.current -= 1;
        work();
      });
    }
  }

  function start(fresh: Row[]) {
    queue.current.push(...fresh);
    work();
  }

  function add(files: File[]) {
    const room = MOST_THUMBNAILS - rows.length;
    const fresh = files.map((file, at): Row => ({ ...WAITING, id: ++lastId, file, url: at < room ? URL.createObjectURL(file) : "" }));
    setRows((before) => [...before, ...fresh]);
    start(fresh);
  }

  function stop() {
    control.current.abort();
    control.current = new AbortController();
    queue.current = [];
    running.current = 0;
  }

  function clear() {
    stop();
    for (const row of rows) if (row.url) URL.revokeObjectURL(row.url);
    setRows([]);
    setOrder(null);
  }

  // the table stays when another page is opened
  const latest = useRef(rows);
  latest.current = rows;
  useEffect(() => {
    kept.rows = rows;
  }, [rows]);
  // another model: everything again; back on this page: what was not done
  useEffect(() => {
    const all = kept.model !== model.name;
    kept.model = model.name;
    const again = latest.current
      .filter((row) => all || row.state === "waiting" || row.state === "running")
      .map((row) => ({ ...row, ...WAITING }));
    const fresh = new Map(again.map((row) => [row.id, row]));
    setRows(latest.current.map((row) => fresh.get(row.id) ?? row));
    start(again);
    return stop;
  }, [model.name, client]);

  const over = useDropped(add);
  const done = rows.filter((row) => row.state === "done" || row.state === "failed").length;
  const shown = sorted(rows, order, i18n.language);
  const share = masks ? "share" : "probability";

  function saveTable() {
    const header = ["name", "label", share, "second_label", `second_${share}`, "milliseconds", "error"];
    const lines = shown.map((row) => [
      row.file.name, row.label, row.probability, row.second, row.secondProbability,
      row.milliseconds === null ? null : Math.round(row.milliseconds), row.error,
    ]);
    save("predictions.csv", new Blob([csv(header, lines)], { type: "text/csv;charset=utf-8" }));
  }

  const columns: [Column, string][] = [
    ["name", t("many.name")], ["label", t("many.label")], ["probability", t(`many.${share}`)],
    ["second", t("many.second")], ["milliseconds", t("many.time")],
  ];
  return (
    <>
      <h2 className="page-title">{t("many.title")}</h2>
      <p className="lead">{t("many.intro")}</p>
      <section className="card" aria-label={t("many.title")}>
        <div className={`stage strip ${over ? "over" : ""} ${rows.length ? "" : "empty"}`}>
          {rows.length === 0 && <strong>{t("many.drop")}</strong>}
          <Group gap="sm">
            <FileButton many onFiles={add} variant={rows.length ? "default" : "filled"}>
              {t("many.choose")}
            </FileButton>
            {rows.length > 0 && (
              <>
                <Button variant="default" leftSection={<Icon name="save" />} onClick={saveTable}>
                  {t("many.save")}
                </Button>
                <Button variant="default" onClick={clear}>
                  {t("many.clear")}
                </Button>
              </>
            )}
          </Group>
          <span className="quiet" role="status">
            {rows.length > 0 && t("many.progress", { done, all: rows.length })}
          </span>
        </div>
        {rows.length > 0 && (
          <Table.ScrollContainer minWidth={0}>
            <Table verticalSpacing={6}>
              <Table.Thead>
                <Table.Tr>
                  <Table.Th scope="col">
                    <span className="offscreen">{t("many.image")}</span>
                  </Table.Th>
                  {columns.map(([column, name]) => (
                    <Table.Th
                      key={column}
                      scope="col"
                      className={`${NUMERIC.has(column) ? "number" : ""} ${WIDE.has(column) ? "wide" : ""}`}
                      aria-sort={order?.column === column ? (order.descending ? "descending" : "ascending") : "none"}
                    >
                      <UnstyledButton className="sort" onClick={() => setOrder(nextOrder(order, column))} title={t("many.sort", { column: name })}>
                        {name}
                        <span aria-hidden="true">{order?.column === column ? (order.descending ? " ↓" : " ↑") : ""}</span>
                      </UnstyledButton>
                    </Table.Th>
                  ))}
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {shown.map((row) => (
                  <Table.Tr key={row.id}>
                    <Table.Td className="thumbnail">{row.url && <img src={row.url} alt="" loading="lazy" width={40} height={40} onError={(event) => (event.currentTarget.hidden = true)} />}</Table.Td>
                    <Table.Td>
                      <UnstyledButton
                        className="name"
                        aria-label={t("many.open", { name: row.file.name })}
                        onClick={() => {
                          take(row.file);
                          location.hash = "#/";
                        }}
                      >
                        {row.file.name}
                      </UnstyledButton>
                    </Table.Td>
                    {row.state === "done" ? (
                      <>
                        <Table.Td>{row.label}</Table.Td>
                        <Table.Td className="number">{row.probability !== null && percent(row.probability, i18n.language)}</Table.Td>
                        <Table.Td className="quiet wide">
                          {row.second} {row.secondProbability !== null && percent(row.secondProbability, i18n.language)}
                        </Table.Td>
                        <Table.Td className="number quiet wide">{number(Math.round(row.milliseconds ?? 0), i18n.language)} ms</Table.Td>
                      </>
                    ) : (
                      <Table.Td colSpan={4} className={row.state === "failed" ? "wrong" : "quiet"}>
                        {row.state === "failed" ? `${t("many.failed")}: ${row.error ?? ""}` : t(`many.${row.state}`)}
                      </Table.Td>
                    )}
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
        )}
      </section>
    </>
  );
}

/** Left out on a phone. */
const WIDE = new Set<Column>(["second", "milliseconds"]);
const NUMERIC = new Set<Column>(["probability", "milliseconds"]);
const WAITING = {
  state: "waiting", label: null, probability: null, second: null, secondProbability: null, milliseconds: null, error: null,
} as const;
