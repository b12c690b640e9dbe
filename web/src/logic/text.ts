// Numbers, names and server errors as people read them.
import type { TFunction } from "i18next";
import { ServerError } from "../api/client";

export function percent(value: number, language: string): string {
  return new Intl.NumberFormat(language, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 }).format(value);
}

export function number(value: number, language: string, digits = 4): string {
  return new Intl.NumberFormat(language, { maximumSignificantDigits: Math.max(digits, String(Math.trunc(Math.abs(value))).length) }).format(value);
}

export function methodName(method: string): string {
  return method.replaceAll("_", " ");
}

function sentence(text: string): string {
  return text ? (text[0] ?? "").toUpperCase() + text.slice(1).replace(/\.?$/, ".") : "";
}

/** The page's own words where it has some for the code, else the server's. */
export function errorText(error: unknown, t: TFunction): string {
  if (!(error instanceof ServerError)) return String(error);
  const own = t(`errors.${error.code}`, { defaultValue: "" });
  return own || `${sentence(error.message)} ${sentence(error.hint)}`.trim() || error.code;
}

/** A file's name without its ending, for the names of what is saved. */
export function stem(name: string): string {
  return name.replace(/\.[^.]*$/, "") || "image";
}
