// Images that the model's run has kept, to try without one of one's own.
import { UnstyledButton } from "@mantine/core";
import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { useDetails, useShared } from "../state";

interface Example {
  file: File;
  url: string;
}

export function Examples({ onChoose }: { onChoose: (file: File) => void }) {
  const { t } = useTranslation();
  const { client, model } = useShared();
  const count = useDetails(model).examples ?? 0;
  const [found, setFound] = useState<readonly Example[]>([]);
  useEffect(() => {
    const stop = new AbortController();
    let urls: string[] = [];
    setFound([]);
    const address = (number: number) => `v1/models/${encodeURIComponent(model.name)}/examples/${number}`;
    Promise.all(Array.from({ length: count }, (_, number) => client.file(address(number), stop.signal))).then(
      (blobs) => {
        if (stop.signal.aborted) return;
        const files = blobs.map((blob, number) => new File([blob], `example-${number + 1}.png`, { type: "image/png" }));
        urls = files.map((file) => URL.createObjectURL(file));
        setFound(files.map((file, number) => ({ file, url: urls[number] ?? "" })));
      },
      () => undefined, // without examples the page works as well
    );
    return () => {
      stop.abort();
      for (const url of urls) URL.revokeObjectURL(url);
    };
  }, [client, model.name, count]);
  if (found.length === 0) return null;
  return (
    <div className="examples" role="group" aria-label={t("stage.examples")}>
      <span className="quiet small">{t("stage.examples")}</span>
      <ul>
        {found.map(({ file, url }, number) => (
          <li key={url}>
            <UnstyledButton aria-label={t("stage.example", { number: number + 1 })} onClick={() => onChoose(file)}>
              <img src={url} alt="" width={48} height={48} />
            </UnstyledButton>
          </li>
        ))}
      </ul>
    </div>
  );
}
