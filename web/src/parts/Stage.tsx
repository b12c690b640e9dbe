// The image with layers over it, or the invitation to give one.
import { Button, Group } from "@mantine/core";
import { type MouseEvent, type ReactNode, useState } from "react";
import { useTranslation } from "react-i18next";
import { useShared } from "../state";
import { Camera, cameraIsThere } from "./Camera";
import { FileButton, useDropped } from "./Drop";
import { Examples } from "./Examples";
import { Icon } from "./Icon";

export interface Size {
  width: number;
  height: number;
}

export function Stage({
  children,
  onSize,
  onPoint,
  controls = true,
  frame = true,
}: {
  children?: ReactNode;
  onSize?: (size: Size) => void;
  /** A click, as shares of the image's width and height. */
  onPoint?: (x: number, y: number) => void;
  /** Whether another image can be given here. */
  controls?: boolean;
  /** Whether the image is shown here. */
  frame?: boolean;
}) {
  const { t } = useTranslation();
  const { picture, take } = useShared();
  const [camera, setCamera] = useState(false);
  const [seen, setSeen] = useState<{ url: string; size: Size | null } | null>(null);
  const use = (files: File[]) => {
    setCamera(false);
    if (files[0]) take(files[0]);
  };
  const over = useDropped(controls ? use : ignore);
  const known = seen && seen.url === picture?.url ? seen : null;
  const small = known?.size && Math.max(known.size.width, known.size.height) < 160;

  function point(event: MouseEvent<HTMLDivElement>) {
    const box = event.currentTarget.getBoundingClientRect();
    onPoint?.((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  }

  return (
    <div className={`stage ${frame ? "" : "bare"} ${picture || camera ? "" : "empty"} ${over && controls ? "over" : ""}`} data-testid="stage">
      {camera ? (
        <Camera onTake={(file) => use([file])} onClose={() => setCamera(false)} />
      ) : picture ? (
        <>
          {frame && <div className="frame">
            {known && !known.size ? (
              <p className="unseen">{t("stage.unseen", { name: picture.file.name })}</p>
            ) : (
              <div className={`picture ${small ? "small" : ""} ${onPoint ? "clickable" : ""}`} onClick={onPoint ? point : undefined}>
                <img
                  key={picture.url}
                  src={picture.url}
                  alt={t("stage.alt", { name: picture.file.name })}
                  onLoad={(event) => {
                    const size = { width: event.currentTarget.naturalWidth, height: event.currentTarget.naturalHeight };
                    setSeen({ url: picture.url, size });
                    onSize?.(size);
                  }}
                  onError={() => setSeen({ url: picture.url, size: null })}
                />
                {children}
              </div>
            )}
          </div>}
          {controls && <Group gap="sm" className={frame ? "again" : ""}>
            <FileButton variant="default" onFiles={use}>
              {t("stage.another")}
            </FileButton>
            <CameraButton onOpen={() => setCamera(true)} onFiles={use} />
          </Group>}
        </>
      ) : (
        <div className="invite">
          <Icon name="upload" size={40} />
          <strong>{t("stage.drop")}</strong>
          <span>{t("stage.or")}</span>
          <Group gap="sm" justify="center">
            <FileButton onFiles={use}>{t("stage.choose")}</FileButton>
            <CameraButton onOpen={() => setCamera(true)} onFiles={use} />
          </Group>
          <small>{t("shell.local")}</small>
        </div>
      )}
      {controls && !camera && <Examples onChoose={take} />}
    </div>
  );
}

function ignore(): void {
  // another stage of the page takes what is dropped
}

/** The camera in the page; without one to ask for, the device's own camera through the file picker. */
function CameraButton({ onOpen, onFiles }: { onOpen: () => void; onFiles: (files: File[]) => void }) {
  const { t } = useTranslation();
  if (!cameraIsThere()) {
    return (
      <FileButton capture variant="default" onFiles={onFiles}>
        {t("stage.camera")}
      </FileButton>
    );
  }
  return (
    <Button variant="default" leftSection={<Icon name="camera" />} onClick={onOpen}>
      {t("stage.camera")}
    </Button>
  );
}
