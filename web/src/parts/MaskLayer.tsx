// The mask over the image as a canvas, and the legend with which classes are shown and hidden.
import { Button, Checkbox, ColorSwatch, Group } from "@mantine/core";
import { type RefObject, useEffect } from "react";
import { useTranslation } from "react-i18next";
import type { Segmentation } from "../api/types";
import { withHidden } from "../logic/mask";
import { loadImage } from "../logic/save";
import { percent } from "../logic/text";

export function MaskLayer({
  found,
  hidden,
  opacity,
  canvas,
}: {
  found: Segmentation;
  hidden: ReadonlySet<number>;
  opacity: number;
  canvas: RefObject<HTMLCanvasElement | null>;
}) {
  const { t } = useTranslation();
  useEffect(() => {
    let current = true;
    void loadImage(`data:image/png;base64,${found.mask}`).then((image) => {
      const brush = canvas.current?.getContext("2d", { willReadFrequently: true });
      if (!current || !brush || !canvas.current) return;
      canvas.current.width = image.naturalWidth;
      canvas.current.height = image.naturalHeight;
      brush.drawImage(image, 0, 0);
      const pixels = brush.getImageData(0, 0, image.naturalWidth, image.naturalHeight);
      pixels.data.set(withHidden(pixels.data, found.areas, hidden));
      brush.putImageData(pixels, 0, 0);
    });
    return () => {
      current = false;
    };
  }, [found, hidden, canvas]);
  return <canvas ref={canvas} className="layer sharp" role="img" aria-label={t("mask.alt")} style={{ opacity }} />;
}

export function Legend({
  found,
  hidden,
  onChange,
}: {
  found: Segmentation;
  hidden: ReadonlySet<number>;
  onChange: (hidden: ReadonlySet<number>) => void;
}) {
  const { t, i18n } = useTranslation();
  function toggle(index: number) {
    const next = new Set(hidden);
    if (!next.delete(index)) next.add(index);
    onChange(next);
  }
  return (
    <>
      <ul className="legend" aria-label={t("mask.legend")}>
        {found.areas.map((area) => (
          <li key={area.index}>
            <Checkbox
              checked={!hidden.has(area.index)}
              onChange={() => toggle(area.index)}
              aria-label={t("mask.show", { label: area.label })}
              label={
                <span className="legend-label">
                  <ColorSwatch color={area.color} size={16} radius={4} withShadow={false} aria-hidden="true" />
                  {area.label}
                </span>
              }
            />
            <span className="value">{percent(area.share, i18n.language)}</span>
          </li>
        ))}
      </ul>
      <Group gap="sm">
        <Button size="xs" variant="default" onClick={() => onChange(new Set())}>
          {t("mask.all")}
        </Button>
        <Button size="xs" variant="default" onClick={() => onChange(new Set(found.areas.map((area) => area.index)))}>
          {t("mask.none")}
        </Button>
      </Group>
    </>
  );
}
