// One image and one model.
import { useTranslation } from "react-i18next";
import { useAnswer } from "../parts/Answer";
import { Stage } from "../parts/Stage";
import { useShared } from "../state";

export function Look() {
  const { t } = useTranslation();
  const { model } = useShared();
  const answer = useAnswer(model, true);
  return (
    <div className="two">
      <section className="card" aria-labelledby="image-title">
        <h2 id="image-title">{t("stage.title")}</h2>
        <Stage>{answer.layer}</Stage>
      </section>
      <section className="card" aria-labelledby="result-title">
        <h2 id="result-title">{t("look.title")}</h2>
        {answer.said}
        {answer.panel}
      </section>
    </div>
  );
}
