// Rows of the table of many images, and their order.

export interface Row {
  id: number;
  file: File;
  url: string;
  state: "waiting" | "running" | "done" | "failed";
  label: string | null;
  probability: number | null;
  second: string | null;
  secondProbability: number | null;
  milliseconds: number | null;
  error: string | null;
}

export type Column = "name" | "label" | "probability" | "second" | "milliseconds";

export interface Order {
  column: Column;
  descending: boolean;
}

function key(row: Row, column: Column): string | number | null {
  return column === "name" ? row.file.name : row[column];
}

/** In that order; rows without a value come last in both directions, equal ones keep their place. */
export function sorted(rows: readonly Row[], order: Order | null, language: string): Row[] {
  if (!order) return [...rows];
  const collator = new Intl.Collator(language, { numeric: true });
  return [...rows].sort((one, other) => {
    const a = key(one, order.column);
    const b = key(other, order.column);
    if (a === null || b === null) return Number(a === null) - Number(b === null);
    const found = typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b));
    return order.descending ? -found : found;
  });
}

/** A click on a column: it ascends first, numbers descend first; a second click turns it round. */
export function nextOrder(order: Order | null, column: Column): Order {
  if (order?.column === column) return { column, descending: !order.descending };
  return { column, descending: column === "probability" || column === "milliseconds" };
}
