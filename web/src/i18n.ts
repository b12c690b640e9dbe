// Languages of the page: the one chosen before, else the browser's, else English.
import i18next from "i18next";
import { initReactI18next } from "react-i18next";
import en from "./locales/en.json";
import es from "./locales/es.json";
import vi from "./locales/vi.json";

export const LANGUAGES = { en: "English", es: "Español", vi: "Tiếng Việt" } as const;
const STORED = "tesela-language";

function stored(): string | null {
  try {
    return localStorage.getItem(STORED);
  } catch {
    return null; // storage is switched off
  }
}

function first(): string {
  const wanted = [stored(), ...navigator.languages].map((one) => one?.slice(0, 2));
  return wanted.find((one) => one && one in LANGUAGES) ?? "en";
}

export async function startLanguages(): Promise<void> {
  await i18next.use(initReactI18next).init({
    lng: first(),
    fallbackLng: "en",
    resources: { en: { translation: en }, es: { translation: es }, vi: { translation: vi } },
    interpolation: { escapeValue: false }, // React escapes
  });
  document.documentElement.lang = i18next.language;
}

export async function chooseLanguage(language: string): Promise<void> {
  await i18next.changeLanguage(language);
  document.documentElement.lang = language;
  try {
    localStorage.setItem(STORED, language);
  } catch {
    // storage is switched off: the choice lasts as long as the page
  }
}
