// A slider with its name and value.
import { Slider, Text } from "@mantine/core";
import { useId } from "react";
import { useTranslation } from "react-i18next";
import { percent } from "../logic/text";

/** A share between 0 and 1; `onEnd` hears of it when the slider rests. */
export function Range({
  label,
  value,
  onChange,
  onEnd,
  most = 1,
}: {
  label: string;
  value: number;
  onChange: (value: number) => void;
  onEnd?: (value: number) => void;
  most?: number;
}) {
  const { i18n } = useTranslation();
  const id = useId();
  return (
    <div className="range">
      <Text component="span" size="sm" id={id}>
        {label}
      </Text>
      <Slider
        aria-labelledby={id}
        thumbLabel={label}
        value={value * 100}
        onChange={(percentage) => onChange(percentage / 100)}
        onChangeEnd={onEnd ? (percentage) => onEnd(percentage / 100) : undefined}
        max={most * 100}
        step={5}
        label={null}
      />
      <output className="value">{percent(value, i18n.language).replace(/[.,]0/, "")}</output>
    </div>
  );
}
