// Classes with their probabilities as bars; each can be chosen where the model explains itself.
import { useTranslation } from "react-i18next";
import type { Score } from "../api/types";
import { percent } from "../logic/text";

export function Bars({ scores, chosen, onChoose }: { scores: Score[]; chosen?: number | null; onChoose?: (score: Score) => void }) {
  const { t, i18n } = useTranslation();
  return (
    <ol className="bars" aria-label={t("look.bars")}>
      {scores.map((score) => {
        const style = score.index === chosen ? "bar chosen" : "bar";
        const inside = (
          <>
            <span className="fill" style={{ width: `${Math.max(0.4, score.probability * 100)}%` }} aria-hidden="true" />
            <span className="label">{score.label}</span>
            <span className="value">{percent(score.probability, i18n.language)}</span>
          </>
        );
        return (
          <li key={score.index}>
            {onChoose ? (
              <button type="button" className={style} data-label={score.label} aria-pressed={score.index === chosen} onClick={() => onChoose(score)}>
                {inside}
              </button>
            ) : (
              <div className={style} data-label={score.label}>
                {inside}
              </div>
            )}
          </li>
        );
      })}
    </ol>
  );
}
