// Header, navigation and the page that the address names.
import { ActionIcon, Button, Loader, NativeSelect, PasswordInput, useComputedColorScheme, useMantineColorScheme } from "@mantine/core";
import { type FormEvent, type ReactNode, useEffect, useState, useSyncExternalStore } from "react";
import { useTranslation } from "react-i18next";
import { chooseLanguage, LANGUAGES } from "./i18n";
import { Attention } from "./pages/Attention";
import { Compare } from "./pages/Compare";
import { Look } from "./pages/Look";
import { Many } from "./pages/Many";
import { ModelPage } from "./pages/ModelPage";
import { Icon } from "./parts/Icon";
import { Notice } from "./parts/Notice";
import { SharedState, useDetails, useShared } from "./state";
import iconUrl from "./icon.svg";

const PAGES = { look: Look, many: Many, compare: Compare, attention: Attention, model: ModelPage } as const;
type PageName = keyof typeof PAGES;

function onHash(changed: () => void): () => void {
  addEventListener("hashchange", changed);
  return () => removeEventListener("hashchange", changed);
}

function usePage(): PageName {
  const hash = useSyncExternalStore(onHash, () => location.hash.replace(/^#\/?/, ""));
  return hash in PAGES ? (hash as PageName) : "look";
}

export function App() {
  return (
    <SharedState
      waiting={(start, key, useKey, again) => (
        <Frame header={null}>
          {start.state === "loading" && <Waiting />}
          {start.state === "locked" && <KeyForm wrong={key !== ""} onKey={useKey} />}
          {start.state === "failed" && (
            <section className="card narrow">
              <Notice error={start.error} />
              <Button mt="md" onClick={again}>
                <Again />
              </Button>
            </section>
          )}
        </Frame>
      )}
    >
      <Pages />
    </SharedState>
  );
}

function Pages() {
  const { t } = useTranslation();
  const { models, model, choose, able } = useShared();
  const details = useDetails(model);
  const wanted = usePage();
  const there: Record<PageName, boolean> = {
    look: true,
    many: true,
    compare: models.length > 1,
    // null layers: the network has no attention to show
    attention: (able.heads || able.attention) && model.explainable && (!able.details || details.layers != null),
    model: true,
  };
  const page = there[wanted] ? wanted : "look";
  const Page = PAGES[page];
  useEffect(() => {
    document.title = `${t(`nav.${page}`)} · ${model.name} · tesela`;
  }, [page, model.name, t]);
  return (
    <Frame
      header={
        <>
          {models.length > 1 ? (
            <NativeSelect
              className="model-choice"
              aria-label={t("shell.model")}
              value={model.name}
              onChange={(event) => choose(event.currentTarget.value)}
              data={models.map((one) => ({ value: one.name, label: one.name }))}
            />
          ) : (
            <span className="model-name">{model.name}</span>
          )}
        </>
      }
      nav={
        <nav aria-label={t("nav.label")}>
          <ul>
            {(Object.keys(PAGES) as PageName[])
              .filter((name) => there[name])
              .map((name) => (
                <li key={name}>
                  <a href={name === "look" ? "#/" : `#/${name}`} aria-current={name === page ? "page" : undefined}>
                    {t(`nav.${name}`)}
                  </a>
                </li>
              ))}
          </ul>
        </nav>
      }
    >
      <Page />
    </Frame>
  );
}

function Frame({ header, nav, children }: { header: ReactNode; nav?: ReactNode; children: ReactNode }) {
  const { t, i18n } = useTranslation();
  const { setColorScheme } = useMantineColorScheme();
  const scheme = useComputedColorScheme("light");
  const turn = t(scheme === "dark" ? "shell.light" : "shell.dark");
  return (
    <>
      <a
        className="skip"
        href="#content"
        onClick={(event) => {
          event.preventDefault(); // the part behind # names the page
          document.getElementById("content")?.focus();
        }}
      >
        {t("shell.skip")}
      </a>
      <header>
        <div className="bar-top">
          <img src={iconUrl} alt="" width={28} height={28} />
          <h1>tesela</h1>
          {header}
          <div className="tools">
            <NativeSelect
              aria-label={t("shell.language")}
              data-testid="language"
              value={i18n.language}
              onChange={(event) => void chooseLanguage(event.currentTarget.value)}
              data={Object.entries(LANGUAGES).map(([value, label]) => ({ value, label }))}
            />
            <ActionIcon
              variant="default"
              size={36}
              aria-label={turn}
              title={turn}
              onClick={() => setColorScheme(scheme === "dark" ? "light" : "dark")}
            >
              <Icon name={scheme === "dark" ? "sun" : "moon"} />
            </ActionIcon>
          </div>
        </div>
        {nav}
      </header>
      <main id="content" tabIndex={-1}>
        {children}
      </main>
      <footer>
        <span>{t("shell.local")}</span>
        <a href="openapi.json">{t("shell.api")}</a>
      </footer>
    </>
  );
}

function Waiting() {
  const { t } = useTranslation();
  return (
    <p className="waiting" role="status">
      <Loader size="sm" /> {t("shell.loading")}
    </p>
  );
}

function Again() {
  const { t } = useTranslation();
  return <>{t("shell.again")}</>;
}

function KeyForm({ wrong, onKey }: { wrong: boolean; onKey: (key: string) => void }) {
  const { t } = useTranslation();
  const [text, setText] = useState("");
  function send(event: FormEvent) {
    event.preventDefault();
    if (text) onKey(text);
  }
  return (
    <section className="card narrow">
      <form onSubmit={send}>
        <h2 className="page-title">{t("key.title")}</h2>
        <PasswordInput
          label={t("key.label")}
          value={text}
          onChange={(event) => setText(event.currentTarget.value)}
          autoComplete="off"
          error={wrong ? t("key.wrong") : undefined}
          required
        />
        <Button type="submit" mt="md">
          {t("key.use")}
        </Button>
      </form>
    </section>
  );
}
