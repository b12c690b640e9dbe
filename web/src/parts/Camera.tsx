// The camera's live picture and a button that takes it.
import { Button, Group } from "@mantine/core";
import { useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";

export function cameraIsThere(): boolean {
  return typeof navigator.mediaDevices?.getUserMedia === "function";
}

export function Camera({ onTake, onClose }: { onTake: (file: File) => void; onClose: () => void }) {
  const { t } = useTranslation();
  const video = useRef<HTMLVideoElement>(null);
  const [refused, setRefused] = useState<string | null>(null);

  useEffect(() => {
    let stream: MediaStream | null = null;
    let current = true;
    navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } }).then(
      (found) => {
        if (!current) {
          found.getTracks().forEach((track) => track.stop());
          return;
        }
        stream = found;
        if (video.current) video.current.srcObject = found;
      },
      (error: unknown) => {
        if (current) setRefused(error instanceof Error ? error.message : String(error));
      },
    );
    return () => {
      current = false;
      stream?.getTracks().forEach((track) => track.stop());
    };
  }, []);

  function take() {
    const from = video.current;
    if (!from || !from.videoWidth) return;
    const canvas = document.createElement("canvas");
    canvas.width = from.videoWidth;
    canvas.height = from.videoHeight;
    canvas.getContext("2d")?.drawImage(from, 0, 0);
    canvas.toBlob((blob) => {
      if (blob) onTake(new File([blob], "camera.png", { type: "image/png" }));
    }, "image/png");
  }

  return (
    <div className="camera" role="group" aria-label={t("camera.title")}>
      {refused === null ? (
        <video ref={video} autoPlay playsInline muted aria-label={t("camera.alt")} />
      ) : (
        <p role="alert">{t("camera.refused", { reason: refused })}</p>
      )}
      <Group justify="center" gap="sm">
        {refused === null && <Button onClick={take}>{t("camera.take")}</Button>}
        <Button variant="default" onClick={onClose}>
          {t("camera.close")}
        </Button>
      </Group>
    </div>
  );
}
